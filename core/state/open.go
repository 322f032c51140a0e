package state

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	fileName = "state.db"
	markName = "state.db.damaged" // beside a file that is to be set aside
	lockWait = time.Second
)

// errDamaged is what is wrong with a file that holds something else than it should.
var errDamaged = errors.New("state is damaged")

// Open opens the file in dir, which is made if it is missing; its parent is
// there. It is an error if another process holds it, or if the disk or its
// permissions forbid. A file that cannot be read is set aside.
func Open(dir string, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxOctets <= 0 {
		o.MaxOctets = 1 << 30
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("open state %s: %w", dir, err)
	}
	s := &Store{
		dir: dir, o: o, seed: maphash.MakeSeed(), pending: map[string][]byte{},
		soon: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	err := s.open()
	if errors.Is(err, errDamaged) {
		aside := filepath.Join(dir, fileName+".broken-"+o.Now().UTC().Format("20060102T150405.000Z"))
		if renamed := os.Rename(filepath.Join(dir, fileName), aside); renamed != nil {
			return nil, fmt.Errorf("open state %s: %w; set it aside: %w", dir, err, renamed)
		}
		o.Logger.Warn("state cannot be read and is set aside", "file", filepath.Join(dir, fileName), "aside", aside, "err", err)
		if err = os.Remove(filepath.Join(dir, markName)); err == nil || errors.Is(err, fs.ErrNotExist) {
			err = s.open()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", dir, err)
	}
	s.done.Go(s.maintain)
	return s, nil
}

// open opens the file once.
func (s *Store) open() error {
	name := filepath.Join(s.dir, fileName)
	if _, err := os.Stat(filepath.Join(s.dir, markName)); err == nil {
		return fmt.Errorf("%w: it was found to be so when it was read", errDamaged)
	}
	err := s.guard(func() (err error) {
		s.db, err = bbolt.Open(name, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
		return err
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return errors.New("another process holds it")
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("%w: %w", errDamaged, err)
	case err != nil:
		return err
	}
	if err := s.whole(name); err != nil {
		return errors.Join(err, s.db.Close())
	}
	err = s.update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{records, ends, meta} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, s.db.Close())
	}
	return nil
}

// whole reports whether all of the file is there: reading what a map of memory
// promises and the file does not hold would end the process.
func (s *Store) whole(name string) error {
	fi, err := os.Stat(name)
	if err != nil {
		return err
	}
	return s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			if tx.Size() > fi.Size() {
				return fmt.Errorf("%w: %d of its %d octets are there", errDamaged, fi.Size(), tx.Size())
			}
			return nil
		})
	})
}

// update runs a transaction that writes. The caller holds disk, or is alone.
func (s *Store) update(f func(*bbolt.Tx) error) error {
	if s.o.fault != nil {
		if err := s.o.fault(); err != nil {
			return err
		}
	}
	return s.guard(func() error { return s.db.Update(f) })
}

// guard runs f, which reads or writes the file. Where the file's contents make
// bbolt panic or touch memory that is not there, the error is errDamaged, and a
// mark tells the next start.
func (s *Store) guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
			if f, merr := os.Create(filepath.Join(s.dir, markName)); merr == nil {
				_ = f.Close() // it is empty
			}
		}
	}()
	return f()
}

// Close writes what is pending and closes the file. Calls that run end first;
// later ones fail. Closing again does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return nil
	}
	close(s.quit)
	s.done.Wait()
	err := s.flush()
	if err = errors.Join(err, s.guard(s.db.Close)); err != nil {
		return fmt.Errorf("close state %s: %w", s.dir, err)
	}
	return nil
}
