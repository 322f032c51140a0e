package imapd

import (
	"bufio"
	"compress/flate"
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestCompress: a client that compresses with its own means, in small pieces, and
// waits in IDLE meanwhile.
func TestCompress(t *testing.T) {
	ts := startServer(t, nil)
	c := ts.login(t)
	if _, got := c.cmd("COMPRESS DEFLATE"); !strings.HasPrefix(got, "OK") {
		t.Fatal(got)
	}
	w, err := flate.NewWriter(c.conn, 9)
	if err != nil {
		t.Fatal(err)
	}
	c.r = bufio.NewReader(flate.NewReader(c.r))
	c.w = flushing{w}
	if _, got := c.cmd("COMPRESS DEFLATE"); !strings.HasPrefix(got, "NO [COMPRESSIONACTIVE]") {
		t.Error(got)
	}
	long := simpleMessage + strings.Repeat("a line that is repeated\r\n", 20_000)
	if got := c.appendMessage("INBOX", "", long); !strings.HasPrefix(got, "OK") {
		t.Fatal(got)
	}
	c.ok("SELECT INBOX")
	if got := strings.Join(c.ok("FETCH 1 BODY.PEEK[]"), ""); !strings.Contains(got, long) {
		t.Errorf("the message is not whole: %d octets", len(got))
	}
	c.send("i IDLE\r\n")
	if got := c.reply(); got != "+ idling" {
		t.Fatal(got)
	}
	other := ts.login(t)
	for i := range 3 {
		if got := other.appendMessage("INBOX", "", simpleMessage); !strings.HasPrefix(got, "OK") {
			t.Fatal(got)
		}
		if got := c.reply(); got != fmt.Sprintf("* %d EXISTS", i+2) {
			t.Fatal(got)
		}
		if got := c.reply(); !strings.HasSuffix(got, "RECENT") {
			t.Fatal(got)
		}
	}
	c.send("DONE\r\n")
	if got := c.reply(); !strings.HasPrefix(got, "i OK") {
		t.Fatal(got)
	}
}

// flushing sends each write at once.
type flushing struct{ w *flate.Writer }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.w.Flush()
	}
	return n, err
}

var _ io.Writer = flushing{}
