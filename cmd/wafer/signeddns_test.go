package main

import (
	"crypto"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// authority is the name server of some zones.
type authority struct {
	t     *testing.T
	zones map[string]*signer // by name without the last dot
	data  map[string][]string
}

// signer signs a zone's answers; without a key they are not signed.
type signer struct {
	public *dns.DNSKEY
	key    crypto.Signer
}

func newSigner(t *testing.T, zone string) *signer {
	t.Helper()
	s := &signer{public: &dns.DNSKEY{Hdr: dns.RR_Header{Name: zone + ".", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 60}, Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256}}
	private, err := s.public.Generate(256)
	must(t, err)
	s.key = private.(crypto.Signer)
	return s
}

// serve answers at an address until the test ends.
func (a *authority) serve(address string) {
	a.t.Helper()
	pc, err := net.ListenPacket("udp", address)
	must(a.t, err)
	started := make(chan struct{})
	s := &dns.Server{PacketConn: pc, Handler: a, NotifyStartedFunc: func() { close(started) }}
	done := make(chan error, 1)
	go func() { done <- s.ActivateAndServe() }()
	<-started
	a.t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(), <-done); err != nil {
			a.t.Error(err)
		}
	})
}

// ServeDNS answers one question. What does not exist in a signed zone is denied as
// RFC 9824 §3 has it: the name is said to have no records.
func (a *authority) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = true
	m.SetEdns0(1232, true)
	name := strings.ToLower(strings.TrimSuffix(q.Question[0].Name, "."))
	zone := name
	for zone != "" && a.zones[zone] == nil {
		_, zone, _ = strings.Cut(zone, ".")
	}
	s := a.zones[zone]
	if s == nil {
		m.Rcode = dns.RcodeRefused
		_ = w.WriteMsg(m) // who does not hear it asks again
		return
	}
	all := a.records(name, zone, s)
	types := []uint16{dns.TypeRRSIG, dns.TypeNSEC}
	var found []dns.RR
	for _, rr := range all {
		if rr.Header().Rrtype == q.Question[0].Qtype {
			found = append(found, rr)
		}
		types = append(types, rr.Header().Rrtype)
	}
	if len(found) > 0 {
		m.Answer = s.sign(zone, found)
	} else {
		if len(all) == 0 && s.key == nil && !a.holds(name) {
			m.Rcode = dns.RcodeNameError
		}
		soa, _ := dns.NewRR(zone + ". 60 IN SOA ns." + zone + ". host." + zone + ". 1 60 60 60 60")
		m.Ns = s.sign(zone, []dns.RR{soa})
		if s.key != nil {
			slices.Sort(types)
			m.Ns = append(m.Ns, s.sign(zone, []dns.RR{&dns.NSEC{Hdr: dns.RR_Header{Name: name + ".", Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 60}, NextDomain: "\\000." + name + ".", TypeBitMap: slices.Compact(types)}})...)
		}
	}
	_ = w.WriteMsg(m)
}

// holds reports whether something lies under a name.
func (a *authority) holds(name string) bool {
	for n := range a.data {
		if strings.HasSuffix(n, "."+name) {
			return true
		}
	}
	return false
}

func (a *authority) records(name, zone string, s *signer) (all []dns.RR) {
	lines := slices.Clone(a.data[name])
	if name == zone {
		lines = append(lines, "SOA ns."+zone+". host."+zone+". 1 60 60 60 60", "NS ns."+zone+".")
		if s.public != nil {
			all = append(all, s.public)
		}
	}
	for _, l := range lines {
		rr, err := dns.NewRR(name + ". 60 IN " + l)
		if err != nil {
			a.t.Errorf("%s %s: %v", name, l, err)
			continue
		}
		all = append(all, rr)
	}
	return all
}

// sign adds the signature of a set of records.
func (s *signer) sign(zone string, set []dns.RR) []dns.RR {
	if s.key == nil {
		return set
	}
	now := time.Now()
	sig := &dns.RRSIG{Hdr: dns.RR_Header{Ttl: 60}, Algorithm: s.public.Algorithm, KeyTag: s.public.KeyTag(), SignerName: zone + ".", Inception: uint32(now.Add(-time.Hour).Unix()), Expiration: uint32(now.Add(time.Hour).Unix())}
	if err := sig.Sign(s.key, set); err != nil {
		return nil
	}
	return append(set, sig)
}
