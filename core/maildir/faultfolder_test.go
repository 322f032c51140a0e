package maildir

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestFolderFaults fails each step of making, renaming and removing folders
// and of subscribing: a folder is there whole or not at all, and what was
// acknowledged is so.
func TestFolderFaults(t *testing.T) {
	ctx := context.Background()
	changes := []struct {
		name string
		do   func(s *Store) error
		good string // folders after success; after a failure they may be as before, too
	}{
		{"create", func(s *Store) error { return s.Create("New.Sub") }, "A A.B New.Sub"},
		{"rename", func(s *Store) error { return s.Rename("A", "Z") }, "Z Z.B"},
		{"delete", func(s *Store) error { return s.Delete("A.B") }, "A"},
		{"subscribe", func(s *Store) error { return s.Subscribe("A") }, "A* A.B"},
	}
	for _, c := range changes {
		for at := 1; ; at++ {
			x := &faults{}
			p, path := testPool(t, x.ops())
			s := openStore(t, p, path)
			for _, name := range []string{"A", "A.B"} {
				if err := s.Create(name); err != nil {
					t.Fatal(err)
				}
			}
			appendText(t, openFolder(t, s, "A"), "a: b\r\n\r\n", 0)
			x.at = x.n + at
			err := c.do(s)
			x.at = 0
			locks, _ := filepath.Glob(path + "/*.lock")
			for _, l := range locks {
				if err := os.Remove(l); err != nil {
					t.Fatal(err)
				}
			}
			q, _ := testPool(t)
			s2 := openStore(t, q, path)
			list, lerr := s2.Folders(ctx)
			if lerr != nil {
				t.Fatal(lerr)
			}
			var names []string
			for _, info := range list[1:] {
				if info.NoSelect {
					continue
				}
				if info.Subscribed {
					info.Name += "*"
				}
				names = append(names, info.Name)
				f := openFolder(t, s2, strings.TrimSuffix(info.Name, "*"))
				appendText(t, f, "x: y\r\n\r\n", 0) // it works
			}
			got := strings.Join(names, " ")
			if was := "A A.B"; err == nil && got != c.good || err != nil && got != was && got != c.good {
				t.Errorf("%s, %s fails at step %d: %v: folders %q", c.name, x.what, at, err, got)
			}
			if x.what == "" {
				break
			}
		}
	}
}

// Folders may be on different file systems, by symbolic link.
func TestMoveAcrossFileSystems(t *testing.T) {
	ctx := context.Background()
	ops := osOps()
	apart := func(f func(a, b string) error) func(a, b string) error {
		return func(a, b string) error {
			if strings.Contains(a, "/box/cur/") && strings.Contains(b, "/.Other/") {
				return &os.LinkError{Op: "link", Old: a, New: b, Err: syscall.EXDEV}
			}
			return f(a, b)
		}
	}
	ops.link, ops.renameNew = apart(ops.link), apart(ops.renameNew)
	p, path := testPool(t, ops)
	s := openStore(t, p, path)
	if err := s.Create("Other"); err != nil {
		t.Fatal(err)
	}
	in, out := openFolder(t, s, "INBOX"), openFolder(t, s, "Other")
	a := appendText(t, in, "a: 1\r\n\r\n", Seen)
	appendText(t, in, "a: 2\r\n\r\n", Flagged)
	pairs, err := in.Copy(ctx, []uint32{1}, out)
	if err != nil || !slices.Equal(pairs, []CopyPair{{1, 1}}) {
		t.Fatalf("copy %v, %v", pairs, err)
	}
	pairs, err = in.Move(ctx, []uint32{1, 2}, out)
	if err != nil || !slices.Equal(pairs, []CopyPair{{1, 2}, {2, 3}}) {
		t.Fatalf("move %v, %v", pairs, err)
	}
	wantUIDs(t, in)
	wantUIDs(t, out, 1, 2, 3)
	if got := text(t, out, 3); got != "a: 2\r\n\r\n" {
		t.Errorf("text %q", got)
	}
	if m := out.Messages()[0]; !m.Date.Equal(a.Date) || m.Flags != Seen {
		t.Errorf("copy %+v of %+v", m, a)
	}
	if _, err := in.Open(1); !errors.Is(err, ErrExpunged) {
		t.Errorf("open moved: %v", err)
	}
}

// A cut-short index, or one with other UIDs, never wins over the directory.
func TestWrongIndex(t *testing.T) {
	p, path := testPool(t)
	f := openFolder(t, openStore(t, p, path), "INBOX")
	for range 3 {
		appendText(t, f, "a: b\r\n\r\n", 0)
	}
	was := f.Status()
	keys := f.Messages()
	p.Close()
	good, err := os.ReadFile(path + "/" + indexName)
	if err != nil {
		t.Fatal(err)
	}
	x, err := decodeIndex(good)
	if err != nil {
		t.Fatal(err)
	}
	x.msgs[0].Key, x.msgs[1].Key = x.msgs[1].Key, x.msgs[0].Key
	x.list, x.cur = stamp{}, 0
	rows := []struct {
		name string
		data []byte
	}{{"cut", good[:len(good)-1]}, {"empty", nil}, {"garbage", []byte("garbage")}, {"swapped", encodeIndex(x)}} // which gives new UIDs, so it is last
	for _, row := range rows {
		name := row.name
		put(t, path+"/"+indexName, string(row.data))
		q, _ := testPool(t)
		g := openFolder(t, openStore(t, q, path), "INBOX")
		now := g.Status()
		if now.UIDValidity != was.UIDValidity || now.Messages != 3 || now.HighestModSeq < was.HighestModSeq {
			t.Errorf("%s: %+v, was %+v", name, now, was)
		}
		for i, m := range g.Messages() {
			if name != "swapped" && (m.UID != keys[i].UID || m.Key != keys[i].Key) {
				t.Errorf("%s: message %+v, was %+v", name, m, keys[i])
			}
			for _, k := range keys {
				if m.UID == k.UID && m.Key != k.Key {
					t.Errorf("%s: UID %d is another message now", name, m.UID)
				}
			}
		}
	}
}
