package mail

import (
	"bytes"
	"io"
	"iter"
	"strings"
)

// HeaderField is one field of a message's header as it stands there, with its
// continuation lines. It refers to the octets that were scanned.
type HeaderField struct {
	Raw   []byte // with the line end
	colon int    // index of the colon in Raw, -1 if the line has none
}

// HeaderFields goes through the fields of a header block from top to bottom and
// stops at the blank line (RFC 5322 §2.1, §2.2). It accepts CRLF and LF, and
// never fails: a line that is no field comes out as a field without a name.
func HeaderFields(block []byte) iter.Seq[HeaderField] {
	return func(yield func(HeaderField) bool) {
		for len(block) > 0 {
			n := lineLength(block)
			if isBlank(block[:n]) {
				return
			}
			for n < len(block) && (block[n] == ' ' || block[n] == '\t') {
				n += lineLength(block[n:])
			}
			raw := block[:n:n]
			block = block[n:]
			if !yield(HeaderField{Raw: raw, colon: fieldColon(raw)}) {
				return
			}
		}
	}
}

// lineLength is the number of octets of the first line of b with its line end.
func lineLength(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1
	}
	return len(b)
}

func isBlank(line []byte) bool {
	return len(line) == 1 && line[0] == '\n' || len(line) == 2 && line[0] == '\r' && line[1] == '\n'
}

// fieldColon finds the colon after a field name: printable ASCII, and for
// RFC 5322 §4.5's sake blanks before the colon.
func fieldColon(raw []byte) int {
	i := 0
	for i < len(raw) && raw[i] > ' ' && raw[i] < 0x7f && raw[i] != ':' {
		i++
	}
	if i == 0 {
		return -1
	}
	for i < len(raw) && (raw[i] == ' ' || raw[i] == '\t') {
		i++
	}
	if i < len(raw) && raw[i] == ':' {
		return i
	}
	return -1
}

// Is reports whether the field is called name, in any case.
func (f HeaderField) Is(name string) bool {
	n := f.rawName()
	return len(n) == len(name) && strings.EqualFold(string(n), name)
}

// Name is the field's name as written, "" for a line that is no field.
func (f HeaderField) Name() string { return string(f.rawName()) }

func (f HeaderField) rawName() []byte {
	if f.colon < 0 {
		return nil
	}
	return bytes.TrimRight(f.Raw[:f.colon], " \t")
}

// Value is the field's body unfolded (RFC 5322 §2.2.3): line ends are removed,
// the blanks after them stay, and blanks around the whole go. Encoded words
// stay as they are. It may hold any octet but CR LF pairs and LF.
func (f HeaderField) Value() string {
	if f.colon < 0 {
		return ""
	}
	return Unfold(f.Raw[f.colon+1:])
}

// Unfold removes line ends and the blanks around the whole.
func Unfold(raw []byte) string {
	raw = bytes.Trim(raw, " \t\r\n")
	if bytes.IndexByte(raw, '\n') < 0 {
		return string(raw)
	}
	b := make([]byte, 0, len(raw))
	for i, c := range raw {
		if c == '\n' || c == '\r' && i+1 < len(raw) && raw[i+1] == '\n' {
			continue
		}
		b = append(b, c)
	}
	return string(b)
}

// ReadHeader reads the header block in r that begins at octet start and must
// end at octet end: everything up to and with the blank line, at most max
// octets. What lies beyond max is left out. The only errors are r's.
func ReadHeader(r io.ReaderAt, start, end int64, max int) ([]byte, error) {
	const step = 4096
	var b []byte
	for int64(len(b)) < end-start && len(b) < max {
		n := min(step+len(b), max-len(b)) // doubles
		n = int(min(int64(n), end-start-int64(len(b))))
		had := len(b)
		b = append(b, make([]byte, n)...)
		got, err := r.ReadAt(b[had:], start+int64(had))
		b = b[:had+got]
		if i := blankLine(b, max0(had-3)); i >= 0 {
			return b[:i], nil
		}
		if err != nil && !(err == io.EOF && got > 0) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return b, err
		}
	}
	return b, nil
}

func max0(n int) int { return max(n, 0) }

// blankLine returns the index after the first blank line of b that ends after
// from, or -1.
func blankLine(b []byte, from int) int {
	if from == 0 {
		if n := lineLength(b); n > 0 && isBlank(b[:n]) {
			return n
		}
	}
	for i := from; ; {
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			return -1
		}
		i += j + 1
		if n := lineLength(b[i:]); isBlank(b[i : i+n]) {
			return i + n
		}
	}
}
