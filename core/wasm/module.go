package wasm

import "bytes"

// Limits on a module's shape. They are far above what toolchains produce and
// keep the work of loading a hostile module small. Widths in octets.
const (
	maxTypes    = 10_000
	maxImports  = 1_000
	maxFuncs    = 100_000
	maxTables   = 16
	maxElements = 1 << 20 // of all tables and element segments
	maxGlobals  = 10_000
	maxExports  = 1_000
	maxSegments = 200_000
	maxLocals   = 10_000 // of a function, with its parameters
	maxParams   = 64
	maxBody     = 2 << 20 // of a function
	maxNesting  = 10_000  // of blocks
	maxGrown    = 1 << 16 // elements that a table may grow to beyond its minimum
)

const pageSize = 64 << 10

// Value types (Core 2.0 §5.3).
const (
	typeI32     = 0x7f
	typeI64     = 0x7e
	typeF32     = 0x7d
	typeF64     = 0x7c
	typeV128    = 0x7b
	typeFuncref = 0x70
	typeExtern  = 0x6f
	typeFunc    = 0x60
	typeEmpty   = 0x40
)

// Kinds of imports and exports.
const (
	kindFunc   = 0
	kindTable  = 1
	kindMemory = 2
	kindGlobal = 3
)

type funcType struct{ params, results []byte }

func (t funcType) equal(o funcType) bool {
	return bytes.Equal(t.params, o.params) && bytes.Equal(t.results, o.results)
}

type importedFunc struct {
	module, name string
	typ          uint32
}

type table struct {
	elem     byte
	min, max uint32
	hasMax   bool
}

type global struct {
	typ     byte
	mutable bool
	init    []byte // expression with its end
}

type export struct {
	name  string
	kind  byte
	index uint32
}

type segment struct {
	offset uint32 // of an active segment with a constant offset
	data   []byte
}

// module is a parsed and checked module. Slices share the input's memory.
type module struct {
	types    []funcType
	imports  []importedFunc
	funcs    []uint32 // types of the functions that are defined here
	tables   []table
	memMin   uint32 // pages
	memMax   uint32
	memHas   bool // has a maximum
	memories uint32
	globals  []global
	exports  []export
	start    int64 // function index, -1 if there is none
	elemN    uint32
	elemRaw  []byte
	bodies   []body
	segments []segment // active with constant offset; nil if rawData is to be kept
	dataN    uint32
	dataRaw  []byte
	hasCount bool // has a data count section

	passive     bool // has passive data, or instructions that use it
	tableWrites bool // has instructions that change tables
}

// body is a function's code after the scan.
type body struct {
	localN uint32 // parameters and locals
	locals []byte // the local declarations as they are, without their count
	groups uint32 // number of local declarations
	code   []byte // instructions with the final end
	costs  []int64
	calls  bool // has calls of functions that are not imported, so the depth counts
	bulk   bool // has instructions whose cost depends on an operand
}

func (m *module) funcCount() uint32 { return uint32(len(m.imports) + len(m.funcs)) }

// typeOf returns the type of the function with the given index.
func (m *module) typeOf(index uint32) (funcType, bool) {
	if n := uint32(len(m.imports)); index < n {
		return m.types[m.imports[index].typ], true
	} else if index < m.funcCount() {
		return m.types[m.funcs[index-n]], true
	}
	return funcType{}, false
}

func (m *module) export(name string) (export, bool) {
	for _, e := range m.exports {
		if e.name == name {
			return e, true
		}
	}
	return export{}, false
}

// sectionOrder is the place of each section; the data count section stands
// before the code (Core 2.0 §5.5.2).
var sectionOrder = [13]byte{1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 8: 8, 9: 9, 12: 10, 10: 11, 11: 12}

// parseModule reads a module and refuses what the rewriter does not know. It is
// no full validation: wazero's follows, on the same bytes, before they are
// rewritten.
func parseModule(b []byte) (*module, error) {
	r := &binReader{b: b}
	if !bytes.Equal(r.take(min(8, uint32(len(b)))), []byte("\x00asm\x01\x00\x00\x00")) {
		r.fail("not a WebAssembly module of version 1")
		return nil, r.err
	}
	m := &module{start: -1}
	last := byte(0)
	var code *binReader
	for r.more() {
		id := r.byte()
		s := &binReader{b: r.take(r.u32())}
		if r.err != nil {
			return nil, r.err
		}
		if id == 0 {
			continue // custom: names and debug information, stale after the rewriting
		}
		if int(id) >= len(sectionOrder) {
			r.fail("unknown section %d", id)
			return nil, r.err
		}
		if sectionOrder[id] <= last {
			r.fail("section %d twice or out of order", id)
			return nil, r.err
		}
		last = sectionOrder[id]
		if id == 10 {
			code = s // looked at last: it refers to everything
			continue
		}
		m.section(id, s)
		if s.err == nil && s.i != len(s.b) {
			s.fail("section %d has %d octets too many", id, len(s.b)-s.i)
		}
		if s.err != nil {
			return nil, s.err
		}
	}
	if code == nil {
		code = &binReader{b: []byte{0}}
	}
	m.scanCode(code)
	return m, code.err
}

func (m *module) section(id byte, s *binReader) {
	switch id {
	case 1:
		m.typeSection(s)
	case 2:
		m.importSection(s)
	case 3:
		for n := s.count(maxFuncs, "functions"); n > 0 && s.err == nil; n-- {
			m.funcs = append(m.funcs, m.typeIndex(s))
		}
	case 4:
		m.tableSection(s)
	case 5:
		if m.memories = s.count(1, "memories"); m.memories == 1 {
			m.memMin, m.memMax, m.memHas = limits(s)
		}
	case 6:
		m.globalSection(s)
	case 7:
		for n := s.count(maxExports, "exports"); n > 0 && s.err == nil; n-- {
			m.exports = append(m.exports, export{s.name(), s.byte(), s.u32()})
		}
	case 8:
		m.start = int64(s.u32())
		if m.start >= int64(m.funcCount()) {
			s.fail("start function %d does not exist", m.start)
		}
	case 9:
		m.elementSection(s)
	case 11:
		m.dataSection(s)
	case 12:
		m.hasCount = true
		s.u32()
	}
}

func (m *module) typeIndex(s *binReader) uint32 {
	i := s.u32()
	if i >= uint32(len(m.types)) {
		s.fail("type %d does not exist", i)
		return 0
	}
	return i
}

func (m *module) typeSection(s *binReader) {
	for n := s.count(maxTypes, "types"); n > 0 && s.err == nil; n-- {
		if c := s.byte(); c != typeFunc {
			s.fail("type of unknown form %#x", c)
		}
		m.types = append(m.types, funcType{valueTypes(s), valueTypes(s)})
	}
}

func valueTypes(s *binReader) []byte {
	p := s.take(s.count(maxParams, "parameters or results"))
	for _, t := range p {
		if !isValueType(t) {
			s.fail("unknown value type %#x", t)
		}
	}
	return p
}

func isValueType(t byte) bool {
	return t >= typeV128 && t <= typeI32 || t == typeFuncref || t == typeExtern
}

func (m *module) importSection(s *binReader) {
	for n := s.count(maxImports, "imports"); n > 0 && s.err == nil; n-- {
		f := importedFunc{module: s.name(), name: s.name()}
		if kind := s.byte(); s.err == nil && kind != kindFunc {
			s.fail("import %q.%q is no function", f.module, f.name)
		}
		f.typ = m.typeIndex(s)
		m.imports = append(m.imports, f)
	}
}

func limits(s *binReader) (least, most uint32, has bool) {
	flag := s.byte()
	if flag > 1 {
		s.fail("limits with flag %#x: shared or 64-bit", flag)
	}
	least = s.u32()
	if flag == 1 {
		most = s.u32()
		if most < least {
			s.fail("limits %d to %d", least, most)
		}
	}
	return least, most, flag == 1
}

func (m *module) tableSection(s *binReader) {
	total := uint64(0)
	for n := s.count(maxTables, "tables"); n > 0 && s.err == nil; n-- {
		t := table{elem: s.byte()}
		if t.elem != typeFuncref && t.elem != typeExtern {
			s.fail("table of unknown type %#x", t.elem)
		}
		t.min, t.max, t.hasMax = limits(s)
		if total += uint64(t.min); total > maxElements {
			s.fail("tables of %d elements, more than %d", total, maxElements)
		}
		m.tables = append(m.tables, t)
	}
}

func (m *module) globalSection(s *binReader) {
	for n := s.count(maxGlobals, "globals"); n > 0 && s.err == nil; n-- {
		g := global{typ: s.byte()}
		if !isValueType(g.typ) {
			s.fail("global of unknown type %#x", g.typ)
		}
		switch s.byte() {
		case 0:
		case 1:
			g.mutable = true
		default:
			s.fail("global of unknown mutability")
		}
		g.init = m.constant(s)
		m.globals = append(m.globals, g)
	}
}

// constant reads a constant expression of one instruction and its end.
func (m *module) constant(s *binReader) []byte {
	from := s.i
	switch op := s.byte(); op {
	case opI32Const:
		s.signed(32)
	case opI64Const:
		s.signed(64)
	case opF32Const:
		s.take(4)
	case opF64Const:
		s.take(8)
	case opRefNull:
		s.byte()
	case opRefFunc:
		if f := s.u32(); f >= m.funcCount() {
			s.fail("function %d does not exist", f)
		}
	case opVector:
		if s.u32() != 12 {
			s.fail("expression is not constant")
		}
		s.take(16)
	default:
		s.fail("opcode %#x in a constant expression", op)
	}
	if s.byte() != opEnd {
		s.fail("constant expression of more than one instruction")
	}
	if s.err != nil {
		return nil
	}
	return s.b[from:s.i]
}

// elementSection checks the section and keeps it as it is: rewriting changes
// no index.
func (m *module) elementSection(s *binReader) {
	m.elemN = s.count(maxSegments, "element segments")
	from, total := s.i, uint64(0)
	for n := m.elemN; n > 0 && s.err == nil; n-- {
		flag := s.u32()
		if flag > 7 {
			s.fail("element segment with flag %#x", flag)
		}
		if flag&1 == 0 { // active
			if flag&2 != 0 {
				s.u32()
			}
			m.constant(s)
		}
		if flag&3 != 0 {
			s.byte() // element kind or type
		}
		count := s.count(maxElements, "elements")
		if total += uint64(count); total > maxElements {
			s.fail("element segments of %d elements", total)
		}
		for ; count > 0 && s.err == nil; count-- {
			if flag&4 != 0 {
				m.constant(s)
			} else if f := s.u32(); f >= m.funcCount() {
				s.fail("function %d does not exist", f)
			}
		}
	}
	if s.err == nil {
		m.elemRaw = s.b[from:s.i]
	}
}

func (m *module) dataSection(s *binReader) {
	m.dataN = s.count(maxSegments, "data segments")
	from := s.i
	for n := m.dataN; n > 0 && s.err == nil; n-- {
		flag := s.u32()
		var g segment
		switch flag {
		case 0, 2:
			if flag == 2 && s.u32() != 0 {
				s.fail("data for a second memory")
			}
			e := m.constant(s)
			if s.err == nil && e[0] != opI32Const {
				s.fail("data offset is no i32 constant")
				return
			}
			g.offset = uint32((&binReader{b: e, i: 1}).signed(32))
		case 1:
			m.passive = true
		default:
			s.fail("data segment with flag %#x", flag)
		}
		g.data = s.take(s.u32())
		if s.err == nil && flag != 1 && uint64(g.offset)+uint64(len(g.data)) > uint64(m.memMin)*pageSize {
			s.fail("data beyond the memory's minimum")
		}
		m.segments = append(m.segments, g)
	}
	if s.err == nil {
		m.dataRaw = s.b[from:s.i]
	}
}
