package maildir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// fileOps is the file system as the store changes it; tests fail its steps.
// Reading goes to package os directly.
type fileOps struct {
	create    func(name string) (outFile, error) // new, mode 0600
	appendTo  func(name string, data []byte) error
	rename    func(old, new string) error // replaces new
	renameNew func(old, new string) error // fs.ErrExist if new is there
	link      func(old, new string) error
	remove    func(name string) error
	removeAll func(name string) error
	mkdir     func(name string) error // mode 0700
	chtimes   func(name string, t time.Time) error
	sync      func(paths ...string) error // all durable; nil: the pool's barrier
}

// outFile is an *os.File that is written once.
type outFile interface {
	io.Writer
	io.Closer
}

func osOps() fileOps {
	return fileOps{
		create: func(name string) (outFile, error) {
			f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return nil, err // not a nil *os.File in an interface
			}
			return f, nil
		},
		appendTo: func(name string, data []byte) error {
			f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.Write(data)
			return errors.Join(err, f.Close())
		},
		rename:    os.Rename,
		renameNew: renameNew,
		link:      os.Link,
		remove:    os.Remove,
		removeAll: os.RemoveAll,
		mkdir:     func(name string) error { return os.Mkdir(name, 0o700) },
		chtimes:   func(name string, t time.Time) error { return os.Chtimes(name, t, t) },
	}
}

// write makes a new file of data with the pool's owner. It is not synced.
func (p *Pool) write(name string, data []byte) error {
	f, err := p.ops.create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = p.own(name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), p.ops.remove(name))
	}
	return nil
}

// replace puts data in the place of name at once: the new contents are durable
// before they get the name, and the name before replace returns. temp is the
// name that the file has meanwhile; what is there is overwritten.
func (p *Pool) replace(name, temp string, data []byte) error {
	if err := p.ops.remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := p.write(temp, data); err != nil {
		return err
	}
	if err := p.ops.sync(temp); err != nil {
		return errors.Join(err, p.ops.remove(temp))
	}
	if err := p.ops.rename(temp, name); err != nil {
		return errors.Join(err, p.ops.remove(temp))
	}
	return p.ops.sync(parent(name))
}

// renameCareful is renameNew where the system cannot do it in one step.
func renameCareful(old, new string) error {
	switch _, err := os.Lstat(new); {
	case err == nil:
		return &os.LinkError{Op: "rename", Old: old, New: new, Err: os.ErrExist}
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	return os.Rename(old, new)
}
