package queue

import (
	"fmt"
	"time"

	"github.com/wafermail/wafer/core/bounce"
	"github.com/wafermail/wafer/core/mail"
)

// Notices say what senders are told.
type Notices struct {
	// Postmaster is told of notices that could not be delivered; null: nobody is.
	Postmaster mail.Path
	Excerpt    int64 // octets of the message that a notice returns, 0: 50,000
	// Review may change what becomes of a notice before it is sent: returning false
	// keeps it back. nil: all are sent.
	Review func(m *Message, kind bounce.Kind, failed []Recipient) bool
}

// notice is one that is due: of one kind, about some recipients.
type notice struct {
	kind  bounce.Kind
	to    mail.Path
	rcpts []int
}

// notices are those that a message owes at the end of a round. Nobody is told of
// what becomes of a message with the null reverse-path (RFC 5321 §4.5.5), but the
// postmaster of its failure.
func (q *Queue) notices(m *Message) (due []notice) {
	byKind := map[bounce.Kind]*notice{}
	add := func(k bounce.Kind, to mail.Path, i int) {
		n := byKind[k]
		if n == nil {
			n = &notice{kind: k, to: to}
			byKind[k] = n
		}
		n.rcpts = append(n.rcpts, i)
	}
	sender := m.Envelope.From
	for i := range m.Rcpts {
		r := &m.Rcpts[i]
		switch {
		case r.told:
		case r.State == Failed && sender.IsNull():
			if !m.Double && !q.o.Notices.Postmaster.IsNull() {
				add(bounce.Double, q.o.Notices.Postmaster, i)
			}
		case r.State == Failed && bounce.Wanted(r.Recipient, bounce.Failed):
			add(bounce.Failed, sender, i)
		case r.State == Sent && !sender.IsNull() && !r.Outcome.Notifies && bounce.Wanted(r.Recipient, bounce.Delivered):
			if r.Outcome.Remote == "" {
				add(bounce.Delivered, sender, i)
			} else {
				add(bounce.Relayed, sender, i)
			}
		}
	}
	for _, k := range []bounce.Kind{bounce.Failed, bounce.Double, bounce.Delivered, bounce.Relayed} {
		if n := byKind[k]; n != nil {
			due = append(due, *n)
		}
	}
	if n := q.delayed(m); n != nil {
		due = append(due, *n)
	}
	return due
}

// delayed is the notice about a delay, once.
func (q *Queue) delayed(m *Message) *notice {
	s := q.o.Schedule
	if m.Warned || s.Delay < 0 || m.Envelope.From.IsNull() || time.Since(m.Envelope.Received) < s.Delay {
		return nil
	}
	n := &notice{kind: bounce.Delayed, to: m.Envelope.From}
	for i := range m.Rcpts {
		if r := &m.Rcpts[i]; r.State == Waiting && bounce.Wanted(r.Recipient, bounce.Delayed) {
			n.rcpts = append(n.rcpts, i)
		}
	}
	if len(n.rcpts) == 0 {
		return nil
	}
	return n
}

// notify queues what is due, and notes that it has.
func (q *Queue) notify(m *Message, due []notice, now time.Time) error {
	var failures bool
	for _, n := range due {
		if err := q.send(m, n, now); err != nil {
			return fmt.Errorf("%v: %w", n.kind, err)
		}
		r := record{Told: &toldRecord{At: now, Delay: n.kind == bounce.Delayed}}
		failures = failures || !r.Told.Delay
		if r.Told.Delay {
			m.apply(&r)
			if err := q.spool.note(m.Envelope.ID, r); err != nil {
				return err
			}
			m.records++
		}
	}
	if !failures {
		return nil
	}
	r := record{Told: &toldRecord{At: now}}
	m.apply(&r)
	m.records++
	if m.Waiting() == 0 { // it is about to go
		return nil
	}
	return q.spool.note(m.Envelope.ID, r)
}

// send composes a notice and queues it.
func (q *Queue) send(m *Message, n notice, now time.Time) error {
	var about []bounce.Recipient
	var whole []Recipient
	until := m.Envelope.Received.Add(q.o.Schedule.lifetime(m))
	for _, i := range n.rcpts {
		r := &m.Rcpts[i]
		rcpt := r.Recipient
		rcpt.To = r.Address()
		b := bounce.Recipient{Recipient: rcpt, Final: r.To, Outcome: r.Outcome, LastAttempt: r.At}
		if n.kind == bounce.Delayed {
			b.WillRetryUntil = until
		}
		about, whole = append(about, b), append(whole, *r)
	}
	if q.o.Notices.Review != nil && !q.o.Notices.Review(m, n.kind, whole) {
		q.log.Info("notice kept back by the policy", "id", m.Envelope.ID, "kind", n.kind.String())
		return nil
	}
	_, body, err := q.Show(m.Envelope.ID)
	if err != nil {
		return err
	}
	defer body.Close() // only read
	id := mail.NewID(now)
	d := q.Begin(id)
	defer d.Close()
	env, err := bounce.Compose(d, bounce.Notice{
		Kind: n.kind, ReportingMTA: q.o.Hostname, ID: m.Envelope.ID, Envelope: &m.Envelope, Arrival: m.Envelope.Received, Recipients: about,
		Head: m.Head, Original: body, Size: m.Size, Now: now, NewID: id, Postmaster: q.o.Notices.Postmaster, Excerpt: q.o.Notices.Excerpt,
	})
	if err != nil {
		return err
	}
	env.ID, env.Received = id, now
	notice := &Message{Envelope: env, Double: n.kind == bounce.Double}
	for _, r := range env.Rcpts {
		notice.Rcpts = append(notice.Rcpts, Recipient{Recipient: r})
	}
	if err := d.Commit(notice); err != nil {
		return err
	}
	q.tally.notices.Add(1)
	q.log.Info("notice queued", "id", m.Envelope.ID, "notice", id, "kind", n.kind.String(), "rcpt", n.to.String(), "recipients", len(about))
	return nil
}
