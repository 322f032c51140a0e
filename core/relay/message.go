package relay

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// message is the message in the form that a host can take.
type message struct {
	head    []byte
	body    io.ReaderAt
	size    int64 // of body
	total   int64
	params  string // of MAIL
	cleanup func()
	begun   bool // DATA or BDAT is on its way
}

// prepare finds out whether and how the host can take the message.
func (a *attempt) prepare(s *session) (*message, *failure) {
	d, env := a.d, a.d.Envelope
	m := &message{head: d.Head, body: d.Body, size: d.Size, cleanup: func() {}}
	eight, binary := d.EightBit, env.Body == mail.BodyBinary
	utf8 := env.UTF8 && a.needsUTF8()
	switch {
	case utf8 && !s.caps.has("SMTPUTF8"):
		f := ours(553, "5.6.7", "host %s does not support SMTPUTF8, which this message needs", s.remote)
		f.next = true
		return nil, f
	case binary && (!s.caps.has("BINARYMIME") || !s.caps.has("CHUNKING")), eight && !binary && !s.caps.has("8BITMIME"):
		if a.c.Downgrade == nil {
			return nil, ours(554, "5.6.3", "host %s takes no 8-bit messages, and this one cannot be converted", s.remote)
		}
		head, body, size, cleanup, err := a.c.Downgrade(d)
		if err != nil {
			f := ours(554, "5.6.3", "host %s takes no 8-bit messages, and this one cannot be converted: %v", s.remote, err)
			f.next = true
			return nil, f
		}
		m.head, m.body, m.size, m.cleanup = head, body, size, cleanup
		eight, binary = false, false
	}
	m.total = int64(len(m.head)) + m.size
	if s.caps.has("SIZE") {
		if most, err := strconv.ParseInt(s.caps["SIZE"], 10, 64); err == nil && most > 0 && m.total > most {
			m.cleanup()
			f := ours(552, "5.3.4", "message size %d exceeds size limit %d of host %s", m.total, most, s.remote)
			f.next = true
			return nil, f
		}
		m.params += " SIZE=" + strconv.FormatInt(m.total, 10)
	}
	switch {
	case binary:
		m.params += " BODY=BINARYMIME"
	case eight:
		m.params += " BODY=8BITMIME"
	}
	if utf8 {
		m.params += " SMTPUTF8"
	}
	if s.caps.has("DSN") {
		if env.Return != "" {
			m.params += " RET=" + env.Return
		}
		if env.EnvID != "" && ascii(env.EnvID) {
			m.params += " ENVID=" + xtext(env.EnvID)
		}
	}
	return m, nil
}

// maxHeader bounds the header section that is searched for UTF-8, in octets.
const maxHeader = 1 << 20

// needsUTF8 reports whether an address or a header field cannot go without
// SMTPUTF8 (RFC 6531 §3.4).
func (a *attempt) needsUTF8() bool {
	env := a.d.Envelope
	if !ascii(env.From.Local()) {
		return true
	}
	for i := range env.Rcpts {
		if !ascii(env.Rcpts[i].To.Local()) {
			return true
		}
	}
	if !a.d.EightBit {
		return false
	}
	b := make([]byte, min(a.d.Size, maxHeader))
	n, err := a.d.Body.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return true
	}
	section, _, _ := bytes.Cut(b[:n], []byte("\r\n\r\n"))
	return !ascii(string(a.d.Head)) || !ascii(string(section))
}

const block = 32 << 10

var blocks = sync.Pool{New: func() any { return new([block]byte) }}

// flushFull sends what has gathered once it is a block.
func (s *session) flushFull() error {
	if len(s.out) < block {
		return nil
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.r.c.Timeouts.Block)); err != nil {
		return err
	}
	_, err := s.conn.Write(s.out)
	s.out = s.out[:0]
	return err
}

// body sends the message's octets as they are.
func (s *session) body(m *message) error {
	s.out = append(s.out, m.head...)
	return m.read(func(p []byte) error {
		s.out = append(s.out, p...)
		return s.flushFull()
	})
}

// read hands the body over in blocks.
func (m *message) read(take func([]byte) error) error {
	buf := blocks.Get().(*[block]byte)
	defer blocks.Put(buf)
	for off := int64(0); off < m.size; {
		n, err := m.body.ReadAt(buf[:min(block, m.size-off)], off)
		if n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if err := take(buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// stuffed sends the message with its dots doubled and the dot that ends it (RFC
// 5321 §4.5.2). Bare CR and bare LF become line ends: another host must not see a
// message where we saw a line (CVE-2023-51764).
func (s *session) stuffed(m *message) error {
	st := stuffer{start: true}
	s.out = st.append(s.out, m.head)
	err := m.read(func(p []byte) error {
		s.out = st.append(s.out, p)
		return s.flushFull()
	})
	if err != nil {
		return err
	}
	s.out = st.end(s.out)
	return nil
}

// stuffer prepares a message for DATA, piece by piece.
type stuffer struct {
	start bool // of a line
	cr    bool // the last octet was a CR that is not written yet
}

func (st *stuffer) append(out, p []byte) []byte {
	for len(p) > 0 {
		if !st.cr {
			if st.start && p[0] == '.' {
				out = append(out, '.')
			}
			i := bytes.IndexByte(p, '\n')
			// The usual case is a whole line with no CR but the last.
			if i > 0 && p[i-1] == '\r' && bytes.IndexByte(p[:i-1], '\r') < 0 {
				out = append(out, p[:i+1]...)
				p, st.start = p[i+1:], true
				continue
			}
			if i < 0 && bytes.IndexByte(p, '\r') < 0 {
				st.start = false
				return append(out, p...)
			}
		}
		out, p = st.octet(out, p[0]), p[1:]
	}
	return out
}

// octet is append for one octet; a dot at the start has been doubled.
func (st *stuffer) octet(out []byte, c byte) []byte {
	if st.cr {
		st.cr, st.start = false, true
		out = append(out, '\r', '\n')
		if c == '\n' {
			return out
		}
		if c == '.' {
			out = append(out, '.')
		}
	}
	switch c {
	case '\r':
		st.cr = true
		return out
	case '\n':
		st.start = true
		return append(out, '\r', '\n')
	}
	st.start = false
	return append(out, c)
}

// end completes the last line and adds the final dot.
func (st *stuffer) end(out []byte) []byte {
	if st.cr || !st.start {
		out = append(out, '\r', '\n')
	}
	return append(out, ".\r\n"...)
}
