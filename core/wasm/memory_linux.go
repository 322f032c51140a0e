package wasm

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tetratelabs/wazero/experimental"
)

// linearMemory is the memory of one instance: address space reserved once, up
// to the limit, so that growing neither moves nor copies, and the image of the
// initialised plugin mapped copy-on-write over its beginning.
//
// wazero frees a memory when a module is closed, but a call on a closed module
// still runs and would touch what is gone. So Free does nothing, and the owner
// of the instance calls release once nobody can call it any more.
type linearMemory struct {
	limit uint64 // octets
	image *image // nil: zeros
	b     []byte
	err   error
}

// Allocate reserves the address space (experimental.MemoryAllocator).
func (l *linearMemory) Allocate(_, most uint64) experimental.LinearMemory {
	l.limit = min(l.limit, most)
	size := max(l.limit, pageSize)
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		l.err = fmt.Errorf("reserve %d octets of address space: %w", size, err)
		return l
	}
	l.b = b
	if l.image != nil && l.image.size > 0 && l.image.file != nil {
		l.err = l.image.mapOver(b)
	}
	return l
}

// Reallocate returns the first size octets; nil if the limit does not allow it.
func (l *linearMemory) Reallocate(size uint64) []byte {
	if l.err != nil || size > l.limit {
		return nil
	}
	return l.b[:size:len(l.b)]
}

// Free does nothing; see linearMemory.
func (l *linearMemory) Free() {}

// release unmaps. Nothing may refer to the instance any more.
func (l *linearMemory) release() error {
	b := l.b
	l.b = nil
	if b == nil {
		return nil
	}
	return unix.Munmap(b)
}

// mapped reports whether the memory begins with the image without a copy.
func (l *linearMemory) mapped() bool { return l.b != nil && l.image != nil && l.image.file != nil }

// newImageFile puts b into an anonymous file for mapping.
func newImageFile(b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("wafer-plugin", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create image: %w", err)
	}
	f := os.NewFile(uintptr(fd), "wafer-plugin")
	if _, err = f.Write(b); err == nil {
		return f, nil
	}
	_ = f.Close() // the write's error is the one to tell
	return nil, fmt.Errorf("write image: %w", err)
}

// mapOver maps the image over the beginning of b. It calls mmap itself because
// x/sys hides MAP_FIXED.
func (im *image) mapOver(b []byte) error {
	if im.size > len(b) {
		return fmt.Errorf("map image: %d octets into a memory of %d", im.size, len(b))
	}
	_, _, errno := unix.Syscall6(unix.SYS_MMAP, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(im.size),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_FIXED|unix.MAP_PRIVATE, im.file.Fd(), 0)
	if errno != 0 {
		return fmt.Errorf("map image: %w", errno)
	}
	return nil
}
