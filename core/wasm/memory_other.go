//go:build !linux

package wasm

import (
	"errors"
	"os"

	"github.com/tetratelabs/wazero/experimental"
)

// linearMemory is the memory of one instance, from Go's heap. Its image is
// copied in.
type linearMemory struct {
	limit uint64 // octets
	image *image
	b     []byte
	err   error
}

// Allocate notes the limit (experimental.MemoryAllocator).
func (l *linearMemory) Allocate(_, most uint64) experimental.LinearMemory {
	l.limit = min(l.limit, most)
	return l
}

// Reallocate returns a slice of size octets that begins with the old contents;
// nil if the limit does not allow it. It grows by halves, so that a guest
// cannot make the host copy on every page.
func (l *linearMemory) Reallocate(size uint64) []byte {
	if size > l.limit {
		return nil
	}
	if size > uint64(cap(l.b)) {
		b := make([]byte, len(l.b), min(max(size, uint64(cap(l.b))*3/2), l.limit))
		copy(b, l.b)
		l.b = b
	}
	l.b = l.b[:size]
	return l.b
}

// Free does nothing; the owner of the instance calls release.
func (l *linearMemory) Free() {}

func (l *linearMemory) release() error { l.b = nil; return nil }

func (l *linearMemory) mapped() bool { return false }

func newImageFile([]byte) (*os.File, error) {
	return nil, errors.New("create image: not on this system")
}
