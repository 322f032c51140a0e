package maildir

import (
	"errors"
	"os"
	"testing"
	"time"
)

// TestSweep: what lies in tmp/ for days goes away when the folder is first
// opened; what is young, or owed to a mailbox, stays.
func TestSweep(t *testing.T) {
	p, path := testPool(t)
	owed := path + "/tmp/owed"
	p.o.Owed = func(file string) bool { return file == owed }
	s := openStore(t, p, path)
	put(t, path+"/tmp/abandoned", "half a mess")
	put(t, owed, "whole")
	now := time.Now()
	openFolder(t, s, "INBOX")
	for _, name := range []string{"/tmp/abandoned", "/tmp/owed"} {
		if _, err := os.Stat(path + name); err != nil {
			t.Fatalf("%s went at once: %v", name, err)
		}
	}
	b := p.boxes[path]
	b.sweep(now.Add(sweepAge - time.Minute))
	if _, err := os.Stat(path + "/tmp/abandoned"); err != nil {
		t.Fatalf("it went too early: %v", err)
	}
	b.sweep(now.Add(sweepAge + time.Minute))
	if _, err := os.Stat(path + "/tmp/abandoned"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an abandoned file is still there: %v", err)
	}
	if _, err := os.Stat(owed); err != nil {
		t.Errorf("an owed message was removed: %v", err)
	}
}
