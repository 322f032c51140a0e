package dkim

import (
	"crypto/sha256"
	"hash"
	"slices"
)

// BodyHash is the SHA-256 of a body in canonical form (RFC 6376 §3.4.3, §3.4.4). It is
// an io.Writer for the octets of the body, in pieces of any size. One pass gives the
// hashes of as many prefixes (l=) as were asked for.
type BodyHash struct {
	canon Canon
	out   prefixes

	// What was read and may yet prove to be nothing: line ends, after them white
	// space, after that a CR that may begin a line end.
	lines int64
	space bool
	cr    bool

	done  bool
	some  bool   // something was given out
	buf   []byte // in small: short pieces on their way to the hash
	small [1 << 10]byte
}

// direct is from how many octets on a piece is not copied together with others.
const direct = 512

// NewBodyHash returns the hash of an empty body. Each of lengths is the number of
// octets in canonical form that Sum will be asked about, -1 for all.
func NewBodyHash(c Canon, lengths ...int64) *BodyHash {
	b := &BodyHash{canon: c, out: newPrefixes(lengths)}
	b.buf = b.small[:0]
	return b
}

// Write takes the next octets of the body. It never fails.
func (b *BodyHash) Write(p []byte) (int, error) {
	n := len(p)
	if b.canon == Relaxed {
		b.relaxed(p)
	} else {
		b.simple(p)
	}
	return n, nil
}

// Sum is the hash of the first length octets in canonical form, of all if length is
// -1. It is false for a length that the body does not have or NewBodyHash was not
// told of. Nothing can be written after the first Sum.
func (b *BodyHash) Sum(length int64) ([sha256.Size]byte, bool) {
	b.finish()
	return b.out.sum(length)
}

// Octets is the length of the whole body in canonical form. Nothing can be written
// after it was asked for.
func (b *BodyHash) Octets() int64 {
	b.finish()
	return b.out.octets
}

func (b *BodyHash) finish() {
	if b.done {
		return
	}
	b.done = true
	if b.cr { // the CR was no line end
		b.settle()
		b.add("\r")
	}
	if b.some || b.canon == Simple {
		b.add("\r\n")
	}
	b.flush()
	b.out.finish()
	b.buf = nil
}

// simple holds back the line ends at the end of p.
func (b *BodyHash) simple(p []byte) {
	for len(p) > 0 {
		if b.cr && p[0] == '\n' {
			b.cr, b.lines, p = false, b.lines+1, p[1:]
			continue
		}
		if !b.cr {
			if n := leadingLines(p); n > 0 {
				b.lines += int64(n)
				p = p[2*n:]
				continue
			}
			if len(p) == 1 && p[0] == '\r' {
				b.cr = true
				return
			}
		}
		b.settle()
		if b.cr {
			b.cr = false
			b.add("\r")
			continue
		}
		n := len(p)
		if p[n-1] == '\r' {
			n--
		}
		for n >= 2 && p[n-1] == '\n' && p[n-2] == '\r' {
			n -= 2
		}
		b.emit(p[:n])
		p = p[n:]
	}
}

// relaxed gives out what is canonical already in pieces as long as possible.
func (b *BodyHash) relaxed(p []byte) {
	scan := newScanner(p)
	for i := 0; i < len(p); {
		c := p[i]
		switch {
		case b.cr && c == '\n':
			b.cr, b.space, b.lines = false, false, b.lines+1
			i++
			continue
		case b.cr:
			b.settle()
			b.cr = false
			b.add("\r")
			continue
		case c == ' ' || c == '\t':
			b.space = true
			for i++; i < len(p) && (p[i] == ' ' || p[i] == '\t'); i++ {
			}
			continue
		case c == '\r' && (i+1 == len(p) || p[i+1] == '\n'):
			b.cr = true
			i++
			continue
		}
		b.settle()
		n := scan.plain(i)
		b.emit(p[i:n])
		i = n
	}
}

// settle gives out the line ends and the white space that were held back, since
// something follows them on their line.
func (b *BodyHash) settle() {
	for ; b.lines > 0; b.lines-- {
		b.add("\r\n")
	}
	if b.space {
		b.space = false
		b.add(" ")
	}
}

func (b *BodyHash) emit(p []byte) {
	b.some = true
	if len(p) >= direct {
		b.flush()
		b.out.write(p)
		return
	}
	if len(b.buf)+len(p) > cap(b.buf) {
		b.flush()
	}
	b.buf = append(b.buf, p...)
}

// add is emit for a few octets.
func (b *BodyHash) add(s string) {
	b.some = true
	if len(b.buf)+len(s) > cap(b.buf) {
		b.flush()
	}
	b.buf = append(b.buf, s...)
}

func (b *BodyHash) flush() {
	if len(b.buf) > 0 {
		b.out.write(b.buf)
		b.buf = b.buf[:0]
	}
}

// leadingLines counts the empty lines that p begins with.
func leadingLines(p []byte) int {
	n := 0
	for len(p) >= 2 && p[0] == '\r' && p[1] == '\n' {
		n, p = n+1, p[2:]
	}
	return n
}

// prefixes hashes a stream and remembers the hash at given lengths. Sum of a hash does
// not end it, so all lengths share one.
type prefixes struct {
	hash   hash.Hash
	octets int64
	whole  bool // the hash of everything is asked for
	next   int  // index in cuts
	cuts   []cut
}

type cut struct {
	at  int64
	sum [sha256.Size]byte
}

func newPrefixes(lengths []int64) prefixes {
	p := prefixes{hash: sha256.New()}
	for _, n := range lengths {
		if n < 0 {
			p.whole = true
		} else {
			p.cuts = append(p.cuts, cut{at: n})
		}
	}
	slices.SortFunc(p.cuts, func(a, b cut) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
	p.pass()
	return p
}

func (p *prefixes) write(b []byte) {
	for len(b) > 0 {
		n := len(b)
		switch {
		case p.next < len(p.cuts):
			n = int(min(int64(n), p.cuts[p.next].at-p.octets))
		case !p.whole: // nobody asks for the rest; its octets are counted
			p.octets += int64(n)
			return
		}
		p.hash.Write(b[:n])
		p.octets += int64(n)
		b = b[n:]
		p.pass()
	}
}

// pass takes the hashes that end here.
func (p *prefixes) pass() {
	for p.next < len(p.cuts) && p.cuts[p.next].at == p.octets {
		p.hash.Sum(p.cuts[p.next].sum[:0])
		p.next++
	}
}

func (p *prefixes) finish() {
	if p.whole {
		whole := cut{at: -1}
		p.hash.Sum(whole.sum[:0])
		p.cuts = append(p.cuts[:p.next], whole)
	}
}

func (p *prefixes) sum(length int64) ([sha256.Size]byte, bool) {
	for i := range p.cuts {
		if c := &p.cuts[i]; c.at == length && (length < 0 || i < p.next) {
			return c.sum, true
		}
	}
	return [sha256.Size]byte{}, false
}
