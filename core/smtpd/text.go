package smtpd

import "bytes"

// text is the line layer of a message: it finds the end of DATA, removes
// transparency dots (RFC 5321 §4.5.2) and watches line ends. It never holds
// octets back, so it does not matter how the network cut them.
//
// Only CR LF "." CR LF ends a message, where the first CR LF may be the one of
// the DATA command. Everything that some other server takes for an end (LF.LF,
// LF.CRLF, CRLF.LF, CR.CR, …) is message text here, and remembered in bare.
type text struct {
	dots   bool // DATA; false: BDAT, which has neither dots nor an end
	limit  int  // octets of a line
	state  lineState
	length int  // octets of the current line so far
	bare   bool // a bare CR or LF was seen
	long   bool // a line was longer than limit
}

type lineState uint8

const (
	lineStart lineState = iota // after CR LF
	inLine
	afterCR
	afterDot   // "." at the start of a line
	afterDotCR // "." CR at the start of a line
	bareStart  // after a bare LF; repair only
)

// strict reads in and returns the message octets in it, moved together at the
// front of in, and how many octets of in it used. end means that the message
// ended after them. Once bare is set the returned octets mean nothing.
func (t *text) strict(in []byte) (out []byte, used int, end bool) {
	out = in[:0]
	for used < len(in) {
		switch t.state {
		case lineStart:
			t.state = inLine
			if t.dots && in[used] == '.' {
				t.state = afterDot
				used++
			}
		case afterDot: // the dot is gone
			t.state = inLine
			if in[used] == '\r' {
				t.state = afterDotCR
				used++
			}
		case afterDotCR:
			if in[used] == '\n' {
				return out, used + 1, true
			}
			t.bare = true
			t.state = afterCR
		case afterCR:
			if in[used] == '\n' {
				out = append(out, '\n')
				used++
				t.newline(1)
				continue
			}
			t.bare = true
			t.state = inLine
		default:
			line := in[used:]
			i := bytes.IndexByte(line, '\n')
			if i >= 0 {
				line = line[:i+1]
			}
			t.judge(line, i >= 0) // before the move, which may overwrite it
			out = append(out, line...)
			used += len(line)
		}
	}
	return out, used, false
}

// judge looks at a piece of a line, whose last octet is LF if ended.
func (t *text) judge(line []byte, ended bool) {
	n := len(line)
	body := line
	if ended {
		body = line[:n-1]
	}
	cr := bytes.IndexByte(body, '\r')
	last := len(body) > 0 && body[len(body)-1] == '\r'
	if cr >= 0 && cr < len(body)-1 {
		t.bare = true
	}
	switch {
	case ended && last:
		t.newline(n)
	case ended: // LF alone is no end of a line
		t.bare = true
		t.count(n)
	default:
		t.count(n)
		if last {
			t.state = afterCR
		}
	}
}

func (t *text) newline(n int) {
	t.count(n)
	t.length = 0
	t.state = lineStart
}

func (t *text) count(n int) {
	t.length += n
	if t.length > t.limit {
		t.long = true
	}
}

// repair is strict for trusted clients: it appends the message to dst with
// each bare LF made CR LF and each bare CR a space. A dot after a bare LF is
// still a transparency dot, since such a client stuffs its own lines, but can
// not be part of the end.
func (t *text) repair(dst, in []byte) (out []byte, used int, end bool) {
	for i, c := range in {
		was := t.state
		switch {
		case was == afterDotCR && c == '\n':
			return dst, i + 1, true
		case c == '\n':
			dst = append(dst, '\r', '\n')
			t.newline(2)
			if was != afterCR {
				t.state = bareStart
			}
			continue
		}
		if was == afterCR || was == afterDotCR {
			dst = append(dst, ' ')
			t.count(1)
		}
		switch {
		case c == '\r' && was == afterDot:
			t.state = afterDotCR
		case c == '\r':
			t.state = afterCR
		case c == '.' && t.dots && was == lineStart:
			t.state = afterDot
		case c == '.' && t.dots && was == bareStart:
			t.state = inLine
		default:
			t.state = inLine
			dst = append(dst, c)
			t.count(1)
		}
	}
	return dst, len(in), false
}

// finish ends a message that came by BDAT. What it returns belongs to a
// repaired message.
func (t *text) finish() []byte {
	if t.state == afterCR {
		t.bare = true
		return []byte{' '}
	}
	return nil
}

// header watches the header section of a message go by: its size and its
// Received fields.
type header struct {
	done     bool
	size     int
	received int
	name     [12]byte // first octets of the current line
	n        int
}

// watch looks at the next octets of the message and says how many of them belong
// to the header section, with its blank line.
func (h *header) watch(p []byte) int {
	before := h.size
	for len(p) > 0 && !h.done {
		piece := p
		i := bytes.IndexByte(p, '\n')
		if i >= 0 {
			piece = p[:i+1]
		}
		p = p[len(piece):]
		h.size += len(piece)
		h.n += copy(h.name[h.n:], piece)
		if i >= 0 {
			h.field(h.name[:h.n])
			h.n = 0
		}
	}
	return h.size - before
}

// field takes the beginning of a line, up to twelve octets.
func (h *header) field(line []byte) {
	if len(line) <= 2 && (line[0] == '\r' || line[0] == '\n') {
		h.done = true
		return
	}
	name, _, ok := bytes.Cut(line, []byte(":"))
	if ok && bytes.EqualFold(bytes.TrimRight(name, " \t"), []byte("received")) {
		h.received++
	}
}
