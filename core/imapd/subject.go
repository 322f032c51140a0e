package imapd

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// maxSortText is how many octets of a text take part in sorting and threading.
const maxSortText = 2048

// casemap is s as texts are compared: i;unicode-casemap (RFC 5051).
func casemap(s string) string {
	plain := true
	for i := range len(s) {
		if s[i] >= 0x80 {
			plain = false
			break
		}
	}
	if plain {
		return strings.ToUpper(s)
	}
	return norm.NFKD.String(strings.Map(unicode.ToTitle, s))
}

// baseSubject is what a subject is about (RFC 5256 §2.1), ready to be compared, and
// whether it belongs to a reply or a forwarded message. raw is the field's value.
func baseSubject(raw string) (base string, reply bool) {
	if len(raw) > maxSortText {
		raw = raw[:maxSortText]
	}
	s := strings.Join(strings.FieldsFunc(decodeWords(raw), func(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' }), " ")
	s = casemap(s)
	for {
		s, reply = trimTrailers(s, reply)
		for {
			before := s
			s, reply = trimLeader(s, reply)
			if rest, ok := cutBlob(s); ok && rest != "" {
				s = rest
			}
			if s == before {
				break
			}
		}
		inner, ok := strings.CutPrefix(s, "[FWD:")
		if !ok || !strings.HasSuffix(inner, "]") {
			return s, reply
		}
		s, reply = strings.TrimLeft(strings.TrimSuffix(inner, "]"), " "), true
	}
}

// trimTrailers removes "(fwd)" and blanks from the end.
func trimTrailers(s string, reply bool) (string, bool) {
	for {
		s = strings.TrimRight(s, " ")
		rest, ok := strings.CutSuffix(s, "(FWD)")
		if !ok {
			return s, reply
		}
		s, reply = rest, true
	}
}

// trimLeader removes blanks and one "Re:", "Fw:" or "Fwd:" with the brackets around it.
func trimLeader(s string, reply bool) (string, bool) {
	s = strings.TrimLeft(s, " ")
	rest := s
	for {
		after, ok := cutBlob(rest)
		if !ok {
			break
		}
		rest = after
	}
	switch {
	case strings.HasPrefix(rest, "RE"):
		rest = rest[2:]
	case strings.HasPrefix(rest, "FWD"):
		rest = rest[3:]
	case strings.HasPrefix(rest, "FW"):
		rest = rest[2:]
	default:
		return s, reply
	}
	rest = strings.TrimLeft(rest, " ")
	if after, ok := cutBlob(rest); ok {
		rest = after
	}
	if rest == "" || rest[0] != ':' {
		return s, reply
	}
	return strings.TrimLeft(rest[1:], " "), true
}

// cutBlob removes "[…]" and the blanks after it.
func cutBlob(s string) (string, bool) {
	if s == "" || s[0] != '[' {
		return s, false
	}
	end := strings.IndexAny(s[1:], "[]")
	if end < 0 || s[1+end] != ']' {
		return s, false
	}
	return strings.TrimLeft(s[end+2:], " "), true
}
