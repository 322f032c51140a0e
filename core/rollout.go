package core

import (
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/policy"
)

// rollout is another version of the policies, which judges a part of the clients at the
// SMTP doors.
type rollout struct {
	config *config.Rollout
	set    *policy.Set

	mu    sync.Mutex
	state rolloutState
}

// rolloutState is what has become of a version. It outlives reloads and restarts as long
// as the version stays the same.
type rolloutState struct {
	Digest string    `json:"digest"` // of the version
	State  string    `json:"state"`  // "trying", "promoted", "withdrawn"
	Why    string    `json:"why,omitempty"`
	Since  time.Time `json:"since"`
}

// States of a rollout.
const (
	trying    = "trying"
	promoted  = "promoted"
	withdrawn = "withdrawn"
)

// buildRollout loads the policies of c's rollout.
func buildRollout(ctx context.Context, c *config.Config, w world, files config.Files) (*rollout, error) {
	known, lerr := openLists(c.Rollout.Lists, w.log)
	policies, perr := loadPolicies(ctx, c.Rollout.Policy, w, files, known)
	set := w.set
	set.Version = c.Rollout.Name
	r := &rollout{config: c.Rollout, set: policy.NewSet(policies, set), state: rolloutState{Digest: c.Rollout.Digest, State: trying, Since: time.Now()}}
	return r, errors.Join(lerr, perr)
}

// buildShadow loads the policies of a version that watches. It counts and remembers apart.
func buildShadow(ctx context.Context, c *config.Config, w world, files config.Files) (*policy.Set, error) {
	known, lerr := openLists(c.Shadow.Lists, w.log)
	policies, perr := loadPolicies(ctx, c.Shadow.Policy, w, files, known)
	set := w.set
	set.Version, set.Space, set.Watches, set.Tape = c.Shadow.Name, "shadow "+c.Shadow.Name+" ", true, nil
	return policy.NewSet(policies, set), errors.Join(lerr, perr)
}

// policyFor are the policies that judge a client. With sticky = "client-prefix" they
// are the same for a network (/24, or /48 of IPv6), so that who tries again is judged
// alike.
func (g *generation) policyFor(client netip.Addr) *policy.Set {
	r := g.rollout
	if r == nil {
		return g.policy
	}
	r.mu.Lock()
	state := r.state.State
	r.mu.Unlock()
	switch {
	case state == promoted, state == trying && r.takes(client):
		return r.set
	}
	return g.policy
}

// takes reports whether the client is one of those that try the version.
func (r *rollout) takes(client netip.Addr) bool {
	const all = 1 << 20
	limit := uint32(r.config.Percent / 100 * all)
	if r.config.Sticky == "session" {
		return rand.Uint32N(all) < limit
	}
	client = client.Unmap()
	bits := 48
	if client.Is4() {
		bits = 24
	}
	network, err := client.Prefix(bits)
	if err != nil {
		return false
	}
	h := fnv.New32a()
	b, _ := network.MarshalBinary() // of a valid network
	_, _ = h.Write(append([]byte(r.config.Name), b...))
	x := h.Sum32() // its low bits depend too little on the last octets
	x ^= x >> 16
	x *= 0x85ebca6b
	x ^= x >> 13
	x *= 0xc2b2ae35
	x ^= x >> 16
	return x%all < limit
}

func (s *Server) rolloutFile() string { return filepath.Join(s.config.State, "rollout.json") }

// takeUp gives g's rollout the state that the same version had before, and watches it.
func (s *Server) takeUp(g *generation) {
	r := g.rollout
	if r == nil {
		return
	}
	var before rolloutState
	if b, err := os.ReadFile(s.rolloutFile()); err == nil && json.Unmarshal(b, &before) == nil && before.Digest == r.state.Digest {
		r.state = before
	}
	s.retiring.Go(func() { s.watch(g) })
}

// guardEvery is how often a version that is tried is looked at.
const guardEvery = 200 * time.Millisecond

// watch takes a version back that does what its guard forbids.
func (s *Server) watch(g *generation) {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		select {
		case <-g.free:
			return
		case <-s.stopping:
			return
		case <-tick.C:
		}
		r := g.rollout
		r.mu.Lock()
		state := r.state.State
		r.mu.Unlock()
		if state != trying {
			continue
		}
		if why := broken(&r.config.Guard, r.set.Traffic()); why != "" {
			s.log.Error("a rollout is taken back", "rollout", r.config.Name, "why", why, "generation", g.number)
			if err := s.decide(g, withdrawn, why); err != nil {
				s.log.Error("the end of a rollout could not be written down", "err", err)
			}
		}
	}
}

func ratio(n, of uint64) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}

// decide ends or promotes a version, for now and for what comes after a restart.
func (s *Server) decide(g *generation, state, why string) error {
	r := g.rollout
	r.mu.Lock()
	r.state.State, r.state.Why, r.state.Since = state, why, time.Now()
	b, err := json.MarshalIndent(r.state, "", "  ")
	r.mu.Unlock()
	if err != nil {
		return err
	}
	temp := s.rolloutFile() + ".new"
	if err := os.WriteFile(temp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, s.rolloutFile())
}

// Promote makes the version that is tried the one for everybody (admin.Generations).
func (s *Server) Promote(context.Context) (*admin.Rollout, error) { return s.conclude(promoted, "") }

// Withdraw ends the trial of a version (admin.Generations).
func (s *Server) Withdraw(context.Context) (*admin.Rollout, error) {
	return s.conclude(withdrawn, "by the operator")
}

func (s *Server) conclude(state, why string) (*admin.Rollout, error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	g := s.current.Load()
	if g.rollout == nil {
		return nil, errors.New("there is no rollout: write rollout \"NAME\" { policies = \"DIR\" } in the configuration, and reload")
	}
	if err := s.decide(g, state, why); err != nil {
		return nil, err
	}
	s.log.Info("a rollout has come to its end", "rollout", g.rollout.config.Name, "state", state)
	return g.rollout.status(), nil
}

// status is the rollout for operators.
func (r *rollout) status() *admin.Rollout {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.set.Traffic()
	return &admin.Rollout{
		Name: r.config.Name, Policies: r.config.Policies, Digest: r.config.Digest, Percent: r.config.Percent, State: r.state.State, Why: r.state.Why, Since: r.state.Since,
		Sessions: t.Sessions, Refused: t.Refused, Calls: t.Calls, Errors: t.Errors, P99: t.P99.String(),
	}
}
