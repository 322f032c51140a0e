package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// script is a plugin that answers by stage; what it does not name is Next.
type script map[Stage]Verdict

func (s script) Call(_ context.Context, ev *Event, _ Host) (Verdict, error) { return s[ev.Stage], nil }
func (s script) Close() error                                               { return nil }

// pluginFunc is a plugin from a function.
type pluginFunc func(ev *Event, h Host) (Verdict, error)

func (f pluginFunc) Call(_ context.Context, ev *Event, h Host) (Verdict, error) { return f(ev, h) }
func (f pluginFunc) Close() error                                               { return nil }

func say(a Action, code int, text string) Verdict {
	return Verdict{Action: a, Status: mail.Status{Code: code, Text: text}}
}

// check makes a check of a script at every stage that it names.
func check(name string, s script) *Check {
	c := &Check{Name: name, Plugin: s}
	for stage := Connect; stage <= Message; stage++ {
		if _, ok := s[stage]; ok {
			c.At = append(c.At, stage)
		}
	}
	return c
}

func event(stage Stage) *Event {
	return &Event{Stage: stage, Time: time.Unix(1700000000, 0), Door: "mx", Client: netip.MustParseAddrPort("192.0.2.1:25")}
}

// walk asks the stages in order and returns, for each, the code of the refusal
// or 0.
func walk(s *Session, stages ...Stage) string {
	var codes []string
	for _, st := range stages {
		d := s.Ask(context.Background(), event(st))
		code := "-"
		switch {
		case d.Refused():
			code = fmt.Sprint(d.Status.Code)
		case d.Action != Next:
			code = d.Action.String()
		}
		codes = append(codes, code)
	}
	return strings.Join(codes, " ")
}

// TestEvaluation holds Postfix's rules: what a row of stages is answered.
func TestEvaluation(t *testing.T) {
	all := []Stage{Connect, Helo, Mail, Rcpt, Rcpt, Data, Message}
	rows := []struct {
		name   string
		policy Policy
		stages []Stage
		want   string
	}{
		{"nothing to say", Policy{Checks: []*Check{check("a", script{Helo: {}})}}, all, "- - - - - - -"},
		{"a refused HELO is told at RCPT, every time", Policy{Checks: []*Check{check("a", script{Helo: say(Reject, 501, "x")})}},
			[]Stage{Connect, Helo, Mail, Rcpt, Rcpt}, "- - - 501 501"},
		{"but not after it: the postmaster's mail has got past", Policy{Checks: []*Check{check("a", script{Helo: say(Reject, 501, "x"), Data: {}})}},
			[]Stage{Connect, Helo, Mail, Data, Message}, "- - - - -"},
		{"or at once", Policy{ReplyAt: Connect, Checks: []*Check{check("a", script{Helo: say(Reject, 501, "x")})}},
			[]Stage{Connect, Helo}, "- 501"},
		{"or at MAIL", Policy{ReplyAt: Mail, Checks: []*Check{check("a", script{Helo: say(Reject, 501, "x")})}},
			[]Stage{Connect, Helo, Mail}, "- - 501"},
		{"a better HELO takes it back", Policy{Checks: []*Check{{Name: "a", At: []Stage{Helo}, Plugin: onceReject()}}},
			[]Stage{Connect, Helo, Helo, Mail, Rcpt}, "- - - - -"},
		{"the check's own reply_at", Policy{Checks: []*Check{{Name: "a", At: []Stage{Connect}, ReplyAt: Connect, Plugin: script{Connect: say(Disconnect, 0, "")}}}},
			[]Stage{Connect}, "421"},
		{"first refusal wins", Policy{Checks: []*Check{
			check("a", script{Rcpt: say(Reject, 551, "a")}), check("b", script{Rcpt: say(Reject, 552, "b")})}},
			[]Stage{Rcpt}, "551"},
		{"accept ends the list", Policy{Checks: []*Check{
			check("a", script{Rcpt: {Action: Accept}}), check("b", script{Rcpt: say(Reject, 552, "b")})}},
			[]Stage{Rcpt}, "-"},
		{"accept ends its own stage only", Policy{Checks: []*Check{
			check("a", script{Helo: {Action: Accept}}), check("b", script{Rcpt: say(Reject, 552, "b")})}},
			[]Stage{Helo, Rcpt}, "- 552"},
		{"defer_if_permit turns a permit", Policy{Checks: []*Check{check("a", script{Mail: say(DeferIfPermit, 450, "x")})}},
			[]Stage{Mail, Rcpt, Rcpt}, "- 450 450"},
		{"and not a reject", Policy{Checks: []*Check{
			check("a", script{Mail: say(DeferIfPermit, 450, "x")}), check("b", script{Rcpt: say(Reject, 550, "y")})}},
			[]Stage{Mail, Rcpt}, "- 550"},
		{"a new MAIL forgets the last one's", Policy{Checks: []*Check{{Name: "a", At: []Stage{Mail}, Plugin: onceVerdict(say(DeferIfPermit, 450, "x"))}}},
			[]Stage{Mail, Rcpt, Mail, Rcpt}, "- 450 - -"},
		{"HELO's lasts over MAILs", Policy{Checks: []*Check{check("a", script{Helo: say(DeferIfPermit, 450, "x")})}},
			[]Stage{Helo, Mail, Rcpt, Mail, Rcpt}, "- - 450 - 450"},
		{"RCPT's lasts for that recipient", Policy{Checks: []*Check{{Name: "a", At: []Stage{Rcpt}, Plugin: onceVerdict(say(DeferIfPermit, 450, "x"))}}},
			[]Stage{Mail, Rcpt, Rcpt}, "- 450 -"},
		{"DATA clears", Policy{ReplyAt: Rcpt, Checks: []*Check{check("a", script{Mail: say(DeferIfPermit, 450, "x"), Data: {}})}},
			[]Stage{Mail, Rcpt, Data}, "- 450 -"},
		{"at DATA it acts at DATA", Policy{Checks: []*Check{check("a", script{Data: say(DeferIfPermit, 450, "x")})}},
			[]Stage{Rcpt, Data}, "- 450"},
		{"defer_if_reject turns a later reject", Policy{Checks: []*Check{
			check("a", script{Mail: say(DeferIfReject, 451, "x")}), check("b", script{Rcpt: say(Reject, 550, "y")})}},
			[]Stage{Mail, Rcpt}, "- 451"},
		{"and not a permit", Policy{Checks: []*Check{check("a", script{Mail: say(DeferIfReject, 451, "x")})}},
			[]Stage{Mail, Rcpt}, "- -"},
		{"the first reason stays", Policy{Checks: []*Check{
			check("a", script{Helo: say(DeferIfPermit, 450, "x")}), check("b", script{Rcpt: say(DeferIfPermit, 451, "y")})}},
			[]Stage{Helo, Rcpt}, "- 450"},
		{"quarantine", Policy{Checks: []*Check{check("a", script{Message: {Action: Quarantine}})}}, []Stage{Message}, "quarantine"},
		{"a refusal is stronger than quarantine", Policy{Checks: []*Check{
			check("a", script{Message: {Action: Quarantine}}), check("b", script{Message: say(Reject, 550, "y")})}}, []Stage{Message}, "550"},
		{"discard is stronger than hold", Policy{Checks: []*Check{
			check("a", script{Rcpt: {Action: Hold}}), check("b", script{Rcpt: {Action: Discard}})}}, []Stage{Rcpt}, "discard"},
		{"an action out of place is an error", Policy{ReplyAt: Connect, Checks: []*Check{check("a", script{Connect: {Action: Quarantine}})}}, []Stage{Connect}, "451"},
		{"observe acts on nothing", Policy{Checks: []*Check{{Name: "a", At: []Stage{Rcpt}, Observe: true, Plugin: script{Rcpt: say(Reject, 550, "x")}}}}, []Stage{Rcpt}, "-"},
		{"exempt network", Policy{Exempt: Exempt{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
			Checks: []*Check{check("a", script{Rcpt: say(Reject, 550, "x")})}}, []Stage{Rcpt}, "-"},
		{"a code of another class becomes the action's", Policy{Checks: []*Check{check("a", script{Rcpt: say(Reject, 450, "x")})}}, []Stage{Rcpt}, "554"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p := row.policy
			p.Name, p.On = "inbound", []string{"mx"}
			s := NewSet([]*Policy{&p}, SetOptions{}).Session("mx")
			if got := walk(s, row.stages...); got != row.want {
				t.Errorf("stages %v: %s, want %s", row.stages, got, row.want)
			}
		})
	}
}

// onceVerdict says v once and then Next.
func onceVerdict(v Verdict) Plugin {
	asked := false
	return pluginFunc(func(*Event, Host) (Verdict, error) {
		if asked {
			return Verdict{}, nil
		}
		asked = true
		return v, nil
	})
}

func onceReject() Plugin { return onceVerdict(say(Reject, 501, "x")) }

// TestErrorIsNoVerdict: whatever goes wrong ends in on_error.
func TestErrorIsNoVerdict(t *testing.T) {
	broken := map[string]Plugin{
		"error": pluginFunc(func(*Event, Host) (Verdict, error) { return Verdict{Action: Accept}, errors.New("trap") }),
		"panic": pluginFunc(func(*Event, Host) (Verdict, error) { panic("bug") }),
	}
	for name, plugin := range broken {
		for onError, want := range map[Action]string{0: "451", Defer: "451", Reject: "550", Accept: "-"} {
			p := &Policy{Name: "p", On: []string{"mx"}, Checks: []*Check{{Name: "a", At: []Stage{Rcpt}, Plugin: plugin, OnError: onError}}}
			set := NewSet([]*Policy{p}, SetOptions{})
			if got := walk(set.Session("mx"), Rcpt); got != want {
				t.Errorf("%s with on_error %s: %s, want %s", name, onError, got, want)
			}
			if n := set.Tallies()["p/a"]; n.Errors != 1 || n.Asked != 1 {
				t.Errorf("%s: tally %+v, want one error", name, n)
			}
		}
	}
	when := &Policy{Name: "p", On: []string{"mx"}, Checks: []*Check{{Name: "a", At: []Stage{Rcpt}, Plugin: script{},
		When: func(*Event) (bool, error) { return false, errors.New("no such thing") }}}}
	if got := walk(NewSet([]*Policy{when}, SetOptions{}).Session("mx"), Rcpt); got != "451" {
		t.Errorf("a when that fails: %s, want 451", got)
	}
}

func TestDoorsWithoutRecipients(t *testing.T) {
	p := &Policy{Name: "p", On: []string{"imap"}, Checks: []*Check{check("a", script{Connect: say(Reject, 550, "x"), Auth: say(Defer, 450, "x")})}}
	set := NewSet([]*Policy{p}, SetOptions{})
	if got := walk(set.Session("imap"), Connect, Auth); got != "550 450" {
		t.Errorf("IMAP: %s, want refusals at once", got)
	}
	if got := walk(set.Session("mx"), Connect, Auth); got != "- -" {
		t.Errorf("another door: %s, want no objection", got)
	}
	var none *Set
	if got := walk(none.Session("mx"), Connect, Rcpt); got != "- -" {
		t.Errorf("no policies: %s, want no objection", got)
	}
}

func TestRefusalText(t *testing.T) {
	rows := []struct {
		name string
		a    Action
		in   mail.Status
		want string // code, enhanced, text without the id
	}{
		{"as given", Reject, mail.Status{Code: 550, Enhanced: "5.1.1", Text: "no"}, "550 5.1.1 no"},
		{"defaults of reject", Reject, mail.Status{}, "554 5.7.1 Access denied"},
		{"defaults of defer", Defer, mail.Status{}, "450 4.3.2 Try again later"},
		{"class is forced", Defer, mail.Status{Code: 450, Enhanced: "5.1.8", Text: "no"}, "450 4.1.8 no"},
		{"malformed enhanced code", Reject, mail.Status{Code: 550, Enhanced: "x\r\n", Text: "no"}, "550 5.7.1 no"},
		{"reply injection", Reject, mail.Status{Code: 550, Enhanced: "5.1.1", Text: "no\r\n250 2.0.0 yes"}, "550 5.1.1 no  250 2.0.0 yes"},
		{"unprintable", Reject, mail.Status{Code: 550, Enhanced: "5.1.1", Text: "a\x00b\x7fc\xffd"}, "550 5.1.1 a b c d"},
		{"beyond ASCII", Reject, mail.Status{Code: 550, Enhanced: "5.1.1", Text: "gr\u00fcn"}, "550 5.1.1 gr  n"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := shape(row.a, row.in, "ID")
			if got := fmt.Sprintf("%d %s %s", s.Code, s.Enhanced, s.Text); got != row.want+" (ID)" {
				t.Errorf("got %q, want %q", got, row.want+" (ID)")
			}
		})
	}
	s := shape(Reject, mail.Status{Code: 550, Enhanced: "5.1.1", Text: strings.Repeat("x", 600)}, mail.NewID(time.Unix(0, 0)))
	if n := len(fmt.Sprintf("%d %s %s", s.Code, s.Enhanced, s.Text)); n > 510 || n < 505 {
		t.Errorf("a long reply has %d octets, want at most 510", n)
	}
}

func TestEffectsAccumulate(t *testing.T) {
	with := func(tag string, score float64) Verdict {
		return Verdict{Effects: Effects{Tags: []string{tag}, Score: score, Prepend: []Field{{Name: "X-" + tag, Value: tag}}, Tarpit: time.Second}}
	}
	p := &Policy{Name: "p", On: []string{"mx"}, Checks: []*Check{
		check("a", script{Rcpt: with("a", 1)}), check("b", script{Rcpt: with("b", 2)}),
		{Name: "c", At: []Stage{Rcpt}, Observe: true, Plugin: script{Rcpt: with("c", 100)}},
	}}
	d := NewSet([]*Policy{p}, SetOptions{}).Session("mx").Ask(context.Background(), event(Rcpt))
	if e := d.Effects; strings.Join(e.Tags, " ") != "a b" || e.Score != 3 || len(e.Prepend) != 2 || e.Tarpit != time.Second {
		t.Errorf("effects %+v", e)
	}
}

func TestCounters(t *testing.T) {
	now := time.Unix(1700000000, 0)
	c := NewCounters(CounterOptions{Keys: 64})
	add := func(key string, delta int64, after time.Duration) int64 {
		t.Helper()
		n, err := c.Add(key, delta, time.Minute, now.Add(after))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i := range int64(30) {
		if got := add("a", 1, time.Duration(i)*time.Second); got != i+1 {
			t.Fatalf("after %d: %d", i+1, got)
		}
	}
	if got := add("a", 0, 30*time.Second); got != 30 {
		t.Errorf("reading says %d, want 30", got)
	}
	if got := add("b", 0, 0); got != 0 {
		t.Errorf("a key that was never used says %d", got)
	}
	if got := add("a", 0, 59*time.Second); got != 30 {
		t.Errorf("within the window: %d, want 30", got)
	}
	if got := add("a", 0, 80*time.Second); got >= 30 || got == 0 {
		t.Errorf("when part has passed: %d, want less than 30 and some", got)
	}
	if got := add("a", 0, 10*time.Minute); got != 0 {
		t.Errorf("long after: %d, want 0", got)
	}
	if got := add("c", -5, 0); got != 0 {
		t.Errorf("below zero: %d, want 0", got)
	}
	for i := range 10_000 { // keys that a peer chooses are bounded
		add(fmt.Sprint("k", i), 1, 0)
	}
	kept := 0
	for i := range c.shards {
		kept += len(c.shards[i].byKey)
	}
	if kept > 64 {
		t.Errorf("%d keys are kept, want at most 64", kept)
	}
	if _, err := c.Add("a", 1, 0, now); err == nil {
		t.Error("a window of nothing is no error")
	}
}

// TestChecksShareNoCounter: the key is the check's own.
func TestChecksShareNoCounter(t *testing.T) {
	var got []int64
	count := pluginFunc(func(_ *Event, h Host) (Verdict, error) {
		n, err := h.Count(context.Background(), "same", 1, time.Minute)
		got = append(got, n)
		return Verdict{}, err
	})
	p := &Policy{Name: "p", On: []string{"mx"}, Checks: []*Check{{Name: "a", At: []Stage{Rcpt}, Plugin: count}, {Name: "b", At: []Stage{Rcpt}, Plugin: count}}}
	s := NewSet([]*Policy{p}, SetOptions{}).Session("mx")
	walk(s, Rcpt, Rcpt)
	if fmt.Sprint(got) != "[1 1 2 2]" {
		t.Errorf("counts %v, want [1 1 2 2]", got)
	}
}

func TestDecisionLog(t *testing.T) {
	var b strings.Builder
	p := &Policy{Name: "p", On: []string{"mx"}, Checks: []*Check{check("a", script{Rcpt: Verdict{Action: Reject, Reason: "bad"}})}}
	walk(NewSet([]*Policy{p}, SetOptions{Log: NewJSONLog(&b)}).Session("mx"), Rcpt)
	for _, want := range []string{`"check":"p/a"`, `"stage":"rcpt"`, `"action":"reject"`, `"reason":"bad"`, `"mode":"enforce"`, `"client":"192.0.2.1"`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("decision log %q has no %s", b.String(), want)
		}
	}
}

func BenchmarkMessage(b *testing.B) {
	p := &Policy{Name: "p", On: []string{"mx"}, Checks: []*Check{check("a", script{Helo: {}, Mail: {}, Rcpt: {}}), check("b", script{Connect: {}, Data: {}, Message: {}})}}
	set := NewSet([]*Policy{p}, SetOptions{})
	ev := event(Connect)
	s := set.Session("mx")
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		for st := Connect; st <= Message; st++ {
			ev.Stage = st
			s.Ask(ctx, ev)
		}
	}
}
