package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/rehearse"
)

// pluginAskCmd asks one plugin at one stage.
type pluginAskCmd struct {
	Plugin string   `arg:"" help:"Name of a plugin that is built in, or the path of a .wasm file."`
	At     string   `placeholder:"STAGE" help:"Stage at which it is asked (the first that it has)."`
	Allow  []string `placeholder:"GRANT" help:"What it is granted (all that it asks for)."`
	With   []string `placeholder:"FIELD=VALUE" sep:"none" help:"Its configuration; a field that is given again is a list."`

	mailFlags
	JSON bool `help:"Print the record as JSON."`
}

// Run prints what the plugin said, and what it asked the host.
func (c *pluginAskCmd) Run(std streams) error {
	ctx := context.Background()
	check := config.Check{
		Name: "ask", Plugin: c.Plugin, Path: strings.ContainsRune(c.Plugin, '/') || strings.HasSuffix(c.Plugin, ".wasm"),
		Allow: c.Allow, With: map[string][]string{}, OnError: policy.Defer, Where: filepath.Base(c.Plugin),
	}
	x, err := core.Examine(ctx, c.Plugin)
	if err != nil {
		return err
	}
	if x.Refused != nil {
		return x.Refused
	}
	if len(c.Allow) == 0 {
		for _, g := range x.Manifest.Grants {
			check.Allow = append(check.Allow, g.Name)
		}
	}
	stage := x.Manifest.Stages[0]
	if c.At != "" {
		ok := false
		if stage, ok = policy.ParseStage(c.At); !ok || !slices.Contains(x.Manifest.Stages, stage) {
			return fmt.Errorf("-at %q: %s is asked at %v", c.At, x.Manifest.ID, x.Manifest.Stages)
		}
	}
	check.At = []policy.Stage{stage}
	for _, f := range c.With {
		name, value, ok := strings.Cut(f, "=")
		if !ok {
			return fmt.Errorf("-with %q: write FIELD=VALUE", f)
		}
		check.With[name] = append(check.With[name], value)
	}
	cfg := &config.Config{Hostname: "mail.example.test", Policy: []config.Policy{{Name: "plugin", On: []string{c.Door}, Checks: []config.Check{check}}}}
	if c.Client == "" {
		c.Client = "192.0.2.1"
	}
	if c.From == "" && stage >= policy.Mail {
		c.From = "sender@example.net"
	}
	if len(c.To) == 0 && stage >= policy.Rcpt {
		c.To = []string{"recipient@example.test"}
	}
	if stage == policy.Message && c.Message == "" {
		return errors.New("stage message needs -message FILE")
	}
	return c.ask(ctx, std, cfg, stage)
}

func (c *pluginAskCmd) ask(ctx context.Context, std streams, cfg *config.Config, stage policy.Stage) error {
	sc, err := c.scenario(cfg)
	if err != nil {
		return err
	}
	log := newLogger(std, config.Log{Level: "debug"})
	rules, err := core.LoadRules(ctx, cfg, log)
	if err != nil {
		return err
	}
	var seen rehearse.Records
	set, err := rules.Set(policy.SetOptions{Resolver: core.Resolver(sc.Resolver), Log: &seen, Logger: log}, nil)
	if err != nil {
		return errors.Join(err, rules.Close())
	}
	rehearse.Begin(set, sc).Walk(ctx, sc)
	if err := rules.Close(); err != nil {
		return err
	}
	if len(seen.List) == 0 {
		return fmt.Errorf("stage %s does not come with these flags: it needs %s", stage, needs(stage))
	}
	for _, r := range seen.List {
		if c.JSON {
			err = printJSON(std, r)
		} else {
			rehearse.Trace(std.out, []policy.Record{r}, true)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// needs is what a stage needs to come.
func needs(stage policy.Stage) string {
	switch stage {
	case policy.Helo:
		return "-helo"
	case policy.StartTLS:
		return "-helo and -tls"
	case policy.Auth:
		return "-user"
	}
	return "-helo, and -user for -door submission"
}
