package wasm

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/wafermail/wafer/sdk/abi"
)

// builder writes modules for tests, octet by octet, so that they can be wrong
// in any way. Its zero value with complete is the smallest module that loads.
type builder struct {
	types    [][2][]byte // parameters, results
	imports  []builderImport
	funcs    []builderFunc
	tables   [][]byte
	memory   []byte // limits, nil for none
	globals  [][]byte
	exports  []builderExport
	start    int // -1: none
	elems    [][]byte
	data     [][]byte
	sections map[byte][]byte // instead of what would be written
}

type builderImport struct {
	module, name string
	typ          int
}

type builderFunc struct {
	typ    int
	locals []byte // declarations with their count; nil for none
	code   []byte // with its end
}

type builderExport struct {
	name  string
	kind  byte
	index int
}

func (b *builder) typ(params, results []byte) int {
	b.types = append(b.types, [2][]byte{params, results})
	return len(b.types) - 1
}

// add adds a function and returns its index; imports must be there already.
func (b *builder) add(params, results []byte, code ...byte) int {
	b.funcs = append(b.funcs, builderFunc{typ: b.typ(params, results), code: append(code, opEnd)})
	return len(b.imports) + len(b.funcs) - 1
}

func (b *builder) export(name string, kind byte, index int) {
	b.exports = append(b.exports, builderExport{name, kind, index})
}

// at returns the code of a constant that packs a place in memory.
func packedConst(ptr, n uint32) []byte {
	return appendSigned([]byte{opI64Const}, int64(uint64(ptr)<<32|uint64(n)))
}

var (
	i32 = []byte{typeI32}
	i64 = []byte{typeI64}
)

// manifestOf is a Manifest message for tests.
func manifestOf(id string, stages ...uint64) []byte {
	b := appendElement(nil, abi.ManifestID, id)
	b = appendElement(b, abi.ManifestVersion, "1")
	for _, s := range stages {
		b = appendUint(b, abi.ManifestStage, s)
	}
	return b
}

// complete adds what every module needs and lets wafer_event run code, which
// has the parameters stage and len and leaves an i64. The manifest stands at
// 1024, the request buffer at 4096.
func (b *builder) complete(event ...byte) *builder {
	b.completeWith(abi.Version, manifestOf("org.example.test", 2, 6, 8), event)
	return b
}

func (b *builder) completeWith(version int64, manifest, event []byte) {
	b.start = -1
	if b.memory == nil {
		b.memory = []byte{0, 1}
	}
	b.data = append(b.data, append(append(append([]byte{0}, appendSigned([]byte{opI32Const}, 1024)...), opEnd), appendName(nil, string(manifest))...))
	b.export(abi.ExportMemory, kindMemory, 0)
	b.export(abi.ExportABI, kindFunc, b.add(nil, i32, appendSigned([]byte{opI32Const}, version)...))
	b.export(abi.ExportBuffer, kindFunc, b.add(i32, i32, appendSigned([]byte{opI32Const}, 4096)...))
	b.export(abi.ExportDescribe, kindFunc, b.add(nil, i64, packedConst(1024, uint32(len(manifest)))...))
	b.export(abi.ExportConfigure, kindFunc, b.add(i32, i64, opI64Const, 0))
	b.export(abi.ExportEvent, kindFunc, b.add([]byte{typeI32, typeI32}, i64, event...))
}

// text puts s into memory at an address of its own.
func (b *builder) text(at uint32, s string) {
	b.data = append(b.data, append(append(append([]byte{0}, appendSigned([]byte{opI32Const}, int64(at))...), opEnd), appendName(nil, s)...))
}

func vectorOf(items [][]byte) []byte {
	out := appendU32(nil, uint32(len(items)))
	for _, i := range items {
		out = append(out, i...)
	}
	return out
}

// bytes is the module.
func (b *builder) bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, body []byte) {
		if other, ok := b.sections[id]; ok {
			body = other
		}
		if body != nil {
			out = append(appendU32(append(out, id), uint32(len(body))), body...)
		}
	}
	list := func(n int, item func(i int) []byte) []byte {
		if n == 0 {
			return nil
		}
		items := make([][]byte, n)
		for i := range items {
			items[i] = item(i)
		}
		return vectorOf(items)
	}
	section(1, list(len(b.types), func(i int) []byte {
		t := append(appendU32([]byte{typeFunc}, uint32(len(b.types[i][0]))), b.types[i][0]...)
		return append(appendU32(t, uint32(len(b.types[i][1]))), b.types[i][1]...)
	}))
	section(2, list(len(b.imports), func(i int) []byte {
		im := b.imports[i]
		return appendU32(append(appendName(appendName(nil, im.module), im.name), kindFunc), uint32(im.typ))
	}))
	section(3, list(len(b.funcs), func(i int) []byte { return appendU32(nil, uint32(b.funcs[i].typ)) }))
	section(4, list(len(b.tables), func(i int) []byte { return b.tables[i] }))
	if b.memory != nil {
		section(5, append([]byte{1}, b.memory...))
	}
	section(6, list(len(b.globals), func(i int) []byte { return b.globals[i] }))
	section(7, list(len(b.exports), func(i int) []byte {
		e := b.exports[i]
		return appendU32(append(appendName(nil, e.name), e.kind), uint32(e.index))
	}))
	if b.start > 0 {
		section(8, appendU32(nil, uint32(b.start)))
	}
	section(9, list(len(b.elems), func(i int) []byte { return b.elems[i] }))
	section(10, list(len(b.funcs), func(i int) []byte {
		locals := b.funcs[i].locals
		if locals == nil {
			locals = []byte{0}
		}
		body := append(append([]byte{}, locals...), b.funcs[i].code...)
		return append(appendU32(nil, uint32(len(body))), body...)
	}))
	section(11, list(len(b.data), func(i int) []byte { return b.data[i] }))
	return out
}

// join joins pieces of code.
func join(pieces ...[]byte) []byte {
	var out []byte
	for _, p := range pieces {
		out = append(out, p...)
	}
	return out
}

// mustRefuse reports the error of a module that must not load.
func mustRefuse(t *testing.T, module []byte) error {
	t.Helper()
	h := shared(t)
	p, err := h.Load(context.Background(), module, LoadOptions{Name: "test/refused"})
	if err == nil {
		_ = p.Close()
		t.Fatal("loaded")
	}
	return err
}

// corpus writes a seed of a fuzz target if WAFER_WRITE_CORPUS is set, so that
// the committed corpus can be made again.
func corpus(t testing.TB, target, name string, seed []byte) {
	if os.Getenv("WAFER_WRITE_CORPUS") == "" {
		return
	}
	dir := filepath.Join("testdata", "fuzz", target)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := "go test fuzz v1\n[]byte(" + strconv.Quote(string(seed)) + ")\n"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
