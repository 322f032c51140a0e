// Package wasm runs policy plugins: WebAssembly modules that nobody here has to
// trust. A Host holds one wazero runtime; Load makes a policy.Plugin of a
// module, a configuration and a list of grants; Inspect only reads what a
// module says about itself. The contract with the modules is sdk/abi/ABI.md.
//
// # Loading
//
// A module is parsed and checked here, validated by wazero as it came, rewritten
// so that it can be stopped (see meter.go), validated and compiled by wazero
// again, initialised, asked for its manifest, and configured. The memory it has
// then is the image from which every instance starts, copy-on-write where the
// system can. Modules are compiled once for each digest, however many checks
// use them; with a cache folder also once for each machine.
//
// # Guarantees
//
// A Call returns within the plugin's budget whatever the plugin does: fuel,
// counted in the guest's own code, ends what computes; a watchdog ends what
// fuel does not see; memory, tables, depth of calls, log, results, questions to
// DNS are limited. A guest that loops for ever holds up Go's garbage collector
// for some 50 µs. An instance that failed is never used again. What a guest
// returns is checked before it is believed. wazero's own way to stop a guest
// (WithCloseOnContextDone) is not used: it is slow and misses code without loops.
//
// A call that waits for DNS lets others run meanwhile: a thousand sessions whose
// questions nobody answers hold some 0.2 MB each and nobody up (pool.go).
//
// Nothing is reachable for a guest but the functions of hostcalls.go, the other
// host files and wasi.go, and of those only what it imports and was granted.
//
// # BUGS
//
// A single instruction that fills or copies memory cannot be interrupted; with
// 64 MiB it takes some 10 ms.
//
// The stop flag is written by one goroutine while another one's native code
// reads it: an aligned word on amd64 and arm64, but nothing that Go's memory
// model promises. Fuel does not depend on it.
//
// Fuel counts a loop's whole body for each round, also where a round takes a
// short way through it. Go's compiler makes such loops of most functions, so a
// Go guest burns some ten units for each instruction; a budget of 1 billion is
// about 100 ms of its time.
//
// Fuel depends on what an instance did before (a guest's garbage collector runs
// now and then), so two instances may spend different amounts on one event. The
// verdict does not depend on it, unless the budget is tight.
//
// What instances have written to while they wait for DNS is bounded by their
// number, and by 512 MiB for what they have grown by, and not by their pages: a
// plugin with the grant dns that means harm can make 1,200 copies of its image,
// some 3 MB each, as long as so many sessions ask it.
//
// Looking a header field up by index costs the host a walk through the header
// section, so a plugin that reads all fields of a message one by one takes time
// in the square of their number; fuel and the time for waiting bound it.
//
// All instances of one load share the randomness that their language's runtime
// drew when it started (the seeds of its hash tables).
package wasm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wafermail/wafer/core/policy"
)

// Options of a Host. The zero value is good.
type Options struct {
	CacheDir string           // folder for compiled code, made with mode 0700 if it is missing; "" for none. Its files are trusted as machine code.
	Logger   *slog.Logger     // for what plugins write while they are loaded and for breakers; nil discards
	Now      func() time.Time // nil means time.Now
}

// Host runs the plugins of one server. Its methods may be called by many
// goroutines.
type Host struct {
	runtime  wazero.Runtime
	cache    wazero.CompilationCache
	watchdog *watchdog
	logger   *slog.Logger
	now      func() time.Time

	mu       sync.Mutex
	programs map[string]*program // by digest
	unused   []*program          // without references, the oldest first
	plugins  map[*Plugin]struct{}
}

// hostPages is the most memory that any plugin may be given, in pages.
const hostPages = 4096

// New returns a Host. Close ends it.
func New(o Options) (*Host, error) {
	h := &Host{
		logger:   o.Logger,
		now:      o.Now,
		programs: make(map[string]*program),
		plugins:  make(map[*Plugin]struct{}),
	}
	if h.logger == nil {
		h.logger = slog.New(slog.DiscardHandler)
	}
	if h.now == nil {
		h.now = time.Now
	}
	ctx := context.Background()
	config := wazero.NewRuntimeConfig().
		WithCoreFeatures(api.CoreFeaturesV2).
		WithMemoryLimitPages(hostPages).
		WithDebugInfoEnabled(false)
	if o.CacheDir != "" {
		if err := privateDir(o.CacheDir); err != nil {
			return nil, err
		}
		cache, err := wazero.NewCompilationCacheWithDir(o.CacheDir)
		if err != nil {
			return nil, fmt.Errorf("open compilation cache %s: %w", o.CacheDir, err)
		}
		h.cache = cache
		config = config.WithCompilationCache(cache)
	}
	h.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	if err := h.instantiateHostModules(ctx); err != nil {
		return nil, errors.Join(err, h.closeRuntime(ctx))
	}
	h.watchdog = newWatchdog()
	return h, nil
}

// privateDir makes dir, and refuses one that others can write or own: what lies
// in it will be executed.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make compilation cache: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at compilation cache: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("compilation cache %s can be written by others (mode %v): chmod 700 it", dir, info.Mode().Perm())
	}
	if !isOurs(info) {
		return fmt.Errorf("compilation cache %s belongs to another user: what lies in it would be run", dir)
	}
	return nil
}

// instantiateHostModules offers hostFunctions to the modules.
func (h *Host) instantiateHostModules(ctx context.Context) error {
	builders := make(map[string]wazero.HostModuleBuilder)
	for key, f := range hostFunctions {
		module, name := splitKey(key)
		b, ok := builders[module]
		if !ok {
			b = h.runtime.NewHostModuleBuilder(module)
			builders[module] = b
		}
		params, results := valueTypesOf(f.signature)
		call := f.call
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, stack []uint64) {
			call(ctx.Value(instanceKey{}).(*instance), mod.Memory(), stack)
		}), params, results).Export(name)
	}
	for module, b := range builders {
		if _, err := b.Instantiate(ctx); err != nil {
			return fmt.Errorf("offer module %s: %w", module, err)
		}
	}
	return nil
}

func splitKey(key string) (module, name string) {
	for i := range len(key) {
		if key[i] == '.' {
			return key[:i], key[i+1:]
		}
	}
	return key, ""
}

func valueTypesOf(signature string) (params, results []api.ValueType) {
	to := &params
	for _, c := range signature {
		switch c {
		case '>':
			to = &results
		case 'i':
			*to = append(*to, api.ValueTypeI32)
		case 'I':
			*to = append(*to, api.ValueTypeI64)
		}
	}
	return params, results
}

// Close closes every plugin that is still open, once its calls are over, and
// ends the runtime. Nothing may be loaded any more.
func (h *Host) Close() error {
	h.mu.Lock()
	plugins := make([]*Plugin, 0, len(h.plugins))
	for p := range h.plugins {
		plugins = append(plugins, p)
	}
	h.mu.Unlock()
	var errs []error
	for _, p := range plugins {
		errs = append(errs, p.Close())
	}
	h.watchdog.close()
	h.mu.Lock()
	for _, p := range h.unused {
		p.free()
	}
	h.unused = nil
	h.mu.Unlock()
	return errors.Join(append(errs, h.closeRuntime(context.Background()))...)
}

func (h *Host) closeRuntime(ctx context.Context) error {
	err := h.runtime.Close(ctx)
	if h.cache != nil {
		err = errors.Join(err, h.cache.Close(ctx))
	}
	return err
}

// loadHost is the world of a plugin that is being loaded: time and randomness,
// nobody to ask, nothing to count.
type loadHost struct {
	h     *Host
	check string
}

// errLoading is what a plugin hears that asks the host while it is loaded.
var errLoading = errors.New("not while loading")

// Now is the server's time.
func (l loadHost) Now() time.Time { return l.h.now() }

// Random fills p.
func (l loadHost) Random(p []byte) { _, _ = io.ReadFull(rand.Reader, p) } // crypto/rand does not fail

// DNS has no answers yet.
func (l loadHost) DNS(_ context.Context, qs []policy.Question) []policy.Answer {
	as := make([]policy.Answer, len(qs))
	for i := range as {
		as[i].Status = policy.DNSTemp
	}
	return as
}

// Count has no counters yet.
func (l loadHost) Count(context.Context, string, int64, time.Duration) (int64, error) {
	return 0, errLoading
}

// StateGet has no state yet.
func (l loadHost) StateGet(context.Context, string) ([]byte, bool, error) {
	return nil, false, errLoading
}

// StatePut has no state yet.
func (l loadHost) StatePut(context.Context, string, []byte, time.Duration) error { return errLoading }

// StateSeen has no state yet.
func (l loadHost) StateSeen(context.Context, string, time.Duration) (policy.Sighting, error) {
	return policy.Sighting{}, errLoading
}

// List has no lists yet.
func (l loadHost) List(string, string) (string, bool, error) { return "", false, errLoading }

// Metric counts nothing yet.
func (l loadHost) Metric(string, int64) {}

// Log writes to the server's log.
func (l loadHost) Log(level int, text string) {
	l.h.logger.Log(context.Background(), slog.Level(level), "plugin logged while loading", "check", l.check, "text", text)
}
