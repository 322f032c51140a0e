package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	fileName = "state.db"
	lockWait = time.Second
)

// errDamaged is what is wrong with a file that holds something else than it should.
var errDamaged = errors.New("state is damaged")

// The file's buckets: records by key; their keys by the time of their end, so
// that what ends first comes first; and how many octets there are.
var (
	records = []byte("records")
	ends    = []byte("ends")
	meta    = []byte("meta")
)

// file is an open bbolt file. bbolt reads a map of memory and trusts what it
// finds there; file turns panics and faults into errDamaged. From the first on
// the file is broken, and nothing more is asked of it.
type file struct {
	db     *bbolt.DB
	broken atomic.Bool
	locked atomic.Bool // a panic may have left bbolt's own locks behind
	begin  sync.Mutex  // so that nobody waits for a lock that a panic leaves behind
}

// openFile opens the file of dir, and makes it if it is missing. The error is
// errDamaged if it cannot be read.
func openFile(dir string) (*file, error) {
	name := filepath.Join(dir, fileName)
	fi, err := os.Stat(name)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return nil, err
	}
	if !missing && fi.Size() > 0 {
		if err := examine(name, fi.Size()); err != nil {
			return nil, err
		}
	}
	f := &file{}
	err = f.open(name, false)
	if err == nil {
		err = f.update(func(tx *bbolt.Tx) error {
			for _, b := range [][]byte{records, ends, meta} {
				if _, err := tx.CreateBucketIfNotExists(b); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err == nil && missing {
		err = errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
	}
	if err != nil {
		err = errors.Join(err, f.close())
		if missing && !errors.Is(err, errHeld) { // a disk that is full holds a part of it
			err = errors.Join(err, os.Remove(name))
		}
		return nil, err
	}
	return f, nil
}

// errHeld is what another process does to the file.
var errHeld = errors.New("another process holds it")

// open opens name, which nobody else may be writing to.
func (f *file) open(name string, readOnly bool) error {
	f.locked.Store(true)
	err := f.guard(func() (err error) {
		f.db, err = bbolt.Open(name, 0o600, &bbolt.Options{
			Timeout: lockWait, FreelistType: bbolt.FreelistMapType, NoStatistics: true, ReadOnly: readOnly,
		})
		return err
	})
	if !errors.Is(err, errDamaged) {
		f.locked.Store(false)
	}
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return errHeld
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return err
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// get returns a copy of the record of k, or nil.
func (f *file) get(k string) (record []byte, err error) {
	err = f.view(func(tx *bbolt.Tx) error {
		if found := tx.Bucket(records).Get([]byte(k)); found != nil {
			record = append(make([]byte, 0, len(found)), found...)
		}
		return nil
	})
	return record, err
}

// view runs a transaction that reads.
func (f *file) view(read func(*bbolt.Tx) error) error {
	return f.guard(func() error {
		tx, err := f.reading()
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // fails only if it is over
		return read(tx)
	})
}

func (f *file) reading() (*bbolt.Tx, error) {
	f.begin.Lock()
	defer f.begin.Unlock()
	if f.broken.Load() {
		return nil, errDamaged
	}
	ended := false
	defer func() {
		if !ended {
			f.broken.Store(true)
			f.locked.Store(true)
		}
	}()
	tx, err := f.db.Begin(false)
	ended = true
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		err = ErrClosed
	}
	return tx, err
}

// update runs a transaction that writes, and syncs it. One caller at a time.
func (f *file) update(write func(*bbolt.Tx) error) error {
	if f.broken.Load() {
		return errDamaged
	}
	return f.guard(func() error {
		f.locked.Store(true)
		err := f.db.Update(func(tx *bbolt.Tx) error {
			if err := write(tx); err != nil { // the disk is asked only after it
				f.broken.Store(true)
				return fmt.Errorf("%w: %w", errDamaged, err)
			}
			return nil
		})
		f.locked.Store(false)
		return err
	})
}

// guard runs do, which reads or writes the file. Where the file's contents make
// bbolt panic or touch memory that is not there, the error is errDamaged.
func (f *file) guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			f.broken.Store(true)
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return do()
}

// close waits for those who read, and closes the file. One whose locks nobody
// will release stays open until the process ends.
func (f *file) close() error {
	if f.db == nil || f.locked.Load() {
		return nil
	}
	return f.guard(f.db.Close)
}
