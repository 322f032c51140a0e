package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/decisions"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// policyLogCmd prints the decision log.
type policyLogCmd struct {
	configFlag
	From    string `placeholder:"ADDRESS" help:"Only of this sender; \"@example.org\" is a whole domain, \"<>\" the null sender."`
	To      string `placeholder:"ADDRESS" help:"Only about this recipient."`
	Client  string `placeholder:"NETWORK" help:"Only of clients in this network, or of this address."`
	Check   string `placeholder:"CHECK" help:"Only of this check (\"spf\", \"inbound/spf\"), or of a policy (\"inbound/\")."`
	Verdict string `placeholder:"VERDICT" help:"Only this verdict, such as reject; error for checks that failed."`
	Session string `placeholder:"ID" help:"Only of this session."`
	ID      string `placeholder:"ID" help:"Only this decision."`
	Since   string `placeholder:"TIME" help:"Only later: a time such as 2026-01-31T12:00:00Z, or how long ago, such as 2h or 7d."`
	Until   string `placeholder:"TIME" help:"Only earlier."`
	Follow  bool   `short:"f" help:"Go on with what is decided from now on."`
	JSON    bool   `help:"Print records as JSON, one on a line."`
}

// Run prints one line for each record.
func (c *policyLogCmd) Run(std streams) error {
	f, err := c.filter(time.Now())
	if err != nil {
		return err
	}
	cfg, err := c.load(std)
	if err != nil {
		return err
	}
	dir := core.DecisionsDir(cfg)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("there is no decision log %s: has the server run, with log { decisions = true }?", dir)
	}
	enc := json.NewEncoder(std.out)
	enc.SetEscapeHTML(false)
	print := func(e decisions.Entry) error {
		if c.JSON {
			return enc.Encode(e)
		}
		_, err := fmt.Fprintln(std.out, line(&e.Record))
		return err
	}
	var stats decisions.Stats
	if c.Follow {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		stats, err = decisions.Follow(ctx, dir, f, tick.C, print)
	} else {
		stats, err = decisions.Read(dir, f, print)
	}
	if err == nil && stats.Malformed > 0 {
		fmt.Fprintf(std.err, "wafer: %s could not be read and were left out\n", count(stats.Malformed, "line", "lines"))
	}
	return err
}

// filter is what the flags choose.
func (c *policyLogCmd) filter(now time.Time) (f decisions.Filter, err error) {
	f = decisions.Filter{ID: mail.ID(c.ID), Session: c.Session, Sender: c.From, Recipient: c.To, Check: c.Check, Verdict: c.Verdict}
	if c.Client != "" {
		f.Client, err = netip.ParsePrefix(c.Client)
		if a, aerr := netip.ParseAddr(c.Client); aerr == nil {
			f.Client, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return f, fmt.Errorf("-client %q is neither an address nor a network such as 192.0.2.0/24", c.Client)
		}
	}
	if c.Verdict != "" && c.Verdict != "error" && !isAction(c.Verdict) {
		return f, fmt.Errorf("-verdict %q: write next, accept, reject, defer, disconnect, discard, hold, quarantine, defer_if_permit, defer_if_reject or error", c.Verdict)
	}
	if f.Since, err = moment("-since", c.Since, now); err == nil {
		f.Until, err = moment("-until", c.Until, now)
	}
	return f, err
}

func isAction(word string) bool {
	for a := policy.Next; a <= policy.DeferIfReject; a++ {
		if a.String() == word {
			return true
		}
	}
	return false
}

// moment reads a time, or how long before now it is.
func moment(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation("2006-01-02", s, time.Local); err == nil {
		return t, nil
	}
	text := s
	if days, ok := strings.CutSuffix(s, "d"); ok {
		text = days + "h"
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return time.Time{}, fmt.Errorf("%s %q: write a time such as 2026-01-31T12:00:00Z, a day such as 2026-01-31, or how long ago, such as 30m, 2h or 7d", flag, s)
	}
	if text != s {
		d *= 24
	}
	return now.Add(-d), nil
}

// line is a record on one line.
func line(r *policy.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %s %s", r.Time.Format(time.RFC3339), r.ID, r.Stage, r.Check, r.Action)
	if r.Error != "" {
		b.WriteString(" (error)")
	}
	if r.Mode == "observe" {
		b.WriteString(" (observed)")
	}
	if r.Code != 0 {
		fmt.Fprintf(&b, " %d", r.Code)
	}
	if r.Reason != "" {
		b.WriteString(" " + r.Reason)
	}
	fmt.Fprintf(&b, " client=%s", r.Client)
	for _, f := range []struct{ name, value string }{
		{"helo", r.Helo}, {"user", r.User}, {"from", r.Sender}, {"to", r.Recipient}, {"session", r.Session}, {"text", r.Text}, {"err", r.Error},
	} {
		if f.value != "" {
			fmt.Fprintf(&b, " %s=%q", f.name, f.value)
		}
	}
	return b.String()
}
