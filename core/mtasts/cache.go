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
// switch encryption off.
//
// # BUGS
//
// A domain whose first mail arrives while its policy cannot be fetched gets that mail
// without it, as RFC 8461 §3.3 has it. Policies beyond Options.Max domains are
// forgotten, those that were not asked for longest first.
package mtasts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/dns"
	"github.com/wafermail/wafer/core/mail"
)

// Options is what Open needs: Dir and Resolver.
type Options struct {
	Dir      string // made if missing
	Resolver dns.Resolver
	Client   *http.Client  // nil: HTTPS with the system's authorities; redirects are never followed
	Patience time.Duration // how long the first mail to a domain waits; 5 s
	Max      int           // domains; 10,000
	Logger   *slog.Logger
	Now      func() time.Time // nil: time.Now
}

// Times and bounds.
const (
	fetchTime  = 60 * time.Second // RFC 8461 §3.3
	askAgain   = 10 * time.Minute // between looks at the TXT record
	failedWait = 5 * time.Minute  // until a fetch that failed is tried again
	fetches    = 8                // at once
)

// Cache is the policies of domains. It is safe for concurrent use.
type Cache struct {
	o      Options
	client *http.Client
	ctx    context.Context
	cancel context.CancelFunc
	group  sync.WaitGroup
	slots  chan struct{}

	mu      sync.Mutex
	closed  bool
	domains map[string]*entry
}

// entry is one domain.
type entry struct {
	policy  Policy // Mode "" is: none known
	asked   time.Time
	used    time.Time
	failed  time.Time
	pending chan struct{} // closed when the fetch under way is over; nil: there is none
}

// Open reads what was kept in o.Dir.
func Open(o Options) (*Cache, error) {
	if o.Patience == 0 {
		o.Patience = 5 * time.Second
	}
	if o.Max == 0 {
		o.Max = 10_000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	c := &Cache{o: o, slots: make(chan struct{}, fetches), domains: map[string]*entry{}}
	client := http.Client{}
	if o.Client != nil {
		client = *o.Client
	}
	client.Timeout = fetchTime
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return errors.New("a policy is not redirected") }
	c.client = &client
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, c.load()
}

// kept is a policy on disk.
type kept struct {
	Domain string `json:"domain"`
	Policy
}

// file is where a domain's policy is kept; the name tells nothing and holds nothing
// of what a peer has chosen.
func (c *Cache) file(domain string) string {
	sum := sha256.Sum256([]byte(domain))
	return filepath.Join(c.o.Dir, hex.EncodeToString(sum[:16])+".json")
}

func (c *Cache) load() error {
	names, err := filepath.Glob(filepath.Join(c.o.Dir, "*.json"))
	if err != nil {
		return err
	}
	now := c.o.Now()
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var k kept
		if json.Unmarshal(b, &k) != nil || c.file(k.Domain) != name || !k.valid(now) || len(c.domains) >= c.o.Max {
			_ = os.Remove(name) // it can be fetched again
			continue
		}
		c.domains[k.Domain] = &entry{policy: k.Policy}
	}
	return nil
}

// valid reports whether the policy has not expired.
func (p Policy) valid(now time.Time) bool { return p.Mode != "" && now.Before(p.Fetched.Add(p.MaxAge)) }

// Policy is what is known of a domain. It asks for the domain's record when the last
// look was long ago, and waits for the policy only where none is known.
func (c *Cache) Policy(ctx context.Context, domain string) (Policy, bool) {
	domain = mail.DomainKey(domain)
	now := c.o.Now()
	c.mu.Lock()
	e := c.domains[domain]
	if e == nil {
		c.evict()
		e = &entry{}
		c.domains[domain] = e
	}
	e.used = now
	known := e.policy.valid(now)
	look := !c.closed && e.pending == nil && now.Sub(e.asked) >= askAgain && now.Sub(e.failed) >= failedWait
	if look {
		e.asked, e.pending = now, make(chan struct{})
		c.group.Go(func() { c.refresh(domain, e) })
	}
	pending := e.pending
	c.mu.Unlock()
	if !known && pending != nil {
		ctx, cancel := context.WithTimeout(ctx, c.o.Patience)
		defer cancel()
		select {
		case <-pending:
		case <-ctx.Done():
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return e.policy, e.policy.valid(now)
}

// evict makes room for a domain.
func (c *Cache) evict() {
	if len(c.domains) < c.o.Max {
		return
	}
	var oldest string
	for name, e := range c.domains {
		if e.pending == nil && (oldest == "" || e.used.Before(c.domains[oldest].used)) {
			oldest = name
		}
	}
	if oldest != "" {
		delete(c.domains, oldest)
		_ = os.Remove(c.file(oldest)) // it can be fetched again
	}
}

// refresh looks whether the domain has a new policy, and fetches it.
func (c *Cache) refresh(domain string, e *entry) {
	p, changed, err := c.newer(domain, e)
	if err == nil && changed {
		err = c.store(domain, p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		e.failed = c.o.Now()
		c.o.Logger.Info("MTA-STS policy could not be fetched", "domain", domain, "err", err)
	}
	if changed {
		e.policy = p
	}
	close(e.pending)
	e.pending = nil
}

func (c *Cache) newer(domain string, e *entry) (p Policy, changed bool, err error) {
	c.slots <- struct{}{}
	defer func() { <-c.slots }()
	ctx, cancel := context.WithTimeout(c.ctx, fetchTime)
	defer cancel()
	a := c.o.Resolver.Lookup(ctx, dns.Question{Type: "TXT", Name: "_mta-sts." + domain})
	id, ok := ParseRecord(a.Records)
	c.mu.Lock()
	old := e.policy
	c.mu.Unlock()
	now := c.o.Now()
	switch {
	case a.Status == dns.Temporary:
		return p, false, fmt.Errorf("record: %w", errors.Join(errors.New("cannot be looked up"), a.Err))
	case !ok:
		return p, false, nil // no policy, or what is known stays until it expires
	case old.valid(now) && old.ID == id && now.Before(old.Fetched.Add(old.MaxAge/2)):
		return p, false, nil
	}
	p, err = c.fetch(ctx, domain)
	p.ID, p.Fetched = id, now
	return p, err == nil, err
}

// fetch gets the policy file (RFC 8461 §3.3).
func (c *Cache) fetch(ctx context.Context, domain string) (Policy, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://mta-sts."+domain+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return Policy{}, err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return Policy{}, err
	}
	defer resp.Body.Close() // only read
	if resp.StatusCode != http.StatusOK {
		return Policy{}, fmt.Errorf("HTTP status %s", resp.Status)
	}
	if typ, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || typ != "text/plain" {
		return Policy{}, fmt.Errorf("the policy is %.60q, not text/plain", resp.Header.Get("Content-Type"))
	}
	return ParsePolicy(resp.Body)
}

// store keeps a policy on disk.
func (c *Cache) store(domain string, p Policy) error {
	b, err := json.Marshal(kept{domain, p})
	if err != nil {
		return err
	}
	name := c.file(domain)
	if err := os.WriteFile(name+".tmp", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}

// Close ends fetches under way and waits for them.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.group.Wait()
	return nil
}
