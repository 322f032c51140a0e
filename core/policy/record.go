package policy

import "time"

// record notes what c said, if decisions are recorded, and what a check that
// only observes would have done.
func (s *Session) record(c *Check, ev *Event, v Verdict, err error, took time.Duration) {
	o := &s.set.o
	if c.Observe && err == nil && v.Action != Next && v.Action != Accept {
		o.Logger.Info("check would have acted", "id", string(s.decision(ev)), "check", c.label, "session", ev.Session, "stage", ev.Stage.String(),
			"action", v.Action.String(), "reason", v.Reason, "client", ev.Client.Addr().String())
	}
	if o.Log == nil {
		return
	}
	r := s.recordOf(c, ev)
	r.Action, r.Reason, r.Enhanced, r.Text = v.Action.String(), v.Reason, v.Status.Enhanced, v.Status.Text
	r.Effects = v.Effects.record()
	r.Calls, r.Fuel, r.Micros = s.host.calls, s.host.fuel, took.Microseconds()
	switch {
	case err != nil:
		r.Error, r.Action, r.Reason, r.Effects = err.Error(), c.OnError.String(), "", nil
		if c.OnError != Accept {
			st := errorStatus(c.OnError)
			r.Code, r.Enhanced, r.Text = st.Code, st.Enhanced, st.Text
		}
	case v.Action.Refuses():
		r.Code = fitting(v.Action, v.Status.Code, defaultStatus(v.Action).Code)
	case v.Action == DeferIfPermit, v.Action == DeferIfReject:
		r.Code = fitting(Defer, v.Status.Code, defaultStatus(Defer).Code)
	}
	o.Log.Decided(r)
}

// skip notes that c was not asked, if that is wanted.
func (s *Session) skip(c *Check, ev *Event, why string) {
	if o := &s.set.o; o.Explain && o.Log != nil {
		r := s.recordOf(c, ev)
		r.Skipped, r.Action = why, Next.String()
		o.Log.Decided(r)
	}
}

func (s *Session) skipAll(checks []*Check, ev *Event, why string) {
	for _, c := range checks {
		s.skip(c, ev, why)
	}
}

// recordOf is the part of a record that the check and the event know.
func (s *Session) recordOf(c *Check, ev *Event) Record {
	r := Record{
		ID: s.decision(ev), Time: ev.Time, Generation: s.set.o.Generation, Version: s.set.o.Version,
		Session: ev.Session, Door: ev.Door, Stage: ev.Stage.String(), Client: ev.Client.Addr().String(), ClientName: ev.ClientName,
		Helo: ev.Helo, TLS: ev.TLS.Version, User: ev.User, QueueID: ev.QueueID,
		Recipient: ev.Recipient.String(), Recipients: len(ev.Rcpts), Size: ev.Size,
		Check: c.label, Where: c.Where, Plugin: c.module, Digest: c.digest, Mode: "enforce",
	}
	if ev.HasSender {
		r.Sender = "<" + ev.Sender.String() + ">"
	}
	if c.Observe || s.set.o.Watches {
		r.Mode = "observe"
	}
	return r
}

// record is e as text, nil if there is nothing in it.
func (e *Effects) record() *RecordEffects {
	if len(e.Prepend)+len(e.Tags)+len(e.Redirect)+len(e.BCC) == 0 && e.Score == 0 && e.Tarpit == 0 && e.Transport == "" && e.Delay == 0 && e.Limit == 0 {
		return nil
	}
	r := &RecordEffects{Tags: e.Tags, Score: e.Score, Tarpit: e.Tarpit.Milliseconds(),
		Transport: e.Transport, Hop: e.Hop, Delay: e.Delay.Milliseconds(), Limit: e.Limit}
	for _, f := range e.Prepend {
		r.Prepend = append(r.Prepend, f.Name+": "+f.Value)
	}
	for _, p := range e.Redirect {
		r.Redirect = append(r.Redirect, p.String())
	}
	for _, p := range e.BCC {
		r.BCC = append(r.BCC, p.String())
	}
	return r
}

// log notes a refusal under the id that the peer is told.
func (s *Set) log(ev *Event, d Decision) {
	if s.o.Watches {
		return
	}
	s.o.Logger.Info("policy refuses", "id", string(d.ID), "session", ev.Session, "client", ev.Client.Addr().String(), "stage", ev.Stage.String(),
		"check", d.Check, "action", d.Action.String(), "code", d.Status.Code, "reason", d.Reason, "text", d.Status.Text,
		"helo", ev.Helo, "from", ev.Sender.String(), "rcpt", ev.Recipient.String())
}
