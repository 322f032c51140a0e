package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// errIsDisk reports whether err says something about the disk rather than about a
// message.
func errIsDisk(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.EIO, syscall.EROFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// attempt brings a message to some of its recipients.
func (q *Queue) attempt(ln *lane, d *destination, l *live, rcpts []int) {
	began := time.Now()
	var report mail.Report
	if q.wanted(l) { // nobody has held or dropped it meanwhile
		q.safely(l, "deliver", func() { report = q.deliver(ln, d, l.m, rcpts) })
	}
	now := time.Now()
	outcomes := make(map[int]mail.Outcome, len(rcpts))
	for k, i := range rcpts {
		if k < len(report.Outcomes) {
			outcomes[i] = report.Outcomes[k]
			q.tell(l.m, &l.m.Rcpts[i], d.route, outcomes[i], now.Sub(began))
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	d.running--
	ln.running--
	q.running--
	l.settle(outcomes, now)
	switch {
	case len(report.Outcomes) == 0 || q.ctx.Err() != nil: // it says nothing about the destination
	case d.feedback(!report.Unreachable, report.Outcomes[0], now, q.o.Schedule.Min):
		q.kill(ln, d, now)
	}
	ln.ready.settle(d, now)
	q.ended(l)
	q.dispatch()
}

// wanted reports whether nobody has stopped the message.
func (q *Queue) wanted(l *live) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !l.dropped && (l.held == nil || *l.held == "")
}

// deliver makes the attempt itself.
func (q *Queue) deliver(ln *lane, d *destination, m *Message, rcpts []int) mail.Report {
	all := func(code int, enhanced, text string) mail.Report {
		r := mail.Report{Outcomes: make([]mail.Outcome, len(rcpts))}
		for i := range r.Outcomes {
			r.Outcomes[i].Status = mail.Status{Code: code, Enhanced: enhanced, Text: text}
		}
		return r
	}
	f, err := os.Open(q.spool.path(m.Envelope.ID, bodySuffix))
	if err != nil {
		q.log.Error("body cannot be opened", "id", m.Envelope.ID, "err", err)
		return all(451, "4.3.0", "the message cannot be read now")
	}
	defer f.Close() // only read
	env := m.Envelope
	first := &m.Rcpts[rcpts[0]]
	env.From = first.From
	env.Rcpts = make([]mail.Recipient, len(rcpts))
	for k, i := range rcpts {
		env.Rcpts[k] = m.Rcpts[i].Recipient
	}
	head := m.Head
	if first.Head != "" {
		head = append([]byte(first.Head), head...)
	}
	del := &mail.Delivery{Envelope: &env, Head: head, Body: f, Size: m.Size, EightBit: m.EightBit, Route: d.route}
	report := ln.transport.Deliver(q.ctx, del)
	if len(report.Outcomes) != len(rcpts) {
		q.log.Error("a transport did not account for every recipient", "transport", d.route.Transport, "id", m.Envelope.ID)
		return all(451, "4.3.0", "internal error")
	}
	return report
}

// tell logs one delivery attempt.
func (q *Queue) tell(m *Message, r *Recipient, route mail.Route, o mail.Outcome, dur time.Duration) {
	result := "deferred"
	switch {
	case o.Status.OK():
		result = "sent"
		q.tally.sent.Add(1)
	case o.Status.Permanent():
		result = "failed"
		q.tally.failed.Add(1)
	default:
		q.tally.deferred.Add(1)
	}
	q.log.Info(result, "id", m.Envelope.ID, "from", r.From.String(), "rcpt", r.To.String(), "transport", route.Transport, "hop", route.Hop,
		"remote", o.Remote, "status", fmt.Sprintf("%d %s", o.Status.Code, o.Status.Enhanced), "text", o.Status.Text,
		"delay", time.Since(m.Envelope.Received), "dur", dur)
}

// safely calls f. If it panics, the message is set aside when its round ends, and
// the next one is not harmed.
func (q *Queue) safely(l *live, doing string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			q.tally.panics.Add(1)
			q.log.Error("panic", "id", l.item.id, "doing", doing, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			q.mu.Lock()
			defer q.mu.Unlock()
			l.broken = fmt.Errorf("panic: %v", p)
		}
	}()
	f()
}

// setAside takes an item out of the queue, and its files out of the way. The
// caller holds q.mu.
func (q *Queue) setAside(it *item, why error) {
	q.tally.aside.Add(1)
	delete(q.items, it.id)
	if !errors.Is(why, fs.ErrNotExist) {
		q.spool.aside(it.id, why)
	}
}

// ended counts down what is under way for a message, and ends its round with the
// last of it. The caller holds q.mu.
func (q *Queue) ended(l *live) {
	if l.open--; l.open == 0 && q.items[l.item.id] == l.item {
		q.group.Go(func() { q.finish(l) })
	}
}

// finish ends a round: it writes down what happened, returns what failed, and
// removes the message or waits for its next round. Nobody else touches it.
func (q *Queue) finish(l *live) {
	m, now := l.m, time.Now()
	q.mu.Lock()
	dropped, hold, reroute, rs, broken := l.dropped, l.held, l.reroute, l.owed, l.broken
	q.mu.Unlock()
	switch {
	case dropped:
		q.done(l)
		return
	case broken != nil:
		q.putAside(l, broken)
		return
	}
	m.Tried, m.open = now, false
	age := now.Sub(m.Envelope.Received)
	if wait := m.Waiting(); wait > 0 && age >= q.o.Schedule.lifetime(m) && q.ctx.Err() == nil {
		rs = append(rs, q.expire(m, now))
	}
	if reroute != nil {
		rs = append(rs, record{Reroute: &rerouteRecord{At: now, Route: *reroute}})
		m.apply(&rs[len(rs)-1])
	}
	if hold != nil {
		rs = append(rs, record{Hold: &holdRecord{At: now, Reason: *hold}})
		m.Hold = *hold
	}
	due := q.notices(m)
	if m.Waiting() == 0 && len(due) == 0 {
		q.done(l)
		return
	}
	if len(rs) == 0 { // the end of the announced round
		rs = append(rs, record{Result: &resultRecord{At: now}})
	}
	if err := q.spool.note(l.item.id, rs...); err != nil {
		q.log.Error("what happened to a message could not be written down", "id", l.item.id, "err", err)
	}
	m.records += len(rs)
	var err error
	q.safely(l, "notify", func() { err = q.notify(m, due, now) })
	if l.broken != nil {
		q.putAside(l, l.broken)
		return
	}
	if err != nil {
		q.log.Error("a notice could not be queued", "id", l.item.id, "err", err)
		q.again(l, now.Add(q.o.Schedule.Min))
		return
	}
	if m.Waiting() == 0 {
		q.done(l)
		return
	}
	if m.records > 64+4*len(m.Rcpts) {
		if err := q.spool.rewrite(m); err != nil {
			q.log.Error("envelope stays long", "id", l.item.id, "err", err)
		}
	}
	q.again(l, q.nextAfter(m, now))
}

func (q *Queue) putAside(l *live, why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.setAside(l.item, why)
	q.unload(l)
	q.rouse()
}

// expire gives up the recipients that still wait.
func (q *Queue) expire(m *Message, now time.Time) record {
	r := record{Result: &resultRecord{At: now, Expired: true}}
	for i := range m.Rcpts {
		if m.Rcpts[i].State == Waiting {
			m.Rcpts[i].expire()
			r.Result.Rcpts.add(i)
			q.tally.expired.Add(1)
			q.log.Info("expired", "id", m.Envelope.ID, "from", m.Envelope.From.String(), "rcpt", m.Rcpts[i].To.String())
		}
	}
	return r
}

// again waits for the next round.
func (q *Queue) again(l *live, next time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unload(l)
	switch {
	case l.m.Hold != "":
		l.item.state = held
	default:
		q.later(l.item, next.UnixNano())
	}
	q.rouse() // there is room
}

// done forgets a message.
func (q *Queue) done(l *live) {
	if err := q.spool.remove(l.item.id); err != nil {
		q.log.Error("a message that is done could not be removed", "id", l.item.id, "err", err)
	}
	q.log.Info("removed", "id", l.item.id)
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.items, l.item.id)
	q.unload(l)
	if len(q.due) > 0 {
		q.rouse()
	}
}
