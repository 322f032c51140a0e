package maildir

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/wafermail/wafer/core/spill"
)

// Draft is a message that is being received. A small one is held in memory and
// written once, with its trace fields, when it is delivered; a larger one goes
// to a file in the first recipient's tmp/ as it arrives. It is an io.Writer and
// an io.ReaderAt over what was written, for one goroutine.
type Draft struct {
	spill.Buffer
	d    *Deliverer
	path string // of the file
}

func (d *Deliverer) newDraft(dir string) *Draft {
	dr := &Draft{d: d}
	dr.Open = func() (spill.File, error) {
		dr.path = filepath.Join(dir, "tmp", d.names.base(d.o.Now()))
		f, err := d.disk.create(dr.path)
		if err != nil {
			return nil, err // not a nil *os.File in an interface
		}
		return f, nil
	}
	return dr
}

// Close forgets the draft. It may be called at any time and again.
func (dr *Draft) Close() {
	filed := dr.File() != nil
	_ = dr.Buffer.Close() // its data is not wanted
	if !filed {
		return
	}
	if err := dr.d.disk.remove(dr.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		dr.d.o.Logger.Warn("could not remove a draft", "file", dr.path, "err", err)
	}
}

// fileCopy is a finished file in some tmp/ and what is to become of it.
type fileCopy struct{ commit }

// write makes one file for each group of targets whose copies are equal, octet
// for octet, and lie on the same file system. On error the copies that it
// returns are to be removed.
func (d *Deliverer) write(dr *Draft, targets []Target, trace []byte) (copies []fileCopy, err error) {
	if err := dr.Err(); err != nil {
		return nil, err
	}
	type sameFile struct {
		dev    uint64
		header string
	}
	at := map[sameFile]int{}
	for _, t := range targets {
		dev := uint64(0)
		if len(targets) > 1 {
			if dev, err = d.o.Barrier.Device(t.dir()); err != nil {
				return copies, err
			}
		}
		key := sameFile{dev, string(t.Header)}
		i, ok := at[key]
		if !ok {
			c, err := d.writeOne(dr, t, trace)
			if err != nil {
				return copies, err
			}
			i = len(copies)
			at[key] = i
			copies = append(copies, fileCopy{c})
		}
		c := &copies[i]
		c.targets = append(c.targets, filepath.Join(t.dir(), "new", d.names.next(d.o.Now(), c.size)+t.mark()))
	}
	return copies, nil
}

// writeOne writes t's header, the trace fields and the message to a file in t's
// tmp/. On error nothing is left of it.
func (d *Deliverer) writeOne(dr *Draft, t Target, trace []byte) (c commit, err error) {
	c.file = filepath.Join(t.dir(), "tmp", d.names.base(d.o.Now()))
	c.size = int64(len(t.Header)+len(trace)) + dr.Size()
	f, err := d.disk.create(c.file)
	if err != nil {
		return c, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			err = fmt.Errorf("write %s: %w", c.file, err)
			_ = d.disk.remove(c.file) // it is a draft; the error that counts is err
		}
	}()
	if uid, gid := d.o.UID, d.o.GID; uid >= 0 || gid >= 0 {
		if err := f.Chown(uid, gid); err != nil {
			return c, err
		}
	}
	w := spill.Gather(f)
	sum := io.MultiWriter(w, (*running)(&c.sum))
	for _, part := range [][]byte{t.Header, trace} {
		if _, err := sum.Write(part); err != nil {
			return c, err
		}
	}
	if _, err := dr.WriteTo(sum); err != nil {
		return c, err
	}
	return c, w.Flush()
}

// running is a CRC-32C that goes on from an earlier one.
type running uint32

func (r *running) Write(p []byte) (int, error) {
	*r = running(crc32.Update(uint32(*r), castagnoli, p))
	return len(p), nil
}

// copyTo delivers to a place that cannot be linked to: a copy in its own tmp/,
// made durable before it gets its name.
func (d *Deliverer) copyTo(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() // only read
	dir := filepath.Dir(filepath.Dir(to))
	tmp := filepath.Join(dir, "tmp", filepath.Base(to))
	out, err := d.disk.create(tmp)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.o.Barrier.Sync(tmp, filepath.Dir(tmp))
	}
	if err == nil {
		err = d.disk.rename(tmp, to)
	}
	if err != nil {
		_ = d.disk.remove(tmp) // the error that counts is err
		return err
	}
	return d.o.Barrier.Sync(filepath.Dir(to))
}

// fileIs reports whether name is whole: of that size and with that CRC-32C.
func fileIs(name string, size int64, sum uint32) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close() // only read
	var got running
	n, err := io.Copy(&got, f)
	return err == nil && n == size && uint32(got) == sum
}

// Ensure makes the target's Maildir if it is missing: cur, new, tmp and, for a
// folder, the file maildirfolder. What it made is durable when it returns.
func (d *Deliverer) Ensure(t Target) error {
	dir := t.dir()
	if isDir(filepath.Join(dir, "tmp")) && isDir(filepath.Join(dir, "new")) {
		return nil
	}
	made, err := makeDirs(filepath.Join(dir, "cur"), d.o.UID, d.o.GID)
	if err != nil {
		return fmt.Errorf("make Maildir %s: %w", dir, err)
	}
	for _, sub := range []string{"new", "tmp"} {
		m, err := makeDirs(filepath.Join(dir, sub), d.o.UID, d.o.GID)
		if err != nil {
			return fmt.Errorf("make Maildir %s: %w", dir, err)
		}
		made = append(made, m...)
	}
	if t.Folder != "" {
		name := filepath.Join(dir, "maildirfolder")
		f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		made = append(made, name)
	}
	return d.o.Barrier.Sync(append(made, filepath.Dir(dir))...)
}

func isDir(p string) bool {
	fi, err := os.Stat(p)
	return err == nil && fi.IsDir()
}

// makeDirs is os.MkdirAll with mode 0700 and an owner for what it makes. It
// returns the directories whose names changed: those made and their parents.
func makeDirs(p string, uid, gid int) (changed []string, err error) {
	err = os.Mkdir(p, 0o700)
	switch {
	case errors.Is(err, os.ErrExist):
		return nil, nil
	case errors.Is(err, os.ErrNotExist):
		if changed, err = makeDirs(filepath.Dir(p), uid, gid); err != nil {
			return changed, err
		}
		if err = os.Mkdir(p, 0o700); errors.Is(err, os.ErrExist) {
			return changed, nil
		}
	}
	if err != nil {
		return changed, err
	}
	if uid >= 0 || gid >= 0 {
		if err := os.Lchown(p, uid, gid); err != nil {
			return changed, err
		}
	}
	return append(changed, filepath.Dir(p), p), nil
}

// disk is the file system as deliveries use it; tests fail its steps.
type disk struct {
	create func(name string) (file, error) // new, mode 0600
	link   func(old, new string) error
	rename func(old, new string) error
	remove func(name string) error
}

// file is an *os.File.
type file interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Chown(uid, gid int) error
}

func osDisk() disk {
	return disk{
		create: func(name string) (file, error) {
			f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
			if err != nil {
				return nil, err // not a nil *os.File in an interface
			}
			return f, nil
		},
		link:   os.Link,
		rename: os.Rename,
		remove: os.Remove,
	}
}
