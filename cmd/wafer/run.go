package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/policytest"
)

// configFlag names the configuration file.
type configFlag struct {
	Config string `short:"c" default:"/etc/wafer/config.hcl" help:"Configuration file (${default})."`
}

// load reads the configuration; its diagnostics go to standard error as they are.
func (f configFlag) load(std streams) (*config.Config, error) { return loadConfig(std, f.Config) }

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
}

// Run serves until SIGINT or SIGTERM.
func (c *runCmd) Run(std streams) error { return serve(std, c.Config, nil) }

// serve runs the server of a configuration file until it is told to stop.
func serve(std streams, file string, ready func(*core.Server)) error {
	c, err := loadConfig(std, file)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := newLogger(std, c.Log)
	stopHangup := onHangup(log)
	defer stopHangup()
	s, err := core.Open(ctx, c, core.Options{Logger: log, Version: version})
	if err != nil {
		return err
	}
	return s.Run(ctx, ready)
}

// onHangup keeps SIGHUP, which means "reload" to everybody's habits, from
// ending the server.
func onHangup(log *slog.Logger) (stop func()) {
	hangup := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		defer close(done)
		for range hangup {
			log.Warn("SIGHUP is ignored: restart the server to use a new configuration")
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
	if cfg.Policies == "" {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(escapeGlob(cfg.Policies), "*_test.hcl"))
	if err != nil || len(files) == 0 {
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
	report, err := policytest.Run(ctx, rules, tests, policytest.Options{})
	if err = errors.Join(err, rules.Close()); err != nil {
		return err
	}
	if report.Failed() > 0 {
		report.Text(std.out, false)
		return exit(2)
	}
	return nil
}

func count(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprint(n, " ", many)
}
