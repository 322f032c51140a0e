package auth

import (
	"container/list"
	"context"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// How failures are counted and what they cost.
const (
	throttleSize = 16384           // entries of each table
	halfLife     = 5 * time.Minute // after which a count without new failures has halved
	knownLife    = 30 * 24 * time.Hour
	lastPairs    = 10 // wrong user+password pairs remembered for each address
)

// scope is what failures are counted for.
type scope uint8

const (
	exact scope = iota // IPv4 address, IPv6 /64
	near               // IPv4 /26, IPv6 /48
	wide               // IPv4 /21, IPv6 /32
	named              // user, from anywhere
	pair               // user and exact address
	scopes
)

// steps say how many failures of a scope make one step of delay, and how many
// refuse everything at once.
type steps struct{ each, hard int }

func (s scope) steps() steps {
	switch s {
	case near:
		return steps{10, 1000}
	case wide:
		return steps{50, 5000}
	case named:
		return steps{2, 1000}
	}
	return steps{1, 100}
}

func delayOf(step int) time.Duration {
	delays := [...]time.Duration{0, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second}
	return delays[min(step, len(delays)-1)]
}

// ThrottleOptions is what a Throttle is made of. The zero value is the default.
type ThrottleOptions struct {
	// Exempt lists clients that speak for many people, such as a webmail: their
	// addresses are not counted, only the users they name.
	Exempt []netip.Prefix
	Now    func() time.Time                                 // nil: time.Now
	Wait   func(ctx context.Context, d time.Duration) error // nil: a timer; returns ctx.Err() if ctx ends first
}

// Throttle slows down those who guess passwords. It counts failures for the
// client's address at three widths, for the user from anywhere, and for the
// user at that address; each count halves in five minutes without failures.
// The delay before an attempt grows 0, 2, 4, 8, 15 seconds with the worst of
// them: with each failure of the address, each second one of the user, every
// 10th and 50th of the wider networks. Far beyond that, attempts are refused
// without a look at the password.
//
// The same wrong password tried again does not raise a count (as in Dovecot:
// a program with an old password is no attack). An address from which a user
// has logged in before is only slowed down by that user's own failures there,
// so nobody is locked out by others who guess at his name; and a success
// forgives just those failures, so nobody can buy a fresh start with an account
// of his own. All tables are bounded; the least recently used entry goes first.
type Throttle struct {
	exempt []netip.Prefix
	now    func() time.Time
	wait   func(ctx context.Context, d time.Duration) error
	seed   maphash.Seed

	mu     sync.Mutex
	tables [scopes]table
}

// NewThrottle returns an empty Throttle.
func NewThrottle(o ThrottleOptions) *Throttle {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wait == nil {
		o.Wait = waitTimer
	}
	t := &Throttle{exempt: o.Exempt, now: o.Now, wait: o.Wait, seed: maphash.MakeSeed()}
	for i := range t.tables {
		t.tables[i] = table{entries: make(map[tableKey]*list.Element), order: list.New()}
	}
	return t
}

func waitTimer(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// attempt is one login on its way through a Throttle.
type attempt struct {
	t      *Throttle
	keys   [scopes]tableKey
	pw     digest
	exempt bool
}

func (t *Throttle) begin(addr netip.Addr, user string, pw digest) *attempt {
	addr = addr.Unmap().WithZone("")
	bits := [3]int{64, 48, 32}
	if addr.Is4() {
		bits = [3]int{32, 26, 21}
	}
	a := &attempt{t: t, pw: pw}
	for i, n := range bits {
		a.keys[i].prefix, _ = addr.Prefix(n) // the zero prefix for the zero address
	}
	a.keys[named].user = maphash.String(t.seed, user)
	a.keys[pair] = tableKey{prefix: a.keys[exact].prefix, user: a.keys[named].user}
	a.exempt = slices.ContainsFunc(t.exempt, func(p netip.Prefix) bool { return p.Contains(addr) })
	return a
}

// counted lists the scopes that apply to the attempt. The caller holds t.mu.
func (a *attempt) counted(now time.Time) []scope {
	if e := a.t.tables[pair].peek(a.keys[pair]); e != nil && now.Sub(e.success) < knownLife {
		return []scope{pair}
	}
	if a.exempt {
		return []scope{named, pair}
	}
	return []scope{exact, near, wide, named, pair}
}

// delay says how long the attempt has to wait in all, or that it is refused.
func (a *attempt) delay() (d time.Duration, refused bool) {
	a.t.mu.Lock()
	defer a.t.mu.Unlock()
	now := a.t.now()
	for _, s := range a.counted(now) {
		e := a.t.tables[s].peek(a.keys[s])
		if e == nil {
			continue
		}
		n := e.decayed(now)
		if n >= s.steps().hard {
			return 0, true
		}
		d = max(d, delayOf(n/s.steps().each))
	}
	return d, false
}

// wait waits the attempt's delay. Failures that others make in the meantime
// lengthen it, so that many attempts at once are no way round it. Errors:
// ErrThrottled, or ctx's.
func (a *attempt) wait(ctx context.Context) error {
	var waited time.Duration
	for {
		d, refused := a.delay()
		if refused {
			return ErrThrottled
		}
		if d <= waited {
			return nil
		}
		if err := a.t.wait(ctx, d-waited); err != nil {
			return err
		}
		waited = d
	}
}

// failed counts the attempt. It reports whether this failure made the address
// or the user reach the limit at which attempts are refused.
func (a *attempt) failed() (limit bool) {
	a.t.mu.Lock()
	defer a.t.mu.Unlock()
	now := a.t.now()
	if !a.t.tables[exact].touch(a.keys[exact]).remember(a.pw) {
		return false
	}
	for s := range scopes {
		if a.exempt && s < named {
			continue
		}
		e := a.t.tables[s].touch(a.keys[s])
		e.count, e.last = min(e.decayed(now)+1, s.steps().hard), now
		limit = limit || e.count == s.steps().hard
	}
	return limit
}

// succeeded forgives what this user failed at this address.
func (a *attempt) succeeded() {
	a.t.mu.Lock()
	defer a.t.mu.Unlock()
	now := a.t.now()
	own := a.t.tables[pair].touch(a.keys[pair])
	n := own.decayed(now)
	own.success, own.count = now, 0
	for s := exact; s < pair && n > 0; s++ {
		if e := a.t.tables[s].peek(a.keys[s]); e != nil {
			e.count, e.last = max(e.decayed(now)-n, 0), now
		}
	}
}

// table is an LRU of counters.
type table struct {
	entries map[tableKey]*list.Element
	order   *list.List // of *counter, most recently touched first
}

type tableKey struct {
	prefix netip.Prefix
	user   uint64
}

// counter is what is known about one address, network, user or pair.
type counter struct {
	key     tableKey
	count   int
	last    time.Time // when count was true
	success time.Time // pair only: the last success
	pairs   []digest  // exact only: the latest wrong pairs, newest last
}

// peek returns the counter of key or nil.
func (t *table) peek(key tableKey) *counter {
	if el, ok := t.entries[key]; ok {
		return el.Value.(*counter)
	}
	return nil
}

// touch returns the counter of key, made if missing, and marks it as used.
func (t *table) touch(key tableKey) *counter {
	if el, ok := t.entries[key]; ok {
		t.order.MoveToFront(el)
		return el.Value.(*counter)
	}
	if len(t.entries) >= throttleSize {
		oldest := t.order.Back()
		delete(t.entries, oldest.Value.(*counter).key)
		t.order.Remove(oldest)
	}
	c := &counter{key: key}
	t.entries[key] = t.order.PushFront(c)
	return c
}

// decayed is the count as it is now.
func (c *counter) decayed(now time.Time) int {
	return c.count >> min(max(now.Sub(c.last)/halfLife, 0), 62)
}

// remember notes a wrong pair and reports whether it is news.
func (c *counter) remember(pw digest) bool {
	if slices.Contains(c.pairs, pw) {
		return false
	}
	if len(c.pairs) == lastPairs {
		c.pairs = slices.Delete(c.pairs, 0, 1)
	}
	c.pairs = append(c.pairs, pw)
	return true
}
