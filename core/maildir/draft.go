package maildir

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
)

const (
	draftChunk  = 32 << 10
	draftMemory = 128 << 10 // octets of a message that are held before a file is begun
)

var draftChunks = sync.Pool{New: func() any { return new([draftChunk]byte) }}

// Draft is a message that is being received. A small one is held in memory and
// written once, with its trace fields, when it is delivered; a larger one goes
// to a file in the first recipient's tmp/ as it arrives. It is an io.Writer and
// an io.ReaderAt over what was written, for one goroutine.
type Draft struct {
	d      *Deliverer
	dir    string // Maildir for the spill file
	chunks []*[draftChunk]byte
	size   int64
	spill  file
	path   string
	err    error // first write error: the draft is lost
}

// Size is the number of octets written.
func (dr *Draft) Size() int64 { return dr.size }

// Write adds p to the message. After an error the draft cannot be delivered.
func (dr *Draft) Write(p []byte) (int, error) {
	if dr.err != nil {
		return 0, dr.err
	}
	if dr.spill == nil && dr.size+int64(len(p)) > draftMemory {
		if dr.err = dr.toFile(); dr.err != nil {
			return 0, dr.err
		}
	}
	if dr.spill != nil {
		n, err := dr.spill.Write(p)
		dr.size += int64(n)
		dr.err = err
		return n, err
	}
	for done := 0; done < len(p); {
		off := int(dr.size % draftChunk)
		if off == 0 {
			dr.chunks = append(dr.chunks, draftChunks.Get().(*[draftChunk]byte))
		}
		n := copy(dr.chunks[len(dr.chunks)-1][off:], p[done:])
		dr.size += int64(n)
		done += n
	}
	return len(p), nil
}

// toFile moves what is in memory to a file.
func (dr *Draft) toFile() error {
	dr.path = filepath.Join(dr.dir, "tmp", dr.d.names.base(dr.d.o.Now()))
	f, err := dr.d.disk.create(dr.path)
	if err != nil {
		return err
	}
	dr.spill = f
	err = dr.writeChunks(f)
	dr.freeChunks()
	return err
}

func (dr *Draft) writeChunks(w io.Writer) error {
	for left, i := dr.size, 0; left > 0; i++ {
		n := min(left, draftChunk)
		if _, err := w.Write(dr.chunks[i][:n]); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

func (dr *Draft) freeChunks() {
	for _, c := range dr.chunks {
		draftChunks.Put(c)
	}
	dr.chunks = nil
}

// ReadAt reads octets of the message as written.
func (dr *Draft) ReadAt(p []byte, off int64) (n int, err error) {
	if dr.spill != nil {
		return dr.spill.ReadAt(p, off)
	}
	for n < len(p) && off < dr.size {
		end := min(int64(draftChunk), dr.size-off/draftChunk*draftChunk)
		k := copy(p[n:], dr.chunks[off/draftChunk][off%draftChunk:end])
		n, off = n+k, off+int64(k)
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// Close forgets the draft. It may be called at any time and again.
func (dr *Draft) Close() {
	dr.freeChunks()
	if dr.spill == nil {
		return
	}
	_ = dr.spill.Close() // its data is not wanted
	if err := dr.d.disk.remove(dr.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		dr.d.o.Logger.Warn("could not remove a draft", "file", dr.path, "err", err)
	}
	dr.spill = nil
}

// fileCopy is a finished file in some tmp/ and what is to become of it.
type fileCopy struct{ commit }

// write makes one file for each group of targets whose copies are equal, octet
// for octet, and lie on the same file system. On error the copies that it
// returns are to be removed.
func (d *Deliverer) write(dr *Draft, targets []Target, trace []byte) (copies []fileCopy, err error) {
	if dr.err != nil {
		return nil, dr.err
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
		c.targets = append(c.targets, filepath.Join(t.dir(), "new", d.names.next(d.o.Now(), c.size)))
	}
	return copies, nil
}

// writeOne writes t's header, the trace fields and the message to a file in t's
// tmp/. On error nothing is left of it.
func (d *Deliverer) writeOne(dr *Draft, t Target, trace []byte) (c commit, err error) {
	c.file = filepath.Join(t.dir(), "tmp", d.names.base(d.o.Now()))
	c.size = int64(len(t.Header)+len(trace)) + dr.size
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
	c.sum = crc32.Update(crc32.Checksum(t.Header, castagnoli), castagnoli, trace)
	if dr.spill != nil {
		if _, err := f.Write(append(t.Header[:len(t.Header):len(t.Header)], trace...)); err != nil {
			return c, err
		}
		_, err := io.Copy(f, io.TeeReader(io.NewSectionReader(dr.spill, 0, dr.size), (*running)(&c.sum)))
		return c, err
	}
	// One write for header, trace and the first octets: small mail is one system call.
	buf := draftChunks.Get().(*[draftChunk]byte)
	defer draftChunks.Put(buf)
	w := onceWriter{w: f, b: buf[:0]}
	w.put(t.Header)
	w.put(trace)
	for left, i := dr.size, 0; left > 0; i++ {
		n := min(left, draftChunk)
		part := dr.chunks[i][:n]
		c.sum = crc32.Update(c.sum, castagnoli, part)
		w.put(part)
		left -= n
	}
	return c, w.flush()
}

// running is a CRC-32C that goes on from an earlier one.
type running uint32

func (r *running) Write(p []byte) (int, error) {
	*r = running(crc32.Update(uint32(*r), castagnoli, p))
	return len(p), nil
}

// onceWriter gathers up to a chunk before it writes.
type onceWriter struct {
	w   io.Writer
	b   []byte
	err error
}

func (o *onceWriter) put(p []byte) {
	for len(p) > 0 && o.err == nil {
		n := copy(o.b[len(o.b):cap(o.b)], p)
		o.b = o.b[:len(o.b)+n]
		if p = p[n:]; len(o.b) == cap(o.b) {
			o.err = o.flush()
		}
	}
}

func (o *onceWriter) flush() error {
	if o.err == nil && len(o.b) > 0 {
		_, o.err = o.w.Write(o.b)
		o.b = o.b[:0]
	}
	return o.err
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
