package dkim_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/dkim"
)

// canonical is RFC 6376 §3.4.3 and §3.4.4 said once more, line by line.
func canonical(c dkim.Canon, body string) string {
	lines := strings.Split(body, "\r\n")
	for i, line := range lines {
		if c == dkim.Relaxed {
			words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
			short := strings.Join(words, " ")
			if line != "" && (line[0] == ' ' || line[0] == '\t') && short != "" {
				short = " " + short
			}
			lines[i] = short
		}
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	if len(lines) == 0 {
		return map[dkim.Canon]string{dkim.Simple: "\r\n"}[c]
	}
	return strings.Join(lines, "\r\n") + "\r\n"
}

func checkBody(t *testing.T, c dkim.Canon, body string, pieces func() int) {
	t.Helper()
	want := canonical(c, body)
	some := int64(len(want) / 2)
	h := dkim.NewBodyHash(c, -1, some, 0, int64(len(want)), int64(len(want))+1)
	for p := body; len(p) > 0; {
		n := min(len(p), max(pieces(), 1))
		h.Write([]byte(p[:n]))
		p = p[n:]
	}
	for _, l := range []int64{-1, 0, some, int64(len(want))} {
		part := want
		if l >= 0 {
			part = want[:l]
		}
		if got, ok := h.Sum(l); !ok || got != sha256.Sum256([]byte(part)) {
			t.Fatalf("%s body %q: hash of %d octets (%v) is not that of %q", c, body, l, ok, part)
		}
	}
	if _, ok := h.Sum(int64(len(want)) + 1); ok {
		t.Errorf("%s body %q: it has a hash of more octets than it has", c, body)
	}
	if h.Octets() != int64(len(want)) {
		t.Errorf("%s body %q: got %d octets, want %d", c, body, h.Octets(), len(want))
	}
}

func TestBody(t *testing.T) {
	for _, row := range []struct{ name, body, simple, relaxed string }{
		{"empty", "", "\r\n", ""},
		{"one empty line", "\r\n", "\r\n", ""},
		{"empty lines", "\r\n\r\n\r\n", "\r\n", ""},
		{"white space only", " \t\r\n \r\n", " \t\r\n \r\n", ""},
		{"one blank", " ", " \r\n", ""},
		{"the RFC's example", " C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n", " C\r\nD E\r\n"},
		{"no line end", "a", "a\r\n", "a\r\n"},
		{"no line end after blanks", "a  ", "a  \r\n", "a\r\n"},
		{"blank lines inside", "a\r\n\r\n\r\nb\r\n", "a\r\n\r\n\r\nb\r\n", "a\r\n\r\n\r\nb\r\n"},
		{"white space lines inside", "a\r\n \r\nb\r\n", "a\r\n \r\nb\r\n", "a\r\n\r\nb\r\n"},
		{"leading white space", "\t\ta\r\n", "\t\ta\r\n", " a\r\n"},
		{"bare LF", "a \nb\n", "a \nb\n\r\n", "a \nb\n\r\n"},
		{"bare CR", "a \rb\r", "a \rb\r\r\n", "a \rb\r\r\n"},
		{"CR CR LF", "a\r\r\n", "a\r\r\n", "a\r\r\n"},
		{"LF CR", "\n\r", "\n\r\r\n", "\n\r\r\n"},
		{"NUL", "a\x00  \x00\r\n", "a\x00  \x00\r\n", "a\x00 \x00\r\n"},
	} {
		if got := canonical(dkim.Simple, row.body); got != row.simple {
			t.Fatalf("%s: the test's own simple form is %q, want %q", row.name, got, row.simple)
		}
		if got := canonical(dkim.Relaxed, row.body); got != row.relaxed {
			t.Fatalf("%s: the test's own relaxed form is %q, want %q", row.name, got, row.relaxed)
		}
		for n := range 4 {
			checkBody(t, dkim.Simple, row.body, func() int { return n })
			checkBody(t, dkim.Relaxed, row.body, func() int { return n })
		}
	}
}

// TestBodyRandom: pieces of any size give the same hash.
func TestBodyRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", "word", " ", "  ", "\t", "\r\n", "\r", "\n", " -", " (", strings.Repeat("x", 40), strings.Repeat("long words ", 80)}
	for range 3000 {
		var b strings.Builder
		for range random.IntN(60) {
			b.WriteString(alphabet[random.IntN(len(alphabet))])
		}
		most := 1 + random.IntN(100)
		for _, c := range []dkim.Canon{dkim.Simple, dkim.Relaxed} {
			checkBody(t, c, b.String(), func() int { return random.IntN(most) })
		}
	}
}

func FuzzBody(f *testing.F) {
	f.Add([]byte(" C \r\nD \t E\r\n\r\n\r\n"), uint8(3))
	f.Add([]byte("a\r\r\n \r\n\n  b"), uint8(1))
	f.Fuzz(func(t *testing.T, body []byte, n uint8) {
		checkBody(t, dkim.Simple, string(body), func() int { return int(n) })
		checkBody(t, dkim.Relaxed, string(body), func() int { return int(n) })
	})
}

func TestField(t *testing.T) {
	for _, row := range []struct{ name, field, relaxed string }{
		{"the RFC's first example", "A: X\r\n", "a:X\r\n"},
		{"the RFC's second example", "B : Y\t\r\n\tZ  \r\n", "b:Y Z\r\n"},
		{"empty", "Subject:\r\n", "subject:\r\n"},
		{"only white space", "Subject: \t\r\n \r\n", "subject:\r\n"},
		{"no line end", "A: b", "a:b\r\n"},
		{"bare LF ends a line", "A: b\n c\n", "a:b c\r\n"},
		{"bare CR is an octet", "A: b\r c\r\n", "a:b\r c\r\n"},
		{"case of the value", "A: B\r\n", "a:B\r\n"},
		{"colons in the value", "A: b : c\r\n", "a:b : c\r\n"},
		{"octets above 127", "A: \xc3\xa4\xff\r\n", "a:\xc3\xa4\xff\r\n"},
		{"NUL", "A: b\x00 c\r\n", "a:b\x00 c\r\n"},
	} {
		if got := dkim.Relaxed.AppendField(nil, []byte(row.field)); string(got) != row.relaxed {
			t.Errorf("%s: relaxed %q is %q, want %q", row.name, row.field, got, row.relaxed)
		}
		want := row.field
		if !strings.HasSuffix(want, "\n") {
			want += "\r\n"
		}
		if got := dkim.Simple.AppendField(nil, []byte(row.field)); string(got) != want {
			t.Errorf("%s: simple %q is %q", row.name, row.field, got)
		}
	}
}

// TestSelect: RFC 6376 §5.4.2.
func TestSelect(t *testing.T) {
	message := []byte("A: 1\r\nB: 2\r\nA: 3\r\nnot a field\r\n with a second line\r\nDKIM-Signature: x\r\nA: 4\r\n folded\r\n\r\nA: 5\r\n")
	m, err := dkim.Read(bytes.NewReader(message), int64(len(message)), dkim.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, names, want, unsigned string }{
		{"one", "a", "4", "[a]"},
		{"bottom up", "a:a", "4 3", "[a]"},
		{"all", "a:a:a", "4 3 1", "[]"},
		{"oversigned", "a:a:a:a:a", "4 3 1", "[]"},
		{"order of h", "b:a:c:a", "2 4 3", "[a]"},
		{"not itself", "dkim-signature:b", "2", "[]"},
		{"absent", "x", "", "[]"},
	} {
		fields, unsigned := m.Select(strings.Split(row.names, ":"), 3)
		var got []string
		for _, f := range fields {
			got = append(got, string(f[bytes.IndexByte(f, ':')+2:][:1]))
		}
		if strings.Join(got, " ") != row.want || fmt.Sprint(unsigned) != row.unsigned {
			t.Errorf("%s: %q selects %q, unsigned %v; want %q and %s", row.name, row.names, got, unsigned, row.want, row.unsigned)
		}
	}
}

// TestReadLong: a header section beyond the first window has the same fields.
func TestReadLong(t *testing.T) {
	const pad = "X-Pad: "
	for _, head := range []string{
		"A: 1\r\nB: 2\r\n",
		" folded at once\r\nA: 1\r\n",
		"nonsense\r\n more\r\nA: 1\r\n\t\r\n x\r\nB:\r\n",
		"A : 1\n b\nC\x00: 2\nDKIM-Signature: x\nE: \r3\r\n",
		strings.Repeat("dkim-SIGNATURE : x\r\n y\r\n", 13) + "A: 1\r\n",
	} {
		read := func(padding int) string {
			message := head + pad + strings.Repeat("x", padding) + "\r\n\r\nbody\r\n"
			m, err := dkim.Read(strings.NewReader(message), int64(len(message)), dkim.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			sums, err := m.HashBody([]*dkim.Signature{{Length: -1}})
			if err != nil {
				t.Fatal(err)
			}
			last := len(m.Fields) - 1
			return fmt.Sprintf("%q %d %d", m.Fields[:last], m.Surplus, sums[0].Octets)
		}
		if short, long := read(1), read(40<<10); short != long {
			t.Errorf("%q: short: %s, long: %s", head, short, long)
		}
	}
}
