package smtpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/mail"
)

func TestGreetingSaysOurName(t *testing.T) {
	h := open(t, MX, nil)
	c := h.dial()
	if got := c.want("220"); got != "220 mx.local.example ESMTP" {
		t.Errorf("greeting %q", got)
	}
	c.send("EHLO client.example\r\n")
	got := c.want("250-mx.local.example\n")
	for _, ext := range []string{"PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING", "BINARYMIME", "LIMITS RCPTMAX=1000"} {
		if !strings.Contains(got+"\n", " "+ext+"\n") && !strings.Contains(got+"\n", "-"+ext+"\n") {
			t.Errorf("EHLO lacks %s: %q", ext, got)
		}
	}
	for _, ext := range []string{"STARTTLS", "AUTH", "XCLIENT"} {
		if strings.Contains(got, ext) {
			t.Errorf("EHLO offers %s without having it", ext)
		}
	}
	c.do("HELO client.example", "250 mx.local.example")
}

// TestReplies are single commands and their replies, after EHLO.
func TestReplies(t *testing.T) {
	const tx = "MAIL FROM:<a@b.example>|250 2.1.0|RCPT TO:<c@local.example>|250 2.1.5|"
	rows := []struct{ name, dialogue string }{
		{"noop", "NOOP x y|250 2.0.0"},
		{"help", "HELP MAIL|214 2.0.0"},
		{"vrfy", "VRFY alice|252 2."},
		{"vrfy nothing", "VRFY|501 5.5.4"},
		{"expn", "EXPN list|502 5.5.1"},
		{"rset", "RSET|250 2.0.0"},
		{"rset argument", "RSET x|501 5.5.4"},
		{"unknown", "FOO BAR|500 5.5.2"},
		{"empty line", "|500 5.5.2"},
		{"long verb", strings.Repeat("A", 100) + "|500 5.5.2"},
		{"ehlo nothing", "EHLO|501 Say"},
		{"lhlo on smtp", "LHLO x|500 5.5.2"},
		{"case", "mAiL fRoM:<a@b.example>|250 2.1.0"},
		{"space after colon", "MAIL FROM: <a@b.example>|250 2.1.0"},
		{"no brackets", "MAIL FROM:a@b.example|250"},
		{"null path", "MAIL FROM:<>|250 2.1.0"},
		{"bare sender", "MAIL FROM:<postmaster>|250"},
		{"source route", "MAIL FROM:<@x.example,@y.example:a@b.example>|250 2.1.0"},
		{"bad route", "MAIL FROM:<@x.example,y:a@b.example>|250"},
		{"unclosed", "MAIL FROM:<a@b.example|501 5.1.7"},
		{"glued parameter", "MAIL FROM:<a@b.example>SIZE=1|501 5.1.7"},
		{"nested", "MAIL FROM:<a@b.example>|250|MAIL FROM:<a@b.example>|503 5.5.1"},
		{"rcpt first", "RCPT TO:<a@b.example>|503 5.5.1"},
		{"data first", "DATA|503 5.5.1"},
		{"data without rcpt", "MAIL FROM:<>|250|DATA|503 5.5.1"},
		{"data argument", tx + "DATA now|501 5.5.4"},
		{"postmaster", "MAIL FROM:<>|250|RCPT TO:<postmaster>|250 2.1.5|RCPT TO:<PostMaster>|250"},
		{"other bare", "MAIL FROM:<>|250|RCPT TO:<alice>|250"},
		{"empty rcpt", "MAIL FROM:<>|250|RCPT TO:<>|501 5.1.3"},
		{"two ats", "MAIL FROM:<>|250|RCPT TO:<a@b@c.example>|250"},
		{"two dots", "MAIL FROM:<>|250|RCPT TO:<a..b@c.example>|250"},
		{"quoted", `MAIL FROM:<>|250|RCPT TO:<"x y> NOTIFY=NEVER"@d.example>|250 2.1.5`},
		{"size", "MAIL FROM:<> SIZE=52428800|250"},
		{"size too big", "MAIL FROM:<> SIZE=52428801|552 5.3.4"},
		{"size absurd", "MAIL FROM:<> SIZE=99999999999999999999|552 5.3.4"},
		{"size no number", "MAIL FROM:<> SIZE=-1|501 5.5.4"},
		{"size twice", "MAIL FROM:<> SIZE=1 SIZE=2|501 5.5.4"},
		{"body", "MAIL FROM:<> BODY=8bitmime|250"},
		{"body unknown", "MAIL FROM:<> BODY=9BIT|555 5.5.4"},
		{"unknown parameter", "MAIL FROM:<> FOO=1|555 5.5.4"},
		{"rcpt parameter", "MAIL FROM:<>|250|RCPT TO:<a@b.example> FOO|555 5.5.4"},
		{"ret", "MAIL FROM:<> RET=hdrs ENVID=a+2Bb|250"},
		{"ret bad", "MAIL FROM:<> RET=SOME|501"},
		{"envid injection", "MAIL FROM:<> ENVID=a+0D+0AX|501"},
		{"auth parameter", "MAIL FROM:<> AUTH=<>|250"},
		{"notify", "MAIL FROM:<>|250|RCPT TO:<a@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bx@b.example|250"},
		{"notify never and", "MAIL FROM:<>|250|RCPT TO:<a@b.example> NOTIFY=NEVER,DELAY|501"},
		{"notify twice same", "MAIL FROM:<>|250|RCPT TO:<a@b.example> NOTIFY=DELAY,DELAY|250"},
		{"orcpt bad", "MAIL FROM:<>|250|RCPT TO:<a@b.example> ORCPT=rfc822|501"},
		{"orcpt injection", "MAIL FROM:<>|250|RCPT TO:<a@b.example> ORCPT=rfc822;a+0Ab|501"},
		{"8-bit sender", "MAIL FROM:<\u00e4@b.example>|250"},
		{"8-bit sender with SMTPUTF8", "MAIL FROM:<\u00e4@b.example> SMTPUTF8|250"},
		{"8-bit rcpt", "MAIL FROM:<>|250|RCPT TO:<\u00e4@b.example>|250"},
		{"8-bit rcpt with SMTPUTF8", "MAIL FROM:<> SMTPUTF8|250|RCPT TO:<\u00e4@b.example>|250"},
		{"smtputf8 value", "MAIL FROM:<> SMTPUTF8=1|555 5.5.4"},
		{"8-bit ehlo", "EHLO m\u00e4il.example|250-"},
		{"not utf-8", "NOOP \xff|500 5.5.2"},
		{"NUL", "NOOP \x00|500 5.5.2"},
		{"bare CR", "NOOP a\rNOOP|500 5.5.2"},
		{"etrn", "ETRN x|500"},
		{"turn", "TURN|500"},
		{"starttls without", "STARTTLS|502 5.5.1"},
		{"auth on mx", "AUTH PLAIN AGEAYg==|503 5.5.1"},
		{"xclient from nobody", "XCLIENT ADDR=192.0.2.1|550 5.7.0"},
		{"binary by DATA", "MAIL FROM:<> BODY=BINARYMIME|250|RCPT TO:<c@local.example>|250|DATA|503 5.5.1"},
		{"http", "GET / HTTP/1.1|221 2.7.0"},
		{"header", "Subject: x|221 2.7.0"},
		{"glued mail", "MAILFROM:<a@b.example>|221 2.7.0"},
	}
	h := open(t, MX, nil)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c := h.hello()
			c.t = t
			words := strings.Split(row.dialogue, "|")
			c.do(words...)
			if last := words[len(words)-1]; strings.HasPrefix(last, "421") || strings.HasPrefix(last, "221") {
				c.closed()
			}
		})
	}
}

func TestHelloFirst(t *testing.T) {
	h := open(t, MX, nil)
	c := h.dial()
	c.want("220")
	c.do("MAIL FROM:<a@b.example>", "503 5.5.1", "NOOP", "250", "RSET", "250", "QUIT", "221 2.0.0")
	c.closed()
}

func TestMessage(t *testing.T) {
	h := open(t, MX, nil)
	c := h.hello()
	c.do("MAIL FROM:<a@b.example> SIZE=99 BODY=8BITMIME RET=HDRS ENVID=q+2B1", "250",
		"RCPT TO:<c@local.example> NOTIFY=FAILURE ORCPT=rfc822;x+2By@z.example", "250", "DATA", "354",
		"Subject: x\r\n\r\n..dot\r\n..\r\n.x\r\nend\r\n.", "250 2.0.0")
	c.do("MAIL FROM:<>", "250", "RCPT TO:<c@local.example>", "250", "RCPT TO:<d@local.example>", "250", "DATA", "354", ".", "250")
	got := h.courier.taken()
	if len(got) != 2 {
		t.Fatalf("%d messages", len(got))
	}
	m := got[0]
	if want := "Subject: x\r\n\r\n.dot\r\n.\r\nx\r\nend\r\n"; m.text != want {
		t.Errorf("text %q, want %q", m.text, want)
	}
	if m.env.Return != "HDRS" || m.env.EnvID != "q+1" || m.env.Rcpts[0].ORcpt != "rfc822;x+y@z.example" ||
		fmt.Sprint(m.env.Rcpts[0].Notify) != "[FAILURE]" || m.env.Size != 99 || m.env.Body != mail.Body8Bit || m.env.Protocol != "ESMTP" {
		t.Errorf("envelope %+v", m.env)
	}
	for _, want := range []string{"Received: from client.example ([127.0.0.1])\r\n\tby mx.local.example with ESMTP id " + string(m.env.ID), "\r\n\tfor <c@local.example>;\r\n\t"} {
		if !strings.Contains(m.trace, want) {
			t.Errorf("trace %q lacks %q", m.trace, want)
		}
	}
	if got[1].text != "" || strings.Contains(got[1].trace, "for <") {
		t.Errorf("second message %+v", got[1])
	}
	if h.srv.Stats().Messages != 2 {
		t.Errorf("stats %+v", h.srv.Stats())
	}
	if n := strings.Count(h.log.String(), "msg=\"message accepted\""); n != 2 {
		t.Errorf("%d lines in the log: %s", n, h.log)
	}
}

// TestPipelining: the replies to a group share one write (RFC 2920 §3.2).
func TestPipelining(t *testing.T) {
	h := open(t, MX, nil)
	c := h.hello()
	c.send("MAIL FROM:<>\r\nRCPT TO:<a@local.example>\r\nRCPT TO:<b@local.example>\r\nRSET\r\nNOOP\r\n")
	buf := make([]byte, 4096)
	n, err := c.nc.Read(buf)
	if got := strings.Count(string(buf[:n]), "\r\n"); err != nil || got != 5 {
		t.Errorf("first read has %d replies (%v): %q", got, err, buf[:n])
	}
	c.send("MAIL FROM:<>\r\nRCPT TO:<a@local.example>\r\nDATA\r\n")
	for _, want := range []string{"250", "250", "354"} {
		c.want(want)
	}
	c.send("x\r\n.\r\nMAIL FROM:<>\r\nQUIT\r\nNOOP\r\n")
	for _, want := range []string{"250 2.0.0", "250 2.1.0", "221"} {
		c.want(want)
	}
	c.closed()
}

func TestFailures(t *testing.T) {
	full := errors.New("disk is full")
	rows := []struct {
		name   string
		change func(*courier)
		want   string // after DATA or after the dot
	}{
		{"begin", func(c *courier) { c.begin = func() error { return full } }, "451 4.3.0"},
		{"write", func(c *courier) { c.write = func([]byte) error { return full } }, "451 4.3.0"},
		{"commit", func(c *courier) { c.commit = func(*mail.Envelope) ([]mail.Status, error) { return nil, full } }, "451 4.3.0"},
		{"all refused", func(c *courier) {
			c.commit = func(*mail.Envelope) ([]mail.Status, error) {
				return []mail.Status{{Code: 550, Enhanced: "5.1.1", Text: "no"}, {Code: 452, Enhanced: "4.2.2", Text: "full"}}, nil
			}
		}, "452 4.2.2"},
		{"one refused", func(c *courier) {
			c.commit = func(*mail.Envelope) ([]mail.Status, error) {
				return []mail.Status{{Code: 550, Enhanced: "5.1.1", Text: "no"}, {}}, nil
			}
		}, "250 2.0.0"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			h := open(t, MX, func(_ *Config, h *house) { row.change(h.courier) })
			c := h.hello()
			c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "RCPT TO:<b@local.example>", "250")
			c.send("DATA\r\n")
			got, _ := c.read()
			if strings.HasPrefix(got, "354") {
				c.send("x\r\n.\r\n")
				got, _ = c.read()
			}
			if !strings.HasPrefix(got, row.want) {
				t.Errorf("reply %q, want %q", got, row.want)
			}
			c.do("NOOP", "250")
		})
	}
}

func TestLMTP(t *testing.T) {
	h := open(t, LMTP, func(_ *Config, h *house) {
		h.courier.recipient = func(_ *mail.Envelope, to mail.Recipient) mail.Status {
			if to.To.Local() == "nobody" {
				return mail.Status{Code: 550, Enhanced: "5.1.1", Text: "User unknown"}
			}
			return mail.Status{}
		}
		h.courier.commit = func(env *mail.Envelope) ([]mail.Status, error) {
			if env.Rcpts[0].To.Local() != "a" {
				return nil, nil
			}
			return []mail.Status{{}, {Code: 452, Enhanced: "4.2.2", Text: "Mailbox full"}}, nil
		}
	})
	c := h.dial()
	c.want("220 mx.local.example LMTP")
	c.do("EHLO x", "500 5.5.1", "LHLO client.example", "250-mx.local.example",
		"MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "RCPT TO:<nobody@local.example>", "550 5.1.1",
		"RCPT TO:<b@local.example>", "250", "DATA", "354", "x\r\n.", "250 2.0.0")
	c.want("452 4.2.2")
	c.do("MAIL FROM:<>", "250", "RCPT TO:<c@local.example>", "250", "RCPT TO:<d@local.example>", "250",
		"BDAT 3 LAST\r\nx", "250")
	c.want("250")
	c.do("MAIL FROM:<>", "250", "RCPT TO:<c@local.example>", "250", "RCPT TO:<d@local.example>", "250",
		"DATA", "354", "bare\nnewline\r\n.", "550 5.5.2")
	c.want("550 5.5.2")
	c.do("NOOP", "250")
	if p := h.courier.taken()[0].env.Protocol; p != "LMTP" {
		t.Errorf("protocol %q", p)
	}
}

func TestHalfClosed(t *testing.T) {
	h := open(t, MX, nil)
	c := h.hello()
	c.send("NOOP\r\nNOOP\r\nNOO")
	if err := c.nc.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(c.r)
	if err != nil || strings.Count(string(all), "250 2.0.0") != 2 {
		t.Errorf("%q, %v", all, err)
	}
	until(t, "the session's end", func() bool { return h.srv.Stats().Open == 0 })
}

func TestMessageLimit(t *testing.T) {
	h := open(t, MX, func(c *Config, _ *house) { c.Limits.Messages = 1 })
	c := h.dial()
	c.want("220")
	c.send("EHLO client.example\r\n")
	if got := c.want("250"); !strings.HasSuffix(got, "\n250 LIMITS RCPTMAX=1000 MAILMAX=1") {
		t.Errorf("EHLO %q", got)
	}
	c.do("MAIL FROM:<>", "250", "RSET", "250", "MAIL FROM:<>", "421 4.5.3")
	c.closed()
}

func TestClientNames(t *testing.T) {
	h := open(t, MX, func(c *Config, _ *house) {
		c.Names = func(_ context.Context, addr netip.Addr) (string, string) {
			return "good." + addr.String() + ".example", "any.example"
		}
	})
	c := h.hello()
	c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354", ".", "250")
	ev, m := h.policy.heard()[0], h.courier.taken()[0]
	if ev.ClientName != "good.127.0.0.1.example" || ev.ReverseName != "any.example" || !strings.Contains(m.trace, "client.example (good.127.0.0.1.example [127.0.0.1])") {
		t.Errorf("%+v %q", ev, m.trace)
	}
}
