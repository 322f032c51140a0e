package maildir

import (
	"errors"
	"os"
	"time"
)

// sweepAge is how old a file in tmp/ must be for nobody to be writing it any
// more, as maildir(5) has it.
const sweepAge = 36 * time.Hour

// sweep removes what killed writers left in the folder's tmp/, but never a file
// that is acknowledged and waits for a mailbox. What cannot be removed waits
// for the next time.
func (b *box) sweep(now time.Time) {
	dir := b.file("tmp")
	entries, err := os.ReadDir(dir)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			b.p.log.Warn("could not look for abandoned files", "dir", dir, "err", err)
		}
		return
	}
	removed := 0
	for _, e := range entries {
		fi, err := e.Info()
		name := dir + "/" + e.Name()
		if err != nil || !fi.Mode().IsRegular() || !olderThan(fi, now.Add(-sweepAge)) || b.p.o.Owed != nil && b.p.o.Owed(name) {
			continue
		}
		if err := b.p.ops.remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			b.p.log.Warn("could not remove an abandoned file", "file", name, "err", err)
			continue
		}
		removed++
	}
	if removed > 0 {
		b.p.log.Info("removed abandoned files", "dir", dir, "files", removed)
	}
}
