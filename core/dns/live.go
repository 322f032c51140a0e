package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// LiveOptions is what a Live resolver is made of. The zero value is useful.
type LiveOptions struct {
	Servers  []netip.AddrPort // nil: those of ResolvConf
	Conf     string           // "" means /etc/resolv.conf
	TrustAD  bool             // the servers validate DNSSEC and the path to them is safe
	MixCase  bool             // spell names in random case and expect it back: harder to forge (draft-vixie-dnsext-dns0x20), but some servers do not play
	Timeout  time.Duration    // of one try; 0: 3 s
	Total    time.Duration    // of a lookup with all its tries; 0: 10 s
	Rounds   int              // through all servers; 0: 2
	Parallel int              // lookups at once, others wait; 0: 2048
}

// Live asks recursive servers: over UDP with EDNS0 (RFC 6891), over TCP when a
// reply was cut, each server in turn until one answers. Query ids and ports are
// random, and replies that do not fit their question are passed over.
type Live struct {
	servers []netip.AddrPort
	o       LiveOptions
	slots   chan struct{}
}

// NewLive returns a resolver. It fails if no server is given or found.
func NewLive(o LiveOptions) (*Live, error) {
	if o.Conf == "" {
		o.Conf = "/etc/resolv.conf"
	}
	servers := o.Servers
	if servers == nil {
		c, err := dns.ClientConfigFromFile(o.Conf)
		if err != nil {
			return nil, fmt.Errorf("read list of name servers: %w", err)
		}
		for _, s := range c.Servers {
			if a, err := netip.ParseAddr(s); err == nil && len(servers) < 3 {
				servers = append(servers, netip.AddrPortFrom(a, 53))
			}
		}
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("no name server is given or named in %s", o.Conf)
	}
	setDefault(&o.Timeout, 3*time.Second)
	setDefault(&o.Total, 10*time.Second)
	setDefault(&o.Rounds, 2)
	setDefault(&o.Parallel, 2048)
	return &Live{servers: servers, o: o, slots: make(chan struct{}, o.Parallel)}, nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Lookup implements Resolver.
func (l *Live) Lookup(ctx context.Context, q Question) Answer {
	name, ok := q.canonical()
	if !ok {
		return Answer{Status: NXDomain, Err: errors.New("not a domain name")}
	}
	code := typeCode(q.Type)
	if code == 0 {
		return Answer{Status: NoData, Name: name, Err: fmt.Errorf("unknown record type %q", q.Type)}
	}
	ctx, cancel := context.WithTimeout(ctx, l.o.Total)
	defer cancel()
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-ctx.Done():
		return Answer{Name: name, Err: ctx.Err()}
	}
	last := Answer{Name: name}
	for range l.o.Rounds {
		for _, server := range l.servers {
			if ctx.Err() != nil {
				return last
			}
			last = l.ask(ctx, server, name, code)
			if last.Status != Temporary {
				return last
			}
		}
	}
	return last
}

// ask tries one server once: over UDP, without EDNS0 if that was not
// understood (RFC 6891 §7), and over TCP if the reply was cut (RFC 7766 §5).
func (l *Live) ask(ctx context.Context, server netip.AddrPort, name string, code uint16) Answer {
	query := newQuery(name, code, true, l.o.TrustAD)
	if l.o.MixCase {
		query.Question[0].Name = mixCase(query.Question[0].Name)
	}
	reply, err := l.exchange(ctx, "udp", server, query)
	if err == nil && query.IsEdns0() != nil && (reply.Rcode == dns.RcodeFormatError || reply.Rcode == dns.RcodeNotImplemented) {
		query.Extra, query.Id = nil, dns.Id()
		reply, err = l.exchange(ctx, "udp", server, query)
	}
	if err == nil && reply.Truncated {
		query.Id = dns.Id()
		reply, err = l.exchange(ctx, "tcp", server, query)
	}
	if err != nil {
		return Answer{Name: name, Err: fmt.Errorf("ask name server %s: %w", server, err)}
	}
	a := readAnswer(reply, name, code, l.o.TrustAD)
	if a.Err != nil {
		a.Err = fmt.Errorf("ask name server %s: %w", server, a.Err)
	}
	return a
}

// exchange sends query from a fresh, random port and reads until its reply has come.
func (l *Live) exchange(ctx context.Context, network string, server netip.AddrPort, query *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	conn := &dns.Conn{Conn: raw, UDPSize: udpSize}
	defer conn.Close() // nothing is lost
	// The end of ctx, by deadline or by hand, ends the read below.
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.WriteMsg(query); err != nil {
		return nil, err
	}
	for {
		reply, err := conn.ReadMsg()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var netErr net.Error
		switch {
		case errors.As(err, &netErr) || errors.Is(err, net.ErrClosed):
			return nil, err
		case err != nil && network == "tcp":
			return nil, err
		case err != nil || !fits(reply, query):
			// On UDP anybody can send anything; wait for the real reply. A flood
			// of wrong ones ends with the timeout. A cut reply that does not
			// parse is worth a look over TCP.
			if err != nil && reply != nil && reply.Truncated && reply.Response && reply.Id == query.Id {
				return reply, nil
			}
			if network == "tcp" {
				return nil, errors.New("reply does not fit the question")
			}
			continue
		}
		return reply, nil
	}
}

// fits reports whether reply answers query: same id, same question letter by
// letter, so that MixCase counts.
func fits(reply, query *dns.Msg) bool {
	if !reply.Response || reply.Id != query.Id || reply.Opcode != dns.OpcodeQuery {
		return false
	}
	if len(reply.Question) == 0 { // some servers leave it out when they refuse
		return reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError
	}
	return len(reply.Question) == 1 && reply.Question[0] == query.Question[0]
}

func mixCase(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' && rand.Uint32()&1 == 0 {
			return r - 'a' + 'A'
		}
		return r
	}, name)
}
