package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/dns"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/replay"
	"github.com/wafermail/wafer/core/tape"
)

// policyReplayCmd judges recorded mail again.
type policyReplayCmd struct {
	configFlag
	With    string `placeholder:"DIR" help:"Policies to try, in place of those of the configuration."`
	Since   string `default:"24h" placeholder:"TIME" help:"From when on: a time such as 2026-01-31T12:00:00Z, or how long ago, such as 2h or 7d (${default})."`
	Until   string `placeholder:"TIME" help:"Until when."`
	LiveDNS bool   `name:"live-dns" help:"Ask DNS what the tape does not tell. Answers of today may differ from those of then."`
	Limit   int    `default:"100" help:"Print at most that many differences; 0 prints all (${default})."`
	ToTests string `placeholder:"DIR" help:"Write the moments that differ, with what was decided then, as tests of policies into files in DIR."`
	JSON    bool   `help:"Print JSON: a line for each difference, and one with the totals."`
}

// Run replays. It exits with 2 if anything differs.
func (c *policyReplayCmd) Run(std streams) (err error) {
	now := time.Now()
	since, err := moment("since", c.Since, now)
	if err != nil {
		return err
	}
	until, err := moment("until", c.Until, now)
	if err != nil {
		return err
	}
	cfg, err := c.load(std)
	if err != nil {
		return err
	}
	tried := cfg
	if c.With != "" {
		tried, err = faults(std, "policies", func() (*config.Config, error) { return config.LoadWith(c.Config, c.With) })
		if err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	rules, err := core.LoadRules(ctx, tried, newLogger(std, config.Log{Level: "error"}))
	if err != nil {
		return err
	}
	defer func() { err = joined(err, rules.Close()) }()
	o := tape.ReadOptions{}
	if cfg.Tape != nil && cfg.Tape.Key != "" {
		o.Secret = []byte(cfg.Tape.Key)
	}
	bar := newProgress(std.err)
	o.Progress = func(done, total int64) { bar.tell("replaying", done, total) }
	out := &replayPrinter{std: std, limit: c.Limit, json: c.JSON, bar: bar}
	if c.ToTests != "" {
		out.tests = &testWriter{dir: c.ToTests}
	}
	po := replay.Options{Differs: out.differs}
	if c.LiveDNS {
		live, err := liveDNS(cfg)
		if err != nil {
			return err
		}
		po.Live = live
	}
	began := time.Now()
	p := replay.New(po)
	set, err := rules.Set(p.World(), nil)
	if err != nil {
		return err
	}
	p.Start(set)
	stats, err := replay.Read(ctx, core.TapeDir(cfg), tape.Filter{Since: since, Until: until}, o, func(a *policy.Asked) error { p.Play(a); return nil })
	totals := p.Finish()
	bar.end()
	if err != nil {
		return err
	}
	if err := out.totals(&totals, stats.Problems, time.Since(began)); err != nil {
		return err
	}
	if out.err != nil {
		return out.err
	}
	if out.tests != nil {
		if err := out.tests.write(std); err != nil {
			return err
		}
	}
	if totals.Differences > 0 {
		return exit(2)
	}
	return nil
}

func joined(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func liveDNS(c *config.Config) (policy.Resolver, error) {
	live, err := dns.NewLive(dns.LiveOptions{Servers: c.Resolvers})
	if err != nil {
		return nil, err
	}
	return core.Resolver(live), nil
}

// replayPrinter prints what differs.
type replayPrinter struct {
	std     streams
	limit   int
	json    bool
	bar     *progress
	printed int
	unknown int
	tests   *testWriter
	err     error
}

func (o *replayPrinter) differs(d *replay.Difference) {
	sure := len(d.Unknown) == 0
	if !sure {
		o.unknown++
	}
	if o.tests != nil && sure {
		o.tests.add(d)
	}
	if o.err != nil || o.limit > 0 && o.printed >= o.limit {
		return
	}
	o.printed++
	o.bar.end()
	if o.json {
		o.err = json.NewEncoder(o.std.out).Encode(d)
		return
	}
	_, o.err = fmt.Fprint(o.std.out, differenceText(d))
}

// differenceText is a difference for people.
func differenceText(d *replay.Difference) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %s", d.Time.UTC().Format(time.RFC3339), d.Session, d.Door, d.Stage)
	for _, x := range []struct{ name, value string }{{"client", d.Client}, {"helo", d.Helo}, {"from", d.Sender}, {"to", d.Recipient}} {
		if x.value != "" {
			fmt.Fprintf(&b, " %s=%s", x.name, oneLine(x.value))
		}
	}
	b.WriteByte('\n')
	switch {
	case len(d.Unknown) > 0:
		fmt.Fprintf(&b, "  unknown: the tape does not tell %s\n", oneLine(strings.Join(d.Unknown, "; ")))
	case d.Approximate:
		b.WriteString("  approximate: an earlier moment of the session differs\n")
	}
	if d.Before != d.After {
		fmt.Fprintf(&b, "  was %s\n  is  %s\n", outcomeText(&d.Before), outcomeText(&d.After))
	}
	for _, x := range d.Checks {
		before, after := x.Before, x.After
		if before == "" {
			before = "not asked"
		}
		if after == "" {
			after = "not asked"
		}
		fmt.Fprintf(&b, "  %s: was %s, is %s\n", oneLine(x.Check), oneLine(before), oneLine(after))
	}
	if d.Live > 0 {
		fmt.Fprintf(&b, "  %s asked of DNS today\n", count(d.Live, "question was", "questions were"))
	}
	return b.String()
}

func outcomeText(o *replay.Outcome) string {
	words := []string{o.Action}
	if o.Code != 0 {
		words = append(words, fmt.Sprint(o.Code))
	}
	for _, w := range []string{o.Enhanced, o.Text, o.Effects} {
		if w != "" {
			words = append(words, w)
		}
	}
	if o.Check != "" {
		words = append(words, "by "+o.Check)
	}
	return oneLine(strings.Join(words, " "))
}

func (o *replayPrinter) totals(t *replay.Totals, problems []tape.Problem, took time.Duration) error {
	if o.json {
		return json.NewEncoder(o.std.out).Encode(struct {
			*replay.Totals
			Problems []tape.Problem `json:"problems,omitempty"`
			Took     int64          `json:"took_ms"`
		}{t, problems, took.Milliseconds()})
	}
	w := o.std.out
	if more := t.Differences + t.Unknown - o.printed; more > 0 {
		fmt.Fprintf(w, "… and %d more\n", more)
	}
	for _, p := range problems {
		fmt.Fprintln(w, p)
	}
	fmt.Fprintf(w, "%s in %s, %s of checks\n", count(t.Moments, "moment", "moments"), count(t.Sessions, "session", "sessions"), count(t.Calls, "call", "calls"))
	if t.Moments > 0 {
		fmt.Fprintf(w, "from %s to %s, replayed in %s\n", t.First.UTC().Format(time.RFC3339), t.Last.UTC().Format(time.RFC3339), took.Round(time.Millisecond))
	}
	fmt.Fprintf(w, "%s: %d would be refused, %d would be let through, %d are approximate; %d unknown\n",
		count(t.Differences, "difference", "differences"), t.Rejects, t.Accepts, t.Approximate, t.Unknown)
	most(w, "by check", t.ByCheck)
	most(w, "by domain of the sender", t.BySender)
	if t.Live > 0 {
		fmt.Fprintf(w, "%s asked of DNS today: what depends on them is not what was then\n", count(t.Live, "question was", "questions were"))
	}
	if n := t.Fuel.Same + t.Fuel.Differs; n > 0 {
		fmt.Fprintf(w, "fuel is the same in %d of %d calls of unchanged modules", t.Fuel.Same, n)
		if t.Fuel.Differs > 0 {
			fmt.Fprintf(w, ", at most %.1f %% off in the others", 100*t.Fuel.Most)
		}
		fmt.Fprintln(w)
	}
	return nil
}

// most prints the largest numbers.
func most(w interface{ Write([]byte) (int, error) }, title string, counts map[string]int) {
	if len(counts) == 0 {
		return
	}
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a, b)
	})
	var b []string
	for _, n := range names[:min(len(names), 10)] {
		shown := n
		if shown == "" {
			shown = "none"
		}
		b = append(b, fmt.Sprintf("%s %d", oneLine(shown), counts[n]))
	}
	fmt.Fprintf(w, "%s: %s\n", title, strings.Join(b, ", "))
}
