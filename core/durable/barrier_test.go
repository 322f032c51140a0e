package durable

import (
	"sync"
	"testing"
)

// TestBarrierIsShared: callers that arrive during a sync share the next one.
func TestBarrierIsShared(t *testing.T) {
	const callers = 20
	running, finish := make(chan struct{}), make(chan struct{})
	syncs := 0
	g := &group{sync: func() error {
		if syncs++; syncs == 1 {
			close(running)
			<-finish
		}
		return nil
	}}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() { defer wg.Done(); g.wait() }()
	<-running
	var arrived sync.WaitGroup
	for range callers {
		wg.Add(1)
		arrived.Add(1)
		go func() { defer wg.Done(); arrived.Done(); g.wait() }()
	}
	arrived.Wait()
	close(finish)
	wg.Wait()
	if syncs > callers/2 { // normally 2; a slow scheduler may make it a few more
		t.Errorf("%d syncs for %d callers", syncs, callers+1)
	}
}
