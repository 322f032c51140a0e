package main

import (
	"bytes"
	"io"
	"strings"
)

// Bounds of a walk. What is beyond is not looked at, and the walk says so.
const (
	maxDepth      = 10
	maxParts      = 200
	maxPartHeader = 32 << 10 // octets of one part's header fields
	maxLine       = 4 << 10  // octets of one line of the body
	maxTries      = 20_000   // lines that begin with "--"
	maxBoundaries = 4        // of one part
	chunk         = 64 << 10 // octets of the body that are read at once
)

// body is a message's body, like io.ReaderAt: sdk.Event.Body.
type body func(p []byte, off int64) (int, error)

// walk finds the parts of a message (RFC 2046 §5.1), those of forwarded messages
// too, and uuencoded files.
type walk struct {
	field  func(name, value string) // is told each header field of each part; of the message those about its content
	file   func(name string)        // is told each file name
	limit  int64                    // octets of the body that are read
	unread bool                     // something was beyond a bound

	levels  []level // the multiparts that are open, outermost first
	nested  int     // forwarded messages that are open
	parts   int
	tries   int      // lines that could have been a boundary
	header  [][]byte // of the part whose header is read
	octets  int      // of header
	reading bool     // a part's header
}

// level is a multipart that is open.
type level struct {
	boundaries []string // one, but for a part with several fields Content-Type
	nested     int      // forwarded messages that it is in
}

// message walks through a message with these header fields.
func (w *walk) message(header [][2]string, read body) error {
	for _, f := range header {
		if len(f[0]) > 8 && strings.EqualFold(f[0][:8], "Content-") { // the message is a part too
			w.field(f[0], f[1])
		}
		w.names(f[0], f[1])
	}
	w.open(header)
	l := lines{read: read, limit: w.limit}
	for {
		if !w.reading {
			l.skip()
		}
		line, err := l.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if w.parts > maxParts || w.tries > maxTries {
			w.unread = true
			break
		}
		w.line(line)
	}
	if w.reading {
		w.endHeader()
	}
	w.unread = w.unread || l.cut
	return nil
}

// open begins what a header announces: the parts of a multipart, or the message
// in a message.
func (w *walk) open(header [][2]string) {
	var boundaries []string
	for _, f := range header {
		if !strings.EqualFold(f[0], "Content-Type") {
			continue
		}
		kind, params := parseParams(f[1])
		switch {
		case strings.HasPrefix(kind, "multipart/"):
			for _, b := range values(params, "boundary") {
				if b = strings.TrimRight(b, " \t"); b != "" && len(b) <= 200 && len(boundaries) < maxBoundaries { // RFC 2046 has 70
					boundaries = append(boundaries, b)
				}
			}
		case kind == "message/rfc822", kind == "message/global", kind == "message/news":
			if w.nested+len(w.levels) >= maxDepth {
				w.unread = true
				return
			}
			w.nested++
			w.reading = true
		}
	}
	if len(boundaries) == 0 {
		return
	}
	if w.nested+len(w.levels) >= maxDepth {
		w.unread = true
		return
	}
	w.levels = append(w.levels, level{boundaries, w.nested})
}

// line takes one line of the body, without its end.
func (w *walk) line(line []byte) {
	if bytes.HasPrefix(line, []byte("--")) && len(w.levels) > 0 && w.boundary(string(line[2:])) {
		return
	}
	switch {
	case !w.reading:
		if name, ok := uuencoded(line); ok {
			w.parts++
			w.file(name)
		}
	case len(line) == 0:
		w.endHeader()
	case w.octets+len(line) > maxPartHeader:
		w.unread, w.octets = true, maxPartHeader // and nothing behind it
	default:
		w.octets += len(line)
		if n := len(w.header); n > 0 && (line[0] == ' ' || line[0] == '\t') {
			w.header[n-1] = append(w.header[n-1], line...)
			return
		}
		w.header = append(w.header, bytes.Clone(line))
	}
}

// boundary reports whether a line that began with "--" is a boundary. The whole
// line is looked for first, then a beginning of it: RFC 2046 §5.1.1 lets both be
// one.
func (w *walk) boundary(rest string) bool {
	w.tries++
	rest = strings.TrimRight(rest, " \t")
	for _, whole := range []bool{true, false} {
		for i := len(w.levels) - 1; i >= 0; i-- {
			for _, b := range w.levels[i].boundaries {
				after, ok := strings.CutPrefix(rest, b)
				if !ok || whole && after != "" && after != "--" {
					continue
				}
				if w.reading {
					w.endHeader()
				}
				w.reading = !strings.HasPrefix(after, "--")
				w.nested = w.levels[i].nested
				if w.reading {
					w.levels = w.levels[:i+1]
					w.parts++
				} else {
					w.levels = w.levels[:i]
				}
				return true
			}
		}
	}
	return false
}

// endHeader looks at a part's header.
func (w *walk) endHeader() {
	fields := make([][2]string, 0, len(w.header))
	for _, line := range w.header {
		name, value, ok := strings.Cut(string(line), ":")
		if !ok {
			continue
		}
		name, value = strings.TrimRight(name, " \t"), strings.TrimSpace(value)
		fields = append(fields, [2]string{name, value})
		w.field(name, value)
		w.names(name, value)
	}
	w.header, w.octets, w.reading = w.header[:0], 0, false
	w.open(fields)
}

// names looks for file names in one header field. Some mail readers take either
// parameter from either field.
func (w *walk) names(name, value string) {
	if !strings.EqualFold(name, "Content-Disposition") && !strings.EqualFold(name, "Content-Type") {
		return
	}
	_, params := parseParams(value)
	for _, attribute := range []string{"filename", "name"} {
		for _, v := range values(params, attribute) {
			w.file(v)
		}
	}
}

// uuencoded reads "begin 644 NAME".
func uuencoded(line []byte) (name string, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte("begin "))
	if !ok || len(rest) > 300 {
		return "", false
	}
	mode, file, ok := strings.Cut(string(rest), " ")
	if !ok || len(mode) < 3 || len(mode) > 4 || strings.Trim(mode, "01234567") != "" || !strings.Contains(file, ".") {
		return "", false
	}
	return strings.TrimSpace(file), true
}

// lines reads a body line by line, in bounded pieces.
type lines struct {
	read  body
	limit int64 // octets that are read
	off   int64
	buf   []byte // read and not handed out
	room  []byte // what buf is in
	end   bool   // nothing follows buf
	cut   bool   // something does, beyond limit
}

// next returns the next line without its end, cut to maxLine octets, or io.EOF.
// It is valid until the next call.
func (l *lines) next() (line []byte, err error) {
	var long []byte // the beginning of a line that did not fit
	for {
		i := bytes.IndexByte(l.buf, '\n')
		if i < 0 && !l.end {
			if len(l.buf) >= maxLine {
				if long == nil {
					long = append(long, l.buf[:maxLine]...)
				}
				l.buf = l.buf[:0]
			}
			if err := l.fill(); err != nil {
				return nil, err
			}
			continue
		}
		if i < 0 {
			if len(l.buf) == 0 && long == nil {
				return nil, io.EOF
			}
			line, l.buf = l.buf, nil
		} else {
			line, l.buf = l.buf[:i], l.buf[i+1:]
		}
		if long != nil {
			return long, nil
		}
		line = line[:min(len(line), maxLine)]
		return bytes.TrimSuffix(line, []byte("\r")), nil
	}
}

// skip passes over lines in buf that neither begin with "-", as a boundary, nor
// with "b", as a uuencoded file. A Wasm host counts a loop by the size of its
// function, so this one is kept small.
func (l *lines) skip() {
	if len(l.buf) > 0 && (l.buf[0] == '-' || l.buf[0] == 'b') {
		return
	}
	b := l.buf
	for {
		i := bytes.IndexByte(b, '\n') + 1
		if i == 0 || i == len(b) {
			break
		}
		b = b[i:]
		if b[0] == '-' || b[0] == 'b' {
			break
		}
	}
	l.buf = b
}

// fill reads more behind buf.
func (l *lines) fill() error {
	if l.room == nil {
		l.room = make([]byte, maxLine+chunk)
	}
	n := copy(l.room, l.buf)
	want := min(int64(len(l.room)-n), l.limit-l.off)
	if want <= 0 {
		var one [1]byte
		got, err := l.read(one[:], l.off)
		if err != nil && err != io.EOF {
			return err
		}
		l.buf, l.end, l.cut = l.room[:n], true, got > 0
		return nil
	}
	got, err := l.read(l.room[n:n+int(want)], l.off)
	if err != nil && err != io.EOF {
		return err
	}
	l.off += int64(got)
	l.buf, l.end = l.room[:n+got], err == io.EOF
	return nil
}
