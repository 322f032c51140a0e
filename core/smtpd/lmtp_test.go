package smtpd

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// TestLMTPReplies: one reply for each accepted RCPT, in their order, whatever
// became of each (RFC 2033 §4.2).
func TestLMTPReplies(t *testing.T) {
	full := mail.Status{Code: 452, Enhanced: "4.2.2", Text: "Mailbox full"}
	gone := mail.Status{Code: 550, Enhanced: "5.2.1", Text: "Mailbox gone"}
	for _, row := range []struct {
		name     string
		statuses []mail.Status
		err      error
		want     string
	}{
		{"all well", nil, nil, "250 2.0.0|250 2.0.0|250 2.0.0"},
		{"mixed", []mail.Status{full, {}, gone}, nil, "452 4.2.2|250 2.0.0|550 5.2.1"},
		{"own words", []mail.Status{{Code: 250, Enhanced: "2.1.5", Text: "kept"}, {}, {}}, nil, "250 2.1.5 kept|250 2.0.0|250 2.0.0"},
		{"none", []mail.Status{gone, full, gone}, nil, "550 5.2.1|452 4.2.2|550 5.2.1"},
		{"no disk", nil, errors.New("no disk"), "451 4.3.0|451 4.3.0|451 4.3.0"},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprint(row.name, " chunked ", chunked), func(t *testing.T) {
				h := open(t, LMTP, func(_ *Config, h *house) {
					h.courier.commit = func(*mail.Envelope) ([]mail.Status, error) { return row.statuses, row.err }
				})
				c := h.hello()
				// The same recipient twice is two recipients.
				c.do("MAIL FROM:<>", "250", "RCPT TO:<a@local.example>", "250", "RCPT TO:<b@local.example>", "250", "RCPT TO:<a@local.example>", "250")
				if chunked {
					c.send("BDAT 5\r\nx\r\n\r\n")
					c.want("250 2.0.0")
					c.send("BDAT 0 LAST\r\nNOOP\r\n")
				} else {
					c.do("DATA", "354")
					c.send("x\r\n.\r\nNOOP\r\n")
				}
				for _, want := range strings.Split(row.want, "|") {
					c.want(want)
				}
				c.want("250 2.0.0 Ok")
				c.do("MAIL FROM:<>", "250") // the transaction is over
			})
		}
	}
}

// TestLMTPPolicy: a refusal of the message is one for each recipient; what the
// policy wants for one alone reaches the courier as that one's.
func TestLMTPPolicy(t *testing.T) {
	refuse := false
	h := open(t, LMTP, func(_ *Config, h *house) {
		h.policy.ask = func(ev *policy.Event) policy.Decision {
			switch {
			case ev.Stage == policy.Message && refuse:
				return policy.Decision{Action: policy.Reject, Status: mail.Status{Code: 554, Enhanced: "5.7.1", Text: "no"}}
			case ev.Stage == policy.Rcpt && ev.Recipient.Local() == "drop":
				return policy.Decision{Action: policy.Discard}
			case ev.Stage == policy.Rcpt && ev.Recipient.Local() == "junk":
				return policy.Decision{Action: policy.Quarantine}
			case ev.Stage == policy.Rcpt && ev.Recipient.Local() == "never":
				return policy.Decision{Action: policy.Reject, Status: mail.Status{Code: 550, Enhanced: "5.7.1", Text: "never"}}
			}
			return policy.Decision{}
		}
	})
	c := h.hello()
	to := []string{"MAIL FROM:<>", "250", "RCPT TO:<drop@local.example>", "250", "RCPT TO:<never@local.example>", "550", "RCPT TO:<junk@local.example>", "250", "RCPT TO:<a@local.example>", "250", "DATA", "354"}
	c.do(to...)
	c.send("x\r\n.\r\n")
	for range 3 {
		c.want("250 2.0.0")
	}
	d := h.courier.taken()[0].d
	if !d.For(0).Discard || !d.For(1).Quarantine || d.For(2) != (Fate{}) {
		t.Errorf("%+v", d)
	}
	refuse = true
	c.do(to...)
	c.send("x\r\n.\r\n")
	for range 3 {
		c.want("554 5.7.1 no")
	}
	c.do("NOOP", "250")
	if got := h.policy.heard()[0]; got.Protocol != "lmtp" || got.Door != "lmtp" {
		t.Errorf("%+v", got)
	}
}

// TestLMTPManners are the differences from SMTP.
func TestLMTPManners(t *testing.T) {
	h := open(t, LMTP, func(c *Config, h *house) {
		c.Limits.HardErrors = 5
		h.courier.recipient = func(_ *mail.Envelope, to mail.Recipient) mail.Status {
			if strings.HasPrefix(to.To.Local(), "nobody") {
				return mail.Status{Code: 550, Enhanced: "5.1.1", Text: "User unknown"}
			}
			return mail.Status{}
		}
	})
	c := h.hello()
	c.do("HELO x", "500 5.5.1", "EHLO x", "500 5.5.1", "AUTH PLAIN", "503", "MAIL FROM:<>", "250",
		"DATA", "503 5.5.1", "RCPT TO:<nobody@local.example>", "550 5.1.1",
		"DATA", "503 5.5.1") // not 554 (RFC 2033 §4.2)
	c.send("BDAT 1 LAST\r\nx")
	c.want("503 5.5.1")
	for i := range 40 { // a mailing list with many who have left
		c.do(fmt.Sprintf("RCPT TO:<nobody%d@local.example>", i), "550 5.1.1")
	}
	c.do("RCPT TO:<a@local.example>", "250", "DATA", "354", "x\r\n.", "250", "QUIT", "221")
}

func TestLMTPSwaks(t *testing.T) {
	swaks, err := exec.LookPath("swaks")
	if err != nil {
		t.Skip("swaks is not installed")
	}
	h := open(t, LMTP, func(_ *Config, h *house) {
		h.courier.commit = func(*mail.Envelope) ([]mail.Status, error) {
			return []mail.Status{{}, {Code: 550, Enhanced: "5.2.1", Text: "Mailbox gone"}}, nil
		}
	})
	_, port, _ := strings.Cut(h.addr, ":")
	out, err := exec.CommandContext(t.Context(), swaks, "--protocol", "LMTP", "--server", "127.0.0.1", "--port", port,
		"--from", "x@example.net", "--to", "a@local.example,b@local.example").CombinedOutput()
	if err != nil && !strings.Contains(string(out), "550 5.2.1 Mailbox gone") {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), " -> LHLO ") || !strings.Contains(string(out), "250 2.0.0 Message accepted") {
		t.Errorf("%s", out)
	}
}
