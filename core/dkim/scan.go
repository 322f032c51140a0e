package dkim

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// scanner finds the places where relaxed canonicalization changes a piece of a body.
// They are rare, so it looks at many octets at a time.
type scanner struct {
	p   []byte
	tab int // index of the next tab, at or after the last place asked for; len(p) if none
}

func newScanner(p []byte) scanner { return scanner{p: p, tab: -1} }

// plain returns the end of the octets from i on that are canonical as they stand and
// end a word: no tab, no blank before white space, no white space at the end. The
// octet at i is taken for granted.
func (s *scanner) plain(i int) int {
	if s.tab < i {
		s.tab = len(s.p)
		if n := bytes.IndexByte(s.p[i:], '\t'); n >= 0 {
			s.tab = i + n
		}
	}
	end := i + doubled(s.p[i:s.tab])
	return i + 1 + held(s.p[i+1:end], end == len(s.p))
}

// held returns the length of p without the line ends and blanks at its end, which may
// prove to be nothing. A bare CR or LF stays, except for a CR where the LF may follow
// with the next piece. What is cut off is never looked at in this way again, so that
// all takes linear time.
func held(p []byte, last bool) int {
	n := len(p)
	if last && n > 0 && p[n-1] == '\r' {
		n--
	}
	for {
		switch {
		case n >= 1 && p[n-1] == ' ':
			n--
		case n >= 2 && p[n-1] == '\n' && p[n-2] == '\r':
			n -= 2
		default:
			return n
		}
	}
}

const (
	ones   = 0x0101010101010101
	highs  = 0x8080808080808080
	spaces = 0x2020202020202020
	// A blank and CR share no bit with this; neither do some others, among them hyphen,
	// comma and brackets.
	unlike = 0xd2d2d2d2d2d2d2d2
)

// stretch is how many octets are looked at after a blank before the next blank is
// sought: attachments have none, texts have many.
const stretch = 1024

// doubled returns the index of the first blank of p that a blank or a CR follows,
// len(p) if there is none.
func doubled(p []byte) int {
	for i := 0; i < len(p); {
		n := bytes.IndexByte(p[i:], ' ')
		if n < 0 {
			break
		}
		i += n
		for stop := min(i+stretch, len(p)-block); i < stop; {
			q := (*[block + 1]byte)(p[i:])
			// An octet of these is zero where a blank is followed by what may matter.
			a := load(q[0:8]) ^ spaces | load(q[1:9])&unlike
			b := load(q[8:16]) ^ spaces | load(q[9:17])&unlike
			c := load(q[16:24]) ^ spaces | load(q[17:25])&unlike
			d := load(q[24:32]) ^ spaces | load(q[25:33])&unlike
			if ((a-ones)|(b-ones)|(c-ones)|(d-ones))&highs == 0 {
				i += block // and it has no octet above 127
				continue
			}
			n := zeroOctet(a, b, c, d)
			if i += n; n == block {
				continue
			}
			if p[i+1] == ' ' || p[i+1] == '\r' {
				return i
			}
			i++
		}
		if i+block < len(p) {
			continue
		}
		for ; i+1 < len(p); i++ {
			if p[i] == ' ' && (p[i+1] == ' ' || p[i+1] == '\r') {
				return i
			}
		}
		break
	}
	return len(p)
}

const block = 32

func load(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// zeroOctet returns the index of the first zero octet of the four words, block if
// there is none.
func zeroOctet(words ...uint64) int {
	for i, w := range words {
		// The lowest mark is true; those above it may be borrows.
		if w = (w - ones) &^ w & highs; w != 0 {
			return 8*i + bits.TrailingZeros64(w)/8
		}
	}
	return block
}
