package maildir

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// testPool is a pool over a fresh Maildir that does not sync.
func testPool(t testing.TB, ops ...fileOps) (*Pool, string) {
	t.Helper()
	o := Options{Sync: func(string) error { return nil }, Hostname: "host.example", UID: -1, GID: -1, Watch: true}
	op := osOps()
	if len(ops) > 0 {
		op = ops[0]
	}
	p := newPool(o, op)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, filepath.Join(t.TempDir(), "box")
}

func openStore(t testing.TB, p *Pool, path string) *Store {
	t.Helper()
	s, err := p.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func openFolder(t testing.TB, s *Store, name string) *Folder {
	t.Helper()
	f, err := s.Folder(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func put(t testing.TB, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func appendText(t testing.TB, f *Folder, text string, flags Flags) Message {
	t.Helper()
	m, err := f.Append(context.Background(), strings.NewReader(text), AppendOptions{Size: int64(len(text)), Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func refresh(t testing.TB, f *Folder) {
	t.Helper()
	if err := f.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func uidsOf(f *Folder) (uids []uint32) {
	for _, m := range messages(f) {
		uids = append(uids, m.UID)
	}
	return uids
}

func wantUIDs(t testing.TB, f *Folder, want ...uint32) {
	t.Helper()
	if got := uidsOf(f); !slices.Equal(got, want) {
		t.Fatalf("UIDs %v, want %v", got, want)
	}
}

func text(t testing.TB, f *Folder, uid uint32) string {
	t.Helper()
	c, err := f.Open(uid)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(data)) != c.Size() {
		t.Errorf("message %d has %d octets, Size says %d", uid, len(data), c.Size())
	}
	return string(data)
}

func dirNames(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestAppendFlagsExpunge(t *testing.T) {
	ctx := context.Background()
	p, path := testPool(t)
	s := openStore(t, p, path)
	f := openFolder(t, s, "inbox")
	if f.Name() != "INBOX" {
		t.Errorf("name %q", f.Name())
	}
	date := time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)
	const body = "Subject: x\r\n\r\nhi\r\n"
	m, err := f.Append(ctx, strings.NewReader(body), AppendOptions{Size: int64(len(body)), Flags: Seen, Date: date})
	if err != nil {
		t.Fatal(err)
	}
	if m.UID != 1 || m.Flags != Seen || m.Size != int64(len(body)) || !m.Date.Equal(date) {
		t.Fatalf("appended %+v", m)
	}
	appendText(t, f, body, 0)
	if got := text(t, f, 1); got != body {
		t.Errorf("text %q", got)
	}
	kw, ok := f.Keyword("$Junk", true)
	if !ok || kw != KeywordBit(0) {
		t.Fatalf("keyword %x %v", kw, ok)
	}
	before := f.Status()
	snapshot := f.Messages()
	changed, modified, err := f.SetFlags(ctx, []uint32{1, 2, 99}, FlagAdd, kw|Flagged, 0)
	if err != nil || len(changed) != 2 || modified != nil {
		t.Fatalf("changed %v, modified %v, %v", changed, modified, err)
	}
	if snapshot[0].Flags != Seen {
		t.Error("snapshot changed")
	}
	if names := dirNames(t, path+"/cur"); !strings.HasSuffix(names[0], ":2,FSa") || !strings.HasSuffix(names[1], ":2,Fa") {
		t.Errorf("files %v", names)
	}
	if changed, modified, err = f.SetFlags(ctx, []uint32{1}, FlagSet, 0, before.HighestModSeq); err != nil || len(changed) != 0 || !slices.Equal(modified, []uint32{1}) {
		t.Fatalf("unchangedsince: %v %v %v", changed, modified, err)
	}
	gone, err := f.Expunge(ctx, []uint32{1, 7})
	if err != nil || !slices.Equal(gone, []uint32{1}) {
		t.Fatalf("gone %v, %v", gone, err)
	}
	if _, err := f.Open(1); !errors.Is(err, ErrExpunged) {
		t.Errorf("open expunged: %v", err)
	}
	ch, ex, now := f.Since(before.HighestModSeq)
	if len(ch) != 1 || ch[0].UID != 2 || !slices.Equal(ex, []uint32{1}) || now != f.Status().HighestModSeq {
		t.Errorf("since: %v %v %d", ch, ex, now)
	}
	if st := f.Status(); st.Messages != 1 || st.UIDNext != 3 || st.Unseen != 1 {
		t.Errorf("status %+v", st)
	}
	if _, err := f.Append(ctx, strings.NewReader("short"), AppendOptions{Size: 10}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short append: %v", err)
	}
	if left := dirNames(t, path+"/tmp"); len(left) > 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

func TestUIDsAcrossRestart(t *testing.T) {
	ctx := context.Background()
	for _, index := range []bool{true, false} {
		p, path := testPool(t)
		s := openStore(t, p, path)
		f := openFolder(t, s, "INBOX")
		for range 5 {
			appendText(t, f, "a: b\r\n\r\n", Seen)
		}
		if _, err := f.Expunge(ctx, []uint32{2, 5}); err != nil {
			t.Fatal(err)
		}
		was := f.Status()
		p.Close()
		if !index {
			if err := os.Remove(path + "/" + indexName); err != nil {
				t.Fatal(err)
			}
		}
		p2, _ := testPool(t)
		f2 := openFolder(t, openStore(t, p2, path), "INBOX")
		wantUIDs(t, f2, 1, 3, 4)
		now := f2.Status()
		if now.UIDValidity != was.UIDValidity || now.UIDNext != 6 || now.HighestModSeq < was.HighestModSeq {
			t.Errorf("index %v: status %+v, was %+v", index, now, was)
		}
		if m := appendText(t, f2, "x: y\r\n\r\n", 0); m.UID != 6 {
			t.Errorf("index %v: new UID %d", index, m.UID)
		}
	}
}

func TestCopyAndMove(t *testing.T) {
	ctx := context.Background()
	p, path := testPool(t)
	s := openStore(t, p, path)
	if err := s.Create("Junk.Old"); err != nil {
		t.Fatal(err)
	}
	in, out := openFolder(t, s, "INBOX"), openFolder(t, s, "Junk.Old")
	in.Keyword("first", true)
	second, _ := in.Keyword("second", true)
	for i := range 4 {
		appendText(t, in, strings.Repeat("a: b\r\n", i+1), second|Seen)
	}
	pairs, err := in.Copy(ctx, []uint32{3, 1, 1}, out)
	if err != nil || !slices.Equal(pairs, []CopyPair{{1, 1}, {3, 2}}) {
		t.Fatalf("copy %v, %v", pairs, err)
	}
	if got := out.Keywords(); !slices.Equal(got, []string{"second"}) {
		t.Errorf("keywords %v", got)
	}
	if m := out.Messages()[1]; m.Flags != Seen|KeywordBit(0) || m.Size != 18 {
		t.Errorf("copy is %+v", m)
	}
	pairs, err = in.Move(ctx, []uint32{2, 4}, out)
	if err != nil || !slices.Equal(pairs, []CopyPair{{2, 3}, {4, 4}}) {
		t.Fatalf("move %v, %v", pairs, err)
	}
	wantUIDs(t, in, 1, 3)
	wantUIDs(t, out, 1, 2, 3, 4)
	if got := text(t, out, 4); got != strings.Repeat("a: b\r\n", 4) {
		t.Errorf("moved text %q", got)
	}
	pairs, err = in.Move(ctx, []uint32{1}, in)
	if err != nil || !slices.Equal(pairs, []CopyPair{{1, 5}}) {
		t.Fatalf("move into itself %v, %v", pairs, err)
	}
	wantUIDs(t, in, 3, 5)
	refresh(t, in)
	wantUIDs(t, in, 3, 5)
	pairs, err = in.Copy(ctx, []uint32{3}, in)
	if err != nil || !slices.Equal(pairs, []CopyPair{{3, 6}}) {
		t.Fatalf("copy into itself %v, %v", pairs, err)
	}
}

func TestFolders(t *testing.T) {
	ctx := context.Background()
	p, path := testPool(t)
	s := openStore(t, p, path)
	for _, name := range []string{"Sent", "A.B.C", "Tést", "inbox.sub", "R&D"} {
		if err := s.Create(name); err != nil {
			t.Fatal(err)
		}
	}
	put(t, path+"/.Ünï/cur/x", "") // UTF-8 on disk, as other programs write it
	put(t, path+"/.bad&name/cur/x", "")
	put(t, path+"/.nothing/x", "")
	if err := s.Subscribe("Tést"); err != nil {
		t.Fatal(err)
	}
	list, err := s.Folders(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range list {
		flags := ""
		if f.NoSelect {
			flags += "!"
		}
		if f.Children {
			flags += "+"
		}
		if f.Subscribed {
			flags += "*"
		}
		got = append(got, f.Name+flags+f.SpecialUse)
	}
	want := []string{"INBOX+", "INBOX.sub", "A!+", "A.B!+", "A.B.C", "R&D", `Sent\Sent`, "Tést*", "bad&name", "Ünï"}
	if !slices.Equal(got, want) {
		t.Errorf("folders %q\nwant    %q", got, want)
	}
	for _, name := range []string{"Ünï", "bad&name"} {
		wantUIDs(t, openFolder(t, s, name), 1)
	}
	if !isDir(path + "/.R&-D") {
		t.Error("R&D is not encoded")
	}
	for name, want := range map[string]error{"sent": nil, "Sent": ErrExists, "INBOX": ErrExists, "a..b": ErrBadName, ".a": ErrBadName, "a/b": ErrBadName, "": ErrBadName, "a\x01": ErrBadName, "../x": ErrBadName, "a.": ErrBadName, strings.Repeat("x", 300): ErrBadName} {
		if err := s.Create(name); !errors.Is(err, want) {
			t.Errorf("create %q: %v, want %v", name, err, want)
		}
	}
	f := openFolder(t, s, "A.B.C")
	appendText(t, f, "x: y\r\n\r\n", 0)
	v := f.Status().UIDValidity
	if err := s.Rename("A", "New.A"); err != nil {
		t.Fatal(err)
	}
	if err := f.Refresh(ctx); !errors.Is(err, ErrNoFolder) {
		t.Errorf("refresh of renamed folder: %v", err)
	}
	g := openFolder(t, s, "New.A.B.C")
	wantUIDs(t, g, 1)
	if g.Status().UIDValidity != v {
		t.Error("UIDVALIDITY changed")
	}
	if err := s.Rename("Sent", "New.A.B.C"); !errors.Is(err, ErrExists) {
		t.Errorf("rename onto another: %v", err)
	}
	if err := s.Delete("New.A.B.C"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Folder(ctx, "New.A.B.C"); !errors.Is(err, ErrNoFolder) {
		t.Errorf("deleted folder: %v", err)
	}
	if err := s.Create("New.A.B.C"); err != nil {
		t.Fatal(err)
	}
	if n := openFolder(t, s, "New.A.B.C").Status().UIDValidity; n <= v {
		t.Errorf("UIDVALIDITY %d after deletion, was %d", n, v)
	}
	if err := s.Delete("INBOX"); !errors.Is(err, ErrBadName) {
		t.Errorf("delete INBOX: %v", err)
	}
}

func TestRenameInbox(t *testing.T) {
	p, path := testPool(t)
	s := openStore(t, p, path)
	in := openFolder(t, s, "INBOX")
	appendText(t, in, "a: b\r\n\r\n", Seen)
	if err := s.Create("INBOX.child"); err != nil {
		t.Fatal(err)
	}
	if err := s.Rename("InBox", "Old"); err != nil {
		t.Fatal(err)
	}
	wantUIDs(t, in)
	wantUIDs(t, openFolder(t, s, "Old"), 1)
	openFolder(t, s, "INBOX.child")
}

func TestLockPOP3(t *testing.T) {
	p, path := testPool(t)
	a, b := openStore(t, p, path), openStore(t, p, path)
	unlock, err := a.LockPOP3()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.LockPOP3(); !errors.Is(err, ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
	unlock()
	unlock()
	if unlock, err = b.LockPOP3(); err != nil {
		t.Fatal(err)
	}
	unlock()
}

// messages is f.Messages with all sizes; without those that cannot be had.
func messages(f *Folder) []Message {
	if err := f.Measure(context.Background()); err != nil {
		return nil
	}
	return f.Messages()
}
