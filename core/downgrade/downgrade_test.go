package downgrade

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/mail"
)

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func TestMessage(t *testing.T) {
	rows := []struct{ name, in, want string }{
		{"7-bit stays", "Subject: a\nContent-Type: text/plain\n\nhello\n", "Subject: a\nContent-Type: text/plain\n\nhello\n"},
		{"text", "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGrüße = a\n",
			"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nGr=C3=BC=C3=9Fe =3D a\n"},
		{"said 8bit, is not", "MIME-Version: 1.0\nContent-Transfer-Encoding: 8bit\n\nhello\n", "MIME-Version: 1.0\nContent-Transfer-Encoding: 7bit\n\nhello\n"},
		{"no MIME", "Subject: a\n\né\n", "Subject: a\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A9\n"},
		{"no MIME, no UTF-8", "Subject: a\n\n\xe9\n", "Subject: a\nMIME-Version: 1.0\nContent-Type: text/plain; charset=unknown-8bit\nContent-Transfer-Encoding: quoted-printable\n\n=E9\n"},
		{"an image", "MIME-Version: 1.0\nContent-Type: image/png\nContent-Transfer-Encoding: binary\n\n\xff\x00\xfe", "MIME-Version: 1.0\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\n/wD+\n"},
		{"parts", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\nContent-Transfer-Encoding: 8bit\n\npré\n--x\nContent-Type: text/plain; charset=latin1\n\n\xe9\n--x\n\nplain\n--x\nContent-Type: application/pdf\n\n\xff\n--x--\npost\xe9\n",
			"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\nContent-Transfer-Encoding: 7bit\n\npr??\n--x\nContent-Type: text/plain; charset=latin1\nContent-Transfer-Encoding: quoted-printable\n\n=E9\n--x\n\nplain\n--x\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n/w==\n\n--x--\npost?\n"},
		{"a message in it", "MIME-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nSubject: é\n\né\n",
			"MIME-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\nSubject: =?utf-8?q?=C3=A9?=\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A9\n"},
		{"quoted-printable with octets", "Content-Transfer-Encoding: quoted-printable\n\n=C3=A9 é\n", "Content-Transfer-Encoding: quoted-printable\n\n=C3=A9 =C3=A9\n"},
		{"base64 with octets", "Content-Transfer-Encoding: base64\n\naGV\xe9sbG8=\n", "Content-Transfer-Encoding: base64\n\naGVsbG8=\n"},
		{"header", "Subject: Grüße\nFrom: Jörg Ü <a@b.c>, \"Bü, c\" <d@e.f> (cömment)\n\nx\n",
			"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nFrom: =?utf-8?b?SsO2cmc=?= =?utf-8?b?w5w=?= <a@b.c>, =?utf-8?b?QsO8LCBj?= <d@e.f> (=?utf-8?q?c=C3=B6mment?=)\n\nx\n"},
		{"parameters", "Content-Type: text/plain;\n name=\"ü.txt\"\n\nx\n", "Content-Type: text/plain;\n name*=utf-8''%C3%BC.txt\n\nx\n"},
		{"no field", "Subject: a\né\n\nx\n", "Subject: a\n??\n\nx\n"},
		{"odd parameter", "Content-Type: text/plain; é=\"\n\nx\n", "Content-Type: text/plain; ??=\"\n\nx\n"},
		{"empty multipart", "Content-Type: multipart/mixed; boundary=x\n\n\xe9\n", "Content-Type: multipart/mixed; boundary=x\n\n?\n"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := Message(&out, strings.NewReader(crlf(r.in)), int64(len(crlf(r.in)))); err != nil {
				t.Fatal(err)
			}
			if got := strings.ReplaceAll(out.String(), "\r\n", "\n"); got != r.want {
				t.Errorf("got\n%q\nwant\n%q", got, r.want)
			}
		})
	}
}

func TestNoSevenBitForm(t *testing.T) {
	for name, in := range map[string]string{
		"address":  "From: é@example.org\n\n\n",
		"brackets": "To: a <é@example.org>\n\n\n",
		"partial":  "Content-Type: message/partial\n\né\n",
		"boundary": "Content-Type: multipart/mixed; boundary=\"é\"\n\n--é\n\né\n--é--\n",
	} {
		var out bytes.Buffer
		if err := Message(&out, strings.NewReader(crlf(in)), int64(len(crlf(in)))); err == nil {
			t.Errorf("%s: %q", name, out.String())
		}
	}
}

func TestHeader(t *testing.T) {
	got, err := Header([]byte("Received: from a\r\nX-Spam: é\r\n"))
	if err != nil || string(got) != "Received: from a\r\nX-Spam: =?utf-8?q?=C3=A9?=\r\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestCorpus converts every message of the outside corpus that has a 7-bit form:
// nothing above 127 is left, and the tree of parts is the same.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("../../../shared/testdata/eml/*/*")
	if err != nil || len(files) == 0 {
		t.Skip("../shared/testdata/eml is not there")
	}
	converted := 0
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			continue // a folder
		}
		raw = bytes.ReplaceAll(bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
		var out bytes.Buffer
		if err := Message(&out, bytes.NewReader(raw), int64(len(raw))); err != nil {
			t.Logf("%s: %v", filepath.Base(name), err)
			continue
		}
		converted++
		check(t, filepath.Base(name), raw, out.Bytes())
	}
	if converted < len(files)*9/10 {
		t.Errorf("%d of %d have been converted", converted, len(files))
	}
}

func check(t *testing.T, name string, in, out []byte) {
	t.Helper()
	if !ascii(string(out)) {
		t.Errorf("%s: octets above 127 are left", name)
	}
	a, err := mail.ParseStructure(bytes.NewReader(in), int64(len(in)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := mail.ParseStructure(bytes.NewReader(out), int64(len(out)))
	if err != nil {
		t.Fatal(err)
	}
	if x, y := shape(a), shape(b); x != y {
		t.Errorf("%s: parts were\n%s\nand are\n%s", name, x, y)
	}
}

func shape(p *mail.Part) string {
	var b strings.Builder
	b.WriteString(strings.ToLower(p.Type + "/" + p.Subtype))
	for _, c := range p.Parts {
		b.WriteString(" (" + shape(c) + ")")
	}
	if p.Message != nil {
		b.WriteString(" [" + shape(p.Message) + "]")
	}
	return b.String()
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(crlf("Content-Type: multipart/mixed; boundary=x\n\n--x\n\né\n--x--\n")))
	f.Add([]byte(crlf("From: é <a@b>\nContent-Type: message/rfc822\n\nSubject: \xff\n\n\xff")))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		if err := Message(&out, bytes.NewReader(in), int64(len(in))); err != nil {
			return
		}
		if !ascii(out.String()) {
			t.Errorf("octets above 127 are left in %q of %q", out.Bytes(), in)
		}
		if out.Len() > 8*len(in)+512+64*mail.MaxParts {
			t.Errorf("%d octets became %d", len(in), out.Len())
		}
	})
}

// TestHostile: what is built to be slow is not.
func TestHostile(t *testing.T) {
	deep := ""
	for range 300 {
		deep += "Content-Type: multipart/mixed; boundary=x\n\n--x\n"
	}
	for name, in := range map[string]string{
		"comments":    "From: " + strings.Repeat("(é", 200_000) + "\n\n",
		"quotes":      "From: " + strings.Repeat("é\"", 200_000) + "\n\n",
		"parameters":  "Content-Type: a/b" + strings.Repeat("; a*0=é", 100_000) + "\n\n",
		"one word":    "Subject: " + strings.Repeat("é", 500_000) + "\n\n",
		"deep":        deep + "\né",
		"many":        "Content-Type: multipart/mixed; boundary=x\n\n" + strings.Repeat("--x\n\né\n", 100_000),
		"long header": strings.Repeat("X: é\n", 400_000) + "\n",
	} {
		var out bytes.Buffer
		err := Message(&out, strings.NewReader(crlf(in)), int64(len(crlf(in))))
		if err == nil && !ascii(out.String()) {
			t.Errorf("%s: octets above 127 are left", name)
		}
	}
}
