package tape

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/wafermail/wafer/core/durable"
)

// file is what a writer needs of an *os.File.
type file interface {
	Write(p []byte) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// create makes a file that does not exist.
func create(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err // not a file that is nil
	}
	return f, nil
}

// writer writes chunks to files. What it leaves on disk is whole chunks, whatever
// the disk does, unless that does not even let it take back what it wrote.
type writer struct {
	dir    string
	o      *Options
	create func(path string) (file, error)
	zip    *zstd.Encoder

	out  file // nil: none is open
	size int64
	born time.Time // of the newest file
	key  *key
	last header // template of the next: try, number and salt

	buf        []byte
	taken      []*chunk // of Tape.flush
	complained time.Time
}

// newWriter returns a writer whose files come after those of dir.
func newWriter(dir string, o *Options) (*writer, error) {
	all, err := list(dir)
	if err != nil {
		return nil, err
	}
	w := &writer{dir: dir, o: o, create: create}
	if len(all) > 0 {
		w.born = all[len(all)-1].born
	}
	w.zip, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	return w, err
}

// write appends a chunk, to a new file if it is time for one.
func (w *writer) write(c *chunk, now time.Time) error {
	w.buf = append(w.buf[:0], make([]byte, chunkHead)...)
	if w.o.Fast {
		w.buf = slices.Grow(w.buf, s2.MaxEncodedLen(len(c.raw)))
		w.buf = w.buf[:chunkHead+len(s2.Encode(w.buf[chunkHead:cap(w.buf)], c.raw))]
	} else {
		w.buf = w.zip.EncodeAll(c.raw, w.buf)
	}
	w.buf = slices.Grow(w.buf, tagSize)
	size := int64(len(w.buf))
	if w.out != nil && w.last.number > 0 && (w.size+size+chunkHead > w.o.File || now.Sub(w.born) >= w.o.Age) || w.last.try >= maxTry {
		if err := w.end(); err != nil {
			w.o.Logger.Warn("a tape's file cannot be ended", "dir", w.dir, "err", err)
		}
	}
	if w.out == nil {
		if err := w.begin(now); err != nil {
			return err
		}
	}
	h := w.last
	h.fast, h.raw, h.entries, h.first, h.last = w.o.Fast, uint32(len(c.raw)), uint32(c.entries), c.first, c.last
	return w.append(&h, w.buf)
}

// append writes h with the payload that b has after room for it.
func (w *writer) append(h *header, b []byte) error {
	payload := b[chunkHead:]
	h.stored = uint32(len(payload))
	if !h.end {
		h.stored += uint32(w.key.overhead())
	}
	body := h.appendBody(b[:0])
	if !h.end {
		payload = w.key.seal(payload, h, body)
	}
	h.sum = castagnoli(payload)
	h.appendRest(body, w.key)
	n, err := w.out.Write(b[:chunkHead+len(payload)])
	if err == nil {
		w.size += int64(n)
		w.last.number++
		return nil
	}
	err = fmt.Errorf("write tape: %w", err)
	w.last.try++
	if again := w.out.Truncate(w.size); again != nil { // what comes next goes to another file
		err = errors.Join(err, again, w.out.Close())
		w.out = nil
	}
	return err
}

// begin makes a new file. A name that is taken already stands for a clock that
// went back, or for two files within a microsecond.
func (w *writer) begin(now time.Time) error {
	now = now.UTC().Truncate(time.Microsecond)
	if !w.born.IsZero() && !now.After(w.born) {
		now = w.born.Add(time.Microsecond) // the newest file has the last name
	}
	var out file
	var path string
	for range 1000 {
		path = filepath.Join(w.dir, nameOf(now))
		f, err := w.create(path)
		if err == nil {
			out = f
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("begin tape: %w", err)
		}
		now = now.Add(time.Microsecond)
	}
	if out == nil {
		return fmt.Errorf("begin tape: no name is free in %s", w.dir)
	}
	if err := w.greet(out, now); err != nil {
		return errors.Join(fmt.Errorf("begin tape: %w", err), out.Close(), os.Remove(path))
	}
	w.out, w.born = out, now
	if err := prune(w.dir, w.o, now); err != nil { // no reason to lose entries
		w.o.Logger.Warn("old tapes are not removed", "dir", w.dir, "err", err)
	}
	return nil
}

// greet writes a file's header.
func (w *writer) greet(out file, now time.Time) error {
	h := fileHeader{sealed: len(w.o.Secret) > 0, created: now.UnixMicro()}
	if _, err := rand.Read(h.salt[:]); err != nil {
		return err
	}
	w.key = nil
	if h.sealed {
		k, err := newKey(w.o.Secret, h.salt)
		if err != nil {
			return err
		}
		w.key = k
	}
	n, err := out.Write(h.append(make([]byte, 0, fileHead), w.key))
	w.size, w.last = int64(n), header{sealed: h.sealed, salt: h.salt}
	return err
}

// end writes the end mark, and syncs and closes the file.
func (w *writer) end() error {
	if w.out == nil {
		return nil
	}
	h := w.last
	h.end = true
	err := w.append(&h, make([]byte, chunkHead))
	if w.out != nil {
		err = errors.Join(err, w.out.Sync(), w.out.Close())
		w.out = nil
	}
	return errors.Join(err, durable.SyncPath(w.dir))
}

// close ends the file and releases what the writer holds.
func (w *writer) close() error {
	err := errors.Join(w.end(), w.zip.Close())
	if err != nil {
		return fmt.Errorf("close tape: %w", err)
	}
	return nil
}

// complain logs that the disk takes nothing, once a minute at most.
func (w *writer) complain(dropped uint64, err error) {
	if now := w.o.Now(); w.complained.IsZero() || now.Sub(w.complained) >= complaints {
		w.complained = now
		w.o.Logger.Error("entries cannot be written to the tape", "dir", w.dir, "dropped", dropped, "err", err)
	}
}
