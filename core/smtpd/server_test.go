package smtpd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/proxy"
)

func TestNewRefuses(t *testing.T) {
	begin := func(netip.Addr) Rules { return Rules{} }
	for name, c := range map[string]Config{
		"profile":   {Profile: "imap", Hostname: "mx.example", Begin: begin},
		"host name": {Profile: MX, Hostname: "mx example", Begin: begin},
		"begin":     {Profile: MX, Hostname: "mx.example"},
		"tls":       {Profile: Submissions, Hostname: "mx.example", Begin: begin},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestRegistry(t *testing.T) {
	now := time.Unix(1000, 0)
	r := NewRegistry(RegistryOptions{PerClient: 2, Rate: 3, Window: time.Minute, Total: 2, Clients: 4, Now: func() time.Time { return now }})
	a := netip.MustParseAddr
	first, mapped, third := r.enter(a("192.0.2.1")), r.enter(a("::ffff:192.0.2.1")), r.enter(a("192.0.2.1"))
	if !first || !mapped || third {
		t.Error("two at once, and a mapped address is the same client")
	}
	r.leave(a("192.0.2.1"))
	if !r.enter(a("192.0.2.1")) {
		t.Error("third of the window")
	}
	r.leave(a("192.0.2.1"))
	if r.enter(a("192.0.2.1")) {
		t.Error("fourth of the window")
	}
	now = now.Add(time.Minute)
	if !r.enter(a("192.0.2.1")) {
		t.Error("after the window")
	}
	if !r.enter(a("2001:db8::1")) || !r.enter(a("2001:db8::2")) || r.enter(a("2001:db8::3")) || !r.enter(a("2001:db8:0:1::1")) {
		t.Error("IPv6 goes by /64")
	}
	for i := range 100 {
		addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
		if !r.enter(addr) {
			t.Fatal(addr)
		}
		r.leave(addr)
	}
	if len(r.clients) > 4 || r.order.Len() != len(r.clients) {
		t.Errorf("%d clients in the table", len(r.clients))
	}
	if r.enter(a("2001:db8::4")) {
		t.Error("a connected client was forgotten")
	}
	if !r.enter(netip.Addr{}) {
		t.Error("a socket without an address was limited")
	}
	one, two, three := r.reserve(), r.reserve(), r.reserve()
	if !one || !two || three {
		t.Error("total")
	}
	r.unreserve()
	if !r.reserve() {
		t.Error("total after one left")
	}
}

func TestConnectionCaps(t *testing.T) {
	h := open(t, MX, func(c *Config, _ *house) { c.Registry = NewRegistry(RegistryOptions{PerClient: 2, Total: 3}) })
	first, second := h.hello(), h.hello()
	c := h.dial()
	c.want("421 4.7.0")
	c.closed()
	until(t, "the third to go", func() bool { return h.srv.Stats().Open == 2 })
	first.do("QUIT", "221")
	until(t, "the first to go", func() bool { return h.srv.Stats().Open == 1 })
	h.hello().do("NOOP", "250")
	second.do("NOOP", "250")
	if n := h.srv.Stats().TurnedAway; n != 1 {
		t.Errorf("%d turned away", n)
	}

	// Trusted clients are limited by the total only.
	h = open(t, MX, func(c *Config, _ *house) {
		c.Trusted = loopback
		c.Registry = NewRegistry(RegistryOptions{PerClient: 1, Total: 3})
	})
	for range 3 {
		h.hello()
	}
	c = h.dial()
	c.want("421 4.3.2")
	c.closed()
}

// TestShutdown: an idle session is told 421 at once, one inside DATA finishes.
func TestShutdown(t *testing.T) {
	h := open(t, MX, withTLS)
	idle, busy, open, secure := h.hello(), h.hello(), h.hello(), h.hello()
	secure.startTLS()
	secure.do("NOOP", "250")
	open.do("MAIL FROM:<>", "250")
	busy.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354")
	busy.send("first half\r\n")
	done := make(chan error, 1)
	go func() { done <- h.srv.Shutdown(context.Background()) }()
	idle.want("421 4.3.2")
	idle.closed()
	open.want("421 4.3.2")
	secure.want("421 4.3.2")
	busy.send("second half\r\n.\r\n")
	busy.want("250 2.0.0")
	busy.want("421 4.3.2")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if m := h.courier.taken(); len(m) != 1 || m[0].text != "first half\r\nsecond half\r\n" {
		t.Errorf("%+v", m)
	}
	if nc, err := net.Dial("tcp", h.addr); err == nil {
		_ = nc.Close()
		t.Error("the listener is open")
	}
}

// hiccup is a peer whose connection has a deadline in the past for one read,
// as when Shutdown takes a session for idle that has just begun DATA.
type hiccup struct {
	*scriptConn
	reads, at int
}

func (c *hiccup) Read(p []byte) (int, error) {
	if c.reads++; c.reads == c.at {
		return 0, os.ErrDeadlineExceeded
	}
	return c.scriptConn.Read(p)
}

func TestShutdownAtDATA(t *testing.T) {
	srv, c := theatre(t, MX, nil)
	nc := &hiccup{newScript([]byte("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nDATA\r\n"), []byte("x\r\n.\r\n")), 0, 2}
	srv.play(nc)
	if got := c.taken(); len(got) != 1 || got[0].text != "x\r\n" {
		t.Errorf("%+v: %s", got, nc.all())
	}
}

// TestShutdownLosesPatience: what does not end is cut, and nothing of it is
// delivered.
func TestShutdownLosesPatience(t *testing.T) {
	h := open(t, MX, nil)
	c := h.hello()
	c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if err := h.srv.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	c.closed()
	if n := len(h.courier.taken()); n != 0 || h.courier.aborted != 1 {
		t.Errorf("%d messages, %d aborted", n, h.courier.aborted)
	}
}

// flaky is a listener whose first accepts fail.
type flaky struct {
	net.Listener
	left int
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.left > 0 {
		f.left--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

func TestAcceptErrors(t *testing.T) {
	srv, err := New(Config{Profile: MX, Hostname: "mx.example", Limits: Limits{AcceptWait: time.Millisecond},
		Begin: func(netip.Addr) Rules { return Rules{Courier: &courier{}} }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	srv.newJudge = func(Rules) judge { return &script{} }
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(&flaky{ln, 5}) }()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	newClient(t, nc).want("220 mx.example ESMTP")
	if err := srv.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestProxy(t *testing.T) {
	const v2 = proxy.Signature + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x04\xd2\x00\x19"
	rows := []struct{ name, header, client string }{
		{"v1", "PROXY TCP4 192.0.2.1 192.0.2.2 1234 25\r\n", "192.0.2.1:1234"},
		{"v1 unknown", "PROXY UNKNOWN\r\n", "127.0.0.1:"},
		{"v2", v2, "192.0.2.1:1234"},
		{"v2 local", proxy.Signature + "\x20\x00\x00\x00", "127.0.0.1:"},
		{"none", "EHLO client.example\r\n", ""},
		{"nothing", "", ""},
		{"half", "PROXY TCP4 192.", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			h := open(t, MX, func(c *Config, _ *house) {
				c.ProxyFrom = loopback
				c.Limits.Proxy = 50 * time.Millisecond
			})
			c := h.dial()
			c.send(row.header)
			if row.client == "" {
				if got := c.rest(); got != "" {
					t.Errorf("reply %q", got)
				}
				return
			}
			c.want("220")
			if got := h.policy.heard()[0].Client.String(); !strings.HasPrefix(got, row.client) {
				t.Errorf("client %s, want %s", got, row.client)
			}
			c.do("EHLO x", "250")
		})
	}
	t.Run("before TLS", func(t *testing.T) {
		h := open(t, Submissions, func(c *Config, _ *house) { c.ProxyFrom = loopback })
		c := h.dial()
		c.send(v2)
		tc := tlsClient(t, c.nc)
		tc.want("220")
		if got := h.policy.heard()[0].Client.Addr().String(); got != "192.0.2.1" {
			t.Errorf("client %s", got)
		}
	})
	t.Run("from nobody", func(t *testing.T) {
		h := open(t, MX, nil)
		c := h.dial()
		c.want("220")
		c.do("PROXY TCP4 192.0.2.1 192.0.2.2 1234 25", "500")
	})
	t.Run("caps count the client", func(t *testing.T) {
		h := open(t, MX, func(c *Config, _ *house) {
			c.ProxyFrom = loopback
			c.Registry = NewRegistry(RegistryOptions{PerClient: 1})
		})
		for _, row := range []struct{ addr, want string }{{"192.0.2.1", "220"}, {"192.0.2.9", "220"}, {"192.0.2.1", "421 4.7.0"}} {
			c := h.dial()
			c.send("PROXY TCP4 " + row.addr + " 192.0.2.2 1234 25\r\n")
			c.want(row.want)
		}
	})
}

func TestXClient(t *testing.T) {
	h := open(t, MX, func(c *Config, _ *house) {
		c.XClientFrom = loopback
		c.Trusted = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	})
	c := h.dial()
	c.want("220")
	c.send("EHLO proxy.example\r\n")
	if got := c.want("250"); !strings.Contains(got, "XCLIENT NAME ") {
		t.Errorf("not offered: %q", got)
	}
	c.do("XCLIENT", "501", "XCLIENT FOO=1", "501", "XCLIENT ADDR=1.2.3", "501", "XCLIENT PORT=70000", "501",
		"XCLIENT ADDR=1.2.3.4 ADDR=1.2.3.4", "501", "XCLIENT NAME=a+0Ab", "501", "XCLIENT NAME", "501",
		"MAIL FROM:<>", "250", "XCLIENT ADDR=1.2.3.4", "503", "RSET", "250",
		"XCLIENT ADDR=192.0.2.7 PORT=4321 NAME=client.example REVERSE_NAME=[UNAVAILABLE] PROTO=ESMTP HELO=h+2Dx LOGIN=alice+40local.example DESTADDR=IPV6:2001:db8::25 DESTPORT=25", "220 mx.local.example ESMTP",
		"MAIL FROM:<>", "503", "EHLO client.example", "250",
		"MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354", "x\r\n.", "250")
	m := h.courier.taken()[0]
	if m.env.Client.Addr.String() != "192.0.2.7:4321" || m.env.Client.Name != "client.example" || m.env.User != "alice@local.example" ||
		!strings.Contains(m.trace, "from client.example (client.example [192.0.2.7])") {
		t.Errorf("%+v", m)
	}
	last := h.policy.heard()[len(h.policy.heard())-1]
	if last.Server.String() != "[2001:db8::25]:25" || !last.Trusted || last.User != "alice@local.example" {
		t.Errorf("%+v", last)
	}
	c.do("XCLIENT ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL] LOGIN=[UNAVAILABLE]", "220", "EHLO x", "250", "MAIL FROM:<>", "250")
	if ev := h.policy.heard()[len(h.policy.heard())-1]; ev.Client.Addr().IsValid() || ev.ClientName != "" || ev.User != "" || ev.Trusted {
		t.Errorf("%+v", ev)
	}
}

func TestReceivedField(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	base := mail.Envelope{ID: mail.NewID(at), Protocol: "ESMTP", Client: mail.Client{Helo: "a.example"}}
	path := func(s string) mail.Recipient {
		p, err := mail.ParsePath(s, true)
		if err != nil {
			t.Fatal(err)
		}
		return mail.Recipient{To: p}
	}
	rows := []struct {
		name   string
		change func(*mail.Envelope)
		want   string
	}{
		{"no address", func(*mail.Envelope) {}, "Received: from a.example\r\n\tby mx.example with ESMTP id "},
		{"ipv6", func(e *mail.Envelope) { e.Client.Addr = netip.MustParseAddrPort("[2001:db8::1]:25") }, "from a.example ([IPv6:2001:db8::1])\r\n"},
		{"injection", func(e *mail.Envelope) { e.Client.Helo = "a (b)\r\nX: y;" }, "from a??b???X:?y?\r\n"},
		{"literal", func(e *mail.Envelope) { e.Client.Helo = "[192.0.2.1]" }, "from [192.0.2.1]\r\n"},
		{"one", func(e *mail.Envelope) { e.Rcpts = []mail.Recipient{path(`"a b"@c.example`)} }, "\r\n\tfor <\"a b\"@c.example>;\r\n\t"},
		{"postmaster", func(e *mail.Envelope) { e.Rcpts = []mail.Recipient{path("postmaster")} }, "\r\n\tfor <postmaster>;"},
		{"two", func(e *mail.Envelope) { e.Rcpts = []mail.Recipient{path("a@c.example"), path("b@c.example")} }, string(base.ID) + ";\r\n\t"},
		{"tls", func(e *mail.Envelope) { e.Client.TLS = mail.TLS{Version: "TLSv1.3", Cipher: "TLS_X"} }, "\r\n\ttls TLS_X;\r\n\t"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			env := base
			row.change(&env)
			got := string(appendReceived(nil, &env, "mx.example", Disposition{}, false))
			if !strings.Contains(got, row.want) {
				t.Errorf("%q lacks %q", got, row.want)
			}
			wellFormed(t, got)
			date := got[strings.LastIndex(got, "\t")+1:]
			if _, err := time.Parse(dateForm+"\r\n", date); err != nil {
				t.Error(err)
			}
		})
	}
	long := string(appendField(nil, "X-Long", strings.Repeat("x", 5000)))
	for _, line := range strings.SplitAfter(long, "\r\n") {
		if len(line) > 1000 {
			t.Errorf("line of %d octets", len(line))
		}
	}
}

func TestProtocolKeywords(t *testing.T) {
	rows := []struct {
		profile             Profile
		ehlo, utf8, tls, ok bool
		want                string
	}{
		{MX, false, false, false, false, "SMTP"},
		{MX, false, false, true, false, "SMTP"},
		{MX, true, false, false, false, "ESMTP"},
		{MX, true, false, true, false, "ESMTPS"},
		{MX, true, true, false, false, "UTF8SMTP"},
		{Submission, true, false, false, true, "ESMTPA"},
		{Submission, true, true, true, true, "UTF8SMTPSA"},
		{LMTP, true, false, true, false, "LMTPS"},
		{LMTP, true, true, true, true, "UTF8LMTPSA"},
	}
	for _, row := range rows {
		s := &session{srv: &Server{c: Config{Profile: row.profile}}, extended: row.ehlo, tx: &transaction{env: mail.Envelope{UTF8: row.utf8}}}
		if row.tls {
			s.client.TLS.Version = "TLSv1.3"
		}
		if row.ok {
			s.user = "u"
		}
		if got := s.protocol(); got != row.want {
			t.Errorf("%+v: %s", row, got)
		}
	}
}

// TestSlowReader: a client that does not take our replies is dropped.
func TestSlowReader(t *testing.T) {
	server, peer := net.Pipe()
	defer peer.Close()
	var w wire
	w.start(server, new(buffers), 20*time.Millisecond)
	w.out = append(w.out, "250 ok\r\n"...)
	if err := w.flush(); !isTimeout(err) {
		t.Errorf("%v", err)
	}
}
