package imapd

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// Bounds of what is read for one command.
const (
	maxLine    = 64 << 10    // octets of a line, without literals
	maxDiscard = 16 << 20    // octets of a line that is too long, before the connection is given up
	idleInput  = 512         // buffer of a session that waits
	bigInput   = 8 << 10     // first buffer that replaces it
	lineRoom   = maxLine + 2 // with CRLF
)

var (
	errLineTooLong = errors.New("command line is longer than 65536 octets")
	errGiveUp      = errors.New("peer sends too much that is no command")
)

// inputs holds buffers of bigInput.
type inputs struct{ pool sync.Pool }

// reader reads lines and literals. While it waits for a command it holds a small
// buffer only.
type reader struct {
	src    io.Reader
	before func() error // called before each read that may block
	inputs *inputs
	small  [idleInput]byte
	buf    []byte
	r, w   int
}

// reset forgets what was read ahead, as STARTTLS must (RFC 9051 §6.2.1: a
// command injected in plain text would else run under TLS).
func (r *reader) reset(src io.Reader) {
	r.src, r.r, r.w = src, 0, 0
	r.shrink()
}

// shrink goes back to the small buffer if nothing is buffered.
func (r *reader) shrink() {
	if r.r != r.w {
		return
	}
	r.r, r.w = 0, 0
	if cap(r.buf) == bigInput {
		b := r.buf
		r.inputs.pool.Put(&b)
	}
	r.buf = nil
}

// grow makes room for more octets behind those that are buffered.
func (r *reader) grow() {
	if r.buf == nil {
		r.buf = r.small[:]
	}
	if r.r > 0 {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	if r.w < len(r.buf) {
		return
	}
	old := r.buf
	if len(old) < bigInput {
		if b, ok := r.inputs.pool.Get().(*[]byte); ok {
			r.buf = *b
		} else {
			r.buf = make([]byte, bigInput)
		}
	} else {
		r.buf = make([]byte, min(2*len(old), lineRoom+bigInput))
	}
	copy(r.buf, old[:r.w])
	if cap(old) == bigInput {
		r.inputs.pool.Put(&old)
	}
}

// fill reads once more.
func (r *reader) fill() error {
	r.grow()
	if err := r.before(); err != nil {
		return err
	}
	n, err := r.src.Read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// line returns the next line without CRLF (or LF). It is valid until the next
// call of any method. After errLineTooLong the line has been read to its end.
func (r *reader) line() ([]byte, error) {
	seen := 0
	for {
		if i := bytes.IndexByte(r.buf[r.r+seen:r.w], '\n'); i >= 0 {
			line := r.buf[r.r : r.r+seen+i]
			r.r += len(line) + 1
			if n := len(line); n > 0 && line[n-1] == '\r' {
				line = line[:n-1]
			}
			if len(line) > maxLine {
				return nil, errLineTooLong
			}
			return line, nil
		}
		seen = r.w - r.r
		if seen > lineRoom {
			return nil, r.discardLine()
		}
		if err := r.fill(); err != nil {
			if err == io.EOF && seen > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

func (r *reader) discardLine() error {
	for total := 0; total < maxDiscard; {
		total += r.w - r.r
		r.r, r.w = 0, 0
		if err := r.fill(); err != nil {
			return err
		}
		if i := bytes.IndexByte(r.buf[:r.w], '\n'); i >= 0 {
			r.r = i + 1
			return errLineTooLong
		}
	}
	return errGiveUp
}

// Read reads literal octets.
func (r *reader) Read(p []byte) (int, error) {
	if r.r < r.w {
		n := copy(p, r.buf[r.r:r.w])
		r.r += n
		return n, nil
	}
	if err := r.before(); err != nil {
		return 0, err
	}
	return r.src.Read(p)
}

// literal is the n octets of a literal as a stream. A connection that ends in
// the midst of it is an error, never an end.
type literal struct {
	r    *reader
	left int64
	err  error
}

func (l *literal) Read(p []byte) (int, error) {
	if l.left == 0 {
		return 0, io.EOF
	}
	if l.err != nil {
		return 0, l.err
	}
	if int64(len(p)) > l.left {
		p = p[:l.left]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && l.left > 0 {
		l.err = err
		return n, err
	}
	return n, nil
}

// discard reads n octets away.
func (r *reader) discard(n int64) error {
	l := &literal{r: r, left: n}
	if r.r < r.w {
		k := min(int64(r.w-r.r), n)
		r.r += int(k)
		l.left -= k
	}
	if l.left == 0 {
		return nil
	}
	_, err := io.Copy(io.Discard, l)
	return err
}
