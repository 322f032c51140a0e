package imapd

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// inflate decodes a whole stream.
func inflate(b []byte) ([]byte, error) {
	var out bytes.Buffer
	f := &inflater{src: bytes.NewReader(b), give: func(p []byte) error {
		if out.Len() > 1<<20 {
			return errors.New("enough")
		}
		out.Write(p)
		return nil
	}}
	err := f.run()
	return out.Bytes(), err
}

func deflate(t testing.TB, b []byte, level int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestInflate(t *testing.T) {
	noise := make([]byte, 100_000)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	few := bytes.Clone(noise)
	for i := range few {
		few[i] &= 3
	}
	for name, text := range map[string][]byte{
		"empty": nil, "a letter": []byte("a"), "text": []byte(strings.Repeat(simpleMessage, 300)), "noise": noise, "four symbols": few,
		"runs": bytes.Repeat([]byte{0}, 200_000),
	} {
		for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, 1, 6, 9} {
			got, err := inflate(deflate(t, text, level))
			if err != nil || !bytes.Equal(got, text) {
				t.Errorf("%s at level %d: %d octets, want %d (%v)", name, level, len(got), len(text), err)
			}
		}
	}
}

// TestInflatePartialFlush: what a client has flushed with an empty block of fixed
// codes is handed over before the next read. The stream is zlib's for "a NOOP\r\n"
// with Z_PARTIAL_FLUSH.
func TestInflatePartialFlush(t *testing.T) {
	stream := []byte{0x4a, 0x54, 0xf0, 0xf3, 0xf7, 0x0f, 0xe0, 0xe5, 0x02, 0x08}
	r, w := io.Pipe()
	got := make(chan string, 1)
	f := &inflater{src: r, give: func(p []byte) error { got <- string(p); return nil }}
	ended := make(chan error, 1)
	go func() { ended <- f.run() }()
	if _, err := w.Write(stream); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != "a NOOP\r\n" {
		t.Errorf("%q", s)
	}
	w.Close()
	if err := <-ended; !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// FuzzInflate compares with compress/flate.
func FuzzInflate(f *testing.F) {
	f.Add(deflate(f, []byte(simpleMessage), 6))
	f.Add(deflate(f, []byte(strings.Repeat("ab", 1000)), 9))
	f.Add([]byte{0x4a, 0x54, 0xf0, 0xf3, 0xf7, 0x0f, 0xe0, 0xe5, 0x02, 0x08})
	f.Add([]byte{0, 0, 0, 0xff, 0xff, 1, 1, 0, 0xfe, 0xff, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := inflate(b)
		want, werr := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), 1<<20))
		if len(want) == 1<<20 {
			return
		}
		if werr == nil && (err != nil || !bytes.Equal(got, want)) {
			t.Fatalf("%q is %d octets, ours %d (%v)", b, len(want), len(got), err)
		}
		if werr != nil && err == nil {
			t.Fatalf("%q is taken: %q, and is wrong: %v", b, got, werr)
		}
	})
}
