package milter

import (
	"context"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/policy"
)

// TestPolicy: as a check of a policy, what it says is legal, refuses and counts.
func TestPolicy(t *testing.T) {
	f := (&fake{says: func(_ int, cmd byte, data string) (string, bool) {
		switch {
		case cmd == cmdHelo && strings.HasPrefix(data, "liar"):
			return pack('y', "550 5.7.1 not your name\x00"), true
		case cmd == cmdRcpt && strings.HasPrefix(data, "<full"):
			return pack('t', ""), true
		case cmd == cmdEOB:
			return pack('b', "x") + pack('m', "\x00\x00\x00\x01From\x00new\x00") + pack('m', "\x00\x00\x00\x01Subject\x00new\x00") +
				pack('+', "<x@d.example>\x00") + pack('i', "\x00\x00\x00\x01X-A\x00b\x00") + pack('q', "look\x00") + pack('a', ""), true
		}
		return "", true
	}}).start(t)
	check := &policy.Check{Name: "rspamd", Plugin: open(t, Options{Address: f.address}), At: Stages()}
	set := policy.NewSet([]*policy.Policy{{Name: "in", On: []string{"mx"}, Checks: []*policy.Check{check}}}, policy.SetOptions{})
	judge := set.Session("mx")
	w := newWalk(t, nil)
	ask := func(stage policy.Stage) policy.Decision {
		w.ev.Stage = stage
		return judge.Ask(context.Background(), &w.ev)
	}
	ask(policy.Connect)
	w.ev.Helo = "liar.example"
	ask(policy.Helo)
	w.envelope("Q1", "a@b.example")
	w.ev.Recipient = pathOf(t, "r@d.example")
	if d := ask(policy.Rcpt); d.Action != policy.Reject || !strings.HasPrefix(d.Status.Text, "not your name (") {
		t.Errorf("the held refusal: %+v", d)
	}
	w.ev.Helo = "h.example"
	for _, stage := range []policy.Stage{policy.Helo, policy.Mail, policy.Rcpt} {
		if d := ask(stage); d.Refused() {
			t.Errorf("%s: %+v", stage, d)
		}
	}
	w.ev.Rcpts, w.ev.Recipient = pathsOf(t, "r@d.example"), pathOf(t, "full@d.example")
	if d := ask(policy.Rcpt); d.Action != policy.Defer || d.Status.Code != 451 {
		t.Errorf("a recipient: %+v", d)
	}
	ask(policy.Data)
	w.ev.Content, w.ev.Size = contentOf(simpleMessage), int64(len(simpleMessage))
	d := ask(policy.Message)
	if d.Action != policy.Hold || d.Reason != "milter-quarantine" || len(d.Effects.Prepend) != 1 || len(d.Effects.BCC) != 1 {
		t.Errorf("the message: %+v", d)
	}
	tally := set.Tallies()["in/rspamd"]
	if tally.Errors != 0 || tally.Metrics["not-applied-change-header"] != 2 || tally.Metrics["not-applied-replace-body"] != 1 {
		t.Errorf("%+v", tally)
	}
	want(t, f, "all", "O; C c.example|4|4711|192.0.2.7; H liar.example; H h.example; M <a@b.example>; R <r@d.example>; R <full@d.example>; T; "+told)
}
