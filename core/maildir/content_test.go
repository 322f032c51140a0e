package maildir

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// crlf is the plain meaning of what Content does.
func crlf(data []byte) (out []byte) {
	for i, c := range data {
		if c == '\n' && (i == 0 || data[i-1] != '\r') {
			out = append(out, '\r')
		}
		out = append(out, c)
	}
	return out
}

func checkContent(t *testing.T, data []byte, ranges func(size int) (off, n int)) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "m")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	want := crlf(data)
	size, err := virtualSize(name)
	if err != nil || size != int64(len(want)) {
		t.Fatalf("size %d, %v, want %d", size, err, len(want))
	}
	for _, claimed := range []int64{size, size + 1} { // a wrong ",W=" does no harm
		if claimed == int64(len(data)) {
			continue // W equals S: passed through
		}
		c, err := newOpener(maxUnpacked).open(name, claimed)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if c.Size() != size {
			t.Fatalf("Size %d, want %d", c.Size(), size)
		}
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("read %d octets, %v, want %d", len(got), err, len(want))
		}
		for range 200 {
			off, n := ranges(len(want))
			p := make([]byte, n)
			got, err := c.ReadAt(p, int64(off))
			end := min(off+n, len(want))
			if !bytes.Equal(p[:got], want[min(off, end):end]) || (err == io.EOF) != (off+n > len(want) || off >= len(want)) {
				t.Fatalf("ReadAt %d+%d: %q, %v, want %q", off, n, p[:got], err, want[min(off, end):end])
			}
		}
	}
}

func TestContent(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int, alphabet string) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = alphabet[r.IntN(len(alphabet))]
		}
		return b
	}
	rows := map[string][]byte{
		"empty": nil, "only LF": []byte("\n"), "LFs": bytes.Repeat([]byte("\n"), 1000), "mixed": []byte("a\r\nb\nc\r\r\n\n\r"),
		"no line end": []byte("abc"), "CRLF": []byte("a: b\r\n\r\nx\r\n"),
		"long":              bytes.Repeat([]byte("a line of text\n"), 30_000),
		"CR at block's end": append(append(bytes.Repeat([]byte("x"), markEvery-1), '\r'), "\n\nrest\n"...),
		"random":            random(5000, "ab\r\n"), "long random": random(300_000, "abcdefgh\r\n"),
	}
	for name, data := range rows {
		t.Run(name, func(t *testing.T) {
			checkContent(t, data, func(size int) (int, int) { return r.IntN(size + 2), 1 + r.IntN(100) })
		})
	}
}
