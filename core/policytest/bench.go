package policytest

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/policy"
)

// Bench runs each test over and over for about the time given and writes a line
// for each in the form of go test -bench, with the fuel that its checks burn:
// for comparing one policy with another on the same machine.
func Bench(ctx context.Context, w io.Writer, rules *core.Rules, tests []config.Test, o Options, each time.Duration) error {
	ran := 0
	for _, t := range tests {
		if o.Run != nil && !o.Run.MatchString(t.Name) {
			continue
		}
		ran++
		n := 0
		var took time.Duration
		var decisions, fuel int64
		for took < each {
			r, err := run(ctx, rules, t, func(records []policy.Record) {
				decided, burned := cost(records)
				decisions, fuel = decisions+decided, fuel+burned
			})
			if err != nil {
				return fmt.Errorf("%s: test %q: %w", t.Where, t.Name, err)
			}
			if r.Failed() {
				return fmt.Errorf("%s: test %q fails: mend it before measuring it", t.Where, t.Name)
			}
			n++
			took += r.Took
		}
		perOp := float64(took.Nanoseconds()) / float64(n)
		fmt.Fprintf(w, "Benchmark/%s\t%8d\t%12.0f ns/op\t%8.1f checks/op\t%10.0f fuel/op\n",
			strings.ReplaceAll(t.Name, " ", "_"), n, perOp, float64(decisions)/float64(n), float64(fuel)/float64(n))
	}
	if ran == 0 {
		return fmt.Errorf("%w: none has a name that matches %s", config.ErrNoTests, o.Run)
	}
	return nil
}

// cost is how many checks were asked, and the fuel that they burned.
func cost(records []policy.Record) (asked, fuel int64) {
	for i := range records {
		if records[i].Skipped == "" {
			asked++
			fuel += records[i].Fuel
		}
	}
	return asked, fuel
}
