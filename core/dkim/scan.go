package dkim

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// scanner finds the places where relaxed canonicalization changes a piece of a body.
// They are rare, so it looks at eight octets at a time.
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
	// A blank and CR share no bit with this; neither do a few others, which are
	// looked at again.
	unlike = 0xd2d2d2d2d2d2d2d2
)

// doubled returns the index of the first blank of p that a blank or a CR follows,
// len(p) if there is none.
func doubled(p []byte) int {
	i := 0
	for len(p)-i >= 17 {
		q := p[i : i+17 : i+17]
		// An octet of these is zero where a blank is followed by what may matter.
		a := binary.LittleEndian.Uint64(q) ^ spaces | binary.LittleEndian.Uint64(q[1:])&unlike
		b := binary.LittleEndian.Uint64(q[8:]) ^ spaces | binary.LittleEndian.Uint64(q[9:])&unlike
		a = (a - ones) &^ a & highs
		b = (b - ones) &^ b & highs
		if a|b == 0 {
			i += 16
			continue
		}
		// The lowest mark is true; those above it may be borrows.
		if a != 0 {
			i += bits.TrailingZeros64(a) / 8
		} else {
			i += 8 + bits.TrailingZeros64(b)/8
		}
		if p[i] == ' ' && (p[i+1] == ' ' || p[i+1] == '\r') {
			return i
		}
		i++
	}
	for ; i+1 < len(p); i++ {
		if p[i] == ' ' && (p[i+1] == ' ' || p[i+1] == '\r') {
			return i
		}
	}
	return len(p)
}
