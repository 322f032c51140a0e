package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/decisions"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/policytest"
	"github.com/wafermail/wafer/core/rehearse"
)

// policyExplainCmd says why.
type policyExplainCmd struct {
	configFlag
	ID string `arg:"" optional:"" help:"Id of a decision, as it stands at the end of a refusal and in the log."`

	mailFlags
	Policies string `placeholder:"FOLDER" help:"Use these policies without any configuration."`
	JSON     bool   `help:"Print JSON."`
}

// Run explains a decision of the log, or one that would be made now.
func (c *policyExplainCmd) Run(std streams) error {
	if c.ID != "" {
		return c.logged(std)
	}
	if c.Client == "" {
		return errors.New(`say what to explain: the id of a decision, or a mail: wafer policy explain -client 192.0.2.1 -helo mail.example.net -from ann@example.net -to you@example.org`)
	}
	return c.rehearse(std)
}

// logged explains a decision that was recorded.
func (c *policyExplainCmd) logged(std streams) error {
	cfg, err := c.load(std)
	if err != nil {
		return err
	}
	dir := core.DecisionsDir(cfg)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("there is no decision log %s: has the server run, with log { decisions = true }?", dir)
	}
	id := strings.Trim(c.ID, "()")
	var records []policy.Record
	collect := func(e decisions.Entry) error { records = append(records, e.Record); return nil }
	if _, err := decisions.Read(dir, decisions.Filter{ID: mail.ID(id)}, collect); err != nil {
		return err
	}
	if len(records) == 0 {
		return fmt.Errorf("no decision %s in %s: ids are at the end of refusals, and older decisions are removed", id, dir)
	}
	if c.JSON {
		return printJSON(std, records)
	}
	decided := records
	records = nil
	first := decided[0]
	if _, err := decisions.Read(dir, decisions.Filter{Session: first.Session, Until: first.Time.Add(24 * time.Hour)}, collect); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "decision %s at %s, stage %s, door %s, generation %d, session %s\n", id, first.Time.Format(time.RFC3339), first.Stage, first.Door, first.Generation, first.Session)
	facts(std, &first)
	fmt.Fprintln(std.out, "the checks, in their order:")
	rehearse.Trace(std.out, decided, true)
	var others []policy.Record
	for _, r := range records {
		if r.ID != mail.ID(id) {
			others = append(others, r)
		}
	}
	if len(others) > 0 {
		fmt.Fprintln(std.out, "what else was said in this session:")
		rehearse.Trace(std.out, others, false)
	}
	return nil
}

// facts prints what was known of the peer and its mail.
func facts(std streams, r *policy.Record) {
	say := func(name, value string) {
		if value != "" {
			fmt.Fprintf(std.out, "  %-10s %s\n", name, rehearse.Printable(value))
		}
	}
	client := r.Client
	if r.ClientName != "" {
		client += " (" + r.ClientName + ")"
	}
	say("client", client)
	if r.Helo != "" {
		say("helo", `"`+r.Helo+`"`)
	}
	say("tls", r.TLS)
	say("user", r.User)
	say("sender", r.Sender)
	say("recipient", r.Recipient)
	if r.Size > 0 {
		say("size", fmt.Sprint(r.Size))
	}
	say("queue id", string(r.QueueID))
}

func printJSON(std streams, v any) error {
	enc := json.NewEncoder(std.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// rehearse explains what would be decided now.
func (c *policyExplainCmd) rehearse(std streams) error {
	cfg, err := c.config(std)
	if err != nil {
		return err
	}
	sc, err := c.scenario(cfg)
	if err != nil {
		return err
	}
	ctx := context.Background()
	log := newLogger(std, config.Log{Level: "error"})
	rules, err := core.LoadRules(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer rules.Close() // a rehearsal leaves nothing to lose
	if sc.Directory, err = rules.Directory(log); err != nil {
		return err
	}
	var seen rehearse.Records
	set, err := rules.Set(policy.SetOptions{Resolver: core.Resolver(sc.Resolver), Log: &seen, Explain: true, Logger: log}, nil)
	if err != nil {
		return err
	}
	o := rehearse.Begin(set, sc).Walk(ctx, sc)
	d := &o.Decisive
	if c.JSON {
		return printJSON(std, map[string]any{
			"verdict": o.Verdict, "code": d.Status.Code, "enhanced": d.Status.Enhanced, "text": policytest.Text(d.Status, d.ID),
			"by": d.By, "at": d.Stage.String(), "reason": d.Reason, "records": seen.List,
		})
	}
	fmt.Fprintln(std.out, "the checks, in the order in which they are asked (nothing is counted or remembered from before):")
	rehearse.Trace(std.out, seen.List, true)
	for _, f := range o.Effects.Prepend {
		fmt.Fprintf(std.out, "adds %s\n", rehearse.Printable(f.Name+": "+f.Value))
	}
	for _, r := range o.Replies {
		if r.Stage == policy.Rcpt && r.Status.Code != 0 && len(o.Replies) > 1 {
			fmt.Fprintf(std.out, "to <%s>: %d %s %s (by %s)\n", rehearse.Printable(r.Rcpt.String()), r.Status.Code, r.Status.Enhanced, rehearse.Printable(policytest.Text(r.Status, r.ID)), r.By)
		}
	}
	switch {
	case d.Status.Code != 0:
		fmt.Fprintf(std.out, "verdict: %s at %s by %s: %d %s %s\n", o.Verdict, d.Stage, d.By, d.Status.Code, d.Status.Enhanced, rehearse.Printable(policytest.Text(d.Status, d.ID)))
	case len(sc.Rcpts) == 0 && refuses(seen.List):
		fmt.Fprintln(std.out, "verdict: not yet: what a check refuses above is told to the client at its reply_at; say -from and -to as well")
	default:
		fmt.Fprintf(std.out, "verdict: %s\n", o.Verdict)
	}
	return nil
}

// refuses reports whether a check that is enforced refuses.
func refuses(records []policy.Record) bool {
	for i := range records {
		if r := &records[i]; r.Skipped == "" && r.Mode == "enforce" && (r.Action == "reject" || r.Action == "defer" || r.Action == "disconnect") {
			return true
		}
	}
	return false
}

func (c *policyExplainCmd) config(std streams) (*config.Config, error) {
	if c.Policies != "" {
		cfg, err := faults(std, "policies", func() (*config.Config, error) { return config.LoadPolicies(c.Policies) })
		if err == nil {
			cfg.Hostname = "mail.example.test"
		}
		return cfg, err
	}
	return c.load(std)
}
