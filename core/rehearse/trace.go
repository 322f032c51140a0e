package rehearse

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// Trace writes what checks said, one line each: stage, check, verdict. With
// detail, each has below it where it is configured, what it asked the host and
// was told, what it added, and what it cost.
func Trace(w io.Writer, records []policy.Record, detail bool) {
	for i := range records {
		r := &records[i]
		fmt.Fprintf(w, "  %-8s %-24s %s\n", Printable(r.Stage), Printable(r.Check), verdict(r))
		if !detail || r.Skipped != "" {
			continue
		}
		more(w, r)
	}
}

// verdict is what a check said, on one line.
func verdict(r *policy.Record) string {
	if r.Skipped != "" {
		return "not asked: " + Printable(skipped(r.Skipped))
	}
	var b strings.Builder
	if r.Error != "" {
		fmt.Fprintf(&b, "error, so %s: %s", Printable(r.Action), Printable(r.Error))
		return b.String()
	}
	b.WriteString(Printable(r.Action))
	if r.Code != 0 {
		fmt.Fprintf(&b, " %d %s %s", r.Code, Printable(r.Enhanced), strconv.Quote(r.Text))
	}
	if r.Reason != "" {
		b.WriteString(" (" + Printable(r.Reason) + ")")
	}
	if r.Mode == "observe" {
		b.WriteString(" [observed only]")
	}
	return b.String()
}

func skipped(why string) string {
	switch why {
	case "exempt":
		return "the policy exempts this client"
	case "when":
		return "its when is false"
	case "accepted":
		return "an earlier check accepted"
	case "refused":
		return "an earlier check refused"
	}
	return why
}

func more(w io.Writer, r *policy.Record) {
	line := func(format string, args ...any) { fmt.Fprintf(w, "           "+format+"\n", args...) }
	where := r.Where
	if r.Plugin != "" {
		where += ", " + r.Plugin
	}
	if r.Digest != "" {
		where += " " + r.Digest[:min(12, len(r.Digest))]
	}
	line("%s", Printable(where))
	for _, c := range r.Calls {
		text := Printable(c.Call)
		if c.Ask != "" {
			text += " " + Printable(c.Ask)
		}
		switch {
		case c.Answer != "":
			text += " → " + Printable(c.Answer)
		case c.Status != "" && c.Status != "ok":
		default:
			text += " → nothing"
		}
		if c.Status != "" && c.Status != "ok" {
			text += " (" + Printable(c.Status) + ")"
		}
		line("%s", text)
	}
	if e := r.Effects; e != nil {
		for _, f := range e.Prepend {
			line("adds %s", Printable(f))
		}
		if len(e.Tags) > 0 {
			line("tags %s", Printable(strings.Join(e.Tags, ", ")))
		}
		if e.Score != 0 {
			line("score %+g", e.Score)
		}
		if len(e.Redirect) > 0 {
			line("redirects to %s", Printable(strings.Join(e.Redirect, ", ")))
		}
		if len(e.BCC) > 0 {
			line("copies to %s", Printable(strings.Join(e.BCC, ", ")))
		}
		if e.Tarpit > 0 {
			line("waits %s", time.Duration(e.Tarpit)*time.Millisecond)
		}
	}
	line("fuel %d, %s", r.Fuel, time.Duration(r.Micros)*time.Microsecond)
}

// Printable is s with everything that a terminal might obey escaped.
func Printable(s string) string {
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}
