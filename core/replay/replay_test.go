package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/tape"
)

func path(t testing.TB, s string) mail.Path {
	t.Helper()
	p, err := mail.ParsePath(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sample is a moment with something in every field.
func sample(t testing.TB, n int) *policy.Asked {
	at := time.Date(2026, 5, 1, 12, 0, n, 5, time.UTC).Local()
	return &policy.Asked{
		Event: policy.Event{
			Stage: policy.Message, Time: at, Session: fmt.Sprint("s", n%7), Door: "mx", Protocol: "smtp", Hostname: "mx.example.test",
			Server: netip.MustParseAddrPort("192.0.2.1:25"), Client: netip.MustParseAddrPort("[2001:db8::1]:4000"), ClientName: "c.example", ReverseName: "r.example",
			Trusted: true, Extended: true, HasSender: true, Helo: "c.example", TLS: mail.TLS{Version: "TLSv1.3", Cipher: "x", SNI: "y"}, User: "u", Mechanism: "PLAIN",
			QueueID: "Q1", Sender: path(t, `"a b"@example.net`), Recipient: path(t, "ann@example.test"), Rcpts: []mail.Path{path(t, "bob@example.test"), path(t, "é@example.test")},
			Size: 4096, Attempts: 3, Reply: "450 later", Notice: "failed",
		},
		Content: true, Directory: true, Generation: n,
		Decision: policy.Decision{Action: policy.Reject, Status: mail.Status{Code: 550, Enhanced: "5.7.1", Text: "no"}, Hangup: true, Check: "p/c", Reason: "why", ID: "ID1",
			Effects: policy.Effects{Prepend: []policy.Field{{Name: "A", Value: "b"}}, Tags: []string{"t"}, Score: 1.5, Redirect: []mail.Path{path(t, "x@example.org")}, Tarpit: time.Second, Delay: time.Hour, Limit: 2, Transport: "t", Hop: "h"}},
		Calls: []policy.Called{{Check: "p/c", Digest: "d", Observed: true, Now: at, Fuel: 12345, Verdict: policy.Verdict{Action: policy.Reject, Reason: "why", Status: mail.Status{Code: 550}}, Answers: []policy.HostAnswer{
			{Kind: policy.AskedRandom, Value: []byte{1, 2}}, {Kind: policy.AskedDNS, Key: "TXT example.net", Texts: []string{"v=spf1 -all"}, N: 0},
			{Kind: policy.AskedCount, Key: "k", Delta: 1, Span: time.Minute, N: 7, Failed: "full"}, {Kind: policy.AskedStateSeen, Key: "k", Span: time.Hour, N: 2, First: at, Last: at, OK: true},
		}}, {Check: "p/e", Err: "trap"}},
		Facts:  []policy.Fact{{Path: path(t, "ann@example.test"), Texts: []string{"local"}}, {Path: path(t, "ann@example.test"), Owners: true, Texts: []string{"ann"}}},
		Fields: []policy.HeaderRead{{Name: "Subject", Index: 0, Value: "hi", OK: true}, {Name: "X", Index: 1}},
		Reads:  []policy.BodyRead{{Off: 0, Want: 10, N: 5, End: true, Data: []byte("hello")}, {Off: 3, Want: 4, N: 2, End: true}},
	}
}

func TestCodec(t *testing.T) {
	for _, a := range []*policy.Asked{sample(t, 1), {Event: policy.Event{Stage: policy.Connect, Session: "x"}}} {
		got, err := Decode(Encode(nil, a))
		if err != nil {
			t.Fatal(err)
		}
		if !got.Event.Time.Equal(a.Event.Time) {
			t.Errorf("time %s, want %s", got.Event.Time, a.Event.Time)
		}
		if again := Encode(nil, got); !bytes.Equal(again, Encode(nil, a)) {
			t.Error("it is not the same when written again")
		}
		got.Event.Time, got.Calls, a.Event.Time = time.Time{}, nil, time.Time{}
		calls := a.Calls
		a.Calls = nil
		if !reflect.DeepEqual(got, a) {
			t.Errorf("got  %+v\nwant %+v", got, a)
		}
		a.Calls = calls
	}
	whole := Encode(nil, sample(t, 1))
	for n := range whole {
		if _, err := Decode(whole[:n]); err == nil {
			t.Errorf("the first %d octets are read as an entry", n)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(nil, sample(f, 1)))
	f.Add(Encode(nil, &policy.Asked{Event: policy.Event{Stage: policy.Connect}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Decode(b)
		if err != nil {
			return
		}
		if again, err := Decode(Encode(nil, a)); err != nil || !bytes.Equal(Encode(nil, again), Encode(nil, a)) {
			t.Fatalf("it is not the same when written again: %v", err)
		}
	})
}

// tapeOf records n samples.
func tapeOf(t testing.TB, n int, o RecordOptions) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tape")
	r, err := Record(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		r.Asked(sample(t, i))
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if r.Written() != uint64(n) || r.Dropped() != 0 {
		t.Fatalf("%d written, %d dropped", r.Written(), r.Dropped())
	}
	r.Asked(sample(t, 0)) // after the end: dropped, and nothing breaks
	return dir
}

func readTape(t testing.TB, dir string, f tape.Filter, o tape.ReadOptions) (list []int, stats tape.Stats) {
	t.Helper()
	stats, err := Read(context.Background(), dir, f, o, func(a *policy.Asked) error { list = append(list, a.Generation); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return list, stats
}

func TestTape(t *testing.T) {
	for _, secret := range [][]byte{nil, []byte("0123456789abcdef")} {
		dir := tapeOf(t, 1000, RecordOptions{Secret: secret, Now: func() time.Time { return sample(t, 0).Event.Time }})
		list, stats := readTape(t, dir, tape.Filter{}, tape.ReadOptions{Secret: secret})
		if len(stats.Problems) > 0 || len(list) != 1000 {
			t.Fatalf("%d entries, %+v", len(list), stats)
		}
		for i, n := range list {
			if i != n {
				t.Fatalf("entry %d is %d", i, n)
			}
		}
		at := sample(t, 500).Event.Time
		if list, _ := readTape(t, dir, tape.Filter{Since: at, Until: at.Add(9 * time.Second)}, tape.ReadOptions{Secret: secret}); len(list) < 9 || len(list) > 10 || list[0] != 500 {
			t.Errorf("a part of it: %v", list)
		}
		if secret == nil {
			continue
		}
		for _, wrong := range [][]byte{nil, []byte("another one is here")} {
			if list, stats := readTape(t, dir, tape.Filter{}, tape.ReadOptions{Secret: wrong}); len(list) > 0 || len(stats.Problems) == 0 {
				t.Errorf("with secret %q: %v", wrong, list)
			}
		}
	}
	_, err := Read(context.Background(), filepath.Join(t.TempDir(), "none"), tape.Filter{}, tape.ReadOptions{}, func(*policy.Asked) error { return nil })
	if !errors.Is(err, ErrNoTape) {
		t.Errorf("no folder: %v", err)
	}
}

// fake is a plugin that asks its host, and says what a function makes of the answers.
type fake func(ctx context.Context, ev *policy.Event, h policy.Host) policy.Verdict

func (f fake) Call(ctx context.Context, ev *policy.Event, h policy.Host) (policy.Verdict, error) {
	return f(ctx, ev, h), nil
}

func (fake) Close() error { return nil }

// recording keeps entries in memory.
type recording struct {
	mu  sync.Mutex
	all [][]byte
}

func (r *recording) Asked(a *policy.Asked) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, Encode(nil, a))
}

func policies(f fake, at ...policy.Stage) []*policy.Policy {
	return []*policy.Policy{{Name: "p", On: []string{"mx"}, Checks: []*policy.Check{{Name: "c", Plugin: f, At: at}}}}
}

// counting refuses the sender's mail from the n-th on, and whom a list names.
func counting(n int64) fake {
	return func(ctx context.Context, ev *policy.Event, h policy.Host) policy.Verdict {
		if ev.Stage == policy.Rcpt {
			h.Now()
			b := make([]byte, 8)
			h.Random(b)
			h.DNS(ctx, []policy.Question{{Type: "TXT", Name: ev.Sender.Domain()}})
			have, err := h.Count(ctx, ev.Sender.String(), 1, time.Minute)
			if err == nil && have >= n {
				return policy.Verdict{Action: policy.Reject, Reason: "many"}
			}
			if ev.Directory.Class(ev.Recipient) == policy.ClassUnknown {
				return policy.Verdict{Action: policy.Defer, Reason: "unknown"}
			}
		}
		return policy.Verdict{}
	}
}

type town struct{}

func (town) Class(p mail.Path) string {
	if strings.HasPrefix(p.Local(), "no") {
		return policy.ClassUnknown
	}
	return policy.ClassLocal
}
func (town) Owners(mail.Path) []string { return nil }

// TestReplay records many sessions, and plays them to the same policies, to others, and to
// some that ask something else.
func TestReplay(t *testing.T) {
	var tape recording
	set := policy.NewSet(policies(counting(5), policy.Helo, policy.Rcpt), policy.SetOptions{Tape: &tape})
	r := rand.New(rand.NewPCG(3, 4))
	refused := 0
	for n := range 500 {
		s := set.Session("mx")
		ev := policy.Event{Time: time.Now(), Session: fmt.Sprint("s", n), Door: "mx", Client: netip.MustParseAddrPort("192.0.2.1:1"), Directory: town{}}
		for _, stage := range []policy.Stage{policy.Connect, policy.Helo, policy.Mail, policy.Rcpt, policy.Data} {
			ev.Stage = stage
			if stage == policy.Mail {
				ev.Sender, ev.HasSender = path(t, fmt.Sprintf("u%d@example%d.net", r.IntN(20), r.IntN(3))), true
			}
			if stage == policy.Rcpt {
				ev.Recipient = path(t, []string{"ann@example.test", "nobody@example.test"}[r.IntN(2)])
			}
			if s.Active(stage) && s.Ask(context.Background(), &ev).Refused() {
				refused++
				break
			}
		}
	}
	play := func(f fake, o Options) (Totals, []*Difference) {
		var list []*Difference
		o.Differs = func(d *Difference) { list = append(list, d) }
		p := New(o)
		p.Start(policy.NewSet(policies(f, policy.Helo, policy.Rcpt), p.World()))
		for _, b := range tape.all {
			a, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			p.Play(a)
		}
		return p.Finish(), list
	}
	same, list := play(counting(5), Options{})
	if same.Differences != 0 || same.Unknown != 0 || same.Sessions != 500 || len(list) > 0 || refused < 50 {
		t.Errorf("the same policies: %+v, %d refused", same, refused)
	}
	stricter, list := play(counting(3), Options{})
	if stricter.Rejects == 0 || stricter.Accepts != 0 || stricter.Unknown != 0 || len(list) != stricter.Differences {
		t.Errorf("stricter policies: %+v", stricter)
	}
	for _, d := range list {
		if d.Before.Action == d.After.Action && d.Before.Reason == d.After.Reason || d.After.Reason != "many" {
			t.Errorf("no difference: %+v", d)
		}
	}
	milder, _ := play(counting(1000), Options{})
	if milder.Accepts == 0 || milder.Rejects != 0 {
		t.Errorf("milder policies: %+v", milder)
	}
	asks := func(ctx context.Context, ev *policy.Event, h policy.Host) policy.Verdict {
		if a := h.DNS(ctx, []policy.Question{{Type: "A", Name: "new.example"}}); a[0].Status != policy.DNSTemp {
			return policy.Verdict{Action: policy.Reject}
		}
		return policy.Verdict{}
	}
	if other, _ := play(asks, Options{}); other.Unknown == 0 || other.Rejects != 0 {
		t.Errorf("policies that ask something else: %+v", other)
	}
	if live, _ := play(asks, Options{Live: found{}}); live.Unknown != 0 || live.Live == 0 || live.Rejects == 0 {
		t.Errorf("with DNS of today: %+v", live)
	}
}

type found struct{}

func (found) LookupDNS(context.Context, policy.Question) policy.Answer {
	return policy.Answer{Records: []string{"192.0.2.9"}}
}

func BenchmarkRecord(b *testing.B) {
	r, err := Record(b.TempDir(), RecordOptions{})
	if err != nil {
		b.Fatal(err)
	}
	a := sample(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		r.Asked(a)
	}
	b.StopTimer()
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(r.Dropped())/float64(b.N), "dropped/op")
}
