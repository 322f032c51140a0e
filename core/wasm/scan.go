package wasm

// Costs in fuel units. One unit is about one instruction of the interpreter
// that nobody runs; what matters is that every way to spend time is charged.
const (
	costHostCall = 100 // for a call of an imported function
	costGrow     = 50  // for memory.grow, which leaves native code
)

// scanCode reads all function bodies, refuses indices that do not exist, and
// notes what the rewriter needs. An index beyond the original counts would come
// to mean something that the rewriter appends, so it is refused here even
// though wazero refuses it too.
func (m *module) scanCode(r *binReader) {
	n := r.count(maxFuncs, "function bodies")
	if r.err == nil && n != uint32(len(m.funcs)) {
		r.fail("%d function bodies for %d functions", n, len(m.funcs))
	}
	for i := uint32(0); i < n && r.err == nil; i++ {
		size := r.u32()
		if size > maxBody {
			r.fail("function of %d octets, more than %d", size, maxBody)
		}
		s := &binReader{b: r.take(size)}
		b := m.scanBody(s, m.types[m.funcs[i]])
		if r.err == nil && s.err != nil {
			r.err = s.err
		}
		m.bodies = append(m.bodies, b)
	}
	if r.err == nil && r.i != len(r.b) {
		r.fail("code section has %d octets too many", len(r.b)-r.i)
	}
}

func (m *module) scanBody(s *binReader, t funcType) body {
	b := body{localN: uint32(len(t.params)), groups: s.count(maxLocals, "local declarations")}
	from := s.i
	for n := b.groups; n > 0 && s.err == nil; n-- {
		count := s.u32()
		if count > maxLocals || b.localN+count > maxLocals {
			s.fail("function with more than %d locals", maxLocals)
			return b
		}
		b.localN += count
		if typ := s.byte(); !isValueType(typ) {
			s.fail("local of unknown type %#x", typ)
		}
	}
	if s.err != nil {
		return b
	}
	b.locals, b.code = s.b[from:s.i], s.b[s.i:]
	m.scanInstructions(s, &b)
	return b
}

// scanInstructions sums the cost of each region: the function's own, and that
// of each loop without the loops in it. open holds the region around each open
// block.
func (m *module) scanInstructions(s *binReader, b *body) {
	b.costs = append(b.costs, 1)
	region, open := 0, []int{0}
	for {
		op, index := instruction(s)
		if s.err != nil {
			return
		}
		b.costs[region]++
		switch op {
		case opBlock, opLoop, opIf:
			m.blockType(s)
			if len(open) > maxNesting {
				s.fail("blocks nested deeper than %d", maxNesting)
			}
			open = append(open, region)
			if op == opLoop {
				b.costs = append(b.costs, 1)
				region = len(b.costs) - 1
			}
		case opEnd:
			region = open[len(open)-1]
			if open = open[:len(open)-1]; len(open) == 0 {
				if s.more() {
					s.fail("instructions after the function's end")
				}
				return
			}
		case opBr, opBrIf, opBrTable:
			if uint64(index) >= uint64(len(open)) {
				s.fail("label %d does not exist", index)
			}
		case opCall, opRefFunc:
			if index >= m.funcCount() {
				s.fail("function %d does not exist", index)
			}
			if op == opCall && index < uint32(len(m.imports)) {
				b.costs[region] += costHostCall
			} else if op == opCall {
				b.calls = true
			}
		case opCallIndirect:
			if index >= uint32(len(m.types)) {
				s.fail("type %d does not exist", index)
			}
			b.costs[region] += costHostCall / 10
			b.calls = true
		case opLocalGet, opLocalSet, opLocalTee:
			if index >= b.localN {
				s.fail("local %d does not exist", index)
			}
		case opGlobalGet, opGlobalSet:
			if index >= uint32(len(m.globals)) {
				s.fail("global %d does not exist", index)
			}
		case opMemoryGrow:
			b.costs[region] += costGrow
		case opMemoryInit:
			m.passive, b.bulk = true, true
		case opDataDrop:
			m.passive = true
		case opMemoryCopy, opMemoryFill:
			b.bulk = true
		case opTableSet, opElemDrop:
			m.tableWrites = true
		case opTableInit, opTableCopy, opTableGrow, opTableFill:
			m.tableWrites, b.bulk = true, true
		}
	}
}

// blockType reads a block's type: empty, one value type, or a type's index.
func (m *module) blockType(s *binReader) {
	switch t := s.signed(33); {
	case t >= 0 && t < int64(len(m.types)):
	case t < 0 && t >= -64 && (byte(t)&0x7f == typeEmpty || isValueType(byte(t)&0x7f)):
	default:
		s.fail("block of unknown type %d", t)
	}
}
