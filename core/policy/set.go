package policy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Resolver answers one DNS question. Errors are in the answer's status.
type Resolver interface {
	LookupDNS(ctx context.Context, q Question) Answer
}

// KnownResolver is a Resolver that knows some answers without asking anybody. It
// saves the goroutines and the waiting of the others.
type KnownResolver interface {
	KnownDNS(q Question) (Answer, bool)
}

// SetOptions is the world that checks of a Set may touch.
type SetOptions struct {
	Resolver Resolver         // nil: every lookup fails temporarily
	Counters *Counters        // nil: a new one; pass the old one to keep counts over a reload
	Now      func() time.Time // nil: time.Now
	Random   func(p []byte)   // nil: crypto/rand
	Logger   *slog.Logger     // nil: no log
	Log      DecisionLog      // nil: decisions are not recorded
	Tape     Tape             // nil: nothing is kept for a replay
	Bodies   bool             // what checks read of bodies is kept on the tape, not only its digest
	State    State            // nil: a small one in memory, which forgets at restart

	Shadow *Shadow // asks checks that only observe; nil: they are asked in their turn

	Space      string // before the keys of counters and state; "": what all versions share
	Watches    bool   // nothing depends on what the checks say: they are recorded as observing
	Version    string // of the policies, if there are several at once; for the decision log
	Generation int    // of the configuration, for the decision log
	Explain    bool   // the decision log is told also which checks were not asked, and why
}

// Set is the policies of one generation. It is immutable and safe for
// concurrent use; a nil Set objects to nothing.
type Set struct {
	o      SetOptions
	byDoor map[string]*plan
	checks []*Check

	traffic traffic
	shadows sync.WaitGroup // calls of checks that only observe, under way
}

// plan is what one door asks: for each stage the lists of its policies.
type plan struct {
	lists  [LastStage + 1][]lane
	direct bool // the door has no Rcpt stage: nothing is held back
}

// lane is the checks of one policy at one stage.
type lane struct {
	policy *Policy
	checks []*Check
}

// NewSet joins policies in their order. It takes the policies over.
func NewSet(policies []*Policy, o SetOptions) *Set {
	if o.Counters == nil {
		o.Counters = NewCounters(CounterOptions{})
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = func(p []byte) { _, _ = rand.Read(p) } // never fails
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.State == nil {
		o.State = NewMemory()
	}
	s := &Set{o: o, byDoor: map[string]*plan{}}
	for _, p := range policies {
		if p.ReplyAt == 0 {
			p.ReplyAt = Rcpt
		}
		for _, c := range p.Checks {
			c.label = p.Name + "/" + c.Name
			if m, ok := c.Plugin.(Module); ok {
				c.module, c.digest = m.ID(), m.Digest()
			}
			if c.ReplyAt == 0 {
				c.ReplyAt = p.ReplyAt
			}
			if c.OnError == 0 {
				c.OnError = Defer
			}
			s.checks = append(s.checks, c)
		}
		for _, door := range p.On {
			s.add(door, p)
		}
	}
	return s
}

func (s *Set) add(door string, p *Policy) {
	pl := s.byDoor[door]
	if pl == nil {
		pl = &plan{}
		switch door {
		case "imap", "imaps", "pop3", "pop3s":
			pl.direct = true
		}
		s.byDoor[door] = pl
	}
	for stage := Connect; stage <= LastStage; stage++ {
		var at []*Check
		for _, c := range p.Checks {
			for _, have := range c.At {
				if have == stage {
					at = append(at, c)
				}
			}
		}
		if len(at) > 0 {
			pl.lists[stage] = append(pl.lists[stage], lane{p, at})
		}
	}
}

// Digests are the SHA-256 of the modules in hexadecimal, by "policy/check". What is no
// module is not there.
func (s *Set) Digests() map[string]string {
	d := map[string]string{}
	if s == nil {
		return d
	}
	for _, c := range s.checks {
		if c.digest != "" {
			d[c.label] = c.digest
		}
	}
	return d
}

// Close closes every plugin. No session may use the Set any more.
func (s *Set) Close() error {
	if s == nil {
		return nil
	}
	s.shadows.Wait()
	var errs []error
	for _, c := range s.checks {
		if err := c.Plugin.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close check %s: %w", c.label, err))
		}
	}
	return errors.Join(errs...)
}
