package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// serve runs a name server on a loopback port, over UDP and TCP, until the test ends.
func serve(t *testing.T, handler dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(udp.LocalAddr().String())
	tcp, err := net.Listen("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handler}, {Listener: tcp, Handler: handler}} {
		ready, ended := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		go func() { defer close(ended); _ = s.ActivateAndServe() }()
		<-ready
		t.Cleanup(func() { _ = s.Shutdown(); <-ended })
	}
	return addr
}

// fromZone serves a Zone on the wire, CNAME chains and all.
func fromZone(z *Zone) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		kind, owner := dns.TypeToString[q.Question[0].Qtype], q.Question[0].Name
		for range maxChain + 2 {
			types, exists := z.find(plainName(owner))
			rcode := append(append([]string(nil), types["RCODE:"+kind]...), types["RCODE"]...)
			if len(rcode) > 0 {
				if rcode[0] == "DROP" {
					return
				}
				m.Rcode = dns.StringToRcode[rcode[0]]
				break
			}
			m.AuthenticatedData = types["AD"] != nil
			for _, rec := range types[kind] {
				if kind == "TXT" {
					rec = `"` + rec + `"`
				} else if kind == "MX" || kind == "CNAME" || kind == "PTR" {
					rec = strings.TrimSuffix(rec, ".") + "."
				}
				rr, err := dns.NewRR(owner + " 300 IN " + kind + " " + rec)
				if err != nil {
					panic(err)
				}
				m.Answer = append(m.Answer, rr)
			}
			if cname := types["CNAME"]; len(cname) > 0 && kind != "CNAME" {
				rr, _ := dns.NewRR(owner + " 200 IN CNAME " + cname[0] + ".")
				m.Answer = append(m.Answer, rr)
				owner = cname[0] + "."
				continue
			}
			if !exists {
				m.Rcode = dns.RcodeNameError
			}
			break
		}
		soa, _ := dns.NewRR(". 120 IN SOA a. b. 1 2 3 4 60")
		m.Ns = append(m.Ns, soa)
		_ = w.WriteMsg(m)
	}
}

func newTestLive(t *testing.T, o LiveOptions) *Live {
	t.Helper()
	setDefault(&o.Timeout, 300*time.Millisecond)
	l, err := NewLive(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLive(t *testing.T) {
	l := newTestLive(t, LiveOptions{Servers: []netip.AddrPort{serve(t, fromZone(testZone()))}, MixCase: true, Rounds: 1})
	checkLookups(t, l, lookupRows())
	a := l.Lookup(t.Context(), Question{"A", "alias.example.com"})
	if a.TTL != 200*time.Second || a.Authentic {
		t.Errorf("TTL %v, authentic %v", a.TTL, a.Authentic)
	}
	if a := l.Lookup(t.Context(), Question{"A", "nothere.test"}); a.TTL != time.Minute {
		t.Errorf("negative TTL %v, want 1m", a.TTL)
	}
	if a := l.Lookup(t.Context(), Question{"ANY", "example.com"}); a.Status != NoData || a.Err == nil {
		t.Errorf("unknown type: %+v", a)
	}
}

func TestLiveTrustAD(t *testing.T) {
	server := serve(t, fromZone(testZone()))
	for _, trust := range []bool{true, false} {
		l := newTestLive(t, LiveOptions{Servers: []netip.AddrPort{server}, TrustAD: trust})
		if a := l.Lookup(t.Context(), Question{"A", "example.com"}); a.Authentic != trust {
			t.Errorf("trust %v: %+v", trust, a)
		}
	}
}

func TestLiveServers(t *testing.T) {
	reply := func(w dns.ResponseWriter, q *dns.Msg, change func(m *dns.Msg)) {
		m := new(dns.Msg)
		m.SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 300 IN A 192.0.2.1")
		m.Answer = []dns.RR{rr}
		change(m)
		_ = w.WriteMsg(m)
	}
	good := func(w dns.ResponseWriter, q *dns.Msg) { reply(w, q, func(*dns.Msg) {}) }
	var tries atomic.Int32
	for _, row := range []struct {
		name     string
		handlers []dns.HandlerFunc
		want     Status
	}{
		{"second answers", []dns.HandlerFunc{func(w dns.ResponseWriter, q *dns.Msg) { _ = w.Close() }, good}, Found},
		{"first fails", []dns.HandlerFunc{func(w dns.ResponseWriter, q *dns.Msg) {
			reply(w, q, func(m *dns.Msg) { m.Rcode, m.Answer = dns.RcodeServerFailure, nil })
		}, good}, Found},
		{"cut, then TCP", []dns.HandlerFunc{func(w dns.ResponseWriter, q *dns.Msg) {
			reply(w, q, func(m *dns.Msg) {
				if w.LocalAddr().Network() == "udp" {
					m.Truncated, m.Answer = true, nil
				}
			})
		}}, Found},
		{"no EDNS", []dns.HandlerFunc{func(w dns.ResponseWriter, q *dns.Msg) {
			reply(w, q, func(m *dns.Msg) {
				if q.IsEdns0() != nil {
					m.Rcode, m.Answer = dns.RcodeFormatError, nil
				}
			})
		}}, Found},
		{"forged first", []dns.HandlerFunc{func(w dns.ResponseWriter, q *dns.Msg) {
			_, _ = w.Write([]byte("garbage"))
			reply(w, q, func(m *dns.Msg) { m.Id++ })
			reply(w, q, func(m *dns.Msg) { m.Question[0].Name = "other.test." })
			reply(w, q, func(m *dns.Msg) { m.Response = false })
			good(w, q)
		}}, Found},
		{"foreign records", []dns.HandlerFunc{func(w dns.ResponseWriter, q *dns.Msg) {
			reply(w, q, func(m *dns.Msg) { m.Answer[0].Header().Name = "other.test." })
		}}, NoData},
		{"second try", []dns.HandlerFunc{func(w dns.ResponseWriter, q *dns.Msg) {
			if tries.Add(1) > 1 {
				good(w, q)
			}
		}}, Found},
	} {
		t.Run(row.name, func(t *testing.T) {
			var servers []netip.AddrPort
			for _, h := range row.handlers {
				servers = append(servers, serve(t, h))
			}
			a := newTestLive(t, LiveOptions{Servers: servers}).Lookup(t.Context(), Question{"A", "a.test"})
			if a.Status != row.want {
				t.Errorf("%v %v: %v, want %v", a.Status, a.Records, a.Err, row.want)
			}
		})
	}
}

func TestLiveManyRecordsAreBounded(t *testing.T) {
	l := newTestLive(t, LiveOptions{Servers: []netip.AddrPort{serve(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		if m.Truncated = w.LocalAddr().Network() == "udp"; !m.Truncated {
			for range 1000 {
				rr, _ := dns.NewRR(q.Question[0].Name + " 300 IN A 192.0.2.1")
				m.Answer = append(m.Answer, rr)
			}
		}
		_ = w.WriteMsg(m)
	})}})
	if a := l.Lookup(t.Context(), Question{"A", "a.test"}); len(a.Records) != maxRecords {
		t.Errorf("%d records, %v", len(a.Records), a.Err)
	}
}

func TestLiveCancel(t *testing.T) {
	asked := make(chan struct{}, 1)
	server := serve(t, func(dns.ResponseWriter, *dns.Msg) {
		select {
		case asked <- struct{}{}:
		default:
		}
	})
	l := newTestLive(t, LiveOptions{Servers: []netip.AddrPort{server}, Timeout: time.Hour, Total: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	a := l.Lookup(ctx, Question{"A", "a.test"})
	if a.Status != Temporary || !errors.Is(a.Err, context.Canceled) {
		t.Errorf("Lookup = %+v", a)
	}
}

func TestNewLive(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("search x\nnameserver 192.0.2.1\nnameserver fe80::1%lo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := NewLive(LiveOptions{Conf: conf})
	if err != nil || len(l.servers) != 2 || l.servers[0].String() != "192.0.2.1:53" {
		t.Errorf("servers %v, %v", l, err)
	}
	if _, err := NewLive(LiveOptions{Conf: conf + "x"}); err == nil {
		t.Error("no error without a list of servers")
	}
}

func TestCacheAndFlights(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	var asked atomic.Int32
	release := make(chan struct{})
	next := resolverFunc(func(ctx context.Context, q Question) Answer {
		asked.Add(1)
		select {
		case <-release:
		case <-ctx.Done():
			return Answer{Err: ctx.Err()}
		}
		return testZone().Lookup(ctx, q)
	})
	c := NewCache(next, CacheOptions{Now: func() time.Time { return now }})
	q := Question{"A", "Example.COM."}
	answers := make(chan Answer, 5)
	early, leave := context.WithCancel(t.Context())
	go func() { answers <- c.Lookup(early, q) }()
	for asked.Load() == 0 {
		runtime.Gosched()
	}
	leave()
	if a := <-answers; !errors.Is(a.Err, context.Canceled) {
		t.Errorf("who left got %+v", a)
	}
	for range 5 {
		go func() { answers <- c.Lookup(t.Context(), q) }()
	}
	close(release)
	for range 5 {
		if a := <-answers; a.Status != Found {
			t.Errorf("got %+v", a)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
	now = now.Add(zoneTTL - time.Second)
	if a := c.Lookup(t.Context(), q); a.TTL != time.Second || asked.Load() != 1 {
		t.Errorf("later: %+v, asked %d", a, asked.Load())
	}
	now = now.Add(time.Second)
	if c.Lookup(t.Context(), q); asked.Load() != 2 {
		t.Errorf("after the TTL: asked %d", asked.Load())
	}
	for _, row := range []struct {
		name string
		life time.Duration
	}{{"nothere.example.com", zoneTTL}, {"bad.example.com", 5 * time.Second}} {
		c.Lookup(t.Context(), Question{"A", row.name})
		n := asked.Load()
		now = now.Add(row.life - 1)
		if c.Lookup(t.Context(), Question{"A", row.name}); asked.Load() != n {
			t.Errorf("%s was not remembered", row.name)
		}
		now = now.Add(1)
		if c.Lookup(t.Context(), Question{"A", row.name}); asked.Load() != n+1 {
			t.Errorf("%s was remembered too long", row.name)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if a := c.Lookup(t.Context(), Question{"A", "mx.example.com"}); a.Status != Temporary {
		t.Errorf("after Close: %+v", a)
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := NewCache(resolverFunc(func(ctx context.Context, q Question) Answer {
		if strings.HasPrefix(q.Name, "panic") {
			panic("on purpose")
		}
		return Answer{Status: Found, Name: q.Name, Records: []string{strings.Repeat("x", 1000)}, TTL: time.Hour}
	}), CacheOptions{Octets: 20000})
	defer c.Close()
	for i := range 200 {
		c.Lookup(t.Context(), Question{"TXT", strings.Repeat("a", i%60+1) + ".test"})
	}
	if c.octets > 20000 || len(c.entries) != c.order.Len() || len(c.entries) < 5 {
		t.Errorf("%d octets, %d entries, %d in order", c.octets, len(c.entries), c.order.Len())
	}
	if a := c.Lookup(t.Context(), Question{"TXT", "panic.test"}); a.Status != Temporary || !strings.Contains(a.Err.Error(), "on purpose") {
		t.Errorf("after a panic: %+v", a)
	}
}

type resolverFunc func(ctx context.Context, q Question) Answer

func (f resolverFunc) Lookup(ctx context.Context, q Question) Answer { return f(ctx, q) }

func TestLookupAllKeepsOrder(t *testing.T) {
	var qs []Question
	for i := range 50 {
		qs = append(qs, Question{"A", strings.Repeat("a", i+1)})
	}
	for i, a := range LookupAll(t.Context(), resolverFunc(func(_ context.Context, q Question) Answer { return Answer{Name: q.Name} }), qs) {
		if a.Name != qs[i].Name {
			t.Fatalf("answer %d is for %q", i, a.Name)
		}
	}
}

// Whatever a server sends, the answer is bounded and its names are clean.
func FuzzReadAnswer(f *testing.F) {
	for _, text := range []string{"a.test. 5 IN A 192.0.2.1", "a.test. 5 IN CNAME a.test.", `a.test. 5 IN TXT "x\200\"" "y"`, "a.test. 5 IN MX 10 ."} {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		m := newQuery("a.test", rr.Header().Rrtype, true, true)
		m.Response, m.Answer = true, []dns.RR{rr}
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, rr.Header().Rrtype)
	}
	f.Fuzz(func(t *testing.T, packet []byte, code uint16) {
		m := new(dns.Msg)
		if m.Unpack(packet) != nil {
			return
		}
		a := readAnswer(m, "a.test", code, true)
		if (a.Status == Found) != (len(a.Records) > 0) || len(a.Records) > maxRecords {
			t.Fatalf("%v with %d records", a.Status, len(a.Records))
		}
		if a.Status == Temporary && a.Err == nil || a.TTL < 0 {
			t.Fatalf("%+v", a)
		}
	})
}
