package bounce

import (
	"bufio"
	"bytes"
	"flag"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	wmail "github.com/wafermail/wafer/core/mail"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func path(t testing.TB, s string) wmail.Path {
	t.Helper()
	if s == "" {
		return wmail.Path{}
	}
	p, err := wmail.ParsePath(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const original = "From: ann@example.org\r\nMessage-ID: <one@example.org>\r\nSubject: hi\r\n\r\nhello\r\n"

func notice(t testing.TB, k Kind) Notice {
	now := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	r := Recipient{
		Recipient: wmail.Recipient{To: path(t, "bob@example.net"), ORcpt: "rfc822;bob@example.net"}, Final: path(t, "bob@example.net"),
		Outcome:     wmail.Outcome{Status: wmail.Status{Code: 550, Enhanced: "5.1.1", Text: "5.1.1 <bob@example.net>: Recipient address rejected:\nUser unknown"}, Remote: "mx.example.net[192.0.2.1]:25"},
		LastAttempt: now.Add(-time.Minute),
	}
	if k == Delayed {
		r.Outcome.Status = wmail.Status{Code: 450, Enhanced: "4.2.0", Text: "greylisted"}
		r.WillRetryUntil = now.Add(5 * 24 * time.Hour)
	}
	if k == Relayed || k == Delivered {
		r.Outcome.Status = wmail.Status{Code: 250, Enhanced: "2.0.0", Text: "queued"}
	}
	return Notice{
		Kind: k, ReportingMTA: "mail.example.org", ID: "214W541B3PSF4NGJ1", Arrival: now.Add(-time.Hour),
		Envelope:   &wmail.Envelope{From: path(t, "ann@example.org"), EnvID: "QQ314159", Client: wmail.Client{Helo: "client.example.org"}},
		Recipients: []Recipient{r}, Head: []byte("Received: from client.example.org\r\n\tby mail.example.org\r\n"),
		Original: strings.NewReader(original), Size: int64(len(original)), Now: now, NewID: "214WNEWNEWNEWNEWN", Postmaster: path(t, "postmaster@example.org"),
	}
}

// read takes a notice apart: its header and its parts.
func read(t testing.TB, b []byte) (mail.Header, []*multipart.Part, []string) {
	t.Helper()
	if bytes.Contains(bytes.ReplaceAll(b, []byte("\r\n"), nil), []byte("\n")) {
		t.Error("there is a bare LF")
	}
	m, err := mail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	typ, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || typ != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("type %q %v (%v)", typ, params, err)
	}
	var parts []*multipart.Part
	var texts []string
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return m.Header, parts, texts
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		parts, texts = append(parts, p), append(texts, string(text))
	}
}

var boundary = regexp.MustCompile(`=_[A-Z2-7]{26}`)

// TestGolden: the notices as they are sent.
func TestGolden(t *testing.T) {
	for name, k := range map[string]Kind{"failed": Failed, "delayed": Delayed, "delivered": Delivered, "relayed": Relayed, "double": Double} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			n := notice(t, k)
			if k == Double {
				n.Envelope.From = wmail.Path{}
			}
			env, err := Compose(&b, n)
			if err != nil {
				t.Fatal(err)
			}
			if !env.From.IsNull() || len(env.Rcpts) != 1 || env.UTF8 {
				t.Errorf("envelope %+v", env)
			}
			h, parts, texts := read(t, b.Bytes())
			if len(parts) != 3 || h.Get("Auto-Submitted") != "auto-replied" || h.Get("In-Reply-To") != "<one@example.org>" {
				t.Errorf("%d parts, header %v", len(parts), h)
			}
			if full := strings.Contains(texts[2], "hello"); full != (k == Failed || k == Double) {
				t.Errorf("the body is returned: %v", full)
			}
			got := boundary.ReplaceAll(b.Bytes(), []byte("BOUNDARY"))
			file := "testdata/" + name + ".eml"
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s differs (%v); got\n%s", file, err, got)
			}
		})
	}
}

// fields reads the groups of a status part.
func fields(t testing.TB, text string) (groups []textproto.MIMEHeader) {
	t.Helper()
	r := textproto.NewReader(bufio.NewReader(strings.NewReader(text)))
	for {
		h, err := r.ReadMIMEHeader()
		if len(h) > 0 {
			groups = append(groups, h)
		}
		if err == io.EOF {
			return groups
		}
		if err != nil {
			t.Fatalf("status part: %v in\n%s", err, text)
		}
	}
}

// TestVariants: what RFC 3461, 3464 and 6533 ask for.
func TestVariants(t *testing.T) {
	rows := []struct {
		name   string
		change func(*Notice)
		check  func(t *testing.T, env wmail.Envelope, parts []*multipart.Part, texts []string)
	}{
		{"headers only", func(n *Notice) { n.Envelope.Return = "HDRS" }, func(t *testing.T, _ wmail.Envelope, p []*multipart.Part, texts []string) {
			if p[2].Header.Get("Content-Type") != "text/rfc822-headers" || strings.Contains(texts[2], "hello") {
				t.Errorf("%v %q", p[2].Header, texts[2])
			}
		}},
		{"too long", func(n *Notice) { n.Excerpt = 10 }, func(t *testing.T, _ wmail.Envelope, p []*multipart.Part, texts []string) {
			if p[2].Header.Get("Content-Type") != "text/rfc822-headers" || !strings.Contains(texts[2], "Subject: hi") {
				t.Errorf("%v %q", p[2].Header, texts[2])
			}
		}},
		{"UTF-8", func(n *Notice) {
			n.Recipients[0].To = path(t, "bób@exämple.net")
			n.Recipients[0].Final = n.Recipients[0].To
			n.Recipients[0].ORcpt = ""
		}, func(t *testing.T, env wmail.Envelope, p []*multipart.Part, texts []string) {
			g := fields(t, texts[1])
			if !env.UTF8 || !strings.HasPrefix(p[1].Header.Get("Content-Type"), "message/global-delivery-status") || p[2].Header.Get("Content-Type") != "message/global" || !strings.HasPrefix(g[1].Get("Final-Recipient"), "utf-8; bób@") {
				t.Errorf("%v %v %v", env.UTF8, p[1].Header, g)
			}
		}},
		{"forwarded", func(n *Notice) { n.Recipients[0].Final, n.Recipients[0].ORcpt = path(t, "far@example.com"), "" }, func(t *testing.T, _ wmail.Envelope, _ []*multipart.Part, texts []string) {
			if g := fields(t, texts[1]); g[1].Get("Original-Recipient") != "rfc822; bob@example.net" || g[1].Get("Final-Recipient") != "rfc822; far@example.com" {
				t.Errorf("%v", g)
			}
		}},
		{"expired", func(n *Notice) {
			n.Arrival = n.Now.Add(-5 * 24 * time.Hour)
			n.Recipients[0].Outcome = wmail.Outcome{Status: wmail.Status{Code: 451, Enhanced: "4.4.1", Text: "connection timed out"}}
		}, func(t *testing.T, _ wmail.Envelope, _ []*multipart.Part, texts []string) {
			g := fields(t, texts[1])
			if g[1].Get("Action") != "failed" || g[1].Get("Status") != "4.4.1" || !strings.Contains(texts[0], "5 days") {
				t.Errorf("%v\n%s", g, texts[0])
			}
		}},
		{"a wrong enhanced code", func(n *Notice) { n.Recipients[0].Outcome.Status.Enhanced = "2.0.0" }, func(t *testing.T, _ wmail.Envelope, _ []*multipart.Part, texts []string) {
			if g := fields(t, texts[1]); g[1].Get("Status") != "5.0.0" {
				t.Errorf("%v", g)
			}
		}},
		{"many", func(n *Notice) {
			for range 4999 {
				n.Recipients = append(n.Recipients, n.Recipients[0])
			}
		}, func(t *testing.T, _ wmail.Envelope, _ []*multipart.Part, texts []string) {
			if g := fields(t, texts[1]); len(g) != 5001 {
				t.Errorf("%d groups", len(g))
			}
		}},
		{"no blank line", func(n *Notice) { n.Original, n.Size = strings.NewReader("Subject: x\r\n"), 12 }, func(t *testing.T, _ wmail.Envelope, _ []*multipart.Part, texts []string) {
			if !strings.HasSuffix(texts[2], "Subject: x\r\n") {
				t.Errorf("%q", texts[2])
			}
		}},
		{"a megabyte of header", func(n *Notice) {
			s := strings.Repeat("X-Field: "+strings.Repeat("x", 90)+"\r\n", 11000) + "\r\nbody\r\n"
			n.Original, n.Size, n.Excerpt = strings.NewReader(s), int64(len(s)), 10<<20
		}, func(t *testing.T, _ wmail.Envelope, p []*multipart.Part, texts []string) {
			if len(texts[2]) > maxSection+1000 || strings.Contains(texts[2], "body") {
				t.Errorf("%d octets are returned", len(texts[2]))
			}
		}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			n := notice(t, Failed)
			r.change(&n)
			var b bytes.Buffer
			env, err := Compose(&b, n)
			if err != nil {
				t.Fatal(err)
			}
			_, parts, texts := read(t, b.Bytes())
			if len(parts) != 3 {
				t.Fatalf("%d parts", len(parts))
			}
			r.check(t, env, parts, texts)
		})
	}
}

// TestNobody: nobody is told where nobody may be.
func TestNobody(t *testing.T) {
	n := notice(t, Failed)
	n.Envelope.From = wmail.Path{}
	if _, err := Compose(io.Discard, n); err == nil {
		t.Error("a notice to the null sender")
	}
	n = notice(t, Failed)
	n.Recipients = nil
	if _, err := Compose(io.Discard, n); err == nil {
		t.Error("a notice about nobody")
	}
}

// TestWanted is RFC 3461 §4.1.
func TestWanted(t *testing.T) {
	for _, r := range []struct {
		notify string
		want   string
	}{
		{"", "FD"}, {"NEVER", ""}, {"SUCCESS", "SR"}, {"FAILURE", "F"}, {"DELAY", "D"}, {"SUCCESS FAILURE", "FSR"},
	} {
		got := ""
		for _, k := range []struct {
			k Kind
			c string
		}{{Failed, "F"}, {Delayed, "D"}, {Delivered, "S"}, {Relayed, "R"}} {
			if Wanted(wmail.Recipient{Notify: strings.Fields(r.notify)}, k.k) {
				got += k.c
			}
		}
		if got != r.want {
			t.Errorf("%q: %q, want %q", r.notify, got, r.want)
		}
	}
}

// FuzzCompose: no reply and no original breaks the structure.
func FuzzCompose(f *testing.F) {
	f.Add("550 no\r\n--x\r\nContent-Type: text/html\r\n\r\n<b>", "mx\r\nBcc: x", original)
	f.Add(strings.Repeat("é", 5000), "", "\r\n")
	f.Add("\x00\xff\xfe\n.\n", "[", "no header")
	f.Fuzz(func(t *testing.T, text, remote, message string) {
		message = strings.ReplaceAll(strings.ReplaceAll(message, "\r", ""), "\n", "\r\n")
		n := notice(t, Failed)
		n.Recipients[0].Outcome.Status.Text, n.Recipients[0].Outcome.Remote = text, remote
		n.Original, n.Size = strings.NewReader(message), int64(len(message))
		var b bytes.Buffer
		if _, err := Compose(&b, n); err != nil {
			t.Fatal(err)
		}
		_, parts, texts := read(t, b.Bytes())
		if len(parts) != 3 {
			t.Fatalf("%d parts", len(parts))
		}
		if g := fields(t, texts[1]); len(g) != 2 || len(g[1]) > 7 {
			t.Fatalf("groups: %v", g)
		}
		for _, l := range strings.Split(texts[0]+texts[1], "\r\n") {
			if len(l) > 998 {
				t.Fatalf("a line of %d octets", len(l))
			}
		}
	})
}
