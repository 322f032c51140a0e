package core

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/wasm"
)

// Rules are the policies of a configuration, loaded as for a server but without
// one: for tests, rehearsals and explanations.
type Rules struct {
	config   *config.Config
	host     *wasm.Host
	policies []*policy.Policy
}

// LoadRules loads c's policies. Every fault is in the error.
func LoadRules(ctx context.Context, c *config.Config, log *slog.Logger) (*Rules, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	host, err := toolHost(log)
	if err != nil {
		return nil, err
	}
	known, lerr := openLists(c.Lists, log)
	policies, perr := loadPolicies(ctx, c.Policy, world{host: host, log: log}, config.Files{}, known)
	r := &Rules{config: c, host: host, policies: policies}
	if err := errors.Join(lerr, perr); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// toolHost is a host for commands that come and go: what they compile lies in
// the user's cache, where there is one that is the user's alone.
func toolHost(log *slog.Logger) (*wasm.Host, error) {
	if dir, err := os.UserCacheDir(); err == nil {
		dir = filepath.Join(dir, "wafer")
		if os.MkdirAll(filepath.Dir(dir), 0o700) == nil {
			if host, err := wasm.New(wasm.Options{CacheDir: dir, Logger: log}); err == nil {
				return host, nil
			}
		}
	}
	return wasm.New(wasm.Options{Logger: log})
}

// Set is the policies in a world of their own. With only, it has just those
// policies; a name that there is none of is an error. Sets share what checks
// have counted of themselves, and must not be used at the same time. The
// caller closes Rules, not Sets.
func (r *Rules) Set(o policy.SetOptions, only []string) (*policy.Set, error) {
	for _, name := range only {
		if !slices.ContainsFunc(r.policies, func(p *policy.Policy) bool { return p.Name == name }) {
			var names []string
			for _, p := range r.policies {
				names = append(names, p.Name)
			}
			return nil, fmt.Errorf("no policy %q; there are %q", name, names)
		}
	}
	var chosen []*policy.Policy
	for _, p := range r.policies {
		if len(only) == 0 || slices.Contains(only, p.Name) {
			chosen = append(chosen, p)
		}
	}
	return policy.NewSet(chosen, o), nil
}

// Policies are the policies in their order.
func (r *Rules) Policies() []*policy.Policy { return r.policies }

// Directory is who the configuration's domains know. Its users files are read now.
func (r *Rules) Directory(log *slog.Logger) (policy.Directory, error) {
	if len(r.config.Domains) == 0 {
		return nil, nil
	}
	_, ds, err := loadDomains(r.config, log)
	if err != nil {
		return nil, err
	}
	return ds, nil
}

// Close closes the plugins.
func (r *Rules) Close() error {
	set := policy.NewSet(r.policies, policy.SetOptions{})
	return errors.Join(set.Close(), r.host.Close())
}

// Branches are the ways that a check's configuration lets it go.
type Branches struct {
	Check, Where string
	When         bool // it has a when expression
	Exempt       bool // its policy leaves some alone
	Settings     []Setting
}

// Setting is a value of a check's config that decides what becomes of mail.
type Setting struct {
	Name   string // `reject = "not-fqdn"`
	Reason string // that verdicts have because of it, or what they end in; "" : any that objects
}

// Branches are the branches of every check in order. Settings are those lists
// of choices that are named by an action (reject = ["not-fqdn"]), and those
// fields that say which action a result has (fail = "reject").
func (r *Rules) Branches() []Branches {
	var all []Branches
	for i, p := range r.policies {
		for j, c := range p.Checks {
			b := Branches{
				Check: p.Name + "/" + c.Name, Where: c.Where, When: c.When != nil,
				Exempt: len(p.Exempt.Networks) > 0 || p.Exempt.Authenticated,
			}
			if m, ok := c.Plugin.(interface{ Manifest() *wasm.Manifest }); ok {
				b.Settings = settings(m.Manifest().Fields, r.config.Policy[i].Checks[j].With)
			}
			all = append(all, b)
		}
	}
	return all
}

func settings(fields []wasm.Field, with map[string][]string) (all []Setting) {
	actions := []string{"reject", "defer", "disconnect", "discard", "hold", "quarantine", "tag"}
	for _, f := range fields {
		values := with[f.Name]
		switch {
		case len(f.Choices) == 0 || len(values) == 0:
		case f.Type == wasm.List && slices.Contains(actions, f.Name):
			for _, v := range values {
				all = append(all, Setting{fmt.Sprintf("%s = %q", f.Name, v), v})
			}
		case f.Type == wasm.String && slices.Contains(f.Choices, "reject"):
			s := Setting{fmt.Sprintf("%s = %q", f.Name, values[0]), strings.ReplaceAll(f.Name, "_", "-")}
			if f.Name == "action" {
				s.Reason = ""
			}
			all = append(all, s)
		}
	}
	return all
}
