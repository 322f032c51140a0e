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
	plain, err := unquotePath(s)
	if err != nil {
		return Path{}, err
	}
	if plain, err = withoutRoute(plain); err != nil || plain == "" {
		return Path{}, err
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
	return Path{local: local, domain: domain}, nil
}

// unquotePath takes comments, blanks and quotes out of an address.
func unquotePath(s string) (string, error) {
	var b strings.Builder
	comments, quoted, blank := 0, false, false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == 0 || c == '\r' || c == '\n':
			return "", errors.New("address has a character that is allowed nowhere")
		case c == '\\':
			if i++; i == len(s) || s[i] == 0 || s[i] == '\r' || s[i] == '\n' {
				return "", errors.New("address ends in a backslash")
			}
			c = s[i]
		case comments == 0 && c == '"':
			// A quoted string is a whole word: between dots, or all there is.
			if next := i + 1; quoted && next < len(s) && strings.IndexByte(".@ \t()", s[next]) < 0 {
				return "", errors.New("local part goes on behind its quotes")
			}
			if !quoted && i > 0 && strings.IndexByte(".@: \t()", s[i-1]) < 0 {
				return "", errors.New("local part has a quote in its middle")
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
		case c == ' ' || c == '\t':
			blank = true
			continue
		case comments == 0 && (c == '<' || c == '>' || c == ')' || c == ',' && b.Len() > 0 && b.String()[0] != '@' || c == ';'):
			return "", errors.New("local part has a character that must be quoted")
		}
		if comments > 0 {
			continue
		}
		if blank && b.Len() > 0 && c != '@' && b.String()[b.Len()-1] != '@' {
			return "", errors.New("address has a blank in its middle; quote it")
		}
		blank = false
		b.WriteByte(c)
	}
	switch {
	case quoted:
		return "", errors.New("quoted local part does not end")
	case comments > 0:
		return "", errors.New("comment does not end")
	}
	return b.String(), nil
}

// withoutRoute drops a source route "@a,@b:".
func withoutRoute(s string) (string, error) {
	if s == "" || s[0] != '@' {
		return s, nil
	}
	_, rest, ok := strings.Cut(s, ":")
	if !ok {
		return "", errors.New("source route without an address")
	}
	return rest, nil
}
