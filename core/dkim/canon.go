package dkim

import "bytes"

// Canon is a canonicalization (RFC 6376 §3.4).
type Canon uint8

// The two canonicalizations.
const (
	Simple  Canon = iota // every octet counts
	Relaxed              // white space may change, and the case of field names
)

// String is the name that the c= tag has for it.
func (c Canon) String() string {
	if c == Relaxed {
		return "relaxed"
	}
	return "simple"
}

// AppendField appends a header field in its canonical form to dst (RFC 6376 §3.4.1,
// §3.4.2). field is raw, with its folding, and may lack its last line end; what is
// appended always has one, CR LF if it had none.
func (c Canon) AppendField(dst, field []byte) []byte {
	if c == Relaxed {
		return appendRelaxed(dst, field)
	}
	dst = append(dst, field...)
	if !bytes.HasSuffix(field, []byte{'\n'}) {
		dst = append(dst, '\r', '\n')
	}
	return dst
}

func appendRelaxed(dst, field []byte) []byte {
	colon := bytes.IndexByte(field, ':')
	if colon < 0 {
		colon = len(field)
	}
	for _, c := range bytes.Trim(field[:colon], blanks) {
		dst = append(dst, lower(c))
	}
	dst = append(dst, ':')
	start := len(dst)
	space := false
	for i := colon + 1; i < len(field); {
		switch c := field[i]; {
		case c == ' ' || c == '\t':
			space = true
			i++
		case c == '\n' || c == '\r' && i+1 < len(field) && field[i+1] == '\n':
			i++ // unfolded
		default:
			if space && len(dst) > start {
				dst = append(dst, ' ')
			}
			space = false
			n := wordEnd(field, i+1)
			dst = append(dst, field[i:n]...)
			i = n
		}
	}
	return append(dst, '\r', '\n')
}

// wordEnd is the index of the first octet of b from i on that may be white space.
func wordEnd(b []byte, i int) int {
	for i < len(b) && !isBlankOctet(b[i]) {
		i++
	}
	return i
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// trimLineEnd removes one line end.
func trimLineEnd(b []byte) []byte {
	b = bytes.TrimSuffix(b, []byte{'\n'})
	return bytes.TrimSuffix(b, []byte{'\r'})
}
