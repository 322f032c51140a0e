//go:build !wasip1

package sdk

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/sdk/abi"
)

// asks returns a Fake of a plugin with all grants whose judge is f.
func asks(t *testing.T, f func(e *Event)) *Fake {
	t.Helper()
	fake := NewFake(&Plugin{
		ID: "org.example.asks", Version: "1", Stages: []Stage{Mail, Message},
		Grants:    []Grant{{Name: GrantMessage}, {Name: GrantState}, {Name: GrantList}, {Name: GrantCount}},
		Configure: func(*Config) (Judge, error) { return func(e *Event) Verdict { f(e); return Next() }, nil },
	})
	if err := fake.Configure(nil); err != nil {
		t.Fatal(err)
	}
	return fake
}

func call(t *testing.T, f *Fake, stage Stage) {
	t.Helper()
	if _, err := f.Call(Facts{Stage: stage}); err != nil {
		t.Fatal(err)
	}
}

func TestFakeMessage(t *testing.T) {
	f := asks(t, func(e *Event) {
		rows := []struct {
			name  string
			index int
			want  string
			ok    bool
		}{
			{"subject", 0, "one", true}, {"SUBJECT", 1, "two", true}, {"Subject", 2, "", false}, {"From", 0, "<a@b.example>", true},
			{"", 0, "Subject: one", true}, {"", 2, "Subject: two", true}, {"", 3, "", false},
		}
		for _, r := range rows {
			if v, ok, err := e.Header(r.name, r.index); v != r.want || ok != r.ok || err != nil {
				t.Errorf("%s %d: %q %v %v", r.name, r.index, v, ok, err)
			}
		}
		if _, _, err := e.Header("x", -1); !errors.Is(err, ErrBadArg) {
			t.Errorf("index -1: %v", err)
		}
		p := make([]byte, 4)
		for off, want := range map[int64]string{0: "abcd <nil>", 3: "de EOF", 5: " EOF", 99: " EOF"} {
			n, err := e.Body(p, off)
			got := string(p[:n]) + " <nil>"
			if err != nil {
				got = string(p[:n]) + " " + err.Error()
			}
			if got != want {
				t.Errorf("body from %d: %q, want %q", off, got, want)
			}
			if n < len(p) && !errors.Is(err, io.EOF) {
				t.Errorf("body from %d: %d octets and %v", off, n, err)
			}
		}
		if _, err := e.Body(p, -1); !errors.Is(err, ErrBadArg) {
			t.Errorf("offset -1: %v", err)
		}
	})
	f.Header = []string{"Subject: one", "From:<a@b.example>", "Subject: two"}
	f.Body = []byte("abcde")
	call(t, f, Message)
	f = asks(t, func(e *Event) {
		_, _, err := e.Header("Subject", 0)
		_, err2 := e.Body(make([]byte, 1), 0)
		if !errors.Is(err, ErrNotFound) || !errors.Is(err2, ErrNotFound) {
			t.Errorf("at MAIL: %v, %v", err, err2)
		}
	})
	call(t, f, Mail)
}

func TestFakeState(t *testing.T) {
	want := func(what string, ok bool) {
		t.Helper()
		if !ok {
			t.Error(what)
		}
	}
	var step func(e *Event)
	f := asks(t, func(e *Event) { step(e) })
	long := []byte(strings.Repeat("v", 5000))
	step = func(e *Event) {
		_, ok, err := e.StateGet("k")
		want("a key that was never put", !ok && err == nil)
		want("put", e.StatePut("k", long, time.Hour) == nil)
		seen, err := e.StateSeen("k", time.Hour)
		want("first sighting", seen == Sighting{} && err == nil)
	}
	call(t, f, Mail)
	first := f.Clock
	f.Clock = f.Clock.Add(59 * time.Minute)
	step = func(e *Event) {
		v, ok, err := e.StateGet("k")
		want("get", string(v) == string(long) && ok && err == nil)
		seen, err := e.StateSeen("k", time.Hour)
		want("second sighting", seen.Count == 1 && seen.First.Equal(first) && seen.Last.Equal(first) && err == nil)
	}
	call(t, f, Mail)
	f.Clock = f.Clock.Add(59 * time.Minute)
	step = func(e *Event) {
		_, ok, _ := e.StateGet("k")
		want("expired", !ok)
		seen, _ := e.StateSeen("k", time.Hour)
		want("a sighting keeps what was seen", seen.Count == 2 && seen.First.Equal(first))
		want("put", e.StatePut("k", nil, time.Hour) == nil && e.StatePut("k", nil, 0) == nil)
		_, ok, _ = e.StateGet("k")
		want("deleted", !ok)
		want("long key", errors.Is(e.StatePut(strings.Repeat("k", MaxKey+1), nil, time.Hour), ErrBadArg))
		want("long value", errors.Is(e.StatePut("k", make([]byte, MaxState+1), time.Hour), ErrBadArg))
		want("long time", errors.Is(e.StatePut("k", nil, MaxStateTTL+time.Second), ErrBadArg))
		_, err := e.StateSeen("k", 0)
		want("no time", errors.Is(err, ErrBadArg))
	}
	call(t, f, Mail)
	step = func(e *Event) {
		for range MaxStateOps {
			_, err := e.Count("c", 1, time.Minute)
			want("within the allowance", err == nil)
		}
		want("beyond the allowance", errors.Is(e.StatePut("k", nil, time.Hour), ErrQuota))
	}
	call(t, f, Mail)
	f.Grants = nil
	step = func(e *Event) {
		_, _, err := e.StateGet("k")
		_, err2 := e.StateSeen("k", time.Hour)
		_, _, err3 := e.List("l", "k")
		want("not granted", errors.Is(err, ErrDenied) && errors.Is(err2, ErrDenied) && errors.Is(err3, ErrDenied) && errors.Is(e.StatePut("k", nil, time.Hour), ErrDenied))
	}
	call(t, f, Mail)
}

func TestFakeListsMetricsRandom(t *testing.T) {
	var drawn [2][]byte
	f := asks(t, func(e *Event) {
		v, ok, err := e.List("bad", "localhost")
		if v != "REJECT" || !ok || err != nil {
			t.Errorf("%q %v %v", v, ok, err)
		}
		if _, ok, err := e.List("bad", "mail.example"); ok || err != nil {
			t.Errorf("%v %v", ok, err)
		}
		if _, _, err := e.List("none", "x"); !errors.Is(err, ErrNoList) {
			t.Errorf("a list that is not there: %v", err)
		}
		e.Metric("hits", 2)
		e.Metric("hits", 1)
		e.Metric("no label", 1)
		for i := range drawn {
			drawn[i] = make([]byte, abi.MaxRandom+9)
			e.Random(drawn[i])
		}
	})
	f.Lists["bad"] = map[string]string{"localhost": "REJECT"}
	call(t, f, Mail)
	if f.Metrics["hits"] != 3 || len(f.Metrics) != 1 {
		t.Errorf("metrics %v", f.Metrics)
	}
	if string(drawn[0]) == string(drawn[1]) || strings.Count(string(drawn[0]), "\x00") > abi.MaxRandom/100 {
		t.Error("random octets repeat")
	}
}
