package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/config"
)

// reloadCmd makes the running server use what is on disk.
type reloadCmd struct {
	configFlag
	DryRun    bool `help:"Build everything, tell what would change, and change nothing."`
	SkipTests bool `help:"Do not run the policies' tests before."`
	JSON      bool `help:"Print JSON."`
}

// Run asks the server to reload.
func (c *reloadCmd) Run(std streams) error {
	cfg, err := c.load(std) // its faults are shown here with their places
	if err != nil {
		return err
	}
	return changeGeneration(std, cfg, "reload", 0, admin.ReloadOptions{DryRun: c.DryRun, SkipTests: c.SkipTests}, c.JSON)
}

// rollbackCmd puts an earlier generation in place.
type rollbackCmd struct {
	configFlag
	Generation int  `arg:"" optional:"" help:"Number of the generation; the one before the current if it is left out."`
	DryRun     bool `help:"Tell what would change, and change nothing."`
	JSON       bool `help:"Print JSON."`
}

// Run asks the server to go back.
func (c *rollbackCmd) Run(std streams) error {
	state, err := c.state(std)
	if err != nil {
		return err
	}
	return changeGeneration(std, &config.Config{State: state}, "rollback", c.Generation, admin.ReloadOptions{DryRun: c.DryRun}, c.JSON)
}

func changeGeneration(std streams, cfg *config.Config, verb string, n int, o admin.ReloadOptions, asJSON bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	r, err := admin.ChangeGeneration(ctx, cfg.State, verb, n, o)
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(std.out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	for _, x := range r.Changes {
		switch x.Kind {
		case "changed":
			was, is := shorter(x.Before, x.After)
			_, err = fmt.Fprintf(std.out, "changed  %s: %s, was %s\n", x.What, orNothing(is), orNothing(was))
		case "added":
			_, err = fmt.Fprintf(std.out, "added    %s: %s\n", x.What, x.After)
		default:
			_, err = fmt.Fprintf(std.out, "removed  %s: %s\n", x.What, x.Before)
		}
		if err != nil {
			return err
		}
	}
	if len(r.Changes) == 0 {
		fmt.Fprintln(std.out, "nothing differs")
	}
	if o.DryRun {
		_, err = fmt.Fprintf(std.out, "generation %d goes on; this was a dry run\n", r.Before)
		return err
	}
	_, err = fmt.Fprintf(std.out, "generation %d serves, %s; it took the place of %d in %s\n", r.Generation, r.Digest, r.Before, time.Duration(r.SwapMicros)*time.Microsecond)
	return err
}

// shorter leaves out the words that two texts begin and end with.
func shorter(a, b string) (string, string) {
	x, y := strings.Fields(a), strings.Fields(b)
	for len(x) > 2 && len(y) > 2 && x[0] == y[0] && x[1] == y[1] {
		x, y = x[1:], y[1:]
	}
	for len(x) > 0 && len(y) > 0 && x[len(x)-1] == y[len(y)-1] {
		x, y = x[:len(x)-1], y[:len(y)-1]
	}
	return strings.Join(x, " "), strings.Join(y, " ")
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// generationsCmd lists what a rollback can go to.
type generationsCmd struct {
	configFlag
	JSON bool `help:"Print JSON."`
}

// Run asks the server.
func (c *generationsCmd) Run(std streams) error {
	state, err := c.state(std)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b, err := admin.Ask(ctx, state, "/generations")
	if err != nil {
		return err
	}
	if c.JSON {
		_, err := std.out.Write(b)
		return err
	}
	var all []admin.Kept
	if err := json.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	w := tabwriter.NewWriter(std.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "GENERATION\tDIGEST\tLOADED\tBY")
	for _, k := range all {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", k.Number, k.Digest, k.Loaded.Format(time.RFC3339), k.Origin)
	}
	return w.Flush()
}
