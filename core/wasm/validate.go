package wasm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wafermail/wafer/sdk/abi"
)

// signature is a function's type in letters: i for i32, I for i64; parameters,
// then ">" and results.
func (t funcType) signature() string {
	var b strings.Builder
	letters := func(types []byte) {
		for _, t := range types {
			switch t {
			case typeI32:
				b.WriteByte('i')
			case typeI64:
				b.WriteByte('I')
			default:
				b.WriteByte('?')
			}
		}
	}
	letters(t.params)
	b.WriteByte('>')
	letters(t.results)
	return b.String()
}

// required are the exports of every module, with their signatures.
var required = []struct{ name, signature string }{
	{abi.ExportABI, ">i"},
	{abi.ExportBuffer, "i>i"},
	{abi.ExportDescribe, ">I"},
	{abi.ExportConfigure, "i>I"},
	{abi.ExportEvent, "ii>I"},
}

// check refuses a module that does not keep to the ABI. It returns one error
// with everything that is wrong.
func (m *module) check() error {
	var bad []string
	say := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	m.checkImports(say)
	m.checkExports(say)
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(bad, "; "))
}

func (m *module) checkImports(say func(string, ...any)) {
	for _, f := range m.imports {
		known, ok := hostFunctions[f.module+"."+f.name]
		switch {
		case ok:
			if got := m.types[f.typ].signature(); got != known.signature {
				say("import %s.%s has signature %s, want %s", f.module, f.name, got, known.signature)
			}
		case f.module == abi.Module:
			say("import %s.%s needs a newer server", f.module, f.name)
		case strings.HasPrefix(f.module, "wafer") && f.module != abi.Module:
			say("import %q.%q is of another major version of the ABI; this server has %s", f.module, f.name, abi.Module)
		default:
			say("import %q.%q is not offered by this server", f.module, f.name)
		}
	}
}

func (m *module) checkExports(say func(string, ...any)) {
	seen := make(map[string]bool, len(m.exports))
	for _, e := range m.exports {
		if seen[e.name] {
			say("export %q twice", e.name)
		}
		seen[e.name] = true
		if strings.HasPrefix(e.name, reserved) {
			say("export %q has a reserved name", e.name)
		}
		if e.name == abi.ExportStart {
			say("export %q: the module is a command; build it as a reactor (go build -buildmode=c-shared)", e.name)
		}
	}
	for _, want := range required {
		e, ok := m.export(want.name)
		if !ok || e.kind != kindFunc {
			say("function %s is not exported", want.name)
			continue
		}
		if t, _ := m.typeOf(e.index); t.signature() != want.signature {
			say("export %s has signature %s, want %s", want.name, t.signature(), want.signature)
		}
	}
	if e, ok := m.export(abi.ExportInitialize); ok {
		if t, _ := m.typeOf(e.index); e.kind != kindFunc || t.signature() != ">" {
			say("export %s is no function without parameters and results", abi.ExportInitialize)
		}
	}
	if m.start >= 0 {
		if t, _ := m.typeOf(uint32(m.start)); t.signature() != ">" {
			say("start function has parameters or results")
		}
	}
	if e, ok := m.export(abi.ExportMemory); !ok || e.kind != kindMemory || m.memories == 0 {
		say("memory is not exported as %q", abi.ExportMemory)
	}
}

// checkGrants refuses imports that need a grant which the check does not have,
// unless the manifest says that the plugin can do without.
func (m *module) checkGrants(man *Manifest, granted []string) error {
	var bad []string
	for _, g := range granted {
		if !slices.Contains(grants, g) {
			bad = append(bad, fmt.Sprintf("allow has %q, which is no grant; there are %s", g, strings.Join(grants, ", ")))
		}
	}
	need := make(map[string]string) // grant → why
	for _, g := range man.Grants {
		if !g.Optional {
			need[g.Name] = "its manifest asks for " + g.Name
		}
	}
	for _, f := range m.imports {
		g := hostFunctions[f.module+"."+f.name].grant
		if g != "" && !man.optional(g) {
			need[g] = fmt.Sprintf("it imports %s.%s", f.module, f.name)
		}
	}
	for _, g := range grants {
		if why, ok := need[g]; ok && !slices.Contains(granted, g) {
			bad = append(bad, fmt.Sprintf("%s, which was not granted: write allow = [%q]", why, g))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(bad, "; "))
}
