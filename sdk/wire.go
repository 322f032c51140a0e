package sdk

import (
	"errors"
	"math"
)

// errWire says that bytes are no message. A host never sends such.
var errWire = errors.New("malformed message")

// Wire types of protobuf that the ABI uses.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

func appendVarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendUint(b []byte, field int, v uint64) []byte {
	if v == 0 {
		return b
	}
	return appendVarint(appendVarint(b, uint64(field)<<3|wireVarint), v)
}

func appendString(b []byte, field int, s string) []byte {
	if s == "" {
		return b
	}
	b = appendVarint(b, uint64(field)<<3|wireBytes)
	return append(appendVarint(b, uint64(len(s))), s...)
}

// appendBytes appends p also if it is empty: an element of a repeated field.
func appendBytes(b []byte, field int, p []byte) []byte {
	b = appendVarint(b, uint64(field)<<3|wireBytes)
	return append(appendVarint(b, uint64(len(p))), p...)
}

func appendDouble(b []byte, field int, f float64) []byte {
	if f == 0 {
		return b
	}
	b = appendVarint(b, uint64(field)<<3|wireFixed64)
	for v, i := math.Float64bits(f), 0; i < 8; i++ {
		b = append(b, byte(v>>(8*i)))
	}
	return b
}

// reader walks the fields of a message.
type reader struct {
	b   []byte
	i   int
	bad bool
}

func (r *reader) varint() uint64 {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		if r.i >= len(r.b) {
			r.bad = true
			return 0
		}
		c := r.b[r.i]
		r.i++
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	r.bad = true
	return 0
}

// next returns the next field's number with its value: v for numbers, p for
// bytes. ok is false at the end and where the message is malformed.
func (r *reader) next() (field int, v uint64, p []byte, ok bool) {
	if r.bad || r.i >= len(r.b) {
		return 0, 0, nil, false
	}
	tag := r.varint()
	field = int(tag >> 3)
	var n uint64
	switch tag & 7 {
	case wireVarint:
		v = r.varint()
		return field, v, nil, !r.bad
	case wireBytes:
		n = r.varint()
	case wireFixed64:
		n = 8
	case wireFixed32:
		n = 4
	default:
		r.bad = true
	}
	if r.bad || n > uint64(len(r.b)-r.i) {
		r.bad = true
		return 0, 0, nil, false
	}
	p = r.b[r.i : r.i+int(n)]
	r.i += int(n)
	return field, 0, p, true
}
