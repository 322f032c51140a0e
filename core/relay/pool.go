package relay

import (
	"sync"
	"sync/atomic"
	"time"
)

// poolKey says which messages may share a connection: those with the same way.
type poolKey struct {
	transport string
	hop       hop
}

// pool keeps connections for the next message, for a short while.
type pool struct {
	limits Reuse
	stop   chan struct{}
	done   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	idle   map[poolKey][]kept // the freshest last
	count  int
}

type kept struct {
	s     *session
	since time.Time
}

func newPool(limits Reuse) *pool {
	p := &pool{limits: limits, stop: make(chan struct{}), idle: map[poolKey][]kept{}}
	if limits.Idle > 0 {
		p.done.Go(p.reap)
	}
	return p
}

// take returns a kept connection, or nil.
func (p *pool) take(k poolKey) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[k]
	if len(list) == 0 {
		return nil
	}
	s := list[len(list)-1].s
	p.set(k, list[:len(list)-1])
	p.count--
	return s
}

func (p *pool) set(k poolKey, list []kept) {
	if len(list) == 0 {
		delete(p.idle, k)
		return
	}
	p.idle[k] = list
}

// keep takes a connection back and reports whether it did.
func (p *pool) keep(k poolKey, s *session) bool {
	if p.limits.Idle <= 0 || s.used == 0 || s.used >= p.limits.Messages || time.Since(s.born) > p.limits.Age {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.count >= p.limits.Idles {
		return false
	}
	p.idle[k] = append(p.idle[k], kept{s, time.Now()})
	p.count++
	return true
}

// reap ends connections that nobody has wanted.
func (p *pool) reap() {
	tick := time.NewTicker(max(p.limits.Idle/2, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-tick.C:
			for _, s := range p.expired(now.Add(-p.limits.Idle)) {
				s.quit()
			}
		}
	}
}

// expired takes out the connections that were put in before t.
func (p *pool) expired(t time.Time) (list []*session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, ks := range p.idle {
		n := 0
		for n < len(ks) && ks[n].since.Before(t) {
			list = append(list, ks[n].s)
			n++
		}
		if n > 0 {
			p.set(k, append([]kept(nil), ks[n:]...))
			p.count -= n
		}
	}
	return list
}

func (p *pool) close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	p.mu.Unlock()
	close(p.stop)
	p.done.Wait()
	for _, s := range p.expired(time.Now().Add(time.Hour)) {
		s.quit()
	}
}

// Stats count since the start.
type Stats struct {
	Opened, Closed, Messages int64
	TLS                      map[string]int64 // handshakes by result: "success", or the failure type of RFC 8460 §4.3
}

type tally struct {
	opened, closed, messages atomic.Int64

	mu  sync.Mutex
	how map[string]int64
}

func (t *tally) tls(result string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.how == nil {
		t.how = map[string]int64{}
	}
	t.how[result]++
}

// Stats returns the counts.
func (r *Client) Stats() Stats {
	s := Stats{Opened: r.tally.opened.Load(), Closed: r.tally.closed.Load(), Messages: r.tally.messages.Load(), TLS: map[string]int64{}}
	r.tally.mu.Lock()
	defer r.tally.mu.Unlock()
	for k, v := range r.tally.how {
		s.TLS[k] = v
	}
	return s
}
