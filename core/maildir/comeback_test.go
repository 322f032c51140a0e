package maildir

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestComesBack: a file that was moved away through us, and that another program has
// moved back and given a UID, keeps that UID.
func TestComesBack(t *testing.T) {
	p, path := testPool(t)
	f := openFolder(t, openStore(t, p, path), "INBOX")
	appendText(t, f, "a: b\r\n\r\nx\r\n", Seen)
	appendText(t, f, "a: b\r\n\r\ny\r\n", Seen)
	key := f.Messages()[0].Key
	if _, err := f.Expunge(context.Background(), []uint32{1}); err != nil {
		t.Fatal(err)
	}
	wantUIDs(t, f, 2)
	list, err := os.ReadFile(filepath.Join(path, uidlistName))
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(path, "cur", key+":2,S"), "a: b\n\nx\n")
	put(t, filepath.Join(path, uidlistName), string(list)+"3 :"+key+"\n")
	refresh(t, f)
	wantUIDs(t, f, 2, 3)
}

// TestKeywordSeconds: whoever looks at whole seconds of mtimes sees each new keyword.
func TestKeywordSeconds(t *testing.T) {
	p, path := testPool(t)
	f := openFolder(t, openStore(t, p, path), "INBOX")
	var last time.Time
	for _, name := range []string{"one", "two", "three"} {
		f.Keyword(name, true)
		fi, err := os.Stat(filepath.Join(path, keywordsName))
		if err != nil {
			t.Fatal(err)
		}
		if now := fi.ModTime().Truncate(time.Second); !now.After(last) {
			t.Errorf("%s: mtime %v is in the second of %v", name, now, last)
		} else {
			last = now
		}
	}
}
