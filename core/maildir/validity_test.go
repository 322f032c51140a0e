package maildir

import (
	"context"
	"testing"
)

// TestOtherValidity puts the list of another program, with another UIDVALIDITY, beside
// an index that was saved: while the folder is open, and while nobody looks.
func TestOtherValidity(t *testing.T) {
	const other = "3 V777 N9\n4 :1.a\n6 :2.b\n"
	for _, open := range []bool{true, false} {
		name := map[bool]string{true: "open", false: "closed"}[open]
		t.Run(name, func(t *testing.T) {
			p, path := testPool(t)
			for _, n := range []string{"1.a:2,", "2.b:2,S"} {
				put(t, path+"/cur/"+n, "a: b\r\n\r\n")
			}
			s := openStore(t, p, path)
			f := openFolder(t, s, "INBOX")
			wantUIDs(t, f, 1, 2)
			f.b.save()
			f.b.changes++ // as if there was something to be saved
			f.b.save()
			if !open {
				p2 := NewPool(Options{Sync: func(string) error { return nil }})
				t.Cleanup(func() { p2.Close() })
				s = openStore(t, p2, path)
			}
			put(t, path+"/dovecot-uidlist", other)
			if open {
				refresh(t, f)
			} else {
				f = openFolder(t, s, "INBOX")
			}
			wantUIDs(t, f, 4, 6)
			if v := f.Status().UIDValidity; v != 777 {
				t.Errorf("UIDVALIDITY %d, want 777", v)
			}
			if m := f.Messages(); m[1].Flags != Seen {
				t.Errorf("flags %x", m[1].Flags)
			}
			// The index that is written then is of use again.
			f.b.save()
			p3 := NewPool(Options{Sync: func(string) error { return nil }})
			t.Cleanup(func() { p3.Close() })
			s3 := openStore(t, p3, path)
			f3, err := s3.Folder(context.Background(), "INBOX")
			if err != nil {
				t.Fatal(err)
			}
			defer f3.Close()
			wantUIDs(t, f3, 4, 6)
		})
	}
}
