package wasm

import "strconv"

// Names that the rewriter exports. Modules that export such a name are refused.
const (
	reserved    = "__wafer_"
	exportFuel  = reserved + "fuel"  // i64: units until the next yield
	exportLeft  = reserved + "left"  // i64: units after those
	exportStop  = reserved + "stop"  // i32: not zero: trap at the next yield
	exportDepth = reserved + "depth" // i32: weight of the calls under way
	exportStart = reserved + "start" // the start function, which the host calls metered
)

// slice is how much fuel a guest burns between two yields: some 10 µs of a Go
// guest, whose loops are charged for more than they do, and at most half a
// millisecond of a tight loop, which is how long it can hold up Go's garbage
// collector. A yield goes out to Go and back, which costs as much as 10,000 units.
const slice = 500_000

// maxDepth limits calls within calls. A function with a large frame counts as
// several, so that the limit bounds the native stack too.
const maxDepth = 10_000

// frameWeight is what a function counts towards maxDepth.
func (b *body) frameWeight() int64 { return 1 + int64(b.localN)/64 + int64(len(b.code))/4096 }

// meterer rewrites a module. Every function begins, and every loop's every
// round begins, with a charge to the fuel; instructions whose time depends on an
// operand are charged for it. When the slice is used up, the guest calls slow,
// which yields to Go through memory.grow(0), looks at the stop flag, and takes
// the next slice from what is left. A function that calls others adds its
// weight to the depth while it runs; its returns become branches to the end of
// a block around its body, so there is one place that takes the weight away.
type meterer struct {
	m                       *module
	fuel, left, stop, depth uint32 // indices of the new globals
	slow                    uint32 // index of the new function
	types                   []funcType
	out                     []byte
}

// meter returns the rewritten module, and the indices of the original mutable
// globals, which it exports as reserved+"g"+index. With keepData false active
// data is left out: the host puts it in place.
func (m *module) meter(keepData bool) []byte {
	g := uint32(len(m.globals))
	w := &meterer{m: m, fuel: g, left: g + 1, stop: g + 2, depth: g + 3, slow: m.funcCount(), types: m.types}
	slowType := w.typeIndex(funcType{})

	var code, tmp []byte
	for i := range m.bodies {
		w.out = tmp[:0]
		w.function(&m.bodies[i], m.types[m.funcs[i]])
		code = append(appendU32(code, uint32(len(w.out))), w.out...)
		tmp = w.out
	}
	w.out = tmp[:0]
	w.slowFunction()
	code = append(appendU32(code, uint32(len(w.out))), w.out...)

	b := []byte("\x00asm\x01\x00\x00\x00")
	b = w.typeSection(b)
	b = w.importSection(b)
	funcs := make([]byte, 0, len(m.funcs)*2)
	for _, t := range m.funcs {
		funcs = appendU32(funcs, t)
	}
	funcs = appendU32(funcs, slowType)
	b = appendSection(b, 3, uint32(len(m.funcs))+1, funcs)
	b = w.tableSection(b)
	mem := []byte{0}
	if m.memHas {
		mem[0] = 1
	}
	if mem = appendU32(mem, m.memMin); m.memHas {
		mem = appendU32(mem, m.memMax)
	}
	b = appendSection(b, 5, m.memories, mem)
	b = w.globalSection(b)
	b = w.exportSection(b)
	b = appendSection(b, 9, m.elemN, m.elemRaw)
	if keepData && m.hasCount {
		n := appendU32(nil, m.dataN)
		b = append(appendU32(append(b, 12), uint32(len(n))), n...)
	}
	b = appendSection(b, 10, uint32(len(m.bodies))+1, code)
	if keepData {
		b = appendSection(b, 11, m.dataN, m.dataRaw)
	}
	return b
}

// typeIndex returns the index of t, which is added if it is new.
func (w *meterer) typeIndex(t funcType) uint32 {
	for i, o := range w.types {
		if o.equal(t) {
			return uint32(i)
		}
	}
	w.types = append(w.types[:len(w.types):len(w.types)], t)
	return uint32(len(w.types) - 1)
}

func (w *meterer) op(op byte, v uint32) { w.out = appendU32(append(w.out, op), v) }

func (w *meterer) i32(v int64) { w.out = appendSigned(append(w.out, opI32Const), v) }

func (w *meterer) i64(v int64) { w.out = appendSigned(append(w.out, opI64Const), v) }

func (w *meterer) raw(b ...byte) { w.out = append(w.out, b...) }

// function writes a function with its charges.
func (w *meterer) function(b *body, t funcType) {
	rest, amount := b.localN, b.localN+1 // new locals: what is left of the slice; a bulk operand
	groups := b.groups + 1
	if b.bulk {
		groups++
	}
	w.out = append(appendU32(w.out, groups), b.locals...)
	w.raw(1, typeI64)
	if b.bulk {
		w.raw(1, typeI32)
	}
	w.charge(b.costs[0], rest)
	if b.calls {
		w.enter(b.frameWeight(), t)
	}
	loops, nesting := 1, uint32(0)
	r := &binReader{b: b.code}
	for r.more() {
		from := r.i
		op, _ := instruction(r)
		switch op {
		case opBlock, opLoop, opIf:
			w.m.blockType(r)
			nesting++
		case opEnd:
			nesting--
		case opReturn:
			if b.calls {
				w.op(opBr, nesting)
				continue
			}
		case opMemoryInit, opMemoryCopy, opMemoryFill:
			w.chargeAmount(rest, amount, 4)
		case opTableInit, opTableCopy, opTableGrow, opTableFill:
			w.chargeAmount(rest, amount, 0)
		}
		w.raw(b.code[from:r.i]...)
		if op == opLoop {
			w.charge(b.costs[loops], rest)
			loops++
		}
	}
	if b.calls {
		w.op(opGlobalGet, w.depth)
		w.i32(b.frameWeight())
		w.raw(opI32Sub)
		w.op(opGlobalSet, w.depth)
		w.raw(opEnd)
	}
}

// charge takes a constant from the fuel.
func (w *meterer) charge(cost int64, rest uint32) {
	w.op(opGlobalGet, w.fuel)
	w.i64(cost)
	w.spend(rest)
}

// chargeAmount takes the i32 on top of the stack, shifted right, from the fuel
// and leaves it there.
func (w *meterer) chargeAmount(rest, amount uint32, shift int64) {
	w.op(opLocalTee, amount)
	w.op(opGlobalGet, w.fuel)
	w.op(opLocalGet, amount)
	w.raw(opI64ExtendU)
	w.i64(shift)
	w.raw(opI64ShrU)
	w.spend(rest)
}

// spend subtracts the top of the stack from the fuel below it, and calls slow
// when it is used up.
func (w *meterer) spend(rest uint32) {
	w.raw(opI64Sub)
	w.op(opLocalTee, rest)
	w.op(opGlobalSet, w.fuel)
	w.op(opLocalGet, rest)
	w.i64(0)
	w.raw(opI64LtS, opIf, typeEmpty)
	w.op(opCall, w.slow)
	w.raw(opEnd)
}

// enter adds the function's weight to the depth, traps when it is too deep, and
// opens the block that the returns branch out of.
func (w *meterer) enter(weight int64, t funcType) {
	w.op(opGlobalGet, w.depth)
	w.i32(weight)
	w.raw(opI32Add)
	w.op(opGlobalSet, w.depth)
	w.op(opGlobalGet, w.depth)
	w.i32(maxDepth)
	w.raw(opI32GtU, opIf, typeEmpty, opUnreachable, opEnd, opBlock)
	switch len(t.results) {
	case 0:
		w.raw(typeEmpty)
	case 1:
		w.raw(t.results[0])
	default:
		w.out = appendSigned(w.out, int64(w.typeIndex(funcType{results: t.results})))
	}
}

// slowFunction writes slow.
func (w *meterer) slowFunction() {
	w.raw(0) // no locals
	if w.m.memories > 0 {
		w.i32(0)
		w.raw(opMemoryGrow, 0, opDrop) // to Go and back: here the goroutine can be preempted
	}
	w.op(opGlobalGet, w.stop)
	w.raw(opIf, typeEmpty, opUnreachable, opEnd)
	// left += fuel; fuel = 0; trap if left < 0
	w.op(opGlobalGet, w.left)
	w.op(opGlobalGet, w.fuel)
	w.raw(opI64Add)
	w.op(opGlobalSet, w.left)
	w.i64(0)
	w.op(opGlobalSet, w.fuel)
	w.op(opGlobalGet, w.left)
	w.i64(0)
	w.raw(opI64LtS, opIf, typeEmpty, opUnreachable, opEnd)
	// fuel = min(left, slice); left -= fuel
	w.op(opGlobalGet, w.left)
	w.i64(slice)
	w.raw(opI64GtS, opIf, typeEmpty)
	w.i64(slice)
	w.op(opGlobalSet, w.fuel)
	w.raw(opElse)
	w.op(opGlobalGet, w.left)
	w.op(opGlobalSet, w.fuel)
	w.raw(opEnd)
	w.op(opGlobalGet, w.left)
	w.op(opGlobalGet, w.fuel)
	w.raw(opI64Sub)
	w.op(opGlobalSet, w.left)
	w.raw(opEnd)
}

func (w *meterer) typeSection(b []byte) []byte {
	var s []byte
	for _, t := range w.types {
		s = append(appendU32(append(s, typeFunc), uint32(len(t.params))), t.params...)
		s = append(appendU32(s, uint32(len(t.results))), t.results...)
	}
	return appendSection(b, 1, uint32(len(w.types)), s)
}

func (w *meterer) importSection(b []byte) []byte {
	var s []byte
	for _, f := range w.m.imports {
		s = appendU32(append(appendName(appendName(s, f.module), f.name), kindFunc), f.typ)
	}
	return appendSection(b, 2, uint32(len(w.m.imports)), s)
}

// tableSection gives every table a maximum that it may grow to.
func (w *meterer) tableSection(b []byte) []byte {
	var s []byte
	for _, t := range w.m.tables {
		most := t.min + maxGrown
		if t.hasMax {
			most = min(most, t.max)
		}
		s = appendU32(appendU32(append(s, t.elem, 1), t.min), most)
	}
	return appendSection(b, 4, uint32(len(w.m.tables)), s)
}

func (w *meterer) globalSection(b []byte) []byte {
	var s []byte
	for _, g := range w.m.globals {
		mutable := byte(0)
		if g.mutable {
			mutable = 1
		}
		s = append(append(s, g.typ, mutable), g.init...)
	}
	for _, typ := range []byte{typeI64, typeI64, typeI32, typeI32} {
		zero := byte(opI64Const)
		if typ == typeI32 {
			zero = opI32Const
		}
		s = append(s, typ, 1, zero, 0, opEnd)
	}
	return appendSection(b, 6, uint32(len(w.m.globals))+4, s)
}

func (w *meterer) exportSection(b []byte) []byte {
	var s []byte
	n := uint32(0)
	add := func(name string, kind byte, index uint32) {
		s = appendU32(append(appendName(s, name), kind), index)
		n++
	}
	for _, e := range w.m.exports {
		add(e.name, e.kind, e.index)
	}
	add(exportFuel, kindGlobal, w.fuel)
	add(exportLeft, kindGlobal, w.left)
	add(exportStop, kindGlobal, w.stop)
	add(exportDepth, kindGlobal, w.depth)
	if w.m.start >= 0 {
		add(exportStart, kindFunc, uint32(w.m.start))
	}
	for _, i := range w.m.mutableGlobals() {
		add(globalName(i), kindGlobal, i)
	}
	return appendSection(b, 7, n, s)
}

// mutableGlobals are the globals that an image has to keep.
func (m *module) mutableGlobals() []uint32 {
	var is []uint32
	for i, g := range m.globals {
		if g.mutable {
			is = append(is, uint32(i))
		}
	}
	return is
}

func globalName(i uint32) string { return reserved + "g" + strconv.Itoa(int(i)) }
