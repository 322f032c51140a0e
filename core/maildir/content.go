package maildir

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sort"
	"sync"
)

// Content is a message as it goes to clients: with CRLF line ends. It is an
// io.ReaderAt over Size octets, safe for concurrent use as such, and an
// io.Reader for one goroutine. No more than a few KiB of the message are in
// memory at a time.
//
// A file that has CRLF line ends is passed through octet for octet. In another
// one each LF without a CR before it becomes CRLF; nothing else changes.
type Content struct {
	f    *os.File
	size int64
	off  int64 // of Read

	marks []mark // nil: passed through
	mu    sync.Mutex
	last  mark // where the previous ReadAt ended
}

// mark is a place in a file with bare LFs.
type mark struct {
	file int64 // offset in the file
	crlf int64 // offset in the message
	cr   bool  // the octet before is a CR
}

const (
	markEvery   = 64 << 10 // octets of the file
	contentRead = 32 << 10
)

// openContent opens the file name of a message that has size octets with CRLF
// line ends. The file decides where size is wrong.
func openContent(name string, size int64) (*Content, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	c := &Content{f: f, size: size}
	if fi.Size() == size {
		return c, nil
	}
	if c.marks, c.size, err = survey(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if c.size == fi.Size() {
		c.marks = nil
	}
	return c, nil
}

// Size is the number of octets that can be read.
func (c *Content) Size() int64 { return c.size }

// Close closes the file.
func (c *Content) Close() error { return c.f.Close() }

// Read reads on from where the last Read ended.
func (c *Content) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.ReadAt(p, c.off)
	c.off += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// ReadAt implements io.ReaderAt.
func (c *Content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read message: negative offset")
	}
	if off >= c.size {
		return 0, io.EOF
	}
	short := error(nil)
	if int64(len(p)) > c.size-off {
		p, short = p[:c.size-off], io.EOF
	}
	n, err := c.read(p, off)
	if n == len(p) {
		return n, short
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the file has been cut
	}
	return n, err
}

func (c *Content) read(p []byte, off int64) (int, error) {
	if c.marks == nil {
		return c.f.ReadAt(p, off)
	}
	at := c.markBefore(off)
	skip := off - at.crlf
	var in [contentRead]byte
	n := 0
	for n < len(p) {
		want := min(int64(len(in)), int64(len(p)-n)+skip)
		got, err := c.f.ReadAt(in[:want], at.file)
		if got == 0 {
			return n, err
		}
		rest := in[:got]
		if skip > 0 {
			used := at.skip(rest, skip)
			if at.crlf > off { // off is between the CR that we add and its LF
				p[n] = '\n'
				n++
			}
			skip = max(0, off-at.crlf)
			rest = rest[used:]
		}
		n += at.copy(p[n:], rest)
	}
	c.mu.Lock()
	c.last = at
	c.mu.Unlock()
	return n, nil
}

// markBefore finds a known place at or before off.
func (c *Content) markBefore(off int64) mark {
	i := sort.Search(len(c.marks), func(i int) bool { return c.marks[i].crlf > off }) - 1
	best := c.marks[i]
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.crlf <= off && c.last.crlf > best.crlf {
		return c.last
	}
	return best
}

// skip moves m over octets of the file until it has passed n of the message or
// the input ends, and returns how many octets of the file that were. It may
// pass one octet more: the LF of an added CR.
func (m *mark) skip(in []byte, n int64) int {
	to := m.crlf + n
	for i, c := range in {
		if m.crlf >= to {
			return i
		}
		if c == '\n' && !m.cr {
			m.crlf++
		}
		m.crlf++
		m.file++
		m.cr = c == '\r'
	}
	return len(in)
}

// copy writes the octets in to out with CRLF line ends, as far as they fit, and
// moves m over what it has written. An LF whose CR alone fits is written again
// next time: m stays before it.
func (m *mark) copy(out, in []byte) (n int) {
	for len(in) > 0 && n < len(out) {
		if in[0] == '\n' && !m.cr {
			out[n] = '\r'
			if n++; n == len(out) {
				return n
			}
			out[n] = '\n'
			n++
			m.crlf += 2
			m.file++
			m.cr = false
			in = in[1:]
			continue
		}
		k := bytes.IndexByte(in[1:], '\n') + 1
		if k == 0 {
			k = len(in)
		}
		k = copy(out[n:], in[:k])
		n += k
		m.file += int64(k)
		m.crlf += int64(k)
		m.cr = in[k-1] == '\r'
		in = in[k:]
	}
	return n
}

// survey reads a whole file and returns marks all over it and its size with
// CRLF line ends.
func survey(f io.ReaderAt) ([]mark, int64, error) {
	in := make([]byte, markEvery)
	var at mark
	marks := []mark{at}
	for {
		n, err := f.ReadAt(in, at.file)
		at.count(in[:n])
		if errors.Is(err, io.EOF) {
			return marks, at.crlf, nil
		}
		if err != nil {
			return nil, 0, err
		}
		marks = append(marks, at)
	}
}

// count moves m over octets of the file.
func (m *mark) count(in []byte) {
	for len(in) > 0 {
		i := bytes.IndexByte(in, '\n')
		if i < 0 {
			m.pass(in)
			return
		}
		if i > 0 {
			m.pass(in[:i])
		}
		if !m.cr {
			m.crlf++
		}
		m.pass(in[i : i+1])
		in = in[i+1:]
	}
}

// pass moves m over octets that stay as they are.
func (m *mark) pass(in []byte) {
	m.file += int64(len(in))
	m.crlf += int64(len(in))
	m.cr = in[len(in)-1] == '\r'
}

// virtualSize is the size of a file's message with CRLF line ends.
func virtualSize(name string) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close() // only read
	_, n, err := survey(f)
	return n, err
}
