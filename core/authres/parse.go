package authres

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds of what Parse reads.
const (
	maxField    = 64 << 10 // octets
	maxResults  = 200
	maxProps    = 100 // of a result
	maxComments = 50  // levels of comments in comments
)

// Parse reads the value of an Authentication-Results field, folded or not. Of a method
// that was not tried, "none" without a method, there is no Result. It is strict about
// the server's name and lenient afterwards, as servers are when they write.
func Parse(value string) (Field, error) {
	if len(value) > maxField {
		return Field{}, fmt.Errorf("parse Authentication-Results: longer than %d octets", maxField)
	}
	p := parser{s: value}
	f, err := p.field()
	if err != nil {
		return Field{}, fmt.Errorf("parse Authentication-Results: %w", err)
	}
	return f, nil
}

type parser struct {
	s       string
	i       int
	comment string // the last one
}

// blank skips white space and comments (RFC 5322 §3.2.2).
func (p *parser) blank() error {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\r', '\n':
			p.i++
		case '(':
			if err := p.readComment(); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

func (p *parser) readComment() error {
	var b strings.Builder
	depth := 0
	for ; p.i < len(p.s); p.i++ {
		c := p.s[p.i]
		switch {
		case c == '\\' && p.i+1 < len(p.s):
			p.i++
			c = p.s[p.i]
		case c == '(':
			if depth++; depth > maxComments {
				return errors.New("comments are nested too deeply")
			}
			if depth == 1 {
				continue
			}
		case c == ')':
			if depth--; depth == 0 {
				p.i++
				p.comment = unfolded(b.String())
				return nil
			}
		}
		b.WriteByte(c)
	}
	return errors.New("a comment never ends")
}

// unfolded is s without line ends; the blanks after them stay.
func unfolded(s string) string {
	return strings.Map(func(c rune) rune {
		if c == '\r' || c == '\n' {
			return -1
		}
		return c
	}, s)
}

// next is the octet at which the parser stands, 0 at the end.
func (p *parser) next() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

// skip skips c and reports whether it was there.
func (p *parser) skip(c byte) bool {
	if p.next() != c || p.i == len(p.s) {
		return false
	}
	p.i++
	return true
}

// quoted reads a quoted string (RFC 5322 §3.2.4).
func (p *parser) quoted() (string, error) {
	var b strings.Builder
	for p.i++; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; {
		case c == '"':
			p.i++
			return unfolded(b.String()), nil
		case c == '\\' && p.i+1 < len(p.s):
			p.i++
			b.WriteByte(p.s[p.i])
		default:
			b.WriteByte(c)
		}
	}
	return "", errors.New("a quoted string never ends")
}

// until reads up to white space, a semicolon, a comment or one of the octets of more.
func (p *parser) until(more string) string {
	start := p.i
	for p.i < len(p.s) && p.s[p.i] > ' ' && p.s[p.i] != 0x7f && p.s[p.i] != ';' && p.s[p.i] != '(' && strings.IndexByte(more, p.s[p.i]) < 0 {
		p.i++
	}
	return p.s[start:p.i]
}

func (p *parser) field() (Field, error) {
	var f Field
	if err := p.blank(); err != nil {
		return f, err
	}
	var err error
	if p.next() == '"' {
		f.ServID, err = p.quoted()
	} else {
		f.ServID = p.until(`=,"\<>`)
	}
	if err != nil {
		return f, err
	}
	if err := p.blank(); err != nil {
		return f, err
	}
	if strings.TrimSpace(f.ServID) == "" || p.next() == '=' {
		return f, errors.New("it does not begin with the name of a server")
	}
	if c := p.next(); c >= '0' && c <= '9' {
		f.Version = p.until("")
		if err := p.blank(); err != nil {
			return f, err
		}
	}
	for p.i < len(p.s) {
		if !p.skip(';') {
			return f, fmt.Errorf("there is %.20q where a semicolon should be", p.s[p.i:])
		}
		p.comment = ""
		if err := p.blank(); err != nil {
			return f, err
		}
		if p.i == len(p.s) {
			break // many end with a semicolon
		}
		if p.next() == ';' {
			continue
		}
		r, ok, err := p.result()
		if err != nil {
			return f, err
		}
		if !ok {
			continue
		}
		if len(f.Results) == maxResults {
			return f, fmt.Errorf("more than %d results", maxResults)
		}
		f.Results = append(f.Results, r)
	}
	return f, nil
}

// result reads one result. It is false for "none".
func (p *parser) result() (r Result, ok bool, err error) {
	r.Method = p.until("=/")
	if err := p.blank(); err != nil {
		return r, false, err
	}
	if p.skip('/') {
		if err := p.blank(); err != nil {
			return r, false, err
		}
		r.Version = p.until("=")
		if err := p.blank(); err != nil {
			return r, false, err
		}
	}
	if strings.EqualFold(r.Method, "none") && r.Version == "" && (p.i == len(p.s) || p.next() == ';') {
		return r, false, nil
	}
	if r.Method == "" || !p.skip('=') {
		return r, false, fmt.Errorf("method %.20q has no result", r.Method)
	}
	if r.Value, err = p.value(""); err != nil {
		return r, false, err
	}
	if r.Value == "" {
		return r, false, fmt.Errorf("method %.20q has no result", r.Method)
	}
	for p.i < len(p.s) && p.next() != ';' {
		if err := p.property(&r); err != nil {
			return r, false, err
		}
	}
	r.Comment = p.comment
	return r, true, nil
}

// property reads "reason=value" or "type.property=value".
func (p *parser) property(r *Result) error {
	name := p.until("=.")
	if err := p.blank(); err != nil {
		return err
	}
	property := ""
	typed := p.skip('.')
	if typed {
		if err := p.blank(); err != nil {
			return err
		}
		property = p.until("=")
		if err := p.blank(); err != nil {
			return err
		}
	}
	if name == "" || typed && property == "" || !p.skip('=') {
		return fmt.Errorf("there is %.20q where a property should be", p.s[p.i:])
	}
	value, err := p.value(`"`)
	switch {
	case err != nil:
		return err
	case !typed && strings.EqualFold(name, "reason"):
		r.Reason = value
		return nil
	case !typed: // some write "action=none"
		property, name = name, ""
	}
	if len(r.Props) == maxProps {
		return fmt.Errorf("more than %d properties", maxProps)
	}
	r.Props = append(r.Props, Prop{name, property, value})
	return nil
}

// value reads a value and the blanks around it: a token, a quoted string, an address of
// which the local part may be quoted, or what others write without quotes.
func (p *parser) value(more string) (string, error) {
	if err := p.blank(); err != nil {
		return "", err
	}
	v := ""
	if p.next() == '"' {
		q, err := p.quoted()
		if err != nil {
			return "", err
		}
		v = q
		if p.next() == '@' {
			v = quote(v) + p.until(`"`)
		}
	} else {
		v = p.until(more)
	}
	return v, p.blank()
}
