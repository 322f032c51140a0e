package dns

import (
	"container/list"
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// CacheOptions bounds a Cache. The zero value is useful.
type CacheOptions struct {
	Octets      int              // of names and records, with bookkeeping; 0: 16 MiB
	MaxTTL      time.Duration    // of records; 0: 1 h
	MaxNegative time.Duration    // of NoData and NXDomain; 0: 15 min (RFC 2308 §5 allows 3 h)
	Failure     time.Duration    // of Temporary; 0: 5 s (RFC 9520 §3.2 asks for 1 s to 5 min)
	Total       time.Duration    // of a lookup that goes on after its asker has left; 0: 15 s
	Now         func() time.Time // nil: time.Now
}

// Cache remembers the answers of another Resolver for their TTL, and asks it
// once when several want to know the same at once. Who leaves early does not
// end the lookup for the others. Close it after use.
type Cache struct {
	next Resolver
	o    CacheOptions

	mu      sync.Mutex
	entries map[Question]*list.Element
	order   *list.List // of *cached, most recently used first
	octets  int
	flights map[Question]*flight
	closed  bool
	running sync.WaitGroup
	stop    context.CancelFunc
	life    context.Context
}

type cached struct {
	q      Question
	a      Answer
	until  time.Time
	octets int
}

// flight is a lookup under way. Answer may be read once done is closed.
type flight struct {
	done   chan struct{}
	answer Answer
}

// NewCache returns an empty cache in front of next.
func NewCache(next Resolver, o CacheOptions) *Cache {
	setDefault(&o.Octets, 16<<20)
	setDefault(&o.MaxTTL, time.Hour)
	setDefault(&o.MaxNegative, 15*time.Minute)
	setDefault(&o.Failure, 5*time.Second)
	setDefault(&o.Total, 15*time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Cache{next: next, o: o, entries: make(map[Question]*list.Element), order: list.New(), flights: make(map[Question]*flight)}
	c.life, c.stop = context.WithCancel(context.Background())
	return c
}

// Close ends the lookups under way and waits for them. Later questions are
// answered Temporary unless the answer is known.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.running.Wait()
	return nil
}

// Lookup implements Resolver. The TTL of a remembered answer is what is left of
// it. Records are shared: do not change them.
func (c *Cache) Lookup(ctx context.Context, q Question) Answer {
	name, ok := q.canonical()
	if !ok {
		return c.next.Lookup(ctx, q) // which says the same at no cost
	}
	if name == "" {
		name = "."
	}
	q.Name = name
	c.mu.Lock()
	if a, ok := c.known(q); ok {
		c.mu.Unlock()
		return a
	}
	f := c.flights[q]
	if f == nil {
		if c.closed {
			c.mu.Unlock()
			return Answer{Name: q.Name, Err: context.Canceled}
		}
		f = &flight{done: make(chan struct{})}
		c.flights[q] = f
		c.running.Go(func() { c.fly(f, q) })
	}
	c.mu.Unlock()
	select {
	case <-f.done:
		return f.answer
	case <-ctx.Done():
		return Answer{Name: q.Name, Err: ctx.Err()}
	}
}

// Known returns the answer to q if it need not be asked for.
func (c *Cache) Known(q Question) (Answer, bool) {
	name, ok := q.canonical()
	if !ok {
		return Answer{}, false
	}
	if name == "" {
		name = "."
	}
	q.Name = name
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known(q)
}

// fly asks for q on behalf of all who wait for f.
func (c *Cache) fly(f *flight, q Question) {
	ctx, cancel := context.WithTimeout(c.life, c.o.Total)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			f.answer = Answer{Name: q.Name, Err: fmt.Errorf("lookup panicked: %v\n%s", p, debug.Stack())}
		}
		c.mu.Lock()
		delete(c.flights, q)
		c.keep(q, f.answer)
		c.mu.Unlock()
		close(f.done)
	}()
	f.answer = c.next.Lookup(ctx, q)
}

// known returns an answer that is still good. The caller holds c.mu.
func (c *Cache) known(q Question) (Answer, bool) {
	el, ok := c.entries[q]
	if !ok {
		return Answer{}, false
	}
	e := el.Value.(*cached)
	left := e.until.Sub(c.o.Now())
	if left <= 0 {
		c.drop(el)
		return Answer{}, false
	}
	c.order.MoveToFront(el)
	a := e.a
	a.TTL = left
	return a, true
}

// keep remembers an answer. The caller holds c.mu.
func (c *Cache) keep(q Question, a Answer) {
	ttl := c.o.Failure
	switch a.Status {
	case Found:
		ttl = min(a.TTL, c.o.MaxTTL)
	case NoData, NXDomain:
		ttl = min(a.TTL, c.o.MaxNegative)
	}
	size := 300 + 2*len(q.Name) + len(a.Name)
	for _, r := range a.Records {
		size += 16 + len(r)
	}
	if ttl <= 0 || c.life.Err() != nil || size > c.o.Octets {
		return
	}
	if el, ok := c.entries[q]; ok {
		c.drop(el)
	}
	c.entries[q] = c.order.PushFront(&cached{q, a, c.o.Now().Add(ttl), size})
	c.octets += size
	for c.octets > c.o.Octets {
		c.drop(c.order.Back())
	}
}

func (c *Cache) drop(el *list.Element) {
	e := c.order.Remove(el).(*cached)
	delete(c.entries, e.q)
	c.octets -= e.octets
}
