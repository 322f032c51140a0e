package main

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// decodeWords decodes the encoded words of a header field's body (RFC 2047), as
// mail readers do and not as strictly as the RFC has it: also inside other text,
// and with spaces in them. Words in a charset that is not known stay as they
// are. Control characters become spaces, so that no line end hides from ".".
func decodeWords(s string) string {
	if !strings.Contains(s, "=?") {
		return plain(s)
	}
	var b strings.Builder
	var pending []byte // octets of the words just before, not converted yet: a character may go across
	charset := ""
	flush := func() {
		text, _ := toUTF8(charset, pending)
		b.WriteString(text)
		pending, charset = pending[:0], ""
	}
	for s != "" {
		at := strings.Index(s, "=?")
		if at < 0 {
			break
		}
		w, ok := parseWord(s[at:])
		if !ok {
			flush()
			b.WriteString(s[:at+2])
			s = s[at+2:]
			continue
		}
		between := s[:at]
		if charset == "" || strings.Trim(between, " \t\r\n") != "" { // white space between two words is none
			flush()
			b.WriteString(between)
		}
		if charset != w.charset {
			flush()
		}
		charset, pending = w.charset, append(pending, w.octets...)
		s = s[at+w.length:]
	}
	flush()
	b.WriteString(s)
	return plain(b.String())
}

// plain makes control characters spaces.
func plain(s string) string {
	if isPlain(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}

// isPlain reports whether s is printable ASCII.
func isPlain(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i]-' ' > '~'-' ' {
			return false
		}
	}
	return true
}

// word is an encoded word.
type word struct {
	charset string // in lower case
	octets  []byte
	length  int // of the word as it was written
}

// parseWord reads the encoded word that s begins with:
// "=?charset*language?encoding?text?=".
func parseWord(s string) (w word, ok bool) {
	charset, rest, ok := strings.Cut(s[2:], "?")
	if !ok || len(charset) > 40 || len(rest) < 2 || rest[1] != '?' {
		return w, false
	}
	end := strings.IndexByte(rest[2:], '?') // the first: a search for "?=" would take a hostile field's square
	if end < 0 || !strings.HasPrefix(rest[2+end:], "?=") {
		return w, false
	}
	text := rest[2 : 2+end]
	w.length = 2 + len(charset) + 1 + 2 + len(text) + 2
	charset, _, _ = strings.Cut(charset, "*") // RFC 2231 §5
	if w.charset = strings.ToLower(charset); !isKnown(w.charset) {
		return w, false
	}
	switch rest[0] {
	case 'q', 'Q':
		w.octets = unescape(strings.ReplaceAll(text, "_", " "), '=')
	case 'b', 'B':
		w.octets = unbase64(text)
	default:
		return w, false
	}
	return w, true
}

// unescape replaces mark and two hexadecimal digits by an octet; what is not
// written so stays.
func unescape(s string, mark byte) []byte {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == mark && i+2 < len(s) {
			if hi, lo := hex(s[i+1]), hex(s[i+2]); hi < 16 && lo < 16 {
				b = append(b, hi<<4|lo)
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return b
}

func hex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}

// unbase64 decodes what can be decoded: other characters are skipped, and what
// follows padding counts too.
func unbase64(s string) []byte {
	s = strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '+' || r == '/' {
			return r
		}
		return -1
	}, s)
	if len(s)%4 == 1 {
		s = s[:len(s)-1]
	}
	b, _ := base64.RawStdEncoding.DecodeString(s) // the alphabet is checked, so is the length
	return b
}

// isKnown reports whether toUTF8 knows a charset.
func isKnown(charset string) bool {
	switch charset {
	case "utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "iso-8859-15", "latin9", "windows-1252", "cp1252":
		return true
	}
	return false
}

// toUTF8 converts octets. ok is false if the charset is not known; the octets
// are then taken as UTF-8. What is labelled Latin-1 is read as Windows-1252, as
// mail readers do: the difference is control characters.
func toUTF8(charset string, octets []byte) (text string, ok bool) {
	var table string
	switch charset {
	case "iso-8859-1", "latin1", "windows-1252", "cp1252":
		table = windows1252
	case "iso-8859-15", "latin9":
		table = latin9
	default:
		return strings.ToValidUTF8(string(octets), "\ufffd"), isKnown(charset)
	}
	var b []byte
	for _, c := range octets {
		r := rune(c)
		if other, found := lookUp(table, c); found {
			r = other
		}
		b = utf8.AppendRune(b, r)
	}
	return string(b), true
}

// The characters that are not those of Latin-1, each behind its octet.
const (
	windows1252 = "\u0080€\u0082‚\u0083ƒ\u0084„\u0085…\u0086†\u0087‡\u0088ˆ\u0089‰\u008aŠ\u008b‹\u008cŒ\u008eŽ" +
		"\u0091‘\u0092’\u0093“\u0094”\u0095•\u0096–\u0097—\u0098˜\u0099™\u009aš\u009b›\u009cœ\u009ež\u009fŸ"
	latin9 = "\u00a4€\u00a6Š\u00a8š\u00b4Ž\u00b8ž\u00bcŒ\u00bdœ\u00beŸ"
)

func lookUp(table string, c byte) (r rune, ok bool) {
	if c < 0x80 {
		return 0, false
	}
	key := true
	for _, have := range table {
		if ok {
			return have, true
		}
		ok = key && have == rune(c)
		key = !key
	}
	return 0, false
}
