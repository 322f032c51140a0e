package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/mail"
	"slices"
	"strings"
	"time"

	ours "github.com/wafermail/wafer/core/mail"
)

// maxSection bounds the header section of a message on standard input, in octets.
const maxSection = 1 << 20

// section is a header section: its fields with their names in small letters, folded
// as they were, without the last line end.
type section struct {
	fields []field
	blank  bool // a blank line follows, or the body does
	rest   string
	ended  bool // by a lone dot, or the end of the input
}

type field struct{ name, text string }

// readSection reads fields up to the blank line, or up to the first line that is no
// field and so belongs to the body. With dots a lone dot is text.
func readSection(in *bufio.Reader, dots bool) (s section, err error) {
	size := 0
	for {
		line, err := in.ReadString('\n')
		if size += len(line); size > maxSection {
			return s, errors.New("the header section is longer than 1 MiB")
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return s, err
		}
		text := strings.TrimRight(line, "\r\n")
		name, _, colon := strings.Cut(text, ":")
		switch {
		case line == "":
			s.ended = true
			return s, nil
		case text == "." && !dots:
			s.ended = true
			return s, nil
		case text == "":
			s.blank = true
			return s, nil
		case (text[0] == ' ' || text[0] == '\t') && len(s.fields) > 0:
			s.fields[len(s.fields)-1].text += "\r\n" + text
		case len(s.fields) == 0 && strings.HasPrefix(text, "From "): // of an mbox
		case !colon || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
			s.rest = text
			return s, nil
		default:
			s.fields = append(s.fields, field{strings.ToLower(strings.TrimSpace(name)), text})
		}
	}
}

// remove takes fields out.
func (s *section) remove(names ...string) {
	s.fields = slices.DeleteFunc(s.fields, func(f field) bool { return slices.Contains(names, f.name) })
}

// complete adds the fields that a message must have (RFC 5322 §3.6).
func (s *section) complete(from, name, host string) {
	has := func(name string) bool {
		return slices.ContainsFunc(s.fields, func(f field) bool { return f.name == name })
	}
	now := time.Now()
	if !has("from") && from != "" {
		a := mail.Address{Name: name, Address: from}
		s.fields = append(s.fields, field{"from", "From: " + a.String()})
	}
	if !has("date") {
		s.fields = append(s.fields, field{"date", "Date: " + now.Format(time.RFC1123Z)})
	}
	if !has("message-id") {
		s.fields = append(s.fields, field{"message-id", "Message-ID: <" + string(ours.NewID(now)) + "@" + host + ">"})
	}
}

// recipients are the addresses of To, Cc and Bcc, or of their Resent- forms if there
// is one (RFC 5322 §3.6.6).
func (s *section) recipients() (list []string) {
	names := []string{"to", "cc", "bcc"}
	for _, f := range s.fields {
		if slices.Contains([]string{"resent-to", "resent-cc", "resent-bcc"}, f.name) {
			names = []string{"resent-to", "resent-cc", "resent-bcc"}
		}
	}
	for _, f := range s.fields {
		if !slices.Contains(names, f.name) {
			continue
		}
		_, body, _ := strings.Cut(f.text, ":")
		for _, a := range addresses(strings.ReplaceAll(body, "\r\n", "")) {
			if !slices.Contains(list, a) {
				list = append(list, a)
			}
		}
	}
	return list
}

// addresses are those of a list. Names of users of this machine count, which
// net/mail does not take.
func addresses(body string) (list []string) {
	if as, err := mail.ParseAddressList(body); err == nil {
		for _, a := range as {
			list = append(list, a.Address)
		}
		return list
	}
	for _, part := range splitList(body) {
		if a, err := mail.ParseAddress(part); err == nil {
			list = append(list, a.Address)
			continue
		}
		if i := strings.LastIndexByte(part, '<'); i >= 0 {
			part, _, _ = strings.Cut(part[i+1:], ">")
		}
		if part = strings.TrimSpace(part); part != "" && !strings.ContainsAny(part, " \t\"()<>,;:\\") {
			list = append(list, part)
		}
	}
	return list
}

// splitList cuts a list of addresses at its commas and groups, but not in quotes and
// comments.
func splitList(body string) (parts []string) {
	start, depth, quoted := 0, 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '\\':
			i++
		case c == '"' && depth == 0:
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth = max(depth-1, 0)
		case depth > 0:
		case c == ',' || c == ';':
			parts = append(parts, body[start:i])
			start = i + 1
		case c == ':':
			start = i + 1
		}
	}
	return append(parts, body[min(start, len(body)):])
}

// text is the section as it goes to the server.
func (s *section) text() []byte {
	var b bytes.Buffer
	for _, f := range s.fields {
		b.WriteString(f.text + "\r\n")
	}
	b.WriteString("\r\n")
	if s.rest != "" {
		b.WriteString(s.rest + "\r\n")
	}
	return b.Bytes()
}

// crlf gives the lines of r CR LF line ends, up to a lone dot unless dots are text.
type crlf struct {
	r    *bufio.Reader
	dots bool
	over bool
	mid  bool // the last piece was not the end of its line
	buf  []byte
}

// Read implements io.Reader.
func (c *crlf) Read(p []byte) (int, error) {
	for len(c.buf) == 0 {
		if c.over {
			return 0, io.EOF
		}
		line, err := c.r.ReadSlice('\n')
		whole := err == nil
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return 0, err
		}
		text := bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		if whole && !c.mid && !c.dots && string(text) == "." {
			c.over = true
			continue
		}
		c.over = errors.Is(err, io.EOF)
		if c.over && len(line) == 0 {
			continue
		}
		if c.buf = append(c.buf[:0], line...); whole || c.over {
			c.buf = append(append(c.buf[:0], text...), '\r', '\n')
		}
		c.mid = !whole
	}
	n := copy(p, c.buf)
	c.buf = c.buf[n:]
	return n, nil
}
