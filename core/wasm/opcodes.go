package wasm

// Opcodes that somebody here has to know by name (Core 2.0 §5.4).
const (
	opUnreachable  = 0x00
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opDrop         = 0x1a
	opSelectT      = 0x1c
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableGet     = 0x25
	opTableSet     = 0x26
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opI64LtS       = 0x53
	opI64GtS       = 0x55
	opI32GtU       = 0x4b
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64ShrU      = 0x88
	opI64ExtendU   = 0xad
	opRefNull      = 0xd0
	opRefIsNull    = 0xd1
	opRefFunc      = 0xd2
	opMisc         = 0xfc
	opVector       = 0xfd
)

// Opcodes behind opMisc, as prefix<<8 | number.
const (
	opMemoryInit = opMisc<<8 | 8
	opDataDrop   = opMisc<<8 | 9
	opMemoryCopy = opMisc<<8 | 10
	opMemoryFill = opMisc<<8 | 11
	opTableInit  = opMisc<<8 | 12
	opElemDrop   = opMisc<<8 | 13
	opTableCopy  = opMisc<<8 | 14
	opTableGrow  = opMisc<<8 | 15
	opTableSize  = opMisc<<8 | 16
	opTableFill  = opMisc<<8 | 17
)

// instruction reads one instruction and returns its opcode (a prefixed one as
// prefix<<8 | number) and its first index or label, where it has one. What is
// not in Core 2.0 without its reserved opcodes is an error: tail calls,
// exceptions, threads, typed references, garbage collection.
func instruction(r *binReader) (op int, index uint32) {
	c := r.byte()
	op = int(c)
	switch {
	case c >= opBlock && c <= opIf:
		// the block type is looked at by the scan, which knows the types
	case c == opBr, c == opBrIf, c == opCall, c >= opLocalGet && c <= opTableSet, c == opRefFunc:
		index = r.u32()
	case c == opBrTable:
		for n := r.count(maxBody, "labels"); n > 0 && r.err == nil; n-- {
			index = max(index, r.u32())
		}
		index = max(index, r.u32())
	case c == opCallIndirect:
		index = r.u32()
		r.u32() // table
	case c == opSelectT:
		if r.u32() != 1 || !isValueType(r.byte()) {
			r.fail("select of other than one type")
		}
	case c >= 0x28 && c <= 0x3e: // loads and stores
		memarg(r)
	case c == opMemorySize, c == opMemoryGrow:
		zero(r)
	case c == opI32Const:
		r.signed(32)
	case c == opI64Const:
		r.signed(64)
	case c == opF32Const:
		r.take(4)
	case c == opF64Const:
		r.take(8)
	case c == opRefNull:
		if t := r.byte(); t != typeFuncref && t != typeExtern {
			r.fail("null of unknown type %#x", t)
		}
	case c == opMisc:
		return misc(r)
	case c == opVector:
		return vector(r)
	case c <= 0x01, c == opElse, c == opEnd, c == opReturn, c == opDrop, c == 0x1b, c == opRefIsNull, c >= 0x45 && c <= 0xc4:
		// no immediates
	default:
		r.fail("unknown opcode %#x", c)
	}
	return op, index
}

func memarg(r *binReader) {
	if align := r.u32(); align > 4 {
		r.fail("alignment 2^%d", align)
	}
	r.u32()
}

func zero(r *binReader) {
	if r.byte() != 0 {
		r.fail("a second memory")
	}
}

func misc(r *binReader) (op int, index uint32) {
	n := r.u32()
	if n > 17 {
		r.fail("unknown opcode 0xfc %d", n)
		return 0, 0
	}
	op = opMisc<<8 | int(n)
	switch op {
	case opMemoryInit:
		index = r.u32()
		zero(r)
	case opMemoryCopy:
		zero(r)
		zero(r)
	case opMemoryFill:
		zero(r)
	case opTableInit, opTableCopy:
		index = r.u32()
		r.u32()
	case opDataDrop, opElemDrop, opTableGrow, opTableSize, opTableFill:
		index = r.u32()
	}
	return op, index
}

func vector(r *binReader) (op int, index uint32) {
	n := r.u32()
	switch {
	case n <= 11, n == 92, n == 93: // loads and stores
		memarg(r)
	case n == 12, n == 13: // constant, shuffle
		r.take(16)
	case n >= 21 && n <= 34: // lanes
		r.byte()
	case n >= 84 && n <= 91: // loads and stores of lanes
		memarg(r)
		r.byte()
	case n > 255:
		r.fail("unknown opcode 0xfd %d", n)
	}
	return opVector<<8 | int(n&0xff), 0
}
