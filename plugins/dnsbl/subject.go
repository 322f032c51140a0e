package main

import (
	"net/netip"
	"strings"

	"github.com/wafermail/wafer/plugins/internal/address"
	"github.com/wafermail/wafer/sdk"
)

// What can be looked up.
const (
	queryClient      = "client"
	queryClientName  = "client-name"
	queryReverseName = "reverse-client-name"
	queryHelo        = "helo"
	querySender      = "sender-domain"
	queryRecipient   = "recipient-domain"
)

// subject is what is looked up.
type subject struct {
	label string       // before the list's domain: "7.2.0.192."
	what  string       // as a reply shows it
	kind  address.Kind // as a reply names it
}

// find takes the subject from e. ok is false if there is none, or none that a
// list could have an entry for.
func find(e *sdk.Event, query string) (s subject, ok bool) {
	switch query {
	case queryClient:
		label, ok := reversed(e.Client())
		return subject{label, e.Client(), address.Client}, ok
	case queryClientName:
		return named(e.ClientName(), e.ClientName(), address.Client)
	case queryReverseName:
		name := e.Fact(sdk.FactReverseName)
		return named(name, name, "Unverified Client host")
	case queryHelo:
		return named(e.Helo(), e.Helo(), address.Helo)
	case querySender:
		_, domain := address.Split(e.Sender())
		return named(domain, e.Sender(), address.Sender)
	case queryRecipient:
		_, domain := address.Split(e.Recipient())
		return named(domain, e.Recipient(), address.Recipient)
	}
	return subject{}, false
}

// named is the subject of a list of domains. Address literals, addresses and
// other names that end in a number have no entry there, and some lists answer
// them with a complaint.
func named(domain, what string, kind address.Kind) (subject, bool) {
	domain = address.WithoutDot(strings.ToLower(domain))
	last := domain[strings.LastIndexByte(domain, '.')+1:]
	if !address.IsHostname(domain) || !isASCII(domain) || strings.Trim(last, "0123456789") == "" {
		return subject{}, false
	}
	return subject{domain + ".", what, kind}, true
}

// reversed is the label of an address in a list (RFC 5782 §2.1, §2.4). ok is
// false for addresses that are not on the public Internet.
func reversed(client string) (label string, ok bool) {
	a, err := netip.ParseAddr(client)
	if err != nil {
		return "", false
	}
	if a = a.Unmap().WithZone(""); !a.IsGlobalUnicast() || a.IsPrivate() || isShared(a) {
		return "", false
	}
	const digits = "0123456789abcdef"
	var b []byte
	octets := a.AsSlice()
	for i := len(octets) - 1; i >= 0; i-- {
		v := octets[i]
		if a.Is6() {
			b = append(b, digits[v&15], '.', digits[v>>4], '.')
			continue
		}
		if v >= 100 {
			b = append(b, digits[v/100])
		}
		if v >= 10 {
			b = append(b, digits[v/10%10])
		}
		b = append(b, digits[v%10], '.')
	}
	return string(b), true
}

// isShared reports whether a is in 100.64.0.0/10, which providers use inside
// (RFC 6598).
func isShared(a netip.Addr) bool {
	b := a.AsSlice()
	return len(b) == 4 && b[0] == 100 && b[1]&0xc0 == 64
}
