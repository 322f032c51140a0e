package smtpd

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// lookAlikes are octets that some server once took for the end of a message,
// or lost. Each stands between text and a second transaction that an attacker
// wants to have executed. The rows of go-mail-servers.md §3 and libraries.md
// §1.3.3 are among them.
var lookAlikes = []struct{ name, octets string }{
	{"LF.LF", "\n.\n"},
	{"LF.CRLF", "\n.\r\n"},
	{"CRLF.LF", "\r\n.\n"},
	{"CR.CR", "\r.\r"},
	{"CR.CRLF", "\r.\r\n"},
	{"CRLF.CR", "\r\n.\r"},
	{"CRLF.CRx", "\r\n.\rx"},
	{"CRLF.CRCRLF", "\r\n.\r\r\n"},
	{"CRLF NUL.CRLF", "\r\n\x00.\r\n"},
	{"CRLF.NUL CRLF", "\r\n.\x00\r\n"},
	{"bare LF", "a\nb\r\n"},
	{"bare CR", "a\rb\r\n"},
	{"LFLF.LF", "\n\n.\n"},
	{"CR.LF", "\r.\n"},
	{"LF.CR", "\n.\r"},
	{"LFCR.CRLF", "\n\r.\r\n"},
	{"CRLF .CRLF", "\r\n .\r\n"},
	{"CRLF. CRLF", "\r\n. \r\n"},
}

// clean are those of them that are lines as they should be.
var clean = map[string]bool{"CRLF NUL.CRLF": true, "CRLF.NUL CRLF": true, "CRLF .CRLF": true, "CRLF. CRLF": true}

// TestSmuggling sends each look-alike in the middle of DATA, to a client that
// is trusted and to one that is not: there is one message or none, never two.
func TestSmuggling(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		h := open(t, MX, func(c *Config, _ *house) {
			if trusted {
				c.Trusted = loopback
			}
		})
		for _, row := range lookAlikes {
			name := row.name
			if trusted {
				name += " trusted"
			}
			t.Run(name, func(t *testing.T) {
				before := len(h.courier.taken())
				c := h.hello()
				c.t = t
				c.do("MAIL FROM:<a@b.example>", "250", "RCPT TO:<c@local.example>", "250", "DATA", "354")
				c.send("Subject: 1\r\n\r\ntext" + row.octets +
					"MAIL FROM:<admin@local.example>\r\nRCPT TO:<victim@local.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n")
				want, messages := "550 5.5.2", 0
				if trusted || clean[row.name] {
					want, messages = "250 2.0.0", 1
				}
				c.want(want)
				c.do("NOOP", "250 2.0.0", "RCPT TO:<x@local.example>", "503")
				got := h.courier.taken()[before:]
				if len(got) != messages {
					t.Fatalf("%d messages, want %d", len(got), messages)
				}
				for _, m := range got {
					if !strings.Contains(m.text, "smuggled") {
						t.Errorf("message ends early: %q", m.text)
					}
					if trusted {
						wellFormed(t, m.text)
					}
				}
			})
		}
	}
}

// wellFormed fails if text has a bare CR or LF.
func wellFormed(t testing.TB, text string) {
	t.Helper()
	if rest := strings.ReplaceAll(text, "\r\n", ""); strings.ContainsAny(rest, "\r\n") {
		t.Errorf("bare CR or LF in %q", text)
	}
}

// TestDotAlone: a message that is nothing but the end.
func TestDotAlone(t *testing.T) {
	h := open(t, MX, nil)
	c := h.hello()
	c.do("MAIL FROM:<>", "250", "RCPT TO:<c@local.example>", "250", "DATA", "354", ".", "250 2.0.0", "NOOP", "250")
	if m := h.courier.taken(); len(m) != 1 || m[0].text != "" {
		t.Errorf("%+v", m)
	}
}

// readAll runs in through a text in pieces of n octets.
func readAll(t *text, in []byte, n int, repair bool) (out []byte, used int, end bool) {
	for used < len(in) && !end {
		piece := bytes.Clone(in[used:min(used+n, len(in))])
		for len(piece) > 0 && !end {
			var part []byte
			var k int
			if repair {
				part, k, end = t.repair(nil, piece)
			} else {
				part, k, end = t.strict(piece)
			}
			out = append(out, part...)
			used += k
			piece = piece[k:]
		}
	}
	return out, used, end
}

// naive is the definition that text is held against: the message ends at the
// first CR LF "." CR LF (the first CR LF may be that of DATA), one dot at the
// start of each line goes, and bare says that a CR or LF stands alone.
func naive(in []byte) (out []byte, used int, end, bare bool) {
	message := append([]byte("\r\n"), in...)
	if i := bytes.Index(message, []byte("\r\n.\r\n")); i >= 0 {
		message, used, end = message[:i+2], i+3, true
	} else {
		used = len(in)
	}
	rest := bytes.ReplaceAll(message, []byte("\r\n"), []byte("\x00"))
	bare = bytes.ContainsAny(rest, "\r\n")
	out = bytes.ReplaceAll(message, []byte("\r\n."), []byte("\r\n"))
	return out[2:], used, end, bare
}

func FuzzText(f *testing.F) {
	for _, row := range lookAlikes {
		f.Add([]byte("Subject: x\r\n\r\ntext"+row.octets+"more\r\n.\r\nQUIT\r\n"), 3)
	}
	f.Add([]byte(".\r\n"), 1)
	f.Add([]byte("..\r\n...\r\n.a\r\n.\r\n"), 2)
	f.Fuzz(func(t *testing.T, in []byte, n int) {
		n = max(1, n%64)
		want, used, end, bare := naive(in)
		st := text{dots: true, limit: 1 << 20}
		out, gotUsed, gotEnd := readAll(&st, in, n, false)
		if gotUsed != used || gotEnd != end {
			t.Fatalf("%q in %d: used %d end %v, want %d %v", in, n, gotUsed, gotEnd, used, end)
		}
		if !end && st.state != lineStart && st.state != inLine {
			return // it cannot be told yet what the last octets are
		}
		if st.bare != bare {
			t.Fatalf("%q in %d: bare %v, want %v", in, n, st.bare, bare)
		}
		if !bare && !bytes.Equal(out, want) {
			t.Fatalf("%q in %d: %q, want %q", in, n, out, want)
		}

		// Repaired: the same end, the same text if nothing was wrong, and
		// never a bare CR or LF.
		re := text{dots: true, limit: 1 << 20}
		fixed, gotUsed, gotEnd := readAll(&re, in, n, true)
		if gotUsed != used || gotEnd != end {
			t.Fatalf("repair %q in %d: used %d end %v, want %d %v", in, n, gotUsed, gotEnd, used, end)
		}
		wellFormed(t, string(fixed))
		if !bare && end && !bytes.Equal(fixed, want) {
			t.Fatalf("repair %q in %d: %q, want %q", in, n, fixed, want)
		}
		whole := text{dots: true, limit: 1 << 20}
		if once, _, _ := readAll(&whole, in, len(in)+1, true); !bytes.Equal(once, fixed) {
			t.Fatalf("repair %q: %q in pieces of %d, %q at once", in, fixed, n, once)
		}
	})
}

func TestHeaderWatch(t *testing.T) {
	const in = "Received: a\r\n b\r\nReceived : c\r\nX-Received: d\r\nDATE: now\r\nMessage-ID:<x>\r\n received: e\r\n\r\nReceived: body\r\n"
	for n := 1; n < len(in); n++ {
		var h header
		for i := 0; i < len(in); i += n {
			h.watch([]byte(in[i:min(i+n, len(in))]))
		}
		if h.received != 2 || !h.done || h.size != strings.Index(in, "\r\n\r\n")+4 {
			t.Fatalf("in pieces of %d: %+v", n, h)
		}
	}
}

// step is one row of what was said to Postfix.
type step struct {
	Send    json.RawMessage `json:"send"`
	Replies []struct {
		Code int    `json:"code"`
		Enh  string `json:"enh"`
	} `json:"replies"`
}

// octets is what the client sent: a string, or base64 if it is not UTF-8.
func (s step) octets(t *testing.T) string {
	var text string
	if json.Unmarshal(s.Send, &text) == nil {
		return text
	}
	var raw struct{ B64 []byte }
	if err := json.Unmarshal(s.Send, &raw); err != nil {
		t.Fatal(err)
	}
	return string(raw.B64)
}

// oracle reads a suite of dialogues with a real Postfix.
func oracle(t *testing.T, name string, row any, next func()) {
	path := filepath.Join("..", "..", "..", "shared", "testdata", "postfix-oracle", name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("outside test data is absent: %v", err)
	}
	for _, line := range bytes.Split(bytes.TrimSpace(b), []byte("\n")) {
		if err := json.Unmarshal(line, row); err != nil {
			t.Fatal(err)
		}
		next()
	}
}

// TestPostfixSmuggling runs the suite that was run against Postfix: reject
// against an untrusted client, normalize against a trusted one. The number of
// messages must agree.
func TestPostfixSmuggling(t *testing.T) {
	// Where we differ, and why.
	const bareCR = "a bare CR is refused as a bare LF is; Postfix's reject looks at LF alone"
	differences := map[string]string{
		"bare-reject CR.CR":         bareCR,
		"bare-reject CRLF.CR":       bareCR,
		"bare-reject CRLF.CRCRLF":   bareCR,
		"bare-reject CRLF.CRCR":     bareCR,
		"bare-reject CRCRLF.CRCRLF": bareCR,
		"bare-reject bare-cr-body":  bareCR,
		"bare-reject CRCRLF.CRLF":   bareCR + "; the first of two messages has one",
	}
	strict := open(t, MX, nil)
	repair := open(t, MX, func(c *Config, _ *house) { c.Trusted = loopback })
	type smuggleRow struct {
		ID, Config, Name string
		Steps            []step
		Accepted         int `json:"accepted_messages"`
	}
	row := new(smuggleRow)
	oracle(t, "smuggling.jsonl", row, func() {
		r := *row
		*row = smuggleRow{}
		h := strict
		switch r.Config {
		case "bare-normalize":
			h = repair
		case "bare-reject":
		default:
			return // Postfix as it was before the attack was known
		}
		t.Run(r.Config+" "+r.Name, func(t *testing.T) {
			before := len(h.courier.taken())
			c := h.dial()
			c.t = t
			for _, s := range r.Steps {
				// A server that hung up cannot be written to.
				if _, err := c.nc.Write([]byte(s.octets(t))); err != nil {
					break
				}
			}
			_ = c.nc.(*net.TCPConn).CloseWrite() // fails if the server hung up
			for {
				if _, err := c.read(); err != nil {
					break
				}
			}
			got := len(h.courier.taken()) - before
			if why := differences[r.Config+" "+r.Name]; (got != r.Accepted) != (why != "") {
				t.Errorf("%s: %d messages, Postfix took %d", r.ID, got, r.Accepted)
			}
		})
	})
}
