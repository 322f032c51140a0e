package mail

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Limits in octets. RFC 5321 §4.5.3.1 allows 64 for a local part and 256 for a
// path, and asks implementations to impose no limits where they can: bounce
// addresses that encode a recipient (VERP, SRS) are longer in practice.
const (
	MaxLocal  = 512
	MaxDomain = 255
	MaxPath   = MaxLocal + MaxDomain + 3 // with "@" and the angle brackets
)

// Path is a reverse-path or forward-path (RFC 5321 §4.1.2, RFC 6531 §3.3)
// without its angle brackets and source route. The zero value is the null
// reverse-path "<>". A path with a local part and no domain is the bare
// "postmaster" of RFC 5321 §4.1.1.3. Paths are comparable, but two paths that
// reach the same mailbox need not be equal: see Key.
type Path struct {
	local  string // unquoted
	domain string // as given; "[192.0.2.1]" for literals
}

// ErrUTF8 is returned by ParsePath for an address that needs SMTPUTF8.
var ErrUTF8 = errors.New("address has characters outside ASCII, which need SMTPUTF8")

// ParsePath parses an address without angle brackets: "local@domain", a bare
// "local" as programs on a local network send it and RFC 5321 §4.1.1.3 has for
// "postmaster", or "" for the null path. Characters outside ASCII
// are refused with ErrUTF8 unless utf8ok. Every other error says what is wrong
// in words fit for a reply.
func ParsePath(s string, utf8ok bool) (Path, error) {
	if s == "" {
		return Path{}, nil
	}
	if len(s) > MaxPath-2 {
		return Path{}, fmt.Errorf("path is longer than %d octets", MaxPath)
	}
	if !utf8.ValidString(s) {
		return Path{}, errors.New("address is not valid UTF-8")
	}
	if !utf8ok && !isASCII(s) {
		return Path{}, ErrUTF8
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		local, err := parseLocal(s)
		return Path{local: local}, err
	}
	local, err := parseLocal(s[:at])
	if err != nil {
		return Path{}, err
	}
	domain := s[at+1:]
	if err := checkDomain(domain); err != nil {
		return Path{}, err
	}
	return Path{local: local, domain: domain}, nil
}

// parseLocal validates a Dot-string or Quoted-string and removes the quotes.
func parseLocal(s string) (string, error) {
	if s == "" {
		return "", errors.New("address has no local part")
	}
	if s[0] != '"' {
		if len(s) > MaxLocal {
			return "", fmt.Errorf("local part is longer than %d octets", MaxLocal)
		}
		return s, checkDotString(s)
	}
	if len(s) < 2 || s[len(s)-1] != '"' {
		return "", errors.New("quoted local part does not end")
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		c := s[i]
		if c == '\\' {
			i++
			if i == len(s)-1 {
				return "", errors.New("quoted local part does not end")
			}
			c = s[i]
		} else if c == '"' {
			return "", errors.New("local part has a character that is not allowed there")
		}
		if c == 0 || c == '\r' || c == '\n' { // other controls are obsolete, but were sent (RFC 5322 §4.1)
			return "", errors.New("local part has a character that is not allowed there")
		}
		b.WriteByte(c)
	}
	if b.Len() == 0 {
		return "", errors.New("address has no local part")
	}
	if b.Len() > MaxLocal {
		return "", fmt.Errorf("local part is longer than %d octets", MaxLocal)
	}
	return b.String(), nil
}

func checkDotString(s string) error {
	dot := true // an atom must follow
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '.':
			if dot {
				return errors.New("local part has an empty element; quote it")
			}
			dot = true
			continue
		case !isAtext(c):
			return errors.New("local part has a character that must be quoted")
		}
		dot = false
	}
	if dot {
		return errors.New("local part ends with a dot; quote it")
	}
	return nil
}

// isAtext reports whether c may stand in an atom (RFC 5322 §3.2.3, RFC 6531 §3.3).
func isAtext(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' ||
		c >= 0x80 || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// checkDomain validates a Domain or address-literal (RFC 5321 §4.1.2, §4.1.3).
func checkDomain(s string) error {
	switch {
	case s == "":
		return errors.New("address has no domain")
	case len(s) > MaxDomain:
		return fmt.Errorf("domain is longer than %d octets", MaxDomain)
	case s[0] == '[':
		if _, ok := parseLiteral(s); !ok {
			return errors.New("address literal is malformed")
		}
		return nil
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" {
			return errors.New("domain has an empty label")
		}
		if len(label) > 63 && isASCII(label) {
			return errors.New("domain has a label longer than 63 octets")
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return errors.New("domain has a label that begins or ends with a hyphen")
		}
		for i := 0; i < len(label); i++ {
			c := label[i]
			if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c >= 0x80) {
				return errors.New("domain has a character that is not allowed there")
			}
		}
	}
	if strings.Trim(s, "0123456789.") == "" {
		return errors.New("domain is a number; write an address in brackets")
	}
	if !isASCII(s) {
		if _, err := idna.Lookup.ToASCII(s); err != nil {
			return errors.New("domain is not a valid internationalised name")
		}
	}
	return nil
}

func parseLiteral(s string) (netip.Addr, bool) {
	if len(s) < 3 || s[0] != '[' || s[len(s)-1] != ']' {
		return netip.Addr{}, false
	}
	body := s[1 : len(s)-1]
	if len(body) > 5 && strings.EqualFold(body[:5], "IPv6:") {
		a, err := netip.ParseAddr(body[5:])
		return a, err == nil && a.Is6() && a.Zone() == ""
	}
	a, err := netip.ParseAddr(body)
	return a, err == nil && a.Is4()
}

// ParseLiteral parses an address literal with its brackets, "[192.0.2.1]" or
// "[IPv6:2001:db8::1]" (RFC 5321 §4.1.3).
func ParseLiteral(s string) (netip.Addr, bool) { return parseLiteral(s) }

// ValidDomain reports whether s may stand after an "@" or in EHLO: a domain
// name or an address literal.
func ValidDomain(s string) bool { return checkDomain(s) == nil }

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// IsNull reports whether p is the null reverse-path "<>".
func (p Path) IsNull() bool { return p == Path{} }

// Local is the local part without quotes. It may hold any character but NUL, CR and LF.
func (p Path) Local() string { return p.local }

// Domain is the domain as it was given, "" for the null path and for a bare
// local part.
func (p Path) Domain() string { return p.domain }

// NeedsUTF8 reports whether p can only be sent to a peer with SMTPUTF8.
func (p Path) NeedsUTF8() bool { return !isASCII(p.local) || !isASCII(p.domain) }

// WithDomain returns p with another domain, which must be valid.
func (p Path) WithDomain(domain string) Path { return Path{local: p.local, domain: domain} }

// WithLocal returns p with another local part, which must not be empty.
func (p Path) WithLocal(local string) Path { return Path{local: local, domain: p.domain} }

// DomainKey is a domain in its canonical form: lower case and, for an
// internationalised name, A-labels.
func DomainKey(domain string) string {
	if isASCII(domain) {
		return strings.ToLower(domain)
	}
	if a, err := idna.Lookup.ToASCII(domain); err == nil {
		return a
	}
	return strings.ToLower(domain)
}

// Key is p in the form in which mailboxes are compared: local part and domain
// in lower case, the domain in A-labels. RFC 5321 §2.4 lets a host compare its
// own local parts as it likes; like every common mail store wafer ignores case.
func (p Path) Key() string {
	if p.domain == "" {
		return strings.ToLower(p.local)
	}
	return strings.ToLower(p.local) + "@" + DomainKey(p.domain)
}

// Readable is the address without quotes, for texts that people read. It is no
// address for programs.
func (p Path) Readable() string {
	if p.domain == "" {
		return p.local
	}
	return p.local + "@" + p.domain
}

// String is the address without angle brackets, with its local part quoted
// where the grammar asks for it; "" for the null path. ParsePath reads it back.
func (p Path) String() string {
	if p.local == "" {
		return ""
	}
	local := p.local
	if checkDotString(local) != nil {
		var b strings.Builder
		b.WriteByte('"')
		for i := 0; i < len(local); i++ {
			if local[i] == '"' || local[i] == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(local[i])
		}
		b.WriteByte('"')
		local = b.String()
	}
	if p.domain == "" {
		return local
	}
	return local + "@" + p.domain
}
