package spill

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestBuffer: what is written is read back, in memory and in a file, at every edge.
func TestBuffer(t *testing.T) {
	for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, memory, memory + 1, 3 * memory} {
		name := filepath.Join(t.TempDir(), "m")
		b := Buffer{Open: func() (File, error) { return os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600) }}
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(i * 7)
		}
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 1000)
			if _, err := b.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if filed := b.File() != nil; filed != (size > memory) {
			t.Errorf("%d octets: in a file %v", size, filed)
		}
		got, err := io.ReadAll(io.NewSectionReader(&b, 0, b.Size()))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d octets: ReadAt gives %d (%v)", size, len(got), err)
		}
		var out bytes.Buffer
		g := Gather(&out)
		if _, err := b.WriteTo(g); err != nil {
			t.Error(err)
		}
		if err := g.Flush(); err != nil || !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%d octets: WriteTo gives %d (%v)", size, out.Len(), err)
		}
		if err := b.Close(); err != nil || b.Size() != 0 {
			t.Errorf("close: %v, %d octets left", err, b.Size())
		}
	}
}

// TestFault: after a failed write nothing is taken for whole.
func TestFault(t *testing.T) {
	full := errors.New("no space")
	b := Buffer{Open: func() (File, error) { return nil, full }}
	for range 2 {
		if _, err := b.Write(make([]byte, memory+1)); !errors.Is(err, full) {
			t.Errorf("write: %v", err)
		}
	}
	if !errors.Is(b.Err(), full) {
		t.Errorf("err: %v", b.Err())
	}
}
