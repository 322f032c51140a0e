package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	netmail "net/mail"
	"slices"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// maxSection bounds the header section of a message on standard input, in octets.
const maxSection = 1 << 20

// chunk is how much of a message is looked at, at once, in octets.
const chunk = 64 << 10

// section is a header section.
type section struct {
	fields []field
	rest   []byte // what was read of the body
	ended  bool   // by a lone dot, or the end of the input: there is no body
}

// field is a header field: its name in small letters, and all of it, folded as it
// was with CR LF, without the last line end.
type field struct{ name, text string }

// readSection reads fields up to the blank line, or up to the first line that is no
// field and so belongs to the body. With dots a lone dot is text. in holds at least
// chunk octets.
func readSection(in *bufio.Reader, dots bool) (s section, err error) {
	size := 0
	var last []byte // the field that may go on
	end := func() {
		if n := len(s.fields); n > 0 {
			s.fields[n-1].text = string(last)
		}
	}
	defer end()
	for first := true; ; first = false {
		piece, err := in.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull && err != io.EOF {
			return s, fmt.Errorf("read the message: %w", err)
		}
		text := bytes.TrimRight(piece, "\r\n")
		folded := len(text) > 0 && (text[0] == ' ' || text[0] == '\t') && len(s.fields) > 0
		mbox := first && bytes.HasPrefix(text, []byte("From "))
		switch {
		case len(piece) == 0, !dots && string(text) == ".":
			s.ended = true
			return s, nil
		case len(text) == 0:
			return s, nil
		case !folded && !mbox && fieldName(text) == "":
			s.rest = bytes.Clone(piece)
			return s, nil
		}
		line := bytes.Clone(piece)
		for size += len(piece); err == bufio.ErrBufferFull && size <= maxSection; size += len(piece) {
			if piece, err = in.ReadSlice('\n'); err != nil && err != bufio.ErrBufferFull && err != io.EOF {
				return s, fmt.Errorf("read the message: %w", err)
			}
			line = append(line, piece...)
		}
		if size > maxSection {
			return s, errors.New("the header section is longer than 1 MiB")
		}
		// A CR of its own would end a line further on.
		line = bytes.ReplaceAll(bytes.TrimRight(line, "\r\n"), []byte("\r"), []byte(" "))
		switch {
		case mbox:
		case folded:
			last = append(append(last, '\r', '\n'), line...)
		default:
			end()
			s.fields, last = append(s.fields, field{name: fieldName(line)}), line
		}
	}
}

// fieldName is the name of the field that line begins, in small letters, or "" if it
// begins none.
func fieldName(line []byte) string {
	name, _, ok := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t") // blanks there are of another age (RFC 5322 §4.5)
	if !ok || bytes.IndexFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) >= 0 {
		return ""
	}
	return strings.ToLower(string(name))
}

// trimEnd takes a line end away.
func trimEnd(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}

// remove takes fields out.
func (s *section) remove(names ...string) {
	s.fields = slices.DeleteFunc(s.fields, func(f field) bool { return slices.Contains(names, f.name) })
}

func (s *section) has(name string) bool {
	return slices.ContainsFunc(s.fields, func(f field) bool { return f.name == name })
}

// resent reports whether the message is sent again to others (RFC 5322 §3.6.6).
func (s *section) resent() bool {
	return s.has("resent-to") || s.has("resent-cc") || s.has("resent-bcc")
}

// recipients are the addresses of To, Cc and Bcc, or of their Resent- forms if there
// is one, each once.
func (s *section) recipients(home string) (list []string, err error) {
	names := []string{"to", "cc", "bcc"}
	if s.resent() {
		names = []string{"resent-to", "resent-cc", "resent-bcc"}
	}
	seen := map[string]bool{}
	for _, f := range s.fields {
		if !slices.Contains(names, f.name) {
			continue
		}
		name, body, _ := strings.Cut(f.text, ":")
		found, err := parseAddresses(body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, a := range found {
			if to := a.whole(home); !seen[to] {
				seen[to] = true
				list = append(list, to)
			}
		}
	}
	return list, nil
}

// qualify gives the addresses of the header that are names of this site a domain:
// outside they mean nothing (RFC 6409 §8.1). Fields that cannot be read stay.
func (s *section) qualify(home string) {
	names := []string{"from", "sender", "reply-to", "to", "cc"}
	for i, f := range s.fields {
		if !slices.Contains(names, strings.TrimPrefix(f.name, "resent-")) {
			continue
		}
		name, body, _ := strings.Cut(f.text, ":")
		found, err := parseAddresses(body)
		if err != nil {
			continue
		}
		var b strings.Builder
		b.WriteString(name + ":")
		at := 0
		for _, a := range found {
			if a.bare {
				b.WriteString(body[at:a.end] + "@" + home)
				at = a.end
			}
		}
		s.fields[i].text = b.String() + body[at:]
	}
}

// complete adds the fields that a message must have (RFC 5322 §3.6). from is the
// author if none is named, name what they are called.
func (s *section) complete(from, name, host string, now time.Time) {
	must := func(prefix string) (missing []field) {
		author := netmail.Address{Name: name, Address: from}
		for _, f := range []field{
			{"From", author.String()},
			{"Date", now.Format(time.RFC1123Z)},
			{"Message-ID", "<" + string(mail.NewID(now)) + "@" + host + ">"},
		} {
			if n := prefix + f.name; !s.has(strings.ToLower(n)) {
				missing = append(missing, field{strings.ToLower(n), n + ": " + f.text})
			}
		}
		return missing
	}
	s.fields = append(s.fields, must("")...)
	if s.resent() {
		s.fields = append(must("Resent-"), s.fields...)
	}
}

// text is the section as it goes to the server, with the blank line.
func (s *section) text() []byte {
	var b bytes.Buffer
	for _, f := range s.fields {
		b.WriteString(f.text + "\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// body is what follows the section in in.
func (s *section) body(in io.Reader, dots bool) *lines {
	return &lines{r: bufio.NewReaderSize(io.MultiReader(bytes.NewReader(s.rest), in), chunk), dots: dots, over: s.ended}
}

// lines reads lines of any length from r, and gives them CR LF line ends, up to a lone
// dot unless dots are text.
type lines struct {
	r    *bufio.Reader
	dots bool
	over bool
	mid  bool   // the last piece was not the end of its line
	cr   bool   // it ended with a CR, which is held back
	buf  []byte // what is left is to be read from at on
	at   int
	err  error // of r
}

// Read implements io.Reader.
func (l *lines) Read(p []byte) (int, error) {
	for l.at == len(l.buf) {
		if l.err != nil {
			return 0, l.err
		}
		if l.over {
			return 0, io.EOF
		}
		l.next()
	}
	n := copy(p, l.buf[l.at:])
	l.at += n
	return n, nil
}

// next reads a piece of a line.
func (l *lines) next() {
	l.buf, l.at = l.buf[:0], 0
	piece, err := l.r.ReadSlice('\n')
	if err != nil && err != bufio.ErrBufferFull && err != io.EOF {
		l.err = fmt.Errorf("read the message: %w", err)
		return
	}
	l.over = err == io.EOF
	whole := err == nil
	if l.cr && len(piece) > 0 && string(piece) != "\n" {
		l.buf = append(l.buf, '\r')
	}
	l.cr = false
	switch {
	case !l.mid && !l.dots && err != bufio.ErrBufferFull && string(trimEnd(piece)) == ".":
		l.over = true
		return
	case whole, l.over && (l.mid || len(piece) > 0):
		l.buf = append(append(l.buf, trimEnd(piece)...), '\r', '\n')
	case l.over:
	case piece[len(piece)-1] == '\r':
		l.buf, l.cr = append(l.buf, piece[:len(piece)-1]...), true
	default:
		l.buf = append(l.buf, piece...)
	}
	l.mid = !whole
}
