package pop3d

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Server serves POP3.
type Server struct {
	c   Config
	log *slog.Logger

	ctx    context.Context // ends when Shutdown loses patience
	cut    context.CancelFunc
	gentle context.Context // ends when Shutdown begins
	hurry  context.CancelFunc

	running sync.WaitGroup // sessions
	chunks  chunks

	mu        sync.Mutex
	sessions  map[*session]struct{}
	listeners map[net.Listener]struct{}
	clients   map[netip.Addr]int // open connections; bounded by Limits.Connections

	total, turnedAway, logins, failures, retrieved, deleted, panics atomic.Uint64
}

// Stats counts what a Server has seen.
type Stats struct {
	Open       int    // connections now
	Total      uint64 // connections ever
	TurnedAway uint64 // of these, over a cap
	Logins     uint64
	Failures   uint64 // of logins
	Retrieved  uint64 // messages
	Deleted    uint64 // messages
	Panics     uint64 // sessions that ended in a bug
}

// Stats returns the counts so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.sessions)
	s.mu.Unlock()
	return Stats{
		Open: open, Total: s.total.Load(), TurnedAway: s.turnedAway.Load(),
		Logins: s.logins.Load(), Failures: s.failures.Load(),
		Retrieved: s.retrieved.Load(), Deleted: s.deleted.Load(), Panics: s.panics.Load(),
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
			_ = sleep(s.gentle, pause)
			pause = min(2*pause, time.Second)
		default:
			pause = 5 * time.Millisecond
			s.start(conn)
		}
	}
}

// start runs a session in a goroutine of its own.
func (s *Server) start(conn net.Conn) {
	s.total.Add(1)
	ss := newSession(s, conn)
	s.mu.Lock()
	full := len(s.sessions) >= s.c.Limits.Connections
	if full || s.gentle.Err() != nil {
		s.mu.Unlock()
		s.turnedAway.Add(1)
		_ = conn.Close() // a greeting could block the listener
		return
	}
	s.sessions[ss] = struct{}{}
	s.running.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.running.Done()
		defer func() {
			s.mu.Lock()
			delete(s.sessions, ss)
			s.mu.Unlock()
		}()
		ss.serve()
	}()
}

// enter counts a connection of addr; leave must follow if it is true.
func (s *Server) enter(addr netip.Addr) bool {
	key := clientKey(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients[key] >= s.c.Limits.PerClient {
		return false
	}
	s.clients[key]++
	return true
}

func (s *Server) leave(addr netip.Addr) {
	key := clientKey(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients[key]--; s.clients[key] == 0 {
		delete(s.clients, key)
	}
}

// clientKey is what one client has for itself: an IPv4 address, an IPv6 /64.
func clientKey(addr netip.Addr) netip.Addr {
	if addr.Is6() {
		p, err := addr.Prefix(64)
		if err == nil {
			return p.Addr()
		}
	}
	return addr
}

// Shutdown closes the listeners, ends sessions that wait for a command, and
// lets the others finish the command that they are at. When ctx ends first it
// cuts the connections and returns ctx's error. No session is left when it
// returns.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.hurry()
	for ln := range s.listeners {
		_ = ln.Close() // Serve sees gentle
	}
	for ss := range s.sessions {
		ss.wake()
	}
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		s.cut()
		s.mu.Lock()
		defer s.mu.Unlock()
		for ss := range s.sessions {
			_ = ss.raw.Close() // the session sees why
		}
	})
	s.running.Wait()
	s.cut()
	if !stop() {
		return fmt.Errorf("shut down pop3 server: %w", context.Cause(ctx))
	}
	return nil
}

func within(addr netip.Addr, nets []netip.Prefix) bool {
	return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
