package wasm

import (
	"fmt"
	"os"

	"github.com/tetratelabs/wazero/api"
)

// image is the state of an instance at rest: its memory and its mutable
// globals. New instances start from it, so that initialisation and
// configuration run once. Tables are not in it: a module that changes them is
// initialised anew for each instance.
type image struct {
	pages   uint32
	size    int      // octets that are not zero, in whole pages of 64 KiB
	file    *os.File // holds them, for mapping; nil where that is not possible
	data    []byte   // holds them, for copying, if file is nil
	globals []uint64 // in the order of module.mutableGlobals
}

// newImage takes the image of a memory. It keeps no reference to mem.
func newImage(mem []byte, globals []uint64) *image {
	n := len(mem)
	for n >= pageSize && allZero(mem[n-pageSize:n]) {
		n -= pageSize
	}
	im := &image{pages: uint32(len(mem) / pageSize), size: n, globals: globals}
	if n == 0 {
		return im
	}
	f, err := newImageFile(mem[:n])
	if err != nil {
		im.data = append([]byte(nil), mem[:n]...) // slower, and as good
		return im
	}
	im.file = f
	return im
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// firstImage is the image of a module before its first instruction: its active
// data, and its globals as they are declared (nil).
func (m *module) firstImage() *image {
	mem := make([]byte, int(m.memMin)*pageSize)
	for _, s := range m.segments {
		copy(mem[s.offset:], s.data) // within the minimum: checked when it was read
	}
	return newImage(mem, nil)
}

// imageable reports whether an instance's state is its memory and its globals.
func (m *module) imageable() bool {
	if m.passive || m.tableWrites || m.memories == 0 {
		return false
	}
	for _, g := range m.globals {
		if g.mutable && (g.typ < typeF64 || g.typ > typeI32) {
			return false // vectors and references cannot be set from outside
		}
	}
	return true
}

// restore brings a new instance to the image's state. Its memory is already
// mapped if the platform can.
func (im *image) restore(mod api.Module, lin *linearMemory, names []string) error {
	mem := mod.Memory()
	if now := mem.Size() / pageSize; now < im.pages {
		if _, ok := mem.Grow(im.pages - now); !ok {
			return fmt.Errorf("grow memory to %d pages: beyond the limit", im.pages)
		}
	}
	if im.size > 0 && !lin.mapped() && !mem.Write(0, im.data) {
		return fmt.Errorf("restore image of %d octets: beyond the memory", im.size)
	}
	for i, v := range im.globals {
		g, ok := mod.ExportedGlobal(names[i]).(api.MutableGlobal)
		if !ok {
			return fmt.Errorf("restore global %s: not mutable", names[i])
		}
		g.Set(v)
	}
	return nil
}

// snapshot takes the image of an instance that is not running.
func snapshot(mod api.Module, names []string) (*image, error) {
	mem := mod.Memory()
	b, ok := mem.Read(0, mem.Size())
	if !ok {
		return nil, fmt.Errorf("read memory of %d octets", mem.Size())
	}
	globals := make([]uint64, len(names))
	for i, name := range names {
		globals[i] = mod.ExportedGlobal(name).Get()
	}
	return newImage(b, globals), nil
}

// close lets go of the file. Memories that are mapped from it stay.
func (im *image) close() {
	if im != nil && im.file != nil {
		_ = im.file.Close() // a memory file: nothing is written back
		im.file = nil
	}
}
