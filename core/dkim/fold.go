package dkim

import "strings"

// columns is how long a line may become (RFC 5322 §2.1.1 asks for 78 at most).
const columns = 77

// folder writes a header field in lines of at most columns octets, as long as its
// parts allow.
type folder struct {
	out    []byte
	column int
}

func newFolder(name string) *folder {
	f := &folder{out: make([]byte, 0, 1024)}
	f.out = append(f.out, name...)
	f.out = append(f.out, ':')
	f.column = len(f.out)
	return f
}

// begin writes a piece after a blank or a new line.
func (f *folder) begin(s string) {
	if f.column+1+len(s) > columns {
		f.breakLine()
	} else {
		f.out = append(f.out, ' ')
		f.column++
	}
	f.write(s)
}

// join writes a piece right after the last one, or on a new line.
func (f *folder) join(s string) {
	if f.column+len(s) > columns && f.column > 1 {
		f.breakLine()
	}
	f.write(s)
}

// tag writes a tag with its semicolon. A list of names may be folded after each colon.
func (f *folder) tag(name, value string) {
	if name != "h" {
		f.begin(name + "=" + value + ";")
		return
	}
	first, rest, more := strings.Cut(value, ":")
	f.begin("h=" + first + end(more))
	for more {
		first, rest, more = strings.Cut(rest, ":")
		f.join(first + end(more))
	}
}

func end(more bool) string {
	if more {
		return ":"
	}
	return ";"
}

// anywhere writes what may be folded at any place.
func (f *folder) anywhere(s string) {
	for len(s) > 0 {
		if f.column >= columns {
			f.breakLine()
		}
		n := min(len(s), columns-f.column)
		f.write(s[:n])
		s = s[n:]
	}
}

func (f *folder) breakLine() {
	f.out = append(f.out, "\r\n "...)
	f.column = 1
}

func (f *folder) write(s string) {
	f.out = append(f.out, s...)
	f.column += len(s)
}
