package policy

import (
	"context"
	"sync"

	"github.com/wafermail/wafer/core/mail"
)

// maxCompany bounds the moments of one session that wait for its companion.
const maxCompany = 100

// companion is a whole version of the policies that watches a session: it is asked what
// the session was asked, in the same order, once the peer has the answers, and what it
// says is only recorded.
type companion struct {
	walk *Session

	mu      sync.Mutex
	waiting []moment
	busy    bool // one worker is at it, for the order's sake
}

// moment is one Ask of the session.
type moment struct {
	ev Event
	id mail.ID // of the session's decision
}

// Watch lets the policies of another set, whose Shadow is that of s, watch the session.
func (s *Session) Watch(set *Set) {
	if set == nil || s.set == nil || s.set.o.Shadow == nil {
		return
	}
	w := set.Session(s.door)
	w.inline = true
	s.company = &companion{walk: w}
}

// accompany notes a moment for the companion.
func (s *Session) accompany(ev *Event) {
	if !s.company.walk.Active(ev.Stage) {
		return
	}
	m := moment{ev: *ev, id: s.decision(ev)}
	m.ev.Rcpts = append([]mail.Path(nil), ev.Rcpts...)
	if ev.Content != nil {
		m.ev.Content = keep(ev.Content)
	}
	s.moments = append(s.moments, m)
}

// tell hands over what the companion has to be asked.
func (c *companion) tell(moments []moment, shadow *Shadow) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if room := maxCompany - len(c.waiting); len(moments) > room {
		shadow.dropped.Add(uint64(len(moments) - max(room, 0)))
		moments = moments[:max(room, 0)]
	}
	c.waiting = append(c.waiting, moments...)
	if c.busy || len(c.waiting) == 0 {
		return
	}
	set := c.walk.set
	set.shadows.Add(1)
	select {
	case shadow.queue <- c:
		c.busy = true
	default:
		set.shadows.Done()
		shadow.dropped.Add(uint64(len(c.waiting)))
		c.waiting = nil
	}
}

// ask asks what waits, until nothing does.
func (c *companion) ask() {
	defer c.walk.set.shadows.Done()
	for {
		c.mu.Lock()
		if len(c.waiting) == 0 {
			c.busy = false
			c.mu.Unlock()
			return
		}
		m := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.mu.Unlock()
		c.walk.named = m.id
		c.walk.Ask(context.Background(), &m.ev)
	}
}
