package main

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Bounds of macro-strings in octets, as written and expanded, and of all that
// macros stand for in one evaluation. A name needs 253, and an explanation has
// to fit into a reply.
const (
	maxMacroString = 1 << 10
	maxExpansion   = 2 << 10
	maxValues      = 32 << 10
)

// macro is one macro-expand of the form "%{...}" (RFC 7208 §7.1).
type macro struct {
	letter  byte   // in lower case
	escape  bool   // it was written in upper case: URL-escape the value (§7.3)
	keep    int    // right-hand parts to keep; 0: all
	reverse bool   // the order of the parts
	delims  string // what separates parts; "" means "."
}

// scan walks a macro-string from left to right and hands on what it finds:
// literal text, with %%, %_ and %- already decoded, and macros. It returns the
// first error of syntax. Spaces may stand in it only if spaces is true: an
// explain-string has them, a domain-spec does not (§6.2, §7.1).
func scan(s string, spaces bool, literal func(string), expand func(macro)) *brokenError {
	if len(s) > maxMacroString {
		return permanent("macro-string is too long", strconv.Itoa(len(s))+" octets")
	}
	for len(s) > 0 {
		n := strings.IndexByte(s, '%')
		if n < 0 {
			n = len(s)
		}
		if n > 0 {
			if !isPrintable(s[:n]) || !spaces && strings.IndexByte(s[:n], ' ') >= 0 {
				return permanent("character that may not stand there", s)
			}
			literal(s[:n])
			s = s[n:]
			continue
		}
		if len(s) < 2 {
			return permanent("lone % sign", s)
		}
		switch s[1] {
		case '%':
			literal("%")
		case '_':
			literal(" ")
		case '-':
			literal("%20")
		case '{':
			end := strings.IndexByte(s, '}')
			if end < 0 {
				return permanent("macro without an end", s)
			}
			m, ok := parseMacro(s[2:end])
			if !ok {
				return permanent("malformed macro", s[:end+1])
			}
			expand(m)
			s = s[end+1:]
			continue
		default:
			return permanent("lone % sign", s)
		}
		s = s[2:]
	}
	return nil
}

// isPrintable reports whether s is printable ASCII.
//
//go:noinline
func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Letters of macros: the last three only in explanations (§7.2).
const (
	macroLetters   = "slodiphv"
	explainLetters = "crt"
)

// parseMacro reads what stands between "%{" and "}".
func parseMacro(s string) (m macro, ok bool) {
	if s == "" {
		return m, false
	}
	m.letter = s[0] | 0x20
	m.escape = s[0] < 'a'
	if strings.IndexByte(macroLetters+explainLetters, m.letter) < 0 {
		return m, false
	}
	s = s[1:]
	digits := 0
	for digits < len(s) && s[digits] >= '0' && s[digits] <= '9' {
		m.keep = min(10*m.keep+int(s[digits]-'0'), maxExpansion)
		digits++
	}
	if digits > 0 && m.keep == 0 {
		return m, false // "the DIGIT MUST be nonzero" (§7.3)
	}
	s = s[digits:]
	if s != "" && s[0]|0x20 == 'r' {
		m.reverse, s = true, s[1:]
	}
	for i := range len(s) {
		if strings.IndexByte(".-+,/_=", s[i]) < 0 {
			return m, false
		}
	}
	m.delims = s
	return m, true
}

// apply transforms a macro's value: split, turn round, cut, join, escape (§7.3).
func (m macro) apply(value string) string {
	if m.keep > 0 || m.reverse || m.delims != "" {
		delims := m.delims
		if delims == "" {
			delims = "."
		}
		parts := splitAny(value, delims)
		if m.reverse {
			for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
				parts[i], parts[j] = parts[j], parts[i]
			}
		}
		if m.keep > 0 && m.keep < len(parts) {
			parts = parts[len(parts)-m.keep:]
		}
		value = strings.Join(parts, ".")
	}
	if m.escape {
		value = escapeURL(value)
	}
	return value
}

func splitAny(s, delims string) (parts []string) {
	from := 0
	for i := range len(s) {
		if strings.IndexByte(delims, s[i]) >= 0 {
			parts = append(parts, s[from:i])
			from = i + 1
		}
	}
	return append(parts, s[from:])
}

// escapeURL escapes all but unreserved characters (RFC 3986 §2.3).
func escapeURL(s string) string {
	const hex = "0123456789ABCDEF"
	var b []byte
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~':
			b = append(b, c)
		default:
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// facts is what macros stand for, apart from names that DNS has to tell.
type facts struct {
	ip       netip.Addr // without the prefix of IPv4-mapped addresses
	local    string     // of <sender>, "postmaster" where it had none
	origin   string     // domain of <sender>
	helo     string
	receiver string
	now      func() time.Time
}

// value is what a letter stands for while the record of domain is evaluated.
// "p" is left to the caller.
func (f *facts) value(letter byte, domain string) string {
	switch letter {
	case 's':
		return f.local + "@" + f.origin
	case 'l':
		return f.local
	case 'o':
		return f.origin
	case 'd':
		return domain
	case 'i':
		return dotted(f.ip)
	case 'v':
		if f.ip.Is4() {
			return "in-addr"
		}
		return "ip6"
	case 'h':
		return f.helo
	case 'c':
		return f.ip.String()
	case 'r':
		if f.receiver == "" {
			return "unknown"
		}
		return f.receiver
	}
	return strconv.FormatInt(f.now().Unix(), 10) // t
}

// dotted is an address in the dot-format of %{i}: an IPv6 address is its 32
// hexadecimal digits (§7.3).
func dotted(a netip.Addr) string {
	if a.Is4() {
		return a.String()
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, 63)
	for i, c := range a.As16() {
		if i > 0 {
			b = append(b, '.')
		}
		b = append(b, hex[c>>4], '.', hex[c&15])
	}
	return string(b)
}

// expand replaces the macros of a macro-string that scan has found good.
func (v *evaluation) expand(s, domain string, spaces bool) (string, *brokenError) {
	var b []byte
	add := func(s string) { b = append(b, s...) }
	err := scan(s, spaces, add, func(m macro) {
		if len(b) > maxExpansion || v.values > maxValues {
			return // too much already
		}
		value := ""
		if m.letter == 'p' {
			value = v.validatedName(domain)
		} else {
			value = v.value(m.letter, domain)
		}
		v.values += len(value)
		add(m.apply(value))
	})
	if err == nil && (len(b) > maxExpansion || v.values > maxValues) {
		err = permanent("expansion is too long", s)
	}
	return string(b), err
}

// target is the name that a domain-spec stands for, or domain if there is none.
// A name that is too long loses labels from the left until it fits (§7.3).
func (v *evaluation) target(spec, domain string) (string, *brokenError) {
	if spec == "" {
		return domain, nil
	}
	name, err := v.expand(spec, domain, false)
	if err != nil {
		return "", err
	}
	name = strings.TrimSuffix(name, ".")
	for len(name) > maxName {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			break
		}
		name = rest
	}
	return name, nil
}
