package dmarc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of what is read of the From fields.
const (
	maxFromOctets  = 128 << 10 // of all fields together
	maxFromDomains = 64
	maxComments    = 100  // levels of comments in comments
	maxEncoded     = 1000 // octets of an encoded word; RFC 2047 §2 allows 75
)

// ErrNoAuthor is the error of FromDomains where no domain at all was found.
var ErrNoAuthor = errors.New("no From field has an address with a domain")

// FromDomains lists the domains of the addresses in the values of a message's From
// fields (RFC 5322 §3.6.2, §4.4), canonical, each once and in the order in which they
// stand. Groups, comments, quoted strings, routes and folding are understood; encoded
// words are display names and stay closed.
//
// It reads what is malformed too, in favour of whoever might be impersonated: every
// "@" outside quotes and comments counts, in a display name as well. The error says
// what about the fields could make another reader see another domain than those
// returned; it may come along with domains.
func FromDomains(values []string) ([]string, error) {
	var f fromReader
	if len(values) > 1 {
		f.flaw("there are %d From fields", len(values))
	}
	octets := 0
	for _, v := range values {
		if octets += len(v); octets > maxFromOctets {
			f.flaw("From is longer than %d octets", maxFromOctets)
			break
		}
		f.field(v)
	}
	if len(f.domains) == 0 {
		if f.err == nil {
			f.err = ErrNoAuthor
		} else {
			f.err = fmt.Errorf("%w: %w", ErrNoAuthor, f.err)
		}
	}
	return f.domains, f.err
}

// fromReader collects domains.
type fromReader struct {
	s       string
	i       int
	full    bool // as many domains as are kept
	domains []string
	err     error // the first thing that was wrong

	word  bool // this address has words since its last delimiter
	odd   bool // one of them may be taken for an address once it is decoded
	angle bool // inside "<"
	loose bool // a quote was never closed: later ones mean nothing
}

func (f *fromReader) flaw(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(format, args...)
	}
}

// specials end an atom (RFC 5322 §3.2.3).
const specials = "()<>[]:;@\\,.\""

// field reads one field's value.
func (f *fromReader) field(value string) {
	f.s, f.i = value, 0
	f.word, f.odd, f.angle, f.loose = false, false, false, false
	if !utf8.ValidString(value) {
		f.flaw("From is not UTF-8")
	}
	for f.i < len(f.s) && !f.full {
		switch c := f.s[f.i]; c {
		case ' ', '\t', '\r', '\n', '(':
			f.blank()
		case '"':
			f.quoted()
		case '@':
			f.at()
		case '<':
			if f.angle {
				f.flaw("From has an angle bracket within angle brackets")
			}
			f.angle, f.word, f.odd = true, false, false
			f.i++
		case '>':
			if !f.angle {
				f.flaw("From has an angle bracket that nothing opens")
			}
			f.angle, f.word, f.odd = false, false, false
			f.i++
		case ',', ';', ':':
			if f.angle { // a source route, which nobody writes and few understand
				f.flaw("From has a %q within angle brackets", c)
			}
			f.word, f.odd = false, false
			f.i++
		case '[', ']', '\\', ')':
			f.flaw("From has a %q where none can be", c)
			f.i++
		case '.':
			f.i++
		default:
			f.atom()
		}
	}
	if f.angle {
		f.flaw("From has an angle bracket that is never closed")
	}
}

// blank skips white space and comments. A comment that never ends is text.
func (f *fromReader) blank() {
	for f.i < len(f.s) {
		switch f.s[f.i] {
		case ' ', '\t', '\r', '\n':
			f.i++
		case '(':
			end := commentEnd(f.s, f.i)
			if end < 0 {
				f.flaw("From has a comment that never ends")
				f.i++
				return
			}
			f.i = end
		default:
			return
		}
	}
}

// commentEnd is behind the comment that begins at i, -1 if it has no end.
func commentEnd(s string, i int) int {
	for depth := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			if depth++; depth > maxComments {
				return -1
			}
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// quoted skips a quoted string. One that never ends is text.
func (f *fromReader) quoted() {
	for i := f.i + 1; i < len(f.s) && !f.loose; i++ {
		switch f.s[i] {
		case '\\':
			i++
		case '"':
			f.i, f.word = i+1, true
			return
		}
	}
	f.loose = true
	f.flaw("From has a quoted string that never ends")
	f.i++
}

// encodedEnd is behind the encoded word (RFC 2047 §2) that begins at i, 0 if there is
// none. Many are made without care and hold an "@" or a comma as it is.
func encodedEnd(s string, i int) int {
	rest, ok := strings.CutPrefix(s[i:], "=?")
	if !ok {
		return 0
	}
	rest = rest[:min(len(rest), maxEncoded)]
	if n := strings.IndexAny(rest, " \t\r\n<>\""); n >= 0 {
		rest = rest[:n]
	}
	charset := strings.IndexByte(rest, '?')
	if charset < 0 || len(rest) < charset+3 || rest[charset+2] != '?' {
		return 0
	}
	end := strings.Index(rest[charset+3:], "?=")
	if end < 0 {
		return 0
	}
	return i + len("=?") + charset + 3 + end + len("?=")
}

// atom skips a word.
func (f *fromReader) atom() {
	if end := encodedEnd(f.s, f.i); end > 0 {
		f.i, f.word, f.odd = end, true, true
		return
	}
	start := f.i
	for f.i < len(f.s) && f.s[f.i] > ' ' && f.s[f.i] != 0x7f && strings.IndexByte(specials, f.s[f.i]) < 0 {
		f.i++
	}
	if f.i == start { // a control character
		f.flaw("From has a control character")
		f.i++
		return
	}
	f.word = true
	// RFC 2047 §5 allows no encoded word in an address. Some readers decode it all
	// the same, before they look for the address.
	f.odd = f.odd || strings.Contains(f.s[start:f.i], "=?") && strings.Contains(f.s[start:f.i], "?=")
}

// at reads the domain behind an "@".
func (f *fromReader) at() {
	f.i++
	if !f.word {
		f.flaw("From has an address without a local part")
	}
	if f.odd {
		f.flaw("From has an encoded word in an address")
	}
	f.word, f.odd = false, false
	f.blank()
	if f.i < len(f.s) && f.s[f.i] == '[' {
		f.flaw("From has an address literal")
		if n := strings.IndexByte(f.s[f.i:], ']'); n >= 0 {
			f.i += n + 1
		}
		return
	}
	var domain strings.Builder
	for {
		start := f.i
		for f.i < len(f.s) && f.s[f.i] > ' ' && f.s[f.i] != 0x7f && (f.s[f.i] == '.' || strings.IndexByte(specials, f.s[f.i]) < 0) {
			f.i++
		}
		domain.WriteString(f.s[start:f.i])
		// The obsolete grammar allows blanks and comments around the dots.
		end := f.i
		f.blank()
		if f.i == end || f.i == len(f.s) {
			break
		}
		dotted := strings.HasSuffix(domain.String(), ".") && strings.IndexByte(specials, f.s[f.i]) < 0
		if f.s[f.i] != '.' && !dotted {
			break
		}
		f.flaw("From has blanks or comments within a domain")
	}
	f.add(domain.String())
}

// add notes a domain.
func (f *fromReader) add(domain string) {
	name, ok := canonical(domain)
	switch {
	case !ok:
		f.flaw("From has the domain %.60q, which cannot exist", domain)
	case slices.Contains(f.domains, name):
	case len(f.domains) == maxFromDomains:
		f.flaw("From has more than %d domains", maxFromDomains)
		f.full = true
	default:
		f.domains = append(f.domains, name)
	}
}
