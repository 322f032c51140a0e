package authres

import (
	"io"
	"mime"
	"strings"
	"unicode"

	"github.com/wafermail/wafer/core/mail"
)

// maxClaim is how many octets in front of the first semicolon are looked at. No honest
// field has more, so one that does claims to be from anybody.
const maxClaim = 4096

// ClaimsName reports whether the value of an Authentication-Results field, folded or
// not, may be taken for one of the server ourName: to be removed from mail that comes
// in (RFC 8601 §5). The field may be malformed. It is read in every way in which
// somebody might read it: with comments left out, joined over or taken for text, with
// quotes, backslashes, encoded words and blanks or without, in any case, as U-labels
// or A-labels, with a last dot or a version behind it.
//
// It says yes too often rather than too seldom, but what stands behind the first
// semicolon does not matter.
func ClaimsName(value, ourName string) bool {
	ours := nameKey(blankless(ourName))
	if ours == "" {
		return false
	}
	front, ok := claimant(value)
	if !ok {
		return true
	}
	if strings.Contains(front, "=?") {
		words := mime.WordDecoder{CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil }}
		if decoded, err := words.DecodeHeader(front); err == nil && claims(decoded, ours) {
			return true
		}
	}
	return claims(front, ours)
}

// claimant is what stands in front of the first semicolon that is neither quoted nor
// in a comment, or that some might think is not. It is false if that is too much.
func claimant(value string) (string, bool) {
	depth, quote := 0, false
	for i := 0; i < len(value); i++ {
		if i == maxClaim {
			return "", false
		}
		switch c := value[i]; {
		case c == '\\' && (quote || depth > 0):
			i++
		case c == '"' && depth == 0:
			quote = !quote
		case c == '(' && !quote:
			depth++
		case c == ')' && !quote && depth > 0:
			depth--
		case c == ';' && !quote && depth == 0:
			return value[:i], true
		}
	}
	return value, true
}

// claims reports whether a reading of s, the front of a field, has the name: as any
// word outside comments, or as the first word if they are taken for text.
func claims(s, ours string) bool {
	for _, reading := range [...]string{s, blankless(s), quoteless(s)} {
		words := strings.FieldsFunc(reading, isDelimiter)
		if len(words) > 0 && nameKey(words[0]) == ours {
			return true
		}
	}
	bare, closed := withoutComments(s)
	if !closed {
		bare = s
	}
	for _, reading := range [...]string{bare, blankless(bare), quoteless(bare), quoteless(blankless(bare))} {
		if nameKey(reading) == ours {
			return true
		}
		for word := range strings.FieldsFuncSeq(reading, isDelimiter) {
			if nameKey(word) == ours {
				return true
			}
		}
	}
	return false
}

func isDelimiter(c rune) bool { return !nameRune(c) }

// nameRune reports whether c may be of a name. Characters outside ASCII are, as some
// of them become dots or nothing when names are compared (RFC 5895 §2).
func nameRune(c rune) bool {
	return c == '.' || c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// nameKey is a name in the form in which it is compared.
func nameKey(s string) string {
	if len(s) > 4*mail.MaxDomain {
		return ""
	}
	s = strings.Map(func(c rune) rune {
		switch {
		case c == 0x3002 || c == 0xff0e || c == 0xff61: // dots, even where the rest is no valid name
			return '.'
		case unicode.Is(unicode.Cf, c): // not to be seen
			return -1
		}
		return c
	}, s)
	return strings.Trim(mail.DomainKey(strings.Trim(s, ".")), ".")
}

// blankless is s without white space and control characters.
func blankless(s string) string {
	return strings.Map(func(c rune) rune {
		if c <= ' ' || c == 0x7f {
			return -1
		}
		return c
	}, s)
}

// quoteless is s without quotes and backslashes.
func quoteless(s string) string {
	return strings.Map(func(c rune) rune {
		if c == '"' || c == '\\' {
			return -1
		}
		return c
	}, s)
}

// withoutComments is s with its comments taken out and what was around them joined. It
// is false if one never ends.
func withoutComments(s string) (string, bool) {
	var b strings.Builder
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && depth > 0:
			i++
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth == 0:
			b.WriteByte(c)
		}
	}
	return b.String(), depth == 0
}
