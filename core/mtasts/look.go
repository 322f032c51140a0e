package mtasts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/wafermail/wafer/core/dns"
)

// renew looks now and then at policies that are to be fetched again, although no mail
// asks for them just now: one that is asked for rarely would expire between two mails.
func (c *Cache) renew() {
	tick := time.NewTicker(round)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.lookAtStale()
		case <-c.ctx.Done():
			return
		}
	}
}

func (c *Cache) lookAtStale() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.o.Now()
	for at := c.with.Front(); at != nil; at = at.Next() {
		e := at.Value.(*entry)
		if c.closed || c.looks >= maxLooks/2 { // the rest is for mail that waits
			return
		}
		if e.pending == nil && !now.Before(e.next) && e.policy.stale(now) && now.Sub(e.used) < idle {
			c.look(e)
		}
	}
}

// look begins to look at a domain in the background. c.mu is held.
func (c *Cache) look(e *entry) {
	var over context.CancelFunc
	e.pending, over = context.WithTimeout(c.ctx, c.o.Patience)
	c.looks++
	old := e.policy
	c.group.Go(func() {
		defer over()
		found, changed, err := c.newer(e.domain, old)
		if changed {
			c.keep(e.domain, found)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.looks--
		e.pending = nil
		c.learn(e, found, changed, err)
	})
}

// learn takes over what a look has brought. c.mu is held.
func (c *Cache) learn(e *entry, found Policy, changed bool, err error) {
	now := c.o.Now()
	switch {
	case err != nil && c.closed: // it was us
	case err != nil:
		wait := min(waitLeast<<min(e.failures, 10), waitMost)
		e.failures++
		e.next = now.Add(wait)
		level := slog.LevelInfo
		if _, force := e.policy.inForce(now); force {
			level = slog.LevelWarn // somebody may be waiting for it to expire (RFC 8461 §3.3)
		}
		c.o.Logger.Log(c.ctx, level, "MTA-STS policy could not be fetched", "domain", e.domain, "failures", e.failures, "again", e.next, "err", err)
	default:
		if changed {
			e.policy = found
		}
		e.failures = 0
		e.next = now.Add(askAgain)
		if e.policy.Mode != "" {
			e.next = now.Add(max(askSoon, min(askAgain, e.policy.MaxAge/2)))
		}
	}
	if !e.policy.valid(now) && e.policy.Mode != "" {
		e.policy = Policy{}
		c.discard(e.domain)
	}
	c.settle(e)
}

// newer looks whether the domain has another policy than old, and fetches it. Where
// it has none, or the same, changed is false.
func (c *Cache) newer(domain string, old Policy) (found Policy, changed bool, err error) {
	defer func() {
		if r := recover(); r != nil { // what a peer sends must not end the server
			c.o.Logger.Error("MTA-STS look panicked", "domain", domain, "err", r, "stack", string(debug.Stack()))
			changed, err = false, errors.New("panic")
		}
	}()
	ctx, cancel := context.WithTimeout(c.ctx, lookTime)
	defer cancel()
	now := c.o.Now()
	a := c.o.Resolver.Lookup(ctx, dns.Question{Type: "TXT", Name: "_mta-sts." + domain})
	id, ok := "", false
	if a.Status == dns.Found {
		id, ok = ParseRecord(a.Records)
	}
	_, force := old.inForce(now)
	switch {
	case ok && old.valid(now) && old.ID == id && !old.stale(now):
		return Policy{}, false, nil
	case ok:
	case force && old.stale(now):
		id = old.ID // RFC 8461 §10.2: keeping the record from us must not end the policy
	case a.Status == dns.Temporary:
		return Policy{}, false, fmt.Errorf("look up record: %w", errors.Join(errors.New("no answer"), a.Err))
	default:
		return Policy{}, false, nil // no policy; one that is known stays until it expires
	}
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return Policy{}, false, fmt.Errorf("wait for other fetches: %w", ctx.Err())
	}
	found, err = c.fetch(ctx, domain)
	if err != nil {
		return Policy{}, false, err
	}
	found.ID, found.Fetched = id, now
	return found, true, nil
}

// stale reports whether the policy is to be fetched again although its id is the same:
// after half its life, and daily (RFC 8461 §3.3).
func (p Policy) stale(now time.Time) bool {
	return !now.Before(p.Fetched.Add(min(p.MaxAge/2, 24*time.Hour)))
}
