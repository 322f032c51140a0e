//go:build !wasip1

package main

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/wafermail/wafer/sdk"
)

// parts joins lines with CRLF.
func parts(lines ...string) string { return strings.Join(lines, "\r\n") + "\r\n" }

// multipart is a message whose parts are texts.
func multipart(boundary string, texts ...string) string {
	s := ""
	for _, t := range texts {
		s += "--" + boundary + "\r\n" + t
	}
	return s + "--" + boundary + "--\r\n"
}

func TestAttachments(t *testing.T) {
	const outer = "Content-Type: multipart/mixed; boundary=outer"
	exe := parts("Content-Type: application/octet-stream", "Content-Disposition: attachment;", "\tfilename=\"a.exe\"", "", "TVqQ")
	text := parts("Content-Type: text/plain", "", "hello")
	inner := parts("Content-Type: multipart/alternative; boundary=\"in ner\"", "") + multipart("in ner", text, exe)
	deep := exe
	for i := range 9 {
		b := "b" + strconv.Itoa(i)
		deep = parts("Content-Type: multipart/mixed; boundary="+b, "") + multipart(b, deep)
	}
	tooDeep := parts("Content-Type: multipart/mixed; boundary=b9", "") + multipart("b9", deep)
	forwarded := parts("Content-Type: message/rfc822", "", "Subject: fwd", "Content-Type: multipart/mixed; boundary=fwd", "") + multipart("fwd", exe)
	const refused = "reject 550 5.7.1 message content rejected: attachment a.exe"
	rows := []struct{ name, header, body, want string }{
		{"no attachment", outer, multipart("outer", text, text), "next"},
		{"attachment", outer, multipart("outer", text, exe), refused},
		{"LF only", outer, strings.ReplaceAll(multipart("outer", text, exe), "\r\n", "\n"), refused},
		{"preamble and epilogue", outer, "Content-Disposition: attachment; filename=a.exe\r\n" + multipart("outer", text) + exe, "next"},
		{"nested", outer, multipart("outer", text, inner), refused},
		{"after a nested multipart", outer, multipart("outer", parts("Content-Type: multipart/mixed; boundary=i", "")+multipart("i", text), exe), refused},
		{"nested multipart without an end", outer, multipart("outer", parts("Content-Type: multipart/mixed; boundary=i", "", "--i", "", "x"), exe), refused},
		{"ten deep", outer, multipart("outer", deep), refused},
		{"eleven deep", outer, multipart("outer", tooDeep), "next +headers-unread"},
		{"forwarded message", outer, multipart("outer", forwarded), refused},
		{"after a forwarded message", outer, multipart("outer", parts("Content-Type: message/rfc822", "", "Subject: x", "", "y"), exe), refused},
		{"the message is the attachment", "Content-Disposition: attachment; filename=a.exe", "TVqQ", refused},
		{"the message is a message", "Content-Type: message/rfc822", exe, refused},
		{"name in Content-Type", outer, multipart("outer", parts("Content-Type: application/x; name=a.exe", "", "x")), refused},
		{"name in Content-Disposition", outer, multipart("outer", parts("Content-Disposition: attachment; name=a.exe", "", "x")), refused},
		{"encoded boundary", "Content-Type: multipart/mixed; boundary*0=ou; boundary*1=ter", multipart("outer", exe), refused},
		{"two Content-Types", "Content-Type: multipart/mixed; boundary=no\nContent-Type: multipart/mixed; boundary=outer", multipart("outer", exe), refused},
		{"boundary with white space behind", outer, "--outer \t\r\n" + exe, refused},
		{"boundary with text behind", outer, "--outerX\r\n" + exe, refused},
		{"a part's header ends with the body", outer, "--outer\r\nContent-Disposition: attachment; filename=a.exe", refused},
		{"a part's header ends with a boundary", outer, "--outer\r\nContent-Disposition: attachment; filename=a.exe\r\n--outer--\r\n", refused},
		{"uuencoded", "Subject: x", "hello\r\nbegin 644 a.exe\r\nM\r\nend\r\n", refused},
		{"the word begin", "Subject: x", "begin 644 things\r\nbegin work on a.exe\r\n", "next"},
		{"200 parts", outer, multipart("outer", append(strings.Split(strings.Repeat(text+"\x00", 198)+text, "\x00"), exe)...), refused},
		{"201 parts", outer, multipart("outer", append(strings.Split(strings.Repeat(text+"\x00", 200)+text, "\x00"), exe)...), "next +headers-unread"},
		{"large part header", outer, "--outer\r\n" + strings.Repeat("X: y\r\n", 9000) + "Content-Disposition: attachment; filename=a.exe\r\n\r\n", "next +headers-unread"},
		{"a line of 100 KiB", outer, strings.Repeat("x", 100<<10) + "\r\n" + multipart("outer", exe), refused},
		{"lines across reads", outer, multipart("outer", parts("", strings.Repeat(strings.Repeat("x", 76)+"\r\n", 3000)), exe), refused},
		{"empty", outer, "", "next"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := configured(t, map[string][]string{"attachments": {"exe"}})
			f.Header, f.Body = strings.Split(r.header, "\n"), []byte(r.body)
			if got := shown(judged(t, f)); got != r.want {
				t.Errorf("got %q, want %q", got, r.want)
			}
		})
	}
}

func TestPartRules(t *testing.T) {
	body := multipart("b", parts("Content-Type: =?utf-8?Q?application/x-msdownload?=", "", ""), parts("Content-Disposition: attachment; filename=\"r\xc3\xa9sum\xc3\xa9.doc\"", "", ""))
	for rule, want := range map[string]string{
		"hold part:Content-Type ~ ^multipart/mixed":                               "hold",
		"reject part:content-type ~ (?i)^application/x-msdownload => no programs": "reject 550 5.7.1 no programs",
		"quarantine :filename ~ ^résumé":                                          "quarantine",
		"quarantine :filename ~ exe$":                                             "next",
		"reject Content-Type ~ msdownload":                                        "next",
	} {
		f := configured(t, map[string][]string{"rules": {rule}})
		f.Header, f.Body = []string{"Content-Type: multipart/mixed; boundary=b"}, []byte(body)
		if got := shown(judged(t, f)); got != want {
			t.Errorf("%s: got %q, want %q", rule, got, want)
		}
	}
}

func TestAttachmentActions(t *testing.T) {
	for action, want := range map[string]string{
		"defer": "defer 450 4.7.1 message content rejected: attachment a.exe", "discard": "discard", "hold": "hold", "quarantine": "quarantine", "tag": "next +headers-attachment",
	} {
		f := configured(t, map[string][]string{"attachments": {"exe"}, "attachment_action": {action}})
		f.Header = []string{"Content-Type: application/x; name=a.exe"}
		if got := shown(judged(t, f)); got != want {
			t.Errorf("%s: got %q, want %q", action, got, want)
		}
	}
}

func TestBodyFails(t *testing.T) {
	w := walk{limit: 1 << 20, field: func(_, _ string) {}, file: func(string) {}}
	broken := errors.New("broken")
	if err := w.message(nil, func([]byte, int64) (int, error) { return 0, broken }); err != broken {
		t.Errorf("got %v", err)
	}
	r := iotest.ErrReader(sdk.ErrTimeout)
	if err := w.message(nil, func(p []byte, _ int64) (int, error) { return r.Read(p) }); err != sdk.ErrTimeout {
		t.Errorf("got %v", err)
	}
}

// FuzzWalk: whatever the message, the walk ends, within its bounds.
func FuzzWalk(f *testing.F) {
	f.Fuzz(func(t *testing.T, contentType string, text string) {
		read := strings.NewReader(text)
		fields := 0
		w := walk{limit: 1 << 16, field: func(string, string) { fields++ }, file: func(string) {}}
		err := w.message([][2]string{{"Content-Type", contentType}}, func(p []byte, off int64) (int, error) {
			n, err := read.ReadAt(p, off)
			if err == io.EOF && n == len(p) {
				err = nil
			}
			return n, err
		})
		if err != nil {
			t.Errorf("%q %q: %v", contentType, text, err)
		}
		if len(w.levels) > maxDepth || w.nested > maxDepth || w.parts > maxParts+1 || fields > len(text)+1 {
			t.Errorf("%q %q: %d levels, %d parts, %d fields", contentType, text, len(w.levels), w.parts, fields)
		}
	})
}

// BenchmarkWalk walks through 4 MiB of base64.
func BenchmarkWalk(b *testing.B) {
	text := []byte(multipart("b", parts("Content-Type: application/pdf", "")+strings.Repeat(strings.Repeat("x", 76)+"\r\n", 4<<20/78)))
	read := strings.NewReader(string(text))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		w := walk{limit: 16 << 20, field: func(string, string) {}, file: func(string) {}}
		if err := w.message([][2]string{{"Content-Type", "multipart/mixed; boundary=b"}}, read.ReadAt); err != nil {
			b.Fatal(err)
		}
	}
}
