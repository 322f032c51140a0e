package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"go.etcd.io/bbolt"
)

// Pages of a bbolt file (go.etcd.io/bbolt/internal/common): a head of 16 octets,
// which are the page's number (8), its kind (2), the number of its elements (2)
// and of the pages that continue it (4). Elements of 16 octets follow. A leaf's
// is its kind, where its key begins, and the lengths of key and value (4 each); a
// branch's where its key begins, its length (4 each) and the page below (8).
// Keys begin so many octets after the element does. All is in the machine's own order.
const (
	pageHead    = 16
	branchKind  = 0x01
	leafKind    = 0x02
	freeKind    = 0x10
	freeAt      = 48 // of a meta page: the number of the page where the list of free pages begins
	noFreeList  = ^uint64(0)
	manyPages   = 1<<16 - 1 // as the number of a free list's elements: the first element is the number
	deepestTree = 32

	recordElement = 0
	bucketElement = 1
)

// examine reports whether a file of size octets is safe to be worked with: what
// no recover catches is looked for before bbolt meets it. Those are a file that
// is shorter than it says, trees in which one goes round for ever, pages that go
// on beyond the end, and lists of more pages than there are. It reads the
// structure and not the contents: of 1 GiB that is a fraction of a second where
// the kernel has them at hand, and as long as reading the file where not.
func examine(name string, size int64) (err error) {
	f := &file{}
	if err := f.open(name, true); err != nil {
		if !errors.Is(err, errDamaged) && size < 2*int64(os.Getpagesize()) {
			err = fmt.Errorf("%w: %w", errDamaged, err)
		}
		return errors.Join(err, f.close())
	}
	defer func() { err = errors.Join(err, f.close()) }()
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close() // only read
	return f.view(func(tx *bbolt.Tx) error {
		if tx.Size() > size {
			return fmt.Errorf("%w: %d of its %d octets are there", errDamaged, size, tx.Size())
		}
		p := pages{in: in, size: int64(f.db.Info().PageSize)}
		p.met, p.buf = make([]bool, tx.Size()/p.size), make([]byte, p.size)
		if err := p.tree(uint64(tx.Cursor().Bucket().Root()), bucketElement); err != nil {
			return err
		}
		for _, name := range [][]byte{records, ends, meta} {
			b := tx.Bucket(name)
			if b == nil || b.Root() == 0 { // within its parent's page
				continue
			}
			if err := p.tree(uint64(b.Root()), recordElement); err != nil {
				return err
			}
		}
		return p.free(tx.ID() % 2)
	})
}

// pages is what has been met of a file's pages.
type pages struct {
	in   io.ReaderAt
	size int64
	met  []bool // by number
	buf  []byte // the page at hand
}

// meet notes that a page is in use.
func (p *pages) meet(id uint64) error {
	if id < 2 || id >= uint64(len(p.met)) {
		return fmt.Errorf("%w: there is no page %d", errDamaged, id)
	}
	if p.met[id] {
		return fmt.Errorf("%w: page %d is in two places", errDamaged, id)
	}
	p.met[id] = true
	return nil
}

// page reads a page and its elements, of 16 octets each, and meets it and the
// pages that continue it.
func (p *pages) page(id uint64) (kind uint16, elements []byte, octets int64, err error) {
	if err := p.meet(id); err != nil {
		return 0, nil, 0, err
	}
	at := int64(id) * p.size
	if _, err := p.in.ReadAt(p.buf, at); err != nil {
		return 0, nil, 0, fmt.Errorf("%w: page %d: %w", errDamaged, id, err)
	}
	order := binary.NativeEndian
	if n := order.Uint64(p.buf); n != id {
		return 0, nil, 0, fmt.Errorf("%w: page %d says that it is %d", errDamaged, id, n)
	}
	kind, count, more := order.Uint16(p.buf[8:]), int64(order.Uint16(p.buf[10:])), uint64(order.Uint32(p.buf[12:]))
	if more >= uint64(len(p.met)) { // before they are counted
		return 0, nil, 0, fmt.Errorf("%w: page %d goes on for %d pages", errDamaged, id, more)
	}
	for i := range more {
		if err := p.meet(id + 1 + i); err != nil {
			return 0, nil, 0, err
		}
	}
	octets = int64(more+1) * p.size
	if kind == freeKind {
		return kind, nil, octets, nil
	}
	if pageHead+16*count > octets {
		return 0, nil, 0, fmt.Errorf("%w: page %d has no room for %d elements", errDamaged, id, count)
	}
	elements = p.buf[pageHead:]
	if int64(len(elements)) < 16*count {
		elements = make([]byte, 16*count)
		if _, err := p.in.ReadAt(elements, at+pageHead); err != nil {
			return 0, nil, 0, fmt.Errorf("%w: page %d: %w", errDamaged, id, err)
		}
	}
	return kind, elements[:16*count], octets, nil
}

// tree looks at the pages below root, which are branches and then, all equally
// deep, leaves, whose elements are of one kind.
func (p *pages) tree(root uint64, element uint32) error {
	level := []uint64{root}
	for range deepestTree {
		slices.Sort(level) // as they lie in the file, which is quicker
		var below []uint64
		for _, id := range level {
			kind, elements, octets, err := p.page(id)
			if err != nil {
				return err
			}
			if kind != leafKind && (kind != branchKind || len(elements) == 0) || kind == leafKind && below != nil {
				return fmt.Errorf("%w: page %d is of kind %#x with %d elements", errDamaged, id, kind, len(elements)/16)
			}
			for i := 0; i < len(elements); i += 16 {
				child, ok := inner(kind, elements[i:], element, octets-pageHead-int64(i))
				if !ok {
					return fmt.Errorf("%w: element %d of page %d is outside of it, or of another kind", errDamaged, i/16, id)
				}
				if kind == branchKind {
					below = append(below, child)
				}
			}
		}
		if below == nil {
			return nil
		}
		if len(below) > len(p.met) {
			break
		}
		level = below
	}
	return fmt.Errorf("%w: the tree of page %d has no leaves", errDamaged, root)
}

// inner reports whether an element's key and value are in the octets from the
// element to the end of its page, and the page below it if it is a branch's.
func inner(kind uint16, e []byte, want uint32, room int64) (child uint64, ok bool) {
	order := binary.NativeEndian
	if kind == branchKind {
		return order.Uint64(e[8:]), int64(order.Uint32(e))+int64(order.Uint32(e[4:])) <= room
	}
	end := int64(order.Uint32(e[4:])) + int64(order.Uint32(e[8:])) + int64(order.Uint32(e[12:]))
	return 0, order.Uint32(e) == want && end <= room
}

// free looks at the list of free pages that a meta page names.
func (p *pages) free(metaPage int) error {
	b := make([]byte, 8)
	if _, err := p.in.ReadAt(b, int64(metaPage)*p.size+freeAt); err != nil {
		return err
	}
	list := binary.NativeEndian.Uint64(b)
	if list == noFreeList {
		return nil
	}
	kind, _, octets, err := p.page(list)
	if err != nil {
		return err
	}
	n, at, room := uint64(binary.NativeEndian.Uint16(p.buf[10:])), int64(list)*p.size+pageHead, octets-pageHead
	if n == manyPages {
		n, at, room = binary.NativeEndian.Uint64(p.buf[pageHead:]), at+8, room-8
	}
	if kind != freeKind || n > uint64(room/8) {
		return fmt.Errorf("%w: page %d is no list of free pages", errDamaged, list)
	}
	b = make([]byte, 8*n)
	if _, err := p.in.ReadAt(b, at); err != nil {
		return fmt.Errorf("%w: free pages: %w", errDamaged, err)
	}
	for ; len(b) > 0; b = b[8:] {
		if err := p.meet(binary.NativeEndian.Uint64(b)); err != nil {
			return err
		}
	}
	return nil
}
