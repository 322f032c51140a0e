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

// spin is an endless loop that leaves an i64 it never gets to.
var spin = []byte{opLoop, typeEmpty, opBr, 0, opEnd, opI64Const, 0}

// result makes wafer_event answer with msg, which is put at 8192.
func answering(msg []byte) *builder {
	b := new(builder)
	b.text(8192, string(msg))
	return b.complete(packedConst(8192, uint32(len(msg)))...)
}

// verdict is a Verdict message of varints and texts, for tests.
func verdict(action, code uint64, text string) []byte {
	b := appendUint(nil, abi.VerdictAction, action)
	b = appendUint(b, abi.VerdictCode, code)
	return appendText(b, abi.VerdictText, text)
}

// TestHostileCalls loads modules that are valid and bad, and calls them. Every
// row ends in an error of the right cause, twice, and within the budget.
func TestHostileCalls(t *testing.T) {
	tree := func() *builder { // f0 calls f1 twice, which calls f2 twice, …: 2^39 calls without a loop
		b := new(builder)
		const levels = 40
		for i := range levels {
			var code []byte
			if i < levels-1 {
				code = []byte{opCall, byte(i + 1), opCall, byte(i + 1)}
			}
			b.add(nil, nil, code...)
		}
		return b.complete(opCall, 0, opI64Const, 0)
	}
	deep := func() *builder {
		b := new(builder)
		b.add(nil, nil, opCall, 0)
		return b.complete(opCall, 0, opI64Const, 0)
	}
	mutual := func() *builder {
		b := new(builder)
		b.add(nil, nil, opCall, 1)
		b.add(nil, nil, opCall, 0)
		return b.complete(opCall, 0, opI64Const, 0)
	}
	indirect := func() *builder { // a function that calls itself through the table
		b := new(builder)
		b.tables = [][]byte{{typeFuncref, 0, 1}}
		b.elems = [][]byte{{0, opI32Const, 0, opEnd, 1, 0}}
		b.add(nil, nil, opI32Const, 0, opCallIndirect, 0, 0)
		return b.complete(opCall, 0, opI64Const, 0)
	}
	wide := func() *builder { // recursion with a frame of 10,000 locals
		b := new(builder)
		b.add(nil, nil, opCall, 0)
		b.funcs[0].locals = append(appendU32([]byte{1}, 9000), typeI64)
		return b.complete(opCall, 0, opI64Const, 0)
	}
	growMemory := func() *builder { // until it fails, then for ever
		return new(builder).complete(opLoop, typeEmpty, opI32Const, 16, opMemoryGrow, 0, opDrop, opBr, 0, opEnd, opI64Const, 0)
	}
	growTable := func() *builder {
		b := new(builder)
		b.tables = [][]byte{{typeFuncref, 0, 1}}
		return b.complete(join([]byte{opLoop, typeEmpty, opRefNull, typeFuncref}, appendSigned([]byte{opI32Const}, 1000),
			[]byte{opMisc, 15, 0, opDrop, opBr, 0, opEnd, opI64Const, 0})...)
	}
	fill := func() *builder { // fills all of 64 MiB, again and again
		b := new(builder)
		b.memory = append([]byte{0}, appendU32(nil, 1024)...)
		return b.complete(join([]byte{opLoop, typeEmpty, opI32Const, 0, opI32Const, 0}, appendSigned([]byte{opI32Const}, 64<<20),
			[]byte{opMisc, 11, 0, opBr, 0, opEnd, opI64Const, 0})...)
	}
	storm := func(name string, params, results []byte, args ...byte) *builder {
		b := new(builder)
		b.imports = []builderImport{{abi.Module, name, b.typ(params, results)}}
		drop := []byte{opDrop}
		if len(results) == 0 {
			drop = nil
		}
		return b.complete(join([]byte{opLoop, typeEmpty}, args, []byte{opCall, 0}, drop, []byte{opBr, 0, opEnd, opI64Const, 0})...)
	}
	rows := []struct {
		name   string
		module *builder
		causes string
	}{
		{"endless loop", new(builder).complete(spin...), "fuel deadline"},
		{"exponential tree of calls without a loop", tree(), "fuel deadline"},
		{"deep recursion", deep(), "depth"},
		{"mutual recursion", mutual(), "depth"},
		{"recursion through a table", indirect(), "depth"},
		{"recursion with wide frames", wide(), "depth"},
		{"memory bomb", growMemory(), "fuel deadline"},
		{"table bomb", growTable(), "fuel deadline"},
		{"fills of 64 MiB", fill(), "fuel deadline"},
		{"storm of now", storm(abi.ImportNow, nil, i64), "fuel deadline"},
		{"storm of log", storm(abi.ImportLog, []byte{typeI32, typeI32, typeI32}, nil, opI32Const, 0, opI32Const, 0, opI32Const, 63), "fuel deadline"},
		{"storm of get", storm(abi.ImportGet, []byte{typeI32, typeI32, typeI32, typeI32}, i32, opI32Const, 0, opI32Const, 3, opI32Const, 0, opI32Const, 63), "fuel deadline"},
		{"trap", new(builder).complete(opUnreachable), "trap"},
		{"load out of bounds", new(builder).complete(opI32Const, 0x7f, 0x29, 0, 0), "trap"},
		{"division by zero", new(builder).complete(opI64Const, 1, opI64Const, 0, 0x7f), "trap"},
		{"guest error", new(builder).complete(opI64Const, 0x7f), "guest error"},
		{"result out of bounds", new(builder).complete(packedConst(0xfffffff0, 64)...), "bad verdict"},
		{"result across the end", new(builder).complete(packedConst(65530, 64)...), "bad verdict"},
		{"giant result", new(builder).complete(packedConst(0, 65537)...), "bad verdict"},
		{"longest length", new(builder).complete(packedConst(1, 0xffffffff)...), "guest error bad verdict"},
		{"result of rubbish", answering([]byte{0xff, 0xff, 0xff}), "bad verdict"},
		{"line end in the text", answering(verdict(2, 550, "a\r\nRCPT TO:<x>")), "bad verdict"},
		{"NUL in the text", answering(verdict(2, 550, "a\x00b")), "bad verdict"},
		{"long text", answering(verdict(2, 550, strings.Repeat("x", 481))), "bad verdict"},
		{"unknown action", answering(verdict(10, 0, "")), "bad verdict"},
		{"success as a refusal", answering(verdict(2, 250, "ok")), "bad verdict"},
		{"4xx for a reject", answering(verdict(2, 450, "no")), "bad verdict"},
		{"5xx for a defer", answering(verdict(3, 550, "no")), "bad verdict"},
		{"code for accept", answering(verdict(1, 250, "")), "bad verdict"},
		{"discard at helo", answering(verdict(5, 0, "")), "bad verdict"},
		{"line end in a header field", answering(appendElement(nil, abi.VerdictMod, string(mod(abi.OpPrepend, "X-A", "b\nBcc: c")))), "bad verdict"},
		{"colon in a header field's name", answering(appendElement(nil, abi.VerdictMod, string(mod(abi.OpPrepend, "X-A: b\r\nX", "c")))), "bad verdict"},
		{"redirect at helo", answering(appendElement(nil, abi.VerdictMod, string(mod(abi.OpRedirect, "", "a@b.example")))), "bad verdict"},
		{"exit", wasiCall("proc_exit", i32, nil, opI32Const, 0), "exit"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p := load(t, shared(t), r.module.bytes(), LoadOptions{})
			for range 2 {
				w := newWorld()
				began := time.Now()
				v, err := p.Call(context.Background(), event(t, policy.Helo, "mail.example.com"), w)
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

func mod(op uint64, name, value string) []byte {
	b := appendUint(nil, abi.ModOp, op)
	b = appendText(b, abi.ModName, name)
	return appendElement(b, abi.ModValue, value)
}

// wasiCall makes wafer_event call a WASI function.
func wasiCall(name string, params, results []byte, args ...byte) *builder {
	b := new(builder)
	b.imports = []builderImport{{abi.WASI, name, b.typ(params, results)}}
	var drop []byte
	if len(results) > 0 {
		drop = []byte{opDrop}
	}
	return b.complete(join(args, []byte{opCall, 0}, drop, []byte{opI64Const, 0})...)
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
		{"import of a later minor", importing(abi.Module, abi.ImportStateGet), "import wafer1.state_get needs a newer server"},
		{"import of a later major", importing("wafer2", "log"), `import "wafer2"."log" is of another major version`},
		{"import with another signature", importing(abi.Module, abi.ImportNow), "import wafer1.now has signature >, want >I"},
		{"unknown WASI function", importing(abi.WASI, "path_format"), "is not offered"},
		{"a command", with(func(b *builder) { b.export("_start", kindFunc, b.add(nil, nil)) }), "_start"},
		{"no exports", with(func(b *builder) { b.exports = nil }), "function wafer_event is not exported"},
		{"export with another signature", with(func(b *builder) { b.exports[5].index = 0 }), "export wafer_event has signature >i, want ii>I"},
		{"export with a reserved name", with(func(b *builder) { b.export("__wafer_fuel", kindFunc, 0) }), "reserved"},
		{"export twice", with(func(b *builder) { b.export(abi.ExportABI, kindFunc, 0) }), "twice"},
		{"memory is not exported", with(func(b *builder) { b.exports[0].name = "mem" }), "memory is not exported"},
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
