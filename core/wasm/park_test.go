package wasm

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// slowNames is a world in which every name takes a while, and nothing may be
// asked for twice.
type slowNames struct {
	policy.Table
	gate chan struct{} // closed when names answer

	mu    sync.Mutex
	asked map[string]int
}

func (s *slowNames) DNS(ctx context.Context, qs []policy.Question) []policy.Answer {
	s.mu.Lock()
	for _, q := range qs {
		s.asked[q.Type+" "+q.Name]++
	}
	s.mu.Unlock()
	select {
	case <-s.gate:
	case <-ctx.Done():
		return make([]policy.Answer, len(qs))
	}
	return s.Table.DNS(ctx, qs)
}

// TestPark lets many more calls wait for DNS than there are instances: all of
// them come to their verdict, each asks for each name once, logs and notes it
// once, and another plugin of the host is not held up.
func TestPark(t *testing.T) {
	h := shared(t)
	p := load(t, h, plugin(t, "spf"), LoadOptions{Grants: []string{"dns"}})
	other := load(t, h, plugin(t, "helo"), LoadOptions{})
	const calls = 600
	gate := make(chan struct{})
	worlds := make([]*slowNames, calls)
	verdicts := make([]policy.Verdict, calls)
	errs := make([]error, calls)
	var running sync.WaitGroup
	for i := range calls {
		w := &slowNames{gate: gate, asked: map[string]int{}, Table: policy.Table{Time: time.Unix(1795000000, 0), Answers: map[policy.Question]policy.Answer{
			{Type: "TXT", Name: fmt.Sprintf("d%d.example", i)}:   {Records: []string{fmt.Sprintf("v=spf1 include:i%d.example -all", i)}},
			{Type: "TXT", Name: fmt.Sprintf("i%d.example", i)}:   {Records: []string{"v=spf1 a:a" + fmt.Sprint(i) + ".example -all"}},
			{Type: "A", Name: fmt.Sprintf("a%d.example", i)}:     {Records: []string{"192.0.2.7"}},
			{Type: "TXT", Name: "mail.example.net"}:              {Records: []string{"v=spf1 a -all"}},
			{Type: "A", Name: "mail.example.net"}:                {Records: []string{"192.0.2.7"}},
			{Type: "TXT", Name: fmt.Sprintf("bad%d.example", i)}: {Records: []string{"v=spf1 -all"}},
		}}}
		worlds[i] = w
		running.Go(func() {
			domain := fmt.Sprintf("d%d.example", i)
			if i%3 == 0 {
				domain = fmt.Sprintf("bad%d.example", i)
			}
			from, err := mail.ParsePath("a@"+domain, true)
			if err != nil {
				t.Error(err)
			}
			to, _ := mail.ParsePath("b@example.test", true)
			ev := &policy.Event{
				Stage: policy.Rcpt, Time: w.Time, Door: "mx", Client: netip.MustParseAddrPort("192.0.2.7:25"), Helo: "mail.example.net",
				Hostname: "mx.example.test", Sender: from, HasSender: true, Recipient: to,
			}
			verdicts[i], errs[i] = p.Call(context.Background(), ev, w)
		})
	}
	for p.pool.waiting.Load() < stay { // until the places to wait in are taken
		runtime.Gosched()
	}
	if _, err := other.Call(context.Background(), event(t, policy.Helo, "mail.example.net"), newWorld()); err != nil {
		t.Errorf("another plugin meanwhile: %v", err)
	}
	close(gate)
	running.Wait()
	for i, v := range verdicts {
		want := policy.Next
		if i%3 == 0 {
			want = policy.Reject
		}
		if errs[i] != nil || v.Action != want {
			t.Fatalf("call %d: %v %q, %v; want %v", i, v.Action, v.Status.Text, errs[i], want)
		}
		for q, n := range worlds[i].asked {
			if n != 1 {
				t.Fatalf("call %d: %s was asked for %d times", i, q, n)
			}
		}
		notes := 0
		for _, c := range worlds[i].Calls {
			if strings.Contains(c.Ask, "tags") {
				notes++
			}
		}
		if notes > 1 {
			t.Fatalf("call %d: noted %d times: %v", i, notes, worlds[i].Calls)
		}
	}
	if started := p.Stats().Instances; started < stay {
		t.Errorf("only %d instances", started)
	}
}

// TestTape: what a run was told it is told again, nothing is done twice, and a
// plugin that does something else the second time is ended.
func TestTape(t *testing.T) {
	w := &policy.Table{Time: time.Unix(1795000000, 0), Bytes: []byte{1, 2, 3}}
	tp := &tape{Host: w}
	ctx := context.Background()
	first := func() string {
		b := make([]byte, 2)
		tp.Random(b)
		n, err := tp.Count(ctx, "k", 1, time.Minute)
		tp.Log(0, "hello")
		tp.Metric("m", 1)
		tp.Note(policy.HostCall{Call: "get", Ask: "tags"})
		seen, err2 := tp.StateSeen(ctx, "s", time.Hour)
		err3 := tp.StatePut(ctx, "p", []byte("v"), time.Hour)
		v, ok, err4 := tp.StateGet(ctx, "p")
		_, _, err5 := tp.List("none", "x")
		return fmt.Sprint(tp.Now(), b, n, err, seen, err2, err3, string(v), ok, err4, err5)
	}
	one := first()
	tp.park(ctx, []policy.Question{{Type: "A", Name: "x"}}, &Limits{IO: time.Second, Wall: time.Second})
	w.Time = w.Time.Add(time.Hour)
	if two := first(); two != one {
		t.Errorf("told\n%s\nand then\n%s", one, two)
	}
	if as, ok := tp.DNSKnown([]policy.Question{{Type: "A", Name: "x"}}); !ok || len(as) != 1 {
		t.Errorf("what was waited for is not known: %v, %v", as, ok)
	}
	if len(w.Lines) != 1 || w.Metrics["m"] != 1 || len(w.Calls) != 1 {
		t.Errorf("done twice: %q, %v, %v", w.Lines, w.Metrics, w.Calls)
	}
	tp.at = 0
	defer func() {
		if r := recover(); r != errOtherCalls {
			t.Errorf("another call: %v", r)
		}
	}()
	tp.Log(0, "now") // Random was first
}
