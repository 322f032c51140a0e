package pop3d

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

const chunk = 32 << 10

// chunks is a pool of buffers for messages on their way.
type chunks struct{ pool sync.Pool }

func (c *chunks) take() *[]byte {
	if b, ok := c.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, chunk+1024)
	return &b
}

func (c *chunks) put(b *[]byte) {
	*b = (*b)[:0]
	c.pool.Put(b)
}

// errMessage says that a message could not be read to its end, so that the
// reply cannot be ended either and the connection must be.
var errMessage = errors.New("read message")

// sendMessage writes a message as a multi-line reply (RFC 1939 §3): lines that
// begin with a dot get another one, the end is a line of one dot. With lines ≥
// 0 it stops after the header section, the empty line and so many lines of the
// body (TOP). What is waiting in out goes first.
func (c *wire) sendMessage(r io.Reader, lines int, pool *chunks) error {
	in, out := pool.take(), pool.take()
	defer pool.put(in)
	defer pool.put(out)
	*out = append(*out, c.out...)
	c.out = c.out[:0]
	s := stuffer{lines: lines, start: true, ended: true}
	for !s.done {
		n, err := r.Read((*in)[:chunk])
		for p := (*in)[:n]; len(p) > 0 && !s.done; {
			if len(*out) >= chunk-1 {
				if err := c.write(*out); err != nil {
					return err
				}
				*out = (*out)[:0]
			}
			*out, p = s.add(*out, p, chunk)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errors.Join(errMessage, err)
		}
	}
	if !s.ended { // a last line without its end
		*out = append(*out, "\r\n"...)
	}
	*out = append(*out, ".\r\n"...)
	return c.write(*out)
}

// stuffer copies a message line by line, from pieces of any size. A line may
// end with a bare LF, since some clients think so and would take ". LF" after it
// for the end of the reply; but that end itself comes after CR LF only.
type stuffer struct {
	lines int  // of the body, still to be copied; < 0: all
	start bool // at the beginning of a line
	ended bool // what was copied last is CR LF, or nothing was
	cr    bool // it is CR
	body  bool // past the empty line
	text  bool // this line has something besides its end
	done  bool
}

// add copies from p to out, which it does not let grow much beyond limit, and
// returns both and what is left of p.
func (s *stuffer) add(out, p []byte, limit int) (longer, rest []byte) {
	if s.start {
		if s.body && s.lines == 0 {
			s.done = true
			return out, nil
		}
		if p[0] == '.' {
			out = append(out, '.')
		}
	}
	i := bytes.IndexByte(p, '\n')
	line := p
	if i >= 0 {
		line = p[:i+1]
	}
	line = line[:min(len(line), limit+2-len(out))]
	out = append(out, line...)
	s.ended = bytes.HasSuffix(line, []byte("\r\n")) || s.cr && len(line) == 1 && line[0] == '\n'
	s.cr = line[len(line)-1] == '\r'
	s.text = s.text || len(bytes.TrimRight(line, "\r\n")) > 0
	if s.start = line[len(line)-1] == '\n'; s.start {
		switch {
		case s.body && s.lines > 0:
			s.lines--
		case !s.body:
			s.body = !s.text
		}
		s.text = false
	}
	return out, p[len(line):]
}
