package state

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

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
		dir: dir, o: o, seed: maphash.MakeSeed(), pending: map[string][]byte{}, room: make(chan struct{}),
		soon: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	f, err := openFile(dir)
	if errors.Is(err, errDamaged) {
		if err = s.setAside(err); err == nil {
			f, err = openFile(dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", dir, err)
	}
	s.file.Store(f)
	s.done.Go(s.maintain)
	return s, nil
}

// setAside renames the file, which is damaged.
func (s *Store) setAside(damage error) error {
	name := filepath.Join(s.dir, fileName)
	aside := name + ".broken-" + s.o.Now().UTC().Format("20060102T150405.000Z")
	if err := os.Rename(name, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(damage, err)
	}
	s.o.Logger.Warn("state cannot be read and is set aside", "file", name, "aside", aside, "err", damage)
	return nil
}

// whole returns the file to write to: a new one where the last was damaged.
// Until there is one, nothing is known but what memory holds. The caller holds disk.
func (s *Store) whole() (*file, error) {
	f := s.file.Load()
	if f != nil && !f.broken.Load() {
		return f, nil
	}
	if f != nil {
		if err := s.setAside(errDamaged); err != nil {
			return nil, err
		}
		s.file.Store(nil)
		if err := f.close(); err != nil {
			s.o.Logger.Warn("damaged state is not closed", "dir", s.dir, "err", err)
		}
	}
	f, err := openFile(s.dir)
	if errors.Is(err, errDamaged) {
		return nil, errors.Join(s.setAside(err), err)
	}
	if err != nil {
		return nil, err
	}
	s.file.Store(f)
	return f, nil
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
	s.disk.Lock() // List and Delete may be at it
	defer s.disk.Unlock()
	if f := s.file.Load(); f != nil {
		err = errors.Join(err, f.close())
	}
	if err != nil {
		return fmt.Errorf("close state %s: %w", s.dir, err)
	}
	return nil
}
