package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// message reads a message as sendmail does, and returns its recipients and what goes
// to the server.
func message(in io.Reader, dots bool) (rcpts []string, text string, err error) {
	r := bufio.NewReaderSize(in, chunk)
	s, err := readSection(r, dots)
	if err != nil {
		return nil, "", err
	}
	if rcpts, err = s.recipients("example.test"); err != nil {
		return nil, "", err
	}
	s.remove("bcc", "resent-bcc")
	b, err := io.ReadAll(io.MultiReader(bytes.NewReader(s.text()), s.body(r, dots)))
	return rcpts, string(b), err
}

// TestSection: header sections as programs write them.
func TestSection(t *testing.T) {
	long := strings.Repeat("x", 3*chunk)
	for _, c := range []struct {
		name, in string
		dots     bool
		rcpts    string
		out      string
	}{
		{"plain", "To: a@b.test\nSubject: x\n\nhello\n", false, "a@b.test", "To: a@b.test\r\nSubject: x\r\n\r\nhello\r\n"},
		{"CR LF", "To: a@b.test\r\n\r\nhello\r\n", false, "a@b.test", "To: a@b.test\r\n\r\nhello\r\n"},
		{"last line without an end", "To: a@b.test\n\nhello", false, "a@b.test", "To: a@b.test\r\n\r\nhello\r\n"},
		{"nothing", "", false, "", "\r\n"},
		{"header only", "To: a@b.test\n", false, "a@b.test", "To: a@b.test\r\n\r\n"},
		{"header only, without an end", "To: a@b.test", false, "a@b.test", "To: a@b.test\r\n\r\n"},
		{"body only", "hello\nTo: a@b.test\n", false, "", "\r\nhello\r\nTo: a@b.test\r\n"},
		{"body behind a blank line", "\nTo: a@b.test\n", false, "", "\r\nTo: a@b.test\r\n"},
		{"no blank line", "To: a@b.test\nhello\nCc: c@b.test\n", false, "a@b.test", "To: a@b.test\r\n\r\nhello\r\nCc: c@b.test\r\n"},
		{"folded", "To: a@b.test,\n\tc@b.test\nX: y\n\n", false, "a@b.test c@b.test", "To: a@b.test,\r\n\tc@b.test\r\nX: y\r\n\r\n"},
		{"folded at the very top", " To: a@b.test\n\n", false, "", "\r\n To: a@b.test\r\n\r\n"},
		{"mbox line", "From ann Mon Nov 23\nTo: a@b.test\n\n", false, "a@b.test", "To: a@b.test\r\n\r\n"},
		{"mbox line further down", "To: a@b.test\nFrom ann\n", false, "a@b.test", "To: a@b.test\r\n\r\nFrom ann\r\n"},
		{"blank before the colon", "To : a@b.test\n\n", false, "a@b.test", "To : a@b.test\r\n\r\n"},
		{"any case", "tO: a@b.test\nBCC: c@b.test\n\n", false, "a@b.test c@b.test", "tO: a@b.test\r\n\r\n"},
		{"blind copies go", "To: a@b.test\nBcc: c@b.test,\n d@b.test\nCc: e@b.test\n\n", false, "a@b.test c@b.test d@b.test e@b.test", "To: a@b.test\r\nCc: e@b.test\r\n\r\n"},
		{"the same twice", "To: a@b.test\nCc: <a@b.test>\n\n", false, "a@b.test", "To: a@b.test\r\nCc: <a@b.test>\r\n\r\n"},
		{"resent", "Resent-To: r@b.test\nResent-Bcc: s@b.test\nTo: a@b.test\nBcc: c@b.test\n\n", false, "r@b.test s@b.test", "Resent-To: r@b.test\r\nTo: a@b.test\r\n\r\n"},
		{"bare name", "To: root\n\n", false, "root@example.test", "To: root\r\n\r\n"},
		{"dot", "To: a@b.test\n\nx\n.\ny\n", false, "a@b.test", "To: a@b.test\r\n\r\nx\r\n"},
		{"dot is text", "To: a@b.test\n\nx\n.\ny\n", true, "a@b.test", "To: a@b.test\r\n\r\nx\r\n.\r\ny\r\n"},
		{"dot with CR LF", "\r\nx\r\n.\r\ny\r\n", false, "", "\r\nx\r\n"},
		{"dot at the end of the input", "\nx\n.", false, "", "\r\nx\r\n"},
		{"dot in the header", "To: a@b.test\n.\nx\n", false, "a@b.test", "To: a@b.test\r\n\r\n"},
		{"dot as the body", "\n.\nx\n", false, "", "\r\n"},
		{"dot in the header is text", "To: a@b.test\n.\nx\n", true, "a@b.test", "To: a@b.test\r\n\r\n.\r\nx\r\n"},
		{"two dots", "\n..\nx\n", false, "", "\r\n..\r\nx\r\n"},
		{"long line", "\n" + long + "\n.\n", false, "", "\r\n" + long + "\r\n"},
		{"long line without an end", "\n" + long, false, "", "\r\n" + long + "\r\n"},
		{"long line of no header", long + "\nTo: x@b.test\n", false, "", "\r\n" + long + "\r\nTo: x@b.test\r\n"},
		{"long field", "X: " + long + "\nTo: a@b.test\n\n", false, "a@b.test", "X: " + long + "\r\nTo: a@b.test\r\n\r\n"},
		{"CR at the edge", "\n" + long[:chunk-1] + "\r\nx\n", false, "", "\r\n" + long[:chunk-1] + "\r\nx\r\n"},
		{"CR at the edge and the end", "\n" + long[:chunk-1] + "\r", false, "", "\r\n" + long[:chunk-1] + "\r\n"},
		{"CR inside at the edge", "\n" + long[:chunk-1] + "\rx\n", false, "", "\r\n" + long[:chunk-1] + "\rx\r\n"},
		{"dot behind an edge", "\n" + long[:chunk] + ".\nx\n", false, "", "\r\n" + long[:chunk] + ".\r\nx\r\n"},
		{"CR inside a field", "Subject: a\rBcc: b\r\r\nTo: a@b.test\n\n", false, "a@b.test", "Subject: a Bcc: b\r\nTo: a@b.test\r\n\r\n"},
		{"eight bits and NUL", "\n\xe4\x00\n", false, "", "\r\n\xe4\x00\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, in := range map[string]io.Reader{"": strings.NewReader(c.in), " by bytes": iotest.OneByteReader(strings.NewReader(c.in)), " with its end": iotest.DataErrReader(strings.NewReader(c.in))} {
				rcpts, text, err := message(in, c.dots)
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(rcpts, " "); got != c.rcpts {
					t.Errorf("recipients%s %q, want %q", name, got, c.rcpts)
				}
				if text != c.out {
					t.Errorf("text%s %.200q, want %.200q (%d and %d octets)", name, text, c.out, len(text), len(c.out))
				}
			}
		})
	}
}

// TestSectionErrors: what cannot be sent is refused whole.
func TestSectionErrors(t *testing.T) {
	broken := errors.New("broken pipe")
	for _, c := range []struct {
		name string
		in   io.Reader
		want string
	}{
		{"long header", strings.NewReader(strings.Repeat("X: y\n", maxSection/5+1)), "longer than 1 MiB"},
		{"long field", strings.NewReader("X: " + strings.Repeat("y", 2*maxSection)), "longer than 1 MiB"},
		{"bad recipient", strings.NewReader("To: a@b.test\nCc: Ann Example\n\n"), "Cc: no address, but words"},
		{"input breaks in the header", io.MultiReader(strings.NewReader("To: a"), iotest.ErrReader(broken)), "broken pipe"},
		{"input breaks in the body", io.MultiReader(strings.NewReader("\nhello\nwor"), iotest.ErrReader(broken)), "broken pipe"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, err := message(c.in, false); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// TestComplete: fields that a message must have are added, and those that are there
// are left alone but for addresses without a domain.
func TestComplete(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, in string
		want     []string // lines in this order, beginning so
	}{
		{"all missing", "\n", []string{`From: "Ann" <ann@example.test>`, "Date: Mon, 23 Nov 2026 12:00:00 +0000", "Message-ID: <"}},
		{"all there", "From: x@y.test\nDate: then\nMessage-ID: <1@y>\n\n", []string{"From: x@y.test", "Date: then", "Message-ID: <1@y>"}},
		{"names of this site", "From: root (Cron, <x>)\nTo: Bob <bob>, \"a b\",\n eve@far.test\nDate: d\nMessage-Id: i\n\n",
			[]string{"From: root@example.test (Cron, <x>)", "To: Bob <bob@example.test>, \"a b\"@example.test,", " eve@far.test", "Date: d", "Message-Id: i"}},
		{"a field that cannot be read", "To: some words\nFrom: a@b\nDate: d\nMessage-ID: i\n\n", []string{"To: some words", "From: a@b", "Date: d", "Message-ID: i"}},
		{"resent", "Resent-To: x@y.test\nFrom: a@b\nDate: d\nMessage-ID: i\n\n",
			[]string{`Resent-From: "Ann" <ann@example.test>`, "Resent-Date: Mon, 23 Nov", "Resent-Message-ID: <", "Resent-To: x@y.test", "From: a@b", "Date: d", "Message-ID: i"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := readSection(bufio.NewReaderSize(strings.NewReader(c.in), chunk), false)
			if err != nil {
				t.Fatal(err)
			}
			s.qualify("example.test")
			s.complete("ann@example.test", "Ann", "mx.example.test", now)
			got := strings.Split(strings.TrimSuffix(string(s.text()), "\r\n\r\n"), "\r\n")
			if len(got) != len(c.want) {
				t.Fatalf("got %q", got)
			}
			for i, line := range got {
				if !strings.HasPrefix(line, c.want[i]) {
					t.Errorf("line %d is %q, want %q", i, line, c.want[i])
				}
			}
		})
	}
}

// FuzzSection: whatever comes in, what goes out is lines with CR LF, has no blind
// copies, and reads the same when it is sent again.
func FuzzSection(f *testing.F) {
	for _, s := range []string{"", "To: a@b\nBcc: c\n d\n\nx\n", "From x\nA : b\n\r\n.\n", "x\r\ry\n", "A:\n\t\n b\n.\n", "Resent-To: a;b\n", "Bcc\n", ":\n", "\r", "a:b\r\r\n\n"} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, dots bool) {
		_, text, err := message(bytes.NewReader(in), dots)
		if err != nil {
			return
		}
		if strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\n") || !strings.HasSuffix(text, "\r\n") {
			t.Fatalf("%q: a line without CR LF in %q", in, text)
		}
		header, _, ok := strings.Cut("\r\n"+text, "\r\n\r\n")
		if !ok || strings.Contains(strings.ToLower(header), "\r\nbcc:") {
			t.Fatalf("%q became %q", in, text)
		}
		if _, again, err := message(strings.NewReader(text), true); err != nil || again != text {
			t.Fatalf("%q, read again, is %q (%v)", text, again, err)
		}
	})
}

// TestSectionCost: the longest header of the shortest lines takes no longer than
// one of long lines.
func TestSectionCost(t *testing.T) {
	for _, text := range []string{"a,\n ", "(\n ", "<a>:\n ", "a:b;\n "} {
		in := "To: " + strings.Repeat(text, (maxSection-10)/len(text)) + "\n\n"
		begin := time.Now()
		s, err := readSection(bufio.NewReaderSize(strings.NewReader(in), chunk), false)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.recipients("example.test") // it may be wrong
		s.qualify("example.test")
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("%q: took %s", text, d)
		}
	}
}
