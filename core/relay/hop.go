package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/dns"
	"github.com/wafermail/wafer/core/mail"
)

// hop is a next hop as a route names it.
type hop struct {
	name string // domain or host, in A-labels; "" for addr and unix
	addr netip.Addr
	port uint16
	mx   bool   // look the name's MX up
	unix string // path of a socket
}

// String names the hop in messages.
func (h hop) String() string {
	switch {
	case h.unix != "":
		return h.unix
	case h.name != "":
		return h.name
	}
	return "[" + h.addr.String() + "]"
}

// parseHop reads "domain", "domain:port" (with MX), "[host]:port", "[192.0.2.1]",
// "[IPv6:…]" and addresses (without), and "unix:/path".
func parseHop(s string, port uint16) (h hop, err error) {
	fault := func() (hop, error) {
		return hop{}, fmt.Errorf("next hop %.100q is none: write a domain, a [host] or [address] with or without a port, or unix:/path", s)
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !strings.HasPrefix(path, "/") || len(path) > 100 {
			return fault()
		}
		return hop{unix: path}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return hop{addr: a.Unmap(), port: port}, nil
	}
	name := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		n, err := strconv.ParseUint(s[i+1:], 10, 16)
		if err != nil || n == 0 {
			return fault()
		}
		name, port = s[:i], uint16(n)
	}
	if inner, ok := strings.CutPrefix(name, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if !ok {
			return fault()
		}
		if a, err := netip.ParseAddr(strings.TrimPrefix(inner, "IPv6:")); err == nil {
			return hop{addr: a.Unmap(), port: port}, nil
		}
		if !mail.ValidDomain(inner) {
			return fault()
		}
		return hop{name: mail.DomainKey(inner), port: port}, nil
	}
	if a, err := netip.ParseAddr(name); err == nil {
		return hop{addr: a.Unmap(), port: port}, nil
	}
	if !mail.ValidDomain(name) {
		return fault()
	}
	return hop{name: mail.DomainKey(name), port: port, mx: true}, nil
}

// target is an address that can be dialled.
type target struct {
	host    string // name of the host, "" if only the address is known
	remote  string // as outcomes name it: "mx.example.net[192.0.2.1]:25"
	network string
	address string
	addr    netip.Addr
	secure  bool // MX and address were authenticated (DNSSEC)
}

// maxHosts bounds the mail exchangers that are looked at.
const maxHosts = 16

// exchanger is a host with its preference.
type exchanger struct {
	host   string
	pref   uint16
	secure bool
}

// targets finds the addresses of the hop, best first (RFC 5321 §5.1), and the TLS
// policy after MTA-STS has been heard.
func (a *attempt) targets(ctx context.Context, policy TLSPolicy) ([]target, TLSPolicy, *failure) {
	h := a.hop
	if h.name == "" {
		return []target{a.target("", h.addr, false)}, policy, nil
	}
	hosts := []exchanger{{host: h.name, secure: false}}
	if h.mx {
		var f *failure
		if hosts, f = a.exchangers(ctx, h.name); f != nil {
			return nil, policy, f
		}
		if hosts, policy, f = a.strict(ctx, hosts, policy); f != nil {
			return nil, policy, f
		}
	}
	return a.addresses(ctx, hosts, policy)
}

// exchangers looks up the MX of a domain.
func (a *attempt) exchangers(ctx context.Context, domain string) ([]exchanger, *failure) {
	answer := a.c.Resolver.Lookup(ctx, dns.Question{Type: "MX", Name: domain})
	switch answer.Status {
	case dns.NXDomain:
		return nil, ours(550, "5.1.2", "domain %s does not exist", domain)
	case dns.NoData: // the domain is its own exchanger
		return []exchanger{{host: domain, secure: answer.Authentic}}, nil
	case dns.Found:
	default:
		return nil, ours(451, "4.4.3", "mail exchangers of %s cannot be looked up now: %v", domain, cause(answer))
	}
	var hosts []exchanger
	for _, r := range answer.Records {
		mx, err := dns.ParseMX(r)
		switch {
		case err != nil:
		case mx.Host == "." && len(answer.Records) == 1: // RFC 7505
			return nil, ours(556, "5.1.10", "domain %s does not accept mail (null MX)", domain)
		case mail.ValidDomain(mx.Host):
			hosts = append(hosts, exchanger{mx.Host, mx.Preference, answer.Authentic})
		}
	}
	if len(hosts) == 0 {
		return nil, ours(550, "5.4.4", "no mail exchanger of %s is a host", domain)
	}
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	slices.SortStableFunc(hosts, func(x, y exchanger) int { return int(x.pref) - int(y.pref) })
	return hosts[:min(len(hosts), maxHosts)], nil
}

func cause(a dns.Answer) error {
	if a.Err != nil {
		return a.Err
	}
	return errors.New("no answer")
}

// addresses resolves hosts. Where we are one of them ourselves, that host and all
// that are not better are left out, and if none is left the mail loops (RFC 5321 §5.1).
func (a *attempt) addresses(ctx context.Context, hosts []exchanger, policy TLSPolicy) ([]target, TLSPolicy, *failure) {
	qs := make([]dns.Question, 0, 2*len(hosts))
	for _, h := range hosts {
		qs = append(qs, dns.Question{Type: "AAAA", Name: h.host}, dns.Question{Type: "A", Name: h.host})
	}
	answers := dns.LookupAll(ctx, a.c.Resolver, qs)
	var all []target
	var prefs []uint16
	var temporary error
	self := -1 // preference of ours
	for i, h := range hosts {
		v6, v4 := answers[2*i], answers[2*i+1]
		for _, x := range []dns.Answer{v6, v4} {
			if x.Status == dns.Temporary {
				temporary = fmt.Errorf("address of %s cannot be looked up now: %w", h.host, cause(x))
			}
		}
		list := interleave(parseAddrs(v6.Records), parseAddrs(v4.Records))
		ourName := a.hop.mx && strings.EqualFold(h.host, a.c.Hostname)
		for _, addr := range list {
			if ourName || a.c.Self != nil && a.c.Self(netip.AddrPortFrom(addr, a.hop.port)) {
				if self < 0 || int(h.pref) < self {
					self = int(h.pref)
				}
			}
			all, prefs = append(all, a.target(h.host, addr, h.secure && (v4.Authentic || len(v4.Records) == 0) && (v6.Authentic || len(v6.Records) == 0))), append(prefs, h.pref)
		}
	}
	if self >= 0 && a.hop.mx {
		kept := all[:0]
		for i, t := range all {
			if int(prefs[i]) < self {
				kept = append(kept, t)
			}
		}
		if all = kept; len(all) == 0 {
			return nil, policy, ours(554, "5.4.6", "mail for %s loops back to myself", a.hop.name)
		}
	}
	switch {
	case len(all) > 0:
		return all, policy, nil
	case temporary != nil:
		return nil, policy, ours(451, "4.4.3", "%v", temporary)
	}
	return nil, policy, ours(550, "5.4.4", "no host for %s has an address", a.hop.name)
}

func (a *attempt) target(host string, addr netip.Addr, secure bool) target {
	at := netip.AddrPortFrom(addr, a.hop.port)
	return target{
		host: host, addr: addr, network: "tcp", address: at.String(), secure: secure,
		remote: host + "[" + addr.String() + "]:" + strconv.Itoa(int(a.hop.port)),
	}
}

func parseAddrs(records []string) (list []netip.Addr) {
	for _, r := range records {
		if a, err := netip.ParseAddr(r); err == nil && !a.IsUnspecified() && !a.IsMulticast() {
			list = append(list, a.Unmap())
		}
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// interleave takes turns between the families, so that a host whose IPv6 does not
// work costs one attempt.
func interleave(six, four []netip.Addr) (list []netip.Addr) {
	for i := range max(len(six), len(four)) {
		if i < len(six) {
			list = append(list, six[i])
		}
		if i < len(four) {
			list = append(list, four[i])
		}
	}
	return list
}
