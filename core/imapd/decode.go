package imapd

import (
	"bufio"
	"io"
	"strings"
)

// decodeTransfer decodes a content transfer encoding (RFC 2045 §6). What is not
// valid in it is left out or passed on: there is no error but the reader's.
// known is false for an encoding that is none of RFC 2045's.
func decodeTransfer(encoding string, r io.Reader) (decoded io.Reader, known bool) {
	switch strings.ToLower(encoding) {
	case "", "7bit", "8bit", "binary":
		return r, true
	case "base64":
		return &base64Reader{r: bufio.NewReaderSize(r, 4096)}, true
	case "quoted-printable":
		return &quotedReader{r: bufio.NewReaderSize(r, 4096)}, true
	}
	return nil, false
}

// base64Reader decodes base64 and passes over every octet that is not of its
// alphabet (RFC 2045 §6.8). After padding a new quantum may begin, as in
// attachments that were joined.
type base64Reader struct {
	r    *bufio.Reader
	acc  uint32
	bits uint
	err  error
}

func base64Value(c byte) (uint32, bool) {
	switch {
	case c >= 'A' && c <= 'Z':
		return uint32(c - 'A'), true
	case c >= 'a' && c <= 'z':
		return uint32(c-'a') + 26, true
	case c >= '0' && c <= '9':
		return uint32(c-'0') + 52, true
	case c == '+':
		return 62, true
	case c == '/':
		return 63, true
	}
	return 0, false
}

func (b *base64Reader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && b.err == nil {
		c, err := b.r.ReadByte()
		if err != nil {
			b.err = err
			break
		}
		if c == '=' {
			b.acc, b.bits = 0, 0
			continue
		}
		v, ok := base64Value(c)
		if !ok {
			continue
		}
		b.acc = b.acc<<6 | v
		if b.bits += 6; b.bits >= 8 {
			b.bits -= 8
			p[n] = byte(b.acc >> b.bits)
			n++
		}
	}
	if n > 0 {
		return n, nil
	}
	return 0, b.err
}

// quotedReader decodes quoted-printable (RFC 2045 §6.7). Blanks before a line
// end go; a malformed "=" stays.
type quotedReader struct {
	r    *bufio.Reader
	out  []byte // decoded, not yet read
	back [1024]byte
	err  error
}

func (q *quotedReader) Read(p []byte) (int, error) {
	for len(q.out) == 0 {
		if q.err != nil {
			return 0, q.err
		}
		q.chunk()
	}
	n := copy(p, q.out)
	q.out = q.out[n:]
	return n, nil
}

// chunk decodes up to a line end, or as much as fits.
func (q *quotedReader) chunk() {
	out := q.back[:0]
	for len(out) < cap(q.back)-300 {
		c, err := q.r.ReadByte()
		if err != nil {
			q.err = err
			break
		}
		switch c {
		case '=':
			out = q.escape(out)
		case ' ', '\t':
			out = q.blanks(out, c)
		default:
			out = append(out, c)
		}
		if c == '\n' {
			break
		}
	}
	q.out = out
}

// escape decodes what follows a "=".
func (q *quotedReader) escape(out []byte) []byte {
	// A soft line break may have blanks before its line end.
	ahead, _ := q.r.Peek(256) // an error shows at the next read
	i := 0
	for i < len(ahead) && (ahead[i] == ' ' || ahead[i] == '\t') {
		i++
	}
	switch rest := ahead[i:]; {
	case len(rest) == 0 && len(ahead) < 256, len(rest) > 0 && rest[0] == '\n':
		i = min(i+1, len(ahead))
	case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
		i += 2
	default:
		i = -1
	}
	if i >= 0 {
		_, _ = q.r.Discard(i) // they have been peeked at
		return out
	}
	if len(ahead) >= 2 {
		hi, ok1 := hexValue(ahead[0])
		lo, ok2 := hexValue(ahead[1])
		if ok1 && ok2 {
			_, _ = q.r.Discard(2) // they have been peeked at
			return append(out, hi<<4|lo)
		}
	}
	return append(out, '=')
}

// blanks passes on a run of blanks unless a line end follows.
func (q *quotedReader) blanks(out []byte, c byte) []byte {
	out = append(out, c)
	ahead, _ := q.r.Peek(256) // an error shows at the next read
	i := 0
	for i < len(ahead) && (ahead[i] == ' ' || ahead[i] == '\t') {
		i++
	}
	rest := ahead[i:]
	if len(rest) == 0 && len(ahead) < 256 || len(rest) > 0 && rest[0] == '\n' || len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
		_, _ = q.r.Discard(i) // they have been peeked at
		return out[:len(out)-1]
	}
	out = append(out, ahead[:i]...)
	_, _ = q.r.Discard(i) // they have been peeked at
	return out
}

func hexValue(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
