package smtpd

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	smallBuffer = 1 << 10  // enough for a pipelined MAIL, RCPT, DATA
	largeBuffer = 32 << 10 // long lines and messages; pooled
	outLimit    = 8 << 10  // octets of replies that wait for one write
)

// Errors of readLine that are not the socket's.
var (
	errLineLong = errors.New("line is too long")
	errBareLF   = errors.New("line ends without CR")
)

// buffers is a pool of large read buffers.
type buffers struct{ sync.Pool }

func (b *buffers) take() *[largeBuffer]byte {
	if p, ok := b.Get().(*[largeBuffer]byte); ok {
		return p
	}
	return new([largeBuffer]byte)
}

// wire is the octets of one connection: what was read and not yet used, and
// the replies not yet written. An idle wire holds only its small buffer.
// Replies leave before a read that may block, so the replies to a pipelined
// group share one write (RFC 2920 §3.2). Errors are final: the session must
// end after the first one.
type wire struct {
	nc    net.Conn // the TLS layer once there is one
	pool  *buffers
	write time.Duration // deadline of one write

	buf   []byte // small[:] or large[:]
	r, w  int    // unread octets are buf[r:w]
	large *[largeBuffer]byte
	out   []byte
	sent  func() // called when replies have left; nil: nobody wants to know
	small [smallBuffer]byte
}

func (c *wire) start(nc net.Conn, pool *buffers, write time.Duration) {
	c.nc, c.pool, c.write = nc, pool, write
	c.buf = c.small[:]
}

// buffered is the number of octets that were read and not used.
func (c *wire) buffered() int { return c.w - c.r }

// grow moves the unread octets into a pooled buffer.
func (c *wire) grow() {
	if c.large != nil {
		return
	}
	c.large = c.pool.take()
	n := copy(c.large[:], c.buf[c.r:c.w])
	c.buf, c.r, c.w = c.large[:], 0, n
}

// shrink gives the pooled buffer back if nothing unread is in it.
func (c *wire) shrink() {
	if c.r < c.w {
		return
	}
	c.r, c.w = 0, 0
	if c.large != nil {
		c.pool.Put(c.large)
		c.large, c.buf = nil, c.small[:]
	}
}

// release gives the buffers back for good.
func (c *wire) release() {
	c.r, c.w = 0, 0
	c.shrink()
}

// flush writes the replies.
func (c *wire) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	if err := c.nc.SetWriteDeadline(time.Now().Add(c.write)); err != nil {
		return err
	}
	_, err := c.nc.Write(c.out)
	c.out = c.out[:0]
	if c.sent != nil {
		c.sent()
	}
	if cap(c.out) > 2*smallBuffer {
		c.out = nil
	}
	return err
}

// fill reads once into the free part of the buffer, after the replies have
// left. The caller has set the read deadline.
func (c *wire) fill() error {
	if err := c.flush(); err != nil {
		return err
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
	} else if c.w == len(c.buf) {
		if c.r == 0 {
			return errLineLong
		}
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	n, err := c.nc.Read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		return nil // a sticky error comes back on the next read
	}
	return err
}

// line returns the next complete line of at most limit octets without its
// CR LF, if it is buffered. The slice is valid until the next read. A line
// that ends in LF alone is returned with errBareLF.
func (c *wire) line(limit int) (line []byte, ok bool, err error) {
	p := c.buf[c.r:c.w]
	i := bytes.IndexByte(p, '\n')
	switch {
	case i < 0 && len(p) < limit:
		return nil, false, nil
	case i < 0 || i >= limit:
		return nil, false, errLineLong
	}
	c.r += i + 1
	if i == 0 || p[i-1] != '\r' {
		return p[:i], true, errBareLF
	}
	return p[:i-1], true, nil
}

// skipLine drops buffered octets up to the end of a line that is too long.
func (c *wire) skipLine() (dropped int, done bool) {
	p := c.buf[c.r:c.w]
	if i := bytes.IndexByte(p, '\n'); i >= 0 {
		c.r += i + 1
		return i + 1, true
	}
	c.r = c.w
	return len(p), false
}
