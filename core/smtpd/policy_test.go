package smtpd

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

func refuse(code int, text string) policy.Decision {
	a := policy.Reject
	if code < 500 {
		a = policy.Defer
	}
	return policy.Decision{Action: a, Status: mail.Status{Code: code, Enhanced: fmt.Sprint(code/100, ".7.1"), Text: text}}
}

// TestStages: which stages are asked, and how often.
func TestStages(t *testing.T) {
	h := open(t, MX, withTLS)
	c := h.hello()
	c.do("HELO again.example", "250")
	c.startTLS()
	c.do("EHLO client.example", "250", "MAIL FROM:<a@b.example>", "250", "RCPT TO:<postmaster>", "250",
		"RCPT TO:<x@local.example>", "250", "RCPT TO:<y@local.example>", "250", "DATA", "354", "text\r\n.", "250",
		"MAIL FROM:<>", "250", "RCPT TO:<x@local.example>", "250", "BDAT 2\r\n", "250", "BDAT 0 LAST", "250", "QUIT", "221")
	const want = "[connect helo helo starttls helo mail rcpt rcpt data message mail rcpt data message]"
	if got := fmt.Sprint(h.policy.stages()); got != want {
		t.Errorf("stages %s, want %s", got, want)
	}
	ev := h.policy.heard()
	if !ev[1].Extended || ev[2].Extended || ev[2].Helo != "again.example" {
		t.Errorf("helo events %+v %+v", ev[1], ev[2])
	}
	if ev[7].Recipient.String() != "y@local.example" || len(ev[7].Rcpts) != 2 {
		t.Errorf("second rcpt %+v", ev[7])
	}
	if ev[9].Size != 6 || len(ev[9].Rcpts) != 3 || !ev[9].Recipient.IsNull() || ev[9].QueueID == "" {
		t.Errorf("message %+v", ev[9])
	}
	if ev[13].Recipient.String() != "x@local.example" || ev[13].Size != 2 || !ev[13].HasSender || !ev[13].Sender.IsNull() {
		t.Errorf("second message %+v", ev[13])
	}
}

func TestRefusals(t *testing.T) {
	rows := []struct {
		name  string
		stage policy.Stage
		d     policy.Decision
		want  string // dialogue
	}{
		{"connect", policy.Connect, refuse(554, "not you"), "554 5.7.1 not you|closed"},
		{"helo", policy.Helo, refuse(550, "bad name"), "220|EHLO x|550 5.7.1|MAIL FROM:<>|503"},
		{"mail", policy.Mail, refuse(550, "no"), "220|EHLO x|250|MAIL FROM:<>|550 5.7.1|RCPT TO:<a@local.example>|503|MAIL FROM:<>|550"},
		{"rcpt", policy.Rcpt, refuse(450, "later"), "220|EHLO x|250|MAIL FROM:<>|250|RCPT TO:<a@local.example>|450 4.7.1|RCPT TO:<postmaster>|250|DATA|354"},
		{"only rcpt", policy.Rcpt, refuse(450, "later"), "220|EHLO x|250|MAIL FROM:<>|250|RCPT TO:<a@local.example>|450 4.7.1|DATA|554 5.5.1"},
		{"data", policy.Data, refuse(550, "no"), "220|EHLO x|250|MAIL FROM:<>|250|RCPT TO:<a@local.example>|250|DATA|550 5.7.1|RSET|250|NOOP|250"},
		{"bdat", policy.Data, refuse(550, "no"), "220|EHLO x|250|MAIL FROM:<>|250|RCPT TO:<a@local.example>|250|BDAT 6\r\nQUIT|550 5.7.1|BDAT 6 LAST\r\nQUIT|550 5.7.1|MAIL FROM:<>|250"},
		{"message", policy.Message, refuse(550, "spam\nreally"), "220|EHLO x|250|MAIL FROM:<>|250|RCPT TO:<a@local.example>|250|DATA|354|x\r\n.|550-5.7.1 spam\n550 5.7.1 really|MAIL FROM:<>|250"},
		{"hang up", policy.Mail, policy.Decision{Action: policy.Disconnect, Hangup: true, Status: mail.Status{Code: 521, Enhanced: "5.7.1", Text: "bye"}},
			"220|EHLO x|250|MAIL FROM:<>|521|closed"},
		{"421 closes", policy.Rcpt, refuse(421, "bye"), "220|EHLO x|250|MAIL FROM:<>|250|RCPT TO:<a@local.example>|421|closed"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			h := open(t, MX, func(_ *Config, h *house) {
				h.policy.ask = func(ev *policy.Event) policy.Decision {
					if ev.Stage == row.stage {
						return row.d
					}
					return policy.Decision{}
				}
			})
			c := h.dial()
			words := strings.Split(row.want, "|")
			c.want(words[0])
			for words = words[1:]; len(words) > 0; words = words[1:] {
				if words[0] == "closed" {
					c.closed()
					break
				}
				c.do(words[0], words[1])
				words = words[1:]
			}
			if n := len(h.courier.taken()); n != 0 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

// TestRefusedAfterTLS: the client's next command gets the answer.
func TestRefusedAfterTLS(t *testing.T) {
	h := open(t, MX, func(c *Config, h *house) {
		withTLS(c, h)
		h.policy.ask = func(ev *policy.Event) policy.Decision {
			if ev.Stage == policy.StartTLS {
				return refuse(554, "no such cipher")
			}
			return policy.Decision{}
		}
	})
	c := h.hello()
	c.startTLS()
	c.do("EHLO client.example", "554 5.7.1")
	c.closed()
}

// TestPolicyBeforeCore: which refusal a client is given is the policy's to
// order, but what it lets pass core still refuses.
func TestPolicyBeforeCore(t *testing.T) {
	h := open(t, MX, func(_ *Config, h *house) {
		h.courier.recipient = func(_ *mail.Envelope, to mail.Recipient) mail.Status {
			return mail.Status{Code: 554, Enhanced: "5.7.1", Text: "Relay access denied"}
		}
		h.policy.ask = func(ev *policy.Event) policy.Decision {
			if ev.Stage == policy.Rcpt && ev.Recipient.Local() == "held" {
				return refuse(550, "a helo that was held")
			}
			return policy.Decision{}
		}
	})
	c := h.hello()
	c.do("MAIL FROM:<>", "250", "RCPT TO:<a@b.example>", "554 5.7.1", "RCPT TO:<held@b.example>", "550 5.7.1", "DATA", "554 5.5.1")
	if got := fmt.Sprint(h.policy.stages()); got != "[connect helo mail rcpt rcpt]" {
		t.Errorf("stages %s", got)
	}
}

func TestEffects(t *testing.T) {
	h := open(t, MX, func(_ *Config, h *house) {
		h.policy.ask = func(ev *policy.Event) policy.Decision {
			field := policy.Field{Name: "X-Stage", Value: fmt.Sprint(ev.Stage, " ", strings.Repeat("word ", 20), "\r\nBcc: x")}
			d := policy.Decision{Effects: policy.Effects{Prepend: []policy.Field{field}, Score: 1, Tarpit: time.Nanosecond}}
			switch {
			case ev.Stage == policy.Rcpt && ev.Recipient.Local() == "junk":
				d.Action = policy.Quarantine
			case ev.Stage == policy.Rcpt && ev.Recipient.Local() == "drop":
				d.Action = policy.Discard
			case ev.Stage == policy.Rcpt && ev.Recipient.Local() == "no":
				d = refuse(550, "no")
			case ev.Stage == policy.Message && ev.Sender.Local() == "hold":
				d.Action = policy.Hold
			case ev.Stage == policy.Mail && ev.Sender.Local() == "drop":
				d.Action = policy.Discard
			}
			return d
		}
	})
	c := h.hello()
	c.do("EHLO client.example", "250")
	c.do("MAIL FROM:<hold@b.example>", "250", "RCPT TO:<a@local.example>", "250", "RCPT TO:<no@local.example>", "550", "RCPT TO:<junk@local.example>", "250",
		"RCPT TO:<drop@local.example>", "250", "DATA", "354", "x\r\n.", "250")
	c.do("MAIL FROM:<drop@b.example>", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354", "x\r\n.", "250 2.0.0")
	c.do("MAIL FROM:<x@b.example>", "250", "RCPT TO:<drop@local.example>", "250", "DATA", "354", "x\r\n.", "250 2.0.0")
	got := h.courier.taken()
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	d := got[0].d
	if f := d.For(0); f != (Fate{Hold: true}) {
		t.Errorf("first %+v", f)
	}
	if f := d.For(1); f != (Fate{Hold: true, Quarantine: true}) {
		t.Errorf("second %+v", f)
	}
	if f := d.For(2); f != (Fate{Hold: true, Discard: true}) {
		t.Errorf("third %+v", f)
	}
	// connect, helo (the last one only), mail, three recipients, data, message
	if d.Score != 8 || strings.Count(got[0].trace, "X-Stage:") != 8 {
		t.Errorf("score %v, trace %q", d.Score, got[0].trace)
	}
	wellFormed(t, got[0].trace)
	for _, line := range strings.Split(strings.TrimSuffix(got[0].trace, "\r\n"), "\r\n") {
		if len(line) > 78 || strings.HasPrefix(line, "Bcc") || line == "" {
			t.Errorf("line %q", line)
		}
	}
}

func TestEarlyTalker(t *testing.T) {
	for _, delay := range []time.Duration{50 * time.Millisecond, testPatience} {
		h := open(t, MX, func(c *Config, _ *house) { c.Limits.GreetDelay = delay })
		c := h.dial()
		if delay == testPatience {
			c.send("EHLO client.example\r\n")
		}
		c.want("220")
		if early := h.policy.heard()[0].EarlyTalker; early != (delay == testPatience) {
			t.Errorf("early talker %v with delay %v", early, delay)
		}
	}
	// Without a delay the socket is looked at once.
	gate := make(chan struct{})
	h := open(t, MX, func(c *Config, _ *house) {
		c.Begin = func(netip.Addr) Rules { <-gate; return Rules{Courier: &courier{}} }
	})
	c := h.dial()
	c.send("EHLO client.example\r\n")
	close(gate)
	c.want("220")
	if !h.policy.heard()[0].EarlyTalker {
		t.Error("early talker was not seen")
	}
}

// TestUnauthorisedPipelining: who does not wait where the protocol says so is
// flagged, who pipelines as agreed is not.
func TestUnauthorisedPipelining(t *testing.T) {
	rows := []struct {
		name, sent string
		early      bool
	}{
		{"after EHLO", "EHLO x\r\nMAIL FROM:<>\r\n", true},
		{"after HELO", "HELO x\r\nMAIL FROM:<>\r\n", true},
		{"agreed", "EHLO x\r\n|MAIL FROM:<>\r\nRCPT TO:<a@local.example>\r\n", false},
		{"HELO session", "HELO x\r\n|MAIL FROM:<>\r\nRCPT TO:<a@local.example>\r\n", true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			h := open(t, MX, nil)
			c := h.dial()
			c.want("220")
			for _, part := range strings.Split(row.sent, "|") {
				c.send(part)
				for range strings.Count(part, "\n") {
					c.want("250")
				}
			}
			if ev := h.policy.heard()[len(h.policy.heard())-1]; ev.EarlyTalker != row.early {
				t.Errorf("flag %v", ev.EarlyTalker)
			}
		})
	}
}

// TestNoPolicy: without a policy set nothing is objected to.
func TestNoPolicy(t *testing.T) {
	h := open(t, MX, func(_ *Config, h *house) {
		h.judge = func(r Rules) judge { return r.Policy.Session("mx") }
	})
	c := h.hello()
	c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354", "x\r\n.", "250")
}
