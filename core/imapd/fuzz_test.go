package imapd

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// bytesReader is a reader over octets as they would come from a client.
func bytesReader(b []byte) *reader {
	return &reader{src: bytes.NewReader(b), before: func() error { return nil }, inputs: &inputs{}}
}

// stringWriter gathers what a writer writes.
func stringWriter(b *bytes.Buffer) *writer {
	return &writer{dst: b, outputs: &outputs{}, deadline: func(time.Duration) {}}
}

// FuzzCommand runs every argument parser over what a client may send. They
// must end, keep their bounds and never read beyond the command.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		"FETCH 1:*,4294967295 (FLAGS BODY.PEEK[1.2.HEADER.FIELDS (From {2+}\r\nTo)]<0.10>) (CHANGEDSINCE 5)\r\n",
		"SEARCH RETURN (MIN) CHARSET UTF-8 OR (NOT SEEN) HEADER X {3+}\r\nabc UID $\r\n",
		"STORE 1 (UNCHANGEDSINCE 3) +FLAGS.SILENT (\\Seen a)\r\n",
		"LIST (SUBSCRIBED) \"\" (\"%\" &AOQ-) RETURN (STATUS (MESSAGES))\r\n",
		"STATUS \"a\\\"b\" (MESSAGES SIZE)\r\n",
		"APPEND INBOX (\\Seen) \"17-Jul-1996 02:44:25 -0700\" {310}\r\n",
		"LIST {1000+}\r\n" + strings.Repeat("x", 1000) + "\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		parsers := []func(p *parser) error{
			func(p *parser) error {
				q, err := p.fetchQuery()
				for _, it := range q.items {
					if it.section != nil && strings.ContainsAny(it.section.label, "\r\n\x00") {
						t.Fatalf("label %q breaks out of its line", it.section.label)
					}
				}
				return err
			},
			func(p *parser) error { _, err := p.searchQuery(); return err },
			func(p *parser) error { _, err := p.storeArgs(); return err },
			func(p *parser) error { _, err := p.listQuery(); return err },
			func(p *parser) error {
				if err := p.space(); err != nil {
					return err
				}
				if _, err := p.mailbox(); err != nil {
					return err
				}
				if err := p.space(); err != nil {
					return err
				}
				_, err := p.statusItems()
				return err
			},
		}
		for _, parse := range parsers {
			// A second command behind the first must be read as it stands.
			in := bytesReader(append(bytes.Clone(b), "\r\nmark NOOP\r\n"...))
			line, err := in.line()
			if err != nil {
				continue
			}
			p := &parser{in: in, line: line, literals: maxLine, proceed: func() error { return io.ErrUnexpectedEOF }}
			p.run(isAtomChar)
			err = parse(p)
			if p.pos > len(p.line) {
				t.Fatal("the parser is beyond its line")
			}
			if err == nil && !p.atEnd() {
				if err = p.end(); err == nil {
					t.Fatal("the parser has left something")
				}
			}
			_ = p.skipRest(1 << 20) // a lost connection is all that can be wrong
		}
	})
}

// FuzzEnvelope: whatever a header holds, the ENVELOPE is ten well-formed fields.
func FuzzEnvelope(f *testing.F) {
	for _, s := range []string{
		"From: a@b\r\nTo: g: <@x,@y:c@d>, e;\r\n", "From: @@,<>,\"a\\\"b\" <c@d\r\n (x(y)) z\r\n", "Subject: a\x00b\xff\r\n", "Cc: [[[[,(((\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, header []byte) {
		var b bytes.Buffer
		w := stringWriter(&b)
		writeEnvelope(w, header)
		w.flush()
		n, rest := countElements(t, b.String())
		if n != len(envelopeFields) || rest != "" {
			t.Fatalf("%d fields and %q behind them in %q", n, rest, b.String())
		}
	})
}

// FuzzStructure: the parts of any message lie inside each other and inside the
// message, and BODYSTRUCTURE is one well-formed list.
func FuzzStructure(f *testing.F) {
	for _, s := range []string{
		"Content-Type: multipart/mixed; boundary=\"a b\"\r\n\r\n--a b\r\n\r\nx\r\n--a b\r\nContent-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\nz\r\n--a b--\r\n",
		"Content-Type: multipart/digest; boundary=a\n\n--a\n\n--a--\n", "Content-Disposition: x; a=b; c=\"d\r\nContent-Language: a, b\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		tree, err := mail.ParseStructure(bytes.NewReader(msg), int64(len(msg)))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		w := stringWriter(&b)
		writeMIME(w, tree)
		w.flush()
		if _, rest := countElements(t, b.String()); rest != "" {
			t.Fatalf("%q is behind the structure", rest)
		}
	})
}

// writeMIME writes a structure without embedded envelopes, which need a store.
func writeMIME(w *writer, p *mail.Part) {
	bw := bodyWriter{w: w, extended: true}
	w.byte('(')
	if p.Parts != nil {
		for _, child := range p.Parts {
			writeMIME(w, child)
		}
		w.byte(' ')
		w.text(p.Subtype)
	} else {
		w.text(p.Type)
		if p.Message != nil {
			w.byte(' ')
			writeMIME(w, p.Message)
		}
	}
	w.byte(' ')
	bw.params(p.Params)
	bw.tail(p)
	w.byte(')')
}

// countElements reads one parenthesized list and returns the number of its elements.
func countElements(t *testing.T, s string) (n int, rest string) {
	t.Helper()
	if s == "" || s[0] != '(' {
		t.Fatalf("no list in %q", s)
	}
	s = s[1:]
	for s != "" {
		switch c := s[0]; {
		case c == ')':
			return n, s[1:]
		case c == ' ':
			s = s[1:]
			continue
		case c == '(':
			_, s = countElements(t, s)
		case c == '"':
			i := 1
			for i < len(s) && s[i] != '"' {
				if s[i] == '\\' {
					i++
				}
				if i < len(s) && (s[i] == '\r' || s[i] == '\n' || s[i] == 0 || s[i] >= 0x80) {
					t.Fatalf("quoted string with octet %#x", s[i])
				}
				i++
			}
			if i >= len(s) {
				t.Fatalf("open string in %q", s)
			}
			s = s[i+1:]
		case c == '{':
			var size int
			end := strings.Index(s, "}\r\n")
			if end < 0 {
				t.Fatalf("bad literal in %q", s)
			}
			for _, d := range s[1:end] {
				size = size*10 + int(d-'0')
			}
			s = s[end+3+size:]
		default:
			i := strings.IndexAny(s, " ()")
			if i <= 0 {
				t.Fatalf("bad atom in %q", s)
			}
			s = s[i:]
		}
		n++
	}
	t.Fatal("list does not end")
	return 0, ""
}

// matchSlowly is the definition of LIST's wildcards.
func matchSlowly(pattern, name string) bool {
	if pattern == "" {
		return name == ""
	}
	switch c := pattern[0]; c {
	case '*', '%':
		for i := 0; i <= len(name); i++ {
			if matchSlowly(pattern[1:], name[i:]) {
				return true
			}
			if i < len(name) && c == '%' && name[i] == '.' {
				return false
			}
		}
		return false
	default:
		return name != "" && name[0] == c && matchSlowly(pattern[1:], name[1:])
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("a.*%b", "a.b.cb")
	f.Add("%.%", "x.y")
	f.Add("*a*a", "aaa")
	f.Fuzz(func(t *testing.T, pat, name string) {
		if len(pat) > 12 || len(name) > 30 || strings.ContainsAny(strings.ToUpper(pat+name), "I") {
			return // the reference is slow, and INBOX has rules of its own
		}
		p := compilePattern(pat)
		if got, want := p.match(name), matchSlowly(pat, name); got != want {
			t.Fatalf("pattern %q, name %q: %v, want %v", pat, name, got, want)
		}
	})
}

func TestPattern(t *testing.T) {
	rows := []struct {
		pattern, name string
		want          bool
	}{
		{"*", "a.b", true}, {"%", "a.b", false}, {"%.%", "a.b", true}, {"a%", "ab", true}, {"inbox", "INBOX", true}, {"InBoX.*", "INBOX.a", true},
		{"in%", "INBOX", false}, {"", "", true}, {"", "a", false}, {"*%*%", "x.y.z", true},
		{strings.Repeat("*a", 200) + "b", strings.Repeat("a", 1000), false}, // exponential if tried one by one
		{strings.Repeat("a", 2000), "a", false},
	}
	for _, row := range rows {
		p := compilePattern(row.pattern)
		if got := p.match(row.name); got != row.want {
			t.Errorf("%.40q matches %.40q: %v", row.pattern, row.name, got)
		}
	}
}

// FuzzMailboxName: what is decoded is encoded back to itself.
func FuzzMailboxName(f *testing.F) {
	f.Add("Entw&APw-rfe")
	f.Add("&2D3eAA-&-")
	f.Fuzz(func(t *testing.T, s string) {
		name, err := decodeMailbox(s)
		if err != nil {
			return
		}
		again, err := decodeMailbox(encodeMailbox(name))
		if err != nil || again != name {
			t.Fatalf("%q is %q, which is encoded as %q and decoded as %q, %v", s, name, encodeMailbox(name), again, err)
		}
	})
}

// FuzzText: the finder finds what strings.Contains finds, however the text is
// cut, and decoders never fail.
func FuzzText(f *testing.F) {
	f.Add("Straße ÄÖ", "ß ä", uint8(3))
	f.Add("aaabaaab aab", "aab ", uint8(1))
	f.Fuzz(func(t *testing.T, text, needle string, step uint8) {
		needle = foldText(needle)
		find := newFinder(needle)
		if err := find.feedText(strings.NewReader(text), make([]byte, int(step)+1)); err != nil {
			t.Fatal(err)
		}
		if want := strings.Contains(foldText(text), needle); find.found != want {
			t.Fatalf("%q in %q: %v, want %v", needle, text, find.found, want)
		}
		for _, enc := range []string{"base64", "quoted-printable"} {
			r, _ := decodeTransfer(enc, strings.NewReader(text))
			out, err := io.ReadAll(r)
			if err != nil || len(out) > len(text) {
				t.Fatalf("%s of %q: %q, %v", enc, text, out, err)
			}
		}
		decodeWords(text)
	})
}

func TestDecodeTransfer(t *testing.T) {
	rows := []struct{ name, encoding, in, want string }{
		{"base64", "BASE64", "aGVs\r\nbG8=\r\n", "hello"},
		{"joined base64", "base64", "aGVsbG8=aGVsbG8=", "hellohello"},
		{"base64 with rubbish", "base64", "aGV*s bG8", "hello"},
		{"quoted-printable", "quoted-printable", "a=3Db=\r\nc  \r\nd=\n", "a=bc\r\nd"},
		{"malformed escapes", "quoted-printable", "a=zz=4", "a=zz=4"},
		{"soft break with blanks", "quoted-printable", "a= \t\r\nb", "ab"},
		{"nothing", "", "a=3D", "a=3D"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r, known := decodeTransfer(row.encoding, strings.NewReader(row.in))
			if !known {
				t.Fatal("unknown")
			}
			if got, err := io.ReadAll(r); err != nil || string(got) != row.want {
				t.Errorf("got %q, %v, want %q", got, err, row.want)
			}
		})
	}
	if _, known := decodeTransfer("x-uuencode", nil); known {
		t.Error("x-uuencode is known")
	}
}
