package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/mail"
)

// lookup fails as a plugin does whose table cannot be read.
var failing = pluginFunc(func(*Event, Host) (Verdict, error) { return Verdict{}, errors.New("table is gone") })

// TestPostfixRules holds the rules of Postfix's smtpd_check.c that postmasters
// rely on. A step is a stage with the reply wanted of it: "-" for none, else the
// code. The policy's lists are one for each stage.
func TestPostfixRules(t *testing.T) {
	at := func(p Plugin, stages ...Stage) *Check {
		return &Check{Name: fmt.Sprint("check", stages), At: stages, Plugin: p}
	}
	on := func(stage Stage, v Verdict) *Check { return at(script{stage: v}, stage) }
	once := func(stage Stage, v Verdict) *Check { return at(onceVerdict(v), stage) }
	reject, deferring := say(Reject, 0, ""), say(Defer, 0, "")
	permit, ifReject := say(DeferIfPermit, 0, ""), say(DeferIfReject, 451, "")
	observed := func(c *Check) *Check { c.Observe = true; return c }
	rows := []struct {
		name   string
		policy Policy
		steps  string
	}{
		// Lists and the order of them.
		{"the first match wins", Policy{Checks: []*Check{on(Rcpt, say(Reject, 551, "")), on(Rcpt, say(Reject, 552, ""))}}, "rcpt 551"},
		{"next goes on", Policy{Checks: []*Check{on(Rcpt, Verdict{}), on(Rcpt, say(Reject, 552, ""))}}, "rcpt 552"},
		{"the end of the list permits", Policy{Checks: []*Check{on(Rcpt, Verdict{})}}, "rcpt -"},
		{"accept ends its own list only", Policy{Checks: []*Check{on(Helo, Verdict{Action: Accept}), on(Helo, reject), on(Mail, deferring)}}, "helo - mail - rcpt 450"},
		{"accept at RCPT ends RCPT's list", Policy{Checks: []*Check{on(Rcpt, Verdict{Action: Accept}), on(Rcpt, reject)}}, "rcpt -"},
		{"client before helo before sender before recipient", Policy{Checks: []*Check{
			on(Rcpt, say(Reject, 554, "")), on(Mail, say(Reject, 553, "")), on(Helo, say(Reject, 552, "")), on(Connect, say(Reject, 551, ""))}},
			"connect - helo - mail - rcpt 551"},
		{"a hold does not end the list", Policy{Checks: []*Check{on(Rcpt, Verdict{Action: Hold}), on(Rcpt, reject)}}, "rcpt 554"},
		{"a discard does", Policy{Checks: []*Check{on(Rcpt, Verdict{Action: Discard}), on(Rcpt, reject)}}, "rcpt discard"},

		// smtpd_delay_reject.
		{"refusals wait for RCPT and are given at every one", Policy{Checks: []*Check{on(Connect, reject)}}, "connect - helo - mail - rcpt 554 rcpt 554"},
		{"smtpd_delay_reject = no", Policy{ReplyAt: Connect, Checks: []*Check{on(Helo, reject)}}, "connect - helo 554"},
		{"a new HELO is judged anew", Policy{Checks: []*Check{once(Helo, reject)}}, "helo - mail - rcpt 554 helo - mail - rcpt -"},
		{"a new MAIL is judged anew", Policy{Checks: []*Check{once(Mail, reject)}}, "mail - rcpt 554 mail - rcpt -"},

		// defer_if_permit.
		{"defer_if_permit: a final permit becomes its 4xx", Policy{Checks: []*Check{on(Mail, permit)}}, "mail - rcpt 450"},
		{"defer_if_permit: also after an accept", Policy{Checks: []*Check{on(Mail, permit), on(Rcpt, Verdict{Action: Accept})}}, "mail - rcpt 450"},
		{"defer_if_permit: a reject wins", Policy{Checks: []*Check{on(Helo, permit), on(Rcpt, reject)}}, "helo - rcpt 554"},
		{"defer_if_permit: a defer wins", Policy{Checks: []*Check{on(Helo, permit), on(Rcpt, say(Defer, 452, ""))}}, "helo - rcpt 452"},
		{"defer_if_permit: the first reason stays", Policy{Checks: []*Check{on(Helo, say(DeferIfPermit, 451, "")), on(Mail, say(DeferIfPermit, 452, ""))}}, "helo - mail - rcpt 451"},
		{"defer_if_permit: acts at RCPT without smtpd_delay_reject too", Policy{ReplyAt: Connect, Checks: []*Check{on(Helo, permit)}}, "connect - helo - mail - rcpt 450"},
		{"defer_if_permit: MAIL restores client's and helo's", Policy{Checks: []*Check{once(Connect, permit), on(Mail, Verdict{})}},
			"connect - mail - rcpt 450 mail - rcpt 450"},
		{"defer_if_permit: MAIL forgets the last sender's", Policy{Checks: []*Check{once(Mail, permit)}}, "mail - rcpt 450 mail - rcpt -"},
		{"defer_if_permit: RCPT forgets the last recipient's", Policy{Checks: []*Check{once(Rcpt, permit)}}, "mail - rcpt 450 rcpt -"},
		{"defer_if_permit: RCPT restores the sender's", Policy{Checks: []*Check{on(Mail, permit), once(Rcpt, permit)}}, "mail - rcpt 450 rcpt 450"},
		{"defer_if_permit: DATA clears", Policy{Checks: []*Check{on(Mail, permit), on(Data, Verdict{})}}, "mail - rcpt 450 data -"},
		{"defer_if_permit: end of data clears", Policy{Checks: []*Check{on(Mail, permit), on(Message, Verdict{})}}, "mail - rcpt 450 message -"},
		{"defer_if_permit: DATA's acts at DATA and not after", Policy{Checks: []*Check{on(Data, permit), on(Message, Verdict{})}}, "rcpt - data 450 message -"},
		{"defer_if_permit: helo's outlasts a DATA", Policy{Checks: []*Check{once(Helo, permit), on(Data, Verdict{})}},
			"helo - mail - rcpt 450 data - mail - rcpt 450"},

		// defer_if_reject.
		{"defer_if_reject: a later 5xx becomes its 4xx", Policy{Checks: []*Check{on(Helo, ifReject), on(Rcpt, reject)}}, "helo - rcpt 451"},
		{"defer_if_reject: in the same list too", Policy{Checks: []*Check{on(Rcpt, ifReject), on(Rcpt, reject)}}, "rcpt 451"},
		{"defer_if_reject: not an earlier one", Policy{Checks: []*Check{on(Rcpt, reject), on(Rcpt, ifReject)}}, "rcpt 554"},
		{"defer_if_reject: not a permit", Policy{Checks: []*Check{on(Helo, ifReject)}}, "helo - rcpt -"},
		{"defer_if_reject: not a 4xx", Policy{Checks: []*Check{on(Helo, ifReject), on(Rcpt, say(Defer, 452, ""))}}, "helo - rcpt 452"},
		{"defer_if_reject: a 521 as well", Policy{Checks: []*Check{on(Helo, ifReject), on(Rcpt, say(Disconnect, 521, ""))}}, "helo - rcpt 451"},
		{"defer_if_reject: a held 5xx as well", Policy{Checks: []*Check{on(Connect, ifReject), on(Helo, reject)}}, "connect - helo - rcpt 451"},
		{"defer_if_reject: a held one is given when the 5xx would be", Policy{Checks: []*Check{on(Connect, ifReject),
			{Name: "now", At: []Stage{Helo}, ReplyAt: Helo, Plugin: script{Helo: reject}}}}, "connect - helo 451"},
		{"defer_if_reject: MAIL forgets the last sender's", Policy{Checks: []*Check{once(Mail, ifReject), on(Rcpt, reject)}}, "mail - rcpt 451 mail - rcpt 554"},
		{"defer_if_reject: DATA clears", Policy{Checks: []*Check{on(Mail, ifReject), on(Data, reject)}}, "mail - data 554"},
		{"both: a reject becomes defer_if_reject's", Policy{Checks: []*Check{on(Helo, permit), on(Mail, ifReject), on(Rcpt, reject)}}, "helo - mail - rcpt 451"},

		// warn_if_reject.
		{"observe: a reject is only logged", Policy{Checks: []*Check{observed(on(Rcpt, reject)), on(Rcpt, say(Reject, 552, ""))}}, "rcpt 552"},
		{"observe: a permit does not end the list", Policy{Checks: []*Check{observed(on(Rcpt, Verdict{Action: Accept})), on(Rcpt, reject)}}, "rcpt 554"},
		{"observe: defer_if_permit is only logged", Policy{Checks: []*Check{observed(on(Mail, permit))}}, "mail - rcpt -"},
		{"observe: an error is only logged", Policy{Checks: []*Check{observed(at(failing, Rcpt))}}, "rcpt -"},

		// soft_bounce.
		{"soft_bounce: 5xx becomes 4xx", Policy{SoftBounce: true, Checks: []*Check{on(Rcpt, say(Reject, 550, ""))}}, "rcpt 450"},
		{"soft_bounce: 554 becomes 454", Policy{SoftBounce: true, Checks: []*Check{on(Rcpt, reject)}}, "rcpt 454"},
		{"soft_bounce: 4xx stays", Policy{SoftBounce: true, Checks: []*Check{on(Rcpt, say(Defer, 451, ""))}}, "rcpt 451"},
		{"soft_bounce: held refusals as well", Policy{SoftBounce: true, Checks: []*Check{on(Helo, say(Reject, 504, ""))}}, "helo - rcpt 404"},
		{"soft_bounce: defer_if_reject is not needed", Policy{SoftBounce: true, Checks: []*Check{on(Helo, ifReject), on(Rcpt, reject)}}, "helo - rcpt 454"},

		// Errors.
		{"an error refuses for now", Policy{Checks: []*Check{at(failing, Rcpt)}}, "rcpt 451"},
		{"an error at HELO waits for RCPT", Policy{Checks: []*Check{at(failing, Helo)}}, "helo - mail - rcpt 451"},
		{"an effect out of place is an error", Policy{ReplyAt: Connect, Checks: []*Check{on(Helo, Verdict{Effects: Effects{BCC: []mail.Path{{}}}})}}, "helo 451"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p := row.policy
			p.Name, p.On = "inbound", []string{"mx"}
			s := NewSet([]*Policy{&p}, SetOptions{}).Session("mx")
			var stages []Stage
			var want []string
			words := strings.Fields(row.steps)
			for i := 0; i < len(words); i += 2 {
				stage, ok := ParseStage(words[i])
				if !ok {
					t.Fatalf("step %q", words[i])
				}
				stages, want = append(stages, stage), append(want, words[i+1])
			}
			if got := walk(s, stages...); got != strings.Join(want, " ") {
				t.Errorf("%s: got %s", row.steps, got)
			}
		})
	}
}

// TestSoftBounceReply: the digits of code and enhanced code stay, but for the
// first; 521 still hangs up.
func TestSoftBounceReply(t *testing.T) {
	v := Verdict{Action: Reject, Status: mail.Status{Code: 550, Enhanced: "5.1.8", Text: "no"}}
	p := &Policy{Name: "p", On: []string{"mx"}, SoftBounce: true, Checks: []*Check{check("a", script{Rcpt: v, Data: say(Disconnect, 521, "bye")})}}
	s := NewSet([]*Policy{p}, SetOptions{}).Session("mx")
	d := s.Ask(context.Background(), event(Rcpt))
	if d.Action != Defer || d.Status.Code != 450 || d.Status.Enhanced != "4.1.8" {
		t.Errorf("got %v %+v", d.Action, d.Status)
	}
	if d = s.Ask(context.Background(), event(Data)); d.Status.Code != 421 || !d.Hangup {
		t.Errorf("got %+v", d)
	}
}

// TestDue: what was held comes before the door's own rules, and defer_if_reject
// overrules those.
func TestDue(t *testing.T) {
	s := setOf(SetOptions{}, check("a", script{Helo: say(Reject, 504, "x")})).Session("mx")
	walk(s, Connect, Helo, Mail)
	if d, ok := s.Due(event(Mail)); ok {
		t.Errorf("due at MAIL: %+v", d)
	}
	if d, ok := s.Due(event(Rcpt)); !ok || d.Status.Code != 504 {
		t.Errorf("due at RCPT: %v %+v", ok, d)
	}
	s = setOf(SetOptions{}, check("a", script{Helo: say(DeferIfReject, 451, "x")})).Session("mx")
	walk(s, Connect, Helo, Mail)
	if d, ok := s.Overruled(event(Rcpt), mail.Status{Code: 550}); !ok || d.Status.Code != 451 || d.Action != Defer {
		t.Errorf("overruled: %v %+v", ok, d)
	}
	if d, ok := s.Overruled(event(Rcpt), mail.Status{Code: 450}); ok {
		t.Errorf("a 4xx is overruled: %+v", d)
	}
	none := (*Set)(nil).Session("mx")
	if _, ok := none.Due(event(Rcpt)); ok {
		t.Error("due without policies")
	}
	if _, ok := none.Overruled(event(Rcpt), mail.Status{Code: 550}); ok {
		t.Error("overruled without policies")
	}
}

// TestTagsAndScore: later checks know what earlier ones have added, for as long
// as it is about the same client and message.
func TestTagsAndScore(t *testing.T) {
	var got []string
	ask := func(stage Stage) Plugin {
		return pluginFunc(func(ev *Event, _ Host) (Verdict, error) {
			got = append(got, fmt.Sprint(stage, strings.Join(ev.Tags, "+"), ev.Score))
			return Verdict{Effects: Effects{Tags: []string{stage.String()}, Score: 1}}, nil
		})
	}
	var checks []*Check
	for _, stage := range []Stage{Helo, Mail, Rcpt, Data} {
		checks = append(checks, &Check{Name: stage.String(), At: []Stage{stage}, Plugin: ask(stage)})
	}
	refusing := Verdict{Action: Reject, Effects: Effects{Tags: []string{"never"}}}
	checks = append(checks, &Check{Name: "refuses", At: []Stage{Data}, Plugin: onceVerdict(refusing)},
		&Check{Name: "observes", At: []Stage{Helo}, Observe: true, Plugin: ask(Helo)})
	s := setOf(SetOptions{}, checks...).Session("mx")
	walk(s, Helo, Mail, Rcpt, Rcpt, Data, Data, Helo, Mail)
	want := "helo0 helohelo1 mailhelo1 rcpthelo+mail2 rcpthelo+mail+rcpt3 datahelo+mail+rcpt+rcpt4 datahelo+mail+rcpt+rcpt4 helo0 helohelo1 mailhelo1"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
}
