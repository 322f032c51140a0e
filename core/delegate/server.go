package delegate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// ServerConfig is what a Server is made of.
type ServerConfig struct {
	Hostname string // our own name, for the policies
	Door     string // whose policies are asked; "policy"
	// Policies is called once for each request and returns the policies that judge
	// it, and what to call then. What is remembered of an SMTP session is forgotten
	// when the policies change. nil: no policies.
	Policies func() (*policy.Set, func())
	// Directory is called once for each request, for Event.Directory. nil: nobody
	// is known.
	Directory func() policy.Directory
	Trusted   []netip.Prefix // clients of Postfix's for which Event.Trusted is set
	Limits    Limits
	Logger    *slog.Logger // nil: no log
}

// Limits bound what peers can take. The zero value of each field is its default.
type Limits struct {
	Connections int           // open at once; 1000
	Idle        time.Duration // between two requests, and within one; 5 min, as Postfix keeps them
	Write       time.Duration // for the peer to take an answer; 1 min
	Sessions    int           // SMTP sessions that are remembered; 10000
	Memory      time.Duration // that one is remembered after its last request; 10 min
	Tarpit      time.Duration // longest delay that a policy can ask for; 30 s
}

func (l Limits) withDefaults() Limits {
	orElse(&l.Connections, 1000)
	orElse(&l.Idle, 5*time.Minute)
	orElse(&l.Write, time.Minute)
	orElse(&l.Sessions, 10000)
	orElse(&l.Memory, 10*time.Minute)
	orElse(&l.Tarpit, 30*time.Second)
	return l
}

// Server answers Postfix's check_policy_service.
type Server struct {
	c      ServerConfig
	log    *slog.Logger
	memory *memory

	ctx    context.Context // ends when Shutdown loses patience
	cut    context.CancelFunc
	gentle context.Context // ends when Shutdown begins
	hurry  context.CancelFunc

	running sync.WaitGroup // connections

	mu        sync.Mutex
	open      map[*peer]struct{}
	listeners map[net.Listener]struct{}

	numbers                                                       atomic.Uint64 // of connections
	total, turnedAway, requests, refused, malformed, lost, panics atomic.Uint64
}

// Stats counts what a Server has seen.
type Stats struct {
	Open       int    // connections now
	Total      uint64 // connections ever
	TurnedAway uint64 // of these, over the cap
	Requests   uint64 // answered
	Refused    uint64 // of these, with a 4xx or 5xx
	Malformed  uint64 // requests that could not be read or understood
	Lost       uint64 // effects that Postfix asked no answer for any more
	Panics     uint64 // connections that ended in a bug
}

// NewServer checks c and returns a Server that listens nowhere yet.
func NewServer(c ServerConfig) (*Server, error) {
	if c.Hostname == "" {
		return nil, errors.New("policy server: no host name")
	}
	orElse(&c.Door, "policy")
	if c.Policies == nil {
		c.Policies = func() (*policy.Set, func()) { return nil, func() {} }
	}
	if c.Directory == nil {
		c.Directory = func() policy.Directory { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Limits = c.Limits.withDefaults()
	s := &Server{
		c: c, log: c.Logger, memory: newMemory(c.Limits.Sessions, c.Limits.Memory),
		open: map[*peer]struct{}{}, listeners: map[net.Listener]struct{}{},
	}
	s.ctx, s.cut = context.WithCancel(context.Background())
	s.gentle, s.hurry = context.WithCancel(s.ctx)
	return s, nil
}

// Stats returns the counts so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.open)
	s.mu.Unlock()
	return Stats{
		Open: open, Total: s.total.Load(), TurnedAway: s.turnedAway.Load(), Requests: s.requests.Load(),
		Refused: s.refused.Load(), Malformed: s.malformed.Load(), Lost: s.lost.Load(), Panics: s.panics.Load(),
	}
}

// Serve accepts connections on ln until Shutdown, when it returns nil, or until
// somebody else closes ln. Other failures to accept pass, and are waited for.
// It closes ln.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.gentle.Err() != nil {
		s.mu.Unlock()
		return ln.Close()
	}
	s.listeners[ln] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, ln)
		s.mu.Unlock()
		_ = ln.Close() // Shutdown may have done so
	}()
	pause := 5 * time.Millisecond
	for {
		conn, err := ln.Accept()
		switch {
		case s.gentle.Err() != nil:
			if conn != nil {
				_ = conn.Close() // nothing was promised to it
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
		case err != nil: // out of descriptors, aborted by the peer
			s.log.Warn("accept failed", "listener", ln.Addr().String(), "err", err)
			_ = wait(s.gentle, pause)
			pause = min(2*pause, time.Second)
		default:
			pause = 5 * time.Millisecond
			s.start(conn)
		}
	}
}

// start serves a connection in a goroutine of its own.
func (s *Server) start(conn net.Conn) {
	s.total.Add(1)
	p := newPeer(s, conn, s.numbers.Add(1))
	s.mu.Lock()
	if len(s.open) >= s.c.Limits.Connections || s.gentle.Err() != nil {
		s.mu.Unlock()
		if s.turnedAway.Add(1) == 1 {
			s.log.Warn("too many connections to the policy server", "limit", s.c.Limits.Connections)
		}
		_ = conn.Close() // Postfix tries again
		return
	}
	s.open[p] = struct{}{}
	s.running.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.running.Done()
		defer func() {
			s.mu.Lock()
			delete(s.open, p)
			s.mu.Unlock()
		}()
		p.serve()
	}()
}

// Shutdown closes the listeners and the connections that wait for a request,
// and lets the others answer theirs. When ctx ends first it cuts them and returns
// ctx's error. No connection is left when it returns.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.hurry()
	for ln := range s.listeners {
		_ = ln.Close() // Serve sees gentle
	}
	for p := range s.open {
		p.wake()
	}
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		s.cut()
		s.mu.Lock()
		defer s.mu.Unlock()
		for p := range s.open {
			_ = p.conn.Close() // its goroutine sees why
		}
	})
	s.running.Wait()
	s.cut()
	if !stop() {
		return fmt.Errorf("shut down policy server: %w", context.Cause(ctx))
	}
	return nil
}
