package imapd

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"
)

// ErrClosed is returned by Serve after Shutdown.
var ErrClosed = errors.New("imap server is closed")

// Serve accepts connections on ln until Shutdown or until ln fails for good. It
// closes ln. After Shutdown it returns ErrClosed.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return errors.Join(ErrClosed, ln.Close())
	}
	s.listeners[ln] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, ln)
		s.mu.Unlock()
		_ = ln.Close() // closed before by Shutdown
	}()
	pause := 5 * time.Millisecond
	for {
		conn, err := ln.Accept()
		if err != nil {
			if s.isClosing() {
				return ErrClosed
			}
			if ne, ok := err.(net.Error); !ok || !ne.Timeout() && !isTemporary(err) {
				return err
			}
			// Out of descriptors: wait for some to be closed.
			s.log.Error("accept", "err", err)
			select {
			case <-s.ctx.Done():
				return ErrClosed
			case <-time.After(pause):
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		s.start(conn)
	}
}

func isTemporary(err error) bool {
	t, ok := err.(interface{ Temporary() bool })
	return ok && t.Temporary()
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// start gives a connection its goroutine.
func (s *Server) start(conn net.Conn) {
	s.total.Add(1)
	ses := newSession(s, conn)
	s.mu.Lock()
	full := len(s.sessions) >= s.c.Limits.Connections
	if s.closing || full {
		s.mu.Unlock()
		s.refused.Add(1)
		_ = conn.Close() // no goroutine to say why
		return
	}
	s.sessions[ses] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		defer func() {
			s.mu.Lock()
			delete(s.sessions, ses)
			s.mu.Unlock()
		}()
		ses.serve()
	}()
}

// clientKey is what connections are counted by: the address, or the /64 that
// one IPv6 customer has at least.
func clientKey(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// admitClient counts a connection of a client; false if it has too many.
func (s *Server) admitClient(key netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients[key] >= s.c.Limits.PerClient && !s.trusts(key.Addr()) {
		return false
	}
	s.clients[key]++
	return true
}

// trusts reports whether a client is not bound by limits of its own.
func (s *Server) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(s.c.Trusted, func(n netip.Prefix) bool { return n.Contains(a.Unmap()) })
}

func (s *Server) releaseClient(key netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients[key]--; s.clients[key] <= 0 {
		delete(s.clients, key)
	}
}

// admitUser counts a session of a user; false if there are too many.
func (s *Server) admitUser(user string, client netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[user] >= s.c.Limits.PerUser && !s.trusts(client) {
		return false
	}
	s.users[user]++
	return true
}

func (s *Server) releaseUser(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[user]--; s.users[user] <= 0 {
		delete(s.users, user)
	}
}

// Shutdown closes the listeners, lets every session finish its command and say
// BYE, and waits for all of them. When ctx ends first the connections are cut,
// and ctx's error is returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	for ln := range s.listeners {
		_ = ln.Close() // Serve reports what matters
	}
	for ses := range s.sessions {
		ses.wake.stop()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		s.cancel()
		s.mu.Lock()
		for ses := range s.sessions {
			_ = ses.raw.Close() // the session notices
		}
		s.mu.Unlock()
		<-done
	}
	s.cancel()
	return err
}
