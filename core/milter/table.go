package milter

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// errClosed is what a question gets after Close.
var errClosed = errors.New("the plugin is closed")

// maxSettled bounds the sessions that need no connection any more but are
// remembered.
const maxSettled = 10000

// table finds the connection of an SMTP session. Who asks about a session takes
// it out and puts it back, so nobody waits for another; two at once about the
// same one would have a connection each.
type table struct {
	maxIdle time.Duration
	slots   chan struct{} // one taken by each open connection
	busy    sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	waiting int   // for a slot
	idle    shelf // connected
	settled shelf // not connected, with something to remember
	sweep   *time.Timer
}

func newTable(connections int, maxIdle time.Duration) *table {
	return &table{maxIdle: maxIdle, slots: make(chan struct{}, connections), idle: newShelf(), settled: newShelf()}
}

// take returns the session of that id. put must follow.
func (t *table) take(id string) (*session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errClosed
	}
	t.busy.Add(1)
	if s := t.idle.take(id); s != nil {
		return s, nil
	}
	if s := t.settled.take(id); s != nil {
		return s, nil
	}
	return &session{id: id}, nil
}

// put gives a session back. It is let go if nobody could find it again, or if its
// connection is needed by another.
func (t *table) put(s *session) {
	defer t.busy.Done()
	s.rested = time.Now()
	t.mu.Lock()
	var out []*session
	switch {
	case s.id == "" || t.closed:
		out = append(out, s)
	case s.link != nil && t.waiting > 0:
		out = append(out, s)
	case s.link != nil:
		out = append(out, t.idle.put(s))
	case s.settled != nil:
		t.settled.put(s)
		for t.settled.order.Len() > maxSettled {
			t.settled.oldest()
		}
	}
	t.plan()
	t.mu.Unlock()
	leaveAll(out)
}

func leaveAll(out []*session) {
	for _, s := range out {
		if s != nil && s.plugin != nil {
			s.leave()
		}
	}
}

// end lets the session of that id go.
func (t *table) end(id string) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	out := []*session{t.idle.take(id)}
	t.settled.take(id)
	t.busy.Add(1)
	t.mu.Unlock()
	leaveAll(out)
	t.busy.Done()
}

// slot gives s the right to connect. If there is none left, the connection that
// has been unused for longest makes room: its session is told all again when it
// is asked about.
func (t *table) slot(ctx context.Context, s *session) error {
	for !s.slot {
		select {
		case t.slots <- struct{}{}:
			s.slot = true
			return nil
		default:
		}
		t.mu.Lock()
		if old := t.idle.oldest(); old != nil {
			t.mu.Unlock()
			old.leave()
			continue
		}
		t.waiting++
		t.mu.Unlock()
		var err error
		select {
		case t.slots <- struct{}{}:
			s.slot = true
		case <-ctx.Done():
			err = fmt.Errorf("wait for a connection: %w", ctx.Err())
		}
		t.mu.Lock()
		t.waiting--
		t.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// release takes the right back.
func (t *table) release(s *session) {
	if s.slot {
		s.slot = false
		<-t.slots
	}
}

// plan makes tidy run when the session that rests longest has done so for
// maxIdle. t.mu is held.
func (t *table) plan() {
	if t.sweep != nil || t.closed {
		return
	}
	first := time.Time{}
	for _, sh := range []*shelf{&t.idle, &t.settled} {
		if e := sh.order.Back(); e != nil {
			if at := e.Value.(*session).rested; first.IsZero() || at.Before(first) {
				first = at
			}
		}
	}
	if first.IsZero() {
		return
	}
	t.busy.Add(1)
	t.sweep = time.AfterFunc(time.Until(first.Add(t.maxIdle)), t.tidy)
}

// tidy lets go what has rested for maxIdle.
func (t *table) tidy() {
	defer t.busy.Done()
	before := time.Now().Add(-t.maxIdle)
	t.mu.Lock()
	t.sweep = nil
	out := t.idle.old(before)
	t.settled.old(before)
	t.plan()
	t.mu.Unlock()
	leaveAll(out)
}

// close refuses further questions, waits for those under way and closes every
// connection.
func (t *table) close() {
	t.mu.Lock()
	t.closed = true
	if t.sweep != nil && t.sweep.Stop() {
		t.busy.Done()
	}
	t.sweep = nil
	out := t.idle.old(time.Now().Add(time.Hour))
	t.settled.old(time.Now().Add(time.Hour))
	t.mu.Unlock()
	leaveAll(out)
	t.busy.Wait()
}

// shelf keeps sessions by their ids and by the time they have rested.
type shelf struct {
	byID  map[string]*list.Element // of *session
	order *list.List               // the latest in front
}

func newShelf() shelf { return shelf{byID: map[string]*list.Element{}, order: list.New()} }

// put keeps s and returns another of the same id that was there.
func (h *shelf) put(s *session) (other *session) {
	other = h.take(s.id)
	h.byID[s.id] = h.order.PushFront(s)
	return other
}

func (h *shelf) take(id string) *session { return h.remove(h.byID[id]) }

func (h *shelf) oldest() *session { return h.remove(h.order.Back()) }

// old removes those that have not been used since before.
func (h *shelf) old(before time.Time) (all []*session) {
	for e := h.order.Back(); e != nil && !e.Value.(*session).rested.After(before); e = h.order.Back() {
		all = append(all, h.remove(e))
	}
	return all
}

func (h *shelf) remove(e *list.Element) *session {
	if e == nil {
		return nil
	}
	s := h.order.Remove(e).(*session)
	delete(h.byID, s.id)
	return s
}
