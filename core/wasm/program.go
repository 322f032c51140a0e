package wasm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wafermail/wafer/sdk/abi"
)

// program is a module that was checked, rewritten, compiled and asked for its
// manifest. All checks that use the same module share one.
type program struct {
	host     *Host
	digest   string
	module   *module
	compiled wazero.CompiledModule
	manifest *Manifest
	globals  []string // names of the mutable globals that an image keeps
	first    *image   // before the first instruction; nil if the module has no images
	booted   *image   // after _initialize; nil if the module has no images

	ready chan struct{} // closed once err and all above are set
	err   error
	refs  int // under Host.mu
}

// keepUnused is how many programs without a user stay compiled, for the check
// that comes before a load and for the next reload.
const keepUnused = 4

// bootLimits is the budget for each step of loading.
var bootLimits = Limits{Memory: 64 << 20, Fuel: 4_000_000_000, CPU: 5 * time.Second, Wall: 20 * time.Second, IO: time.Second}

// program returns the program of a module, compiled if need be. The caller
// releases it.
func (h *Host) program(ctx context.Context, code []byte, limits *Limits) (*program, error) {
	if len(code) > abi.MaxModule {
		return nil, fmt.Errorf("module has %d octets, more than %d", len(code), abi.MaxModule)
	}
	sum := sha256.Sum256(code)
	digest := hex.EncodeToString(sum[:])
	h.mu.Lock()
	p, ok := h.programs[digest]
	if !ok {
		p = &program{host: h, digest: digest, ready: make(chan struct{})}
		h.programs[digest] = p
	}
	if p.refs++; p.refs == 1 {
		h.unused = without(h.unused, p)
	}
	h.mu.Unlock()
	if !ok {
		p.err = p.build(ctx, code, limits)
		close(p.ready)
	}
	select {
	case <-p.ready:
	case <-ctx.Done():
		h.release(p)
		return nil, context.Cause(ctx)
	}
	if p.err != nil {
		h.release(p)
		return nil, p.err
	}
	return p, nil
}

// release gives a program back. A broken one is forgotten, so that the next
// load tries again.
func (h *Host) release(p *program) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.refs--
	if p.refs > 0 {
		return
	}
	select {
	case <-p.ready:
	default:
		return // still being built by somebody who holds a reference of his own
	}
	if p.err != nil {
		delete(h.programs, p.digest)
		return
	}
	h.unused = append(h.unused, p)
	for len(h.unused) > keepUnused {
		old := h.unused[0]
		h.unused = without(h.unused, old)
		delete(h.programs, old.digest)
		old.free()
	}
}

func without(ps []*program, p *program) []*program {
	out := make([]*program, 0, len(ps))
	for _, o := range ps {
		if o != p {
			out = append(out, o)
		}
	}
	return out
}

// free closes what the program holds.
func (p *program) free() {
	p.first.close()
	if p.booted != p.first {
		p.booted.close()
	}
	if p.compiled != nil {
		_ = p.compiled.Close(context.Background()) // gives memory back, cannot fail
	}
}

// build does everything from the octets to the manifest.
func (p *program) build(ctx context.Context, code []byte, limits *Limits) (err error) {
	defer func() {
		if err != nil {
			p.free()
			p.compiled = nil
		}
	}()
	if p.module, err = parseModule(code); err != nil {
		return err
	}
	if err = p.module.check(); err != nil {
		return err
	}
	if least := int64(p.module.memMin) * pageSize; least > limits.Memory {
		return fmt.Errorf("module begins with %d octets of memory, more than %d", least, limits.Memory)
	}
	if err = p.host.validate(code); err != nil {
		return err
	}
	imageable := p.module.imageable()
	if p.compiled, err = p.host.compile(ctx, p.module.meter(!imageable)); err != nil {
		return fmt.Errorf("compile the metered module: %w", err)
	}
	for _, i := range p.module.mutableGlobals() {
		p.globals = append(p.globals, globalName(i))
	}
	if imageable {
		p.first = p.module.firstImage()
	}
	p.module.forget()
	boot := bootLimits
	boot.Memory = max(boot.Memory, limits.Memory)
	return p.describe(ctx, len(code), &boot)
}

// describe starts the module once and reads its version and manifest.
func (p *program) describe(ctx context.Context, size int, limits *Limits) error {
	world := loadHost{p.host, p.digest[:12]}
	in, err := p.newInstance(p.first, *limits)
	if err != nil {
		return err
	}
	defer in.close()
	if err := in.initialize(ctx, world, limits); err != nil {
		return err
	}
	version, err := in.run(ctx, world, limits, abi.ExportABI)
	if err != nil {
		return fmt.Errorf("%s: %w", abi.ExportABI, err)
	}
	if major := uint32(version) >> 16; major != abi.Major {
		return fmt.Errorf("module is written for version %d.%d of the ABI; this server has %d.%d", major, uint32(version)&0xffff, abi.Major, abi.Minor)
	}
	result, err := in.run(ctx, world, limits, abi.ExportDescribe)
	if err != nil {
		return fmt.Errorf("%s: %w", abi.ExportDescribe, err)
	}
	b, err := in.packed(result)
	if err != nil {
		return fmt.Errorf("%s: %w", abi.ExportDescribe, err)
	}
	if p.manifest, err = decodeManifest(b); err != nil {
		return err
	}
	p.manifest.Digest, p.manifest.ABI, p.manifest.Size = p.digest, uint32(version), size
	if p.first != nil {
		p.booted, err = snapshot(in.mod, p.globals)
	}
	return err
}

// forget lets go of what only the rewriting needed.
func (m *module) forget() {
	*m = module{imports: m.imports, memMin: m.memMin, start: -1}
}

// errValidated is why the compilation of an unmetered module is given up.
var errValidated = errors.New("validated")

// validate lets wazero validate a module without compiling it: its context is
// already cancelled, and wazero looks at that after it has validated and before
// it compiles the first function, as long as there are two workers.
func (h *Host) validate(code []byte) error {
	ctx, cancel := context.WithCancelCause(experimental.WithCompilationWorkers(context.Background(), 2))
	cancel(errValidated)
	c, err := h.compileWith(ctx, code)
	switch {
	case err == nil: // an engine that does not look
		return c.Close(context.Background())
	case errors.Is(err, errValidated), errors.Is(err, context.Canceled):
		return nil
	}
	return fmt.Errorf("invalid module: %w", err)
}

// compile compiles with one worker, so that a panic in the compiler is ours to
// catch.
func (h *Host) compile(ctx context.Context, code []byte) (wazero.CompiledModule, error) {
	return h.compileWith(context.WithoutCancel(ctx), code)
}

func (h *Host) compileWith(ctx context.Context, code []byte) (c wazero.CompiledModule, err error) {
	defer func() {
		if r := recover(); r != nil {
			h.logger.Error("compiler panicked", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = fmt.Errorf("compiler panicked: %v", r)
		}
	}()
	return h.runtime.CompileModule(ctx, code)
}
