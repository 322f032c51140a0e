package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// table is a List.
type table map[string]string

func (l table) Lookup(key string) (string, bool) { v, ok := l[key]; return v, ok }

// digested is a plugin of a module.
type digested struct{ pluginFunc }

func (digested) Digest() string { return "abc123" }
func (digested) ID() string     { return "org.example.a" }

// TestRecordIsComplete: what a check was asked, saw, said and cost is in its record.
func TestRecordIsComplete(t *testing.T) {
	var log records
	now := time.Unix(1700000000, 0)
	plugin := digested{func(ev *Event, h Host) (Verdict, error) {
		ctx := context.Background()
		_, _, err1 := h.StateGet(ctx, "k")
		err2 := h.StatePut(ctx, "k", []byte("v"), time.Hour)
		_, _, err3 := h.StateGet(ctx, "k")
		_, err4 := h.StateSeen(ctx, "s", time.Hour)
		seen, err5 := h.StateSeen(ctx, "s", time.Hour)
		_, _, err6 := h.List("bad", "example.org")
		_, _, err7 := h.List("bad", "example.net")
		_, _, err8 := h.List("none", "x")
		_, _, err9 := h.StateGet(ctx, strings.Repeat("k", 1025))
		if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil || seen.Count != 1 || !errors.Is(err8, ErrNoList) || err9 == nil {
			t.Errorf("%v, %+v, %v, %v", err, seen, err8, err9)
		}
		h.Metric("hits", 2)
		h.Metric("Not A Label", 1)
		r := h.(Recorder)
		r.Note(HostCall{Call: "get", Ask: "server", Answer: "192.0.2.1:25", Status: "ok"})
		r.Burned(4711)
		v := say(Reject, 550, "no")
		v.Status.Enhanced, v.Reason = "5.7.1", "bad"
		v.Effects = Effects{Prepend: []Field{{"X-A", "b"}}, Tags: []string{"t"}, Score: 2, Tarpit: time.Second}
		return v, nil
	}}
	c := &Check{Name: "a", At: []Stage{Rcpt}, Plugin: plugin, Where: "x.hcl:7", Lists: map[string]List{"bad": table{"example.org": "REJECT"}}}
	set := setOf(SetOptions{Log: &log, Generation: 3, Now: func() time.Time { return now }}, c)
	ev := event(Rcpt)
	ev.HasSender, ev.Helo, ev.User, ev.TLS.Version, ev.Session = true, "h", "u", "TLSv1.3", "S"
	set.Session("mx").Ask(context.Background(), ev)
	if len(log) != 1 {
		t.Fatalf("%d records", len(log))
	}
	r := log[0]
	r.ID, r.Micros = "ID", 5
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"ID","time":"TIME","generation":3,"session":"S","door":"mx","stage":"rcpt","client":"192.0.2.1","helo":"h","tls":"TLSv1.3","user":"u",` +
		`"sender":"\u003c\u003e","check":"inbound/a","where":"x.hcl:7","plugin":"org.example.a","digest":"abc123","mode":"enforce","action":"reject","code":550,"enhanced":"5.7.1",` +
		`"text":"no","reason":"bad","effects":{"prepend":["X-A: b"],"tags":["t"],"score":2,"tarpit_ms":1000},"calls":[` +
		`{"call":"state_get","ask":"k","status":"not-found"},{"call":"state_put","ask":"k 1h0m0s v","status":"ok"},` +
		`{"call":"state_get","ask":"k","answer":"v","status":"ok"},{"call":"state_seen","ask":"s 1h0m0s","answer":"0"},` +
		`{"call":"state_seen","ask":"s 1h0m0s","answer":"1 2023-11-14T22:13:20Z 2023-11-14T22:13:20Z"},` +
		`{"call":"list","ask":"bad example.org","answer":"REJECT","status":"ok"},{"call":"list","ask":"bad example.net","status":"not-found"},` +
		`{"call":"list","ask":"none x","status":"the check names no such list"},{"call":"state_get","ask":"` + strings.Repeat("k", 1025) + `","status":"key is longer than 1024 octets"},` +
		`{"call":"get","ask":"server","answer":"192.0.2.1:25","status":"ok"}],"fuel":4711,"us":5}`
	stamp, _ := json.Marshal(r.Time)
	if got := strings.Replace(string(b), string(stamp), `"TIME"`, 1); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	tally := set.Tallies()["inbound/a"]
	if tally.Metrics["hits"] != 2 || len(tally.Metrics) != 1 || tally.Reasons["bad"] != 1 || tally.Fuel.Sum != 4711 || tally.Fuel.Counts[2] != 1 ||
		!reflect.DeepEqual(tally.Verdicts, []VerdictCount{{Stage: Rcpt, Action: Reject, Count: 1}}) || tally.Refused != 1 || tally.Asked != 1 {
		t.Errorf("tally %+v", tally)
	}
}

// TestExplainNamesTheSkipped: whoever asks why is told also why not.
func TestExplainNamesTheSkipped(t *testing.T) {
	var log records
	away := check("when", script{Rcpt: say(Reject, 550, "")})
	away.When = func(*Event) (bool, error) { return false, nil }
	set := NewSet([]*Policy{
		{Name: "p", On: []string{"mx"}, Checks: []*Check{away, check("ok", script{Rcpt: {Action: Accept}}), check("after", script{Rcpt: {}})}},
		{Name: "q", On: []string{"mx"}, Exempt: Exempt{Authenticated: true}, Checks: []*Check{check("exempt", script{Rcpt: {}})}},
		{Name: "r", On: []string{"mx"}, Checks: []*Check{check("no", script{Rcpt: say(Reject, 550, "")}), check("late", script{Rcpt: {}})}},
		{Name: "s", On: []string{"mx"}, Checks: []*Check{check("last", script{Rcpt: {}})}},
	}, SetOptions{Log: &log, Explain: true})
	ev := event(Rcpt)
	ev.User = "ann"
	set.Session("mx").Ask(context.Background(), ev)
	var got []string
	for _, r := range log {
		got = append(got, r.Check+"="+r.Skipped)
	}
	if want := "p/when=when p/ok= p/after=accepted q/exempt=exempt r/no= r/late=refused s/last=refused"; strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
}

// TestChecksShareNoState: keys are the check's own, and values and sightings apart.
func TestChecksShareNoState(t *testing.T) {
	var got []string
	plugin := pluginFunc(func(_ *Event, h Host) (Verdict, error) {
		ctx := context.Background()
		v, ok, err := h.StateGet(ctx, "k")
		s, err2 := h.StateSeen(ctx, "k", time.Hour)
		got = append(got, fmt.Sprint(string(v), ok, s.Count))
		return Verdict{}, errors.Join(err, err2, h.StatePut(ctx, "k", []byte("x"), time.Hour))
	})
	set := setOf(SetOptions{}, &Check{Name: "a", At: []Stage{Rcpt}, Plugin: plugin}, &Check{Name: "b", At: []Stage{Rcpt}, Plugin: plugin})
	walk(set.Session("mx"), Rcpt, Rcpt)
	if fmt.Sprint(got) != "[false 0 false 0 xtrue 1 xtrue 1]" {
		t.Errorf("got %q", got)
	}
}

func TestMemoryState(t *testing.T) {
	ctx, now := context.Background(), time.Unix(1700000000, 0)
	s := NewMemory()
	put := func(key, value string, ttl, after time.Duration) {
		t.Helper()
		if err := s.Put(ctx, key, []byte(value), ttl, now.Add(after)); err != nil {
			t.Error(err)
		}
	}
	get := func(key string, after time.Duration) string {
		t.Helper()
		v, ok, err := s.Get(ctx, key, now.Add(after))
		if err != nil {
			t.Error(err)
		}
		if !ok {
			return "-"
		}
		return string(v)
	}
	put("a", "1", time.Minute, 0)
	if g := get("a", 59*time.Second) + get("a", time.Minute) + get("b", 0); g != "1--" {
		t.Errorf("expiry: %s", g)
	}
	put("a", "2", time.Hour, 0)
	put("a", "", 0, 0)
	if g := get("a", 0); g != "-" {
		t.Errorf("deleted: %s", g)
	}
	for i, want := range []int64{0, 1, 2} {
		seen, err := s.Seen(ctx, "a", time.Minute, now.Add(time.Duration(i)*50*time.Second))
		if err != nil || seen.Count != want || want > 0 && !seen.First.Equal(now) {
			t.Errorf("seen %d: %+v, %v", i, seen, err)
		}
	}
	if seen, err := s.Seen(ctx, "a", time.Minute, now.Add(time.Hour)); err != nil || seen != (Sighting{}) {
		t.Errorf("forgotten: %+v, %v", seen, err)
	}
	if err := s.Put(ctx, "a", nil, 91*24*time.Hour, now); err == nil {
		t.Error("kept for 91 days")
	}
	for _, ttl := range []time.Duration{0, -1, 91 * 24 * time.Hour} {
		if _, err := s.Seen(ctx, "a", ttl, now); err == nil {
			t.Errorf("seen for %v", ttl)
		}
	}
	for i := range memoryKeys + 1000 { // keys that a peer chooses are bounded
		put(fmt.Sprint("k", i), "", time.Hour, 0)
	}
	big := strings.Repeat("x", 16<<10)
	for i := range 3000 {
		put(fmt.Sprint("big", i), big, time.Hour, 0)
	}
	if s.used.Len() > memoryKeys || s.octets > memoryOctets || len(s.byKey) != s.used.Len() {
		t.Errorf("%d keys with %d octets", s.used.Len(), s.octets)
	}
}

func TestCountersListAndReset(t *testing.T) {
	c, now := NewCounters(CounterOptions{}), time.Unix(1700000000, 0)
	for _, key := range []string{"p/a\x00one", "p/a\x00two", "p/b\x00one"} {
		if _, err := c.Add(key, 3, time.Minute, now); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.List("p/b", now, 10); len(got) != 1 || got[0] != (Counted{"p/b", "one", 3, time.Minute}) {
		t.Errorf("got %+v", got)
	}
	if n := len(c.List("", now, 2)); n != 2 {
		t.Errorf("%d counters, want at most 2", n)
	}
	if n := c.Reset("p/a", "two"); n != 1 || len(c.List("p/a", now, 10)) != 1 {
		t.Errorf("%d reset, left %+v", n, c.List("p/a", now, 10))
	}
	if n := c.Reset("p/a", ""); n != 1 || len(c.List("", now, 10)) != 1 {
		t.Errorf("%d reset", n)
	}
	if n := len(c.List("", now.Add(time.Hour), 10)); n != 0 {
		t.Errorf("%d counters an hour later", n)
	}
}

// TestReasonsAreBounded: labels that a plugin chooses do not grow without end.
func TestReasonsAreBounded(t *testing.T) {
	i := 0
	plugin := pluginFunc(func(_ *Event, h Host) (Verdict, error) {
		i++
		h.Metric(fmt.Sprint("m", i), 1)
		return Verdict{Reason: fmt.Sprint("r", i)}, nil
	})
	set := setOf(SetOptions{}, &Check{Name: "a", At: []Stage{Rcpt}, Plugin: plugin})
	s := set.Session("mx")
	for range 200 {
		s.Ask(context.Background(), event(Rcpt))
	}
	tally := set.Tallies()["inbound/a"]
	if len(tally.Reasons) != maxReasons+1 || tally.Reasons["other"] != 200-maxReasons || len(tally.Metrics) != maxMetrics {
		t.Errorf("%d reasons, %d others, %d metrics", len(tally.Reasons), tally.Reasons["other"], len(tally.Metrics))
	}
	if len(LatencyBounds())+1 != len(tally.Latency.Counts) || len(FuelBounds())+1 != len(tally.Fuel.Counts) {
		t.Error("histograms and their bounds differ")
	}
}

// TestTableWorld: state, lists and metrics of the host of tests.
func TestTableWorld(t *testing.T) {
	h := &Table{Time: time.Unix(1700000000, 0), Lists: map[string]List{"l": table{"k": "v"}}}
	ctx := context.Background()
	v, ok, err := h.List("l", "k")
	_, _, missing := h.List("m", "k")
	errPut := h.StatePut(ctx, "k", []byte("x"), time.Hour)
	h.Time = h.Time.Add(time.Minute)
	got, found, errGet := h.StateGet(ctx, "k")
	_, errSeen := h.StateSeen(ctx, "k", time.Hour)
	seen, errSeen2 := h.StateSeen(ctx, "k", time.Hour)
	h.Metric("n", 2)
	if v != "v" || !ok || !errors.Is(missing, ErrNoList) || !bytes.Equal(got, []byte("x")) || !found || seen.Count != 1 || h.Metrics["n"] != 2 {
		t.Errorf("%q %v %v %q %v %+v %v", v, ok, missing, got, found, seen, h.Metrics)
	}
	if err := errors.Join(err, errPut, errGet, errSeen, errSeen2); err != nil {
		t.Error(err)
	}
}

// TestNotesAreBounded: what a plugin asks cannot make a record without end.
func TestNotesAreBounded(t *testing.T) {
	for length, want := range map[int]int{1: maxCalls, 1 << 20: maxNoted / maxAnswer} {
		var log records
		plugin := pluginFunc(func(_ *Event, h Host) (Verdict, error) {
			for range 2000 {
				h.(Recorder).Note(HostCall{Call: "get", Answer: strings.Repeat("x", length)})
			}
			return Verdict{}, nil
		})
		walk(setOf(SetOptions{Log: &log}, &Check{Name: "a", At: []Stage{Rcpt}, Plugin: plugin}).Session("mx"), Rcpt)
		if n := len(log[0].Calls); n != want {
			t.Errorf("answers of %d octets: %d are noted, want %d", length, n, want)
		}
	}
}
