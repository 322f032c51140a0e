package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

func setOf(o SetOptions, checks ...*Check) *Set {
	return NewSet([]*Policy{{Name: "inbound", On: []string{"mx"}, Checks: checks}}, o)
}

// TestStartTLSRefusalOutlastsEHLO: a client has to send EHLO anew after the
// handshake (RFC 3207 §4.2), which must not take back what was said about it.
func TestStartTLSRefusalOutlastsEHLO(t *testing.T) {
	s := setOf(SetOptions{}, check("a", script{StartTLS: say(Reject, 550, "x"), Helo: {}})).Session("mx")
	if got := walk(s, Connect, Helo, StartTLS, Helo, Mail, Rcpt); got != "- - - - - 550" {
		t.Errorf("%s, want the refusal at RCPT", got)
	}
}

// TestLoginLiftsWhatIsHeld: who logs in after a refusal was held back is exempt
// when it would be given.
func TestLoginLiftsWhatIsHeld(t *testing.T) {
	for name, v := range map[string]Verdict{"refusal": say(Reject, 504, "x"), "defer_if_permit": say(DeferIfPermit, 450, "x")} {
		p := &Policy{Name: "p", On: []string{"mx"}, Exempt: Exempt{Authenticated: true}, Checks: []*Check{check("a", script{Helo: v})}}
		s := NewSet([]*Policy{p}, SetOptions{}).Session("mx")
		walk(s, Connect, Helo)
		ev := event(Rcpt)
		if d := s.Ask(context.Background(), ev); !d.Refused() {
			t.Errorf("%s: a stranger is let through", name)
		}
		ev.User = "ann@example.org"
		if d := s.Ask(context.Background(), ev); d.Refused() {
			t.Errorf("%s: ann is told %v although she is exempt", name, d.Status)
		}
	}
	// defer_if_reject of an exempt policy changes no refusal of another.
	deferring := &Policy{Name: "p", On: []string{"mx"}, Exempt: Exempt{Authenticated: true}, Checks: []*Check{check("a", script{Helo: say(DeferIfReject, 451, "x")})}}
	rejecting := &Policy{Name: "q", On: []string{"mx"}, Checks: []*Check{check("a", script{Rcpt: say(Reject, 550, "y")})}}
	s := NewSet([]*Policy{deferring, rejecting}, SetOptions{}).Session("mx")
	walk(s, Helo)
	ev := event(Rcpt)
	ev.User = "ann@example.org"
	if d := s.Ask(context.Background(), ev); d.Status.Code != 550 {
		t.Errorf("the other policy's refusal became %v", d.Status)
	}
}

// TestHeldEffectsOnce: effects are said when the check ran, not again with the
// refusal that it left.
func TestHeldEffectsOnce(t *testing.T) {
	v := say(Reject, 550, "x")
	v.Effects = Effects{Tarpit: time.Second, Tags: []string{"slow"}}
	s := setOf(SetOptions{}, check("a", script{Helo: v})).Session("mx")
	if d := s.Ask(context.Background(), event(Helo)); d.Effects.Tarpit != time.Second {
		t.Errorf("at HELO: %+v", d)
	}
	if d := s.Ask(context.Background(), event(Rcpt)); !d.Refused() || d.Effects.Tarpit != 0 || d.Effects.Tags != nil {
		t.Errorf("at RCPT: %+v, want the refusal alone", d)
	}
}

// records collects what a decision log is told.
type records []Record

func (r *records) Decided(one Record) { *r = append(*r, one) }

// TestRecordsCarryTheId: whoever has the id of a refusal finds its checks in
// the decision log, whatever stage it was given at.
func TestRecordsCarryTheId(t *testing.T) {
	rows := []struct {
		name   string
		check  *Check
		stages []Stage
		code   int
	}{
		{"at once", check("a", script{Rcpt: say(Reject, 0, "")}), []Stage{Rcpt}, 554},
		{"held", check("a", script{Helo: say(Reject, 501, "")}), []Stage{Helo, Mail, Rcpt}, 501},
		{"sticky", check("a", script{Mail: say(DeferIfPermit, 0, "")}), []Stage{Mail, Rcpt}, 450},
		{"error", &Check{Name: "a", At: []Stage{Rcpt}, Plugin: pluginFunc(func(*Event, Host) (Verdict, error) { return Verdict{}, errors.New("trap") })}, []Stage{Rcpt}, 451},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var log records
			s := setOf(SetOptions{Log: &log}, row.check).Session("mx")
			var d Decision
			for _, st := range row.stages {
				d = s.Ask(context.Background(), event(st))
			}
			if !d.Refused() || d.ID == "" || !strings.HasSuffix(d.Status.Text, " ("+string(d.ID)+")") {
				t.Fatalf("decision %+v", d)
			}
			if len(log) != 1 || log[0].ID != d.ID || log[0].Code != row.code {
				t.Errorf("records %+v, want one of id %s and code %d", log, d.ID, row.code)
			}
		})
	}
}

// TestOneIdAnAsk: all checks of one question share its id, and the next has another.
func TestOneIdAnAsk(t *testing.T) {
	var log records
	s := setOf(SetOptions{Log: &log}, check("a", script{Rcpt: {}}), check("b", script{Rcpt: {}})).Session("mx")
	first, second := s.Ask(context.Background(), event(Rcpt)), s.Ask(context.Background(), event(Rcpt))
	got := fmt.Sprint(log[0].ID == first.ID, log[1].ID == first.ID, log[2].ID == second.ID, first.ID != second.ID, first.ID != "")
	if got != "true true true true true" {
		t.Errorf("%s of %+v", got, log)
	}
}

// TestWhenKeepsOut: a check whose when is false was not asked.
func TestWhenKeepsOut(t *testing.T) {
	var log records
	c := check("a", script{Rcpt: say(Reject, 550, "")})
	c.When = func(*Event) (bool, error) { return false, nil }
	set := setOf(SetOptions{Log: &log}, c)
	if got := walk(set.Session("mx"), Rcpt); got != "-" || len(log) != 0 || set.Tallies()["inbound/a"].Asked != 0 {
		t.Errorf("%s, %+v, %+v", got, log, set.Tallies())
	}
}

type resolverFunc func(q Question) Answer

func (f resolverFunc) LookupDNS(_ context.Context, q Question) Answer { return f(q) }

// TestHostCallsAreRecorded: with their answers, so that a decision can be explained.
func TestHostCallsAreRecorded(t *testing.T) {
	var log records
	resolver := resolverFunc(func(q Question) Answer {
		if q.Type == "MX" {
			panic("a bug in the resolver")
		}
		return Answer{Records: []string{"192.0.2.1", "192.0.2.2"}}
	})
	now := time.Unix(1700000000, 0).UTC()
	plugin := pluginFunc(func(_ *Event, h Host) (Verdict, error) {
		h.Now()
		h.Random(make([]byte, 2))
		as := h.DNS(context.Background(), []Question{{"A", "example.org"}, {"MX", "example.org"}})
		if as[1].Status != DNSTemp {
			t.Errorf("a resolver that panics says %+v", as[1])
		}
		h.DNS(context.Background(), []Question{{"MX", "example.net"}})
		_, err := h.Count(context.Background(), "client", 2, time.Minute)
		return Verdict{}, err
	})
	o := SetOptions{Log: &log, Resolver: resolver, Now: func() time.Time { return now }, Random: func(p []byte) { copy(p, "\x01\xff") }}
	walk(setOf(o, &Check{Name: "a", At: []Stage{Rcpt}, Plugin: plugin}).Session("mx"), Rcpt)
	b, err := json.Marshal(log[0].Calls)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"call":"now","answer":"2023-11-14T22:13:20Z"},{"call":"random","answer":"01ff"},` +
		`{"call":"dns","ask":"A example.org","answer":"192.0.2.1 192.0.2.2","status":"ok"},{"call":"dns","ask":"MX example.org","status":"temporary"},` +
		`{"call":"dns","ask":"MX example.net","status":"temporary"},{"call":"count","ask":"client +2 1m0s","answer":"2"}]`
	if string(b) != want {
		t.Errorf("got\n%s\nwant\n%s", b, want)
	}
}

// logLines is a slog.Handler that keeps messages, with their level and text.
type logLines struct{ lines *[]string }

func (l logLines) Enabled(context.Context, slog.Level) bool { return true }
func (l logLines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l logLines) WithGroup(string) slog.Handler            { return l }
func (l logLines) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "stack" || a.Key == "text" {
			line += fmt.Sprintf(" %s=%d octets", a.Key, len(a.Value.String()))
		}
		return true
	})
	*l.lines = append(*l.lines, line)
	return nil
}

// TestPluginLogIsBounded: what one call may write, and how loudly.
func TestPluginLogIsBounded(t *testing.T) {
	var lines []string
	plugin := pluginFunc(func(_ *Event, h Host) (Verdict, error) {
		h.Log(int(slog.LevelError), "first")
		for range 100 {
			h.Log(int(slog.LevelInfo), strings.Repeat("x", 1000))
		}
		return Verdict{}, nil
	})
	walk(setOf(SetOptions{Logger: slog.New(logLines{&lines})}, &Check{Name: "a", At: []Stage{Rcpt}, Plugin: plugin}).Session("mx"), Rcpt)
	if len(lines) != 10 || lines[0] != "WARN plugin says text=5 octets" || lines[9] != "INFO plugin says text=176 octets" {
		t.Errorf("%d lines, %q", len(lines), lines)
	}
}

// TestPanicIsLoggedOnce: with its stack, and no louder than a warning.
func TestPanicIsLoggedOnce(t *testing.T) {
	var lines []string
	plugin := pluginFunc(func(*Event, Host) (Verdict, error) { panic("bug") })
	set := setOf(SetOptions{Logger: slog.New(logLines{&lines})}, &Check{Name: "a", At: []Stage{Rcpt}, Plugin: plugin})
	walk(set.Session("mx"), Rcpt, Rcpt)
	stacks := 0
	for _, l := range lines {
		if strings.Contains(l, "stack=") {
			stacks++
		}
		if strings.HasPrefix(l, "ERROR") {
			t.Errorf("a peer could write %q", l)
		}
	}
	if n := set.Tallies()["inbound/a"]; stacks != 1 || n.Errors != 2 {
		t.Errorf("%d stacks in %q, %+v", stacks, lines, n)
	}
}

// TestLegal holds the table of actions and stages, and that every other one
// ends in on_error.
func TestLegal(t *testing.T) {
	const any, session, message = "connect helo starttls auth mail rcpt data message", "connect helo mail rcpt data message", "mail rcpt data message"
	want := map[Action]string{
		Next: any + " queued route bounce", Accept: any + " queued route bounce", Reject: any + " queued route", Defer: any + " route", Disconnect: any,
		Discard: message + " queued route bounce", Hold: message + " queued route", Quarantine: message, DeferIfPermit: session, DeferIfReject: session,
	}
	for a := Next; a <= DeferIfReject+2; a++ {
		var got []string
		for stage := Stage(0); stage <= LastStage+2; stage++ {
			if Legal(stage, a) {
				got = append(got, stage.String())
			} else if stage >= Connect && stage <= Message {
				set := setOf(SetOptions{}, check("a", script{stage: {Action: a}}))
				set.Session("mx").Ask(context.Background(), event(stage))
				if n := set.Tallies()["inbound/a"]; n.Errors != 1 {
					t.Errorf("%s at %s is no error", a, stage)
				}
			}
		}
		if s := strings.Join(got, " "); s != want[a] {
			t.Errorf("%s: %q, want %q", a, s, want[a])
		}
	}
}

// TestCounterExtremes: nothing that a plugin counts wraps round or panics.
func TestCounterExtremes(t *testing.T) {
	c := NewCounters(CounterOptions{})
	now := time.Unix(1700000000, 0)
	const most = int64(1<<63 - 1)
	for _, delta := range []int64{most, most, -5} {
		if n, err := c.Add("a", delta, time.Minute, now); err != nil || n < 1<<40 {
			t.Errorf("after %d: %d, %v", delta, n, err)
		}
		now = now.Add(10 * time.Second)
	}
	for _, at := range []time.Time{{}, time.Unix(-1, 0), time.Unix(1<<40, 0)} {
		if n, err := c.Add("b", 1, time.Minute, at); err != nil || n < 1 {
			t.Errorf("at %v: %d, %v", at, n, err)
		}
	}
}

// TestCountersOutliveASet: a new generation goes on counting.
func TestCountersOutliveASet(t *testing.T) {
	counters := NewCounters(CounterOptions{})
	var last int64
	for range 2 {
		plugin := pluginFunc(func(_ *Event, h Host) (v Verdict, err error) {
			last, err = h.Count(context.Background(), "k", 1, time.Minute)
			return v, err
		})
		set := setOf(SetOptions{Counters: counters, Now: func() time.Time { return time.Unix(1700000000, 0) }}, &Check{Name: "a", At: []Stage{Rcpt}, Plugin: plugin})
		walk(set.Session("mx"), Rcpt)
	}
	if last != 2 {
		t.Errorf("the second generation counts %d, want 2", last)
	}
}

type closer struct {
	script
	closed *atomic.Int32
	err    error
}

func (c closer) Close() error { c.closed.Add(1); return c.err }

// TestClose closes each plugin, also behind one that cannot be closed.
func TestClose(t *testing.T) {
	var n atomic.Int32
	bad := errors.New("stuck")
	set := setOf(SetOptions{}, &Check{Name: "a", Plugin: closer{closed: &n, err: bad}}, &Check{Name: "b", Plugin: closer{closed: &n}})
	if err := set.Close(); !errors.Is(err, bad) || n.Load() != 2 {
		t.Errorf("%v after closing %d", err, n.Load())
	}
	if err := (*Set)(nil).Close(); err != nil {
		t.Error(err)
	}
}

// TestTable is the host of tests: everything it says stands in it.
func TestTable(t *testing.T) {
	h := &Table{
		Time: time.Unix(1700000000, 0), Bytes: []byte{1, 2},
		Answers: map[Question]Answer{{"A", "example.org"}: {Records: []string{"192.0.2.1"}}, {"A", "slow.example"}: {Status: DNSTemp}},
	}
	as := h.DNS(context.Background(), []Question{{"A", "EXAMPLE.org."}, {"A", "slow.example"}, {"MX", "example.org"}})
	if fmt.Sprint(as) != "[{[192.0.2.1] ok} {[] temporary} {[] not-found}]" {
		t.Errorf("DNS says %v", as)
	}
	p := make([]byte, 3)
	h.Random(p)
	n, err := h.Count(context.Background(), "k", 3, time.Minute)
	if fmt.Sprint(h.Now().Unix(), p, n, err) != "1700000000 [1 2 1] 3 <nil>" {
		t.Error(h.Now(), p, n, err)
	}
	h.Log(4, "hello")
	if strings.Join(h.Lines, "|") != "WARN hello" {
		t.Error(h.Lines)
	}
}

// FuzzShape: whatever a plugin wants to say fits one reply line.
func FuzzShape(f *testing.F) {
	f.Add(uint8(Reject), 550, "5.1.1", "no\r\n250 yes")
	f.Add(uint8(Disconnect), 421, "5.+1.-0", strings.Repeat("ü", 300))
	f.Fuzz(func(t *testing.T, action uint8, code int, enhanced, text string) {
		a := []Action{Reject, Defer, Disconnect}[action%3]
		s := shape(a, mail.Status{Code: code, Enhanced: enhanced, Text: text}, mail.NewID(time.Unix(0, 0)))
		line := fmt.Sprintf("%d %s %s", s.Code, s.Enhanced, s.Text)
		if len(line) > maxReply || s.Code < 400 || s.Code > 599 || s.Enhanced[0] != byte('0'+s.Code/100) || strings.ContainsAny(s.Enhanced, "+- ") {
			t.Fatalf("%d octets: %q", len(line), line)
		}
		for _, r := range line {
			if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' || r == '\u2028' {
				t.Fatalf("%q has %U", line, r)
			}
		}
	})
}
