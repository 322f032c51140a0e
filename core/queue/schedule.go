package queue

import (
	"container/heap"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// live is a message that is in memory because its round is under way.
type live struct {
	item *item
	tag  uint64 // when its next delivery is due, in recipients served
	open int    // jobs and deliveries that have not ended

	m       *Message // recipients are settled by who holds q.mu
	owed    []record // what is not in the envelope file yet
	waiting int      // recipients counted in q.recipients

	dropped bool         // a person has dropped it
	held    *string      // or held, or released it
	reroute **mail.Route // or chosen a way
	broken  error        // its handling panicked
}

// Bounds of what waits in memory for one destination: beyond many, messages are
// put back, and fetched when only few are left.
const (
	many = 2000
	few  = 500
)

// run starts the rounds of messages whose time has come.
func (q *Queue) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	loaders := make(chan struct{}, 4)
	for {
		l, wait := q.next()
		if l == nil {
			if wait < 0 {
				return
			}
			timer.Reset(wait)
			select {
			case <-q.wake:
			case <-timer.C:
			}
			continue
		}
		loaders <- struct{}{}
		q.group.Go(func() {
			defer func() { <-loaders }()
			q.load(l)
		})
	}
}

// idle is how long run sleeps when nothing is due; it is woken before.
const idle = time.Hour

// next takes the item whose time has come out of the due heap, or says how long
// to wait for it; a negative time says that the queue is closing.
func (q *Queue) next() (*live, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return nil, -1
	}
	if len(q.due) == 0 || !q.roomFor(1) {
		return nil, idle
	}
	it := q.due[0]
	if wait := time.Until(time.Unix(0, it.next)); wait > 0 {
		return nil, min(wait, idle)
	}
	heap.Pop(&q.due)
	return q.lift(it), 0
}

// roomFor reports whether another message with n recipients may be in memory.
func (q *Queue) roomFor(n int) bool {
	return q.messages == 0 || q.messages < q.o.Messages && q.recipients+n <= q.o.Recipients
}

// lift makes a place in memory for a message.
func (q *Queue) lift(it *item) *live {
	l := &live{item: it, open: 1}
	it.state, it.live = active, l
	q.messages++
	return l
}

// load begins a later round of a message.
func (q *Queue) load(l *live) {
	id := l.item.id
	m, err := q.spool.read(id)
	if err == nil {
		m.Tries++
		m.open = true
		m.records++
		err = q.spool.note(id, record{Attempt: &attemptRecord{At: time.Now(), Tries: m.Tries}})
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case err != nil && errIsDisk(err): // perhaps there is room again later
		q.log.Error("message cannot be tried now", "id", id, "err", err)
		q.unload(l)
		q.later(l.item, time.Now().Add(q.o.Schedule.Min).UnixNano())
	case err != nil:
		q.setAside(l.item, err)
		q.unload(l)
	default:
		q.begin(l, m)
	}
}

// begin starts a message's round. The caller holds q.mu.
func (q *Queue) begin(l *live, m *Message) {
	l.m, l.waiting = m, m.Waiting()
	q.recipients += l.waiting
	q.group.Go(func() { q.sort(l) })
}

// share is what makes recipients of a message one job.
type share struct {
	route mail.Route
	from  mail.Path
	head  string
}

// sort gives every waiting recipient its route and queues the jobs.
func (q *Queue) sort(l *live) {
	m := l.m
	shares := map[share][]int{}
	var order []share
	settled := map[int]mail.Outcome{}
	q.safely(l, "route", func() {
		for i := range m.Rcpts {
			r := &m.Rcpts[i]
			if r.State != Waiting {
				continue
			}
			route, o := q.way(m, r)
			if o != nil {
				settled[i] = *o
				continue
			}
			s := share{route, r.From, r.Head}
			if _, ok := shares[s]; !ok {
				order = append(order, s)
			}
			shares[s] = append(shares[s], i)
		}
	})
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if l.broken != nil {
		q.ended(l)
		return
	}
	if len(settled) == 0 && q.park(l, order) {
		return
	}
	l.settle(settled, now)
	l.tag = max(l.tag, q.turn)
	for _, s := range order {
		q.enqueue(l, s, shares[s], now)
	}
	q.ended(l)
	q.dispatch()
}

// way is where a recipient's mail goes.
func (q *Queue) way(m *Message, r *Recipient) (mail.Route, *mail.Outcome) {
	if r.Route != nil {
		w := *r.Route
		if w.Hop == "" && w.Transport == ByDomain {
			w.Hop = mail.DomainKey(r.To.Domain())
		}
		return w, nil
	}
	return q.o.Route(q.ctx, m, r)
}

// ByDomain is the transport whose next hop is a recipient's domain, where a person has
// named no other.
const ByDomain = "smtp"

// Held is the transport of a route that keeps the message until it is released; its
// hop says why.
const Held = "hold"

// enqueue queues a job for its destination, or defers it at once if that is dead.
func (q *Queue) enqueue(l *live, s share, rcpts []int, now time.Time) {
	if s.route.Transport == Held {
		reason := s.route.Hop
		l.held = &reason
		return
	}
	ln := q.lanes[s.route.Transport]
	if ln == nil {
		l.settleAll(rcpts, mail.Outcome{Status: mail.Status{Code: 451, Enhanced: "4.3.5", Text: "there is no transport " + s.route.Transport}}, now)
		return
	}
	d := q.places[s.route]
	if d == nil {
		var limits Limits
		if q.o.Limits != nil {
			limits = q.o.Limits(s.route)
		}
		q.forget(now)
		d = newDestination(s.route, limits)
		q.places[s.route] = d
	}
	if d.dead {
		if now.Before(d.until) {
			l.settleAll(rcpts, d.suspended(), now)
			return
		}
		d.dead = false
	}
	heap.Push(&d.jobs, &job{live: l, dest: d, rcpts: rcpts, tag: l.tag})
	l.tag += uint64(min(len(rcpts), d.limits.Recipients))
	l.open++
	ln.ready.settle(d, now)
}

// suspended is the outcome of those who wait for a dead destination.
func (d *destination) suspended() mail.Outcome {
	o := d.why
	o.Status.Text = "delivery temporarily suspended: " + o.Status.Text
	return o
}

// settleAll gives recipients the same outcome without an attempt.
func (l *live) settleAll(rcpts []int, o mail.Outcome, now time.Time) {
	all := make(map[int]mail.Outcome, len(rcpts))
	for _, i := range rcpts {
		all[i] = o
	}
	l.settle(all, now)
}

// settle notes outcomes. They go to disk when the round ends.
func (l *live) settle(outcomes map[int]mail.Outcome, now time.Time) {
	if len(outcomes) == 0 {
		return
	}
	for i, o := range outcomes {
		l.m.Rcpts[i].settle(o, now)
	}
	l.owed = append(l.owed, resultsOf(outcomes, now)...)
}

// park puts a message back if all it wants are destinations that have enough to
// do, and reports whether it did.
func (q *Queue) park(l *live, order []share) bool {
	if len(order) == 0 {
		return false
	}
	var last *destination
	for _, s := range order {
		d := q.places[s.route]
		if d == nil || len(d.jobs) < many {
			return false
		}
		last = d
	}
	q.unload(l)
	l.item.state = parked
	last.parked = append(last.parked, l.item)
	return true
}

// unload takes a message out of memory.
func (q *Queue) unload(l *live) {
	q.messages--
	q.recipients -= l.waiting
	l.item.live = nil
}

// unpark makes parked messages due when a destination has little left to do.
func (q *Queue) unpark(d *destination) {
	if len(d.parked) == 0 || len(d.jobs) > few && !d.dead {
		return
	}
	n := min(len(d.parked), many-few)
	now := time.Now().UnixNano()
	for _, it := range d.parked[:n] {
		if it.state == parked { // nobody has held or dropped it
			q.later(it, now)
		}
	}
	d.parked = append(d.parked[:0:0], d.parked[n:]...)
}

// dispatch starts as many deliveries as may run. The caller holds q.mu.
func (q *Queue) dispatch() {
	for !q.closing && q.running < q.o.Concurrent {
		var best *lane
		for _, ln := range q.lanes {
			if len(ln.ready) == 0 || ln.running >= ln.most {
				continue
			}
			if best == nil || ln.ready[0].jobs[0].tag < best.ready[0].jobs[0].tag {
				best = ln
			}
		}
		if best == nil {
			return
		}
		q.launch(best, best.ready[0])
	}
}

// launch starts the delivery whose turn it is at a destination.
func (q *Queue) launch(ln *lane, d *destination) {
	now := time.Now()
	j := d.jobs[0]
	n := min(len(j.rcpts), d.limits.Recipients)
	rcpts := j.rcpts[:n:n]
	j.rcpts = j.rcpts[n:]
	q.turn = max(q.turn, j.tag)
	j.live.open++
	if len(j.rcpts) == 0 {
		heap.Pop(&d.jobs)
		j.live.open--
	} else {
		j.live.tag = max(j.live.tag, q.turn) + uint64(n)
		j.tag = j.live.tag
		heap.Fix(&d.jobs, 0)
	}
	d.running++
	ln.running++
	q.running++
	if d.limits.Interval > 0 {
		d.until = now.Add(d.limits.Interval)
		time.AfterFunc(d.limits.Interval, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			ln.ready.settle(d, time.Now())
			q.dispatch()
		})
	}
	ln.ready.settle(d, now)
	q.unpark(d)
	q.group.Go(func() { q.attempt(ln, d, j.live, rcpts) })
}

// kill defers everything that waits for a destination which has died.
func (q *Queue) kill(ln *lane, d *destination, now time.Time) {
	q.log.Warn("destination suspended", "transport", d.route.Transport, "hop", d.route.Hop, "until", d.until, "err", d.why.Status.Text)
	waiting := d.jobs
	d.jobs = nil
	ln.ready.settle(d, now)
	for _, j := range waiting {
		j.live.settleAll(j.rcpts, d.suspended(), now)
		q.ended(j.live)
	}
	q.unpark(d)
}

// places above which those are forgotten that have nothing to do.
const maxPlaces = 5000

// forget makes room for a new destination.
func (q *Queue) forget(now time.Time) {
	if len(q.places) < maxPlaces {
		return
	}
	for r, d := range q.places {
		if len(d.jobs)+len(d.parked)+d.running == 0 && !now.Before(d.until) {
			delete(q.places, r)
		}
	}
}
