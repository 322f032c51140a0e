package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/policytest"
)

// configFlag names the configuration file.
type configFlag struct {
	Config string `short:"c" default:"/etc/wafer/config.hcl" help:"Configuration file (${default})."`
}

// load reads the configuration; its diagnostics go to standard error as they are.
func (f configFlag) load(std streams) (*config.Config, error) { return loadConfig(std, f.Config) }

// state is the state directory of the configuration, which may be broken otherwise: a
// server that serves an earlier one can still be asked.
func (f configFlag) state(std streams) (string, error) {
	if dir := config.State(f.Config); dir != "" {
		return dir, nil
	}
	c, err := f.load(std)
	if err != nil {
		return "", err
	}
	return c.State, nil
}

func loadConfig(std streams, file string) (*config.Config, error) {
	c, err := config.Load(file)
	var faults *config.Error
	if errors.As(err, &faults) {
		fmt.Fprintf(std.err, "%s\n\nwafer: %s has %d faults\n", faults.Error(), filepath.Base(file), len(faults.Faults))
		return nil, exit(1)
	}
	return c, err
}

// runCmd serves.
type runCmd struct {
	configFlag
	LastGood bool `help:"Serve the newest generation that has served, whatever the files say now."`
	Watch    bool `help:"Reload whenever a file of the configuration changes."`
}

// Run serves until SIGINT or SIGTERM.
func (c *runCmd) Run(std streams) error {
	if !c.LastGood {
		cfg, err := c.load(std)
		if err != nil {
			return err
		}
		return serve(std, cfg, c.Watch, nil)
	}
	state, err := c.state(std)
	if err != nil {
		return err
	}
	cfg, err := core.LastGood(state)
	if err != nil {
		return err
	}
	return serve(std, cfg, c.Watch, nil)
}

// serve runs the server of a configuration until it is told to stop.
func serve(std streams, c *config.Config, watch bool, ready func(*core.Server)) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := newLogger(std, c.Log)
	s, err := core.Open(ctx, c, core.Options{Logger: log, Version: version, Test: testPolicies})
	if err != nil {
		return err
	}
	reload := func(why string) {
		// What went wrong is logged, and shown by status.
		if _, err := s.Reload(ctx, admin.ReloadOptions{}); err == nil {
			log.Info("reloaded", "why", why)
		}
	}
	stopHangup := onHangup(reload)
	defer stopHangup()
	if watch {
		stop, err := watchFiles(s.Files, func() { reload("files have changed") }, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	return s.Run(ctx, ready)
}

// onHangup reloads at SIGHUP.
func onHangup(reload func(why string)) (stop func()) {
	hangup := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		defer close(done)
		for range hangup {
			reload("SIGHUP")
		}
	}()
	return func() {
		signal.Stop(hangup)
		close(hangup)
		<-done
	}
}

// newLogger writes to standard error, as journald and every supervisor expect.
func newLogger(std streams, l config.Log) *slog.Logger {
	o := &slog.HandlerOptions{}
	switch l.Level {
	case "debug":
		o.Level = slog.LevelDebug
	case "warn":
		o.Level = slog.LevelWarn
	case "error":
		o.Level = slog.LevelError
	}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(std.err, o))
	}
	return slog.New(slog.NewTextHandler(std.err, o))
}

// checkCmd checks a configuration.
type checkCmd struct {
	File string `arg:"" optional:"" default:"/etc/wafer/config.hcl" help:"Configuration file (${default})."`
}

// Run builds everything, runs the policies' tests, and starts nothing.
func (c *checkCmd) Run(std streams) error {
	cfg, err := loadConfig(std, c.File)
	if err != nil {
		return err
	}
	log := newLogger(std, config.Log{Level: "error"})
	if err := core.Check(context.Background(), cfg, core.Options{Logger: log}); err != nil {
		return err
	}
	if err := runTests(std, cfg); err != nil {
		return err
	}
	checks := 0
	for _, p := range cfg.Policy {
		checks += len(p.Checks)
	}
	_, err = fmt.Fprintf(std.out, "good: %s, %s, %s with %s; digest %s\n",
		count(len(cfg.Domains), "domain", "domains"), count(len(cfg.Listeners), "listener", "listeners"),
		count(len(cfg.Policy), "policy", "policies"), count(checks, "check", "checks"), cfg.Digest)
	return err
}

// runTests runs the *_test.hcl of the folder of policies, if there are any.
// Tests that fail are findings.
func runTests(std streams, cfg *config.Config) error {
	report, err := faults(std, "tests", func() (*policytest.Report, error) {
		return policyTests(context.Background(), cfg, newLogger(std, config.Log{Level: "error"}))
	})
	if err != nil || report == nil {
		return err
	}
	if report.Failed() > 0 {
		report.Text(std.out, false)
		return exit(2)
	}
	return nil
}

// policyTests is the report of the tests in the folder of policies, nil if there are none.
func policyTests(ctx context.Context, cfg *config.Config, log *slog.Logger) (*policytest.Report, error) {
	if cfg.Policies == "" {
		return nil, nil
	}
	files, err := filepath.Glob(filepath.Join(escapeGlob(cfg.Policies), "*_test.hcl"))
	if err != nil || len(files) == 0 {
		return nil, err
	}
	tests, err := config.LoadTests(files)
	if err != nil {
		return nil, err
	}
	rules, err := core.LoadRules(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	report, err := policytest.Run(ctx, rules, tests, policytest.Options{})
	return report, errors.Join(err, rules.Close())
}

// testPolicies keeps a reload from using policies whose tests fail.
func testPolicies(ctx context.Context, cfg *config.Config) error {
	report, err := policyTests(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil || report == nil || report.Failed() == 0 {
		return err
	}
	var b strings.Builder
	report.Text(&b, false)
	return fmt.Errorf("%d tests of policies fail (--skip-tests reloads all the same):\n%s", report.Failed(), b.String())
}

func count(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprint(n, " ", many)
}
