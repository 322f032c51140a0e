package wasm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

// instance is one running copy of a module. It is asked one thing at a time, by
// whoever holds it. It is its own context, so that host functions find it
// without a closure or an allocation.
type instance struct {
	program *program
	pool    *pool // nil while the plugin is loaded
	mod     api.Module
	mem     api.Memory
	lin     *linearMemory
	guard   *guard
	grants  granted

	fuel, left, depth api.MutableGlobal
	bufferFn, eventFn api.Function
	stack             [4]uint64
	buffer, room      uint32 // the guest's request buffer
	encoded           []byte // event on its way to the guest, reused
	calls             int
	spent             int64 // fuel of the last call

	// of the call under way
	ctx         context.Context
	host        policy.Host
	event       *policy.Event
	now         time.Time
	io          time.Duration     // what may still be waited for
	mayPark     bool              // rather than wait in place
	parked      []policy.Question // what it was parked for
	logged      int
	questions   int
	stateOps    int
	output      []byte // standard output and error
	dnsRequest  string // of the last lookup
	dnsResponse string
	stateHeld   bool // the value below waits for a larger buffer
	stateKey    string
	stateValue  string
	fieldHeld   bool // the same for a header field
	fieldName   string
	fieldIndex  int32
	fieldValue  string

	monotonic uint64 // ns, only forward
}

// instanceKey finds the instance in the context of a host call.
type instanceKey struct{}

// Value returns the instance for its key (context.Context).
func (in *instance) Value(key any) any {
	if key == (instanceKey{}) {
		return in
	}
	return nil
}

// Deadline says that there is none: guests are stopped by fuel and watchdog.
func (in *instance) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done is never closed.
func (in *instance) Done() <-chan struct{} { return nil }

// Err is always nil.
func (in *instance) Err() error { return nil }

// newInstance makes an instance that stands at image, or before the first
// instruction if image is nil.
func (p *program) newInstance(im *image, limits Limits) (*instance, error) {
	in := &instance{program: p, lin: &linearMemory{limit: uint64(limits.Memory), image: im}, monotonic: uint64(time.Second)}
	ctx := experimental.WithMemoryAllocator(in, in.lin)
	mod, err := instantiate(ctx, p.host.runtime, p.compiled)
	if err != nil {
		_ = in.lin.release() // the instantiation's error is the one to tell
		return nil, err
	}
	in.mod, in.mem = mod, mod.Memory()
	global := func(name string) api.MutableGlobal {
		g, ok := mod.ExportedGlobal(name).(api.MutableGlobal)
		if !ok {
			err = fmt.Errorf("global %s is not there", name)
		}
		return g
	}
	in.fuel, in.left, in.depth = global(exportFuel), global(exportLeft), global(exportDepth)
	in.guard = &guard{stop: global(exportStop)}
	in.bufferFn, in.eventFn = mod.ExportedFunction(abi.ExportBuffer), mod.ExportedFunction(abi.ExportEvent)
	if err == nil && im != nil {
		err = im.restore(mod, in.lin, p.globals)
	}
	p.host.watchdog.add(in.guard)
	if err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

// instantiate calls wazero, which panics where an allocator cannot serve it.
func instantiate(ctx context.Context, r wazero.Runtime, c wazero.CompiledModule) (mod api.Module, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("instantiate: memory is beyond the limit: %v", p)
		}
	}()
	mod, err = r.InstantiateModule(ctx, c, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return nil, fmt.Errorf("instantiate: %w", err)
	}
	return mod, nil
}

// close ends the instance. It is called once, by its holder; nothing calls into
// the instance afterwards.
func (in *instance) close() {
	in.program.host.watchdog.remove(in.guard)
	_ = in.mod.Close(in) // nothing in it can fail: no files
	_ = in.lin.release() // a mapping of ours, whole
	in.mod, in.mem = nil, nil
}

// grown is by how many octets the memory is larger than the image.
func (in *instance) grown() int64 {
	n := int64(in.mem.Size())
	if in.lin.image != nil {
		n -= int64(in.lin.image.pages) * pageSize
	}
	return max(n, 0)
}

// begin gives the instance a budget and the world of one call.
func (in *instance) begin(ctx context.Context, host policy.Host, ev *policy.Event, l *Limits) {
	in.ctx, in.host, in.event = ctx, host, ev
	in.now = time.Time{}
	in.io, in.logged, in.questions, in.stateOps = l.IO, 0, 0, 0
	in.output, in.parked = in.output[:0], nil
	first := min(l.Fuel, slice)
	in.fuel.Set(uint64(first))
	in.left.Set(uint64(l.Fuel - first))
	in.guard.begin(l.CPU, l.Wall)
	in.program.host.watchdog.rouse()
}

// end takes the world away again and explains the call's error, if it had one.
func (in *instance) end(l *Limits, err error) error {
	late := in.guard.end()
	in.spent = l.Fuel - int64(in.left.Get()) - int64(in.fuel.Get())
	if err != nil {
		err = in.explain(err, late)
		if in.parked != nil {
			err = parkedError{in.parked}
		}
	}
	if len(in.output) > 0 && in.parked == nil {
		in.host.Log(4, "plugin wrote: "+logText(in.output))
	}
	if r, ok := in.host.(policy.Recorder); ok {
		r.Burned(in.spent)
	}
	in.ctx, in.host, in.event = nil, nil, nil
	in.dnsRequest, in.dnsResponse = "", ""
	in.stateHeld, in.stateKey, in.stateValue = false, "", ""
	in.fieldHeld, in.fieldName, in.fieldValue = false, "", ""
	return err
}

// write puts a request into the guest's buffer. It is called between begin and
// end.
func (in *instance) write(b []byte) error {
	if uint32(len(b)) > in.room || in.buffer == 0 {
		size := max(uint32(len(b)), 2048)
		in.stack[0] = uint64(size)
		if err := in.bufferFn.CallWithStack(in, in.stack[:1]); err != nil {
			return err
		}
		if in.buffer, in.room = uint32(in.stack[0]), size; in.buffer == 0 {
			return errors.New("buffer refused")
		}
	}
	if !in.mem.Write(in.buffer, b) {
		in.buffer = 0
		return errors.New("request buffer out of bounds")
	}
	return nil
}

// packed reads a result that the guest packed as ptr<<32 | len. It is the
// guest's memory: to be copied before the next call.
func (in *instance) packed(v uint64) ([]byte, error) {
	at, n := uint32(v>>32), uint32(v)
	if n > abi.MaxResult {
		return nil, fmt.Errorf("result of %d octets, more than %d", n, abi.MaxResult)
	}
	b, ok := in.mem.Read(at, n)
	if !ok {
		return nil, fmt.Errorf("result at %d of %d octets is out of bounds", at, n)
	}
	return b, nil
}

// run calls an export without parameters, under a budget.
func (in *instance) run(ctx context.Context, host policy.Host, l *Limits, name string) (uint64, error) {
	f := in.mod.ExportedFunction(name)
	if f == nil {
		return 0, nil
	}
	in.begin(ctx, host, nil, l)
	in.stack[0] = 0
	err := f.CallWithStack(in, in.stack[:1])
	return in.stack[0], in.end(l, err)
}

// initialize runs the start function and _initialize.
func (in *instance) initialize(ctx context.Context, host policy.Host, l *Limits) error {
	for _, name := range [...]string{exportStart, abi.ExportInitialize} {
		if _, err := in.run(ctx, host, l, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// configure hands the guest its Config message. What the guest has to say
// against it is returned as a ConfigError if it names a field.
func (in *instance) configure(ctx context.Context, host policy.Host, l *Limits, config []byte) error {
	f := in.mod.ExportedFunction(abi.ExportConfigure)
	in.begin(ctx, host, nil, l)
	err := in.write(config)
	if err == nil {
		in.stack[0] = uint64(len(config))
		err = f.CallWithStack(in, in.stack[:1])
	}
	if err = in.end(l, err); err != nil || in.stack[0] == 0 {
		return err
	}
	text, err := in.packed(in.stack[0])
	if err != nil {
		return err
	}
	said := clean(string(text), maxDetail)
	if field, why, ok := strings.Cut(said, ": "); ok && isName(field, "._") {
		return &ConfigError{field, why}
	}
	return errors.New("the plugin refuses its config: " + said)
}

// ask puts an event to the guest.
func (in *instance) ask(ctx context.Context, ev *policy.Event, host policy.Host, l *Limits) (policy.Verdict, error) {
	in.calls++
	in.encoded = appendEvent(in.encoded[:0], ev)
	in.begin(ctx, host, ev, l)
	err := in.write(in.encoded)
	if err == nil {
		in.stack[0], in.stack[1] = uint64(ev.Stage), uint64(len(in.encoded))
		err = in.eventFn.CallWithStack(in, in.stack[:2])
	}
	if err = in.end(l, err); err != nil {
		return policy.Verdict{}, err
	}
	switch result := int64(in.stack[0]); result {
	case abi.EventNext:
		return policy.Verdict{}, nil
	case abi.EventError:
		return policy.Verdict{}, &CallError{CauseGuest, "the plugin has no verdict"}
	}
	b, err := in.packed(in.stack[0])
	if err != nil {
		return policy.Verdict{}, &CallError{CauseBadVerdict, err.Error()}
	}
	v, err := decodeVerdict(b, ev.Stage)
	if err != nil {
		return policy.Verdict{}, &CallError{CauseBadVerdict, clean(err.Error(), maxDetail)}
	}
	return v, nil
}
