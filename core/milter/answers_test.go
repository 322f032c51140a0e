package milter

import (
	"reflect"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/policy"
)

// at answers cmd, and everything else with "continue".
func at(cmd byte, answers string) func(int, byte, string) (string, bool) {
	return func(_ int, c byte, _ string) (string, bool) {
		if c == cmd {
			return answers, true
		}
		return "", true
	}
}

// TestAnswers: each answer to each command, when it is asked about at its own
// stage, and what the next stages say then.
func TestAnswers(t *testing.T) {
	const rejected, later, bye = "reject 550 5.7.1 Command rejected", "defer 451 4.7.1 Service unavailable - try again later", "disconnect 421 4.7.0 Server closing connection"
	for _, row := range []struct {
		name    string
		cmd     byte
		answers string
		want    string // connect, helo, mail, rcpt, data, message
	}{
		{"accept connect", cmdConnect, pack('a', ""), "next; next; next; next; next; next"},
		{"reject connect", cmdConnect, pack('r', ""), strings.Repeat(rejected+"; ", 5) + rejected},
		{"tempfail connect", cmdConnect, pack('t', ""), strings.Repeat(later+"; ", 5) + later},
		{"shutdown connect", cmdConnect, pack('4', ""), strings.Repeat(bye+"; ", 5) + bye},
		{"reply connect", cmdConnect, pack('y', "554 5.7.1 go away\x00"), strings.Repeat("reject 554 5.7.1 go away; ", 5) + "reject 554 5.7.1 go away"},
		{"accept helo", cmdHelo, pack('a', ""), "next; next; next; next; next; next"},
		{"reject helo", cmdHelo, pack('r', ""), "next" + strings.Repeat("; "+rejected, 5)},
		{"accept mail", cmdMail, pack('a', ""), "next; next; next; next; next; next"},
		{"reject mail", cmdMail, pack('r', ""), "next; next" + strings.Repeat("; "+rejected, 4)},
		{"discard mail", cmdMail, pack('d', ""), "next; next; discard; discard; discard; discard"},
		{"reply 421 mail", cmdMail, pack('y', "421 4.3.2 bye\x00"), "next; next; disconnect 421 4.3.2 bye; disconnect 421 4.3.2 bye; disconnect 421 4.3.2 bye; disconnect 421 4.3.2 bye"},
		{"discard rcpt", cmdRcpt, pack('d', ""), "next; next; next; discard; discard; discard"},
		{"tempfail rcpt", cmdRcpt, pack('t', ""), "next; next; next; " + later + "; next; next"},
		{"accept data", cmdData, pack('a', ""), "next; next; next; next; next; next"},
		{"reject data", cmdData, pack('r', ""), "next; next; next; next; " + rejected + "; " + rejected},
		{"reject header", cmdHeader, pack('r', ""), "next; next; next; next; next; " + rejected},
		{"skip header", cmdHeader, pack('s', ""), "next; next; next; next; next; next"},
		{"reject eoh", cmdEOH, pack('r', ""), "next; next; next; next; next; " + rejected},
		{"skip body", cmdBody, pack('s', ""), "next; next; next; next; next; next"},
		{"tempfail body", cmdBody, pack('t', ""), "next; next; next; next; next; " + later},
		{"accept end", cmdEOB, pack('a', ""), "next; next; next; next; next; next"},
		{"wait and accept end", cmdEOB, pack('p', "") + pack('p', "") + pack('a', ""), "next; next; next; next; next; next"},
		{"reject end", cmdEOB, pack('h', "A\x00b\x00") + pack('q', "spam\x00") + pack('r', ""), "next; next; next; next; next; " + rejected},
		{"discard end", cmdEOB, pack('q', "spam\x00") + pack('d', ""), "next; next; next; next; next; discard"},
		{"quarantine", cmdEOB, pack('q', "spam\x00") + pack('c', ""), "next; next; next; next; next; hold"},
		{"shutdown end", cmdEOB, pack('4', ""), "next; next; next; next; next; " + bye},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := (&fake{steps: maySkip, says: at(row.cmd, row.answers)}).start(t)
			w := newWalk(t, open(t, Options{Address: f.address}))
			got := strings.Join([]string{w.connect(), w.helo(), w.mail("Q1", "a@b.example"), w.rcpt("r@d.example"), w.data(), w.message(simpleMessage)}, "; ")
			if got != row.want {
				t.Errorf("got\n %s\nwant\n %s", got, row.want)
			}
		})
	}
}

// TestOverAgain: what was refused or accepted counts for what it was about only.
func TestOverAgain(t *testing.T) {
	f := (&fake{says: func(_ int, cmd byte, data string) (string, bool) {
		switch {
		case cmd == cmdHelo && strings.HasPrefix(data, "bad"), cmd == cmdMail && strings.HasPrefix(data, "<bad"):
			return pack('r', ""), true
		case cmd == cmdMail && strings.HasPrefix(data, "<friend"):
			return pack('a', ""), true
		}
		return "", true
	}}).start(t)
	w := newWalk(t, open(t, Options{Address: f.address}))
	for _, row := range []struct{ got, want, told string }{
		{func() string { w.ev.Helo = "bad.example"; return w.helo() }(), "reject 550 5.7.1 Command rejected", "O; C c.example|4|4711|192.0.2.7; H bad.example"},
	} {
		if row.got != row.want {
			t.Errorf("%s, want %s", row.got, row.want)
		}
		want(t, f, "helo", row.told)
	}
	if got := w.mail("Q1", "a@b.example"); !strings.HasPrefix(got, "reject") {
		t.Errorf("mail after a bad helo: %s", got)
	}
	want(t, f, "mail after a bad helo", "")
	w.ev.Helo = "good.example"
	for _, row := range []struct{ what, got, want, told string }{
		{"helo", w.helo(), "next", "H good.example"},
		{"bad mail", w.mail("Q2", "bad@b.example"), "reject 550 5.7.1 Command rejected", "M <bad@b.example>"},
	} {
		if row.got != row.want {
			t.Errorf("%s: %s, want %s", row.what, row.got, row.want)
		}
	}
	want(t, f, "helo and mail", "H good.example; M <bad@b.example>")
	w.mail("Q3", "friend@b.example")
	w.rcpt("r@d.example")
	w.message(simpleMessage)
	want(t, f, "a message of a friend", "A; M <friend@b.example>")
	w.mail("Q4", "a@b.example")
	want(t, f, "a message after it", "A; M <a@b.example>")
}

// TestLateRecipients: at message nobody can refuse one recipient.
func TestLateRecipients(t *testing.T) {
	f := (&fake{says: func(_ int, cmd byte, data string) (string, bool) {
		if cmd == cmdRcpt && strings.HasPrefix(data, "<bad") {
			return pack('y', "550 5.1.1 nobody "+strings.Trim(data, "\x00")+"\x00"), true
		}
		return "", true
	}}).start(t)
	w := newWalk(t, open(t, Options{Address: f.address})).envelope("Q1", "a@b.example", "r@d.example", "bad@d.example", "bad2@d.example")
	if got := w.message(simpleMessage); got != "next" {
		t.Errorf("one of three: %s", got)
	}
	if w.host.metrics["not-applied-refuse-recipient"] != 1 || len(w.host.logs) != 1 || !strings.Contains(w.host.logs[0], "2 refused too late") {
		t.Errorf("%v %q", w.host.metrics, w.host.logs)
	}
	w.envelope("Q2", "a@b.example", "bad@d.example", "bad2@d.example")
	if got := w.message(simpleMessage); got != "reject 550 5.1.1 nobody <bad2@d.example>" {
		t.Errorf("all: %s", got)
	}
	// A check that only observes is asked on about a recipient whom the milter refused.
	w.mail("Q3", "a@b.example")
	for _, to := range []string{"bad@d.example", "r@d.example"} {
		w.rcpt(to)
	}
	w.ev.Rcpts = pathsOf(t, "bad@d.example", "r@d.example")
	f.take()
	if got := w.message(simpleMessage); got != "next" {
		t.Errorf("observed: %s", got)
	}
	want(t, f, "observed", "T; "+told)
}

func TestReplies(t *testing.T) {
	for _, row := range []struct{ name, data, want string }{
		{"plain", "550 5.7.1 no\x00", "reject 550 5.7.1 no"},
		{"without NUL", "550 5.7.1 no", "reject 550 5.7.1 no"},
		{"no enhanced code", "451 later", "defer 451 4.7.1 later"},
		{"another class", "550 4.2.2 full", "reject 550 5.2.2 full"},
		{"no text", "550", "reject 550 5.7.1 "},
		{"enhanced code alone", "550 5.1.2", "reject 550 5.1.2 "},
		{"many lines", "550-5.1.1 one\r\n550-5.1.1 two\r\n550 5.1.1 three", "reject 550 5.1.1 one\ntwo\nthree"},
		{"doubled percent", "550 5.7.1 100%% spam, 5% off", "reject 550 5.7.1 100% spam, 5% off"},
		{"control characters", "550 5.7.1 a\x01\tb", "reject 550 5.7.1 a  b"},
		{"hang up", "421 4.7.0 bye", "disconnect 421 4.7.0 bye"},
		{"521", "521 5.7.0 bye", "disconnect 521 5.7.0 bye"},
		{"a line with another code", "550 5.7.1 a\r\n250 2.0.0 b", "reject 550 5.7.1 a\n250 2.0.0 b"},
		{"long", "550 5.7.1 " + strings.Repeat("x", 3000), "reject 550 5.7.1 " + strings.Repeat("x", maxReplyText)},
		{"many lines without end", strings.Repeat("550-5.7.1 x\r\n", 100), "reject 550 5.7.1 " + strings.TrimSpace(strings.Repeat("x\n", maxReplyLines))},
		{"success", "250 ok", ""},
		{"empty", "", ""},
		{"two digits", "55 no", ""},
		{"no code", "abc no", ""},
		{"four digits", "5500 no", ""},
	} {
		a, err := parseReply([]byte(row.data))
		got := ""
		if err == nil {
			got = verdictText(policy.Verdict{Action: a.action, Status: a.status})
		}
		if got != row.want {
			t.Errorf("%s: %q, %v, want %q", row.name, got, err, row.want)
		}
	}
}

func TestChanges(t *testing.T) {
	index := func(n byte, rest string) string { return "\x00\x00\x00" + string(rune(n)) + rest }
	const message = "Subject: old\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\nbody\r\n"
	for _, row := range []struct {
		name    string
		changes string
		want    string
		missed  string // the metric
	}{
		{"add", pack('h', "X-A\x00b\x00"), "next +X-A: b", ""},
		{"add with a leading blank", pack('h', "X-A\x00 b\x00"), "next +X-A: b", ""},
		{"add two", pack('h', "X-A\x001\x00") + pack('h', "X-A\x002\x00"), "next +X-A: 1 +X-A: 2", ""},
		{"insert on top", pack('i', index(0, "X-A\x001\x00")) + pack('i', index(1, "X-B\x002\x00")), "next +X-B: 2 +X-A: 1", ""},
		{"insert and add", pack('h', "X-A\x001\x00") + pack('i', index(0, "X-B\x002\x00")), "next +X-B: 2 +X-A: 1", ""},
		{"insert below", pack('i', index(5, "X-A\x001\x00")), "next +X-A: 1", "header-position"},
		{"folded", pack('i', index(1, "DKIM-Signature\x00v=1; a=b;\n\tc=d;\r\n e=f\x00")), "next +DKIM-Signature: v=1; a=b;\tc=d; e=f", ""},
		{"a field within a field", pack('h', "X-A\x00b\nBcc: c\r\rd\x00"), "next +X-A: b Bcc: c d", ""},
		{"no field name", pack('h', "X A\x00b\x00"), "next", "invalid-header"},
		{"an empty field", pack('h', "X-A\x00\x00"), "next +X-A: ", ""},
		{"change", pack('m', index(1, "subject\x00new\x00")), "next", "change-header"},
		{"change the second", pack('m', index(2, "X-Twice\x00new\x00")), "next", "change-header"},
		{"change one that is not there", pack('m', index(3, "X-Twice\x00new\x00")), "next +X-Twice: new", ""},
		{"delete", pack('m', index(1, "Subject\x00\x00")), "next", "delete-header"},
		{"delete one that is not there", pack('m', index(2, "Subject\x00\x00")), "next", ""},
		{"add a recipient", pack('+', "<x@d.example>\x00"), "next bcc x@d.example", ""},
		{"add a bare recipient", pack('+', "x@d.example\x00"), "next bcc x@d.example", ""},
		{"add a recipient with parameters", pack('2', "<x@d.example>\x00NOTIFY=NEVER\x00"), "next bcc x@d.example", "recipient-parameters"},
		{"add no address", pack('+', "<x y@>\x00"), "next", "invalid-recipient"},
		{"add a local part", pack('+', "root\x00"), "next", "invalid-recipient"},
		{"delete a recipient", pack('-', "<r@d.example>\x00"), "next", "delete-recipient"},
		{"change the sender", pack('e', "<x@d.example>\x00SIZE=1\x00"), "next", "change-sender"},
		{"replace the body", pack('b', "new") + pack('b', " body"), "next", "replace-body"},
		{"hold with a field", pack('q', "look\x00") + pack('h', "X-A\x00b\x00"), "hold +X-A: b", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := (&fake{says: at(cmdEOB, row.changes+pack('c', ""))}).start(t)
			w := newWalk(t, open(t, Options{Address: f.address})).envelope("Q1", "a@b.example", "r@d.example")
			if got := w.message(message); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
			metrics, logs := map[string]int64{}, 0
			if row.missed != "" {
				metrics["not-applied-"+row.missed], logs = 1, 1
			}
			if !reflect.DeepEqual(w.host.metrics, metrics) || len(w.host.logs) != logs {
				t.Errorf("%v %q", w.host.metrics, w.host.logs)
			}
			if len(w.host.calls) != 1 || w.host.calls[0].Call != "milter" || !strings.HasPrefix(w.host.calls[0].Answer, "continue; ") {
				t.Errorf("the decision log has %+v", w.host.calls)
			}
		})
	}
}
