package core

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/delegate"
	"github.com/wafermail/wafer/core/lists"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/milter"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/wasm"
	"github.com/wafermail/wafer/plugins"
)

// generation is everything that one configuration decides: who our users are,
// what may pass, which certificates we show. A session keeps the one it began
// with to its end.
type generation struct {
	number  int
	loaded  time.Time
	config  *config.Config
	certs   *certificates // nil: no TLS
	users   *auth.Domains
	domains *domains
	policy  *policy.Set

	doors   []*door      // that serve while it is current
	files   config.Files // what it was made of: configuration and modules
	shadow  *policy.Set  // watches everybody at the SMTP doors; nil: nobody does
	rollout *rollout     // nil: everybody is judged by policy
	origin  string       // "start", "reload", "rollback to 3"

	mu      sync.Mutex
	held    int
	retired bool
	free    chan struct{} // closed when it is retired and nobody holds it
}

// hold takes the generation for a session, until release. ok is false once it is
// retired and free.
func (g *generation) hold() (release func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.retired && g.held == 0 {
		return nil, false
	}
	g.held++
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.held--; g.retired && g.held == 0 {
			close(g.free)
		}
	}), true
}

// retire says that no new session will hold the generation.
func (g *generation) retire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.retired {
		return
	}
	if g.retired = true; g.held == 0 {
		close(g.free)
	}
}

// close waits for the generation's sessions and closes its plugins.
func (g *generation) close() error {
	g.retire()
	<-g.free
	return g.closePolicies()
}

// closePolicies closes the plugins. Nobody may hold the generation.
func (g *generation) closePolicies() error {
	var err error
	if g.rollout != nil {
		err = g.rollout.set.Close()
	}
	return errors.Join(g.policy.Close(), g.shadow.Close(), err)
}

// pin is the current generation, held for a session until release.
func (s *Server) pin() (g *generation, release func()) {
	for {
		g = s.current.Load()
		if release, ok := g.hold(); ok {
			return g, release
		}
	}
}

// conf is the current configuration.
func (s *Server) conf() *config.Config { return s.current.Load().config }

// world is what generations share and what outlives them.
type world struct {
	host  *wasm.Host
	set   policy.SetOptions
	certs *certificates // read while the rights to do so are there
	log   *slog.Logger
	files config.Files // modules that are not to be read anew; nil: none
}

// build makes a generation of a configuration without starting anything. Every
// fault is in the error, not only the first.
func build(ctx context.Context, c *config.Config, w world) (*generation, error) {
	g := &generation{loaded: time.Now(), config: c, certs: w.certs, free: make(chan struct{}), files: maps.Clone(c.Files)}
	if g.files == nil {
		g.files = config.Files{}
	}
	var faults []error
	fault := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	var err error
	if g.users, g.domains, err = loadDomains(c, w.log); err != nil {
		fault(err)
	}
	known, err := openLists(c.Lists, w.log)
	if err != nil {
		fault(err)
	}
	policies, err := loadPolicies(ctx, c.Policy, w, g.files, known)
	if err != nil {
		fault(err)
	}
	g.policy = policy.NewSet(policies, w.set)
	if c.Shadow != nil {
		g.shadow, err = buildShadow(ctx, c, w, g.files)
		fault(err)
	}
	if c.Rollout != nil {
		g.rollout, err = buildRollout(ctx, c, w, g.files)
		fault(err)
	}
	if len(faults) > 0 {
		return nil, errors.Join(append(faults, g.closePolicies())...)
	}
	return g, nil
}

// loadDomains opens the users files; one file may serve several domains.
func loadDomains(c *config.Config, log *slog.Logger) (*auth.Domains, *domains, error) {
	byFile := map[string][]string{}
	for _, d := range c.Domains {
		byFile[d.Users] = append(byFile[d.Users], d.Name)
	}
	files := map[string]*auth.File{}
	var faults []error
	for path, names := range byFile {
		f, err := auth.Open(path, auth.Options{Domains: names, Logger: log})
		if err != nil {
			faults = append(faults, err)
			continue
		}
		for _, name := range names {
			files[mail.DomainKey(name)] = f
		}
	}
	if len(faults) > 0 {
		return nil, nil, errors.Join(faults...)
	}
	ds := &domains{byName: map[string]*domain{}}
	for _, cd := range c.Domains {
		key := mail.DomainKey(cd.Name)
		d := &domain{
			name: key, maildir: cd.Maildir, users: domainUsers{files[key], key},
			aliases: map[string][]mail.Path{}, separator: cd.Separator, folders: cd.Folders, quota: cd.Quota,
		}
		for local, to := range cd.Aliases {
			for _, t := range to {
				p, err := mail.ParsePath(t, true)
				if err != nil {
					return nil, nil, fmt.Errorf("%s: alias %s: %w", cd.Where, local, err)
				}
				d.aliases[local] = append(d.aliases[local], p)
			}
		}
		if cd.CatchAll != "" {
			p, err := mail.ParsePath(cd.CatchAll, true)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: catch_all: %w", cd.Where, err)
			}
			d.catchAll = p
		}
		ds.byName[key] = d
		if ds.main == nil {
			ds.main = d
		}
	}
	return auth.NewDomains(files), ds, nil
}

// domainUsers are those users of a file that are of one domain.
type domainUsers struct {
	file   *auth.File
	domain string
}

func (u domainUsers) Has(local string) bool { return u.file.Has(local + "@" + u.domain) }

func (u domainUsers) Fields(local string) map[string]string {
	r, err := u.file.Lookup(local + "@" + u.domain)
	if err != nil {
		return nil
	}
	return r.Fields
}

func (u domainUsers) First() (string, bool) {
	for _, r := range u.file.List() {
		if local, ok := strings.CutSuffix(r.User, "@"+u.domain); ok {
			return local, true
		}
	}
	return "", false
}

// openLists reads every list.
func openLists(specs []config.List, log *slog.Logger) (map[string]policy.List, error) {
	known := map[string]policy.List{}
	var faults []error
	for _, s := range specs {
		l, err := lists.Open(lists.Spec{Name: s.Name, Type: s.Type, File: s.File, Entries: s.Entries, Logger: log})
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", s.Where, err))
			continue
		}
		known[s.Name] = l
	}
	return known, errors.Join(faults...)
}

// loadPolicies loads the plugin of every check.
func loadPolicies(ctx context.Context, policies []config.Policy, w world, files config.Files, known map[string]policy.List) ([]*policy.Policy, error) {
	var all []*policy.Policy
	var faults []error
	for _, cp := range policies {
		p := &policy.Policy{Name: cp.Name, On: cp.On, ReplyAt: cp.ReplyAt, Exempt: cp.Exempt, SoftBounce: cp.SoftBounce}
		for _, cc := range cp.Checks {
			plugin, err := loadPlugin(ctx, cp.Name, cc, w, files)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			check := &policy.Check{
				Name: cc.Name, Plugin: plugin, At: cc.At, When: cc.When, Observe: cc.Observe,
				OnError: cc.OnError, ReplyAt: cc.ReplyAt, Where: cc.Where, Lists: map[string]policy.List{},
			}
			for _, name := range cc.Lists {
				check.Lists[name] = known[name]
			}
			p.Checks = append(p.Checks, check)
		}
		all = append(all, p)
	}
	return all, errors.Join(faults...)
}

func loadPlugin(ctx context.Context, owner string, c config.Check, w world, files config.Files) (policy.Plugin, error) {
	if c.Delegate != "" {
		timeout := c.Timeout
		if timeout == 0 {
			timeout = 10 * time.Second
		}
		p, err := delegate.New(delegate.Options{Address: c.Delegate, Timeout: timeout, Logger: w.log})
		if err != nil {
			return nil, fmt.Errorf("%s: check %q: %w", c.Where, owner+"/"+c.Name, err)
		}
		return p, nil
	}
	if c.Milter != "" {
		p, err := milter.New(milter.Options{Address: c.Milter, Timeout: c.Timeout, Logger: w.log})
		if err != nil {
			return nil, fmt.Errorf("%s: check %q: %w", c.Where, owner+"/"+c.Name, err)
		}
		return p, nil
	}
	module, err := w.module(c)
	if err != nil {
		return nil, fmt.Errorf("%s: check %q: %w", c.Where, c.Name, err)
	}
	if c.Path {
		files[c.Plugin] = module
	}
	p, err := w.host.Load(ctx, module, wasm.LoadOptions{Name: owner + "/" + c.Name, Config: c.With, Grants: c.Allow, Source: c.Where, Limits: wasm.Limits{Wall: c.Timeout}})
	if err != nil {
		return nil, located(err, owner, c)
	}
	return p, nil
}

// located gives each fault in a check's config the place of its field.
func located(err error, owner string, c config.Check) error {
	var faults []error
	var walk func(error)
	walk = func(err error) {
		var field *wasm.ConfigError
		switch e := err.(type) {
		case *wasm.ConfigError:
			field = e
		case interface{ Unwrap() []error }:
			for _, one := range e.Unwrap() {
				walk(one)
			}
			return
		case interface{ Unwrap() error }:
			walk(e.Unwrap())
			return
		}
		if field == nil {
			return
		}
		where := c.Where
		if at := c.WithWhere[field.Field]; at != "" {
			where = at
		}
		faults = append(faults, fmt.Errorf("%s: check %q: %w", where, owner+"/"+c.Name, field))
	}
	if walk(err); len(faults) == 0 {
		return err
	}
	return errors.Join(faults...)
}

// module is a check's module: that of an earlier generation, or what is there now.
func (w world) module(c config.Check) ([]byte, error) {
	if c.Path && w.files != nil {
		if module, ok := w.files[c.Plugin]; ok {
			return module, nil
		}
	}
	return readModule(c)
}

// maxModule bounds a module's file, in octets.
const maxModule = 16 << 20

// readModule finds a check's module: a file, or one that is built in.
func readModule(c config.Check) ([]byte, error) {
	if c.Path {
		fi, err := os.Stat(c.Plugin)
		if err != nil {
			return nil, err
		}
		if fi.Size() > maxModule {
			return nil, fmt.Errorf("module %s is larger than %d octets", c.Plugin, maxModule)
		}
		return os.ReadFile(c.Plugin)
	}
	b, err := fs.ReadFile(plugins.FS(), c.Plugin+".wasm")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no plugin %q is built in; there are %s (or write the path of a .wasm file)", c.Plugin, strings.Join(Plugins(), ", "))
	}
	return b, err
}

// Plugins lists the plugins that are built in.
func Plugins() (names []string) {
	files, err := fs.Glob(plugins.FS(), "*.wasm")
	if err != nil {
		return nil
	}
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".wasm"))
	}
	return names
}

// Examine looks at a plugin that is built in, or at a module by its path, as a
// check that names it would.
func Examine(ctx context.Context, plugin string) (*wasm.Examination, error) {
	byPath := strings.ContainsRune(plugin, '/') || strings.HasSuffix(plugin, ".wasm")
	module, err := readModule(config.Check{Plugin: plugin, Path: byPath})
	if err != nil {
		return nil, err
	}
	host, err := toolHost(nil)
	if err != nil {
		return nil, err
	}
	x := host.Examine(ctx, module)
	return x, host.Close()
}
