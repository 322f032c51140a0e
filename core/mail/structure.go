package mail

import (
	"bytes"
	"io"
	"strings"
)

// Bounds of a MIME tree. What is nested deeper, or comes after that many
// parts, is content of the part around it.
const (
	MaxDepth = 100
	MaxParts = 10000
)

// Bounds of what ParseStructure keeps of headers.
const (
	maxFieldKept  = 16 << 10 // octets of one Content- field
	maxHeaderKept = 2 << 20  // octets of all Content- fields of a message
	lineWindow    = 16 << 10
)

// Range is a part of a message: the octets from Start up to but not with End.
type Range struct{ Start, End int64 }

// Size is the number of octets.
func (r Range) Size() int64 { return r.End - r.Start }

// Param is one parameter of a MIME field as it was given, without its quotes.
type Param struct{ Name, Value string }

// Part is a node of a message's MIME tree (RFC 2045, RFC 2046). Strings are as
// the message gives them, unfolded; they may hold any octet but line ends.
type Part struct {
	Type, Subtype string // never empty
	Params        []Param
	ID            string
	Description   string
	Encoding      string // "" if not given
	MD5           string
	Disposition   string
	DispParams    []Param
	Language      []string
	Location      string

	Header Range // with its blank line, if there is one
	Body   Range // ends before the line end that belongs to the boundary
	Lines  int64 // line ends in Body

	Parts   []*Part // of a multipart: at least one
	Message *Part   // of message/rfc822 and message/global
}

// Is reports whether the part's media type is typ, in any case; a subtype of
// "" or "*" matches all.
func (p *Part) Is(typ, subtype string) bool {
	return strings.EqualFold(p.Type, typ) && (subtype == "" || subtype == "*" || strings.EqualFold(p.Subtype, subtype))
}

// Param returns the parameter called name, in any case, "" if there is none.
func (p *Part) Param(name string) string {
	for _, q := range p.Params {
		if strings.EqualFold(q.Name, name) {
			return q.Value
		}
	}
	return ""
}

// ParseStructure finds the parts of the message of size octets in r. It reads
// once from front to end with a window of 16 KiB and keeps byte ranges, never
// bodies. No mail is too bad for it: what cannot be understood is text/plain, a
// multipart whose boundary never comes has one empty part, and what exceeds
// MaxDepth is application/octet-stream. Errors come from reading only.
func ParseStructure(r io.ReaderAt, size int64) (*Part, error) {
	p := &structureParser{lines: lineScanner{r: r, size: size}, parts: 1, budget: maxHeaderKept}
	root := &Part{}
	e := p.entity(root, 0, false)
	if p.lines.err != nil {
		return nil, p.lines.err
	}
	root.finish(e)
	return root, nil
}

type structureParser struct {
	lines      lineScanner
	boundaries []string // open multiparts, the innermost last
	parts      int
	budget     int // octets of header fields that may still be kept
}

// ending says where and why an entity ended.
type ending struct {
	level   int   // index of the boundary that was met, -1 at the end of the message
	closing bool  // with two hyphens behind
	at      int64 // where the content ends: before the line end that precedes the boundary
	lines   int64 // line ends up to there
}

// finish sets the end of p's content.
func (p *Part) finish(e ending) {
	p.Body.End = max(e.at, p.Body.Start)
	p.Lines = max(e.lines-p.Lines, 0) // Lines held the count at Body.Start
}

// entity reads a header and a body. It returns what ended them and leaves
// part.finish to the caller, since the end of a part is the end of all that is
// open in it. The content never ends before the part's body begins: where the
// line end before a boundary is the blank line of a header, it belongs to the header.
func (p *structureParser) entity(part *Part, depth int, digest bool) ending {
	start, count := p.lines.offset, p.lines.count
	fields, e, ended := p.header()
	part.Header = Range{start, p.lines.offset}
	if ended {
		if e.at < start {
			e.at, e.lines = start, count
		}
		part.Header.End = e.at
	}
	part.Body.Start, part.Lines = part.Header.End, p.lines.count
	part.apply(fields, digest)
	if ended {
		part.Lines = e.lines
		if part.Is("multipart", "") {
			part.Parts = []*Part{emptyPart(part.Body.Start)}
		}
		if part.isMessage() {
			part.Message = emptyPart(part.Body.Start)
		}
		return e
	}
	if e = p.body(part, depth); e.at < part.Body.Start {
		e.at, e.lines = part.Body.Start, part.Lines
	}
	return e
}

// body reads what follows a part's header.
func (p *structureParser) body(part *Part, depth int) ending {
	multi := part.Is("multipart", "")
	if (multi || part.isMessage()) && depth >= MaxDepth-1 {
		part.Type, part.Subtype, part.Params, multi = "application", "octet-stream", nil, false
	}
	switch {
	case multi:
		return p.multipart(part, depth)
	case part.isMessage():
		part.Message = &Part{}
		e := p.entity(part.Message, depth+1, false)
		part.Message.finish(e)
		return e
	}
	return p.skip()
}

func (p *Part) isMessage() bool { return p.Is("message", "rfc822") || p.Is("message", "global") }

func emptyPart(at int64) *Part {
	return &Part{Type: "text", Subtype: "plain", Header: Range{at, at}, Body: Range{at, at}}
}

// multipart reads preamble, parts and epilogue (RFC 2046 §5.1).
func (p *structureParser) multipart(part *Part, depth int) ending {
	level := len(p.boundaries)
	p.boundaries = append(p.boundaries, part.Param("boundary"))
	digest := part.Is("multipart", "digest")
	e := p.skip()
	for e.level == level && !e.closing {
		child := &Part{}
		p.parts++
		e = p.entity(child, depth+1, digest)
		child.finish(e)
		part.Parts = append(part.Parts, child)
	}
	p.boundaries = p.boundaries[:level]
	if e.level == level {
		e = p.skip() // the epilogue
	}
	if part.Parts == nil {
		part.Parts = []*Part{emptyPart(max(e.at, part.Body.Start))}
	}
	return e
}

// skip reads lines until a boundary or the end.
func (p *structureParser) skip() ending {
	if len(p.boundaries) == 0 {
		p.lines.rest()
		return ending{level: -1, at: p.lines.offset, lines: p.lines.count}
	}
	for {
		line, ok := p.lines.next()
		if !ok {
			return ending{level: -1, at: p.lines.offset, lines: p.lines.count}
		}
		if e, hit := p.boundary(line); hit {
			return e
		}
	}
}

// boundary reports whether a line is a delimiter of an open multipart. The
// innermost wins, and of several boundaries that the line begins with the
// longest (RFC 2046 §5.1.1 compares the beginning of the line only).
func (p *structureParser) boundary(line []byte) (ending, bool) {
	if len(p.boundaries) == 0 || len(line) < 2 || line[0] != '-' || line[1] != '-' {
		return ending{}, false
	}
	rest := line[2:]
	level := -1
	for i := len(p.boundaries) - 1; i >= 0; i-- {
		b := p.boundaries[i]
		if (level < 0 || len(b) > len(p.boundaries[level])) && len(rest) >= len(b) && string(rest[:len(b)]) == b {
			level = i
			if len(rest) == len(b) {
				break
			}
		}
	}
	if level < 0 {
		return ending{}, false
	}
	closing := bytes.HasPrefix(rest[len(p.boundaries[level]):], []byte("--"))
	if !closing && p.parts >= MaxParts {
		return ending{}, false
	}
	e := ending{level: level, closing: closing, at: p.lines.start - int64(p.lines.lastEnd), lines: p.lines.startCount}
	if p.lines.lastEnd > 0 {
		e.lines--
	}
	return e, true
}

// contentFields are the fields of a part's header that are kept.
type contentFields map[string]string

// header reads up to the blank line. ended is true if a boundary or the end of
// the message came first.
func (p *structureParser) header() (fields contentFields, e ending, ended bool) {
	var name string
	var value []byte
	keep := func() {
		if name == "" {
			return
		}
		if fields == nil {
			fields = contentFields{}
		}
		if _, twice := fields[name]; !twice {
			fields[name] = Unfold(value)
		}
		name = ""
	}
	for {
		line, ok := p.lines.next()
		if !ok {
			keep()
			return fields, ending{level: -1, at: p.lines.offset, lines: p.lines.count}, true
		}
		if len(line) == 0 {
			keep()
			return fields, ending{}, false
		}
		if e, hit := p.boundary(line); hit {
			keep()
			return fields, e, true
		}
		if line[0] == ' ' || line[0] == '\t' {
			if name != "" && len(value)+len(line) <= maxFieldKept && p.budget >= len(line) {
				p.budget -= len(line)
				value = append(append(value, '\n'), line...)
			}
			continue
		}
		keep()
		if len(line) < 8 || !strings.EqualFold(string(line[:8]), "content-") {
			continue
		}
		if colon := fieldColon(line); colon > 0 && p.budget >= len(line) {
			p.budget -= len(line)
			name = strings.ToLower(string(bytes.TrimRight(line[:colon], " \t")))
			value = append(value[:0], line[colon+1:]...)
		}
	}
}

// lineScanner yields the lines of a message without ever holding more than a
// window of it.
type lineScanner struct {
	r    io.ReaderAt
	size int64
	err  error

	buf    []byte // window, from octet base of the message
	base   int64
	pos    int
	offset int64 // of the next line
	count  int64 // line ends before offset
	long   []byte

	start      int64 // of the line that next returned
	startCount int64 // line ends before it
	lastEnd    int   // octets of the line end before it
	end        int   // octets of its own line end
}

// fill reads on; false at the end or on an error.
func (s *lineScanner) fill() bool {
	if s.buf == nil {
		s.buf = make([]byte, 0, int(min(lineWindow, max(s.size, 1))))
	}
	if s.pos > 0 {
		n := copy(s.buf, s.buf[s.pos:])
		s.base += int64(s.pos)
		s.buf, s.pos = s.buf[:n], 0
	}
	at := s.base + int64(len(s.buf))
	room := min(int64(cap(s.buf)-len(s.buf)), s.size-at)
	if room <= 0 || s.err != nil {
		return false
	}
	n, err := s.r.ReadAt(s.buf[len(s.buf):len(s.buf)+int(room)], at)
	s.buf = s.buf[:len(s.buf)+n]
	if n > 0 {
		return true
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	s.err = err
	return false
}

// next returns the next line without its line end, cut to the window if it is
// longer. The slice is valid until the next call.
func (s *lineScanner) next() ([]byte, bool) {
	s.start, s.startCount, s.lastEnd = s.offset, s.count, s.end
	s.end = 0
	seen := 0
	for {
		if i := bytes.IndexByte(s.buf[s.pos+seen:], '\n'); i >= 0 {
			line := s.buf[s.pos : s.pos+seen+i]
			s.pos += len(line) + 1
			s.offset = s.base + int64(s.pos)
			s.count++
			s.end = 1
			if n := len(line); n > 0 && line[n-1] == '\r' {
				line, s.end = line[:n-1], 2
			}
			return line, true
		}
		seen = len(s.buf) - s.pos
		if s.fill() {
			continue
		}
		if s.err != nil || seen == 0 {
			return nil, false
		}
		if s.base+int64(len(s.buf)) >= s.size { // a last line without end
			line := s.buf[s.pos:]
			s.pos = len(s.buf)
			s.offset = s.size
			return line, true
		}
		return s.longLine()
	}
}

// longLine returns the beginning of a line that fills the window and reads to its end.
func (s *lineScanner) longLine() ([]byte, bool) {
	s.long = append(s.long[:0], s.buf...)
	last := byte(0)
	for {
		if i := bytes.IndexByte(s.buf[s.pos:], '\n'); i >= 0 {
			if i > 0 {
				last = s.buf[s.pos+i-1]
			}
			s.pos += i + 1
			s.count++
			s.end = 1
			if last == '\r' {
				s.end = 2
			}
			break
		}
		last = s.buf[len(s.buf)-1]
		s.pos = len(s.buf)
		if !s.fill() {
			break
		}
	}
	s.offset = s.base + int64(s.pos)
	return s.long, s.err == nil
}

// rest reads to the end of the message and counts line ends.
func (s *lineScanner) rest() {
	for {
		s.count += int64(bytes.Count(s.buf[s.pos:], []byte{'\n'}))
		s.pos = len(s.buf)
		s.offset = s.base + int64(s.pos)
		if !s.fill() {
			return
		}
	}
}
