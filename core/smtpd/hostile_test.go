package smtpd

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// flood writes until the server hangs up or all is written.
func (c *client) flood(parts ...string) {
	go func() {
		for _, p := range parts {
			if _, err := io.WriteString(c.nc, p); err != nil {
				return
			}
		}
	}()
}

// rest reads all replies to the end of the connection.
func (c *client) rest() string {
	c.t.Helper()
	b, err := io.ReadAll(c.r)
	if isTimeout(err) {
		c.t.Fatalf("connection is still open after %q", tail(string(b)))
	}
	return string(b)
}

func tail(s string) string { return s[max(0, len(s)-300):] }

func repeated(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

// heap is what is allocated after a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestGarbage(t *testing.T) {
	h := open(t, MX, nil)
	for seed := range uint64(20) {
		src := rand.NewChaCha8([32]byte{byte(seed)})
		junk := make([]byte, 200<<10)
		_, _ = src.Read(junk)
		junk[0] = byte(seed) // also a TLS record
		c := h.dial()
		c.flood(string(junk), "\r\nQUIT\r\n")
		if got := c.rest(); !strings.Contains(got, "\r\n4") && !strings.Contains(got, "\r\n5") {
			t.Errorf("seed %d: %q", seed, tail(got))
		}
	}
	if p := h.srv.Stats().Panics; p != 0 {
		t.Errorf("%d panics: %s", p, h.log)
	}
}

func TestLongCommandLines(t *testing.T) {
	h := open(t, MX, nil)
	c := h.hello()
	c.do("NOOP "+strings.Repeat("x", 4089), "250", "NOOP "+strings.Repeat("x", 4090), "500 5.5.6",
		"NOOP "+strings.Repeat("x", 30000), "500 5.5.6", "NOOP", "250")
	c.flood(repeated(strings.Repeat("y", 1<<20), 10)...)
	if got := c.rest(); !strings.HasPrefix(got, "500 5.5.6") {
		t.Errorf("10 MB line: %q", tail(got))
	}
}

// TestLongTextLine: a 10 MB line inside a message takes no memory, and is
// refused for its length; one of 900 KB passes unchanged.
func TestLongTextLine(t *testing.T) {
	h := open(t, MX, nil)
	for _, n := range []int{900 << 10, 10 << 20} {
		c := h.hello()
		c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354")
		before := heap()
		c.send("Subject: x\r\n\r\n")
		for range n >> 10 {
			c.send(strings.Repeat("z", 1<<10))
		}
		c.send("\r\n.\r\n")
		if n < 1<<20 {
			c.want("250")
			continue
		}
		c.want("554 5.6.0")
		c.do("NOOP", "250")
		if grown := int64(heap()) - int64(before); grown > 4<<20 {
			t.Errorf("heap grew by %d octets", grown)
		}
	}
	if got := h.courier.taken()[0].text; len(got) != len("Subject: x\r\n\r\n\r\n")+900<<10 {
		t.Errorf("%d octets", len(got))
	}
	if h.courier.largest > largeBuffer {
		t.Errorf("a write of %d octets", h.courier.largest)
	}
}

func TestManyRecipients(t *testing.T) {
	h := open(t, MX, nil)
	c := h.hello()
	c.do("MAIL FROM:<>", "250")
	before := heap()
	go func() {
		for i := range 100_000 {
			if _, err := fmt.Fprintf(c.nc, "RCPT TO:<user%d@local.example>\r\n", i); err != nil {
				return
			}
		}
	}()
	got := c.rest()
	ok, over := strings.Count(got, "250 2.1.5"), strings.Count(got, "452 4.5.3")
	if ok != 1000 || over < 1000 || over > 1100 || !strings.Contains(got, "421 4.7.0") {
		t.Errorf("%d accepted, %d too many, ends in %q", ok, over, tail(got))
	}
	if grown := int64(heap()) - int64(before); grown > 4<<20 {
		t.Errorf("heap grew by %d octets", grown)
	}
}

// TestRecipientLimit: what is over the limit is 452, and the rest goes through.
func TestRecipientLimit(t *testing.T) {
	h := open(t, MX, func(c *Config, _ *house) { c.Limits.Recipients = 2 })
	c := h.hello()
	c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "RCPT TO:<b@local.example>", "250",
		"RCPT TO:<c@local.example>", "452 4.5.3", "DATA", "354", ".", "250")
}

func TestEndlessHeader(t *testing.T) {
	h := open(t, MX, nil)
	c := h.hello()
	c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354")
	c.flood(append(repeated(strings.Repeat("X-Field: "+strings.Repeat("v", 100)+"\r\n", 100), 200), ".\r\n")...)
	c.want("552 5.3.4")
	c.do("NOOP", "250")
}

func TestMailLoop(t *testing.T) {
	h := open(t, MX, nil)
	c := h.hello()
	for hops, want := range map[int]string{50: "250", 51: "554 5.4.6"} {
		c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354",
			strings.Repeat("Received: from a by b\r\n", hops)+"\r\nReceived: body\r\n.", want)
	}
}

// TestSizeLimit: the limit is inclusive, and dots that are taken out do not
// count (libraries.md §1.3.7).
func TestSizeLimit(t *testing.T) {
	h := open(t, MX, func(c *Config, _ *house) { c.Limits.MessageSize = 100; c.Limits.Drain = 1000 })
	c := h.hello()
	begin := func() {
		c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250")
	}
	line := func(n int) string { return strings.Repeat("..\r\n", n) } // 3 octets each
	begin()
	c.do("DATA", "354", line(32)+"xx\r\n.", "250")
	begin()
	c.do("DATA", "354", line(33)+"xx\r\n.", "552 5.3.4")
	begin()
	c.do("BDAT 100 LAST\r\n"+strings.Repeat("x", 98), "250")
	begin()
	c.do("BDAT 101 LAST\r\n"+strings.Repeat("x", 99), "552 5.3.4", "NOOP", "250")
	begin()
	c.do("BDAT 60\r\n"+strings.Repeat("x", 58), "250", "BDAT 41 LAST\r\n"+strings.Repeat("x", 39), "552 5.3.4")
	begin()
	// Beyond the drain the reply comes early and the connection ends.
	c.do("DATA", "354")
	c.flood(repeated(strings.Repeat("x", 98)+"\r\n", 1000)...)
	c.want("552 5.3.4")
	c.closed()
}

// TestTrickle: a client that sends an octet now and then is cut at the minimum
// rate, whatever its single waits are.
func TestTrickle(t *testing.T) {
	h := open(t, MX, func(c *Config, _ *house) {
		c.Limits.DataGrace = 60 * time.Millisecond
		c.Limits.MinRate = 1 << 20
	})
	c := h.hello()
	c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354")
	trickle(c, "x")
	c.want("421 4.4.2")
	c.closed()
	if n := len(h.courier.taken()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// trickle sends an octet every few milliseconds until the peer hangs up.
func trickle(c *client, octet string) {
	tick := time.NewTicker(5 * time.Millisecond)
	go func() {
		defer tick.Stop()
		for range tick.C {
			if _, err := io.WriteString(c.nc, octet); err != nil {
				return
			}
		}
	}()
}

func TestDeadlines(t *testing.T) {
	rows := []struct {
		name   string
		change func(*Limits)
		before func(*client)
		want   string
	}{
		{"idle", func(l *Limits) { l.Idle = 50 * time.Millisecond }, func(*client) {}, "421 4.4.2"},
		{"a command octet by octet", func(l *Limits) { l.Idle = 50 * time.Millisecond }, func(c *client) { trickle(c, "N") }, "421 4.4.2"},
		{"session", func(l *Limits) { l.Session = 50 * time.Millisecond }, func(*client) {}, "421 4.4.2 Session"},
		{"silence in DATA", func(l *Limits) { l.DataIdle = 50 * time.Millisecond }, func(c *client) {
			c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354")
			c.send("x\r\n")
		}, "421 4.4.2"},
		{"whole DATA", func(l *Limits) { l.Data = 50 * time.Millisecond }, func(c *client) {
			c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354")
			trickle(c, "x")
		}, "421 4.4.2"},
		{"silence in BDAT", func(l *Limits) { l.DataIdle = 50 * time.Millisecond }, func(c *client) {
			c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250")
			c.send("BDAT 100 LAST\r\nx")
		}, "421 4.4.2"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			h := open(t, MX, func(c *Config, _ *house) { row.change(&c.Limits) })
			c := h.hello()
			row.before(c)
			c.want(row.want)
			// What comes now is neither message nor command: the injection of
			// libraries.md §1.3.1.
			_, _ = io.WriteString(c.nc, "\r\n.\r\nMAIL FROM:<>\r\n")
			c.closed()
			if n := len(h.courier.taken()); n != 0 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

// TestCutBDAT: what was announced and did not come is no message.
func TestCutBDAT(t *testing.T) {
	h := open(t, MX, nil)
	c := h.hello()
	c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250")
	c.send("BDAT 1000 LAST\r\nSubject: x\r\n")
	if err := c.nc.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := c.rest(); got != "" {
		t.Errorf("reply %q", got)
	}
	until(t, "the draft's end", func() bool { h.courier.mu.Lock(); defer h.courier.mu.Unlock(); return h.courier.aborted == 1 })
	if n := len(h.courier.taken()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestTooManyErrors(t *testing.T) {
	h := open(t, MX, func(_ *Config, h *house) {
		h.courier.recipient = func(*mail.Envelope, mail.Recipient) mail.Status {
			return mail.Status{Code: 550, Enhanced: "5.1.1", Text: "User unknown"}
		}
	})
	c := h.hello()
	c.do("MAIL FROM:<>", "250")
	for range 20 {
		c.do("RCPT TO:<x@local.example>", "550 5.1.1")
	}
	c.do("NOOP", "421 4.7.0")
	c.closed()
	until(t, "the log", func() bool { return strings.Contains(h.log.String(), "session refused") })
	if log := h.log.String(); !strings.Contains(log, "rcpt=x@local.example") || !strings.Contains(log, "refusals=21") {
		t.Errorf("log %s", log)
	}
}

func TestJunkCommands(t *testing.T) {
	h := open(t, MX, nil)
	c := h.hello()
	for range 99 + 20 {
		c.do("NOOP", "250")
	}
	c.do("NOOP", "421 4.7.0")
}

func TestWrongPorts(t *testing.T) {
	plain := open(t, MX, nil)
	c := plain.dial()
	tc := tls.Client(c.nc, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err == nil {
		t.Error("TLS handshake with a plain port")
	}
	c = plain.dial()
	c.want("220")
	c.send("\x16\x03\x01")
	c.want("421 4.7.0")
	c.closed()

	secure := open(t, Submissions, nil)
	c = secure.dial()
	c.send("EHLO client.example\r\n")
	_, _ = io.ReadAll(c.r) // a TLS alert
	until(t, "the sessions' end", func() bool { return plain.srv.Stats().Open+secure.srv.Stats().Open == 0 })
}

func TestBareLFCommand(t *testing.T) {
	h := open(t, MX, nil)
	c := h.hello()
	c.do("NOOP\nNOOP", "500 5.5.2")
	c.closed()
	h = open(t, MX, func(c *Config, _ *house) { c.Trusted = loopback })
	c = h.hello()
	c.send("NOOP\nNOOP\n")
	c.want("250")
	c.want("250")
}

// TestPanic: a bug in one session is 421 there and one line in the log.
func TestPanic(t *testing.T) {
	h := open(t, MX, func(_ *Config, h *house) {
		h.policy.ask = func(ev *policy.Event) policy.Decision {
			if ev.Stage == policy.Message {
				panic("a bug")
			}
			return policy.Decision{}
		}
	})
	c := h.hello()
	c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354", "x\r\n.", "421 4.3.0")
	c.closed()
	h.hello().do("NOOP", "250")
	until(t, "the session's end", func() bool { return h.srv.Stats().Open == 1 })
	if h.srv.Stats().Panics != 1 || h.courier.aborted != 1 || strings.Count(h.log.String(), "a bug") != 1 {
		t.Errorf("stats %+v, %d aborted, log %s", h.srv.Stats(), h.courier.aborted, h.log)
	}
}

// TestSlowDown: after SoftErrors the next refusal keeps its client waiting,
// and Shutdown does not wait with it.
func TestSlowDown(t *testing.T) {
	h := open(t, MX, func(c *Config, _ *house) { c.Limits.SoftErrors = 2; c.Limits.ErrorDelay = time.Hour })
	c := h.hello()
	c.do("FOO", "500", "FOO", "500")
	c.send("FOO\r\n")
	_ = c.nc.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if got, err := c.read(); !isTimeout(err) {
		t.Fatalf("third refusal came at once: %q, %v", got, err)
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(testPatience))
	go func() { _ = h.srv.Shutdown(context.Background()) }()
	c.want("500")
	c.want("421 4.3.2")
}

// TestRules: they are pinned once for a connection and given back once,
// however it ends.
func TestRules(t *testing.T) {
	var begun, released atomic.Int32
	h := open(t, MX, func(c *Config, h *house) {
		c.Begin = func(netip.Addr) Rules {
			begun.Add(1)
			return Rules{Courier: h.courier, Release: func() { released.Add(1) }}
		}
	})
	h.hello().do("QUIT", "221")
	_ = h.hello().nc.Close()
	c := h.hello()
	c.do("GET / HTTP/1.1", "221")
	until(t, "the sessions' end", func() bool { return h.srv.Stats().Open == 0 })
	if begun.Load() != 3 || released.Load() != 3 {
		t.Errorf("begun %d, released %d", begun.Load(), released.Load())
	}
}

// TestSwaks: a client in wide use, with STARTTLS and pipelining.
func TestSwaks(t *testing.T) {
	swaks, err := exec.LookPath("swaks")
	if err != nil {
		t.Skip("swaks is not installed")
	}
	h := open(t, MX, withTLS)
	out, err := exec.Command(swaks, "--server", h.addr, "--tls", "--pipeline", "--helo", "client.example",
		"--from", "a@b.example", "--to", "c@local.example,d@local.example", "--body", ".dot\nend").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := h.courier.taken()
	if len(m) != 1 || len(m[0].env.Rcpts) != 2 || m[0].env.Protocol != "ESMTPS" || !strings.Contains(m[0].text, "\r\n.dot\r\nend\r\n") {
		t.Errorf("%+v\n%s", m, out)
	}
}
