package wasm

import (
	"context"
	"sync"
	"time"
)

// pool keeps a plugin's instances: at most as many as there are tokens, the
// last used first, so that the rest can be forgotten by the processor's caches
// and by the pool.
type pool struct {
	start  func() (*instance, error)
	tokens chan struct{}
	closed chan struct{}

	mu   sync.Mutex
	idle []*instance
}

func newPool(size int, start func() (*instance, error)) *pool {
	return &pool{start: start, tokens: make(chan struct{}, size), closed: make(chan struct{})}
}

// take returns an instance that is the caller's until put or drop. It waits at
// most for the given time.
func (p *pool) take(ctx context.Context, wait time.Duration) (*instance, error) {
	select {
	case p.tokens <- struct{}{}:
	default:
		if err := p.wait(ctx, wait); err != nil {
			return nil, err
		}
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
		<-p.tokens
		return nil, &CallError{Cause: CauseClosed}
	default:
	}
	in, err := p.start()
	if err != nil {
		<-p.tokens
		return nil, &CallError{CauseStart, clean(err.Error(), maxDetail)}
	}
	return in, nil
}

func (p *pool) wait(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case p.tokens <- struct{}{}:
		return nil
	case <-p.closed:
		return &CallError{Cause: CauseClosed}
	case <-timer.C:
		return &CallError{CauseBusy, "no instance became free within " + wait.String()}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// put gives back an instance that is as good as before.
func (p *pool) put(in *instance) {
	p.mu.Lock()
	p.idle = append(p.idle, in)
	p.mu.Unlock()
	<-p.tokens
}

// drop gives back an instance that is not.
func (p *pool) drop(in *instance) {
	in.close()
	<-p.tokens
}

// close waits until every instance was given back and closes them. It is called
// once.
func (p *pool) close() {
	close(p.closed)
	for range cap(p.tokens) {
		p.tokens <- struct{}{} // nobody gets one any more
	}
	for _, in := range p.idle {
		in.close()
	}
	p.idle = nil
	for range cap(p.tokens) {
		<-p.tokens // late comers find the pool closed
	}
}
