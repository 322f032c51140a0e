package imapd

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/maildir"
)

// The tests here are of defects that other servers have had.

// fetchOne appends a message to a new mailbox and fetches items of it.
func fetchOne(t *testing.T, c *client, msg, items string) string {
	t.Helper()
	c.ok("CREATE box")
	if got := c.appendMessage("box", "", msg); !strings.HasPrefix(got, "OK") {
		t.Fatal(got)
	}
	c.ok("SELECT box")
	got := c.ok("FETCH 1 " + items)
	c.ok("CLOSE")
	c.ok("DELETE box")
	return got[0]
}

func TestBadMail(t *testing.T) {
	c := startServer(t, nil).login(t)
	nested := strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 250<<10/32)
	multi := ""
	for i := range 3000 {
		multi += fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	rows := []struct{ name, msg, items, want string }{
		{"multipart without parts", "Content-Type: multipart/mixed; boundary=x\r\n\r\nnothing\r\n", "(BODYSTRUCTURE BODY.PEEK[1])",
			`* 1 FETCH (BODYSTRUCTURE (("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL) "mixed" ("boundary" "x") NIL NIL NIL) BODY[1] {0}` + "\r\n)"},
		{"multipart without a boundary", "Content-Type: multipart/mixed\r\n\r\nnothing\r\n", "BODY", `* 1 FETCH (BODY ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 9 1))`},
		{"multipart that ends in its header", "Content-Type: multipart/mixed; boundary=x\r\n", "BODY", `* 1 FETCH (BODY (("text" "plain" …) "mixed"))`},
		{"message/rfc822 without a message", "Content-Type: message/rfc822\r\n", "BODY", `* 1 FETCH (BODY ("message" "rfc822" NIL NIL NIL "7bit" 0 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) ("text" "plain" …) 0))`},
		{"250 KB of nested message/rfc822", nested, "BODYSTRUCTURE", `* 1 FETCH (BODYSTRUCTURE ("message" "rfc822"…"application" "octet-stream"…)`},
		{"3000 nested multiparts", multi, "BODYSTRUCTURE", `* 1 FETCH (BODYSTRUCTURE (((…"application" "octet-stream"…)`},
		{"100000 parts", "Content-Type: multipart/mixed; boundary=x\r\n\r\n" + strings.Repeat("--x\r\n\r\na\r\n", 100000), "BODY", `* 1 FETCH (BODY (("text" …"mixed"))`},
		{"one bad address does not take the others", "From: @@@, <>, ann@example.org (Ann), x y\r\nDate: rubbish\r\n\r\n", "ENVELOPE",
			`* 1 FETCH (ENVELOPE ("rubbish" NIL (…(NIL NIL "MISSING_MAILBOX" "MISSING_DOMAIN")("Ann" NIL "ann" "example.org")(NIL NIL "x y" "MISSING_DOMAIN")) …))`},
		{"groups", "To: friends: a@x, \"B\" <b@y>;, undisclosed:;\r\n\r\n", "ENVELOPE",
			`* 1 FETCH (ENVELOPE (NIL NIL NIL NIL NIL ((NIL NIL "friends" NIL)(NIL NIL "a" "x")("B" NIL "b" "y")(NIL NIL NIL NIL)(NIL NIL "undisclosed" NIL)(NIL NIL NIL NIL)) NIL NIL NIL NIL))`},
		{"route", "From: <@a,@b:joe@c>\r\n\r\n", "ENVELOPE", `* 1 FETCH (ENVELOPE (NIL NIL ((NIL "@a,@b" "joe" "c")) …`},
		{"encoded words stay", "Subject: =?utf-8?q?J=C3=BCrgen?=\r\n\r\n", "ENVELOPE", `* 1 FETCH (ENVELOPE (NIL "=?utf-8?q?J=C3=BCrgen?=" NIL…`},
		{"8-bit and quotes", "Subject: J\xfcrgen\r\nFrom: \"a\\\"b\" <x@y>\r\n\r\n", "ENVELOPE", "* 1 FETCH (ENVELOPE (NIL {6}\r\nJ\xfcrgen ((\"a\\\"b\" NIL \"x\" \"y\"))…"},
		{"folded subject", "Subject: one\r\n two\r\n\tthree\r\n\r\n", "ENVELOPE", "* 1 FETCH (ENVELOPE (NIL \"one two three\" …"},
		{"malformed header line", "this is no field\r\nSubject: x\r\n\r\nbody\r\n", "(BODY.PEEK[] ENVELOPE)", "* 1 FETCH (BODY[] {38}\r\nthis is no field\r\nSubject: x\r\n\r\nbody\r\n ENVELOPE (NIL \"x\" …"},
		{"bare LF", "Subject: x\n\na\nb\n", "(RFC822.SIZE BODY.PEEK[])", "* 1 FETCH (RFC822.SIZE 20 BODY[] {20}\r\nSubject: x\r\n\r\na\r\nb\r\n)"},
		{"NUL", "Subject: a\x00b\r\n\r\nc\x00d", "(ENVELOPE BODY.PEEK[TEXT] BINARY.PEEK[1])", "* 1 FETCH (ENVELOPE (NIL {2}\r\nab NIL…BODY[TEXT] {3}\r\nc\x00d BINARY[1] ~{3}\r\nc\x00d)"},
		{"unknown charset in a word", "Subject: =?x-none?q?a?=\r\n\r\n", "ENVELOPE", `* 1 FETCH (ENVELOPE (NIL "=?x-none?q?a?="…`},
		{"no body", "Subject: x\r\n", "(BODY BODY.PEEK[TEXT] BODY.PEEK[HEADER])", "* 1 FETCH (BODY (…0 0) BODY[TEXT] {0}\r\n BODY[HEADER] {12}\r\nSubject: x\r\n)"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got := fetchOne(t, c, row.msg, row.items)
			runtime.ReadMemStats(&after)
			if !matchLine(row.want, got) {
				t.Errorf("got  %.600q\nwant %.600q", got, row.want)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
				t.Errorf("%d MiB were allocated", grown>>20)
			}
		})
	}
}

// TestLiterals: a literal that is refused never turns into commands, and one
// that does not come whole is never stored.
func TestLiterals(t *testing.T) {
	ts := startServer(t, func(c *Config) { c.Limits.Message = 1000 })
	t.Run("refused LITERAL+ is drained", func(t *testing.T) {
		c := ts.login(t)
		evil := strings.Repeat("x CREATE injected\r\n", 200)
		c.send(fmt.Sprintf("a APPEND INBOX {%d+}\r\n%s\r\n", len(evil), evil))
		if got := c.reply(); !strings.HasPrefix(got, "a NO [TOOBIG]") {
			t.Fatal(got)
		}
		if got := c.ok(`LIST "" *`); len(got) != 1 {
			t.Fatalf("mailboxes: %q", got)
		}
		c.send(fmt.Sprintf("b FROB {%d+}\r\n%s\r\nc NOOP\r\n", len(evil), evil))
		if got := c.reply() + c.reply(); got != "b BAD Unknown commandc OK NOOP completed" {
			t.Fatal(got)
		}
	})
	t.Run("limits do not stop exact sizes", func(t *testing.T) {
		c := ts.login(t)
		if got := c.appendMessage("INBOX", "", strings.Repeat("x", 1000)); !strings.HasPrefix(got, "OK") {
			t.Fatal(got)
		}
	})
	t.Run("before login", func(t *testing.T) {
		c := ts.dial(t)
		c.reply()
		c.send("a APPEND INBOX {90000000}\r\n")
		if got := c.reply(); got != "a BAD Log in first" {
			t.Fatal(got)
		}
		c.send("b LOGIN {90000000}\r\n")
		if got := c.reply(); got != "b BAD [TOOBIG] Literal is too big here" {
			t.Fatal(got)
		}
		c.send("c LOGIN {1000000+}\r\n")
		if got := c.reply() + c.reply(); got != "c BAD [TOOBIG] Literal is too big here* BYE Too much data that is no command" {
			t.Fatal(got)
		}
	})
	t.Run("truncated by a disconnect", func(t *testing.T) {
		c := ts.login(t)
		before := c.ok("STATUS INBOX (MESSAGES UIDNEXT)")[0]
		d := ts.login(t)
		d.send("a APPEND INBOX {100+}\r\nhalf")
		d.conn.Close()
		waitFor(t, "the session to end", func() bool { return ts.ended(d) })
		if after := c.ok("STATUS INBOX (MESSAGES UIDNEXT)")[0]; after != before {
			t.Fatalf("before %s, after %s", before, after)
		}
	})
	t.Run("in the midst of a command", func(t *testing.T) {
		c := ts.login(t)
		c.send("a LIST {0}\r\n")
		if got := c.reply(); got != "+ OK" {
			t.Fatal(got)
		}
		c.send(" {5+}\r\nINBOX\r\n")
		if got := c.reply(); !strings.HasPrefix(got, `* LIST (\HasNoChildren) "." "INBOX"`) {
			t.Fatal(got)
		}
	})
}

// ended reports whether no session has the client's address any more.
func (ts *testServer) ended(c *client) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for s := range ts.sessions {
		if s.raw.RemoteAddr().String() == c.conn.LocalAddr().String() {
			return false
		}
	}
	return true
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	late := time.After(20 * time.Second)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !ok() {
		select {
		case <-look.C:
		case <-late:
			t.Fatalf("waited too long for %s", what)
		}
	}
}

func TestStartTLS(t *testing.T) {
	ts := startServer(t, func(c *Config) { c.TLS, c.AuthLoopback = testCertificate(t), false })
	t.Run("a password needs TLS", func(t *testing.T) {
		c := ts.dial(t)
		if got := c.reply(); !strings.Contains(got, "STARTTLS LOGINDISABLED]") {
			t.Error(got)
		}
		if _, got := c.cmd("LOGIN a b"); !strings.HasPrefix(got, "NO [PRIVACYREQUIRED]") {
			t.Error(got)
		}
		if _, got := c.cmd("AUTHENTICATE PLAIN AGEAYg=="); !strings.HasPrefix(got, "NO [PRIVACYREQUIRED]") {
			t.Error(got)
		}
	})
	t.Run("plain text behind STARTTLS is thrown away", func(t *testing.T) {
		c := ts.dial(t)
		c.reply()
		c.send("a STARTTLS\r\nb NOOP\r\n")
		if got := c.reply(); !strings.HasPrefix(got, "a OK") {
			t.Fatal(got)
		}
		conn := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		d := newClient(t, conn)
		d.send("c CAPABILITY\r\n")
		if got := d.reply(); !strings.Contains(got, "AUTH=PLAIN AUTH=LOGIN") || strings.Contains(got, "STARTTLS") {
			t.Error(got)
		}
		d.reply()
		if _, got := d.cmd("STARTTLS"); !strings.HasPrefix(got, "BAD") {
			t.Error(got)
		}
		d.ok(fmt.Sprintf("LOGIN %s %q", testUser, testPassword))
	})
	t.Run("a handshake that fails ends it", func(t *testing.T) {
		c := ts.dial(t)
		c.reply()
		c.send("a STARTTLS\r\n")
		c.reply()
		c.send("b LOGIN a b\r\n")
		if _, err := io.Copy(io.Discard, c.r); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
	})
}

func TestImplicitTLS(t *testing.T) {
	ts := startServer(t, func(c *Config) { c.TLS, c.Implicit, c.AuthLoopback = testCertificate(t), true, false })
	conn, err := tls.Dial("tcp", ts.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := newClient(t, conn)
	if got := c.reply(); strings.Contains(got, "STARTTLS") || !strings.Contains(got, "AUTH=PLAIN") {
		t.Error(got)
	}
	c.ok("AUTHENTICATE PLAIN AGFubkBleGFtcGxlLm9yZwBzZWNyZXQgd29yZA==")
	// IDLE over TLS is woken without harm to the stream.
	c.ok("SELECT INBOX")
	c.send("i IDLE\r\n")
	c.reply()
	for range 3 {
		store, err := ts.pool.Open(ts.dir + "/" + testUser)
		if err != nil {
			t.Fatal(err)
		}
		deliver(t, store)
		store.Close()
		if got := c.reply(); !strings.Contains(got, "EXISTS") {
			t.Fatal(got)
		}
		c.reply()
	}
	c.send("DONE\r\n")
	if got := c.reply(); got != "i OK IDLE completed" {
		t.Error(got)
	}
	plain := ts.dial(t) // plain text to the TLS port
	plain.send("a NOOP\r\n")
	_, _ = io.Copy(io.Discard, plain.r)
}

// deliver stores simpleMessage in the INBOX behind the session's back.
func deliver(t testing.TB, store *maildir.Store) {
	t.Helper()
	f, err := store.Folder(context.Background(), "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Append(context.Background(), strings.NewReader(simpleMessage), maildir.AppendOptions{Size: int64(len(simpleMessage))}); err != nil {
		t.Fatal(err)
	}
}

func TestAuthentication(t *testing.T) {
	ts := startServer(t, nil)
	c := ts.dial(t)
	c.reply()
	for _, row := range [][2]string{
		{"AUTHENTICATE BOGUS", "NO [CANNOT]"},
		{"AUTHENTICATE PLAIN ####", "BAD SASL"},
		{"AUTHENTICATE", "BAD Missing"},
		{"LOGIN nobody x", "NO [AUTHENTICATIONFAILED]"},
	} {
		if _, got := c.cmd(row[0]); !strings.HasPrefix(got, row[1]) {
			t.Errorf("%s: %s", row[0], got)
		}
	}
	c.send("a AUTHENTICATE LOGIN\r\n")
	c.reply()
	c.send("*\r\n")
	if got := c.reply(); got != "a BAD Authentication is cancelled" {
		t.Error(got)
	}
	c.send("b AUTHENTICATE PLAIN\r\n")
	if got := c.reply(); got != "+ " {
		t.Errorf("%q", got)
	}
	c.send("AGFubkBleGFtcGxlLm9yZwBzZWNyZXQgd29yZA==\r\n")
	if got := c.reply(); !strings.HasPrefix(got, "b OK [CAPABILITY ") {
		t.Error(got)
	}
}

func TestLimits(t *testing.T) {
	ts := startServer(t, func(c *Config) { c.Limits.PerUser, c.Limits.PerClient, c.Limits.BadCommands = 2, 3, 5 })
	a := ts.login(t)
	ts.login(t)
	c := ts.dial(t)
	c.reply()
	if _, got := c.cmd(fmt.Sprintf("LOGIN %s %q", testUser, testPassword)); !strings.HasPrefix(got, "NO [LIMIT]") {
		t.Error(got)
	}
	d := ts.dial(t)
	if got := d.reply(); got != "* BYE [UNAVAILABLE] Too many connections from your address" {
		t.Error(got)
	}
	a.send("x NOOP " + strings.Repeat("y", 100<<10) + "\r\n")
	if got := a.reply(); got != "* BAD Command line is too long" {
		t.Error(got)
	}
	a.ok("NOOP")
	for range 5 {
		a.send("x FROB\r\n")
		a.reply()
	}
	if got := a.reply(); got != "* BYE Too many commands that are not understood" {
		t.Error(got)
	}
	if got := a.next(); got != "" {
		t.Error(got)
	}
}

func TestIdle(t *testing.T) {
	ts := startServer(t, nil)
	a, b := ts.login(t), ts.login(t)
	a.ok("SELECT INBOX")
	b.ok("SELECT INBOX")
	a.send("i IDLE\r\n")
	if got := a.reply(); got != "+ idling" {
		t.Fatal(got)
	}
	b.appendMessage("INBOX", "", simpleMessage)
	if got := a.reply() + a.reply(); got != "* 1 EXISTS* 0 RECENT" && got != "* 1 EXISTS* 1 RECENT" {
		t.Error(got)
	}
	b.ok("STORE 1 +FLAGS (\\Flagged)")
	if got := a.reply(); !strings.HasPrefix(got, "* 1 FETCH (UID 1 FLAGS (\\Flagged") {
		t.Error(got)
	}
	b.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
	a.reply()
	b.ok("EXPUNGE")
	if got := a.reply(); got != "* 1 EXPUNGE" {
		t.Error(got)
	}
	a.send("DONE\r\n")
	if got := a.reply(); got != "i OK IDLE completed" {
		t.Error(got)
	}
}

// TestShutdown: every session hears BYE, also in IDLE, and no goroutine stays.
func TestShutdown(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("serve", func(t *testing.T) {
		ts := startServer(t, nil)
		a, b, c := ts.login(t), ts.login(t), ts.dial(t)
		a.ok("SELECT INBOX")
		a.send("i IDLE\r\n")
		a.reply()
		c.reply()
		done := make(chan error)
		go func() { done <- ts.Shutdown(context.Background()) }()
		for _, x := range []*client{a, b, c} {
			if got := x.reply(); got != "* BYE "+textShutdown {
				t.Error(got)
			}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := ts.Stats().Open; n != 0 {
			t.Errorf("%d sessions are open", n)
		}
	})
	waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
}

func TestTimeouts(t *testing.T) {
	ts := startServer(t, func(c *Config) { c.Limits.Greeting, c.Limits.Idle = 200*time.Millisecond, 300*time.Millisecond })
	a := ts.dial(t)
	a.reply()
	if got := a.reply(); got != "* BYE "+textIdle {
		t.Error(got)
	}
	b := ts.login(t)
	if got := b.reply(); got != "* BYE "+textIdle {
		t.Error(got)
	}
}

// TestProxy: a PROXY header is read from a proxy, and the address in it decides.
func TestProxy(t *testing.T) {
	ts := startServer(t, func(c *Config) { c.ProxyFrom = append(c.ProxyFrom, clientKey(netip.MustParseAddr("127.0.0.1"))) })
	for name, header := range map[string]string{
		"v1": "PROXY TCP4 192.0.2.7 192.0.2.1 4711 143\r\n",
		"v2": "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x01\x12\x67\x00\x8f",
	} {
		c := ts.dial(t)
		c.send(header)
		if got := c.reply(); !strings.Contains(got, "LOGINDISABLED") { // 192.0.2.7 is not a loopback address
			t.Errorf("%s: %s", name, got)
		}
	}
	c := ts.dial(t)
	c.send("a NOOP\r\na NOOP\r\n")
	if b, _ := io.ReadAll(c.r); len(b) > 0 {
		t.Errorf("a proxy without a header got %q", b)
	}
}

// TestGarbage: whatever bytes come, the session answers or ends and the server lives.
func TestGarbage(t *testing.T) {
	ts := startServer(t, nil)
	for _, s := range []string{
		"\x00\x01\x02\r\n", "\xff\xfe a b\r\n", strings.Repeat("\r\n", 100), "a\r\n", "a LOGIN \"\x00\" b\r\n", "a LOGIN \"x\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", strings.Repeat("(", 70000) + "\r\n",
	} {
		c := ts.dial(t)
		c.reply()
		c.send(s)
		if tcp, ok := c.conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		if _, err := io.Copy(io.Discard, c.r); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%.20q: %v", s, err)
		}
	}
}
