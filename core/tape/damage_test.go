package tape

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// small is the octets of a closed file with four chunks of three entries, and
// its entries.
func small(t testing.TB, key []byte) (octets []byte, entries []string) {
	t.Helper()
	dir := t.TempDir()
	w := newTestWriter(t, dir, Options{File: 1 << 20, Age: time.Hour, Total: 1 << 30, Keep: time.Hour, Secret: key})
	for i := range 4 {
		w.o.Fast = i%2 == 1 // both ways
		c := &chunk{}
		for j := range 3 {
			text := fmt.Sprint("entry ", i, j)
			c.add(noon.Add(time.Duration(i)*time.Minute).UnixNano(), "s", []byte(text))
			entries = append(entries, text)
		}
		if err := w.write(c, noon); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, nameOf(noon)))
	if err != nil {
		t.Fatal(err)
	}
	return b, entries
}

// readOctets reads a file from memory.
func readOctets(t testing.TB, b []byte, newest bool, f Filter, o ReadOptions) ([]string, Stats) {
	t.Helper()
	o.Parallel = 1
	r := newReader(f, o)
	var got []string
	stats, err := r.run(t.Context(), func(e Entry) error {
		got = append(got, string(e.Data))
		return nil
	}, func() error {
		s := scanner{in: bytes.NewReader(b), size: int64(len(b)), name: "f", born: noon, newest: newest, access: access{secret: o.Secret, unsealed: o.Unsealed}, out: r}
		return s.scan()
	})
	if err != nil {
		t.Fatal(err)
	}
	return got, stats
}

// chunksOf is where the chunks of a sound file begin, and its end mark.
func chunksOf(t testing.TB, b []byte) (all []int) {
	t.Helper()
	for at := fileHead; at < len(b); {
		h, ok := parseHeader(b[at : at+chunkHead])
		if !ok {
			t.Fatalf("no chunk at %d", at)
		}
		all = append(all, at)
		at += chunkHead + int(h.stored)
	}
	return all
}

// partOf reports whether got is all, without some.
func partOf(got, all []string) bool {
	for _, s := range got {
		i := slices.Index(all, s)
		if i < 0 {
			return false
		}
		all = all[i+1:]
	}
	return true
}

// TestEveryBit: whichever bit of a file flips, that is said, no other entry comes
// out, and no more is lost than the chunk that it is in.
func TestEveryBit(t *testing.T) {
	for _, kind := range secrets {
		t.Run(kind.name, func(t *testing.T) {
			b, want := small(t, kind.secret)
			for i := range len(b) * 16 {
				bit := i / 2
				b[bit/8] ^= 1 << (bit % 8)
				got, stats := readOctets(t, b, i%2 == 0, Filter{}, ReadOptions{Secret: kind.secret})
				b[bit/8] ^= 1 << (bit % 8)
				if len(stats.Problems) == 0 || len(stats.Problems) > 3 {
					t.Fatalf("bit %d of octet %d: %d problems: %v", bit%8, bit/8, len(stats.Problems), stats.Problems)
				}
				if !partOf(got, want) || len(got) < len(want)-3 {
					t.Fatalf("bit %d of octet %d: %q, %v", bit%8, bit/8, got, stats.Problems)
				}
			}
		})
	}
}

// TestEveryLength: wherever a file is cut off, what is whole before it is read. In
// the newest file that is no problem, as it may be being written.
func TestEveryLength(t *testing.T) {
	for _, kind := range secrets {
		t.Run(kind.name, func(t *testing.T) {
			b, all := small(t, kind.secret)
			chunks := chunksOf(t, b)
			for n := range len(b) {
				whole := 0
				for _, at := range chunks[1:] {
					if n >= at {
						whole++
					}
				}
				for _, newest := range []bool{true, false} {
					got, stats := readOctets(t, b[:n], newest, Filter{}, ReadOptions{Secret: kind.secret})
					same(t, got, all[:3*whole])
					want := 1
					if newest {
						want = 0
					}
					if len(stats.Problems) != want {
						t.Fatalf("%d octets, newest %t: %v", n, newest, stats.Problems)
					}
				}
			}
		})
	}
}

// TestDamage: what is said of other damage, and what is read all the same.
func TestDamage(t *testing.T) {
	rows := []struct {
		name     string
		do       func(b []byte, at []int) []byte // at: four chunks and the end mark
		want     string                          // chunks
		problems []string                        // a part of each
	}{
		{"none", func(b []byte, at []int) []byte { return b }, "0123", nil},
		{"a chunk taken out", func(b []byte, at []int) []byte { return slices.Delete(b, at[1], at[2]) }, "023", []string{"chunks 1 to 1 are missing"}},
		{"two chunks taken out", func(b []byte, at []int) []byte { return slices.Delete(b, at[0], at[2]) }, "23", []string{"chunks 0 to 1 are missing"}},
		{"the last chunk taken out", func(b []byte, at []int) []byte { return slices.Delete(b, at[3], at[4]) }, "012", []string{"chunks 3 to 3 are missing"}},
		{"the end mark taken out", func(b []byte, at []int) []byte { return b[:at[4]] }, "0123", []string{"the end mark is missing"}},
		{"chunks exchanged", func(b []byte, at []int) []byte {
			return slices.Concat(b[:at[1]], b[at[2]:at[3]], b[at[1]:at[2]], b[at[3]:])
		}, "023", []string{"chunks 1 to 1 are missing", "chunk 1 is where chunk 3 belongs"}},
		{"a chunk twice", func(b []byte, at []int) []byte { return slices.Insert(b, at[2], b[at[1]:at[2]]...) }, "0123", []string{"chunk 1 is where chunk 2 belongs"}},
		{"octets between chunks", func(b []byte, at []int) []byte { return slices.Insert(b, at[2], []byte("hello")...) }, "0123", []string{"5 octets are damaged"}},
		{"octets missing in a chunk", func(b []byte, at []int) []byte { return slices.Delete(b, at[1]+chunkHead+5, at[1]+chunkHead+8) }, "023", []string{"octets are damaged"}},
		{"zeros over two chunks", func(b []byte, at []int) []byte { clear(b[at[1]+20 : at[2]+30]); return b }, "03", []string{"octets are damaged"}},
		{"zeros at the end", func(b []byte, at []int) []byte { clear(b[at[3]+20:]); return b }, "012", []string{"octets are damaged", "the end mark is missing"}},
		{"octets after the end", func(b []byte, at []int) []byte { return append(b, b[at[3]:]...) }, "0123", []string{"octets follow the end mark"}},
		{"an end mark in the middle", func(b []byte, at []int) []byte { return slices.Insert(b, at[2], b[at[4]:]...) }, "01", []string{"chunks 2 to 3 are missing", "octets follow the end mark"}},
		{"no header", func(b []byte, at []int) []byte { return b[fileHead:] }, "0123", []string{"header is damaged"}},
		{"no header and half a chunk", func(b []byte, at []int) []byte { return b[at[0]+50:] }, "123", []string{"header is damaged", "octets are damaged"}},
		{"a foreign file", func([]byte, []int) []byte { return []byte(strings.Repeat("From: a@example.org\r\n", 100)) }, "", []string{"not a tape, and no chunk is found"}},
		{"a short foreign file", func([]byte, []int) []byte { return []byte("hello") }, "", []string{"shorter than a tape's header"}},
		{"an unknown version", func(b []byte, at []int) []byte {
			b[8] = 2
			binary.LittleEndian.PutUint32(b[fileHead-4:], castagnoli(b[:fileHead-4]))
			return b
		}, "", []string{"version that is not known here"}},
		{"zeros", func(b []byte, at []int) []byte { clear(b); return b }, "", []string{"no chunk is found"}},
	}
	for _, kind := range secrets {
		for _, row := range rows {
			t.Run(kind.name+" "+row.name, func(t *testing.T) {
				b, all := small(t, kind.secret)
				var want []string
				for _, c := range row.want {
					want = append(want, all[3*(c-'0'):][:3]...)
				}
				got, stats := readOctets(t, row.do(slices.Clone(b), chunksOf(t, b)), false, Filter{}, ReadOptions{Secret: kind.secret})
				same(t, got, want)
				if len(stats.Problems) != len(row.problems) {
					t.Fatalf("problems: %v", stats.Problems)
				}
				for i, p := range stats.Problems {
					if !strings.Contains(p.What, row.problems[i]) || p.Advice == "" || p.File != "f" {
						t.Errorf("problem %d: %v, want %q", i, p, row.problems[i])
					}
				}
			})
		}
	}
}

// TestForged: who does not have the secret cannot change anything, though the
// checksums are right.
func TestForged(t *testing.T) {
	fix := func(b []byte, at int) { // the header's checksum
		binary.LittleEndian.PutUint32(b[at+headSum:], castagnoli(b[at:at+headSum]))
	}
	b, all := small(t, secret)
	at := chunksOf(t, b)
	other, _ := small(t, secret)
	rows := []struct {
		name string
		do   func(b []byte) []byte
		want []string
	}{
		{"a payload", func(b []byte) []byte {
			b[at[1]+chunkHead+3] ^= 1
			binary.LittleEndian.PutUint32(b[at[1]+headBody:], castagnoli(b[at[1]+chunkHead:at[2]]))
			fix(b, at[1])
			return b
		}, slices.Concat(all[:3], all[6:])},
		{"a number", func(b []byte) []byte { b[at[1]+8] = 7; fix(b, at[1]); return b }, slices.Concat(all[:3], all[6:])},
		{"a time, so that it is skipped", func(b []byte) []byte { clear(b[at[1]+32 : at[1]+48]); fix(b, at[1]); return b }, slices.Concat(all[:3], all[6:])},
		{"a chunk of another file", func(b []byte) []byte { copy(b[at[1]:at[2]], other[at[1]:at[2]]); return b }, slices.Concat(all[:3], all[6:])},
		{"a chunk of another file, with our salt", func(b []byte) []byte {
			copy(b[at[1]:at[2]], other[at[1]:at[2]])
			copy(b[at[1]+48:], b[24:24+saltSize])
			fix(b, at[1])
			return b
		}, slices.Concat(all[:3], all[6:])},
		{"the header", func(b []byte) []byte {
			b[16]++
			binary.LittleEndian.PutUint32(b[fileHead-4:], castagnoli(b[:fileHead-4]))
			return b
		}, nil},
		{"an unsealed file", func([]byte) []byte { b, _ := small(t, nil); return b }, nil},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			f := Filter{Since: noon.Add(-time.Hour)}
			got, stats := readOctets(t, row.do(slices.Clone(b)), false, f, ReadOptions{Secret: secret})
			same(t, got, row.want)
			if len(stats.Problems) != 1 {
				t.Errorf("problems: %v", stats.Problems)
			}
		})
	}
}

// TestSecrets: what is said where the secret is wrong, missing, or not needed.
func TestSecrets(t *testing.T) {
	rows := []struct {
		name     string
		with     []byte
		o        ReadOptions
		entries  int
		problem  string
		examined int
	}{
		{"right", secret, ReadOptions{Secret: secret}, 12, "", 1},
		{"wrong", secret, ReadOptions{Secret: []byte("fedcba9876543210fedcba9876543210")}, 0, "sealed with another secret", 1},
		{"short", secret, ReadOptions{Secret: []byte("x")}, 0, "sealed with another secret", 1},
		{"missing", secret, ReadOptions{}, 0, "there is no secret", 1},
		{"needless", nil, ReadOptions{Secret: secret}, 0, "not sealed, though there is a secret", 0},
		{"needless, and that is known", nil, ReadOptions{Secret: secret, Unsealed: true}, 12, "", 0},
		{"none", nil, ReadOptions{}, 12, "", 0},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b, _ := small(t, row.with)
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, nameOf(noon)), b, 0o600); err != nil {
				t.Fatal(err)
			}
			got, stats := read(t, dir, Filter{}, row.o)
			if len(got) != row.entries || (row.problem == "") != (len(stats.Problems) == 0) {
				t.Fatalf("%d entries, %v", len(got), stats.Problems)
			}
			if row.problem != "" && !strings.Contains(stats.Problems[0].String(), row.problem) {
				t.Errorf("%v, want %q", stats.Problems, row.problem)
			}
			sum, err := Examine(dir)
			if err != nil || sum.Entries != 12 || sum.Sealed != row.examined || len(sum.Problems) > 0 {
				t.Errorf("%+v, %v", sum, err)
			}
		})
	}
}

// TestBomb: a chunk that becomes larger than its header says is not decompressed
// further, and a header cannot say more than the format allows.
func TestBomb(t *testing.T) {
	zip, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 256<<20)
	bombs := [][]byte{zip.EncodeAll(zeros, nil), s2.Encode(nil, zeros)}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	for i, bomb := range bombs {
		if len(bomb) > maxStored {
			t.Fatalf("a bomb of %d octets", len(bomb))
		}
		for _, raw := range []uint32{entryHead, 1 << 20, maxRaw, maxRaw + 1, 256 << 20} {
			b, _ := small(t, nil)
			at := chunksOf(t, b)
			h, _ := parseHeader(b[at[0]:][:chunkHead])
			h.fast, h.raw, h.entries, h.stored, h.sum = i == 1, raw, 1, uint32(len(bomb)), castagnoli(bomb)
			forged := h.appendRest(h.appendBody(slices.Clone(b[:at[0]])), nil)
			forged = slices.Concat(forged, bomb, b[at[1]:])
			got, stats := readOctets(t, forged, false, Filter{}, ReadOptions{})
			if len(got) != 9 || len(stats.Problems) != 1 {
				t.Errorf("raw %d: %d entries, %v", raw, len(got), stats.Problems)
			}
		}
	}
}

// TestWrongEntries: a chunk whose entries are not what the header says has none.
func TestWrongEntries(t *testing.T) {
	rows := []struct {
		name string
		do   func(b []byte, h *header) []byte
	}{
		{"one more", func(b []byte, h *header) []byte { h.entries++; return b }},
		{"one less", func(b []byte, h *header) []byte { h.entries--; return b }},
		{"longer data", func(b []byte, h *header) []byte { b[0]++; return b }},
		{"huge data", func(b []byte, h *header) []byte { copy(b, "\xff\xff\xff\xff"); return b }},
		{"a huge session", func(b []byte, h *header) []byte { copy(b[4:], "\xff\xff\xff\xff"); return b }},
		{"a time before the first", func(b []byte, h *header) []byte { clear(b[8:16]); return b }},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			raw := appendEntry(appendEntry(nil, 5, "s", []byte("one")), 6, "s", []byte("two"))
			h := header{entries: 2, first: 5, last: 6}
			if err := entriesOf(raw, &h, nil); err != nil {
				t.Fatal(err)
			}
			if err := entriesOf(row.do(raw, &h), &h, nil); !errors.Is(err, errEntries) {
				t.Error(err)
			}
		})
	}
}

// TestMuchDamage: problems are bounded, and so is the search.
func TestMuchDamage(t *testing.T) {
	t.Run("many places", func(t *testing.T) {
		b, _ := small(t, nil)
		at := chunksOf(t, b)
		b = b[:at[1]]
		for range 3 * MaxProblems {
			b = append(b, b[at[0]:at[1]]...)
		}
		got, stats := readOctets(t, b, false, Filter{}, ReadOptions{})
		if len(got) != 3 || len(stats.Problems) != MaxProblems || stats.More != 2*MaxProblems+1 {
			t.Errorf("%d entries, %d problems and %d", len(got), len(stats.Problems), stats.More)
		}
	})
	t.Run("nothing but marks", func(t *testing.T) {
		b, _ := small(t, nil)
		b = append(b[:fileHead], bytes.Repeat([]byte(chunkMark), 1<<20)...)
		_, stats := readOctets(t, b, false, Filter{}, ReadOptions{})
		if len(stats.Problems) != 2 || !strings.Contains(stats.Problems[0].What, "too much damage") {
			t.Errorf("%v", stats.Problems)
		}
	})
	t.Run("headers without payload", func(t *testing.T) {
		b, _ := small(t, nil)
		at := chunksOf(t, b)
		h, _ := parseHeader(b[at[0]:][:chunkHead])
		b = b[:fileHead]
		for i := range 40_000 {
			h.number, h.stored = uint64(i), 1<<20
			b = h.appendRest(h.appendBody(b), nil)
		}
		got, stats := readOctets(t, b, false, Filter{}, ReadOptions{})
		if len(got) > 0 || len(stats.Problems) == 0 {
			t.Errorf("%d entries, %v", len(got), stats.Problems)
		}
	})
}

// TestPlanted: what somebody had put into an entry, as a mail may have a chunk in
// it, is not taken for a chunk.
func TestPlanted(t *testing.T) {
	evil, _ := small(t, nil)
	dir := t.TempDir()
	w := newTestWriter(t, dir, Options{File: 1 << 20, Age: time.Hour, Total: 1 << 30, Keep: time.Hour})
	if err := errors.Join(w.write(one(noon, "s", "sound"), noon), w.write(one(noon, "s", string(evil)), noon), w.close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, nameOf(noon)))
	if err != nil {
		t.Fatal(err)
	}
	at := chunksOf(t, b)
	b = slices.Concat(b[:at[1]], b[at[1]+10:at[1]+chunkHead], evil, b[at[2]:])
	got, stats := readOctets(t, b, false, Filter{}, ReadOptions{})
	same(t, got, []string{"sound"})
	if len(stats.Problems) != 1 {
		t.Error(stats.Problems)
	}
}
