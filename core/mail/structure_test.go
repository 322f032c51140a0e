package mail

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// shape writes a tree in short: types, and the octets of each body.
func shape(p *Part, msg string) string {
	s := strings.ToLower(p.Type + "/" + p.Subtype)
	switch {
	case p.Parts != nil:
		var kids []string
		for _, c := range p.Parts {
			kids = append(kids, shape(c, msg))
		}
		return s + "(" + strings.Join(kids, " ") + ")"
	case p.Message != nil:
		return s + "(" + shape(p.Message, msg) + ")"
	}
	return fmt.Sprintf("%s%q%d", s, msg[p.Body.Start:p.Body.End], p.Lines)
}

func TestParseStructure(t *testing.T) {
	rows := []struct{ name, msg, want string }{
		{"empty", "", `text/plain""0`},
		{"no header", "\r\nbody\r\n", `text/plain"body\r\n"1`},
		{"header only", "Subject: x\r\n", `text/plain""0`},
		{"type with comments and case", "content-type : TEXT (a (b)) / Html ; charset=x\r\n\r\nb", `text/html"b"0`},
		{"type that is none", "Content-Type: rubbish\r\n\r\nb", `text/plain"b"0`},
		{"two parts", "Content-Type: multipart/mixed; boundary=\"a b\"\r\n\r\npre\r\n--a b\r\n\r\none\r\n\r\n--a b \r\nContent-Type: text/html\r\n\r\ntwo\r\n--a b--\r\nepilogue",
			`multipart/mixed(text/plain"one\r\n"1 text/html"two"0)`},
		{"bare LF", "Content-Type: multipart/mixed; boundary=a\n\n--a\n\none\n--a--\n", `multipart/mixed(text/plain"one"0)`},
		{"no end", "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\none\r\n", `multipart/mixed(text/plain"one\r\n"1)`},
		{"part without a blank line", "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nX: y\r\n--a\r\n\r\ntwo\r\n--a--", `multipart/mixed(text/plain""0 text/plain"two"0)`},
		{"empty part", "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n--a--", `multipart/mixed(text/plain""0)`},
		{"boundary that never comes", "Content-Type: multipart/mixed; boundary=a\r\n\r\nx\r\n", `multipart/mixed(text/plain""0)`},
		{"no boundary parameter", "Content-Type: multipart/mixed\r\n\r\nx\r\n", `text/plain"x\r\n"1`},
		{"digest", "Content-Type: multipart/digest; boundary=a\r\n\r\n--a\r\n\r\nSubject: x\r\n\r\ny\r\n--a--", `multipart/digest(message/rfc822(text/plain"y"0))`},
		{"the outer boundary ends the inner multipart", "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--a\r\n\r\ny\r\n--a--",
			`multipart/mixed(multipart/alternative(text/plain"x"0) text/plain"y"0)`},
		{"a boundary that begins like another", "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/alternative; boundary=ab\r\n\r\n--ab\r\n\r\nx\r\n--ab--\r\n--a--",
			`multipart/mixed(multipart/alternative(text/plain"x"0))`},
		{"same boundary twice", "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\n\r\nx\r\n--a--\r\n--a--",
			`multipart/mixed(multipart/alternative(text/plain"x"0))`},
		{"embedded message", "Content-Type: message/rfc822\r\n\r\nContent-Type: text/html\r\n\r\nx\r\n", `message/rfc822(text/html"x\r\n"1)`},
		{"folded parameters", "Content-Type: multipart/mixed;\r\n\tx=\"1;2\";\r\n boundary=\"a\\\"b\"\r\n\r\n--a\"b\r\n\r\nx\r\n--a\"b--", `multipart/mixed(text/plain"x"0)`},
		{"long lines", "X: " + strings.Repeat("y", 100000) + "\r\nContent-Type: text/html\r\n\r\n" + strings.Repeat("z", 5), `text/html"zzzzz"0`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p, err := ParseStructure(strings.NewReader(row.msg), int64(len(row.msg)))
			if err != nil {
				t.Fatal(err)
			}
			if got := shape(p, row.msg); got != row.want {
				t.Errorf("got  %s\nwant %s\nof %.200q", got, row.want, row.msg)
			}
		})
	}
}

func TestParseStructureFields(t *testing.T) {
	msg := "Content-Type: text/plain; charset=utf-8; name*0=a; x\r\nContent-Type: text/html\r\nContent-Disposition: attachment; filename=\"a b\"\r\n" +
		"Content-Transfer-Encoding: BASE64 (x)\r\nContent-ID: <1>\r\nContent-Description: two\r\n words\r\nContent-Language: de, en\r\nContent-Location: http://x/\r\nContent-MD5: abc\r\n\r\n"
	p, err := ParseStructure(strings.NewReader(msg), int64(len(msg)))
	if err != nil {
		t.Fatal(err)
	}
	p.Header, p.Body = Range{}, Range{}
	want := "&{text plain [{charset utf-8} {name*0 a}] <1> two words BASE64 abc attachment [{filename a b}] [de en] http://x/ {0 0} {0 0} 0 [] <nil>}"
	if got := fmt.Sprint(p); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestParseStructureBounds: depth, parts and headers are bounded.
func TestParseStructureBounds(t *testing.T) {
	depth := func(p *Part) (d int) {
		for ; p != nil; d++ {
			next := p.Message
			if p.Parts != nil {
				next = p.Parts[0]
			}
			p = next
		}
		return d
	}
	bomb := strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 8000)
	p, err := ParseStructure(strings.NewReader(bomb), int64(len(bomb)))
	if err != nil || depth(p) != MaxDepth {
		t.Errorf("nested messages: depth %d, %v", depth(p), err)
	}
	many := "Content-Type: multipart/mixed; boundary=x\r\n\r\n" + strings.Repeat("--x\r\n\r\na\r\n", 3*MaxParts) + "--x--\r\n"
	p, err = ParseStructure(strings.NewReader(many), int64(len(many)))
	if err != nil || len(p.Parts) != MaxParts-1 {
		t.Errorf("many parts: %d, %v", len(p.Parts), err)
	}
	var rest []byte
	for i := range 5000 {
		rest = fmt.Appendf(rest, "Content-X%d: %s\r\n", i, strings.Repeat("y", 1000))
	}
	rest = append(rest, "\r\n"...)
	if _, err := ParseStructure(bytes.NewReader(rest), int64(len(rest))); err != nil {
		t.Error(err)
	}
}

type brokenReader struct{ after int64 }

var errBroken = errors.New("broken disk")

func (b brokenReader) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.after {
		return 0, errBroken
	}
	return copy(p, strings.Repeat("x", len(p))), nil
}

func TestParseStructureError(t *testing.T) {
	for _, after := range []int64{0, 16 << 10, 100000} {
		if _, err := ParseStructure(brokenReader{after}, 1<<20); !errors.Is(err, errBroken) {
			t.Errorf("after %d octets: %v", after, err)
		}
	}
	if _, err := ReadHeader(brokenReader{4096}, 0, 1<<20, 1<<20); !errors.Is(err, errBroken) {
		t.Errorf("ReadHeader: %v", err)
	}
}

func TestHeaderFields(t *testing.T) {
	in := "From x\r\nA: 1\r\nB : 2\r\n\tand 3\r\n:none\r\nC:\r\n D\r\n\r\nE: body\r\n"
	var got []string
	for f := range HeaderFields([]byte(in)) {
		got = append(got, fmt.Sprintf("%s=%s", f.Name(), f.Value()))
	}
	if s := strings.Join(got, "|"); s != "=|A=1|B=2\tand 3|=|C=D" {
		t.Error(s)
	}
	for f := range HeaderFields([]byte("Subject: x")) {
		if !f.Is("SUBJECT") || f.Is("Subjec") {
			t.Error("Is")
		}
	}
}

func TestReadHeader(t *testing.T) {
	for name, in := range map[string]string{
		"CRLF": "A: b\r\n\r\n", "LF": "A: b\n\n", "mixed": "A: b\r\n\n", "at once": "\r\n", "long": strings.Repeat("A: b\r\n", 3000) + "\r\n",
	} {
		b, err := ReadHeader(strings.NewReader(in+"body\r\n\r\n"), 0, int64(len(in)+8), 1<<20)
		if err != nil || string(b) != in {
			t.Errorf("%s: %d octets, want %d, %v", name, len(b), len(in), err)
		}
	}
	if b, err := ReadHeader(strings.NewReader(strings.Repeat("x", 10000)), 0, 10000, 5000); err != nil || len(b) != 5000 {
		t.Errorf("bounded: %d, %v", len(b), err)
	}
}

// FuzzParseStructure: ranges nest, and parts come in order.
func FuzzParseStructure(f *testing.F) {
	f.Add([]byte("Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\nx\r\n--a\r\nContent-Type: message/rfc822\r\n\r\nA: b\r\n--a--\r\n"))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=\"\r\n\n--\n--\n"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		p, err := ParseStructure(bytes.NewReader(msg), int64(len(msg)))
		if err != nil {
			t.Fatal(err)
		}
		checkRanges(t, p, Range{0, int64(len(msg))}, msg)
	})
}

func checkRanges(t *testing.T, p *Part, in Range, msg []byte) {
	t.Helper()
	if p.Header.Start < in.Start || p.Header.End < p.Header.Start || p.Body.Start < p.Header.End || p.Body.End < p.Body.Start || p.Body.End > in.End || p.Lines < 0 {
		t.Fatalf("header %v, body %v, lines %d inside %v", p.Header, p.Body, p.Lines, in)
	}
	if lines := bytes.Count(msg[p.Body.Start:p.Body.End], []byte("\n")); int64(lines) != p.Lines {
		t.Fatalf("body %v has %d lines, not %d", p.Body, lines, p.Lines)
	}
	if p.Type == "" || p.Subtype == "" {
		t.Fatal("no type")
	}
	inside := p.Body
	for _, c := range p.Parts {
		checkRanges(t, c, inside, msg)
		inside.Start = c.Body.End
	}
	if p.Message != nil {
		checkRanges(t, p.Message, p.Body, msg)
	}
}

func FuzzHeaderFields(f *testing.F) {
	f.Add([]byte("A: b\r\n c\r\n\r\nx"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		for field := range HeaderFields(b) {
			n += len(field.Raw)
			if strings.Contains(field.Value(), "\n") {
				t.Fatalf("value %q", field.Value())
			}
		}
		if n > len(b) {
			t.Fatal("fields are longer than the header")
		}
	})
}

func BenchmarkParseStructure(b *testing.B) {
	part := strings.Repeat(strings.Repeat("QUJD", 19)+"\r\n", 13000)
	msg := "Content-Type: multipart/mixed; boundary=xyz\r\n\r\n--xyz\r\nContent-Type: text/plain\r\n\r\nhello\r\n--xyz\r\nContent-Type: image/png\r\n\r\n" + part + "\r\n--xyz--\r\n"
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseStructure(strings.NewReader(msg), int64(len(msg))); err != nil {
			b.Fatal(err)
		}
	}
}
