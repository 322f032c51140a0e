package imapd

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

// TestHostileHeaders: what grows with the square of a header's length would
// take hours here, and the test would be killed.
func TestHostileHeaders(t *testing.T) {
	const size = 2 << 20
	for _, unit := range []string{"a@", "@", "<", "<a@", "[", "[ ", "(", "\"", "\\", ",", ":", ";", "a:;", "a,", "x ", "<@a,", "<@a:", "=?utf-8?q?", "a@b,\r\nTo: "} {
		header := []byte("From: " + strings.Repeat(unit, size/len(unit)) + "\r\n\r\n")
		var b bytes.Buffer
		w := stringWriter(&b)
		writeEnvelope(w, header)
		w.flush()
		if n, rest := countElements(t, b.String()); n != len(envelopeFields) || rest != "" {
			t.Errorf("%q: %d fields", unit, n)
		}
		plainAddresses(string(header))
		decodeWords(string(header[:maxWords]))
	}
}

// TestBigSearch: the parser's bounds hold where the grammar allows more.
func TestBigSearch(t *testing.T) {
	c := startServer(t, nil).login(t)
	c.ok("SELECT INBOX")
	for _, line := range []string{
		"SEARCH " + strings.Repeat("(", 1000) + "ALL" + strings.Repeat(")", 1000),
		"SEARCH " + strings.Repeat("NOT ", 5000) + "ALL",
		"SEARCH" + strings.Repeat(" ALL", 5000),
		"FETCH 1 (" + strings.Repeat("BODY[1] ", 5000) + ")",
		"FETCH " + strings.Repeat("1,", 20000) + "1 FLAGS",
		"STORE 1 FLAGS (" + strings.Repeat("a ", 5000) + ")",
		"FETCH 1 BODY[" + strings.Repeat("1.", 5000) + "1]",
	} {
		if _, got := c.cmd(line); !strings.HasPrefix(got, "BAD ") {
			t.Errorf("%.20s…: %s", line, got)
		}
	}
}

// TestShutdownCutsOff: a peer that does not read cannot hold the server up.
func TestShutdownCutsOff(t *testing.T) {
	ts := startServer(t, nil)
	c := ts.login(t)
	c.appendMessage("INBOX", "", strings.Repeat(strings.Repeat("x", 78)+"\r\n", 200000))
	c.ok("SELECT INBOX")
	c.send("a FETCH 1 (BODY[] BODY[1] BODY[TEXT])\r\n")
	c.next0()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := ts.Shutdown(ctx); err != context.Canceled {
		t.Errorf("Shutdown: %v", err)
	}
}

// next0 waits for the first octet of a reply.
func (c *client) next0() {
	c.t.Helper()
	if _, err := c.r.Peek(1); err != nil {
		c.t.Fatal(err)
	}
}
