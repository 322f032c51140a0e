package core

import (
	"slices"
	"testing"

	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/imapd"
)

// TestExtensions: what a configuration may leave out is what the IMAP door has.
func TestExtensions(t *testing.T) {
	known, there := config.IMAPExtensions(), imapd.Extensions()
	slices.Sort(known)
	slices.Sort(there)
	if !slices.Equal(known, there) {
		t.Errorf("the configuration knows %v, there are %v", known, there)
	}
}
