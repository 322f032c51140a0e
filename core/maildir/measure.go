package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
)

// unknownSize is a message's size that nobody has asked for: the file's name does not
// tell it, and to find it out means to read the file.
const unknownSize = -1

// Measure finds out the sizes that are not known yet, by reading files. Messages that
// have gone, and those that cannot be read, are left out.
func (f *Folder) Measure(ctx context.Context) error {
	b := f.b
	type file struct {
		uid  uint32
		path string
		size int64
	}
	var files []file
	b.mu.RLock()
	for i := range b.msgs {
		if m := &b.msgs[i]; m.Size < 0 {
			files = append(files, file{m.UID, b.path(m), unknownSize})
		}
	}
	b.mu.RUnlock()
	if len(files) == 0 {
		return nil
	}
	var group sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), 8, len(files))
	faults := make([]error, workers)
	for w := range workers {
		group.Go(func() {
			for i := w; i < len(files) && ctx.Err() == nil && faults[w] == nil; i += workers {
				n, err := virtualSize(b.file(files[i].path))
				switch {
				case err == nil:
					files[i].size = n
				case !errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrUnreadable):
					faults[w] = fmt.Errorf("measure messages in %s: %w", f.name, err)
				}
			}
		})
	}
	group.Wait()
	if err := b.take(ctx); err != nil {
		return err
	}
	defer b.give()
	b.mu.Lock()
	defer b.mu.Unlock()
	msgs := b.edit()
	for _, x := range files {
		if i, ok := find(msgs, x.uid); ok && x.size >= 0 && msgs[i].Size < 0 {
			msgs[i].Size = x.size
			b.changes++
		}
	}
	return errors.Join(faults...)
}
