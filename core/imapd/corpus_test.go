package imapd

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// TestCorpus appends every message of the shared test data and reads it back:
// BODY[] octet for octet, and ENVELOPE and BODYSTRUCTURE in a form that
// another implementation's parser accepts.
func TestCorpus(t *testing.T) {
	root := outside(t, "eml")
	ts := startServer(t, nil)
	c := ts.login(t)
	var want []string
	for _, dir := range []string{root, filepath.Join(filepath.Dir(root), "dsn")} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, ".jsonl") {
				return err
			}
			raw, err := os.ReadFile(path)
			if err != nil || len(raw) == 0 {
				return err
			}
			if got := c.appendMessage("INBOX", "", string(raw)); !strings.HasPrefix(got, "OK") {
				t.Errorf("%s: %s", path, got)
				return nil
			}
			want = append(want, asStored(raw))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d messages", len(want))
	c.ok("SELECT INBOX")
	for i, msg := range want {
		got := c.ok(fmt.Sprintf("FETCH %d BODY.PEEK[]", i+1))
		if body := literalOf(t, got[0]); body != msg {
			t.Errorf("message %d: BODY[] has %d octets, want %d", i+1, len(body), len(msg))
		}
	}

	cl, err := imapclient.DialInsecure(ts.addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.Login(testUser, testPassword).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	all := imap.SeqSet{}
	all.AddRange(1, 0)
	msgs, err := cl.Fetch(all, &imap.FetchOptions{Envelope: true, Flags: true, UID: true, RFC822Size: true, InternalDate: true,
		BodyStructure: &imap.FetchItemBodyStructure{Extended: true}}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	if len(msgs) != len(want) {
		t.Fatalf("imapclient got %d messages, want %d", len(msgs), len(want))
	}
	for i, m := range msgs {
		if m.BodyStructure == nil || m.Envelope == nil {
			t.Errorf("message %d has no structure or no envelope", i+1)
		}
		if m.RFC822Size != int64(len(want[i])) {
			t.Errorf("message %d: RFC822.SIZE %d, want %d", i+1, m.RFC822Size, len(want[i]))
		}
		checkParts(t, c, i+1, m.BodyStructure)
	}
	for _, key := range []string{"TEXT zzyzx", "BODY zzyzx", "SENTSINCE 1-Jan-1970 SUBJECT zzyzx", "OR FROM zzyzx HEADER X-None a"} {
		c.ok("SEARCH " + key)
	}
}

// checkParts: every leaf that the structure promises can be fetched and has
// the promised size.
func checkParts(t *testing.T, c *client, n int, bs imap.BodyStructure) {
	t.Helper()
	bs.Walk(func(path []int, part imap.BodyStructure) bool {
		leaf, ok := part.(*imap.BodyStructureSinglePart)
		if !ok {
			return true
		}
		num := strings.Trim(strings.ReplaceAll(fmt.Sprint(path), " ", "."), "[]")
		got := c.ok(fmt.Sprintf("FETCH %d BODY.PEEK[%s]", n, num))
		if strings.Contains(got[0], "] NIL") {
			t.Errorf("message %d: part %s is NIL", n, num)
			return true
		}
		if body := literalOf(t, got[0]); len(body) != int(leaf.Size) {
			t.Errorf("message %d: part %s has %d octets, structure says %d", n, num, len(body), leaf.Size)
		}
		return true
	})
}

// asStored is a message as clients see it: as it was appended, or, if it has
// bare LFs, with CRLF line ends.
func asStored(raw []byte) string {
	var b strings.Builder
	last := byte(0)
	for _, c := range raw {
		if c == '\n' && last != '\r' {
			b.WriteByte('\r')
		}
		b.WriteByte(c)
		last = c
	}
	return b.String()
}
