package milter

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/policy"
)

// report counts and logs what was not done.
func (m misses) report(h policy.Host) {
	for _, miss := range m {
		h.Metric("not-applied-"+miss.what, miss.count)
		h.Log(int(slog.LevelWarn), fmt.Sprintf("not applied: %s (%d, the first: %q)", miss.what, miss.count, shorten(miss.first, 200)))
	}
}

// note tells the decision log what was asked, and what came of it.
func note(h policy.Host, ev *policy.Event, out outcome, err error) {
	rec, ok := h.(policy.Recorder)
	if !ok || !rec.Records() {
		return
	}
	call := policy.HostCall{Call: "milter", Ask: ev.Stage.String(), Answer: out.String(), Status: "ok"}
	if err != nil {
		call.Answer, call.Status = "", err.Error()
	}
	rec.Note(call)
}

// String is the outcome in the decision log.
func (o outcome) String() string {
	said := []string{o.answer.String()}
	for _, c := range o.changes {
		said = append(said, c.String())
	}
	return strings.Join(said, "; ")
}

// String is the answer in the decision log.
func (a answer) String() string {
	switch a.kind {
	case ansAccept:
		return "accept"
	case ansDiscard:
		return "discard"
	case ansReject:
		return strconv.Itoa(a.status.Code) + " " + a.status.Enhanced + " " + a.status.Text
	}
	return "continue"
}

func shorten(s string, n int) string { return s[:min(len(s), n)] }
