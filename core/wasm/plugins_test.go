package wasm

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

func TestHelo(t *testing.T) {
	h := shared(t)
	w := newWorld()
	w.zone["A mail.example.com"] = policy.Answer{Records: []string{"192.0.2.25"}}
	p := load(t, h, plugin(t, "helo"), LoadOptions{
		Config: map[string][]string{"reject": {"missing", "invalid", "not-fqdn", "unknown"}},
		Grants: []string{"dns"},
	})
	rows := []struct {
		helo   string
		action policy.Action
		status mail.Status
	}{
		{"mail.example.com", policy.Next, mail.Status{}},
		{"mailhost", policy.Reject, mail.Status{Code: 504, Enhanced: "5.5.2", Text: "<mailhost>: Helo command rejected: need fully-qualified hostname"}},
		{"a b", policy.Reject, mail.Status{Code: 501, Enhanced: "5.5.2", Text: "<a?b>: Helo command rejected: Invalid name"}},
		{"nosuch.example", policy.Defer, mail.Status{Code: 450, Enhanced: "4.7.1", Text: "<nosuch.example>: Helo command rejected: Host not found"}},
		{"", policy.Reject, mail.Status{Code: 503, Enhanced: "5.5.1", Text: "Error: send HELO/EHLO first"}},
	}
	for range 3 { // the same instance again
		for _, r := range rows {
			v, err := p.Call(context.Background(), event(t, policy.Helo, r.helo), w)
			if err != nil || v.Action != r.action || v.Status != r.status {
				t.Errorf("HELO %q: got %+v, %v; want %v %+v", r.helo, v, err, r.action, r.status)
			}
		}
	}
	if w.asked != 3*2*3 {
		t.Errorf("asked DNS %d times", w.asked)
	}
	if v, err := p.Call(context.Background(), event(t, policy.Data, "x y"), w); err != nil || v.Action != policy.Next {
		t.Errorf("at a stage that is not in the manifest: %+v, %v", v, err)
	}
}

func TestRatelimit(t *testing.T) {
	h := shared(t)
	w := newWorld()
	p := load(t, h, plugin(t, "ratelimit"), LoadOptions{Config: map[string][]string{"limit": {"2"}}, Grants: []string{"count"}})
	for i, want := range []int{0, 0, 421} {
		v, err := p.Call(context.Background(), event(t, policy.Connect, ""), w)
		if err != nil || v.Status.Code != want {
			t.Errorf("connection %d: got %+v, %v; want %d", i+1, v, err, want)
		}
	}
	if w.counts["198.51.100.7"] != 3 {
		t.Errorf("counters: %v", w.counts)
	}
}

func TestInspect(t *testing.T) {
	m, err := shared(t).Inspect(context.Background(), plugin(t, "helo"))
	if err != nil {
		t.Fatal(err)
	}
	if m.ID != "org.wafermail.helo" || len(m.Stages) != 3 || len(m.Fields) != 1 || m.Fields[0].Type != List || len(m.Fields[0].Choices) != 6 || !m.Grants[0].Optional || len(m.Digest) != 64 || m.ABI != 1<<16 {
		t.Errorf("got %+v", m)
	}
}

// TestOneCompilation loads one module for several checks: one program, several
// configurations.
func TestOneCompilation(t *testing.T) {
	h := shared(t)
	a := load(t, h, plugin(t, "helo"), LoadOptions{Name: "a", Config: map[string][]string{"reject": {"literal"}}})
	b := load(t, h, plugin(t, "helo"), LoadOptions{Name: "b", Config: map[string][]string{"reject": {"invalid"}}})
	if a.program != b.program {
		t.Error("the module was compiled twice")
	}
	w := newWorld()
	ev := event(t, policy.Helo, "[192.0.2.1]")
	va, erra := a.Call(context.Background(), ev, w)
	vb, errb := b.Call(context.Background(), ev, w)
	if erra != nil || errb != nil || va.Action != policy.Reject || vb.Action != policy.Next {
		t.Errorf("got %+v, %v and %+v, %v", va, erra, vb, errb)
	}
}

func TestLoadErrors(t *testing.T) {
	rows := []struct {
		name, module string
		options      LoadOptions
		want         []string
	}{
		{"import without its grant", "ratelimit", LoadOptions{Config: map[string][]string{"limit": {"1"}}, Source: "config.hcl:12,3-9"},
			[]string{"config.hcl:12,3-9: check \"inbound/x\": plugin org.wafermail.ratelimit: ", "imports wafer1.count", `allow = ["count"]`}},
		{"optional grant that the config needs", "helo", LoadOptions{Config: map[string][]string{"reject": {"unknown"}}}, []string{`with.reject: "unknown" looks the name up: write allow = ["dns"]`}},
		{"unknown grant", "helo", LoadOptions{Grants: []string{"everything"}}, []string{`"everything"`, "count, dns"}},
		{"unknown field", "helo", LoadOptions{Config: map[string][]string{"rejct": {"x"}}}, []string{"with.rejct: unknown field; org.wafermail.helo has reject"}},
		{"two faults at once", "ratelimit", LoadOptions{Config: map[string][]string{"per": {"soon"}}, Grants: []string{"count"}}, []string{"with.limit: is required", `with.per: want a duration such as "90s", "5m" or "2d", not "soon"`}},
		{"wrong choice", "helo", LoadOptions{Config: map[string][]string{"reject": {"all"}}}, []string{`with.reject: "all" is none of missing, invalid`}},
		{"the plugin's own complaint", "naughty", LoadOptions{Config: map[string][]string{"do": {"complain"}}}, []string{"with.do: this plugin does not complain"}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			r.options.Name = "inbound/x"
			_, err := shared(t).Load(context.Background(), plugin(t, r.module), r.options)
			if err == nil {
				t.Fatal("loaded")
			}
			for _, want := range r.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want in it %q", err, want)
				}
			}
		})
	}
}

// small is a budget that a test can wait for.
var small = Limits{Fuel: 1_000_000_000, CPU: 2 * time.Second, Memory: 32 << 20}

func naughty(t testing.TB, do string, config map[string][]string) *Plugin {
	t.Helper()
	c := map[string][]string{"do": {do}}
	for k, v := range config {
		c[k] = v
	}
	return load(t, shared(t), plugin(t, "naughty"), LoadOptions{Config: c, Grants: []string{"dns", "count", "message", "state", "list"}, Limits: small})
}

func TestWellBehaved(t *testing.T) {
	call := func(t *testing.T, p *Plugin, ev *policy.Event, w *world) policy.Verdict {
		t.Helper()
		v, err := p.Call(context.Background(), ev, w)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	t.Run("sleep returns at once", func(t *testing.T) {
		if v := call(t, naughty(t, "sleep", nil), event(t, policy.Helo, "x"), newWorld()); v.Action != policy.Accept {
			t.Errorf("got %+v", v)
		}
	})
	t.Run("no files, arguments, environment", func(t *testing.T) {
		v := call(t, naughty(t, "file", nil), event(t, policy.Helo, "x"), newWorld())
		if v.Status.Text != "args  env GOGC=50" {
			t.Errorf("got %q", v.Status.Text)
		}
	})
	t.Run("log is capped", func(t *testing.T) {
		w := newWorld()
		call(t, naughty(t, "log", map[string][]string{"times": {"100"}}), event(t, policy.Helo, "x"), w)
		if n := len(strings.Join(w.lines, "")); n < 8000 || n > 9000 {
			t.Errorf("logged %d octets in %d lines", n, len(w.lines))
		}
	})
	t.Run("output is capped", func(t *testing.T) {
		w := newWorld()
		call(t, naughty(t, "print", map[string][]string{"times": {"100"}}), event(t, policy.Helo, "x"), w)
		if n := len(strings.Join(w.lines, "")); len(w.lines) != 1 || n < 8000 || n > 9000 {
			t.Errorf("logged %d octets in %d lines", n, len(w.lines))
		}
	})
	t.Run("facts", func(t *testing.T) {
		ev := event(t, policy.Rcpt, "mail.example.com")
		ev.Rcpts = []mail.Path{path(t, "c@local.example"), path(t, `"odd name"@local.example`)}
		v := call(t, naughty(t, "facts", nil), ev, newWorld())
		want := `01ARZ3NDEKTSV4RRF|mx|smtp|198.51.100.7|client.example.net|mail.example.com||alice@example.com|bob@local.example|mx.local.example||192.0.2.1:25|c@local.example?"odd name"@local.example|TLSv1.3||2026-11-18 11:06:40|2026-11-18 11:06:40`
		if v.Status.Text != want {
			t.Errorf("got  %s\nwant %s", v.Status.Text, want)
		}
	})
	t.Run("effects", func(t *testing.T) {
		v := call(t, naughty(t, "effects", nil), event(t, policy.Mail, "x"), newWorld())
		e := v.Effects
		if v.Action != policy.Accept || v.Reason != "all-of-it" || len(e.Prepend) != 1 || e.Prepend[0] != (policy.Field{Name: "X-Policy", Value: "one  two"}) ||
			len(e.Tags) != 1 || e.Score != 1.5 || e.BCC[0] != path(t, "log@example.com") || e.Redirect[0] != path(t, "jail@example.com") || e.Tarpit != 2*time.Second {
			t.Errorf("got %+v", v)
		}
	})
	t.Run("64 modifications", func(t *testing.T) {
		if v := call(t, naughty(t, "mods", map[string][]string{"times": {"64"}}), event(t, policy.Helo, "x"), newWorld()); len(v.Effects.Tags) != 64 {
			t.Errorf("got %d tags", len(v.Effects.Tags))
		}
	})
	t.Run("action and stage", func(t *testing.T) {
		p := naughty(t, "discard", nil)
		if v := call(t, p, event(t, policy.Rcpt, "x"), newWorld()); v.Action != policy.Discard {
			t.Errorf("got %+v", v)
		}
		if v, err := p.Call(context.Background(), event(t, policy.Connect, ""), newWorld()); err == nil {
			t.Errorf("discard at connect: got %+v", v)
		}
	})
	t.Run("dns quota", func(t *testing.T) {
		w := newWorld()
		w.zone["A a.example"] = policy.Answer{Records: []string{"192.0.2.1"}}
		v := call(t, naughty(t, "dns", map[string][]string{"times": {"257"}}), event(t, policy.Helo, "x"), w)
		if v.Action != policy.Defer || v.Status.Text != "the call's allowance is used up" || w.asked != 0 {
			t.Errorf("got %+v after %d questions", v, w.asked)
		}
		v = call(t, naughty(t, "dns", map[string][]string{"times": {"30"}}), event(t, policy.Helo, "x"), w)
		if v.Action != policy.Reject || strings.Count(v.Status.Text, "192.0.2.1") != 30 {
			t.Errorf("got %+v", v)
		}
	})
	t.Run("large dns answer is asked for once", func(t *testing.T) {
		w := newWorld()
		w.zone["A a.example"] = policy.Answer{Records: []string{strings.Repeat("z", 6000)}}
		v := call(t, naughty(t, "dns", map[string][]string{"times": {"1"}}), event(t, policy.Helo, "x"), w)
		if v.Action != policy.Reject || w.asked != 1 {
			t.Errorf("got %+v after %d questions", v, w.asked)
		}
	})
	t.Run("count quota", func(t *testing.T) {
		v := call(t, naughty(t, "count", map[string][]string{"times": {"51"}}), event(t, policy.Helo, "x"), newWorld())
		if v.Action != policy.Defer || v.Status.Text != "the call's allowance is used up" {
			t.Errorf("got %+v", v)
		}
	})
	t.Run("without the optional grant", func(t *testing.T) {
		p := load(t, shared(t), plugin(t, "naughty"), LoadOptions{Config: map[string][]string{"do": {"dns"}}})
		w := newWorld()
		if v := call(t, p, event(t, policy.Helo, "x"), w); v.Status.Text != "not granted" || w.asked != 0 {
			t.Errorf("got %+v after %d questions", v, w.asked)
		}
	})
}

// directory is a policy.Directory of one domain.
type directory struct{}

func (directory) Class(p mail.Path) string {
	switch {
	case p.Domain() != "local.example":
		return policy.ClassRelay
	case p.Local() == "bob":
		return policy.ClassLocal
	}
	return policy.ClassUnknown
}

func (directory) Owners(p mail.Path) []string { return []string{p.Local(), "postmaster"} }

type entries map[string]string

func (e entries) Lookup(key string) (string, bool) { v, ok := e[key]; return v, ok }

// TestWorld lets a Go guest use each grant, and hears what it was told.
func TestWorld(t *testing.T) {
	rows := []struct {
		do    string
		stage policy.Stage
		times string
		want  string
	}{
		{"read", policy.Message, "4", "Subject: hello|hello,true,ok|false,ok|4,ok,cdef"},
		{"read", policy.Message, "100000", "Subject: hello|hello,true,ok|false,ok|70005,EOF,cdefgxxx"},
		{"read", policy.Mail, "4", "not there|,false,not there|false,not there|0,not there,"},
		{"remember", policy.Mail, "1000", "0,false,ok|ok|1000,true,ok|0,true,ok|1,false,ok|ok,bad argument,bad argument|false,ok"},
		{"remember", policy.Mail, "16385", "0,false,ok|bad argument|0,false,ok|0,true,ok|1,false,ok|ok,bad argument,bad argument|false,ok"},
		{"look up", policy.Mail, "1", "value,true,ok|,false,ok|,false,the check names no such list|,false,the check names no such list|????"},
		{"directory", policy.Rcpt, "1", "relay,local,alice?postmaster,one?two,2.5"},
		{"keys", policy.Mail, "50", ""},
		{"keys", policy.Mail, "51", "the call's allowance is used up"},
	}
	for _, r := range rows {
		t.Run(r.do+" "+r.times, func(t *testing.T) {
			w := newWorld()
			w.table.Lists = map[string]policy.List{"good": entries{"known": "value"}}
			ev := event(t, r.stage, "x")
			ev.Directory, ev.Tags, ev.Score = directory{}, []string{"one", "two"}, 2.5
			if r.stage == policy.Message {
				ev.Content = letter{"abcdefg" + strings.Repeat("x", 70000)}
			}
			v, err := naughty(t, r.do, map[string][]string{"times": {r.times}}).Call(context.Background(), ev, w)
			if err != nil || v.Status.Text != r.want {
				t.Errorf("got %q, %v, want %q", v.Status.Text, err, r.want)
			}
			if r.do == "look up" && w.table.Metrics["looked-up"] != 2 {
				t.Errorf("metrics %v", w.table.Metrics)
			}
		})
	}
	t.Run("without grants", func(t *testing.T) {
		ev := event(t, policy.Message, "x")
		ev.Content = letter{"abc"}
		for do, want := range map[string]string{
			"read": "not granted|,false,not granted|false,not granted|0,not granted,", "look up": ",false,not granted|,false,not granted|,false,not granted|,false,not granted|????",
		} {
			p := load(t, shared(t), plugin(t, "naughty"), LoadOptions{Config: map[string][]string{"do": {do}, "times": {"4"}}})
			if v, err := p.Call(context.Background(), ev, newWorld()); err != nil || v.Status.Text != want {
				t.Errorf("%s: got %q, %v, want %q", do, v.Status.Text, err, want)
			}
		}
	})
	t.Run("recorded", func(t *testing.T) {
		ev := event(t, policy.Message, "x")
		ev.Content = letter{"abc"}
		h := &policy.Table{}
		p := naughty(t, "read", map[string][]string{"times": {"4"}})
		if _, err := p.Call(context.Background(), ev, h); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range h.Calls {
			got = append(got, c.Call+" "+c.Ask+"="+c.Answer+" "+c.Status)
		}
		if s := strings.Join(got, "; "); s != "header  0=14 ok; header  1=0 not-found; header SUBJECT 0=5 ok; header Subject 1=0 not-found; body 2 4=1 ok; body 3 3=0 ok" || h.Fuel < 1000 {
			t.Errorf("got %s with %d units of fuel", s, h.Fuel)
		}
	})
}

// TestDNSDeadline lets DNS never answer: the call ends when its time for that
// is over, and the plugin hears of it.
func TestDNSDeadline(t *testing.T) {
	limits := small
	limits.IO = 20 * time.Millisecond
	p := load(t, shared(t), plugin(t, "naughty"), LoadOptions{Config: map[string][]string{"do": {"dns"}}, Grants: []string{"dns"}, Limits: limits})
	w := newWorld()
	w.block = make(chan struct{})
	v, err := p.Call(context.Background(), event(t, policy.Helo, "x"), w)
	if err != nil || v.Action != policy.Reject || v.Status.Text != "" {
		t.Errorf("got %+v, %v", v, err)
	}
}

// TestGarbageCollectorRuns collects garbage while a guest loops.
func TestGarbageCollectorRuns(t *testing.T) {
	limits := Limits{Fuel: 1 << 40, CPU: 300 * time.Millisecond}
	p := load(t, shared(t), plugin(t, "naughty"), LoadOptions{Config: map[string][]string{"do": {"loop"}}, Limits: limits})
	done := make(chan error, 1)
	go func() {
		_, err := p.Call(context.Background(), event(t, policy.Helo, "x"), newWorld())
		done <- err
	}()
	collected := 0
	for {
		runtime.GC() // returns only if the guest can be stopped
		collected++
		select {
		case err := <-done:
			var call *CallError
			if !errors.As(err, &call) || call.Cause != CauseDeadline {
				t.Errorf("got %v, want %s", err, CauseDeadline)
			}
			if collected < 2 {
				t.Errorf("%d collections while the guest looped", collected)
			}
			return
		default:
		}
	}
}

// TestStateIsTheImage checks that every new instance begins where configuration
// ended, and that used ones go on.
func TestStateIsTheImage(t *testing.T) {
	limits := small
	limits.Calls = 3
	p := load(t, shared(t), plugin(t, "naughty"), LoadOptions{Config: map[string][]string{"do": {"state"}}, Limits: limits})
	for i, want := range []float64{1, 2, 3, 1, 2, 3, 1} {
		v, err := p.Call(context.Background(), event(t, policy.Helo, "x"), newWorld())
		if err != nil || v.Effects.Score != want {
			t.Errorf("call %d: got %v, %v; want %v", i+1, v.Effects.Score, err, want)
		}
	}
	if s := p.Stats(); s.Instances != 3 || s.Calls != 7 || s.Failures != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestConcurrentCalls(t *testing.T) {
	p := load(t, shared(t), plugin(t, "helo"), LoadOptions{Limits: Limits{Calls: 50}})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			w := newWorld()
			helo := []string{"mailhost", "mail.example.com"}[g%2]
			want := []int{504, 0}[g%2]
			for range 200 {
				v, err := p.Call(context.Background(), event(t, policy.Helo, helo), w)
				if err != nil || v.Status.Code != want {
					t.Errorf("HELO %s: got %+v, %v", helo, v, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestClosedPlugin(t *testing.T) {
	p := load(t, shared(t), plugin(t, "helo"), LoadOptions{})
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := p.Call(context.Background(), event(t, policy.Helo, "x"), newWorld())
	var call *CallError
	if !errors.As(err, &call) || call.Cause != CauseClosed {
		t.Errorf("got %v", err)
	}
}

func TestBreakerOpens(t *testing.T) {
	now := time.Unix(1795000000, 0)
	log, lines := logger()
	h, err := New(Options{CacheDir: cacheDir(), Now: func() time.Time { return now }, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	p := load(t, h, plugin(t, "naughty"), LoadOptions{Config: map[string][]string{"do": {"fail"}}})
	cause := func() string {
		_, err := p.Call(context.Background(), event(t, policy.Helo, "x"), newWorld())
		var call *CallError
		errors.As(err, &call)
		return call.Cause
	}
	for range 5 {
		if got := cause(); got != CauseGuest {
			t.Fatalf("got %s", got)
		}
	}
	if got := cause(); got != CauseOpen || !strings.Contains(lines.String(), "plugin failed too often") {
		t.Errorf("after five failures: %s, log %s", got, lines)
	}
	now = now.Add(31 * time.Second)
	if got := cause(); got != CauseGuest {
		t.Errorf("after 31 s: %s", got)
	}
}
