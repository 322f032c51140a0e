package mail

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// ReadPath reads an address as clients have always sent it in MAIL and RCPT, and
// as Postfix takes it: besides what ParsePath reads also comments and blanks
// around the parts, a source route in front (RFC 5321 Appendix C), quotes around
// the domain or the whole, single characters behind a backslash, a dot after the
// domain, and any local part but one that begins with a hyphen, which a program
// might take for an option. What comes out is a Path like any other: written
// again it is strict, with its local part in quotes where the grammar asks for
// them. A route without an address is the null path.
//
// In a local part, characters outside ASCII need no utf8ok: they are for the
// mailbox to know. A domain with such characters does.
func ReadPath(s string, utf8ok bool) (Path, error) {
	if len(s) > 2*MaxPath {
		return Path{}, errors.New("path is too long")
	}
	if !utf8.ValidString(s) {
		return Path{}, errors.New("address is not valid UTF-8")
	}
	plain, routed, err := unquotePath(s)
	if err != nil {
		return Path{}, err
	}
	if routed {
		_, address, ok := strings.Cut(plain, ":")
		if !ok {
			return Path{}, errors.New("source route without an address")
		}
		plain = address
	}
	if plain == "" {
		return Path{}, nil
	}
	local, domain := plain, ""
	if at := strings.LastIndexByte(plain, '@'); at >= 0 {
		local, domain = plain[:at], strings.TrimSuffix(plain[at+1:], ".")
		if err := checkDomain(domain); err != nil {
			return Path{}, err
		}
		if !utf8ok && !isASCII(domain) {
			return Path{}, errors.New("domain has characters outside ASCII, which need SMTPUTF8")
		}
	}
	switch {
	case local == "":
		return Path{}, errors.New("address has no local part")
	case local[len(local)-1] == '@':
		return Path{}, errors.New("address has an empty domain")
	case local[0] == '-':
		return Path{}, errors.New("local part begins with a hyphen")
	case len(local) > MaxLocal:
		return Path{}, errors.New("local part is too long")
	}
	p := Path{local: local, domain: domain}
	if len(p.String()) > MaxPath-2 { // with the quotes and backslashes that it needs
		return Path{}, errors.New("path is too long")
	}
	return p, nil
}

// unquotePath takes comments, blanks and quotes out of an address. routed tells
// that it begins with a source route "@a,@b:".
func unquotePath(s string) (plain string, routed bool, err error) {
	var b strings.Builder
	comments, quoted, blank := 0, false, false
	parts := "@" // characters around which blanks mean nothing
	for i := 0; i < len(s); i++ {
		c := s[i]
		literal := quoted
		switch {
		case c == 0 || c == '\r' || c == '\n':
			return "", false, errors.New("address has a character that is allowed nowhere")
		case c == '\\':
			if i++; i == len(s) || s[i] == 0 || s[i] == '\r' || s[i] == '\n' {
				return "", false, errors.New("address ends in a backslash")
			}
			c, literal = s[i], true
		case comments == 0 && c == '"':
			// A quoted string is a whole word: between dots, or all there is.
			if next := i + 1; quoted && next < len(s) && strings.IndexByte(".@ \t()", s[next]) < 0 {
				return "", false, errors.New("local part goes on behind its quotes")
			}
			if !quoted && i > 0 && strings.IndexByte(".@: \t()", s[i-1]) < 0 {
				return "", false, errors.New("local part has a quote in its middle")
			}
			quoted = !quoted
			continue
		case quoted:
		case c == '(':
			comments++
			continue
		case c == ')' && comments > 0:
			comments--
			continue
		case comments > 0:
		case c == ' ' || c == '\t':
			blank = true
			continue
		case c == '<' || c == '>' || c == ')' || c == ',' && b.Len() > 0 && !routed || c == ';':
			return "", false, errors.New("local part has a character that must be quoted")
		}
		if comments > 0 {
			continue
		}
		if c == '@' && b.Len() == 0 && !literal {
			routed, parts = true, "@,:"
		}
		if blank && b.Len() > 0 && strings.IndexByte(parts, c) < 0 && strings.IndexByte(parts, b.String()[b.Len()-1]) < 0 {
			return "", false, errors.New("address has a blank in its middle; quote it")
		}
		blank = false
		b.WriteByte(c)
	}
	switch {
	case quoted:
		return "", false, errors.New("quoted local part does not end")
	case comments > 0:
		return "", false, errors.New("comment does not end")
	}
	return b.String(), routed, nil
}
