package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/wafermail/wafer/core/admin"
)

// herd is many sessions that do nothing.
type herd struct {
	peers []*peer
}

// each runs f for every peer, a few at a time, and returns the errors.
func (h *herd) each(f func(i int, p *peer) error) error {
	var mu sync.Mutex
	var errs []error
	var workers sync.WaitGroup
	const width = 16
	for k := range width {
		workers.Go(func() {
			for i := k; i < len(h.peers); i += width {
				if err := f(i, h.peers[i]); err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("session %d: %w", i, err))
					mu.Unlock()
				}
			}
		})
	}
	workers.Wait()
	if len(errs) > 10 {
		errs = append(errs[:10], fmt.Errorf("and %d more", len(errs)-10))
	}
	return errors.Join(errs...)
}

// gather opens n sessions at a door and brings each into its idle state.
func gather(s *server, door string, n int, greet func(i int, p *peer) error) (*herd, error) {
	h := &herd{peers: make([]*peer, n)}
	err := h.each(func(i int, _ *peer) error {
		p, err := s.reach(door, 1+i/8) // eight from each client
		if err != nil {
			return err
		}
		h.peers[i] = p
		return greet(i, p)
	})
	return h, err
}

// close ends every session.
func (h *herd) close() {
	for _, p := range h.peers {
		if p != nil {
			p.close()
		}
	}
}

// ehlo brings an SMTP session to where it waits for a command.
func ehlo(_ int, p *peer) error { return p.greeted() }

// idleMailboxes are the users of the idle IMAP sessions.
const idleMailboxes = 50

// idling logs an IMAP session in, selects the INBOX and begins IDLE.
func idling(i int, p *peer) error {
	if err := p.imapLogin(fmt.Sprintf("u%d", i%idleMailboxes)); err != nil {
		return err
	}
	if _, err := p.imapOK("SELECT INBOX"); err != nil {
		return err
	}
	if err := p.send("idle IDLE\r\n"); err != nil {
		return err
	}
	line, err := p.line()
	if err == nil && !strings.HasPrefix(line, "+") {
		err = fmt.Errorf("IDLE: got %q", line)
	}
	return err
}

// TestIdle holds 2,000 idle sessions on IMAP and 2,000 on SMTP at once, and
// reports the memory that each costs the server; then every one of them must
// still answer.
func TestIdle(t *testing.T) {
	n := 2000
	if testing.Short() {
		n = 200
	}
	raiseFiles(t, uint64(2*n+500))
	users := make([]string, idleMailboxes)
	for i := range users {
		users[i] = fmt.Sprintf("u%d", i)
	}
	w := newWorld(t, setup{users: users, plain: true})
	s := w.start()
	for _, door := range []string{"mx", "imap"} { // what is set up at first use
		p := s.open(door, 0)
		_, err := p.line()
		must(t, err)
		p.close()
	}
	base := s.until("the first sessions end", quiet)
	before := s.memory()

	smtp, err := gather(s, "mx", n, ehlo)
	defer smtp.close()
	must(t, err)
	between := s.memory()
	imap, err := gather(s, "imap", n, idling)
	defer imap.close()
	must(t, err)
	after := s.memory()
	st := s.status()
	t.Logf("%d sessions each: SMTP %d octets of resident memory a session, IMAP (logged in, selected, IDLE) %d; %d goroutines, resident %d MiB",
		n, (between-before)/int64(n), (after-between)/int64(n), st.Goroutines, after>>20)
	if open := openOf(st); open != 2*n {
		t.Errorf("status says %d open connections, want %d", open, 2*n)
	}

	must(t, smtp.each(func(_ int, p *peer) error {
		_, err := p.want(250, "NOOP")
		return err
	}))
	must(t, imap.each(func(_ int, p *peer) error {
		if err := p.send("DONE\r\n"); err != nil {
			return err
		}
		a, err := p.tagged("idle")
		if err == nil && !strings.HasPrefix(a.status, "OK") {
			err = fmt.Errorf("DONE: got %q", a.status)
		}
		if err != nil {
			return err
		}
		_, err = p.imapOK("NOOP")
		return err
	}))
	smtp.close()
	imap.close()
	s.until("no goroutine is left", func(st admin.Status) bool { return quiet(st) && st.Goroutines <= base.Goroutines+idleMailboxes+2 })
	s.stop()
}

// TestIdleTLS is the same with TLS, with fewer: the handshakes would take the
// time. It only measures.
func TestIdleTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("it only measures, and -short is given")
	}
	const n = 300
	users := make([]string, idleMailboxes)
	for i := range users {
		users[i] = fmt.Sprintf("u%d", i)
	}
	for door, greet := range map[string]func(int, *peer) error{"imaps": idling, "submissions": ehlo} {
		w := newWorld(t, setup{users: users})
		s := w.start()
		before := s.memory()
		h, err := gather(s, door, n, greet)
		t.Cleanup(h.close)
		must(t, err)
		t.Logf("%d idle sessions with TLS on %s: %d octets of resident memory a session", n, door, (s.memory()-before)/n)
		h.close()
		s.stop()
	}
}

// quiet reports whether no client is connected.
func quiet(st admin.Status) bool { return openOf(st) == 0 }

// openOf counts the open connections of all doors.
func openOf(st admin.Status) (n int) {
	for _, l := range st.Listeners {
		n += l.Open
	}
	return n
}
