package imapd

import (
	"errors"
	"io"
)

var errDeflate = errors.New("compressed stream is malformed")

// inflater decodes a DEFLATE stream (RFC 1951) and hands over what it has before
// each read that may block. That is why it is not compress/flate: there, text stays
// in the decoder until an empty stored block comes, and clients that flush with
// an empty block of another kind (zlib's Z_PARTIAL_FLUSH) would wait for ever.
type inflater struct {
	src  io.Reader
	give func([]byte) error // what has been decoded; the slice is valid during the call

	in     [2048]byte
	r, w   int
	bits   uint32
	nbits  uint
	window [32 << 10]byte
	at     int  // next octet of window
	given  int  // up to where it has been handed over
	full   bool // the window has been filled once

	lengths [320]uint8
	symbols [2]huffman // literals and lengths, distances
}

// run decodes until the stream ends or something fails; the end of src between two
// blocks is io.EOF.
func (f *inflater) run() error {
	for {
		last, err := f.take(1)
		if err != nil {
			return err
		}
		kind, err := f.take(2)
		if err != nil {
			return noEOF(err)
		}
		switch kind {
		case 0:
			err = f.stored()
		case 1:
			f.fixed()
			err = f.block()
		case 2:
			if err = f.dynamic(); err == nil {
				err = f.block()
			}
		default:
			err = errDeflate
		}
		if err != nil {
			return noEOF(err)
		}
		if last == 1 {
			return f.flush()
		}
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// octet is the next octet of the stream.
func (f *inflater) octet() (byte, error) {
	if f.r == f.w {
		if err := f.flush(); err != nil {
			return 0, err
		}
		for f.r = 0; ; {
			n, err := f.src.Read(f.in[:])
			if f.w = n; n > 0 {
				break
			}
			if err != nil {
				return 0, err
			}
		}
	}
	f.r++
	return f.in[f.r-1], nil
}

// take is the next n bits, at most 16.
func (f *inflater) take(n uint) (uint32, error) {
	for f.nbits < n {
		c, err := f.octet()
		if err != nil {
			return 0, err
		}
		f.bits |= uint32(c) << f.nbits
		f.nbits += 8
	}
	v := f.bits & (1<<n - 1)
	f.bits >>= n
	f.nbits -= n
	return v, nil
}

// flush hands over what is new in the window.
func (f *inflater) flush() error {
	if f.given == f.at {
		return nil
	}
	b := f.window[f.given:f.at]
	f.given = f.at
	return f.give(b)
}

// put adds an octet.
func (f *inflater) put(c byte) error {
	f.window[f.at] = c
	if f.at++; f.at < len(f.window) {
		return nil
	}
	err := f.flush()
	f.at, f.given, f.full = 0, 0, true
	return err
}

func (f *inflater) stored() error {
	f.bits, f.nbits = 0, 0 // the rest of an octet
	var head [4]byte
	for i := range head {
		c, err := f.octet()
		if err != nil {
			return err
		}
		head[i] = c
	}
	n := int(head[0]) | int(head[1])<<8
	if n^0xffff != int(head[2])|int(head[3])<<8 {
		return errDeflate
	}
	for range n {
		c, err := f.octet()
		if err != nil {
			return err
		}
		if err := f.put(c); err != nil {
			return err
		}
	}
	return nil
}

// huffman is a canonical code: how many symbols have each length, and the symbols
// in order.
type huffman struct {
	count  [16]uint16
	symbol [288]uint16
}

// set makes the code of lengths. It reports how many codes are left over, below 0
// if there are more than fit.
func (h *huffman) set(lengths []uint8) (left int) {
	h.count = [16]uint16{}
	for _, n := range lengths {
		h.count[n]++
	}
	left = 1
	var offset [16]uint16
	for n := 1; n < 16; n++ {
		left = left<<1 - int(h.count[n])
		if left < 0 {
			return left
		}
		if n < 15 {
			offset[n+1] = offset[n] + h.count[n]
		}
	}
	for i, n := range lengths {
		if n > 0 {
			h.symbol[offset[n]] = uint16(i)
			offset[n]++
		}
	}
	if int(h.count[0]) == len(lengths) {
		return 0 // no codes at all
	}
	return left
}

// next reads a symbol.
func (f *inflater) next(h *huffman) (int, error) {
	code, first, index := 0, 0, 0
	for n := 1; n < 16; n++ {
		if f.nbits == 0 {
			c, err := f.octet()
			if err != nil {
				return 0, err
			}
			f.bits, f.nbits = uint32(c), 8
		}
		code |= int(f.bits & 1)
		f.bits >>= 1
		f.nbits--
		count := int(h.count[n])
		if code-count < first {
			return int(h.symbol[index+code-first]), nil
		}
		index += count
		first = (first + count) << 1
		code <<= 1
	}
	return 0, errDeflate
}

// fixed sets the codes of RFC 1951 §3.2.6.
func (f *inflater) fixed() {
	l := f.lengths[:288]
	for i := range l {
		switch {
		case i < 144:
			l[i] = 8
		case i < 256:
			l[i] = 9
		case i < 280:
			l[i] = 7
		default:
			l[i] = 8
		}
	}
	f.symbols[0].set(l)
	d := f.lengths[:30]
	for i := range d {
		d[i] = 5
	}
	f.symbols[1].set(d)
}

// dynamic reads the codes of a block (RFC 1951 §3.2.7).
func (f *inflater) dynamic() error {
	nlen, err := f.take(5)
	if err != nil {
		return err
	}
	ndist, err := f.take(5)
	if err != nil {
		return err
	}
	ncode, err := f.take(4)
	if err != nil {
		return err
	}
	lits, dists := int(nlen)+257, int(ndist)+1
	if lits > 286 || dists > 30 {
		return errDeflate
	}
	order := [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
	var codes [19]uint8
	for i := range int(ncode) + 4 {
		n, err := f.take(3)
		if err != nil {
			return err
		}
		codes[order[i]] = uint8(n)
	}
	if f.symbols[0].set(codes[:]) != 0 {
		return errDeflate
	}
	l := f.lengths[:lits+dists]
	for i := 0; i < len(l); {
		sym, err := f.next(&f.symbols[0])
		if err != nil {
			return err
		}
		if sym < 16 {
			l[i] = uint8(sym)
			i++
			continue
		}
		var value uint8
		bits, times := uint(2), 3
		switch sym {
		case 16:
			if i == 0 {
				return errDeflate
			}
			value = l[i-1]
		case 17:
			bits = 3
		case 18:
			bits, times = 7, 11
		}
		more, err := f.take(bits)
		if err != nil {
			return err
		}
		if times += int(more); i+times > len(l) {
			return errDeflate
		}
		for range times {
			l[i] = value
			i++
		}
	}
	if l[256] == 0 { // no end of the block
		return errDeflate
	}
	// An incomplete code is allowed only if it has a single symbol.
	if left := f.symbols[0].set(l[:lits]); left < 0 || left > 0 && !f.symbols[0].single(lits) {
		return errDeflate
	}
	if left := f.symbols[1].set(l[lits:]); left < 0 || left > 0 && !f.symbols[1].single(dists) {
		return errDeflate
	}
	return nil
}

// single reports whether of n symbols one has a code, of one bit.
func (h *huffman) single(n int) bool { return n == int(h.count[0])+int(h.count[1]) && h.count[1] == 1 }

// block decodes the symbols of a block.
func (f *inflater) block() error {
	for {
		sym, err := f.next(&f.symbols[0])
		if err != nil {
			return err
		}
		switch {
		case sym < 256:
			if err := f.put(byte(sym)); err != nil {
				return err
			}
			continue
		case sym == 256:
			return nil
		case sym > 285:
			return errDeflate
		}
		length, err := f.length(sym - 257)
		if err != nil {
			return err
		}
		dsym, err := f.next(&f.symbols[1])
		if err != nil {
			return err
		}
		if dsym > 29 {
			return errDeflate
		}
		distance, extra := dsym+1, uint(0)
		if dsym > 3 {
			extra = uint(dsym/2 - 1)
			distance = (2+dsym%2)<<extra + 1
		}
		more, err := f.take(extra)
		if err != nil {
			return err
		}
		if err := f.repeat(distance+int(more), length); err != nil {
			return err
		}
	}
}

// length is what a length symbol stands for (RFC 1951 §3.2.5).
func (f *inflater) length(sym int) (int, error) {
	switch {
	case sym < 8:
		return sym + 3, nil
	case sym == 28:
		return 258, nil
	}
	extra := uint(sym/4 - 1)
	more, err := f.take(extra)
	return (4+sym%4)<<extra + 3 + int(more), err
}

// repeat copies octets from further up.
func (f *inflater) repeat(distance, length int) error {
	if distance > f.at && !f.full {
		return errDeflate
	}
	for range length {
		if err := f.put(f.window[(f.at-distance+len(f.window))%len(f.window)]); err != nil {
			return err
		}
	}
	return nil
}
