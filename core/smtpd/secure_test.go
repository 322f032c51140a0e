package smtpd

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

func withTLS(c *Config, h *house) { c.TLS = testTLS(h.t) }

func TestStartTLS(t *testing.T) {
	h := open(t, MX, withTLS)
	c := h.hello()
	c.do("STARTTLS now", "501", "MAIL FROM:<>", "250")
	c.startTLS()
	// Everything said before is forgotten (RFC 3207 §4.2).
	c.do("RCPT TO:<a@local.example>", "503", "MAIL FROM:<>", "503")
	c.send("EHLO client.example\r\n")
	if got := c.want("250-"); strings.Contains(got, "STARTTLS") {
		t.Errorf("STARTTLS inside TLS: %q", got)
	}
	c.do("STARTTLS", "503", "MAIL FROM:<> SMTPUTF8", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354", "x\r\n.", "250")
	m := h.courier.taken()[0]
	if m.env.Protocol != "UTF8SMTPS" || m.env.Client.TLS.Version != "TLSv1.3" || !strings.Contains(m.trace, "\r\n\ttls TLS_") {
		t.Errorf("envelope %+v, trace %q", m.env, m.trace)
	}
	st := c.nc.(*tls.Conn).ConnectionState()
	if st.Version < tls.VersionTLS12 {
		t.Errorf("TLS version %x", st.Version)
	}
}

// TestStartTLSInjection: what was sent in the clear after STARTTLS is never
// obeyed.
func TestStartTLSInjection(t *testing.T) {
	h := open(t, MX, withTLS)
	c := h.hello()
	c.send("STARTTLS\r\nMAIL FROM:<mallory@b.example>\r\n")
	c.want("554 5.5.0")
	c.closed()
}

// TestFailedHandshake: no plain text after it (libraries.md §1.3.9).
func TestFailedHandshake(t *testing.T) {
	h := open(t, MX, withTLS)
	c := h.hello()
	c.do("STARTTLS", "220")
	c.send("MAIL FROM:<>\r\nRCPT TO:<a@local.example>\r\n")
	if got, _ := io.ReadAll(c.r); strings.Contains(string(got), "250") {
		t.Errorf("%q", got)
	}
	for _, stage := range h.policy.stages() {
		if stage == policy.Mail {
			t.Error("MAIL was obeyed after a failed handshake")
		}
	}
}

func TestHandshakeTimeout(t *testing.T) {
	h := open(t, Submissions, func(c *Config, _ *house) { c.Limits.Handshake = 30 * time.Millisecond })
	c := h.dial()
	_, _ = io.ReadAll(c.r)
	c.closed()
}

func TestTLSSettings(t *testing.T) {
	cert := testTLS(t)
	cert.MinVersion = tls.VersionTLS10
	cert.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return testTLS(t), nil }
	for _, mx := range []bool{true, false} {
		c := hardened(cert, mx)
		inner, err := c.GetConfigForClient(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []*tls.Config{c, inner} {
			if c.MinVersion != tls.VersionTLS12 || c.SessionTicketsDisabled != mx {
				t.Errorf("mx %v: version %x, tickets disabled %v", mx, c.MinVersion, c.SessionTicketsDisabled)
			}
		}
	}
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestAuth(t *testing.T) {
	good := b64("\x00alice@local.example\x00wonderland")
	rows := []struct{ name, dialogue string }{
		{"initial response", "AUTH PLAIN " + good + "|235 2.7.0"},
		{"small letters", "auth plain " + good + "|235 2.7.0"},
		{"challenge", "AUTH PLAIN|334 |" + good + "|235 2.7.0"},
		{"login", "AUTH LOGIN|334 VXNlcm5hbWU6|" + b64("alice@local.example") + "|334 UGFzc3dvcmQ6|" + b64("wonderland") + "|235"},
		{"login with name", "AUTH LOGIN " + b64("alice@local.example") + "|334 UGFzc3dvcmQ6|" + b64("wonderland") + "|235"},
		{"wrong", "AUTH PLAIN " + b64("\x00alice@local.example\x00no") + "|535 5.7.8|MAIL FROM:<>|530 5.7.0"},
		{"unknown user", "AUTH PLAIN " + b64("\x00nobody@local.example\x00no") + "|535 5.7.8"},
		{"acting as another", "AUTH PLAIN " + b64("bob@local.example\x00alice@local.example\x00wonderland") + "|535 5.7.8"},
		{"empty initial response", "AUTH PLAIN =|501 5.5.2"},
		{"cancel", "AUTH PLAIN|334|*|501 5.7.0|NOOP|250"},
		{"no base64", "AUTH PLAIN !!!!|501 5.5.2|AUTH PLAIN|334|not base64|501 5.5.2"},
		{"no mechanism", "AUTH|501 5.5.4"},
		{"unknown mechanism", "AUTH FOO|504 5.5.4"},
		{"three words", "AUTH PLAIN a b|501 5.5.4"},
		{"twice", "AUTH PLAIN " + good + "|235|AUTH PLAIN " + good + "|503 5.5.1"},
		{"without", "MAIL FROM:<>|530 5.7.0"},
		{"kept over RSET and EHLO", "AUTH PLAIN " + good + "|235|RSET|250|EHLO x|250|MAIL FROM:<>|250"},
		{"in a transaction", "AUTH PLAIN|334|*|501|NOOP|250"},
		{"12288 octets", "AUTH PLAIN|334|" + strings.Repeat("A", 12284) + "|501 5.5.2"},
		{"more than 12288 octets", "AUTH PLAIN|334|" + strings.Repeat("A", 12288) + "|500 5.5.6"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			h := open(t, Submission, nil)
			c := h.hello()
			c.do(strings.Split(row.dialogue, "|")...)
		})
	}
}

// TestAuthNeedsTLS: not offered and not obeyed in the clear.
func TestAuthNeedsTLS(t *testing.T) {
	h := open(t, Submission, func(c *Config, h *house) { withTLS(c, h); c.AuthLoopback = false })
	c := h.dial()
	c.want("220")
	c.send("EHLO client.example\r\n")
	if got := c.want("250"); strings.Contains(got, "AUTH") {
		t.Errorf("AUTH in the clear: %q", got)
	}
	c.do("AUTH PLAIN "+b64("\x00alice@local.example\x00wonderland"), "538 5.7.11", "MAIL FROM:<>", "530 5.7.0")
	c.startTLS()
	c.send("EHLO client.example\r\n")
	if got := c.want("250"); !strings.Contains(got, "AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN") {
		t.Errorf("no AUTH inside TLS: %q", got)
	}
	c.do("AUTH PLAIN "+b64("\x00alice@local.example\x00wonderland"), "235",
		"MAIL FROM:<alice@local.example>", "250", "RCPT TO:<x@example.net>", "250", "DATA", "354", "Subject: x\r\n\r\ny\r\n.", "250")
	m := h.courier.taken()[0]
	if m.env.Protocol != "ESMTPSA" || m.env.User != "alice@local.example" {
		t.Errorf("envelope %+v", m.env)
	}
	// Submission completes the header (RFC 6409 §8).
	if !strings.Contains(m.trace, "\r\nMessage-ID: <"+string(m.env.ID)+"@mx.local.example>\r\nDate: ") {
		t.Errorf("trace %q", m.trace)
	}
	c.do("MAIL FROM:<alice@local.example>", "250", "RCPT TO:<x@example.net>", "250", "DATA", "354", "date: x\r\nMessage-Id: <y>\r\n\r\ny\r\n.", "250")
	if m := h.courier.taken()[1]; strings.Contains(m.trace, "Date:") || strings.Contains(m.trace, "Message-ID") {
		t.Errorf("trace %q", m.trace)
	}
}

// TestAuthPolicy: the policy hears of every attempt, and secrets stay out of
// the log.
func TestAuthPolicy(t *testing.T) {
	h := open(t, Submission, func(_ *Config, h *house) {
		h.policy.ask = func(ev *policy.Event) policy.Decision {
			if ev.Stage == policy.Auth && ev.AuthOK && ev.User == "bob@local.example" {
				return policy.Decision{Action: policy.Reject, Status: mail.Status{Code: 535, Enhanced: "5.7.8", Text: "not today"}}
			}
			return policy.Decision{}
		}
	})
	c := h.hello()
	c.do("AUTH PLAIN "+b64("\x00bob@local.example\x00wonderland"), "535 5.7.8 not today", "MAIL FROM:<>", "530")
	var heard []policy.Event
	for _, ev := range h.policy.heard() {
		if ev.Stage == policy.Auth {
			heard = append(heard, ev)
		}
	}
	if len(heard) != 1 || heard[0].Mechanism != "PLAIN" || !heard[0].AuthOK {
		t.Errorf("%+v", heard)
	}
	if strings.Contains(h.log.String(), b64("\x00bob@local.example\x00wonderland")) {
		t.Error("password in the log")
	}
}

// TestGoSMTPClient is a client written by somebody else: DATA and STARTTLS,
// AUTH, parameters, LMTP.
func TestGoSMTPClient(t *testing.T) {
	h := open(t, Submissions, nil)
	nc, err := tls.Dial("tcp", h.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	cl := smtp.NewClient(nc)
	defer cl.Close()
	if err := cl.Auth(sasl.NewPlainClient("", "alice@local.example", "wrong")); err == nil {
		t.Fatal("logged in with a wrong password")
	} else if se := (*smtp.SMTPError)(nil); !errors.As(err, &se) || se.Code != 535 || se.EnhancedCode != (smtp.EnhancedCode{5, 7, 8}) {
		t.Fatalf("%v", err)
	}
	if err := cl.Auth(sasl.NewPlainClient("", "alice@local.example", "wonderland")); err != nil {
		t.Fatal(err)
	}
	if err := cl.Mail("alice@local.example", &smtp.MailOptions{Size: 10, UTF8: true, Return: smtp.DSNReturnFull, EnvelopeID: "a+b"}); err != nil {
		t.Fatal(err)
	}
	if err := cl.Rcpt("x@example.net", &smtp.RcptOptions{Notify: []smtp.DSNNotify{smtp.DSNNotifyDelayed}}); err != nil {
		t.Fatal(err)
	}
	w, err := cl.Data()
	if err != nil {
		t.Fatal(err)
	}
	const text = "Subject: x\r\n\r\n.dots\r\n..\r\n"
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cl.Quit(); err != nil {
		t.Fatal(err)
	}
	m := h.courier.taken()[0]
	if m.text != text || m.env.EnvID != "a+b" || m.env.Protocol != "UTF8SMTPSA" {
		t.Errorf("%+v", m)
	}
}

func TestImplicitTLSGreeting(t *testing.T) {
	h := open(t, Submissions, nil)
	nc, err := tls.Dial("tcp", h.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, nc)
	c.r = bufio.NewReader(nc)
	c.want("220 mx.local.example ESMTP")
	c.do("QUIT", "221")
}
