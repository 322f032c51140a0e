package wasm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

// Limits is one call's budget, and the pool's. A field that is zero means the
// default.
type Limits struct {
	Memory    int64         // octets of one instance's memory; 64 MiB, at most 256 MiB
	Fuel      int64         // units, at least the instructions; 1 billion, 4 if message is granted
	CPU       time.Duration // without host calls that wait; 100 ms
	Wall      time.Duration // 5 s
	IO        time.Duration // waiting in host calls; 4/5 of Wall
	Instances int           // in use at once: 2 for each core, 32 if state is granted, and 2 * stay if dns is
	Calls     int           // after which an instance is replaced; 10,000
	Retire    int64         // octets of memory above which an instance is replaced; 16 MiB
}

// withDefaults fills in what is zero. A plugin whose calls may wait has more
// instances: one that waits for DNS costs about a megabyte.
func (l Limits) withDefaults(g granted) Limits {
	def := func(v *int64, to int64) {
		if *v <= 0 {
			*v = to
		}
	}
	def(&l.Memory, 64<<20)
	l.Memory = min(l.Memory, hostPages*pageSize)
	fuel := int64(1_000_000_000)
	if g.message { // there may be much to read
		fuel *= 4
	}
	def(&l.Fuel, fuel)
	def((*int64)(&l.CPU), int64(100*time.Millisecond))
	def((*int64)(&l.Wall), int64(5*time.Second))
	def((*int64)(&l.IO), int64(l.Wall/5*4))
	def(&l.Retire, 16<<20)
	if l.Calls <= 0 {
		l.Calls = 10_000
	}
	if l.Instances <= 0 {
		l.Instances = l.running(g)
		if g.dns {
			l.Instances += 2 * stay
		}
	}
	return l
}

// running is how many instances may run at the same time; the rest wait for DNS.
func (l Limits) running(g granted) int {
	n := 2 * runtime.GOMAXPROCS(0)
	if g.state { // its calls may wait for a disk, and are not paused for that
		n = max(n, 32)
	}
	if l.Instances > 0 {
		n = min(n, l.Instances)
	}
	return n
}

// LoadOptions is one check's use of a module.
type LoadOptions struct {
	Name   string              // of the check, "inbound/helo"
	Config map[string][]string // by field; see Manifest.Settings
	Grants []string            // "dns", "count", "message", "state", "list"
	Limits Limits
	Source string // where the check is written, "config.hcl:12,3-9", for errors
}

// Plugin is a module loaded and configured for one check (policy.Plugin).
type Plugin struct {
	host    *Host
	program *program
	name    string
	stages  [abi.LastStage + 1]bool
	limits  Limits
	image   *image // configured; nil if the module has no images
	pool    *pool
	breaker breaker
	close   sync.Once

	parks bool // its calls may wait for DNS

	calls, failures, started atomic.Uint64
}

// Inspect returns what a module says about itself. Nothing is configured.
func (h *Host) Inspect(ctx context.Context, module []byte) (*Manifest, error) {
	l := Limits{}.withDefaults(granted{})
	p, err := h.program(ctx, module, &l)
	if err != nil {
		return nil, fmt.Errorf("inspect module: %w", err)
	}
	defer h.release(p)
	return p.manifest.clone(), nil
}

func (m *Manifest) clone() *Manifest {
	c := *m
	c.Stages, c.Grants, c.Fields = slices.Clone(m.Stages), slices.Clone(m.Grants), slices.Clone(m.Fields)
	return &c
}

// Load makes a plugin of a module. Every error begins with the check's source
// and name; those about the config wrap a ConfigError for each field.
func (h *Host) Load(ctx context.Context, module []byte, o LoadOptions) (*Plugin, error) {
	p, err := h.load(ctx, module, &o)
	if err != nil {
		where := ""
		if o.Source != "" {
			where = o.Source + ": "
		}
		return nil, fmt.Errorf("%scheck %q: %w", where, o.Name, err)
	}
	return p, nil
}

func (h *Host) load(ctx context.Context, module []byte, o *LoadOptions) (_ *Plugin, err error) {
	limits := o.Limits.withDefaults(grantsOf(o.Grants))
	prog, err := h.program(ctx, module, &limits)
	if err != nil {
		return nil, fmt.Errorf("load module: %w", err)
	}
	p := &Plugin{host: h, program: prog, name: o.Name, limits: limits, parks: grantsOf(o.Grants).dns}
	defer func() {
		if err != nil {
			p.image.close()
			h.release(prog)
		}
	}()
	if err := prog.module.checkGrants(prog.manifest, o.Grants); err != nil {
		return nil, fmt.Errorf("plugin %s: %w", prog.manifest.ID, err)
	}
	settings, err := prog.manifest.Settings(o.Config)
	if err != nil {
		return nil, err
	}
	config := encodeConfig(settings, o.Grants, o.Name)
	if len(config) > abi.MaxConfig {
		return nil, fmt.Errorf("config has %d octets, more than %d", len(config), abi.MaxConfig)
	}
	for _, s := range prog.manifest.Stages {
		p.stages[s] = true
	}
	if err := p.boot(ctx, config, o.Grants); err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.plugins[p] = struct{}{}
	h.mu.Unlock()
	return p, nil
}

// boot configures a first instance, takes its image, and opens the pool.
func (p *Plugin) boot(ctx context.Context, config []byte, granted []string) error {
	world := loadHost{p.host, p.name}
	grants := grantsOf(granted)
	limits := bootLimits
	limits.Memory = p.limits.Memory
	fresh := func() (*instance, error) {
		p.started.Add(1)
		in, err := p.program.newInstance(p.program.booted, p.limits)
		if err != nil {
			return nil, err
		}
		in.grants = grants
		if p.program.booted == nil {
			err = in.initialize(ctx, world, &limits)
		}
		if err == nil {
			err = in.configure(ctx, world, &limits, config)
		}
		if err != nil {
			in.close()
			return nil, err
		}
		return in, nil
	}
	in, err := fresh()
	if err != nil {
		var said *ConfigError
		if errors.As(err, &said) {
			return said
		}
		return fmt.Errorf("configure plugin %s: %w", p.program.manifest.ID, err)
	}
	start := fresh
	if p.program.booted != nil {
		p.image, err = snapshot(in.mod, p.program.globals)
		buffer, room, monotonic := in.buffer, in.room, in.monotonic
		if err != nil {
			in.close()
			return err
		}
		start = func() (*instance, error) {
			p.started.Add(1)
			in, err := p.program.newInstance(p.image, p.limits)
			if err != nil {
				return nil, err
			}
			in.buffer, in.room, in.monotonic = buffer, room, monotonic
			in.grants = grants
			return in, nil
		}
	}
	p.pool = newPool(p.limits.Instances, p.limits.running(grants), start)
	in.pool = p.pool
	p.pool.idle = append(p.pool.idle, in)
	return nil
}

// Manifest is what the module says about itself.
func (p *Plugin) Manifest() *Manifest { return p.program.manifest.clone() }

// ID is the id in the module's manifest (policy.Module).
func (p *Plugin) ID() string { return p.program.manifest.ID }

// Digest is the SHA-256 of the module in hexadecimal (policy.Module).
func (p *Plugin) Digest() string { return p.program.digest }

// Stats is what a plugin did so far.
type Stats struct {
	Calls     uint64 // that reached an instance
	Failures  uint64 // without a verdict
	Instances uint64 // started
}

// Stats returns the plugin's counts.
func (p *Plugin) Stats() Stats {
	return Stats{p.calls.Load(), p.failures.Load(), p.started.Load()}
}

// Call asks the plugin (policy.Plugin). At a stage that is not in its manifest
// it has no opinion. Errors are CallErrors, or the context's.
func (p *Plugin) Call(ctx context.Context, ev *policy.Event, host policy.Host) (policy.Verdict, error) {
	if int(ev.Stage) >= len(p.stages) || !p.stages[ev.Stage] {
		return policy.Verdict{}, nil
	}
	if !p.breaker.allow(p.host.now) {
		return policy.Verdict{}, &CallError{CauseOpen, "the plugin failed too often and is not asked for a while"}
	}
	return p.play(ctx, ev, host)
}

// play runs a call, anew each time that it was parked.
func (p *Plugin) play(ctx context.Context, ev *policy.Event, host policy.Host) (policy.Verdict, error) {
	var t *tape
	limits := p.limits
	if p.parks {
		t = &tape{Host: host}
		host = t
	}
	for {
		in, err := p.pool.take(ctx, max(limits.Wall, time.Millisecond))
		if err != nil {
			var call *CallError
			if errors.As(err, &call) && call.Cause == CauseStart {
				p.failed(call)
			}
			return policy.Verdict{}, err
		}
		if t == nil || t.calls == 0 {
			p.calls.Add(1)
		}
		in.mayPark = t != nil && t.calls < maxParks
		v, err := p.askWith(ctx, in, ev, host, &limits)
		if err == nil {
			return v, nil
		}
		var parked parkedError
		if !errors.As(err, &parked) {
			p.failed(err)
			return v, err
		}
		t.park(ctx, parked.questions, &limits)
	}
}

// askWith asks one instance and gives it back, whatever happens. A panic of
// the host's own functions passes through wazero as an error; should one not,
// the instance is still dropped.
func (p *Plugin) askWith(ctx context.Context, in *instance, ev *policy.Event, host policy.Host, l *Limits) (v policy.Verdict, err error) {
	good := false
	defer func() {
		if good && in.calls < p.limits.Calls && int64(in.mem.Size()) <= p.limits.Retire {
			p.pool.put(in)
			return
		}
		p.pool.drop(in)
	}()
	v, err = in.ask(ctx, ev, host, l)
	good = err == nil
	return v, err
}

func (p *Plugin) failed(err error) {
	p.failures.Add(1)
	if pause := p.breaker.fail(p.host.now()); pause > 0 {
		p.host.logger.Warn("plugin failed too often", "check", p.name, "pause", pause, "err", err)
	}
}

// Close waits for the calls under way and releases the plugin. Later calls end
// with CauseClosed. It may be called more than once.
func (p *Plugin) Close() error {
	p.close.Do(func() {
		p.pool.close()
		p.image.close()
		p.host.mu.Lock()
		delete(p.host.plugins, p)
		p.host.mu.Unlock()
		p.host.release(p.program)
	})
	return nil
}
