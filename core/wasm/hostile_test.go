package wasm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

// TestHostileCalls loads modules that are valid and bad, and calls them. Every
// row ends in an error of the right cause, twice, and within the budget.
func TestHostileCalls(t *testing.T) {
	for _, r := range hostileRows() {
		t.Run(r.name, func(t *testing.T) {
			p := load(t, shared(t), r.module.bytes(), r.options())
			for range 2 {
				began := time.Now()
				v, err := p.Call(context.Background(), r.event(t), r.world())
				took := time.Since(began)
				var call *CallError
				if !errors.As(err, &call) || !strings.Contains(r.causes, call.Cause) {
					t.Fatalf("got %+v, %v; want %s", v, err, r.causes)
				}
				if strings.ContainsAny(err.Error(), "\r\n\x00") {
					t.Errorf("error is not printable: %q", err)
				}
				if took > 20*time.Second { // it would be for ever
					t.Errorf("took %v", took)
				}
			}
		})
	}
}

// TestCollectorDuringTree collects garbage while a guest runs a tree of calls
// without a loop, which wazero's own limit misses.
func TestCollectorDuringTree(t *testing.T) {
	b := new(builder)
	for i := range 40 {
		var code []byte
		if i < 39 {
			code = []byte{opCall, byte(i + 1), opCall, byte(i + 1)}
		}
		b.add(nil, nil, code...)
	}
	p := load(t, shared(t), b.complete(opCall, 0, opI64Const, 0).bytes(), LoadOptions{Limits: Limits{Fuel: 1 << 50}})
	done := make(chan error, 1)
	go func() {
		_, err := p.Call(context.Background(), event(t, policy.Helo, "x"), newWorld())
		done <- err
	}()
	for collected := 0; ; collected++ {
		select {
		case err := <-done:
			var call *CallError
			if !errors.As(err, &call) || call.Cause != CauseDeadline || collected < 2 {
				t.Errorf("got %v after %d collections", err, collected)
			}
			return
		default:
			runtime.GC()
		}
	}
}

// TestRefusedModules are modules that must not load, each with a word of why.
func TestRefusedModules(t *testing.T) {
	good := func() *builder { return new(builder).complete(opI64Const, 0) }
	with := func(change func(b *builder)) *builder { b := good(); change(b); return b }
	importing := func(module, name string) *builder {
		b := new(builder)
		b.imports = []builderImport{{module, name, b.typ(nil, nil)}}
		return b.complete(opI64Const, 0)
	}
	rows := []struct {
		name   string
		module *builder
		want   string
	}{
		{"unknown import", importing("env", "system"), `import "env"."system" is not offered`},
		{"import of a later minor", importing(abi.Module, "http"), "import wafer1.http needs a newer server"},
		{"import of a later major", importing("wafer2", "log"), `import "wafer2"."log" is of another major version`},
		{"import with another signature", importing(abi.Module, abi.ImportNow), "import wafer1.now has signature >, want >I"},
		{"unknown WASI function", importing(abi.WASI, "path_format"), "is not offered"},
		{"a command", with(func(b *builder) { b.export("_start", kindFunc, b.add(nil, nil)) }), "_start"},
		{"no exports", with(func(b *builder) { b.exports = nil }), "function wafer_event is not exported"},
		{"export with another signature", with(func(b *builder) { b.exports[5].index = 0 }), "export wafer_event has signature >i, want ii>I"},
		{"export with a reserved name", with(func(b *builder) { b.export("__wafer_fuel", kindFunc, 0) }), "reserved"},
		{"export twice", with(func(b *builder) { b.export(abi.ExportABI, kindFunc, 0) }), "twice"},
		{"memory is not exported", with(func(b *builder) { b.exports[0].name = "mem" }), "memory is not exported"},
		{"buffer out of bounds", with(func(b *builder) { b.funcs[1].code = append(appendSigned([]byte{opI32Const}, -16), opEnd) }), "out of bounds"},
		{"no buffer", with(func(b *builder) { b.funcs[1].code = []byte{opI32Const, 0, opEnd} }), "buffer refused"},
		{"buffer traps", with(func(b *builder) { b.funcs[1].code = []byte{opUnreachable, opEnd} }), "trap"},
		{"manifest out of bounds", with(func(b *builder) { b.funcs[2].code = append(packedConst(65000, 1000), opEnd) }), "out of bounds"},
		{"giant manifest", with(func(b *builder) { b.funcs[2].code = append(packedConst(0, 65537), opEnd) }), "more than 65536"},
		{"manifest of rubbish", with(func(b *builder) { b.funcs[2].code = append(packedConst(1025, 20), opEnd) }), "manifest"},
		{"refuses its config out of bounds", with(func(b *builder) { b.funcs[3].code = append(packedConst(65535, 9), opEnd) }), "out of bounds"},
		{"unknown stage", func() *builder {
			b := new(builder)
			b.completeWith(abi.Version, manifestOf("a.b", abi.LastStage+1), []byte{opI64Const, 0})
			return b
		}(), "stage 12 is unknown"},
		{"unknown grant", func() *builder {
			b := new(builder)
			b.completeWith(abi.Version, append(manifestOf("a.b", 1), appendElement(nil, abi.ManifestGrant, string(appendElement(nil, abi.GrantName, "root")))...), []byte{opI64Const, 0})
			return b
		}(), `grant "root" is unknown`},
		{"newer major", func() *builder {
			b := new(builder)
			b.completeWith(2<<16, manifestOf("a.b", 1), []byte{opI64Const, 0})
			return b
		}(), "version 2.0"},
		{"manifest without id", func() *builder {
			b := new(builder)
			b.completeWith(abi.Version, manifestOf("", 1), []byte{opI64Const, 0})
			return b
		}(), "manifest: id"},
		{"manifest without stages", func() *builder {
			b := new(builder)
			b.completeWith(abi.Version, manifestOf("a.b"), []byte{opI64Const, 0})
			return b
		}(), "no stages"},
		{"too much memory", with(func(b *builder) { b.memory = append([]byte{0}, appendU32(nil, 1025)...) }), "memory"},
		{"data beyond the memory", with(func(b *builder) { b.text(65535, "ab") }), "data beyond"},
		{"shared memory", with(func(b *builder) { b.memory = []byte{3, 1, 2} }), "shared"},
		{"giant table", with(func(b *builder) { b.tables = [][]byte{append([]byte{typeFuncref, 0}, appendU32(nil, 1<<27)...)} }), "elements"},
		{"many locals", with(func(b *builder) { b.funcs[0].locals = append(appendU32([]byte{1}, 1<<31), typeI64) }), "locals"},
		{"start function loops", with(func(b *builder) { b.start = b.add(nil, nil, opLoop, typeEmpty, opBr, 0, opEnd) }), "fuel"},
		{"initialize traps", with(func(b *builder) { b.export(abi.ExportInitialize, kindFunc, b.add(nil, nil, opUnreachable)) }), "trap"},
		// A new global, function, type or local would make these valid.
		{"sets a global that rewriting adds", with(func(b *builder) {
			b.funcs[4].code = join([]byte{opI64Const}, []byte{0, opGlobalSet, 0}, b.funcs[4].code)
		}), "global 0 does not exist"},
		{"reads a global that rewriting adds", with(func(b *builder) {
			b.funcs[4].code = join([]byte{opGlobalGet, 1, opDrop}, b.funcs[4].code)
		}), "global 1 does not exist"},
		{"calls the function that rewriting adds", with(func(b *builder) {
			b.funcs[4].code = join([]byte{opCall, 5}, b.funcs[4].code)
		}), "function 5 does not exist"},
		{"refers to the function that rewriting adds", with(func(b *builder) {
			b.funcs[4].code = join([]byte{opRefFunc, 5, opDrop}, b.funcs[4].code)
		}), "function 5 does not exist"},
		{"uses the local that rewriting adds", with(func(b *builder) {
			b.funcs[4].code = join([]byte{opLocalGet, 2, opDrop}, b.funcs[4].code)
		}), "local 2 does not exist"},
		{"uses the type that rewriting adds", with(func(b *builder) {
			b.funcs[4].code = join([]byte{opBlock, 5, opEnd}, b.funcs[4].code)
		}), "block of unknown type 5"},
		{"exports a global that rewriting adds", with(func(b *builder) { b.export("g", kindGlobal, 0) }), "invalid module"},
		{"wrong type on the stack", with(func(b *builder) { b.funcs[4].code = []byte{opI32Const, 0, opEnd} }), "invalid module"},
		{"branch to nowhere", with(func(b *builder) { b.funcs[4].code = []byte{opBr, 1, opEnd} }), "label 1"},
		{"tail call", with(func(b *builder) { b.funcs[4].code = []byte{0x12, 0, opEnd} }), "unknown opcode 0x12"},
		{"exception", with(func(b *builder) { b.funcs[4].code = []byte{0x08, 0, opEnd} }), "unknown opcode 0x8"},
		{"atomic", with(func(b *builder) { b.funcs[4].code = []byte{0xfe, 3, 0, opEnd} }), "unknown opcode 0xfe"},
		{"unknown section", with(func(b *builder) { b.sections = map[byte][]byte{11: {0, 13, 1, 0}} }), "too many"},
		{"instructions after the end", with(func(b *builder) { b.funcs[4].code = append(b.funcs[4].code, opUnreachable) }), "after the function's end"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if err := mustRefuse(t, r.module.bytes()); !strings.Contains(err.Error(), r.want) {
				t.Errorf("got %v, want in it %q", err, r.want)
			}
		})
	}
}

// TestTruncatedModules cuts a module at every octet.
func TestTruncatedModules(t *testing.T) {
	b := new(builder).complete(opI64Const, 0).bytes()
	for n := range len(b) {
		if p, err := shared(t).Load(context.Background(), b[:n], LoadOptions{Name: "cut"}); err == nil {
			_ = p.Close()
			t.Errorf("cut to %d of %d octets: loaded", n, len(b))
		}
	}
}

// TestFlippedModules flips every bit of a module; whatever still loads is
// called, and must end.
func TestFlippedModules(t *testing.T) {
	b := new(builder)
	b.add(nil, nil, opLoop, typeEmpty, opI32Const, 1, opDrop, opEnd)
	code := b.complete(opCall, 0, opI64Const, 0).bytes()
	loaded := 0
	for i := range len(code) * 8 {
		c := append([]byte(nil), code...)
		c[i/8] ^= 1 << (i % 8)
		p, err := shared(t).Load(context.Background(), c, LoadOptions{Name: "flipped", Limits: Limits{Fuel: 1_000_000}})
		if err != nil {
			continue
		}
		loaded++
		_, _ = p.Call(context.Background(), event(t, policy.Helo, "x"), newWorld()) // any end is good
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if loaded == 0 {
		t.Error("none loaded: the module was too fragile to test anything")
	}
}

// TestDamagedGoModule cuts what the Go compiler made and flips bits in its code:
// whatever still loads ends every call.
func TestDamagedGoModule(t *testing.T) {
	good := plugin(t, "helo")
	for i := range 16 {
		if m, err := shared(t).Inspect(context.Background(), good[:i*len(good)/16]); err == nil {
			t.Errorf("cut to %d sixteenths: loaded as %s", i, m.ID)
		}
	}
	for i, loaded := 0, 0; i < 16 && loaded < 2; i++ { // spread over the code, which is the middle of the file
		bad := append([]byte(nil), good...)
		at := len(bad)/8 + i*len(bad)/32
		bad[at] ^= 1 << (i % 8)
		p, err := shared(t).Load(context.Background(), bad, LoadOptions{Name: "damaged", Limits: Limits{Fuel: 10_000_000}})
		if err != nil {
			continue
		}
		loaded++
		_, _ = p.Call(context.Background(), event(t, policy.Helo, "mail.example.com"), newWorld()) // any end is good
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestPlainPath loads a module whose tables change, so that it has no image.
func TestPlainPath(t *testing.T) {
	b := new(builder)
	b.tables = [][]byte{{typeFuncref, 0, 1}}
	msg := verdict(2, 550, "no")
	b.text(8192, string(msg))
	b.complete(join([]byte{opI32Const, 0, opRefNull, typeFuncref, opTableSet, 0}, packedConst(8192, uint32(len(msg))))...)
	p := load(t, shared(t), b.bytes(), LoadOptions{Limits: Limits{Calls: 2}})
	if p.image != nil {
		t.Fatal("has an image")
	}
	for i := range 5 {
		v, err := p.Call(context.Background(), event(t, policy.Helo, "x"), newWorld())
		if err != nil || v.Status.Code != 550 {
			t.Fatalf("call %d: %+v, %v", i, v, err)
		}
	}
}

func TestSizeLimit(t *testing.T) {
	if _, err := shared(t).Inspect(context.Background(), make([]byte, abi.MaxModule+1)); err == nil || !strings.Contains(err.Error(), fmt.Sprint(abi.MaxModule)) {
		t.Errorf("got %v", err)
	}
}
