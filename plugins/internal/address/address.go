// Package address takes apart what SMTP commands carry: host names, address
// literals and mailboxes, by the rules that Postfix's restrictions go by.
//
// # BUGS
//
// Any octet above ASCII counts as a letter of an internationalised name; whether
// the name is a good one is not looked at.
package address

import (
	"net/netip"
	"strings"

	"github.com/wafermail/wafer/sdk"
)

// Split cuts a mailbox at its last "@". An address without one has no domain.
func Split(mailbox string) (local, domain string) {
	if i := strings.LastIndexByte(mailbox, '@'); i >= 0 {
		return mailbox[:i], mailbox[i+1:]
	}
	return mailbox, ""
}

// Literal reads "[192.0.2.1]" or "[IPv6:2001:db8::1]" (RFC 5321 §4.1.3).
func Literal(s string) (netip.Addr, bool) {
	if len(s) < 3 || s[0] != '[' || s[len(s)-1] != ']' {
		return netip.Addr{}, false
	}
	s = s[1 : len(s)-1]
	if len(s) > 5 && strings.EqualFold(s[:5], "ipv6:") {
		a, err := netip.ParseAddr(s[5:])
		return a, err == nil && a.Is6() && a.Zone() == ""
	}
	a, err := netip.ParseAddr(s)
	return a, err == nil && a.Is4()
}

// IsIP reports whether s is an address without brackets.
func IsIP(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

// WithoutDot takes away the dot that ends an absolute name.
func WithoutDot(s string) string { return strings.TrimSuffix(s, ".") }

// IsHostname reports whether s is labels of letters, digits, "-" and "_", none
// longer than 63 octets nor with a hyphen at its ends, and not all of digits.
func IsHostname(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	onlyDigits := true
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := 0; i < len(label); i++ {
			switch c := label[i]; {
			case c >= '0' && c <= '9':
			case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-', c == '_', c >= 0x80:
				onlyDigits = false
			default:
				return false
			}
		}
	}
	return !onlyDigits
}

// IsFQDN reports whether s is a host name of two labels or more.
func IsFQDN(s string) bool { return IsHostname(s) && strings.Contains(s, ".") }

// Kind says in a refusal what is refused: "Sender address".
type Kind string

// The kinds, as Postfix names them.
const (
	Client    Kind = "Client host"
	Helo      Kind = "Helo command"
	Sender    Kind = "Sender address"
	Recipient Kind = "Recipient address"
	Data      Kind = "Data command"
)

// Refuse refuses value in Postfix's words: "<value>: Sender address rejected:
// why". A code of 4xx defers; the class of enhanced follows the code.
func Refuse(kind Kind, code int, enhanced, value, why string) sdk.Verdict {
	return Reply(code, enhanced, Text(kind, value, why))
}

// Text is what Refuse says.
func Text(kind Kind, value, why string) string {
	const longest = 400 // so that the reason shows behind a long name
	value = Readable(value)
	return "<" + value[:min(len(value), longest)] + ">: " + string(kind) + " rejected: " + why
}

// Readable is an address without the quotes of its local part, as Postfix repeats it.
func Readable(s string) string {
	local, domain, found := s, "", false
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		local, domain, found = s[:i], s[i+1:], true
	}
	if len(local) < 2 || local[0] != '"' || local[len(local)-1] != '"' {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 1; i < len(local)-1; i++ {
		if local[i] == '\\' && i+1 < len(local)-1 {
			i++
		}
		b = append(b, local[i])
	}
	if found {
		b = append(append(b, '@'), domain...)
	}
	return string(b)
}

// Reply is a verdict by its code: 421 and 521 hang up, 4xx defers, 5xx rejects.
func Reply(code int, enhanced, text string) sdk.Verdict {
	if enhanced != "" {
		enhanced = string(rune('0'+code/100)) + enhanced[1:]
	}
	switch {
	case code == 421 || code == 521:
		return sdk.Disconnect(code, enhanced, text)
	case code < 500:
		return sdk.Defer(code, enhanced, text)
	}
	return sdk.Reject(code, enhanced, text)
}
