package pop3d

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func FuzzParseCommand(f *testing.F) {
	for _, s := range []string{"USER ann", "pass  a b ", "RETR 1", "TOP 1 0", "AUTH PLAIN AAAA", "X", "USER j\xc3\xbcrgen", "STAT \x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		c, ok := parseCommand(line)
		if !ok {
			if c != (command{}) {
				t.Fatalf("%q is refused and %+v", line, c)
			}
			return
		}
		if len(c.verb) < 3 || len(c.verb) > 4 || c.verb != strings.ToUpper(c.verb) || strings.ContainsAny(c.arg, "\r\n\x00") {
			t.Fatalf("%q became %+v", line, c)
		}
		if n, ok := number(c.arg, 1); ok && n < 1 {
			t.Fatalf("number %q = %d", c.arg, n)
		}
	})
}

// memory is a connection that gives what it is told, in pieces, and keeps what is written.
type memory struct {
	net.Conn // nil: only these methods are called
	in       io.Reader
	out      bytes.Buffer
}

func (m *memory) Read(p []byte) (int, error)       { return m.in.Read(p) }
func (m *memory) Write(p []byte) (int, error)      { return m.out.Write(p) }
func (m *memory) SetWriteDeadline(time.Time) error { return nil }

// Lines come out of the reader as they went in, whatever the pieces; no line is
// longer than it may be.
func FuzzReadLine(f *testing.F) {
	f.Add([]byte("STAT\r\nNOOP\nQUIT\r\n"), false)
	f.Add([]byte("AUTH PLAIN "+strings.Repeat("A", 3000)+"\r\nQUIT\r\n"), true)
	f.Add([]byte(strings.Repeat("x", 3000)+"\r\nQUIT\r\n"), false)
	f.Add([]byte(strings.Repeat("\n", 2000)), true)
	f.Fuzz(func(t *testing.T, text []byte, slow bool) {
		m := &memory{in: bytes.NewReader(text)}
		if slow && len(text) < 5000 {
			m.in = iotest.OneByteReader(m.in)
		}
		w := &wire{conn: m}
		w.buf = w.small[:]
		rest := text
		for {
			line, err := w.readLine(smallBuffer, isAuth, func() error { return nil })
			if err != nil && err != errLineLong {
				return
			}
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				t.Fatalf("a line too many: %q, %v", line, err)
			}
			want := bytes.TrimSuffix(rest[:i], []byte("\r"))
			rest = rest[i+1:]
			if err == nil && !bytes.Equal(line, want) {
				t.Fatalf("line %q, want %q", line, want)
			}
			if err == nil && len(line) > longLine || err != nil && len(want)+2 <= smallBuffer {
				t.Fatalf("line of %d octets: %v", len(want), err)
			}
		}
	})
}

// A message read back by the rules of RFC 1939 §3 is the message, whatever the
// pieces in which it was read.
func FuzzSendMessage(f *testing.F) {
	f.Add([]byte("a: b\r\n\r\n.\r\n..x\r\n"), -1, true)
	f.Add([]byte("a: b\r\n\r\none\r\ntwo\r\n.three"), 1, false)
	f.Add([]byte(""), 0, false)
	f.Add([]byte("\r\n\r\n."), 3, true)
	f.Add([]byte("a: b\r\n\r\none\n.\n.two\r\nthree\n"), 3, true)
	f.Add([]byte(strings.Repeat(strings.Repeat("x", 997)+"\r\n.", 80)), -1, false)
	f.Fuzz(func(t *testing.T, text []byte, lines int, slow bool) {
		r := io.Reader(bytes.NewReader(text))
		if slow {
			r = iotest.OneByteReader(r)
		}
		lines = max(lines, -1)
		m := &memory{}
		w := &wire{conn: m, out: []byte("+OK\r\n")}
		if err := w.sendMessage(r, lines, new(chunks)); err != nil {
			t.Fatal(err)
		}
		got, ok := strings.CutPrefix(m.out.String(), "+OK\r\n")
		if !ok || !strings.HasSuffix("\r\n"+got, "\r\n.\r\n") {
			t.Fatalf("reply %q", m.out.String())
		}
		var plain strings.Builder
		for line := range strings.Lines(strings.TrimSuffix(got, ".\r\n")) {
			plain.WriteString(strings.TrimPrefix(line, "."))
		}
		want := wanted(string(text), lines)
		if plain.String() != want {
			t.Fatalf("TOP %d of %q = %q, want %q", lines, text, plain.String(), want)
		}
	})
}

// wanted is what a client must see, made the simple way. A line ends with LF,
// the whole with CR LF.
func wanted(text string, lines int) string {
	var b strings.Builder
	body := false
	for line := range strings.Lines(text) {
		if body && lines >= 0 {
			if lines == 0 {
				break
			}
			lines--
		}
		b.WriteString(line)
		body = body || strings.Trim(line, "\r\n") == ""
	}
	if s := b.String(); s != "" && !strings.HasSuffix(s, "\r\n") {
		return s + "\r\n"
	}
	return b.String()
}

func BenchmarkSendMessage(b *testing.B) {
	text := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 1340))
	b.SetBytes(int64(len(text)))
	pool := new(chunks)
	m := &memory{}
	w := &wire{conn: m}
	for b.Loop() {
		m.out.Reset()
		if err := w.sendMessage(bytes.NewReader(text), -1, pool); err != nil {
			b.Fatal(err)
		}
	}
}
