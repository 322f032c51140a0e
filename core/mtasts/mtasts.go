// Package mtasts knows which domains want their mail encrypted, and to which hosts
// (SMTP MTA Strict Transport Security, RFC 8461).
//
//	c, err := mtasts.Open(mtasts.Options{Dir: dir, Resolver: r})
//	p, known := c.Policy(ctx, "example.net")
//
// A policy is fetched over HTTPS in the background and kept, in memory and on disk,
// as long as it says. Mail waits for a fetch only if nothing is known of its domain
// yet, and then not long. What is known stays valid until it expires, whatever
// becomes of DNS and HTTPS meanwhile: who can break those must not be able to
// switch encryption off. For the same reason a policy is fetched anew well before it
// expires, whether or not its record can be seen.
//
// # BUGS
//
// A domain whose first mail arrives while its policy cannot be fetched gets that mail
// without it, as RFC 8461 §3.3 has it; so does one whose first mail arrives while very
// many other domains are looked at. Policies beyond Options.Max domains are forgotten,
// those that were not asked for longest first; and those of domains to which no mail
// was sent for 30 days expire. A certificate is not checked for revocation.
package mtasts

import (
	"container/list"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/dns"
	"github.com/wafermail/wafer/core/mail"
)

// Options is what Open needs: Dir and Resolver.
type Options struct {
	Dir      string // made if missing; nothing else may be kept in it
	Resolver dns.Resolver
	// Client fetches policies. nil: one that finds hosts with Resolver and trusts the
	// system's authorities. Of one that is given, redirects are never followed and a
	// fetch takes 60 s at most.
	Client   *http.Client
	Patience time.Duration    // how long mail to a domain of which nothing is known waits; 5 s
	Max      int              // domains with a policy, and as many without; 10,000
	Logger   *slog.Logger     // nil: silence
	Now      func() time.Time // nil: time.Now
}

// Times and bounds.
const (
	lookTime  = 60 * time.Second // of one look: record and policy (RFC 8461 §3.3)
	askAgain  = 10 * time.Minute // between looks at a record, unless the policy is shorter-lived
	askSoon   = time.Minute      // never more often
	waitLeast = 5 * time.Minute  // after a failure; twice as long after each further one
	waitMost  = 60 * time.Minute
	maxLooks  = 512                 // domains that are looked at at once
	fetches   = 8                   // of which policies are fetched at once
	round     = 15 * time.Minute    // between searches for policies that are to be renewed
	idle      = 30 * 24 * time.Hour // without mail, after which a policy is no more renewed
)

// Cache is the policies of domains. It is safe for concurrent use.
type Cache struct {
	o      Options
	client *http.Client
	slots  chan struct{} // one for each fetch
	ctx    context.Context
	cancel context.CancelFunc
	group  sync.WaitGroup // looks, and renew

	mu      sync.Mutex
	closed  bool
	looks   int
	domains map[string]*entry
	// Those without a policy have a list of their own: they are many, and must not
	// drive out the others. The latest that was asked for is in front.
	with, without *list.List
}

// entry is one domain.
type entry struct {
	domain   string
	policy   Policy // Mode "": none is known
	in       *list.List
	place    *list.Element
	used     time.Time       // last asked for, or loaded
	next     time.Time       // not looked at before
	failures int             // in a row
	pending  context.Context // over when the look is, or patience; nil: no look is under way
}

// Open reads what was kept in o.Dir, and leaves out what has expired.
func Open(o Options) (*Cache, error) {
	if o.Patience <= 0 {
		o.Patience = 5 * time.Second
	}
	if o.Max <= 0 {
		o.Max = 10_000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Cache{
		o: o, client: newClient(o), slots: make(chan struct{}, fetches),
		domains: make(map[string]*entry), with: list.New(), without: list.New(),
	}
	if err := c.load(); err != nil {
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.group.Go(c.renew)
	return c, nil
}

// Policy is what is known of a domain; known is false where nothing is, or where the
// domain says itself that it has no policy (mode "none"), and p is then empty. Mail
// waits only where nothing is known, together with all other mail to that domain:
// until the look that the first caused is over, Options.Patience has passed since it
// began, or ctx ends.
func (c *Cache) Policy(ctx context.Context, domain string) (p Policy, known bool) {
	domain = mail.DomainKey(strings.TrimSuffix(domain, "."))
	if !isHost(domain) {
		return Policy{}, false // an address literal, for one
	}
	c.mu.Lock()
	now := c.o.Now()
	e := c.domains[domain]
	if e == nil {
		e = c.add(domain)
	}
	e.in.MoveToFront(e.place)
	e.used = now
	if !c.closed && e.pending == nil && c.looks < maxLooks && !now.Before(e.next) {
		c.look(e)
	}
	if e.policy.valid(now) || e.pending == nil {
		defer c.mu.Unlock()
		return e.policy.inForce(now)
	}
	pending := e.pending
	c.mu.Unlock()
	select {
	case <-pending.Done():
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return e.policy.inForce(c.o.Now())
}

// valid reports whether the policy has not expired.
func (p Policy) valid(now time.Time) bool {
	return p.Mode != "" && now.Before(p.Fetched.Add(p.MaxAge))
}

// inForce returns the policy if it asks for something now.
func (p Policy) inForce(now time.Time) (Policy, bool) {
	if p.Mode == "none" || !p.valid(now) {
		return Policy{}, false
	}
	p.MX = append([]string(nil), p.MX...)
	return p, true
}

// add makes an entry, and room for it.
func (c *Cache) add(domain string) *entry {
	e := &entry{domain: domain, in: c.without, used: c.o.Now()}
	e.place = e.in.PushFront(e)
	c.domains[domain] = e
	c.evict(e.in)
	return e
}

// settle puts the entry into the list to which its policy belongs.
func (c *Cache) settle(e *entry) {
	to := c.without
	if e.policy.Mode != "" && e.policy.Mode != "none" {
		to = c.with
	}
	if to == e.in {
		return
	}
	e.in.Remove(e.place)
	e.in, e.place = to, to.PushFront(e)
	c.evict(to)
}

// evict takes those that were not asked for longest out of a list that is too long. A
// domain that is looked at stays: its look would write what nothing knows of. So does
// the one in front, for which room is made.
func (c *Cache) evict(from *list.List) {
	for at := from.Back(); at != from.Front() && from.Len() > c.o.Max; {
		e := at.Value.(*entry)
		at = at.Prev()
		if e.pending != nil {
			continue
		}
		from.Remove(e.place)
		delete(c.domains, e.domain)
		if from == c.with {
			c.discard(e.domain)
		}
	}
}

// Close ends what is under way and waits for it. What is known can still be asked for.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.group.Wait()
	c.client.CloseIdleConnections()
	return nil
}
