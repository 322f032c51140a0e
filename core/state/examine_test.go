package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// TestStructure: what would end the process, or never end, is found before bbolt
// meets it.
func TestStructure(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, dir, Options{})
	for i := range 3000 {
		put(t, s, fmt.Sprint("k", i), strings.Repeat("v", 100), time.Hour, start)
	}
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 { // so that there are free pages
		put(t, s, fmt.Sprint("k", i), "", 0, start)
	}
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	var root, size uint64
	var metaPage int
	err := s.file.Load().view(func(tx *bbolt.Tx) error {
		root, size, metaPage = uint64(tx.Bucket(records).Root()), uint64(s.file.Load().db.Info().PageSize), tx.ID()%2
		return nil
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	order := binary.NativeEndian
	list := order.Uint64(good[uint64(metaPage)*size+freeAt:])
	child := order.Uint64(good[root*size+pageHead+8:])
	leaf := child
	for order.Uint16(good[leaf*size+8:]) == branchKind {
		leaf = order.Uint64(good[leaf*size+pageHead+8:])
	}
	last := order.Uint64(good[root*size+pageHead+16*(uint64(order.Uint16(good[root*size+10:]))-1)+8:])
	if order.Uint16(good[root*size+8:]) != branchKind || order.Uint16(good[list*size+8:]) != freeKind || order.Uint16(good[list*size+10:]) == 0 {
		t.Fatal("there is no branch, or no list of free pages")
	}
	rows := []struct {
		name, want string
		spoil      func(b []byte)
	}{
		{"none", "", func([]byte) {}},
		{"a branch below itself", "in two places", func(b []byte) { order.PutUint64(b[root*size+pageHead+8:], root) }},
		{"a page below twice", "in two places", func(b []byte) { order.PutUint64(b[root*size+pageHead+16+8:], child) }},
		{"a page that is not there", "there is no page", func(b []byte) { order.PutUint64(b[root*size+pageHead+8:], 1<<40) }},
		{"a meta page below", "there is no page", func(b []byte) { order.PutUint64(b[root*size+pageHead+8:], 1) }},
		{"a branch of nothing", "of kind 0x1 with 0 elements", func(b []byte) { order.PutUint16(b[root*size+10:], 0) }},
		{"a branch among leaves", "of kind 0x1", func(b []byte) { order.PutUint16(b[last*size+8:], branchKind); order.PutUint16(b[last*size+10:], 0) }},
		{"another kind", "of kind 0x8", func(b []byte) { order.PutUint16(b[leaf*size+8:], 8) }},
		{"a page that goes on for ever", "goes on for", func(b []byte) { order.PutUint32(b[leaf*size+12:], 1<<32-1) }},
		{"a page that goes on into others", "in two places", func(b []byte) { order.PutUint32(b[leaf*size+12:], 3) }},
		{"more elements than there is room", "no room for", func(b []byte) { order.PutUint16(b[leaf*size+10:], 60000) }},
		{"a key outside", "element 1 of page", func(b []byte) { order.PutUint32(b[leaf*size+pageHead+16+4:], 1<<31) }},
		{"a value outside", "element 0 of page", func(b []byte) { order.PutUint32(b[leaf*size+pageHead+12:], 1<<32-1) }},
		{"a bucket among records", "element 0 of page", func(b []byte) { order.PutUint32(b[leaf*size+pageHead:], 1) }},
		{"a branch's key outside", "element 0 of page", func(b []byte) { order.PutUint32(b[root*size+pageHead+4:], 1<<20) }},
		{"another number", "says that it is", func(b []byte) { order.PutUint64(b[root*size:], 77) }},
		{"a free list of all memory", "no list of free pages", func(b []byte) {
			order.PutUint16(b[list*size+10:], manyPages)
			order.PutUint64(b[list*size+pageHead:], 1<<41)
		}},
		{"a free page in use", "in two places", func(b []byte) { order.PutUint64(b[list*size+pageHead:], root) }},
		{"a free page twice", "in two places", func(b []byte) { copy(b[list*size+pageHead:][:8], b[list*size+pageHead+8:]) }},
		{"another thing in the list's place", "is no list", func(b []byte) { order.PutUint16(b[list*size+8:], leafKind) }},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			b := bytes.Clone(good)
			r.spoil(b)
			dir := t.TempDir()
			name := filepath.Join(dir, fileName)
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := examine(name, int64(len(b))); errors.Is(err, errDamaged) != (r.want != "") || err != nil && !strings.Contains(err.Error(), r.want) {
				t.Errorf("got %v, want %q", err, r.want)
			}
			use(t, dir)
		})
	}
}
