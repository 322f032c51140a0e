package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"text/tabwriter"
	"time"

	"github.com/wafermail/wafer/core/admin"
)

// statusCmd asks the running server.
type statusCmd struct {
	configFlag
	JSON    bool `help:"Print JSON."`
	Metrics bool `help:"Print what Prometheus would be told."`
}

// Run prints the server's status, or fails if none is running.
func (c *statusCmd) Run(std streams) error {
	state, err := c.state(std)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	path := "/status"
	if c.Metrics {
		path = "/metrics"
	}
	b, err := admin.Ask(ctx, state, path)
	if err != nil {
		return err
	}
	if c.JSON || c.Metrics {
		_, err := std.out.Write(b)
		return err
	}
	var s admin.Status
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("read the server's status: %w", err)
	}
	fmt.Fprintf(std.out, "%s (wafer %s), process %d, up %s\n", s.Hostname, s.Version, s.PID, time.Since(s.Started).Round(time.Second))
	fmt.Fprintf(std.out, "generation %d, %s, loaded %s by %s\n", s.Generation.Number, s.Generation.Digest, s.Generation.Loaded.Format(time.RFC3339), s.Generation.Origin)
	if last := s.Reloads.Last; last.Error != "" {
		fmt.Fprintf(std.out, "the last %s, at %s, failed and changed nothing: %s\n", last.Origin, last.Time.Format(time.RFC3339), last.Error)
	}
	if s.Rollout != nil {
		fmt.Fprint(std.out, rolloutText(s.Rollout))
	}
	fmt.Fprintf(std.out, "memory %d KiB, goroutines %d, messages owed to mailboxes %d\n\n", s.Memory/1024, s.Goroutines, s.Owed)
	w := tabwriter.NewWriter(std.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "LISTENER\tPROFILE\tADDRESS\tOPEN\tTOTAL\tPANICS")
	for _, l := range s.Listeners {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\n", l.Name, l.Profile, l.Address, l.Open, l.Total, l.Panics)
	}
	if len(s.Checks) > 0 {
		fmt.Fprintln(w, "\nCHECK\tASKED\tNEXT\tREFUSED\tERRORS\t")
		names := make([]string, 0, len(s.Checks))
		for name := range s.Checks {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			t := s.Checks[name]
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t\n", name, t.Asked, t.Next, t.Refuse, t.Errors)
		}
	}
	return w.Flush()
}
