package smtpd

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// crlf gives in CR LF line ends, as a client has to before it sends it.
func crlf(in []byte) []byte {
	out := bytes.ReplaceAll(in, []byte("\r\n"), []byte("\n"))
	out = bytes.ReplaceAll(out, []byte("\n"), []byte("\r\n"))
	if !bytes.HasSuffix(out, []byte("\r\n")) {
		out = append(out, "\r\n"...)
	}
	return out
}

// TestCorpus sends every message of the collection by DATA and by BDAT. It
// arrives octet by octet as it was sent, or, if it has a bare CR, by neither.
func TestCorpus(t *testing.T) {
	root := filepath.Join("..", "..", "..", "shared", "testdata", "eml")
	if _, err := os.Stat(root); err != nil {
		t.Skipf("outside test data is absent: %v", err)
	}
	sent, refused := 0, 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".jsonl") {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text := crlf(raw)
		bare := bytes.Contains(bytes.ReplaceAll(text, []byte("\r\n"), nil), []byte("\r"))
		stuffed := bytes.ReplaceAll(append([]byte("\r\n"), text...), []byte("\r\n."), []byte("\r\n.."))[2:]
		const begin = "EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\n"
		for _, dialogue := range [][]byte{
			append(append([]byte(begin+"DATA\r\n"), stuffed...), ".\r\n"...),
			append(append([]byte(begin), bdatLine(len(text))...), text...),
		} {
			srv, c := theatre(t, MX, nil)
			nc := newScript(pieces(dialogue, 1000+len(dialogue)%500)...)
			srv.play(nc)
			got := c.taken()
			switch {
			case bare && len(got) != 0:
				t.Errorf("%s: has a bare CR and was accepted", path)
			case bare:
				refused++
			case len(got) != 1:
				t.Errorf("%s: %d messages: %s", path, len(got), tail(nc.all()))
			case got[0].text != string(text):
				t.Errorf("%s: changed", path)
			default:
				sent++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d arrived, %d refused for a bare CR", sent, refused)
	if sent < 100 {
		t.Errorf("only %d arrived", sent)
	}
}

func bdatLine(n int) []byte {
	return fmt.Appendf(nil, "BDAT %d LAST\r\n", n)
}

// TestDebugLog: the dialogue is in the debug log, and the secrets are not.
func TestDebugLog(t *testing.T) {
	h := open(t, Submission, func(c *Config, h *house) {
		c.Logger = slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	c := h.hello()
	secret := b64("\x00alice@local.example\x00wonderland")
	c.do("AUTH PLAIN !"+secret, "501", "AUTH LOGIN", "334", b64("alice@local.example"), "334", b64("wonderland"), "235",
		"MAIL FROM:<a@b.example>", "250", "RCPT TO:<c@local.example>", "250", "DATA", "354", "body secret\r\n.", "250", "QUIT", "221")
	until(t, "the session's end", func() bool { return h.srv.Stats().Open == 0 })
	log := h.log.String()
	for _, want := range []string{`line="MAIL FROM:<a@b.example>"`, `line="354 `, "line=AUTH", `msg="message accepted"`} {
		if !strings.Contains(log, want) {
			t.Errorf("log lacks %s", want)
		}
	}
	for _, never := range []string{secret, b64("wonderland"), "wonderland", "body secret"} {
		if strings.Contains(log, never) {
			t.Errorf("log has %q", never)
		}
	}
}
