package policy

import (
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Record is one decision of one check, as it is written to the decision log.
type Record struct {
	ID        mail.ID   `json:"id,omitempty"`
	Time      time.Time `json:"time"`
	Session   string    `json:"session"`
	Door      string    `json:"door"`
	Client    string    `json:"client"`
	Stage     string    `json:"stage"`
	Check     string    `json:"check"`
	Mode      string    `json:"mode"` // "enforce" or "observe"
	Action    string    `json:"action"`
	Code      int       `json:"code,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Error     string    `json:"error,omitempty"`
	Sender    string    `json:"sender,omitempty"`
	Recipient string    `json:"rcpt,omitempty"`
	Micros    int64     `json:"us"` // duration in microseconds
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

// record notes what c said, if decisions are recorded, and warns of what an
// observed check would have done.
func (s *Set) record(c *Check, ev *Event, v Verdict, err error, took time.Duration) {
	if c.Observe && err == nil && v.Action != Next && v.Action != Accept {
		s.o.Logger.Warn("check would have acted", "check", c.label, "session", ev.Session, "stage", ev.Stage.String(),
			"action", v.Action.String(), "reason", v.Reason, "client", ev.Client.Addr().String())
	}
	if s.o.Log == nil {
		return
	}
	r := Record{
		Time: ev.Time, Session: ev.Session, Door: ev.Door, Client: ev.Client.Addr().String(), Stage: ev.Stage.String(),
		Check: c.label, Mode: "enforce", Action: v.Action.String(), Code: v.Status.Code, Reason: v.Reason,
		Recipient: ev.Recipient.String(), Micros: took.Microseconds(),
	}
	if ev.HasSender {
		r.Sender = "<" + ev.Sender.String() + ">"
	}
	if c.Observe {
		r.Mode = "observe"
	}
	if err != nil {
		r.Error, r.Action = err.Error(), c.OnError.String()
	}
	s.o.Log.Decided(r)
}

// log notes a refusal under the id that the peer is told.
func (s *Set) log(ev *Event, d Decision) {
	s.o.Logger.Info("policy refuses", "id", string(d.ID), "session", ev.Session, "client", ev.Client.Addr().String(), "stage", ev.Stage.String(),
		"check", d.Check, "action", d.Action.String(), "code", d.Status.Code, "reason", d.Reason, "text", d.Status.Text,
		"helo", ev.Helo, "from", ev.Sender.String(), "rcpt", ev.Recipient.String())
}
