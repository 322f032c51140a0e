package policy

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Decision is the answer to one Ask: everything that the door needs to go on.
type Decision struct {
	// Action is Next or Accept (go on); Reject, Defer or Disconnect (refuse with
	// Status); or Discard, Hold or Quarantine: at Rcpt the fate of that
	// recipient's copy, at the other stages of the message's.
	Action  Action
	Status  mail.Status // of a refusal: complete
	Hangup  bool        // close after the reply
	Effects Effects     // what this Ask has added
	Check   string      // "policy/check" that decided, "" if none did
	Reason  string      // its label
	ID      mail.ID     // of the decision; at the end of a refusal's text; "" if nothing was decided or recorded

	replyAt Stage   // of the check that decided
	exempt  *Exempt // of its policy: who is exempt by the time it would be given is spared
}

// Refused reports whether the door has to refuse.
func (d Decision) Refused() bool { return d.Action.Refuses() }

// Session is one connection's walk through the policies of its door. One
// goroutine uses it.
//
// It keeps what Postfix's rules need. A refusal from before its reply_at stage
// is held back and given at that stage and each later one, until what caused it
// is replaced (a new HELO, a new MAIL). It is not given to a client that has
// become exempt in the meantime, by logging in. defer_if_permit and
// defer_if_reject keep their first reason: what connect and helo set lasts for
// the connection, what mail set for the transaction, what rcpt set for that
// recipient.
type Session struct {
	set  *Set
	plan *plan // nil: nothing to ask
	host liveHost
	id   mail.ID // of the Ask under way, "" until something needs it

	held   byStage
	permit byStage // defer_if_permit
	reject byStage // defer_if_reject
}

// byStage holds refusals that have not been given yet, by the stage that made them.
type byStage [Message + 1]*Decision

// first is the earliest that was made no later than ev's stage and from which
// ev is not exempt.
func (b *byStage) first(ev *Event) *Decision {
	for at := Connect; at <= ev.Stage; at++ {
		if h := b[at]; h != nil && !h.exempt.covers(ev) {
			return h
		}
	}
	return nil
}

// Session begins a walk for a connection at door, such as "mx".
func (s *Set) Session(door string) *Session {
	if s == nil {
		return &Session{}
	}
	return &Session{set: s, plan: s.byDoor[door]}
}

// Active reports whether a check wants stage, or a held refusal may be due at
// it: if not, Ask would return a Decision without objection.
func (s *Session) Active(stage Stage) bool {
	if s.plan == nil {
		return false
	}
	return len(s.plan.lists[stage]) > 0 || stage == Rcpt || s.due(stage, nil) != nil
}

// Reset forgets the transaction: after RSET, EHLO and the end of a message. What
// connect and helo left stays; a new HELO replaces the latter.
func (s *Session) Reset() { s.forget(Mail) }

// forget drops what stage and those after it left.
func (s *Session) forget(stage Stage) {
	for ; stage <= Message; stage++ {
		s.drop(stage)
	}
}

// drop drops what stage left.
func (s *Session) drop(stage Stage) {
	s.held[stage], s.permit[stage], s.reject[stage] = nil, nil, nil
}

// due is the first held refusal whose time has come at stage and from which ev,
// if it is known, is not exempt. None is given after Rcpt: who has got past that
// (mail to the bare postmaster does, RFC 5321 §4.5.1) may go on.
func (s *Session) due(stage Stage, ev *Event) *Decision {
	if stage > Rcpt {
		return nil
	}
	for at := Connect; at < stage; at++ {
		if h := s.held[at]; h != nil && h.replyAt <= stage && (ev == nil || !h.exempt.covers(ev)) {
			return h
		}
	}
	return nil
}

// Ask asks the checks of ev.Stage in order and returns what they decide
// together.
func (s *Session) Ask(ctx context.Context, ev *Event) Decision {
	if s.plan == nil {
		return Decision{}
	}
	stage := ev.Stage
	s.id = ""
	switch stage {
	case Connect, Mail:
		s.forget(stage)
	case Helo, StartTLS:
		// The EHLO that must follow the handshake (RFC 3207 §4.2) takes back
		// nothing that was said about the handshake.
		s.drop(stage)
		s.forget(Mail)
	case Rcpt, Data, Message:
		s.drop(stage)
		if stage > Rcpt { // Postfix clears the flags at DATA and after it
			s.permit, s.reject = byStage{}, byStage{}
		}
	}
	if h := s.due(stage, ev); h != nil {
		s.set.log(ev, *h)
		return *h
	}
	var d Decision
	for _, l := range s.plan.lists[stage] {
		if l.policy.Exempt.covers(ev) {
			continue
		}
		if s.walk(ctx, ev, l, &d) {
			return s.refusal(ev, d)
		}
	}
	if h := s.permit.first(ev); h != nil && stage >= h.replyAt {
		effects := d.Effects
		d = *h
		d.Effects = effects
		s.set.log(ev, d)
		return d
	}
	d.ID = s.id
	return d
}

// decision is the id of the Ask under way.
func (s *Session) decision(ev *Event) mail.ID {
	if s.id == "" {
		s.id = mail.NewID(ev.Time)
	}
	return s.id
}

// refusal is d now, or later if its check's reply_at is still to come.
func (s *Session) refusal(ev *Event, d Decision) Decision {
	if d.replyAt > ev.Stage && ev.Stage != Auth && !s.plan.direct {
		effects := d.Effects
		d.Effects = Effects{}
		s.held[ev.Stage] = &d
		return Decision{Effects: effects, ID: s.id}
	}
	s.set.log(ev, d)
	return d
}

// walk asks one policy's checks at ev's stage and adds what they say to d. It
// returns true if one refuses.
func (s *Session) walk(ctx context.Context, ev *Event, l lane, d *Decision) (refused bool) {
	for _, c := range l.checks {
		v, err := s.call(ctx, c, ev)
		if c.Observe || err != nil && c.OnError == Accept {
			continue
		}
		if err != nil {
			v = Verdict{Action: c.OnError, Status: errorStatus(c.OnError), Reason: "check-error"}
		}
		d.Effects.add(v.Effects)
		switch v.Action {
		case Next:
		case Accept:
			return false
		case Reject, Defer, Disconnect:
			s.refuse(ev, l.policy, c, v, d)
			return true
		case Discard:
			s.decision(ev)
			d.Action, d.Check, d.Reason = Discard, c.label, v.Reason
			return false
		case Hold, Quarantine:
			s.decision(ev)
			if d.Action != Discard && d.Action != Hold {
				d.Action, d.Check, d.Reason = v.Action, c.label, v.Reason
			}
		case DeferIfPermit:
			s.stick(&s.permit, ev, l.policy, c, v)
		case DeferIfReject:
			s.stick(&s.reject, ev, l.policy, c, v)
		}
	}
	return false
}

// refuse makes d the refusal v, or the 4xx that an earlier defer_if_reject asked for.
func (s *Session) refuse(ev *Event, p *Policy, c *Check, v Verdict, d *Decision) {
	c.tally.refused.Add(1)
	if v.Action == Reject {
		if h := s.reject.first(ev); h != nil {
			effects := d.Effects
			*d = *h
			d.Effects = effects
			return
		}
	}
	effects := d.Effects
	*d = s.refusing(ev, p, c, v)
	d.Effects = effects
}

// refusing is the complete refusal that v asks for.
func (s *Session) refusing(ev *Event, p *Policy, c *Check, v Verdict) Decision {
	d := Decision{Action: v.Action, Check: c.label, Reason: v.Reason, ID: s.decision(ev), replyAt: c.ReplyAt, exempt: &p.Exempt}
	d.Status = shape(v.Action, v.Status, d.ID)
	d.Hangup = v.Action == Disconnect || d.Status.Code == 421 || d.Status.Code == 521
	return d
}

// stick sets a flag unless one is set.
func (s *Session) stick(flags *byStage, ev *Event, p *Policy, c *Check, v Verdict) {
	if flags.first(ev) != nil {
		return
	}
	if v.Status.Code == 0 {
		v.Status.Code, v.Status.Enhanced = 450, "4.7.0"
	}
	v.Action = Defer
	h := s.refusing(ev, p, c, v)
	if s.plan.direct {
		h.replyAt = ev.Stage
	}
	flags[ev.Stage] = &h
}

// call asks one plugin, unless the check does not apply to ev. Whatever goes
// wrong is an error, never a verdict; it is counted and logged here.
func (s *Session) call(ctx context.Context, c *Check, ev *Event) (v Verdict, err error) {
	began := time.Now()
	s.host.begin(s.set, c, ev)
	applies := true
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
			if c.panicked.CompareAndSwap(false, true) { // the first says it all
				s.set.o.Logger.Warn("check panicked", "check", c.label, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			}
		}
		if !applies {
			return
		}
		c.tally.asked.Add(1)
		switch {
		case err != nil:
			c.tally.errors.Add(1)
			// A peer's mail may have brought it about, so it is no more than a warning.
			s.set.o.Logger.Warn("check failed", "check", c.label, "where", c.Where, "stage", ev.Stage.String(),
				"session", ev.Session, "on_error", c.OnError.String(), "observe", c.Observe, "err", err)
		case v.Action == Next:
			c.tally.next.Add(1)
		}
		s.record(c, ev, v, err, time.Since(began))
	}()
	if c.When != nil {
		if applies, err = c.When(ev); err != nil {
			applies = true
			return Verdict{}, fmt.Errorf("when: %w", err)
		}
		if !applies {
			return Verdict{}, nil
		}
	}
	v, err = c.Plugin.Call(ctx, ev, &s.host)
	if err == nil && !Legal(ev.Stage, v.Action) {
		err = fmt.Errorf("action %s is not legal at stage %s", v.Action, ev.Stage)
	}
	return v, err
}

// Bounds of what accumulates over a session's checks.
const (
	maxFields = 64
	maxTags   = 64
	maxPaths  = 100
)

// add joins effects, up to their bounds.
func (e *Effects) add(more Effects) {
	e.Prepend = bounded(e.Prepend, more.Prepend, maxFields)
	e.Tags = bounded(e.Tags, more.Tags, maxTags)
	e.Redirect = bounded(e.Redirect, more.Redirect, maxPaths)
	e.BCC = bounded(e.BCC, more.BCC, maxPaths)
	e.Score += more.Score
	e.Tarpit = max(e.Tarpit, more.Tarpit)
}

func bounded[T any](have, more []T, limit int) []T {
	if room := limit - len(have); len(more) > room {
		more = more[:max(room, 0)]
	}
	return append(have, more...)
}
