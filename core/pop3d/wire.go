package pop3d

import (
	"bytes"
	"errors"
	"net"
	"time"
)

const (
	smallBuffer = 1 << 10  // what an idle session reads into
	outLimit    = 8 << 10  // octets of replies that wait for one write
	maxSkip     = 64 << 10 // octets of an overlong line that are read and dropped
)

// Errors of readLine besides the socket's.
var (
	errLineLong = errors.New("line is too long")
	errClosing  = errors.New("server is shutting down")
)

// wire is the octets of one connection. Replies gather in out and leave before
// a read that may block, so that a pipelined group is answered in one write.
type wire struct {
	conn net.Conn // the TLS layer once there is one
	buf  []byte   // small[:], or a longer one for a SASL response
	r, w int      // unread octets are buf[r:w]
	out  []byte

	writeTimeout time.Duration
	small        [smallBuffer]byte
}

// discard drops what was read and not used.
func (c *wire) discard() { c.r, c.w, c.buf = 0, 0, c.small[:] }

// flush writes the replies.
func (c *wire) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	err := c.write(c.out)
	c.out = c.out[:0]
	if cap(c.out) > outLimit {
		c.out = nil
	}
	return err
}

func (c *wire) write(p []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.writeTimeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(p)
	return err
}

// nextLine takes a complete line from the buffer, without its line end. LF alone
// ends a line, too: people type into netcat.
func (c *wire) nextLine() (line []byte, ok bool) {
	i := bytes.IndexByte(c.buf[c.r:c.w], '\n')
	if i < 0 {
		return nil, false
	}
	line = c.buf[c.r : c.r+i]
	c.r += i + 1
	return bytes.TrimSuffix(line, []byte("\r")), true
}

// readLine reads a line of at most limit octets with its end, which is valid
// until the next read. Only lines for which long says so, from their beginning,
// may be longer than the small buffer. An overlong line is skipped up to its
// end; if that is not in sight the connection is given up.
func (c *wire) readLine(limit int, long func(start []byte) bool, await func() error) ([]byte, error) {
	if line, ok := c.nextLine(); ok {
		if len(line)+2 > limit && !long(line) {
			return nil, errLineLong
		}
		return line, nil
	}
	if err := c.flush(); err != nil {
		return nil, err
	}
	if err := await(); err != nil {
		return nil, err
	}
	skipped := 0
	for {
		if c.r > 0 {
			c.w = copy(c.buf, c.buf[c.r:c.w])
			c.r = 0
		}
		if c.w == 0 && len(c.buf) > smallBuffer {
			c.buf = c.small[:]
		}
		if skipped == 0 && c.w == len(c.buf) {
			if len(c.buf) < limit || len(c.buf) == smallBuffer && long(c.buf[:c.w]) {
				c.grow(max(limit, longLine))
			} else {
				skipped = c.w
				c.w = 0
			}
		} else if skipped > 0 {
			skipped += c.w
			c.w = 0
		}
		if skipped > maxSkip {
			return nil, errors.New("line without end")
		}
		n, err := c.conn.Read(c.buf[c.w:])
		c.w += n
		line, ok := c.nextLine()
		switch {
		case ok && (skipped > 0 || len(line)+2 > limit && !long(line)):
			return nil, errLineLong
		case ok:
			return line, nil
		case n == 0 && err != nil:
			return nil, err
		}
	}
}

// longLine is the longest line with a SASL response that there is room for.
const longLine = 12288 + 2

func (c *wire) grow(n int) {
	buf := make([]byte, n)
	c.w = copy(buf, c.buf[c.r:c.w])
	c.r, c.buf = 0, buf
}
