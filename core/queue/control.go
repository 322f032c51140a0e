package queue

import (
	"container/heap"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Filter chooses messages: those that meet every field that is set. The zero value
// chooses all.
type Filter struct {
	IDs         []mail.ID
	Destination string        // domain of a waiting recipient, or hop of its route
	Sender      string        // address, or "@domain", or "<>"
	Recipient   string        // address or "@domain" of a waiting recipient
	Reason      string        // part of the last reply, in any case
	Older       time.Duration // at least that old
	Younger     time.Duration // at most that old
	Held        bool          // only what is held
	Deferred    bool          // only what is neither held nor being tried
}

// Entry is a message in a list.
type Entry struct {
	*Message
	Name string    // of the part of the queue: "active", "deferred", "hold"
	Next time.Time // of the next round; zero if it is held or active
}

// match reports whether the filter chooses the entry.
func (f *Filter) match(e *Entry, now time.Time) bool {
	age := now.Sub(e.Envelope.Received)
	switch {
	case len(f.IDs) > 0 && !slices.Contains(f.IDs, e.Envelope.ID),
		f.Held && e.Name != "hold", f.Deferred && e.Name != "deferred",
		f.Older > 0 && age < f.Older, f.Younger > 0 && age > f.Younger,
		f.Sender != "" && !addressIs(e.Envelope.From, f.Sender):
		return false
	}
	if f.Destination == "" && f.Recipient == "" && f.Reason == "" {
		return true
	}
	reason := strings.ToLower(f.Reason)
	for i := range e.Rcpts {
		r := &e.Rcpts[i]
		if r.State != Waiting {
			continue
		}
		hop := r.Route != nil && strings.EqualFold(r.Route.Hop, f.Destination)
		if (f.Destination == "" || hop || mail.DomainKey(r.To.Domain()) == mail.DomainKey(f.Destination)) &&
			(f.Recipient == "" || addressIs(r.To, f.Recipient) || addressIs(r.Address(), f.Recipient)) &&
			(reason == "" || strings.Contains(strings.ToLower(r.Outcome.Status.Text), reason) || strings.Contains(strings.ToLower(e.Hold), reason)) {
			return true
		}
	}
	return false
}

// addressIs reports whether p is the address, or of the "@domain", or null for "<>".
func addressIs(p mail.Path, want string) bool {
	switch {
	case want == "<>":
		return p.IsNull()
	case want != "" && want[0] == '@':
		return mail.DomainKey(p.Domain()) == mail.DomainKey(want[1:])
	}
	w, err := parsePath(want)
	return err == nil && !p.IsNull() && p.Key() == w.Key()
}

// errGone says that a message has left the queue.
var errGone = errors.New("no such message in the queue")

// List calls f with every message that the filter chooses, the oldest first, until
// f returns an error, which it returns.
func (q *Queue) List(ctx context.Context, f Filter, each func(Entry) error) error {
	type ref struct {
		id      mail.ID
		arrived int64
	}
	var refs []ref
	now := time.Now()
	q.mu.Lock()
	for _, it := range q.items {
		age := now.Sub(time.Unix(0, it.arrived))
		if f.Older > 0 && age < f.Older || f.Younger > 0 && age > f.Younger || f.Held && it.state != held ||
			len(f.IDs) > 0 && !slices.Contains(f.IDs, it.id) {
			continue
		}
		refs = append(refs, ref{it.id, it.arrived})
	}
	q.mu.Unlock()
	slices.SortFunc(refs, func(a, b ref) int {
		if a.arrived != b.arrived {
			return int(min(max(a.arrived-b.arrived, -1), 1))
		}
		return strings.Compare(string(a.id), string(b.id))
	})
	for _, r := range refs {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := q.entry(r.id)
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			q.log.Warn("a message cannot be listed", "id", r.id, "err", err)
			continue
		}
		if !f.match(e, now) {
			continue
		}
		if err := each(*e); err != nil {
			return err
		}
	}
	return nil
}

// entry is one message as it stands on disk, which is as it stood when its round
// began if that is under way.
func (q *Queue) entry(id mail.ID) (*Entry, error) {
	q.mu.Lock()
	it := q.items[id]
	e := &Entry{}
	if it != nil {
		switch it.state {
		case active:
			e.Name = "active"
		case held:
			e.Name = "hold"
		default:
			e.Name, e.Next = "deferred", time.Unix(0, it.next)
		}
	}
	q.mu.Unlock()
	if it == nil {
		return nil, errGone
	}
	m, _, err := readEnvelope(q.spool.path(id, envelopeSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errGone
	}
	e.Message = m
	return e, err
}

// Show is one message with its body as it was received, which the caller closes.
// Error: one that says that there is none.
func (q *Queue) Show(id mail.ID) (*Entry, io.ReadCloser, error) {
	e, err := q.entry(id)
	if err != nil {
		return nil, nil, err
	}
	f, err := os.Open(q.spool.path(id, bodySuffix))
	if errors.Is(err, fs.ErrNotExist) {
		err = errGone
	}
	if err != nil {
		return nil, nil, err
	}
	return e, f, nil
}

// Flush tries the filter's messages at once, but those that are held. A
// destination that is suspended gets another chance. It returns their ids; with
// dry nothing is done. So do the other verbs.
func (q *Queue) Flush(ctx context.Context, f Filter, dry bool) ([]mail.ID, error) {
	return q.change(ctx, f, dry, func(it *item, m *Message) error {
		if it.state == deferred || it.state == parked {
			for _, d := range q.places {
				if d.dead && q.heads(m, d) {
					d.dead, d.until = false, time.Time{}
				}
			}
			q.later(it, time.Now().UnixNano())
		}
		return nil
	}, func(e *Entry) bool { return e.Name == "deferred" })
}

// heads reports whether a waiting recipient of m may be on its way to d: by its
// domain, or because its way is not by domain.
func (q *Queue) heads(m *Message, d *destination) bool {
	for i := range m.Rcpts {
		r := &m.Rcpts[i]
		if r.State == Waiting && (mail.DomainKey(r.To.Domain()) == d.route.Hop || r.Outcome.Status.Text != "" && strings.HasSuffix(r.Outcome.Status.Text, d.why.Status.Text)) {
			return true
		}
	}
	return false
}

// Hold keeps messages back until they are released.
func (q *Queue) Hold(ctx context.Context, f Filter, reason string, dry bool) ([]mail.ID, error) {
	if reason == "" {
		reason = "held by the operator"
	}
	return q.change(ctx, f, dry, func(it *item, m *Message) error {
		if it.live != nil {
			it.live.held = &reason
			return nil
		}
		if err := q.spool.note(it.id, record{Hold: &holdRecord{At: time.Now(), Reason: reason}}); err != nil {
			return err
		}
		q.withdraw(it)
		it.state = held
		return nil
	}, func(e *Entry) bool { return e.Hold == "" })
}

// Release lets held messages go, at once.
func (q *Queue) Release(ctx context.Context, f Filter, dry bool) ([]mail.ID, error) {
	return q.change(ctx, f, dry, func(it *item, m *Message) error {
		if it.live != nil {
			none := ""
			it.live.held = &none
			return nil
		}
		if err := q.spool.note(it.id, record{Hold: &holdRecord{At: time.Now()}}); err != nil {
			return err
		}
		q.later(it, time.Now().UnixNano())
		return nil
	}, func(e *Entry) bool { return e.Hold != "" })
}

// Drop removes messages for good. Nobody is told.
func (q *Queue) Drop(ctx context.Context, f Filter, dry bool) ([]mail.ID, error) {
	return q.change(ctx, f, dry, func(it *item, m *Message) error {
		q.log.Warn("dropped by the operator", "id", it.id, "from", m.Envelope.From.String())
		if it.live != nil {
			it.live.dropped = true
			return nil
		}
		q.withdraw(it)
		delete(q.items, it.id)
		return q.spool.remove(it.id)
	}, nil)
}

// Reroute sends what waits by another route; nil lets the configuration choose
// again. It is tried at once unless it is held.
func (q *Queue) Reroute(ctx context.Context, f Filter, r *mail.Route, dry bool) ([]mail.ID, error) {
	if r != nil && q.o.Transports[r.Transport] == nil {
		return nil, errors.New("there is no transport " + r.Transport)
	}
	return q.change(ctx, f, dry, func(it *item, m *Message) error {
		if it.live != nil {
			it.live.reroute = &r
			return nil
		}
		if err := q.spool.note(it.id, record{Reroute: &rerouteRecord{At: time.Now(), Route: r}}); err != nil {
			return err
		}
		if it.state != held {
			q.later(it, time.Now().UnixNano())
		}
		return nil
	}, nil)
}

// withdraw takes an item out of the due heap.
func (q *Queue) withdraw(it *item) {
	if it.at >= 0 {
		heap.Remove(&q.due, int(it.at))
	}
}

// change does something to every message that the filter chooses and that is fit
// for it, and returns their ids.
func (q *Queue) change(ctx context.Context, f Filter, dry bool, do func(*item, *Message) error, fit func(*Entry) bool) (ids []mail.ID, err error) {
	err = q.List(ctx, f, func(e Entry) error {
		if fit != nil && !fit(&e) {
			return nil
		}
		id := e.Envelope.ID
		if dry {
			ids = append(ids, id)
			return nil
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		it := q.items[id]
		if it == nil {
			return nil // it has just left
		}
		if err := do(it, e.Message); err != nil {
			return err
		}
		ids = append(ids, id)
		return nil
	})
	return ids, err
}
