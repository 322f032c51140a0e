package relay

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/dns"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/relay/relaytest"
)

// net of a test: names lead to addresses, addresses to servers on loopback.
type lab struct {
	t     testing.TB
	zone  map[string]map[string][]string
	at    map[string]string // "192.0.2.1" to the address of a server
	dials []string
	c     Config
	r     *Client
}

func newLab(t testing.TB) *lab {
	l := &lab{t: t, zone: map[string]map[string][]string{}, at: map[string]string{}}
	l.c = Config{Hostname: "mail.example.org", Dial: func(ctx context.Context, network, address string, _ netip.Addr) (net.Conn, error) {
		l.dials = append(l.dials, address)
		var d net.Dialer
		if network == "unix" {
			return d.DialContext(ctx, network, address)
		}
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		to, ok := l.at[ap.Addr().String()]
		if !ok {
			return nil, &net.OpError{Op: "dial", Err: fmt.Errorf("connection refused")}
		}
		return d.DialContext(ctx, "tcp", to)
	}}
	return l
}

// host makes a name lead to a server, or with nil to nobody.
func (l *lab) host(name, addr string, s *relaytest.Server) {
	l.zone[name] = map[string][]string{"A": {addr}}
	if s != nil {
		l.at[addr] = s.Addr().String()
	}
}

func (l *lab) mx(domain string, records ...string) {
	l.zone[domain] = map[string][]string{"MX": records}
}

func (l *lab) open() {
	l.t.Helper()
	l.c.Resolver = dns.NewZone(l.zone)
	r, err := New(l.c)
	if err != nil {
		l.t.Fatal(err)
	}
	l.r = r
	l.t.Cleanup(func() { r.Close() })
}

func path(t testing.TB, s string) mail.Path {
	t.Helper()
	if s == "" {
		return mail.Path{}
	}
	p, err := mail.ParsePath(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const text = "Subject: hi\r\n\r\nhello\r\n.dot\r\n..two\r\n"

func (l *lab) delivery(body string, to ...string) *mail.Delivery {
	env := &mail.Envelope{ID: "TEST", From: path(l.t, "ann@example.org")}
	for _, s := range to {
		env.Rcpts = append(env.Rcpts, mail.Recipient{To: path(l.t, s)})
	}
	_, hop, _ := strings.Cut(to[0], "@")
	return &mail.Delivery{
		Envelope: env, Head: []byte("Received: here\r\n"), Body: strings.NewReader(body), Size: int64(len(body)),
		EightBit: !ascii(body), Route: mail.Route{Transport: SMTP, Hop: hop},
	}
}

func (l *lab) deliver(d *mail.Delivery) mail.Report {
	l.t.Helper()
	if l.r == nil {
		l.open()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return l.r.Deliver(ctx, d)
}

// said is what each recipient came to, in short.
func said(r mail.Report) string {
	var all []string
	for _, o := range r.Outcomes {
		all = append(all, fmt.Sprintf("%d %s", o.Status.Code, o.Status.Enhanced))
	}
	return strings.Join(all, ", ")
}

var everything = []string{"PIPELINING", "SIZE 1000000", "8BITMIME", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING", "SMTPUTF8", "BINARYMIME"}

// TestExtensions: the message arrives whole, whatever the host can do.
func TestExtensions(t *testing.T) {
	large := text + strings.Repeat("a line that is long enough to count\r\n.and a dot\r\n", 8000)
	sets := map[string][]string{"none": nil, "all": everything, "no CHUNKING": everything[:5], "no PIPELINING": {"SIZE", "CHUNKING"}}
	for name, ext := range sets {
		for _, body := range []string{text, large, "", "no line end"} {
			t.Run(fmt.Sprintf("%s, %d octets", name, len(body)), func(t *testing.T) {
				l := newLab(t)
				s := relaytest.Start(t, relaytest.Behaviour{Extensions: ext})
				l.host("mx.example.net", "192.0.2.1", s)
				l.mx("example.net", "10 mx.example.net")
				for range 2 { // the second on the same connection
					r := l.deliver(l.delivery(body, "bob@example.net", "eve@example.net"))
					if said(r) != "250 2.0.0, 250 2.0.0" || r.Unreachable || r.Outcomes[0].Remote != "mx.example.net[192.0.2.1]:25" {
						t.Fatalf("%+v", r)
					}
				}
				want := "Received: here\r\n" + body
				if body == "no line end" && (name == "none" || name == "no CHUNKING") {
					want += "\r\n"
				}
				ms := s.Messages()
				if len(ms) != 2 || s.Conns() != 1 || len(ms[0].Rcpts) != 2 {
					t.Fatalf("%d messages on %d connections", len(ms), s.Conns())
				}
				for _, m := range ms {
					if m.Data != want && !(m.Data == want+"\r\n" && body == "no line end") {
						t.Errorf("got %.200q, want %.200q", m.Data, want)
					}
				}
			})
		}
	}
}

// TestOutcomes: what hosts say, and what it means.
func TestOutcomes(t *testing.T) {
	on := func(begins, reply string) func(int, string) string {
		return func(_ int, line string) string {
			if strings.HasPrefix(line, begins) {
				return reply
			}
			return ""
		}
	}
	rows := []struct {
		name    string
		reply   func(int, string) string
		b       relaytest.Behaviour
		want    string // for bob and eve
		unreach bool
		stored  int
		text    string // in the first outcome
	}{
		{name: "5xx for one", reply: on("RCPT TO:<bob", "550 5.1.1 <bob>: who?"), want: "550 5.1.1, 250 2.0.0", stored: 1, text: "5.1.1 <bob>: who?"},
		{name: "4xx for one", reply: on("RCPT TO:<bob", "450 4.2.0 greylisted"), want: "450 4.2.0, 250 2.0.0", stored: 1},
		{name: "5xx for all", reply: on("RCPT", "550-5.1.1 first\n550 5.1.1 second"), want: "550 5.1.1, 550 5.1.1", text: "5.1.1 first\n5.1.1 second"},
		{name: "too many", reply: on("RCPT TO:<eve", "552 too many recipients"), want: "250 2.0.0, 452 4.5.3", stored: 1},
		{name: "MAIL refused", reply: on("MAIL", "550 5.7.1 not you"), want: "550 5.7.1, 550 5.7.1"},
		{name: "MAIL deferred", reply: on("MAIL", "451 4.7.1 later"), want: "451 4.7.1, 451 4.7.1"},
		{name: "no enhanced code", reply: on("MAIL", "550 not you"), want: "550 , 550 "},
		{name: "message refused", reply: on(".", "554 5.7.1 spam"), want: "554 5.7.1, 554 5.7.1"},
		{name: "message deferred", reply: on(".", "451 4.3.0 later"), want: "451 4.3.0, 451 4.3.0"},
		{name: "DATA refused", reply: on("DATA", "554 5.3.0 no"), want: "554 5.3.0, 554 5.3.0", b: relaytest.Behaviour{Extensions: []string{"PIPELINING"}}},
		{name: "drop after the message", reply: on(".", "drop"), want: "451 4.4.2, 451 4.4.2", stored: 1, text: "may be sent more than once"},
		{name: "drop in the message", b: relaytest.Behaviour{After: func(n int) bool { return n > 5 }}, want: "451 4.4.2, 451 4.4.2"},
		{name: "drop at DATA", reply: on("DATA", "drop"), want: "451 4.4.2, 451 4.4.2", b: relaytest.Behaviour{Extensions: []string{"PIPELINING"}}},
		{name: "drop at MAIL", reply: on("MAIL", "drop"), want: "451 4.4.2, 451 4.4.2", unreach: true, b: relaytest.Behaviour{Extensions: []string{"PIPELINING"}}},
		{name: "greeting 4xx", b: relaytest.Behaviour{Greeting: "421 4.3.2 busy"}, want: "450 4.7.0, 450 4.7.0", unreach: true, text: "421 4.3.2 busy"},
		{name: "greeting 5xx", b: relaytest.Behaviour{Greeting: "554 5.7.1 no"}, want: "450 4.7.0, 450 4.7.0", unreach: true},
		{name: "no SMTP", b: relaytest.Behaviour{Greeting: "SSH-2.0-x"}, want: "451 4.5.0, 451 4.5.0", unreach: true},
		{name: "a line without end", b: relaytest.Behaviour{Greeting: "220 " + strings.Repeat("x", 5000)}, want: "451 4.5.0, 451 4.5.0", unreach: true},
		{name: "lines without end", b: relaytest.Behaviour{Greeting: strings.Repeat("220-x\n", 500) + "220 x"}, want: "451 4.5.0, 451 4.5.0", unreach: true},
		{name: "greets as we", b: relaytest.Behaviour{Greeting: "220 mail.example.org ESMTP"}, want: "554 5.4.6, 554 5.4.6"},
		{name: "only HELO", b: relaytest.Behaviour{NoEHLO: true}, want: "250 2.0.0, 250 2.0.0", stored: 1},
		{name: "2xx of nonsense to RCPT", reply: on("RCPT TO:<bob", "354 what"), want: "451 4.5.0, 250 2.0.0", stored: 1},
		{name: "421 at RCPT", reply: on("RCPT TO:<eve", "421 4.7.0 enough"), want: "250 2.0.0, 421 4.7.0", stored: 1},
		{name: "too large", b: relaytest.Behaviour{Extensions: []string{"SIZE 20"}}, want: "552 5.3.4, 552 5.3.4", unreach: false},
	}
	for _, r := range rows {
		for _, ext := range [][]string{nil, {"PIPELINING"}, everything} {
			if r.b.Extensions != nil {
				ext = r.b.Extensions
			}
			t.Run(fmt.Sprintf("%s, %v", r.name, ext), func(t *testing.T) {
				l := newLab(t)
				b := r.b
				b.Reply, b.Extensions = r.reply, ext
				s := relaytest.Start(t, b)
				l.host("mx.example.net", "192.0.2.1", s)
				l.mx("example.net", "10 mx.example.net")
				got := l.deliver(l.delivery(text, "bob@example.net", "eve@example.net"))
				if said(got) != r.want || got.Unreachable != r.unreach {
					t.Errorf("%s (unreachable %v), want %s (%v): %+v", said(got), got.Unreachable, r.want, r.unreach, got)
				}
				if n := len(s.Messages()); n != r.stored {
					t.Errorf("%d messages stored, want %d", n, r.stored)
				}
				if !strings.Contains(got.Outcomes[0].Status.Text, r.text) {
					t.Errorf("text %q lacks %q", got.Outcomes[0].Status.Text, r.text)
				}
			})
		}
	}
}

// TestRouting: which hosts are tried.
func TestRouting(t *testing.T) {
	rows := []struct {
		name string
		zone func(l *lab, good, bad *relaytest.Server)
		hop  string
		want string
		at   string // host that took it
	}{
		{"preference", func(l *lab, good, bad *relaytest.Server) {
			l.host("one.test", "192.0.2.1", good)
			l.host("two.test", "192.0.2.2", bad)
			l.mx("example.net", "20 two.test", "10 one.test")
		}, "", "250 2.0.0", "one.test"},
		{"dead first", func(l *lab, good, _ *relaytest.Server) {
			l.host("one.test", "192.0.2.1", nil)
			l.host("two.test", "192.0.2.2", good)
			l.mx("example.net", "10 one.test", "20 two.test")
		}, "", "250 2.0.0", "two.test"},
		{"first has no address", func(l *lab, good, _ *relaytest.Server) {
			l.host("two.test", "192.0.2.2", good)
			l.mx("example.net", "10 one.test", "20 two.test")
		}, "", "250 2.0.0", "two.test"},
		{"first defers", func(l *lab, good, bad *relaytest.Server) {
			l.host("one.test", "192.0.2.1", bad)
			l.host("two.test", "192.0.2.2", good)
			l.mx("example.net", "10 one.test", "20 two.test")
		}, "", "250 2.0.0", "two.test"},
		{"second address", func(l *lab, good, _ *relaytest.Server) {
			l.zone["one.test"] = map[string][]string{"AAAA": {"2001:db8::1"}, "A": {"192.0.2.1"}}
			l.at["192.0.2.1"] = good.Addr().String()
			l.mx("example.net", "10 one.test")
		}, "", "250 2.0.0", "one.test"},
		{"no MX", func(l *lab, good, _ *relaytest.Server) { l.host("example.net", "192.0.2.1", good) }, "", "250 2.0.0", "example.net"},
		{"null MX", func(l *lab, good, _ *relaytest.Server) { l.mx("example.net", "0 .") }, "", "556 5.1.10", ""},
		{"no domain", func(l *lab, good, _ *relaytest.Server) {}, "", "550 5.1.2", ""},
		{"no address", func(l *lab, good, _ *relaytest.Server) { l.mx("example.net", "10 nowhere.test") }, "", "550 5.4.4", ""},
		{"DNS fails", func(l *lab, good, _ *relaytest.Server) {
			l.zone["example.net"] = map[string][]string{"RCODE": {"SERVFAIL"}}
		}, "", "451 4.4.3", ""},
		{"DNS of a host fails", func(l *lab, good, _ *relaytest.Server) {
			l.zone["one.test"] = map[string][]string{"RCODE": {"SERVFAIL"}}
			l.mx("example.net", "10 one.test")
		}, "", "451 4.4.3", ""},
		{"we are best", func(l *lab, good, _ *relaytest.Server) {
			l.host("mail.example.org", "192.0.2.9", good)
			l.host("two.test", "192.0.2.2", good)
			l.mx("example.net", "10 mail.example.org", "20 two.test")
		}, "", "554 5.4.6", ""},
		{"we are second", func(l *lab, good, bad *relaytest.Server) {
			l.host("one.test", "192.0.2.1", nil)
			l.host("mail.example.org", "192.0.2.9", good)
			l.host("three.test", "192.0.2.3", good)
			l.mx("example.net", "10 one.test", "20 mail.example.org", "30 three.test")
		}, "", "451 4.4.1", ""},
		{"our address", func(l *lab, good, _ *relaytest.Server) {
			l.host("other.test", "192.0.2.9", good)
			l.mx("example.net", "10 other.test")
			l.c.Self = func(a netip.AddrPort) bool { return a.Addr().String() == "192.0.2.9" && a.Port() == 25 }
		}, "", "554 5.4.6", ""},
		{"host in brackets", func(l *lab, good, bad *relaytest.Server) {
			l.host("one.test", "192.0.2.1", good)
			l.zone["one.test"]["MX"] = []string{"10 two.test"}
			l.host("two.test", "192.0.2.2", bad)
		}, "[one.test]:2525", "250 2.0.0", "one.test"},
		{"address in brackets", func(l *lab, good, _ *relaytest.Server) { l.at["192.0.2.1"] = good.Addr().String() }, "[192.0.2.1]", "250 2.0.0", ""},
		{"MX names an address", func(l *lab, good, _ *relaytest.Server) { l.mx("example.net", "10 192.0.2.1") }, "", "550 5.4.4", ""},
		{"hop of nonsense", func(*lab, *relaytest.Server, *relaytest.Server) {}, "[nonsense", "451 4.3.5", ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			good := relaytest.Start(t, relaytest.Behaviour{})
			bad := relaytest.Start(t, relaytest.Behaviour{Reply: func(_ int, line string) string {
				if strings.HasPrefix(line, "MAIL") {
					return "451 4.3.0 later"
				}
				return ""
			}})
			r.zone(l, good, bad)
			d := l.delivery(text, "bob@example.net")
			if r.hop != "" {
				d.Route.Hop = r.hop
			}
			got := l.deliver(d)
			if said(got) != r.want || !strings.HasPrefix(got.Outcomes[0].Remote, r.at) {
				t.Errorf("%+v, want %s at %s (dialled %v)", got, r.want, r.at, l.dials)
			}
		})
	}
}

// TestStale: a kept connection that has died costs nothing, and a message that may
// have arrived is not sent twice.
func TestStale(t *testing.T) {
	l := newLab(t)
	s := relaytest.Start(t, relaytest.Behaviour{Extensions: everything})
	l.host("example.net", "192.0.2.1", s)
	for i := range 3 {
		if r := l.deliver(l.delivery(text, "bob@example.net")); said(r) != "250 2.0.0" {
			t.Fatalf("message %d: %+v", i, r)
		}
		s.Hangup()
	}
	if n := len(s.Messages()); n != 3 || s.Conns() != 3 {
		t.Errorf("%d messages on %d connections", n, s.Conns())
	}
	tired := relaytest.Start(t, relaytest.Behaviour{Extensions: everything, Reply: func(conn int, line string) string {
		if conn == 1 && line == "." {
			return "250 2.0.0 the last one"
		}
		return ""
	}})
	l.at["192.0.2.1"] = tired.Addr().String()
	for range 2 {
		if r := l.deliver(l.delivery(text, "bob@example.net")); said(r) != "250 2.0.0" {
			t.Fatalf("%+v", r)
		}
	}
}

// Test421OnKept: a host that has had enough of a connection gets a new one.
func Test421OnKept(t *testing.T) {
	l := newLab(t)
	mails := 0
	s := relaytest.Start(t, relaytest.Behaviour{Reply: func(conn int, line string) string {
		if strings.HasPrefix(line, "MAIL") {
			if mails++; mails == 2 {
				return "421 4.7.0 too many messages"
			}
		}
		return ""
	}})
	l.host("example.net", "192.0.2.1", s)
	for range 2 {
		if r := l.deliver(l.delivery(text, "bob@example.net")); said(r) != "250 2.0.0" {
			t.Fatalf("%+v", r)
		}
	}
	if s.Conns() != 2 {
		t.Errorf("%d connections", s.Conns())
	}
}

// TestUTF8 and 8-bit: what a host must be able to do, and what else becomes of it.
func TestUTF8(t *testing.T) {
	rows := []struct {
		name, body, to string
		utf8           bool
		ext            []string
		want, params   string
	}{
		{"UTF-8 address, host can", text, "bób@example.net", true, everything, "250 2.0.0", "SMTPUTF8"},
		{"UTF-8 address, host cannot", text, "bób@example.net", true, []string{"8BITMIME"}, "553 5.6.7", ""},
		{"flag without need", text, "bob@example.net", true, nil, "250 2.0.0", ""},
		{"UTF-8 header, host cannot", "Subject: é\r\n\r\n", "bob@example.net", true, []string{"8BITMIME"}, "553 5.6.7", ""},
		{"8-bit body, host can", "Subject: x\r\n\r\né\r\n", "bob@example.net", false, everything, "250 2.0.0", "BODY=8BITMIME"},
		{"8-bit body, host cannot", "Subject: x\r\n\r\né\r\n", "bob@example.net", false, nil, "554 5.6.3", ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			s := relaytest.Start(t, relaytest.Behaviour{Extensions: r.ext})
			l.host("example.net", "192.0.2.1", s)
			d := l.delivery(r.body, r.to)
			d.Envelope.UTF8 = r.utf8
			got := l.deliver(d)
			if said(got) != r.want {
				t.Errorf("%+v, want %s", got, r.want)
			}
			for _, m := range s.Messages() {
				if !strings.Contains(m.From, r.params) {
					t.Errorf("MAIL %s lacks %s", m.From, r.params)
				}
			}
		})
	}
	t.Run("another host can", func(t *testing.T) {
		l := newLab(t)
		l.host("one.test", "192.0.2.1", relaytest.Start(t, relaytest.Behaviour{}))
		l.host("two.test", "192.0.2.2", relaytest.Start(t, relaytest.Behaviour{Extensions: everything}))
		l.mx("example.net", "10 one.test", "20 two.test")
		d := l.delivery(text, "bób@example.net")
		d.Envelope.UTF8 = true
		if got := l.deliver(d); said(got) != "250 2.0.0" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("converted", func(t *testing.T) {
		l := newLab(t)
		s := relaytest.Start(t, relaytest.Behaviour{})
		l.host("example.net", "192.0.2.1", s)
		l.c.Downgrade = func(d *mail.Delivery) ([]byte, io.ReaderAt, int64, func(), error) {
			return d.Head, strings.NewReader("converted\r\n"), 11, func() {}, nil
		}
		if got := l.deliver(l.delivery("é", "bob@example.net")); said(got) != "250 2.0.0" || !strings.Contains(s.Messages()[0].Data, "converted") {
			t.Errorf("%+v", got)
		}
	})
}

// TestDSN: parameters are passed on.
func TestDSN(t *testing.T) {
	l := newLab(t)
	s := relaytest.Start(t, relaytest.Behaviour{Extensions: everything})
	l.host("example.net", "192.0.2.1", s)
	d := l.delivery(text, "bob@example.net", "eve+x@example.net")
	d.Envelope.Return, d.Envelope.EnvID = "HDRS", "id=1"
	d.Envelope.Rcpts[0].Notify, d.Envelope.Rcpts[0].ORcpt = []string{"SUCCESS", "FAILURE"}, "rfc822;old+@example.org"
	r := l.deliver(d)
	m := s.Messages()[0]
	if !r.Outcomes[0].Notifies || !strings.Contains(m.From, " RET=HDRS ENVID=id+3D1") ||
		m.Rcpts[0] != "<bob@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;old+2B@example.org" || m.Rcpts[1] != "<eve+x@example.net> ORCPT=rfc822;eve+2Bx@example.net" {
		t.Errorf("%+v %+v", r, m)
	}
}

// TestLMTP: each recipient has its own reply, over TCP and Unix sockets.
func TestLMTP(t *testing.T) {
	for _, ext := range [][]string{nil, everything} {
		l := newLab(t)
		sock := filepath.Join(t.TempDir(), "lmtp")
		s := relaytest.Start(t, relaytest.Behaviour{LMTP: true, Extensions: ext, Reply: func(_ int, line string) string {
			switch {
			case strings.HasPrefix(line, "RCPT TO:<nobody"):
				return "550 5.1.1 no"
			case strings.HasPrefix(line, ". <full"):
				return "452 4.2.2 over quota"
			}
			return ""
		}}, sock)
		l.c.Transports = map[string]Transport{"box": {LMTP: true, Host: "unix:" + sock}}
		d := l.delivery(text, "bob@example.net", "nobody@example.net", "full@example.net", "eve@example.net")
		d.Route = mail.Route{Transport: "box"}
		if r := l.deliver(d); said(r) != "250 2.0.0, 550 5.1.1, 452 4.2.2, 250 2.0.0" {
			t.Errorf("%+v", r)
		}
		if ms := s.Messages(); len(ms) != 1 || len(ms[0].Rcpts) != 2 {
			t.Errorf("%+v", ms)
		}
	}
}

// TestSmarthost: logging in, and never in the clear.
func TestSmarthost(t *testing.T) {
	cert, pool := relaytest.Certificate(t, "hub.example")
	for _, r := range []struct {
		name  string
		ext   []string
		tls   bool
		reply string
		want  string
	}{
		{"PLAIN", []string{"AUTH LOGIN PLAIN"}, true, "", "250 2.0.0"},
		{"LOGIN", []string{"AUTH=LOGIN"}, true, "", "250 2.0.0"},
		{"refused", []string{"AUTH PLAIN"}, true, "535 5.7.8 wrong", "451 4.7.8"},
		{"no way", []string{"AUTH GSSAPI"}, true, "", "451 4.7.0"},
	} {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			step := 0
			b := relaytest.Behaviour{Extensions: r.ext, Reply: func(_ int, line string) string {
				switch {
				case r.reply != "" && strings.HasPrefix(line, "AUTH"):
					return r.reply
				case strings.HasPrefix(line, "AUTH LOGIN"):
					step = 1
					return "334 VXNlcm5hbWU6"
				case line == "d2FmZXI=" && step == 1:
					return "334 UGFzc3dvcmQ6"
				case line == "c2VjcmV0":
					return "235 2.7.0 ok"
				}
				return ""
			}}
			if r.tls {
				b.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			}
			s := relaytest.Start(t, b)
			l.host("hub.example", "192.0.2.1", s)
			l.c.Roots = pool
			l.c.Transports = map[string]Transport{"hub": {Host: "[hub.example]:587", Username: "wafer", Password: "secret", TLS: TLSPolicy{Level: Verify, Fixed: true}}}
			d := l.delivery(text, "bob@example.net")
			d.Route = mail.Route{Transport: "hub"}
			if got := l.deliver(d); said(got) != r.want {
				t.Errorf("%+v, want %s", got, r.want)
			}
		})
	}
}

// TestSilence: waits end.
func TestSilence(t *testing.T) {
	l := newLab(t)
	l.c.Timeouts = Timeouts{Greeting: 50 * time.Millisecond, Command: 50 * time.Millisecond, Final: 50 * time.Millisecond}
	for _, at := range []string{"", "EHLO", "MAIL", "RCPT", "DATA", "."} {
		s := relaytest.Start(t, relaytest.Behaviour{Reply: func(_ int, line string) string {
			if at == "" && line == "" || at != "" && strings.HasPrefix(line, at) {
				return "stall"
			}
			return ""
		}})
		l.host("example.net", "192.0.2.1", s)
		got := l.deliver(l.delivery(text, "bob@example.net"))
		if said(got) != "451 4.4.2" || !strings.Contains(got.Outcomes[0].Status.Text, "timeout") {
			t.Errorf("stall at %q: %+v", at, got)
		}
	}
}

// TestCancel: a context ends everything at once.
func TestCancel(t *testing.T) {
	l := newLab(t)
	arrived := make(chan struct{})
	s := relaytest.Start(t, relaytest.Behaviour{Reply: func(_ int, line string) string {
		if strings.HasPrefix(line, "MAIL") {
			close(arrived)
			return "stall"
		}
		return ""
	}})
	l.host("example.net", "192.0.2.1", s)
	l.open()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-arrived; cancel() }()
	if r := l.r.Deliver(ctx, l.delivery(text, "bob@example.net")); !r.Outcomes[0].Status.Temporary() {
		t.Errorf("%+v", r)
	}
}

// TestStuffer: dots are doubled and line ends mended, however the pieces are cut.
func TestStuffer(t *testing.T) {
	rows := []struct{ in, want string }{
		{"", ".\r\n"}, {"a\r\n", "a\r\n.\r\n"}, {"a", "a\r\n.\r\n"}, {".\r\n", "..\r\n.\r\n"}, {"..a\r\n.", "...a\r\n..\r\n.\r\n"},
		{"a\n.\nb", "a\r\n..\r\nb\r\n.\r\n"}, {"a\r.\rb", "a\r\n..\r\nb\r\n.\r\n"}, {"\r\r\n", "\r\n\r\n.\r\n"}, {"a\r", "a\r\n.\r\n"}, {"a\n\r\n.\r\n", "a\r\n\r\n..\r\n.\r\n"},
		{"\n.\r\n", "\r\n..\r\n.\r\n"}, {"x.y\r\n", "x.y\r\n.\r\n"},
	}
	for _, r := range rows {
		for cut := 0; cut <= len(r.in); cut++ {
			st := stuffer{start: true}
			out := st.append(nil, []byte(r.in[:cut]))
			out = st.end(st.append(out, []byte(r.in[cut:])))
			if string(out) != r.want {
				t.Errorf("%q cut at %d: %q, want %q", r.in, cut, out, r.want)
			}
		}
	}
}
