//go:build !linux

package maildir

import (
	"errors"
	"os"
)

func syncfsReports() bool { return false }

func syncWide(dir *os.File) error {
	return &os.PathError{Op: "syncfs", Path: dir.Name(), Err: errors.ErrUnsupported}
}

func deviceOf(string) (uint64, error) { return 0, nil }

// bootID is unknown here: every start counts as one after a power cut.
func bootID() string { return "" }
