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
	tape *taping                    // nil: nothing is kept for a replay
	told func(check string) Witness // in a replay: what checks are told
	id   mail.ID                    // of the Ask under way, "" until something needs it

	later   []*postponed // calls of checks that only observe
	door    string
	company *companion // nil: nobody watches
	moments []moment   // for the companion
	inline  bool       // it is a companion: checks that only observe are asked in their turn
	named   mail.ID    // of a companion: the id of the moment; "": one of its own

	asked, refused bool // for Traffic
	waits          bool // the door says when the peer has its answer

	held   byStage
	permit byStage // defer_if_permit
	reject byStage // defer_if_reject
	noted  [LastStage + 1]notes
}

// notes is what a stage's checks have added that later checks may know.
type notes struct {
	tags  []string
	score float64
}

// byStage holds refusals that have not been given yet, by the stage that made them.
type byStage [LastStage + 1]*Decision

// first is the earliest flag that counts at ev's stage and from which ev is not
// exempt. Up to Rcpt those of earlier stages count; Data and Message begin
// without any, as in Postfix, and leave the older ones for the next transaction.
func (b *byStage) first(ev *Event) *Decision {
	at := Connect
	if ev.Stage > Rcpt {
		at = ev.Stage
	}
	for ; at <= ev.Stage; at++ {
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
	session := &Session{set: s, plan: s.byDoor[door], door: door}
	if s.o.Tape != nil && session.plan != nil {
		session.tape = &taping{full: s.o.Bodies}
	}
	return session
}

// Replay makes the session one of a replay: checks are told what told's Hosts say, and
// nothing of the world.
func (s *Session) Replay(told func(check string) Witness) { s.told = told }

// Active reports whether a check wants stage, or a held refusal may be due at
// it: if not, Ask would return a Decision without objection.
func (s *Session) Active(stage Stage) bool {
	if s.plan == nil {
		return s.company != nil && s.company.walk.Active(stage)
	}
	if s.tape != nil || s.company != nil { // other policies may have something to say
		return true
	}
	return len(s.plan.lists[stage]) > 0 || stage == Rcpt || s.due(stage, nil) != nil
}

// Reset forgets the transaction: after RSET, EHLO and the end of a message. What
// connect and helo left stays; a new HELO replaces the latter.
func (s *Session) Reset() { s.forget(Mail) }

// forget drops what stage and those after it left.
func (s *Session) forget(stage Stage) {
	for ; stage <= LastStage; stage++ {
		s.drop(stage)
	}
}

// drop drops what stage left.
func (s *Session) drop(stage Stage) {
	s.held[stage], s.permit[stage], s.reject[stage] = nil, nil, nil
	s.noted[stage] = notes{}
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

// Due returns the refusal of an earlier stage that Ask would begin with at
// ev.Stage. A door that has rules of its own at RCPT asks this before them: what
// was said of the client, its greeting and its sender comes first, as in Postfix.
func (s *Session) Due(ev *Event) (Decision, bool) {
	if s.plan == nil {
		return Decision{}, false
	}
	h := s.due(ev.Stage, ev)
	if h == nil {
		return Decision{}, false
	}
	s.set.log(ev, *h)
	return *h, true
}

// Overruled returns the 4xx that an earlier defer_if_reject asked for in place
// of a 5xx that the door's own rules are about to give at ev.Stage.
func (s *Session) Overruled(ev *Event, own mail.Status) (Decision, bool) {
	if s.plan == nil || own.Code < 500 {
		return Decision{}, false
	}
	h := s.reject.first(ev)
	if h == nil {
		return Decision{}, false
	}
	s.set.log(ev, *h)
	return *h, true
}

// Ask asks the checks of ev.Stage in order and returns what they decide
// together.
func (s *Session) Ask(ctx context.Context, ev *Event) Decision {
	if s.plan == nil && s.company == nil {
		return Decision{}
	}
	var d Decision
	switch {
	case s.plan == nil:
		s.id = ""
	case s.tape == nil:
		d = s.judge(ctx, ev)
	default:
		d = s.judge(ctx, s.tape.begin(ev, s.set.o.Generation))
		s.set.o.Tape.Asked(s.tape.end(ev, &d))
	}
	s.met(&d)
	if s.company != nil {
		s.accompany(ev)
	}
	if !s.waits && len(s.later)+len(s.moments) > 0 {
		s.Answered()
	}
	return d
}

// Waits says that the door will call Answered. Else Ask does, before the answer is sent.
func (s *Session) Waits() { s.waits = true }

// judge is Ask without a tape.
func (s *Session) judge(ctx context.Context, ev *Event) Decision {
	stage := ev.Stage
	s.id = s.named
	switch stage {
	case Connect, Mail:
		s.forget(stage)
	case Helo, StartTLS:
		// The EHLO that must follow the handshake (RFC 3207 §4.2) takes back
		// nothing that was said about the handshake.
		s.drop(stage)
		s.forget(Mail)
	case Rcpt: // what its checks noted adds up from one recipient to the next
		before := s.noted[Rcpt]
		s.drop(Rcpt)
		s.noted[Rcpt] = before
	case Data, Message, Queued, Route, Bounce:
		s.drop(stage)
	}
	if h := s.due(stage, ev); h != nil {
		s.set.log(ev, *h)
		return *h
	}
	before := s.noted[stage]
	d := s.ask(ctx, ev)
	if d.Refused() { // it adds nothing to a message
		s.noted[stage] = before
	}
	return d
}

// ask asks the checks of ev's stage.
func (s *Session) ask(ctx context.Context, ev *Event) (d Decision) {
	lists := s.plan.lists[ev.Stage]
	for i, l := range lists {
		if l.policy.Exempt.covers(ev) {
			s.skipAll(l.checks, ev, "exempt")
			continue
		}
		if s.walk(ctx, ev, l, &d) {
			for _, l := range lists[i+1:] {
				s.skipAll(l.checks, ev, "refused")
			}
			return s.refusal(ev, d)
		}
	}
	if h := s.permit.first(ev); h != nil && ev.Stage >= h.replyAt {
		effects := d.Effects
		d = *h
		d.Effects = effects
		s.set.log(ev, d)
		return d
	}
	d.ID = s.id
	return d
}

// tell gives ev what checks have noted so far.
func (s *Session) tell(ev *Event) {
	ev.Tags, ev.Score = nil, 0
	for i := range s.noted {
		n := &s.noted[i]
		ev.Tags, ev.Score = bounded(ev.Tags, n.tags, maxTags), ev.Score+n.score
	}
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
	for i, c := range l.checks {
		if c.Observe && s.told != nil { // a replay is about what counts
			continue
		}
		if c.Observe && s.set.o.Shadow != nil && !s.inline {
			s.postpone(c, ev)
			continue
		}
		v, err := s.call(ctx, c, ev)
		if c.Observe || err != nil && c.OnError == Accept {
			continue
		}
		if err != nil {
			v = Verdict{Action: c.OnError, Status: errorStatus(c.OnError), Reason: "check-error"}
		}
		d.Effects.add(v.Effects)
		if e := &v.Effects; len(e.Tags) > 0 || e.Score != 0 {
			n := &s.noted[ev.Stage]
			n.tags, n.score = bounded(n.tags, e.Tags, maxTags), n.score+e.Score
		}
		switch v.Action {
		case Next:
		case Accept:
			s.skipAll(l.checks[i+1:], ev, "accepted")
			return false
		case Reject, Defer, Disconnect:
			s.refuse(ev, l.policy, c, v, d)
			s.skipAll(l.checks[i+1:], ev, "refused")
			return true
		case Discard:
			s.decision(ev)
			d.Action, d.Check, d.Reason = Discard, c.label, v.Reason
			s.skipAll(l.checks[i+1:], ev, "accepted")
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

// refuse makes d the refusal v, or the 4xx that an earlier defer_if_reject asked
// for in place of any 5xx.
func (s *Session) refuse(ev *Event, p *Policy, c *Check, v Verdict, d *Decision) {
	c.tally.refused.Add(1)
	effects := d.Effects
	*d = s.refusing(ev, p, c, v)
	if d.Status.Code >= 500 {
		if h := s.reject.first(ev); h != nil {
			at := d.replyAt // it stands for this refusal, so it is given when this would be
			*d = *h
			d.replyAt = at
		}
	}
	d.Effects = effects
}

// refusing is the complete refusal that v asks for.
func (s *Session) refusing(ev *Event, p *Policy, c *Check, v Verdict) Decision {
	d := Decision{Action: v.Action, Check: c.label, Reason: v.Reason, ID: s.decision(ev), replyAt: c.ReplyAt, exempt: &p.Exempt}
	d.Status = shape(v.Action, v.Status, d.ID)
	d.Hangup = v.Action == Disconnect || d.Status.Code == 421 || d.Status.Code == 521
	if p.SoftBounce && d.Status.Code >= 500 {
		d.Status = soft(d.Status)
		if d.Action == Reject {
			d.Action = Defer
		}
	}
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
	h.replyAt = max(ev.Stage, Rcpt) // the permit that counts is RCPT's, or a later one
	if s.plan.direct {
		h.replyAt = ev.Stage
	}
	flags[ev.Stage] = &h
}

// world is what a check's call is told.
func (s *Session) world(c *Check) Host {
	if s.told == nil {
		return &s.host
	}
	return replayed{s.told(c.label), &s.host}
}

// Witness is what a Host of a replay is besides: it knows what the check said then.
type Witness interface {
	Host
	// Said is the verdict or the error of then.
	Said() (Verdict, error)
}

// replayed is the Host of a replay, whose answers are noted as those of the world are.
type replayed struct {
	Host
	live *liveHost
}

// Records, Note and Burned are the live host's (Recorder).
func (r replayed) Records() bool { return r.live.Records() }

// Note keeps a call.
func (r replayed) Note(c HostCall) { r.live.Note(c) }

// Burned notes the call's fuel.
func (r replayed) Burned(fuel int64) { r.live.Burned(fuel) }

// call asks one plugin, unless the check does not apply to ev. Whatever goes
// wrong is an error, never a verdict; it is counted and logged here.
func (s *Session) call(ctx context.Context, c *Check, ev *Event) (v Verdict, err error) {
	began := time.Now()
	s.host.begin(s.set, c, ev, s.tape)
	if s.tape != nil {
		s.tape.call(c, s.host.now)
	}
	applies := true
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
			if c.panicked.CompareAndSwap(false, true) { // the first says it all
				s.set.o.Logger.Warn("check panicked", "check", c.label, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			}
		}
		if !applies {
			s.skip(c, ev, "when")
			if s.tape != nil {
				s.tape.skipped()
			}
			return
		}
		if s.tape != nil {
			s.tape.said(v, err, s.host.fuel)
		}
		took := time.Since(began)
		c.tally.count(ev.Stage, &v, err, took, s.host.fuel)
		if err != nil {
			// A peer's mail may have brought it about, so it is no more than a warning.
			s.set.o.Logger.Warn("check failed", "check", c.label, "plugin", c.module, "where", c.Where, "stage", ev.Stage.String(),
				"session", ev.Session, "on_error", c.OnError.String(), "observe", c.Observe, "err", err)
		}
		s.record(c, ev, v, err, took)
	}()
	s.tell(ev)
	if c.When != nil {
		if applies, err = c.When(ev); err != nil {
			applies = true
			return Verdict{}, fmt.Errorf("when: %w", err)
		}
		if !applies {
			return Verdict{}, nil
		}
	}
	if _, foreign := c.Plugin.(Foreign); foreign && s.told != nil {
		v, err = s.told(c.label).Said()
		return v, err
	}
	v, err = c.Plugin.Call(ctx, ev, s.world(c))
	if err == nil {
		err = v.check(ev.Stage)
	}
	return v, err
}
