package imapd

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
)

// flushAt is how much output is gathered before it is written: many short
// replies then cost one system call and one TLS record.
const (
	flushAt    = 16 << 10
	outputSize = 32 << 10
)

// outputs holds buffers of outputSize. A session has one only while it writes.
type outputs struct{ pool sync.Pool }

func (o *outputs) take() []byte {
	if b, ok := o.pool.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, outputSize)
}

func (o *outputs) give(b []byte) {
	if cap(b) == outputSize {
		o.pool.Put(&b)
	}
}

// writer builds replies. After a write error it swallows everything; the
// session looks at err when it goes to read.
type writer struct {
	dst      io.Writer
	deadline func(time.Duration) // arms the write deadline
	timeout  time.Duration
	outputs  *outputs
	buf      []byte
	partial  bool // what was written last does not end a line
	err      error
}

// room makes sure that n octets (n at most outputSize) fit without growing.
func (w *writer) room(n int) {
	if w.buf == nil {
		w.buf = w.outputs.take()
	}
	if len(w.buf)+n > cap(w.buf) {
		w.flush()
	}
}

func (w *writer) str(s string) {
	for len(s) > 0 {
		w.room(min(len(s), outputSize))
		n := min(len(s), cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, s[:n]...)
		s = s[n:]
	}
}

func (w *writer) octets(b []byte) {
	for len(b) > 0 {
		w.room(min(len(b), outputSize))
		n := min(len(b), cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, b[:n]...)
		b = b[n:]
	}
}

func (w *writer) byte(c byte) {
	w.room(1)
	w.buf = append(w.buf, c)
}

func (w *writer) num(n uint64) {
	w.room(20)
	w.buf = strconv.AppendUint(w.buf, n, 10)
}

// crlf ends a reply and writes what has been gathered if that is much.
func (w *writer) crlf() {
	w.str("\r\n")
	if len(w.buf) >= flushAt {
		w.flush()
	}
}

// line writes a whole reply.
func (w *writer) line(parts ...string) {
	for _, p := range parts {
		w.str(p)
	}
	w.crlf()
}

// flush writes what has been gathered.
func (w *writer) flush() {
	if len(w.buf) > 0 && w.err == nil {
		w.deadline(w.timeout)
		w.partial = w.buf[len(w.buf)-1] != '\n'
		_, w.err = w.dst.Write(w.buf)
	}
	w.buf = w.buf[:0]
}

// release flushes and gives the buffer back.
func (w *writer) release() {
	w.flush()
	if w.buf != nil {
		w.outputs.give(w.buf)
		w.buf = nil
	}
}

// quotable reports whether s may be a quoted string: 7-bit without NUL, CR and
// LF (RFC 9051 §4.3), and not too long for clients that read by line.
func quotable(s string) bool {
	if len(s) > 1000 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 0x80 || c == 0 || c == '\r' || c == '\n' {
			return false
		}
	}
	return true
}

// text writes s as a quoted string, or as a literal where it must. A literal
// cannot carry NUL outside of message data (RFC 3501 §9, CHAR8), so NULs are left out.
func (w *writer) text(s string) {
	if quotable(s) {
		w.quoted(s)
		return
	}
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "")
	}
	w.byte('{')
	w.num(uint64(len(s)))
	w.str("}\r\n")
	w.str(s)
}

func (w *writer) quoted(s string) {
	w.byte('"')
	from := 0
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			w.str(s[from:i])
			w.byte('\\')
			from = i
		}
	}
	w.str(s[from:])
	w.byte('"')
}

// orNIL writes s as text, or NIL if it is empty.
func (w *writer) orNIL(s string) {
	if s == "" {
		w.str("NIL")
		return
	}
	w.text(s)
}

// mailbox writes a mailbox name: UTF-8 after ENABLE IMAP4rev2, else modified
// UTF-7 (RFC 9051 §5.1, RFC 3501 §5.1.3).
func (w *writer) mailbox(name string, utf8 bool) {
	if !utf8 {
		w.text(encodeMailbox(name))
		return
	}
	if len(name) <= 1000 && !strings.ContainsAny(name, "\x00\r\n") {
		w.quoted(name)
		return
	}
	w.text(name)
}

// bytes copies n octets of r from off on. If r ends early or fails the peer has
// been promised a literal that cannot be finished: the connection is lost.
func (w *writer) bytes(r io.ReaderAt, off, n int64) {
	for n > 0 && w.err == nil {
		w.room(1)
		if cap(w.buf)-len(w.buf) < 4096 && n >= 4096 {
			w.flush()
		}
		free := w.buf[len(w.buf):cap(w.buf)]
		if int64(len(free)) > n {
			free = free[:n]
		}
		got, err := r.ReadAt(free, off)
		w.buf = w.buf[:len(w.buf)+got]
		off += int64(got)
		n -= int64(got)
		if n > 0 && got < len(free) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			w.flush()
			w.fail(fmt.Errorf("read message: %w", err))
		}
	}
}

// fail makes the writer swallow everything from now on.
func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}
