package wasm

import (
	"errors"
	"fmt"
)

// errFormat is wrapped by every complaint about a module's binary form.
var errFormat = errors.New("malformed module")

// binReader reads WebAssembly's binary form (Core 2.0 §5). After the first
// error every read returns zero values; the caller looks at err when it has to.
type binReader struct {
	b   []byte
	i   int
	err error
}

func (r *binReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s (offset %d of its section)", errFormat, fmt.Sprintf(format, args...), r.i)
		r.i = len(r.b)
	}
}

func (r *binReader) more() bool { return r.err == nil && r.i < len(r.b) }

func (r *binReader) byte() byte {
	if r.i >= len(r.b) {
		r.fail("ends early")
		return 0
	}
	r.i++
	return r.b[r.i-1]
}

func (r *binReader) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)-r.i) {
		r.fail("ends early")
		return nil
	}
	p := r.b[r.i : r.i+int(n) : r.i+int(n)]
	r.i += int(n)
	return p
}

// u32 reads an unsigned LEB128 number of at most 32 bits.
func (r *binReader) u32() uint32 {
	var v uint32
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte()
		if shift == 28 && c > 0x0f {
			break
		}
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	r.fail("number has more than 32 bits")
	return 0
}

// signed reads a signed LEB128 number of at most the given number of bits.
func (r *binReader) signed(bits int) int64 {
	var v int64
	for shift := 0; shift < bits; shift += 7 {
		c := r.byte()
		v |= int64(c&0x7f) << shift
		if c < 0x80 {
			if rest := bits - shift; rest < 7 { // the unused bits must repeat the sign
				unused := int8(c<<1) >> 1 >> (rest - 1)
				if unused != 0 && unused != -1 {
					break
				}
			}
			if shift+7 < 64 && c&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
	r.fail("number has more than %d bits", bits)
	return 0
}

// count reads the length of a vector whose elements take at least one octet
// each, so that nothing is allocated for a length that the input cannot fill.
func (r *binReader) count(limit uint32, what string) uint32 {
	n := r.u32()
	switch {
	case uint64(n) > uint64(len(r.b)-r.i):
		r.fail("%d %s in %d octets", n, what, len(r.b)-r.i)
	case n > limit:
		r.fail("%d %s, more than %d", n, what, limit)
	default:
		return n
	}
	return 0
}

func (r *binReader) name() string {
	n := r.u32()
	if n > 1<<12 {
		r.fail("name of %d octets", n)
		return ""
	}
	return string(r.take(n))
}

func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendSigned(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func appendName(b []byte, s string) []byte { return append(appendU32(b, uint32(len(s))), s...) }

// appendSection appends a section unless it has no entries.
func appendSection(b []byte, id byte, entries uint32, body []byte) []byte {
	if entries == 0 {
		return b
	}
	head := appendU32(nil, entries)
	b = appendU32(append(b, id), uint32(len(head)+len(body)))
	return append(append(b, head...), body...)
}
