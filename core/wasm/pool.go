package wasm

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// pool keeps a plugin's instances: the last used first, so that the rest can be
// forgotten by the processor's caches and by the pool. Two numbers are limited:
// the instances in use (places), and how many of them run at the same time
// (tokens). An instance that waits for DNS keeps its place and gives its token
// back, so that a thousand sessions whose names nobody answers for hold memory,
// and not up the others.
type pool struct {
	start   func() (*instance, error)
	places  chan struct{} // nil: as many as tokens
	tokens  chan struct{}
	keep    int          // idle instances; more are closed
	paused  atomic.Int64 // octets that instances in aside have grown by
	waiting atomic.Int64 // instances in aside
	closed  chan struct{}

	mu   sync.Mutex
	idle []*instance
}

// newPool returns a pool of so many instances of which so many run. Every
// instance knows the pool it is of.
func newPool(size, running int, start func() (*instance, error)) *pool {
	p := &pool{tokens: make(chan struct{}, running), keep: running, closed: make(chan struct{})}
	if size > running {
		p.places, p.keep = make(chan struct{}, size), min(size, keepIdle)
	}
	p.start = func() (*instance, error) {
		in, err := start()
		if err == nil {
			in.pool = p
		}
		return in, err
	}
	return p
}

// keepIdle is how many idle instances a pool keeps whose calls may wait.
const keepIdle = 32

// take returns an instance that is the caller's until put or drop. It waits at
// most for the given time.
func (p *pool) take(ctx context.Context, wait time.Duration) (*instance, error) {
	if p.places != nil {
		if err := p.enter(ctx, p.places, wait); err != nil {
			return nil, err
		}
	}
	if err := p.enter(ctx, p.tokens, wait); err != nil {
		p.leave(p.places)
		return nil, err
	}
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		in := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return in, nil
	}
	p.mu.Unlock()
	select {
	case <-p.closed:
		p.release()
		return nil, &CallError{Cause: CauseClosed}
	default:
	}
	in, err := p.start()
	if err != nil {
		p.release()
		return nil, &CallError{CauseStart, clean(err.Error(), maxDetail)}
	}
	return in, nil
}

// yields is how often a caller lets others run before it waits in earnest: most
// calls are over in microseconds, and a timer costs as much as one of them.
const yields = 8

// enter puts one into a semaphore.
func (p *pool) enter(ctx context.Context, semaphore chan struct{}, wait time.Duration) error {
	for i := 0; ; i++ {
		select {
		case semaphore <- struct{}{}:
			return nil
		default:
		}
		if i == yields {
			break
		}
		runtime.Gosched()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case semaphore <- struct{}{}:
		return nil
	case <-p.closed:
		return &CallError{Cause: CauseClosed}
	case <-timer.C:
		return &CallError{CauseBusy, "no instance became free within " + wait.String()}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave takes one out of a semaphore, if there is one.
func (p *pool) leave(semaphore chan struct{}) {
	if semaphore != nil {
		<-semaphore
	}
}

func (p *pool) release() {
	<-p.tokens
	p.leave(p.places)
}

// pausedGrowth is how much memory instances may have grown by, beyond the image
// that they began from, that wait all together, in octets.
const pausedGrowth = 64 << 20

// aside calls f, which waits for the world, and lets another instance run in the
// meantime. In a pool that counts no places it only calls f. With leave, it
// returns false and does not call f if there are many that wait already, or few
// that have grown much; without, such a one keeps its token while it waits.
func (p *pool) aside(grown int64, leave bool, f func()) bool {
	if p == nil || p.places == nil {
		f()
		return true
	}
	crowded := p.paused.Add(grown) > pausedGrowth
	crowded = p.waiting.Add(1) > stay || crowded
	defer func() {
		p.paused.Add(-grown)
		p.waiting.Add(-1)
	}()
	if crowded && leave {
		return false
	}
	if !crowded {
		<-p.tokens
		defer func() { p.tokens <- struct{}{} }()
	}
	f()
	return true
}

// put gives back an instance that is as good as before.
func (p *pool) put(in *instance) {
	p.mu.Lock()
	kept := len(p.idle) < p.keep
	if kept {
		p.idle = append(p.idle, in)
	}
	p.mu.Unlock()
	if !kept {
		in.close()
	}
	p.release()
}

// drop gives back an instance that is not.
func (p *pool) drop(in *instance) {
	in.close()
	p.release()
}

// close waits until every instance was given back and closes them. It is called
// once.
func (p *pool) close() {
	close(p.closed)
	all := p.places
	if all == nil {
		all = p.tokens
	}
	for range cap(all) {
		all <- struct{}{} // nobody gets one any more
	}
	for _, in := range p.idle {
		in.close()
	}
	p.idle = nil
	for range cap(all) {
		<-all // late comers find the pool closed
	}
}
