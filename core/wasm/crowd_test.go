package wasm

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// TestCrowdWaitsForDNS lets a thousand sessions wait for answers that do not
// come: the same check still answers others at once, no session is turned away,
// and afterwards the memory is given back.
func TestCrowdWaitsForDNS(t *testing.T) {
	const crowd = 1000
	limits := small
	limits.IO, limits.Wall = time.Minute, 2*time.Minute
	p := load(t, shared(t), plugin(t, "naughty"), LoadOptions{Config: map[string][]string{"do": {"dns"}, "times": {"1"}}, Grants: []string{"dns"}, Limits: limits})
	before := memoryNow(t)
	slow := newWorld()
	slow.block = make(chan struct{})
	slow.arrived = make(chan struct{}, crowd)
	var waiting sync.WaitGroup
	for range crowd {
		waiting.Go(func() {
			if v, err := p.Call(context.Background(), event(t, policy.Helo, "x"), slow); err != nil || v.Action != policy.Reject {
				t.Errorf("got %+v, %v", v, err)
			}
		})
	}
	for range crowd {
		<-slow.arrived // all of them wait inside the guest
	}
	during := memoryNow(t)
	quick := newWorld()
	quick.zone["A a.example"] = policy.Answer{Records: []string{"192.0.2.1"}}
	for range 100 {
		if v, err := p.Call(context.Background(), event(t, policy.Helo, "x"), quick); err != nil || v.Status.Text != "192.0.2.1" {
			t.Fatalf("got %+v, %v", v, err)
		}
	}
	close(slow.block)
	waiting.Wait()
	after := memoryNow(t)
	t.Logf("own memory: %d MiB before, %d MiB with %d waiting, %d MiB after", before.private>>20, during.private>>20, crowd, after.private>>20)
	if each := (during.private - before.private) / crowd; each > 1<<20 {
		t.Errorf("a session that waits holds %d octets", each)
	}
	if idle := len(p.pool.idle); idle > keepIdle {
		t.Errorf("%d idle instances, want at most %d", idle, keepIdle)
	}
	if after.size > before.size+(keepIdle+8)*small.Memory {
		t.Errorf("address space grew from %d to %d MiB", before.size>>20, after.size>>20)
	}
}
