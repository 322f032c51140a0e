package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/policytest"
)

// policyCmd is about what may pass.
type policyCmd struct {
	Test     policyTestCmd     `cmd:"" help:"Run the tests of policies (*_test.hcl)."`
	Explain  policyExplainCmd  `cmd:"" help:"Say why: of a decision in the log by its id, or of a mail described with flags."`
	Log      policyLogCmd      `cmd:"" help:"Print the decision log, filtered."`
	Counter  policyCounterCmd  `cmd:"" help:"List and reset what checks of the running server have counted (ratelimit)."`
	State    policyStateCmd    `cmd:"" help:"List and reset what checks of the running server remember (greylist)."`
	Diff     policyDiffCmd     `cmd:"" help:"Compare what was decided with what a shadow, and checks that only observe, would have."`
	Promote  policyPromoteCmd  `cmd:"" help:"Make the policies of the rollout those for everybody."`
	Withdraw policyWithdrawCmd `cmd:"" help:"End the rollout: it judges nobody any more."`
	Pack     policyPackCmd     `cmd:"" help:"Make one file of a folder of policies, signed if wanted."`
	Verify   policyVerifyCmd   `cmd:"" help:"Verify such a file, and show what is in it."`
	Key      policyKeyCmd      `cmd:"" help:"Make a pair of keys to sign such files with."`
	Replay   policyReplayCmd   `cmd:"" help:"Judge recorded mail again, with these policies or others, and print what differs."`
}

type policyTestCmd struct {
	Config string   `short:"c" help:"Configuration file whose folder of policies is tested, if no PATH is given."`
	Paths  []string `arg:"" optional:"" name:"path" help:"Folder of policies with their *_test.hcl files, or such files (the folder policies, else that of /etc/wafer/config.hcl)."`

	Match string        `name:"run" placeholder:"REGEXP" help:"Run only tests whose names match."`
	V     bool          `short:"v" help:"Print tests that are good, too, and all that their checks asked and said."`
	JSON  bool          `help:"Print one JSON object."`
	Junit string        `placeholder:"FILE" help:"Write a JUnit XML report, too."`
	Cover bool          `help:"Print which checks and branches the tests reach."`
	Bench time.Duration `placeholder:"TIME" help:"Measure each test for this long instead."`
}

// Run exits with 0 if every test is good, with 2 if one is not, and with 1 if
// there is nothing to test or the policies or tests are broken.
func (c *policyTestCmd) Run(std streams) error {
	var o policytest.Options
	if c.Match != "" {
		re, err := regexp.Compile(c.Match)
		if err != nil {
			return fmt.Errorf("-run: %w", err)
		}
		o.Run = re
	}
	folder, files, err := c.files(std)
	if err != nil {
		return err
	}
	cfg, err := faults(std, "policies", func() (*config.Config, error) { return config.LoadPolicies(folder) })
	if err != nil {
		return err
	}
	tests, err := faults(std, "tests", func() ([]config.Test, error) { return config.LoadTests(files) })
	if err != nil {
		return err
	}
	ctx := context.Background()
	rules, err := core.LoadRules(ctx, cfg, newLogger(std, config.Log{Level: "error"}))
	if err != nil {
		return err
	}
	return errors.Join(c.run(ctx, std, rules, tests, o), rules.Close())
}

func (c *policyTestCmd) run(ctx context.Context, std streams, rules *core.Rules, tests []config.Test, o policytest.Options) error {
	if c.Bench > 0 {
		return policytest.Bench(ctx, std.out, rules, tests, o, c.Bench)
	}
	report, err := policytest.Run(ctx, rules, tests, o)
	if err != nil {
		return err
	}
	if c.Junit != "" {
		if err := writeFile(c.Junit, report.JUnit); err != nil {
			return err
		}
	}
	if c.JSON {
		if err := report.JSON(std.out, c.Cover); err != nil {
			return err
		}
	} else {
		report.Text(std.out, c.V)
		if c.Cover {
			report.Coverage.Text(std.out)
		}
	}
	if report.Failed() > 0 {
		return exit(2)
	}
	return nil
}

// files finds the folder of the policies and the test files.
func (c *policyTestCmd) files(std streams) (folder string, files []string, err error) {
	paths := c.Paths
	if fi, err := os.Stat("policies"); len(paths) == 0 && c.Config == "" && err == nil && fi.IsDir() {
		paths = []string{"policies"}
	}
	if len(paths) == 0 {
		if c.Config == "" {
			c.Config = "/etc/wafer/config.hcl"
		}
		cfg, err := loadConfig(std, c.Config)
		if err != nil {
			return "", nil, err
		}
		if cfg.Policies == "" {
			return "", nil, fmt.Errorf("%s names no folder of policies: write policies = \"policies\", or wafer policy test PATH", c.Config)
		}
		paths = []string{cfg.Policies}
	}
	for _, p := range paths {
		fi, err := os.Stat(p)
		if err != nil {
			return "", nil, err
		}
		dir := p
		if !fi.IsDir() {
			if !strings.HasSuffix(p, "_test.hcl") {
				return "", nil, fmt.Errorf("%s is no test file: their names end in _test.hcl", p)
			}
			dir = filepath.Dir(p)
			files = append(files, p)
		} else {
			found, err := filepath.Glob(filepath.Join(escapeGlob(p), "*_test.hcl"))
			if err != nil {
				return "", nil, err
			}
			if len(found) == 0 {
				return "", nil, fmt.Errorf("%w: there is no *_test.hcl in %s", config.ErrNoTests, p)
			}
			files = append(files, found...)
		}
		if folder != "" && filepath.Clean(dir) != filepath.Clean(folder) {
			return "", nil, fmt.Errorf("%s and %s are two folders: test one after the other", folder, dir)
		}
		folder = dir
	}
	slices.Sort(files)
	return folder, slices.Compact(files), nil
}

// escapeGlob makes a path a pattern for itself alone.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// faults prints diagnostics as they are and turns them into an exit code.
func faults[T any](std streams, what string, load func() (T, error)) (T, error) {
	v, err := load()
	var found *config.Error
	if errors.As(err, &found) {
		fmt.Fprintf(std.err, "%s\n\nwafer: the %s have %s\n", found.Error(), what, count(len(found.Faults), "fault", "faults"))
		return v, exit(1)
	}
	return v, err
}

// writeFile writes a file that is a result.
func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
