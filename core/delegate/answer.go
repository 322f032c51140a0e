package delegate

import (
	"fmt"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// What Postfix is told.
const (
	noObjection = "DUNNO"
	// configurationProblem is for a request whose values make no sense: its own
	// lists may still refuse for good, but nothing passes unjudged.
	configurationProblem = "DEFER_IF_PERMIT 4.3.5 Server configuration problem"
	// quarantineField marks what is meant for Junk, for whoever delivers behind Postfix.
	quarantineField = "X-Wafer-Quarantine"
)

// maxAction bounds an action, in octets: an SMTP reply is no longer (RFC 5321 §4.5.3.1.5).
const maxAction = 510

// refusalAction is a refusal as an action: "550 5.7.1 text". Only 421 and 521
// make Postfix hang up.
func refusalAction(d policy.Decision) string {
	code := d.Status.Code
	if d.Hangup {
		code = code/100*100 + 21
	}
	return line510(fmt.Sprintf("%d %s %s", code, d.Status.Enhanced, d.Status.Text))
}

// line510 makes s fit into an answer.
func line510(s string) string {
	b := []byte(s[:min(len(s), maxAction)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = ' '
		}
	}
	return string(b)
}

// effects are actions that do not refuse, waiting to be said one by one.
type effects struct {
	fate   string // "DISCARD", "HOLD" or ""
	paths  []string
	fields []string // PREPEND
}

// effectsOf is what d adds.
func effectsOf(d policy.Decision) effects {
	var e effects
	switch d.Action {
	case policy.Discard:
		e.fate = "DISCARD"
	case policy.Hold:
		e.fate = "HOLD"
	case policy.Quarantine:
		e.fields = append(e.fields, "PREPEND "+quarantineField+": "+orElseText(d.Reason, "yes"))
	}
	for _, p := range d.Effects.Redirect {
		e.paths = append(e.paths, path("REDIRECT", p))
	}
	for _, p := range d.Effects.BCC {
		e.paths = append(e.paths, path("BCC", p))
	}
	for _, f := range d.Effects.Prepend {
		e.fields = append(e.fields, line998("PREPEND "+f.Name+": "+f.Value))
	}
	return e
}

func path(word string, p mail.Path) string { return word + " " + p.String() }

func orElseText(s, d string) string {
	orElse(&s, d)
	return s
}

// line998 makes s fit into an answer and a header (RFC 5322 §2.1.1).
func line998(s string) string {
	b := []byte(s[:min(len(s), 998)])
	for i, c := range b {
		if c < ' ' || c == 0x7f {
			b[i] = ' '
		}
	}
	return string(b)
}

// join adds what has not been asked for yet. DISCARD is more than HOLD.
func (e *effects) join(more effects) {
	if more.fate != "" && e.fate != "DISCARD" {
		e.fate = more.fate
	}
	e.paths = bounded(e.paths, more.paths)
	e.fields = bounded(e.fields, more.fields)
}

// maxPending bounds what waits, of each kind.
const maxPending = 100

func bounded(have, more []string) []string {
	return append(have, more[:min(len(more), max(0, maxPending-len(have)))]...)
}

func (e *effects) len() int {
	n := len(e.paths) + len(e.fields)
	if e.fate != "" {
		n++
	}
	return n
}

// next takes the action that is said now. Postfix takes effects from MAIL on, and
// header fields until the message has come.
func (e *effects) next(rq *request) string {
	if rq.stage < policy.Mail {
		return noObjection
	}
	var action string
	switch {
	case e.fate != "":
		action, e.fate = e.fate, ""
	case len(e.paths) > 0:
		action, e.paths = e.paths[0], e.paths[1:]
	case len(e.fields) > 0 && !rq.last:
		action, e.fields = e.fields[0], e.fields[1:]
	default:
		return noObjection
	}
	return action
}
