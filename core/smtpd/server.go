package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// Server speaks one profile on any number of listeners.
type Server struct {
	c        Config
	tls      *tls.Config
	registry *Registry
	log      *slog.Logger
	buffers  buffers
	without  extensions
	newJudge func(Rules) judge

	ctx    context.Context // ends when Shutdown loses patience
	cancel context.CancelFunc
	stop   chan struct{} // closed when Shutdown begins

	closing atomic.Bool

	sessions sync.WaitGroup

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	open      map[*session]struct{}

	total, refused, messages, panics, turnedAway atomic.Uint64
}

// Stats counts what a Server has seen.
type Stats struct {
	Open       int    // connections now
	Total      uint64 // connections ever
	TurnedAway uint64 // of these, over a connection cap
	Refused    uint64 // sessions that ended with a refusal and without a message
	Messages   uint64 // messages accepted
	Panics     uint64 // sessions that ended in a bug
}

// New checks c and returns a server that does not listen yet.
func New(c Config) (*Server, error) {
	switch c.Profile {
	case MX, Submission, Submissions, LMTP:
	default:
		return nil, fmt.Errorf("smtp server: unknown profile %q", c.Profile)
	}
	switch {
	case !mail.ValidDomain(c.Hostname):
		return nil, fmt.Errorf("smtp server: host name %q is not a domain name", c.Hostname)
	case c.Begin == nil:
		return nil, errors.New("smtp server: Begin is missing")
	case c.Profile == Submissions && c.TLS == nil:
		return nil, errors.New("smtp server: profile submissions needs TLS")
	}
	switch c.OwnSender {
	case OwnBoth, OwnEnvelope, OwnOff:
	case "both":
		c.OwnSender = OwnBoth
	default:
		return nil, fmt.Errorf("smtp server: own sender %q is none of both, envelope, off", c.OwnSender)
	}
	for _, keyword := range c.Without {
		if !slices.Contains(Extensions(), keyword) {
			return nil, fmt.Errorf("smtp server: cannot do without %q, only without %s", keyword, strings.Join(Extensions(), ", "))
		}
	}
	c.Limits = c.Limits.filled()
	s := &Server{
		c:         c,
		registry:  c.Registry,
		log:       c.Logger,
		stop:      make(chan struct{}),
		without:   c.Without,
		listeners: make(map[net.Listener]struct{}),
		open:      make(map[*session]struct{}),
	}
	if s.registry == nil {
		s.registry = NewRegistry(RegistryOptions{})
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if c.TLS != nil {
		s.tls = hardened(c.TLS, c.Profile == MX)
		if c.Profile.submits() {
			s.tls = auth.TLSConfig(s.tls)
		}
	}
	s.newJudge = func(r Rules) judge {
		j := r.Policy.Session(string(c.Profile))
		j.Waits()
		j.Watch(r.Shadow)
		return j
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Serve accepts connections from ln until Shutdown, and then returns nil once
// ln is closed. A failed accept is logged and tried again after a pause; only
// a listener that was closed by somebody else ends Serve with an error.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.closing.Load() {
		s.mu.Unlock()
		return ln.Close()
	}
	s.listeners[ln] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, ln)
		s.mu.Unlock()
	}()

	pause := 5 * time.Millisecond
	for {
		nc, err := ln.Accept()
		if s.closing.Load() {
			if nc != nil {
				_ = nc.Close() // nothing was promised to it
			}
			return nil
		}
		switch {
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
		case err != nil: // EMFILE, ECONNABORTED, …: they pass
			s.log.Warn("accept failed", "listener", ln.Addr().String(), "err", err, "pause", pause)
			s.wait(pause)
			pause = min(2*pause, s.c.Limits.AcceptWait)
		default:
			pause = 5 * time.Millisecond
			s.accept(nc)
		}
	}
}

// accept starts the session of nc, or turns it away when the house is full.
func (s *Server) accept(nc net.Conn) {
	s.total.Add(1)
	if !s.registry.reserve() {
		s.turnedAway.Add(1)
		if s.c.Profile != Submissions {
			// A fresh socket has room for one line, so this cannot block for long.
			_ = nc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			_, _ = nc.Write([]byte(replyBusy + "\r\n"))
		}
		_ = nc.Close()
		return
	}
	ss := newSession(s, nc)
	s.mu.Lock()
	if s.closing.Load() {
		s.mu.Unlock()
		s.registry.unreserve()
		_ = nc.Close()
		return
	}
	s.open[ss] = struct{}{}
	s.sessions.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.sessions.Done()
		defer s.forget(ss)
		ss.serve()
	}()
}

func (s *Server) forget(ss *session) {
	s.mu.Lock()
	delete(s.open, ss)
	s.mu.Unlock()
	s.registry.unreserve()
}

// Shutdown closes the listeners. Sessions that wait for a command are told 421
// at once, the others after the message that they are in. When ctx ends first,
// the connections are cut, and Shutdown returns ctx's error. In either case no
// session is left when it returns.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closing.Swap(true) {
		close(s.stop)
	}
	for ln := range s.listeners {
		_ = ln.Close() // Serve sees closing
	}
	for ss := range s.open {
		ss.hurry()
	}
	s.mu.Unlock()

	drained := make(chan struct{})
	go func() { // ends with the sessions, which are waited for below
		s.sessions.Wait()
		close(drained)
	}()
	defer s.cancel()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
	}
	s.cancel()
	s.mu.Lock()
	for ss := range s.open {
		ss.cut()
	}
	s.mu.Unlock()
	<-drained
	return fmt.Errorf("shut down smtp server: %w", ctx.Err())
}

// Retire ends the sessions that a set of policies judges: those that wait for a command
// are told 421 at once, the others after the message that they are in.
func (s *Server) Retire(set *policy.Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ss := range s.open {
		if ss.set.Load() == set {
			ss.retired.Store(true)
			ss.hurry()
		}
	}
}

// Stats returns the counts so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.open)
	s.mu.Unlock()
	return Stats{
		Open:       open,
		Total:      s.total.Load(),
		TurnedAway: s.turnedAway.Load(),
		Refused:    s.refused.Load(),
		Messages:   s.messages.Load(),
		Panics:     s.panics.Load(),
	}
}

// wait returns after d, or at once when the server shuts down.
func (s *Server) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.stop:
	}
}
