package main

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/sdk"
)

// lookups asks DNS for one call of the plugin and remembers the answers, so
// that the two identities and all their records ask nothing twice.
type lookups struct {
	ask   func(...sdk.Question) ([]sdk.Answer, error)
	known map[sdk.Question]sdk.Answer
	spent bool // the host answers no more questions in this call
	late  bool // the time for answers is used up
}

func newLookups(ask func(...sdk.Question) ([]sdk.Answer, error)) *lookups {
	return &lookups{ask: ask, known: make(map[sdk.Question]sdk.Answer)}
}

// question is one for name, in the form in which it is remembered. ok is false
// for what is no name in DNS and so cannot exist (RFC 7208 §4.8).
func question(kind, name string) (q sdk.Question, ok bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "" || len(name) > maxName {
		return q, false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel {
			return q, false
		}
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' {
			return q, false
		}
	}
	return sdk.Question{Type: kind, Name: name}, true
}

// all answers questions about names in parallel, in their order.
func (l *lookups) all(kind string, names ...string) []sdk.Answer {
	qs := make([]sdk.Question, len(names))
	var ask []sdk.Question
	for i, name := range names {
		q, ok := question(kind, name)
		if !ok {
			continue
		}
		qs[i] = q
		if _, known := l.known[q]; !known && !slices.Contains(ask, q) {
			ask = append(ask, q)
		}
	}
	l.batch(ask)
	answers := make([]sdk.Answer, len(names))
	for i, q := range qs {
		if answers[i].Status = sdk.DNSNotFound; q.Name != "" {
			answers[i] = l.known[q]
		}
	}
	return answers
}

// one answers one question.
func (l *lookups) one(kind, name string) sdk.Answer {
	q, ok := question(kind, name)
	if !ok {
		return sdk.Answer{Status: sdk.DNSNotFound}
	}
	a, known := l.known[q]
	if !known {
		l.batch([]sdk.Question{q})
		a = l.known[q]
	}
	return a
}

// batch asks questions that are not known yet. A batch that is larger than what
// the host still answers is asked in halves, so that nothing of it is lost.
func (l *lookups) batch(qs []sdk.Question) {
	if len(qs) == 0 {
		return
	}
	answers, err := l.ask(qs...)
	if errors.Is(err, sdk.ErrQuota) && len(qs) > 1 {
		l.batch(qs[:len(qs)/2])
		l.batch(qs[len(qs)/2:])
		return
	}
	l.spent = l.spent || errors.Is(err, sdk.ErrQuota)
	l.late = l.late || errors.Is(err, sdk.ErrTimeout)
	for i, q := range qs {
		a := sdk.Answer{Status: sdk.DNSTemp}
		if err == nil {
			a = answers[i]
		}
		l.known[q] = a
	}
}

// why is the temporary error of a lookup that had no answer.
func (l *lookups) why(name string) *brokenError {
	switch {
	case l.spent:
		return temporary("more lookups than one check may make", name)
	case l.late:
		return temporary("lookups took too long", name)
	}
	return temporary("DNS has no answer now", name)
}

// addressType is the type of the records that may hold ip.
func addressType(ip netip.Addr) string {
	if ip.Is4() {
		return "A"
	}
	return "AAAA"
}

// holds reports whether an address of a's is in the same network of bits as ip.
func holds(a sdk.Answer, ip netip.Addr, bits int) bool {
	network, err := ip.Prefix(bits)
	if err != nil {
		return false
	}
	text := ip.String()
	for _, r := range a.Records {
		if r == text || bits < 32 && ip.Is4() && network.Contains(parseIPv4(r)) {
			return true
		}
		if !ip.Is4() && contains6(network, r) {
			return true
		}
	}
	return false
}

func contains6(network netip.Prefix, text string) bool {
	a, err := netip.ParseAddr(text)
	return err == nil && network.Contains(a)
}

// parseIPv4 reads an address that DNS gave. It costs a fifth of the fuel of
// netip's, and hosts may have hundreds.
//
//go:noinline
func parseIPv4(s string) netip.Addr {
	var b [4]byte
	n := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.' && n < 3:
			n++
		case c >= '0' && c <= '9':
			b[n] = 10*b[n] + c - '0'
		default:
			return netip.Addr{}
		}
	}
	if n != 3 {
		return netip.Addr{}
	}
	return netip.AddrFrom4(b)
}

// exchangers are the hosts of an MX answer in the order of their preference,
// without null MXs (RFC 7505).
func exchangers(a sdk.Answer) []string {
	type exchanger struct {
		preference int
		host       string
	}
	var list []exchanger
	for _, r := range a.Records {
		preference, host, _ := strings.Cut(r, " ")
		n, _ := strconv.Atoi(preference)
		if host = strings.TrimSuffix(host, "."); host != "" {
			list = append(list, exchanger{n, host})
		}
	}
	slices.SortStableFunc(list, func(a, b exchanger) int { return a.preference - b.preference })
	hosts := make([]string, len(list))
	for i, e := range list {
		hosts[i] = e.host
	}
	return hosts
}

// maxHosts is how many names of an MX or PTR answer are looked up (§4.6.4).
const maxHosts = 10

// validated are those names of ip, out of the first ten that its PTR records
// give and among those that want likes, which have ip for an address (§5.5).
// Names without an answer are passed over.
func (l *lookups) validated(ip netip.Addr, want func(string) bool) []string {
	names := l.one("PTR", ip.String()).Records
	names = names[:min(len(names), maxHosts)]
	var ask, good []string
	for _, n := range names {
		if n = strings.TrimSuffix(n, "."); want(n) {
			ask = append(ask, n)
		}
	}
	for i, a := range l.all(addressType(ip), ask...) {
		if holds(a, ip, ip.BitLen()) {
			good = append(good, ask[i])
		}
	}
	return good
}

// within reports whether name is domain or a subdomain of it.
func within(name, domain string) bool {
	domain = strings.TrimSuffix(domain, ".")
	return domain != "" && (strings.EqualFold(name, domain) ||
		len(name) > len(domain) && name[len(name)-len(domain)-1] == '.' && strings.EqualFold(name[len(name)-len(domain):], domain))
}
