package queue

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"syscall"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/spill"
)

// Draft is a message on its way into the queue: an io.Writer, and an io.ReaderAt
// over what was written. One goroutine uses it.
type Draft struct {
	spill.Buffer
	q     *Queue
	id    mail.ID
	sum   uint32
	eight bool
}

// Begin opens a draft for the message id, with CR LF as line ends.
func (q *Queue) Begin(id mail.ID) *Draft {
	d := &Draft{q: q, id: id}
	d.Open = func() (spill.File, error) { return q.spool.disk.create(d.file()) }
	return d
}

// file is where a large message is received. It is not yet the body's name, so
// that a message may be tried twice.
func (d *Draft) file() string { return d.q.spool.tmp(string(d.id) + ".d") }

// Write adds p to the message.
func (d *Draft) Write(p []byte) (int, error) {
	n, err := d.Buffer.Write(p)
	d.sum = crc32.Update(d.sum, castagnoli, p[:n])
	d.eight = d.eight || eightBit(p[:n])
	return n, err
}

// eightBit reports whether there is an octet above 127 in p.
func eightBit(p []byte) bool {
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p)&0x8080808080808080 != 0 {
			return true
		}
		p = p[8:]
	}
	for _, c := range p {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

// ErrFull is the error of a Commit for which the disk has no room.
var ErrFull = errors.New("the queue's disk is full")

// Commit puts the message into the queue for rcpts, with m's envelope and head.
// When it returns nil the message is durable and its delivery begins. On error
// there is nothing of it in the queue; ErrFull is one.
func (d *Draft) Commit(m *Message) error {
	if err := d.Err(); err != nil {
		return full(err)
	}
	m.Size, m.sum = d.Size(), d.sum
	m.EightBit = d.eight || eightBit(m.Head)
	filed := ""
	if d.File() != nil {
		filed = d.file()
	}
	body := func(w io.Writer) error { _, err := d.WriteTo(w); return err }
	if err := d.q.admit(m, body, filed); err != nil {
		return full(err)
	}
	return nil
}

func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errors.Join(ErrFull, err)
	}
	return err
}

// Close forgets the draft. It may be called at any time and again.
func (d *Draft) Close() {
	filed := d.File() != nil
	_ = d.Buffer.Close() // its data is in the spool, or not wanted
	if !filed {
		return
	}
	if err := d.q.spool.disk.remove(d.file()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.q.log.Warn("could not remove a draft", "file", d.file(), "err", err)
	}
}
