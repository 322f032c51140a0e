package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/decisions"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// policyDiffCmd compares what was decided with what observers would have.
type policyDiffCmd struct {
	configFlag
	Since    string `default:"24h" placeholder:"TIME" help:"From when on: a time, or how long ago, such as 2h or 7d (${default})."`
	Until    string `placeholder:"TIME" help:"Until when."`
	Version  string `name:"shadow" placeholder:"NAME" help:"Only of this shadow; without it also of checks with mode = \"observe\"."`
	Examples int    `default:"3" help:"Examples of each kind (${default})."`
	JSON     bool   `help:"Print JSON."`
}

// compared is one moment: what was decided, and what observers would have.
type compared struct {
	Time      time.Time `json:"time"`
	ID        mail.ID   `json:"id"`
	Stage     string    `json:"stage"`
	Client    string    `json:"client"`
	Helo      string    `json:"helo,omitempty"`
	Sender    string    `json:"sender,omitempty"`
	Recipient string    `json:"rcpt,omitempty"`
	Was       string    `json:"was"`   // the check that refused, "" if none did
	Would     string    `json:"would"` // likewise of the observers
	Reason    string    `json:"reason,omitempty"`

	live, watched bool // records of each kind were seen
}

// policyDiff is what the command finds.
type policyDiff struct {
	Moments     int            `json:"moments"` // at which observers were asked
	WouldReject int            `json:"would_refuse"`
	WouldAccept int            `json:"would_accept"`
	ByCheck     map[string]int `json:"by_check"`
	BySender    map[string]int `json:"by_sender"`
	Rejects     []*compared    `json:"refuse_examples"`
	Accepts     []*compared    `json:"accept_examples"`
}

// maxCompared bounds the moments that are compared.
const maxCompared = 2_000_000

// Run reads the decision log. It exits with 2 if anything differs.
func (c *policyDiffCmd) Run(std streams) error {
	now := time.Now()
	var f decisions.Filter
	var err error
	if f.Since, err = moment("since", c.Since, now); err != nil {
		return err
	}
	if f.Until, err = moment("until", c.Until, now); err != nil {
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	all, order := map[mail.ID]*compared{}, []mail.ID{}
	_, err = decisions.Read(dir, f, func(e decisions.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		x := all[e.ID]
		if x == nil {
			if len(all) >= maxCompared {
				return fmt.Errorf("there are more than %d moments: choose a shorter time with --since and --until", maxCompared)
			}
			x = &compared{Time: e.Time, ID: e.ID, Stage: e.Stage, Client: e.Client, Helo: e.Helo, Sender: e.Sender, Recipient: e.Recipient}
			all[e.ID], order = x, append(order, e.ID)
		}
		c.note(x, &e.Record)
		return nil
	})
	if err != nil {
		return err
	}
	d := policyDiff{ByCheck: map[string]int{}, BySender: map[string]int{}, Rejects: []*compared{}, Accepts: []*compared{}}
	for _, id := range order {
		d.add(all[id], c.Examples)
	}
	return d.print(std, c.JSON)
}

// note adds a record to a moment.
func (c *policyDiffCmd) note(x *compared, r *policy.Record) {
	refuses := r.Action == policy.Reject.String() || r.Action == policy.Defer.String() || r.Action == policy.Disconnect.String()
	switch {
	case r.Skipped != "":
	case r.Mode != "observe":
		x.live = true
		if refuses && x.Was == "" {
			x.Was = r.Check
		}
	case c.Version == "" || c.Version == r.Version:
		x.watched = true
		if refuses && x.Would == "" {
			x.Would, x.Reason = r.Check, r.Reason
		}
	}
}

func (d *policyDiff) add(x *compared, examples int) {
	if !x.watched {
		return
	}
	d.Moments++
	switch {
	case x.Would != "" && x.Was == "":
		if d.WouldReject++; len(d.Rejects) < examples {
			d.Rejects = append(d.Rejects, x)
		}
		d.ByCheck[x.Would]++
	case x.Would == "" && x.Was != "":
		if d.WouldAccept++; len(d.Accepts) < examples {
			d.Accepts = append(d.Accepts, x)
		}
		d.ByCheck[x.Was]++
	default:
		return
	}
	if p, err := mail.ParsePath(strings.Trim(x.Sender, "<>"), true); err == nil && x.Sender != "" {
		d.BySender[mail.DomainKey(p.Domain())]++
	}
}

func (d *policyDiff) print(std streams, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(std.out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(d); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(std.out, "%s with observers: %d would be refused, %d would be let through\n", count(d.Moments, "moment", "moments"), d.WouldReject, d.WouldAccept)
		most(std.out, "by check", d.ByCheck)
		most(std.out, "by domain of the sender", d.BySender)
		for _, list := range []struct {
			title string
			all   []*compared
		}{{"would be refused", d.Rejects}, {"would be let through", d.Accepts}} {
			for _, x := range list.all {
				by := x.Would
				if by == "" {
					by = x.Was
				}
				fmt.Fprintf(std.out, "%s: %s %s %s client=%s helo=%s from=%s to=%s by %s %s\n", list.title, x.Time.UTC().Format(time.RFC3339), x.ID, x.Stage, x.Client, oneLine(x.Helo), oneLine(x.Sender), oneLine(x.Recipient), by, x.Reason)
			}
		}
	}
	if d.WouldReject+d.WouldAccept > 0 {
		return exit(2)
	}
	return nil
}
