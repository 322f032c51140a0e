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
	in      []byte
	funcs   int   // that may be called: those before this one
	results []int // of each function
	own     int   // results of this one
	out     []byte
	depth   int
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
	kind := g.pick(13)
	if g.depth > 2 && (kind >= 2 && kind <= 4 || kind == 9) {
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
		for range g.own {
			g.value()
		}
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
	case 9: // a table of branches out of three blocks
		g.out = append(g.out, opBlock, typeEmpty, opBlock, typeEmpty, opBlock, typeEmpty)
		g.value()
		g.out = append(g.out, opBrTable, 2, 0, 1, 2, opEnd)
		g.block()
		g.out = append(g.out, opEnd)
		g.block()
		g.out = append(g.out, opEnd)
	case 10: // copy
		g.out = append(g.out, opI32Const, byte(g.pick(64)), opI32Const, byte(g.pick(64)), opI32Const, byte(g.pick(64)), opMisc, 10, 0, 0)
	case 11: // a trap, now and then
		g.value()
		g.out = append(g.out, opI32Const, 1, 0x46, opIf, typeEmpty, opUnreachable, opEnd)
	case 12: // 64-bit and floating point numbers, cut back
		g.value()
		g.out = append(g.out, 0xb7) // f64.convert_i32_s
		g.value()
		g.out = append(g.out, 0xb7, 0xa2, opMisc, 2, opLocalSet, byte(g.pick(3))) // f64.mul, i32.trunc_sat_f64_s
		g.value()
		g.out = append(g.out, 0xac, 0x42, 0x7d, i64Or, 0xa7, opLocalSet, byte(g.pick(3))) // i64.extend_i32_s, i64.const -3, i32.wrap_i64
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
	switch g.pick(10) {
	case 7:
		g.out = append(g.out, opI32Const, byte(g.pick(3)), opMemoryGrow, 0)
	case 8:
		g.out = append(g.out, opLocalGet, 0, opLocalGet, 1, opGlobalGet, 0, 0x1b) // select
	case 9:
		g.out = append(g.out, opLocalGet, byte(g.pick(3)), opIf, typeI32, opI32Const, byte(g.pick(64)), opElse, opLocalGet, 0, opEnd)
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
			typ := byte(g.results[f] - 1)
			if g.pick(16) == 1 {
				typ ^= 1 // of the wrong type: a trap
			}
			g.out = append(g.out, opI32Const, f, opCallIndirect, typ, 0)
			if typ == 1 {
				g.out = append(g.out, opDrop)
			}
			return
		}
		if g.results[f] == 2 {
			g.out = append(g.out, opDrop)
		}
	}
}

// generate makes a module whose functions call only those before them. The
// last one is exported as "run".
func generate(in []byte) []byte {
	g := &generator{in: in}
	b := &builder{start: -1, memory: []byte{1, 1, 2}, globals: [][]byte{{typeI32, 1, opI32Const, 7, opEnd}}}
	b.typ([]byte{typeI32, typeI32}, i32)
	b.typ([]byte{typeI32, typeI32}, []byte{typeI32, typeI32})
	n := 1 + g.pick(4)
	elems := []byte{0, opI32Const, 0, opEnd, byte(n)}
	for i := range n {
		g.out, g.funcs, g.own = nil, i, 1+g.pick(2)
		for range 1 + g.pick(6) {
			g.statement()
		}
		for range g.own {
			g.value()
		}
		g.results = append(g.results, g.own)
		b.funcs = append(b.funcs, builderFunc{typ: g.own - 1, locals: []byte{1, 8, typeI32}, code: append(g.out, opEnd)})
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
		if !policy.Legal(stage, v.Action) {
			t.Errorf("action %s at stage %s", v.Action, stage)
		}
		for effect, n := range map[policy.Effect]int{
			policy.Prepend: len(v.Effects.Prepend), policy.Tag: len(v.Effects.Tags), policy.Redirect: len(v.Effects.Redirect), policy.BCC: len(v.Effects.BCC),
		} {
			if n > 0 && !policy.LegalEffect(stage, effect) {
				t.Errorf("effect %s at stage %s", effect, stage)
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

// FuzzQuestions decodes arbitrary octets as a DNSRequest: what is accepted may be
// asked, and can be written again.
func FuzzQuestions(f *testing.F) {
	question := func(typ, name string) []byte {
		return appendElement(nil, abi.DNSItem, string(appendElement(appendElement(nil, abi.QuestionType, typ), abi.QuestionName, name)))
	}
	for i, b := range [][]byte{
		append(question("MX", "example.com"), question("PTR", "2001:db8::1")...), bytes.Repeat(question("A", "a.example"), 22), question("ANY", "x"), question("TXT", "a\r\nb"),
	} {
		f.Add(b)
		corpus(f, "FuzzQuestions", fmt.Sprint("batch", i), b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		qs, err := decodeQuestions(b)
		if err != nil {
			return
		}
		if len(qs) == 0 || len(qs) > abi.MaxDNSQuestion+1 {
			t.Errorf("%d questions", len(qs))
		}
		var again []byte
		for _, q := range qs {
			if !slices.Contains(questionTypes[:], q.Type) || q.Name == "" || len(q.Name) > 255 || !printableASCII([]byte(q.Name)) {
				t.Errorf("accepted %+q", q)
			}
			again = append(again, question(q.Type, q.Name)...)
		}
		if len(qs) <= abi.MaxDNSQuestion {
			if same, err := decodeQuestions(again); err != nil || !slices.Equal(same, qs) {
				t.Errorf("got %+q, %v, want %+q", same, err, qs)
			}
		}
	})
}
