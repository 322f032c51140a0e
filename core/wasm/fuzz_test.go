package wasm

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

// generator makes small valid functions out of arbitrary octets: each octet
// picks the next thing. What it makes always ends: loops count down.
type generator struct {
	in    []byte
	funcs int // that may be called: those before this one
	out   []byte
	depth int
}

func (g *generator) pick(n int) int {
	if len(g.in) == 0 {
		return 0
	}
	c := int(g.in[0])
	g.in = g.in[1:]
	return c % n
}

// statement leaves the stack as it was. Locals 0 to 2 are i32 for values;
// local 3+depth counts a loop's rounds.
func (g *generator) statement() {
	kind := g.pick(9)
	if g.depth > 2 && kind >= 2 && kind <= 4 {
		kind = 0
	}
	switch kind {
	case 0, 1:
		g.value()
		g.out = append(g.out, opLocalSet, byte(g.pick(3)))
	case 2: // a loop that counts down
		counter := byte(3 + g.depth)
		g.out = append(g.out, opI32Const, byte(1+g.pick(9)), opLocalSet, counter, opLoop, typeEmpty)
		g.block()
		g.out = append(g.out, opLocalGet, counter, opI32Const, 1, opI32Sub, opLocalTee, counter, opBrIf, 0, opEnd)
	case 3:
		g.value()
		g.out = append(g.out, opIf, typeEmpty)
		g.block()
		g.out = append(g.out, opElse)
		g.block()
		g.out = append(g.out, opEnd)
	case 4: // a block that may be left early
		g.out = append(g.out, opBlock, typeEmpty)
		g.block()
		g.value()
		g.out = append(g.out, opBrIf, 0)
		g.block()
		g.out = append(g.out, opEnd)
	case 5: // return early
		g.value()
		g.out = append(g.out, opIf, typeEmpty)
		g.value()
		g.out = append(g.out, opReturn, opEnd)
	case 6: // store
		g.value()
		g.out = append(g.out, opI32Const, 0x3f, 0x71) // and
		g.value()
		g.out = append(g.out, 0x36, 2, 0)
	case 7: // fill
		g.out = append(g.out, opI32Const, 16, opI32Const, byte(g.pick(64)), opI32Const, byte(g.pick(64)), opMisc, 11, 0)
	case 8: // global
		g.value()
		g.out = append(g.out, opGlobalSet, 0)
	}
}

func (g *generator) block() {
	g.depth++
	for range g.pick(4) {
		g.statement()
	}
	g.depth--
}

// value leaves an i32.
func (g *generator) value() {
	switch g.pick(7) {
	case 0:
		g.out = append(g.out, opI32Const, byte(g.pick(64)))
	case 1:
		g.out = append(g.out, opLocalGet, byte(g.pick(3)))
	case 2:
		g.out = append(g.out, opGlobalGet, 0)
	case 3:
		g.out = append(g.out, opI32Const, byte(g.pick(32)), 0x28, 2, 0)
	case 4, 5:
		g.out = append(g.out, opLocalGet, byte(g.pick(3)), opI32Const, byte(g.pick(64)))
		g.out = append(g.out, []byte{opI32Add, opI32Sub, 0x6c, 0x71, 0x72, 0x73, 0x48}[g.pick(7)])
	case 6:
		if g.funcs == 0 {
			g.out = append(g.out, opI32Const, 1)
			return
		}
		f := byte(g.pick(g.funcs))
		g.out = append(g.out, opLocalGet, 0, opLocalGet, 1)
		if g.pick(2) == 0 {
			g.out = append(g.out, opCall, f)
		} else {
			g.out = append(g.out, opI32Const, f, opCallIndirect, 0, 0)
		}
	}
}

// generate makes a module whose functions call only those before them. The
// last one is exported as "run".
func generate(in []byte) []byte {
	g := &generator{in: in}
	b := &builder{start: -1, memory: []byte{1, 1, 2}, globals: [][]byte{{typeI32, 1, opI32Const, 7, opEnd}}}
	b.typ([]byte{typeI32, typeI32}, i32)
	n := 1 + g.pick(4)
	elems := []byte{0, opI32Const, 0, opEnd, byte(n)}
	for i := range n {
		g.out, g.funcs = nil, i
		for range 1 + g.pick(6) {
			g.statement()
		}
		g.value()
		b.funcs = append(b.funcs, builderFunc{locals: []byte{1, 8, typeI32}, code: append(g.out, opEnd)})
		elems = append(elems, byte(i))
	}
	b.tables = [][]byte{{typeFuncref, 0, byte(n)}}
	b.elems = [][]byte{elems}
	b.export("run", kindFunc, n-1)
	b.export("memory", kindMemory, 0)
	return b.bytes()
}

// FuzzMeter runs small modules plain and metered: both give the same results
// and leave the same memory.
func FuzzMeter(f *testing.F) {
	r := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigInterpreter())
	f.Cleanup(func() { _ = r.Close(context.Background()) })
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		seed := make([]byte, 200)
		for j := range seed {
			seed[j] = byte(random.Uint32())
		}
		f.Add(seed)
		if i < 4 {
			corpus(f, "FuzzMeter", fmt.Sprint("seed", i), seed)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 2000 {
			return
		}
		plain := generate(in)
		m, err := parseModule(plain)
		if err != nil {
			t.Fatalf("generated module does not parse: %v", err)
		}
		want, wantMemory := runModule(t, r, plain, false)
		got, gotMemory := runModule(t, r, m.meter(true), true)
		if got != want {
			t.Errorf("metered %s, plain %s", got, want)
		}
		if !bytes.Equal(gotMemory, wantMemory) {
			t.Error("memories differ")
		}
	})
}

// runModule runs a generated module, which ends by itself.
func runModule(t *testing.T, r wazero.Runtime, code []byte, metered bool) (outcome string, memory []byte) {
	t.Helper()
	ctx := context.Background()
	mod, err := r.InstantiateWithConfig(ctx, code, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		t.Fatalf("metered %v: %v", metered, err)
	}
	defer mod.Close(ctx)
	if metered {
		mod.ExportedGlobal(exportFuel).(api.MutableGlobal).Set(slice)
		mod.ExportedGlobal(exportLeft).(api.MutableGlobal).Set(1 << 60)
	}
	out, err := mod.ExportedFunction("run").Call(ctx, 3, 5)
	outcome = fmt.Sprint(out)
	if err != nil {
		outcome, _, _ = strings.Cut(err.Error(), "\n")
	}
	b, _ := mod.Memory().Read(0, mod.Memory().Size())
	if metered && err == nil && mod.ExportedGlobal(exportDepth).Get() != 0 {
		t.Errorf("depth is %d after the call", mod.ExportedGlobal(exportDepth).Get())
	}
	return outcome, slices.Clone(b)
}

// FuzzParse reads arbitrary octets as a module. What it accepts and wazero
// finds valid must be valid still when it is rewritten.
func FuzzParse(f *testing.F) {
	for i, b := range []*builder{
		new(builder).complete(opI64Const, 0),
		answering(verdict(2, 550, "no")),
		wasiCall("random_get", []byte{typeI32, typeI32}, i32, opI32Const, 0, opI32Const, 8),
	} {
		f.Add(b.bytes())
		corpus(f, "FuzzParse", fmt.Sprint("module", i), b.bytes())
	}
	f.Add(generate([]byte("a module of several functions, made from these octets")))
	h, err := New(Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = h.Close() })
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := parseModule(in)
		if err != nil || h.validate(in) != nil || m.memMin > 64 {
			return
		}
		for _, keep := range []bool{true, false} {
			if keep || m.imageable() {
				if err := h.validate(m.meter(keep)); err != nil {
					t.Errorf("valid module, invalid when metered: %v", err)
				}
			}
		}
	})
}

// FuzzVerdict decodes arbitrary octets after the first, which picks the stage. What is accepted keeps the promises of
// ABI.md.
func FuzzVerdict(f *testing.F) {
	for i, b := range [][]byte{
		verdict(2, 550, "no"),
		verdict(4, 421, "bye"),
		append(verdict(1, 0, ""), appendElement(nil, abi.VerdictMod, string(mod(abi.OpPrepend, "X-A", "b")))...),
		{0x39, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f},
	} {
		b = append([]byte{byte(policy.Mail - 1)}, b...)
		f.Add(b)
		corpus(f, "FuzzVerdict", fmt.Sprint("verdict", i), b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		stage := policy.Stage(b[0]%8 + 1)
		v, err := decodeVerdict(b[1:], stage)
		if err != nil {
			return
		}
		if strings.ContainsAny(v.Status.Text+v.Status.Enhanced+v.Reason, "\r\n\x00") || len(v.Status.Text) > abi.MaxText {
			t.Errorf("accepted %+v", v)
		}
		code := v.Status.Code
		switch v.Action {
		case policy.Reject:
			if code != 0 && (code < 500 || code > 599) {
				t.Errorf("reject with %d", code)
			}
		case policy.Defer, policy.DeferIfPermit, policy.DeferIfReject:
			if code != 0 && (code < 400 || code > 499) {
				t.Errorf("defer with %d", code)
			}
		case policy.Discard, policy.Hold, policy.Quarantine:
			if stage < policy.Mail {
				t.Errorf("action %d at stage %d", v.Action, stage)
			}
		}
		for _, h := range v.Effects.Prepend {
			if strings.ContainsAny(h.Name, "\r\n: ") || strings.ContainsAny(h.Value, "\r\n\x00") || h.Name == "" {
				t.Errorf("accepted header field %+q", h)
			}
		}
		if e := v.Effects; len(e.Prepend)+len(e.Tags)+len(e.Redirect)+len(e.BCC) > abi.MaxMods {
			t.Error("too many modifications")
		}
	})
}

// FuzzManifest decodes arbitrary octets.
func FuzzManifest(f *testing.F) {
	seeds := [][]byte{manifestOf("org.example.a", 1, 2, 8)}
	field := appendElement(nil, abi.FieldName, "limit")
	field = appendUint(field, abi.FieldType, abi.TypeInt)
	field = appendElement(field, abi.FieldDefault, "3")
	seeds = append(seeds, append(manifestOf("org.example.b", 2), appendElement(nil, abi.ManifestField, string(field))...))
	for i, s := range seeds {
		f.Add(s)
		corpus(f, "FuzzManifest", fmt.Sprint("manifest", i), s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest(b)
		if err != nil {
			return
		}
		if m.ID == "" || len(m.Stages) == 0 || strings.ContainsAny(m.ID+m.Version+m.Help, "\r\n\x00") {
			t.Errorf("accepted %+v", m)
		}
		_, _ = m.Settings(map[string][]string{"limit": {"x"}}) // must not panic
	})
}
