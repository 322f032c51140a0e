package mail

import "strings"

const (
	maxParams    = 256
	maxLanguages = 64
)

// apply sets what the header says of the part.
func (p *Part) apply(fields contentFields, digest bool) {
	p.Type, p.Subtype = "text", "plain"
	if digest { // RFC 2046 §5.1.5
		p.Type, p.Subtype = "message", "rfc822"
	}
	if v, ok := fields["content-type"]; ok {
		s := mimeScanner{v}
		typ := s.token()
		if s.eat('/') {
			if sub := s.token(); typ != "" && sub != "" {
				p.Type, p.Subtype = typ, sub
				p.Params = s.params()
			}
		}
	}
	if p.Is("multipart", "") && p.Param("boundary") == "" {
		p.Type, p.Subtype, p.Params = "text", "plain", nil
	}
	if v, ok := fields["content-disposition"]; ok {
		s := mimeScanner{v}
		if p.Disposition = s.token(); p.Disposition != "" {
			p.DispParams = s.params()
		}
	}
	if v, ok := fields["content-transfer-encoding"]; ok {
		s := mimeScanner{v}
		p.Encoding = s.token()
	}
	if v, ok := fields["content-language"]; ok {
		s := mimeScanner{v}
		for len(p.Language) < maxLanguages {
			if tag := s.token(); tag != "" {
				p.Language = append(p.Language, tag)
			}
			if !s.eat(',') {
				break
			}
		}
	}
	p.ID = fields["content-id"]
	p.Description = fields["content-description"]
	p.MD5 = fields["content-md5"]
	p.Location = fields["content-location"]
}

// mimeScanner reads the structured fields of RFC 2045 §5.1 and forgives what
// real mail gets wrong.
type mimeScanner struct{ s string }

// space skips blanks and comments (RFC 5322 §3.2.2).
func (s *mimeScanner) space() {
	depth := 0
	for i := 0; i < len(s.s); i++ {
		c := s.s[i]
		switch {
		case c == '(':
			depth++
		case depth > 0 && c == ')':
			depth--
		case depth > 0 && c == '\\':
			i++
		case depth == 0 && c != ' ' && c != '\t' && c != '\r' && c != '\n':
			s.s = s.s[i:]
			return
		}
	}
	s.s = ""
}

func (s *mimeScanner) eat(c byte) bool {
	s.space()
	if s.s == "" || s.s[0] != c {
		return false
	}
	s.s = s.s[1:]
	return true
}

// token reads a token (RFC 2045 §5.1), "" if there is none.
func (s *mimeScanner) token() string {
	s.space()
	i := 0
	for i < len(s.s) && s.s[i] > ' ' && s.s[i] != 0x7f && strings.IndexByte(`()<>@,;:\"/[]?=`, s.s[i]) < 0 {
		i++
	}
	t := s.s[:i]
	s.s = s.s[i:]
	return t
}

// params reads *(";" attribute "=" value). What is malformed is skipped up to
// the next semicolon.
func (s *mimeScanner) params() []Param {
	var all []Param
	for len(all) < maxParams {
		if !s.eat(';') {
			s.space()
			i := strings.IndexByte(s.s, ';')
			if i < 0 {
				return all
			}
			s.s = s.s[i+1:]
		}
		name := s.token()
		if name == "" || !s.eat('=') {
			continue
		}
		s.space()
		if s.s != "" && s.s[0] == '"' {
			all = append(all, Param{name, s.quoted()})
			continue
		}
		// An unquoted value ends at a semicolon or a blank; other specials, which
		// the grammar forbids, are kept since mail has them in file names and boundaries.
		i := 0
		for i < len(s.s) && s.s[i] > ' ' && s.s[i] != ';' && s.s[i] != '(' && s.s[i] != '"' {
			i++
		}
		if i > 0 {
			all = append(all, Param{name, s.s[:i]})
		}
		s.s = s.s[i:]
	}
	return all
}

// quoted reads a quoted string; one that does not end ends with the field.
func (s *mimeScanner) quoted() string {
	var b strings.Builder
	for i := 1; i < len(s.s); i++ {
		switch c := s.s[i]; c {
		case '"':
			s.s = s.s[i+1:]
			return b.String()
		case '\\':
			if i++; i < len(s.s) {
				b.WriteByte(s.s[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	s.s = ""
	return b.String()
}
