package pop3d

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/maildir"
)

func TestSession(t *testing.T) {
	h := open(t, nil)
	h.deliver("1.a.x", message(1))
	h.deliver("2.b.x", strings.ReplaceAll(message(2), "\r\n", "\n")) // of another program
	h.deliver("3.c.x", crlf("Subject: no body"))
	c := h.login()
	size := len(message(1))
	c.do("STAT", fmt.Sprintf("+OK 3 %d", 2*size+16))
	if got, want := c.multi("LIST"), []string{fmt.Sprint("1 ", size), fmt.Sprint("2 ", size), "3 16"}; !slices.Equal(got, want) {
		t.Errorf("LIST = %q, want %q", got, want)
	}
	c.do("LIST 2", fmt.Sprint("+OK 2 ", size))
	c.do("list 9", "-ERR No such message")
	uidls := c.multi("UIDL")
	c.do("UIDL 2", "+OK "+uidls[1])
	for n := 1; n <= 2; n++ {
		if got := strings.Join(c.multi(fmt.Sprint("RETR ", n)), "\r\n") + "\r\n"; got != message(n) {
			t.Errorf("RETR %d = %q", n, got)
		}
	}
	if got := c.multi("RETR 3"); !slices.Equal(got, []string{"Subject: no body"}) {
		t.Errorf("RETR 3 = %q", got)
	}
	for _, row := range []struct {
		lines int
		want  []string
	}{
		{0, []string{"From: a@x.test", "Subject: message 1", ""}},
		{2, []string{"From: a@x.test", "Subject: message 1", "", "line 1", ".line 2"}},
		{99, []string{"From: a@x.test", "Subject: message 1", "", "line 1", ".line 2", "..", "line 4"}},
	} {
		if got := c.multi(fmt.Sprint("TOP 1 ", row.lines)); !slices.Equal(got, row.want) {
			t.Errorf("TOP 1 %d = %q, want %q", row.lines, got, row.want)
		}
	}
	c.do("DELE 2", "+OK")
	c.do("DELE 2", "-ERR")
	c.do("RETR 2", "-ERR")
	c.do("STAT", fmt.Sprintf("+OK 2 %d", size+16))
	if got := c.multi("UIDL"); !slices.Equal(got, []string{uidls[0], uidls[2]}) {
		t.Errorf("UIDL after DELE = %q", got)
	}
	c.do("RSET", "+OK")
	c.do("STAT", "+OK 3 ")
	c.do("DELE 1", "+OK")
	if h.files() != 3 {
		t.Error("deleted before QUIT")
	}
	c.do("QUIT", "+OK Bye, 1 message removed")
	c.closed()
	if h.files() != 2 {
		t.Errorf("%d files after QUIT", h.files())
	}
	c = h.login()
	for i, line := range c.multi("UIDL") {
		if _, id, _ := strings.Cut(line, " "); !strings.HasSuffix(uidls[i+1], id) {
			t.Errorf("UIDL %q is no longer %q", line, uidls[i+1])
		}
	}
	h.left(1)
	if st := h.Stats(); st.Logins != 2 || st.Retrieved != 3 || st.Deleted != 1 || st.Open != 1 {
		t.Errorf("Stats = %+v", st)
	}
}

func TestRetrievedIsSeen(t *testing.T) {
	h := open(t, nil)
	h.deliver("1.a.x", message(1))
	h.deliver("2.b.x", message(2))
	c := h.login()
	c.multi("RETR 2")
	c.multi("TOP 1 0")
	c.do("QUIT", "+OK")
	c.closed()
	h.settle()
	seen, _ := filepath.Glob(filepath.Join(h.mail, "cur", "*:2,*S*"))
	if len(seen) != 1 || !strings.Contains(seen[0], "2.b.x") {
		t.Errorf("seen: %q", seen)
	}
}

// left waits until only n sessions are left.
func (h *house) left(n int) {
	h.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 10000 {
		if h.Stats().Open <= n {
			return
		}
		<-tick.C
	}
	h.t.Fatalf("%d sessions do not end", h.Stats().Open)
}

// settle waits until no session is left.
func (h *house) settle() {
	h.t.Helper()
	h.left(0)
}

func TestNoDeletionWithoutQuit(t *testing.T) {
	h := open(t, nil)
	h.deliver("1.a.x", message(1))
	c := h.login()
	c.do("DELE 1", "+OK")
	_ = c.conn.Close()
	h.settle()
	if h.files() != 1 {
		t.Error("a lost connection deleted")
	}
}

func TestStates(t *testing.T) {
	h := open(t, func(c *Config) { c.Limits.Errors = 1000 })
	h.deliver("1.a.x", message(1))
	c := h.dial()
	for _, cmd := range []string{"STAT", "LIST", "RETR 1", "DELE 1", "NOOP", "RSET", "TOP 1 0", "UIDL", "PASS x", "USER", "APOP a b", "XYZZY", "LAST",
		"", " ", "A", "CAPA x", "QUIT now", "STLS x", "USER a\x00b", "AUTH CRAM-MD5", "AUTH PLAIN !!!", "AUTH PLAIN AAA"} {
		c.do(cmd, "-ERR")
	}
	c.do("user ann@x.test", "+OK")
	c.do("pass secret", "+OK 1 message")
	for _, cmd := range []string{"USER x", "PASS x", "AUTH PLAIN", "STLS", "UTF8", "RETR", "RETR 0", "RETR 2", "RETR -1", "RETR +1", "RETR 1 2", "RETR 99999999999999999999",
		"TOP 1", "TOP 1 -1", "TOP", "TOP 2 0", "DELE x", "LIST x", "UIDL 0", "NOOP x"} {
		c.do(cmd, "-ERR")
	}
	c.do("LIST 1 ", "+OK 1 ") // some clients leave a space
	c.do("NOOP", "+OK")
}

func TestErrorLimits(t *testing.T) {
	h := open(t, func(c *Config) { c.Limits.Errors, c.Limits.Logins = 3, 2 })
	c := h.dial()
	c.do("X", "-ERR Malformed")
	c.do("XXX", "-ERR Unknown")
	c.do("XXX", "-ERR Too many")
	c.closed()
	c = h.dial()
	for _, end := range []bool{false, true} {
		c.do("USER ann@x.test", "+OK")
		c.do("PASS wrong", "-ERR [AUTH]")
		if end {
			c.expect("-ERR [AUTH] Too many")
			c.closed()
		}
	}
	if n := h.Stats().Failures; n != 2 {
		t.Errorf("%d failures", n)
	}
}

func TestLogins(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	plain := b64("\x00ann@x.test\x00secret")
	for _, row := range []struct {
		name  string
		steps []string // command, reply, …
	}{
		{"user", []string{"USER Ann@X.test", "+OK", "PASS secret", "+OK"}},
		{"spaces in a password", []string{"USER spacy@x.test", "+OK", "PASS  a  b ", "+OK"}},
		{"UTF-8", []string{"UTF8", "+OK", "USER jürgen@x.test", "+OK", "PASS schlüssel", "+OK"}},
		{"plain initial", []string{"AUTH PLAIN " + plain, "+OK"}},
		{"plain asked", []string{"auth plain", "+ ", plain, "+OK"}},
		{"login", []string{"AUTH LOGIN", "+ VXNlcm5hbWU6", b64("ann@x.test"), "+ UGFzc3dvcmQ6", b64("secret"), "+OK"}},
		{"login initial", []string{"AUTH LOGIN " + b64("ann@x.test"), "+ UGFzc3dvcmQ6", b64("secret"), "+OK"}},
		{"cancel", []string{"AUTH PLAIN", "+ ", "*", "-ERR Cancelled", "NOOP", "-ERR Not now"}},
		{"empty initial", []string{"AUTH PLAIN =", "-ERR Malformed"}},
		{"not base64", []string{"AUTH PLAIN", "+ ", "?", "-ERR Response", "NOOP", "-ERR Not now"}},
		{"wrong", []string{"AUTH PLAIN " + b64("\x00ann@x.test\x00wrong"), "-ERR [AUTH]"}},
		{"unknown", []string{"USER bob@x.test", "+OK", "PASS secret", "-ERR [AUTH]"}},
		{"PASS twice", []string{"USER ann@x.test", "+OK", "PASS wrong", "-ERR [AUTH]", "PASS secret", "-ERR Say USER"}},
		{"long response", []string{"AUTH PLAIN", "+ ", b64("\x00ann@x.test\x00" + strings.Repeat("x", 8000)), "-ERR [AUTH]"}},
		{"long initial response", []string{"AUTH PLAIN " + b64("\x00ann@x.test\x00"+strings.Repeat("x", 8000)), "-ERR [AUTH]", "QUIT", "+OK"}},
		{"too long response", []string{"AUTH PLAIN", "+ ", strings.Repeat("A", 13000), "-ERR Line is too long", "QUIT", "+OK"}},
		{"too long initial response", []string{"AUTH PLAIN " + strings.Repeat("A", 13000), "-ERR Line is too long", "QUIT", "+OK"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := open(t, nil)
			c := h.dial()
			for i := 0; i < len(row.steps); i += 2 {
				c.do(row.steps[i], row.steps[i+1])
			}
		})
	}
}

func TestMechanismList(t *testing.T) {
	h := open(t, nil)
	c := h.dial()
	if got := c.multi("AUTH"); !slices.Equal(got, []string{"SCRAM-SHA-256", "PLAIN", "LOGIN"}) {
		t.Errorf("AUTH = %q", got)
	}
}

func TestLock(t *testing.T) {
	h := open(t, nil)
	first := h.login()
	second := h.dial()
	second.do("USER ann@x.test", "+OK")
	second.do("PASS secret", "-ERR [IN-USE]")
	first.do("QUIT", "+OK") // and no wait
	second.do("USER ann@x.test", "+OK")
	second.do("PASS secret", "+OK")
}

func TestPipelining(t *testing.T) {
	h := open(t, nil)
	h.deliver("1.a.x", message(1))
	c := h.dial()
	c.send("USER ann@x.test\r\nPASS secret\r\nSTAT\r\nRETR 1\r\nDELE 1\r\nNOOP\nQUIT\r\n")
	for range 3 {
		c.expect("+OK")
	}
	if got := strings.Join(func() []string { c.expect("+OK"); return c.rest() }(), "\r\n") + "\r\n"; got != message(1) {
		t.Errorf("RETR = %q", got)
	}
	c.expect("+OK Marked")
	c.expect("+OK")
	c.expect("+OK Bye, 1 message")
	c.closed()
}

func TestExpungeFailureIsTold(t *testing.T) {
	h := open(t, nil)
	h.deliver("1.a.x", message(1))
	h.deliver("2.b.x", message(2))
	c := h.login()
	c.do("DELE 1", "+OK")
	if err := h.pool.Close(); err != nil { // the store answers every change with an error now
		t.Fatal(err)
	}
	c.do("QUIT", "-ERR [SYS/TEMP] Some deleted messages are not removed")
	if h.files() != 2 {
		t.Errorf("%d files", h.files())
	}
}

func TestGoneMeanwhile(t *testing.T) {
	h := open(t, nil)
	h.deliver("1.a.x", message(1))
	h.deliver("2.b.x", message(2))
	c := h.login()
	names, err := filepath.Glob(filepath.Join(h.mail, "*", "1.a.x*"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	if err := os.Remove(names[0]); err != nil {
		t.Fatal(err)
	}
	c.do("RETR 1", "-ERR")
	h.deliver("3.c.x", message(3)) // new mail is not shown in this session
	c.do("STAT", "+OK 2 ")
	c.do("DELE 1", "+OK")
	c.do("QUIT", "+OK")
}

func TestNoMailbox(t *testing.T) {
	h := open(t, func(c *Config) {
		c.Mailbox = func(context.Context, string) (*maildir.Store, error) { return nil, errors.New("disk on fire") }
	})
	c := h.dial()
	c.do("USER ann@x.test", "+OK")
	if line := c.do("PASS secret", "-ERR [SYS/TEMP]"); strings.Contains(line, "fire") {
		t.Errorf("internals are told: %q", line)
	}
}

func TestPanicIsContained(t *testing.T) {
	h := open(t, func(c *Config) {
		c.Mailbox = func(context.Context, string) (*maildir.Store, error) { panic("on purpose") }
	})
	c := h.dial()
	c.do("USER ann@x.test", "+OK")
	c.do("PASS secret", "-ERR [SYS/TEMP] Internal error")
	c.closed()
	h.settle()
	h.dial().do("QUIT", "+OK")
	if st := h.Stats(); st.Panics != 1 || !strings.Contains(h.log.String(), "on purpose") {
		t.Errorf("Stats = %+v", st)
	}
}

func TestConnectionCaps(t *testing.T) {
	h := open(t, func(c *Config) { c.Limits.PerClient = 2 })
	a, _ := h.dial(), h.dial()
	conn, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &client{t: t, conn: conn, r: bufio.NewReader(conn)}
	c.expect("-ERR [SYS/TEMP] Too many connections")
	c.closed()
	a.do("QUIT", "+OK")
	a.closed()
	h.left(1)
	h.dial()
	if n := h.Stats().TurnedAway; n != 1 {
		t.Errorf("%d turned away", n)
	}
}

func TestTimeouts(t *testing.T) {
	h := open(t, func(c *Config) { c.Limits.Login = 50 * time.Millisecond; c.Limits.Idle = 100 * time.Millisecond })
	h.deliver("1.a.x", message(1))
	c := h.dial()
	c.expect("-ERR Waited too long")
	c.closed()
	c = h.login()
	c.do("DELE 1", "+OK")
	c.expect("-ERR Waited too long")
	c.closed()
	h.settle()
	if h.files() != 1 {
		t.Error("a timeout deleted (RFC 1939 §3 forbids it)")
	}
}

func TestShutdown(t *testing.T) {
	h := open(t, nil)
	c := h.login()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := h.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	c.expect("-ERR [SYS/TEMP] The server is shutting down")
	c.closed()
	if err := h.Shutdown(ctx); err != nil {
		t.Errorf("again: %v", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Serve(ln); err != nil {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

// A client that takes nothing cannot hold a shutdown up for ever.
func TestShutdownCuts(t *testing.T) {
	h := open(t, nil)
	h.deliver("1.a.x", "Subject: big\r\n\r\n"+strings.Repeat(strings.Repeat("x", 70)+"\r\n", 200000))
	c := h.login()
	c.send(strings.Repeat("RETR 1\r\n", 10))
	c.expect("+OK") // it is writing now, and will not get far
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := h.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown = %v", err)
	}
	if h.Stats().Open != 0 {
		t.Error("a session is left")
	}
}

func TestProxy(t *testing.T) {
	h := open(t, func(c *Config) { c.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	for _, row := range []struct {
		name, header string
		ok           bool
	}{
		{"v1", "PROXY TCP4 192.0.2.7 192.0.2.1 4000 110\r\n", true},
		{"none", "CAPA\r\nCAPA\r\nCAPA\r\nCAPA\r\nCAPA\r\n", false},
	} {
		conn, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		c := &client{t: t, conn: conn, r: bufio.NewReader(conn)}
		c.send(row.header)
		if !row.ok {
			c.closedAfterAlert()
			continue
		}
		c.expect("+OK")
		c.do("USER ann@x.test", "-ERR Say STLS") // who is behind the proxy is not on this host
		c.do("QUIT", "+OK")
		_ = conn.Close()
	}
	h.settle()
	if !strings.Contains(h.log.String(), "client=192.0.2.7:4000") {
		t.Errorf("the client's address is not in the log:\n%s", h.log)
	}
}

func TestBadInput(t *testing.T) {
	for _, row := range []struct{ name, text string }{
		{"garbage", "\x00\xff\x16\x03\x01" + strings.Repeat("\x80", 5000) + "\r\n"},
		{"endless line", strings.Repeat("x", 10<<20)},
		{"many long lines", strings.Repeat(strings.Repeat("y", 5000)+"\r\n", 100)},
		{"many bad commands", strings.Repeat("FOO\r\n", 100000)},
		{"tls to the plain port", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("a", 600)},
		{"nuls", strings.Repeat("\x00", 100000)},
		{"empty lines", strings.Repeat("\r\n", 100000)},
		{"auth without end", "AUTH PLAIN " + strings.Repeat("A", 1<<20)},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := open(t, nil)
			c := h.dial()
			go func() {
				_, _ = c.conn.Write([]byte(row.text)) // fails when the server has had enough
				if tc, ok := c.conn.(*net.TCPConn); ok {
					_ = tc.CloseWrite()
				}
			}()
			c.closedAfterAlert()
			h.settle()
		})
	}
}

func TestOrderAndUIDL(t *testing.T) {
	msgs := []maildir.Message{{UID: 1}, {UID: 2, Order: 2}, {UID: 5, Order: 1, UIDL: "saved"}, {UID: 7, UIDL: "bad id"}}
	d := &maildrop{msgs: inOrder(msgs), validity: 0x5f3a1b2c}
	var got []string
	for _, m := range d.msgs {
		got = append(got, d.uidl(m))
	}
	want := []string{"saved", "000000025f3a1b2c", "000000015f3a1b2c", "000000075f3a1b2c"}
	if !slices.Equal(got, want) || msgs[0].UID != 1 {
		t.Errorf("got %q, want %q", got, want)
	}
}
