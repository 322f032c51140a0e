package policy

import (
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Record is what one check said, as it is written to the decision log. The
// checks that were asked at one moment share its id.
type Record struct {
	ID        mail.ID    `json:"id"`
	Time      time.Time  `json:"time"`
	Session   string     `json:"session"`
	Door      string     `json:"door"`
	Client    string     `json:"client"`
	Stage     string     `json:"stage"`
	Check     string     `json:"check"` // "policy/check"
	Mode      string     `json:"mode"`  // "enforce" or "observe"
	Action    string     `json:"action"`
	Code      int        `json:"code,omitempty"` // of the reply that the action asks for
	Reason    string     `json:"reason,omitempty"`
	Error     string     `json:"error,omitempty"` // then action is what on_error says
	Sender    string     `json:"sender,omitempty"`
	Recipient string     `json:"rcpt,omitempty"`
	Calls     []HostCall `json:"calls,omitempty"`
	Micros    int64      `json:"us"` // duration in microseconds
}

// HostCall is one question that a check put to the host. A call has at most 128
// that are recorded, each with at most 4 KiB of answer.
type HostCall struct {
	Call   string `json:"call"`          // "now", "random", "dns" or "count"
	Ask    string `json:"ask,omitempty"` // "MX example.org"; "KEY +1 1m0s"
	Answer string `json:"answer,omitempty"`
	Status string `json:"status,omitempty"` // dns: "ok", "not-found", "temporary"; count: the error
}

// DecisionLog takes the record of every decision. It is called by many
// sessions at once and must not block for long.
type DecisionLog interface{ Decided(Record) }

// JSONLog writes records as JSON, one on a line.
type JSONLog struct {
	mu sync.Mutex
	w  io.Writer
}

// NewJSONLog returns a DecisionLog that writes to w.
func NewJSONLog(w io.Writer) *JSONLog { return &JSONLog{w: w} }

// Decided writes one line. What cannot be written is dropped: a full disk must
// not stop mail here.
func (l *JSONLog) Decided(r Record) {
	b, err := json.Marshal(r)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.w.Write(append(b, '\n'))
}

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
	r := Record{
		ID: s.decision(ev), Time: ev.Time, Session: ev.Session, Door: ev.Door, Client: ev.Client.Addr().String(), Stage: ev.Stage.String(),
		Check: c.label, Mode: "enforce", Action: v.Action.String(), Reason: v.Reason,
		Recipient: ev.Recipient.String(), Calls: s.host.calls, Micros: took.Microseconds(),
	}
	if ev.HasSender {
		r.Sender = "<" + ev.Sender.String() + ">"
	}
	if c.Observe {
		r.Mode = "observe"
	}
	switch {
	case err != nil:
		r.Error, r.Action, r.Reason = err.Error(), c.OnError.String(), ""
		if c.OnError != Accept {
			r.Code = errorStatus(c.OnError).Code
		}
	case v.Action.Refuses():
		r.Code = fitting(v.Action, v.Status.Code, defaultStatus(v.Action).Code)
	case v.Action == DeferIfPermit, v.Action == DeferIfReject:
		r.Code = fitting(Defer, v.Status.Code, defaultStatus(Defer).Code)
	}
	o.Log.Decided(r)
}

// log notes a refusal under the id that the peer is told.
func (s *Set) log(ev *Event, d Decision) {
	s.o.Logger.Info("policy refuses", "id", string(d.ID), "session", ev.Session, "client", ev.Client.Addr().String(), "stage", ev.Stage.String(),
		"check", d.Check, "action", d.Action.String(), "code", d.Status.Code, "reason", d.Reason, "text", d.Status.Text,
		"helo", ev.Helo, "from", ev.Sender.String(), "rcpt", ev.Recipient.String())
}
