package maildir

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
)

// TestWrongSizes: whatever a file's name and dovecot-uidlist say of its size,
// what is read has the size that is announced, and after it was opened once the
// message's size is right for good, in its copies too.
func TestWrongSizes(t *testing.T) {
	long := strings.Repeat("0123456789\r\n", 2000)
	for what, body := range map[string]string{
		"LF": "a: b\n\nx\n", "CRLF": "a: b\r\n\r\nx\r\n", "mixed": "a: b\r\n\r\nx\n", "long": long,
		"LF at the end": long + "\n", "long LF": strings.ReplaceAll(long, "\r", ""), "empty": "",
	} {
		want := string(crlf([]byte(body)))
		s, w := len(body), len(want)
		for name, sizes := range map[string]string{
			"right": fmt.Sprintf(",S=%d,W=%d", s, w), "W is S": fmt.Sprintf(",S=%d,W=%d", s, s), "W less": fmt.Sprintf(",S=%d,W=%d", s, w-1),
			"W more": fmt.Sprintf(",S=%d,W=%d", s, w+9), "S less": fmt.Sprintf(",S=%d,W=%d", s/2, w), "S more": fmt.Sprintf(",S=%d,W=%d", s+40, w+40),
			"both less": ",S=1,W=1", "huge": ",S=999999999999999999,W=999999999999999999", "over": ",S=99999999999999999999999,W=0",
			"signed": ",S=-1,W=-1", "twice": fmt.Sprintf(",S=3,S=%d,W=4", s), "only W": ",W=5", "only S": fmt.Sprintf(",S=%d", s), "no number": ",S=,W=x",
		} {
			p, path := testPool(t)
			put(t, path+"/cur/1.a"+sizes+":2,S", body)
			put(t, path+"/"+uidlistName, "3 V5 N9\n8 S"+fmt.Sprint(s)+" W"+fmt.Sprint(w+3)+" :1.a"+sizes+"\n")
			store := openStore(t, p, path)
			f := openFolder(t, store, "INBOX")
			wantUIDs(t, f, 8)
			check := func(f *Folder, uid uint32) {
				t.Helper()
				if got := text(t, f, uid); got != want {
					t.Errorf("%s, %s: %d octets, want %d", what, name, len(got), len(want))
				}
				if got := f.Messages()[0].Size; got != int64(w) {
					t.Errorf("%s, %s: Size %d, want %d", what, name, got, w)
				}
			}
			check(f, 8)
			if err := store.Create("Other"); err != nil {
				t.Fatal(err)
			}
			g := openFolder(t, store, "Other")
			if _, err := f.Copy(context.Background(), []uint32{8}, g); err != nil {
				t.Fatal(err)
			}
			if got := g.Messages()[0].Size; got != int64(w) {
				t.Errorf("%s, %s: the copy has Size %d, want %d", what, name, got, w)
			}
			f.Close()
			g.Close()
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			q, _ := testPool(t)
			again := openStore(t, q, path)
			f, g = openFolder(t, again, "INBOX"), openFolder(t, again, "Other")
			if got := f.Messages()[0].Size; got != int64(w) {
				t.Errorf("%s, %s: Size %d in another process, want %d", what, name, got, w)
			}
			check(f, 8)
			check(g, 1)
		}
	}
}

// TestSurveyed: a big file is looked through once, and again when it has changed.
func TestSurveyed(t *testing.T) {
	body := strings.Repeat("0123456789\r\n", 2000)
	name := t.TempDir() + "/m"
	put(t, name, body)
	o := newOpener(maxUnpacked)
	size := int64(len(body))
	for range 2 {
		c, err := o.open(name, size)
		if err != nil || c.Size() != size || c.marks != nil {
			t.Fatalf("%v, %v", c, err)
		}
		c.Close()
	}
	if len(o.files) != 1 {
		t.Errorf("%d files are known", len(o.files))
	}
	changed := bytes.Replace([]byte(body), []byte("9\r\n"), []byte("\n99"), 3)
	put(t, name+"2", string(changed))
	c, err := o.open(name+"2", size)
	if err != nil || c.Size() != size+3 {
		t.Fatalf("%v, %v", c, err)
	}
	c.Close()
}
