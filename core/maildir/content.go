package maildir

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
)

// Content is a message as it goes to clients: with CRLF line ends. It is an
// io.ReaderAt over Size octets, safe for concurrent use as such, and an
// io.Reader for one goroutine. No more than a few KiB of the message are in
// memory at a time; of a compressed one no more than 128 KiB.
//
// A message that has CRLF line ends is passed through octet for octet. In
// another one each LF without a CR before it becomes CRLF; nothing else changes.
type Content struct {
	src  contentSource // nil: all of the message is in head
	head []byte        // the first octets of the message
	kept *[]byte       // where head is to go back to, nil: nowhere
	size int64
	off  int64 // of Read

	marks []mark // nil: passed through
	mu    sync.Mutex
	last  mark // where the previous ReadAt ended
}

// contentSource is an *os.File or *unpacked.
type contentSource interface {
	io.ReaderAt
	io.Closer
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
	contentHead = 8 << 10 // octets that are read at once and kept
)

// Buffers are borrowed: who reads thousands of messages makes no garbage.
var (
	heads  = sync.Pool{New: func() any { b := make([]byte, 0, 2*contentHead); return &b }} // room for a CR at each LF
	inputs = sync.Pool{New: func() any { return new([markEvery]byte) }}
)

// binaryMark stands in the base name of a message that came as BINARYMIME (RFC 3030
// §3), which has no lines: its LFs without CR are content.
const binaryMark = ",B=1"

// open opens the file name of a message that is said to have size octets with
// CRLF line ends. What the file says counts where that is wrong.
func (o *opener) open(name string, size int64) (*Content, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	c, err := o.content(f, size, strings.Contains(filepath.Base(name), binaryMark))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return c, nil
}

// content is open for an open file; asIs says that its line ends are not to be
// touched if it has the size that it should have. On an error f stays open.
func (o *opener) content(f *os.File, size int64, asIs bool) (*Content, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	kept := heads.Get().(*[]byte)
	head := (*kept)[:min(fi.Size(), contentHead)]
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		heads.Put(kept)
		return nil, err
	}
	head = head[:n]
	if kind := compressionOf(head); kind != plain {
		heads.Put(kept)
		return o.unpack(f, kind, fi.Size())
	}
	c := &Content{src: f, head: head, kept: kept, size: fi.Size()}
	bare := bareLF(head)
	switch {
	case asIs && fi.Size() == size:
		return c, nil
	case fi.Size() < contentHead && int64(n) == fi.Size(): // all of it is here
		if bare {
			c.head = withCRLF(head)
			c.size = int64(len(c.head))
		}
		c.src = nil
		return c, f.Close()
	case fi.Size() == size && !bare && o.has(fi):
		return c, nil // every octet was checked earlier
	}
	if c.marks, c.size, err = survey(f); err != nil {
		heads.Put(kept)
		return nil, err
	}
	if c.size == fi.Size() {
		c.marks = nil
		o.add(fi)
	}
	return c, nil
}

// withCRLF puts a CR before each LF in b that has none. The capacity of b is at least
// twice its length.
func withCRLF(b []byte) []byte {
	var at mark
	at.count(b)
	from, to := len(b), int(at.crlf)
	out := b[:to]
	for from > 0 && to > from { // from the end, so that nothing is written over before it is read
		i := bytes.LastIndexByte(b[:from], '\n')
		line := b[max(i, 0):from]
		to -= len(line)
		bare := i >= 0 && (i == 0 || b[i-1] != '\r')
		copy(out[to:], line)
		if from = max(i, 0); bare {
			to--
			out[to] = '\r'
		}
	}
	return out
}

// unpack is content for a compressed file.
func (o *opener) unpack(f *os.File, kind compression, size int64) (*Content, error) {
	o.gate <- struct{}{}
	defer func() { <-o.gate }()
	u, err := openUnpacked(f, kind, size, o.limit)
	if err != nil {
		return nil, err
	}
	c := &Content{src: u, size: u.marks.at.crlf}
	if c.size != u.Size() {
		c.marks = u.marks.marks
	}
	if err := f.Close(); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return c, nil
}

// bareLF reports whether b, the beginning of a message, has an LF without a CR
// before it.
func bareLF(b []byte) bool {
	var at mark
	at.count(b)
	return at.crlf != at.file
}

// opener opens messages. It remembers files that were found to have CRLF line
// ends all through, so that a big one that is read in many parts is checked once.
type opener struct {
	limit int64         // octets that a message may unpack to
	gate  chan struct{} // has a token for each message that is being unpacked

	mu    sync.Mutex
	files map[stamp]struct{}
}

const maxSurveyed = 4096

func newOpener(limit int64) *opener {
	return &opener{limit: limit, gate: make(chan struct{}, maxUnpacking), files: map[stamp]struct{}{}}
}

func (o *opener) has(fi os.FileInfo) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.files[stampFrom(fi)]
	return ok
}

func (o *opener) add(fi os.FileInfo) {
	if fi.Size() < contentHead {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.files) >= maxSurveyed {
		clear(o.files)
	}
	o.files[stampFrom(fi)] = struct{}{}
}

// Size is the number of octets that can be read.
func (c *Content) Size() int64 { return c.size }

// Close closes the file. Nothing may be read any more.
func (c *Content) Close() error {
	if c.kept != nil {
		heads.Put(c.kept)
		c.head, c.kept = nil, nil
	}
	if c.src == nil {
		return nil
	}
	return c.src.Close()
}

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
		if off+int64(len(p)) <= int64(len(c.head)) {
			return copy(p, c.head[off:]), nil
		}
		if c.src == nil {
			return 0, os.ErrClosed
		}
		return c.src.ReadAt(p, off)
	}
	at := c.markBefore(off)
	skip := off - at.crlf
	in := inputs.Get().(*[markEvery]byte)
	defer inputs.Put(in)
	n := 0
	for n < len(p) {
		want := min(contentRead, int64(len(p)-n)+skip)
		got, err := c.src.ReadAt(in[:want], at.file)
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
	in := inputs.Get().(*[markEvery]byte)
	defer inputs.Put(in)
	var at mark
	marks := []mark{at}
	for {
		n, err := f.ReadAt(in[:], at.file)
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
