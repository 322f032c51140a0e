package maildir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestForeignFiles(t *testing.T) {
	p, path := testPool(t)
	for name, data := range map[string]string{
		"cur/100.a.h:2,S":           "a: b\n\nx\n",
		"cur/100.b.h:2,SPFab":       "a: b\n\nx\n",
		"cur/100.c.h":               "a: b\n\nx\n",
		"cur/100.d.h:1,foo":         "a: b\n\nx\n",
		"new/99.M5P1.h":             "a: b\n\nx\n",
		"new/100.M10P1.h:2,T":       "a: b\n\nx\n",
		"new/100.M9P1.h":            "a: b\n\nx\n",
		"cur/100.f.h,S=8,W=99:2,S":  "a: b\n\nx\n", // right S, wrong W: trusted until it is read
		"cur/100.g.h,S=99,W=129:2,": "a: b\n\nx\n", // wrong S
		"cur/100.h.h:2,SZ!,ext":     "a: b\r\n\r\nx\n",
		"cur/.hidden":               "x",
	} {
		put(t, filepath.Join(path, name), data)
	}
	f := openFolder(t, openStore(t, p, path), "INBOX")
	var got []string
	for _, m := range messages(f) {
		got = append(got, fmt.Sprintf("%d %s %x %d", m.UID, m.Key, m.Flags, m.Size))
	}
	want := []string{
		"1 99.M5P1.h 0 11", "2 100.M9P1.h 0 11", "3 100.M10P1.h 10 11", "4 100.a.h 8 11", "5 100.b.h 32a 11",
		"6 100.c.h 0 11", "7 100.d.h 0 11", "8 100.f.h,S=8,W=99 8 99", "9 100.g.h,S=99,W=129 0 11", "10 100.h.h 8 11",
	}
	if !slices.Equal(got, want) {
		t.Errorf("messages\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for uid := uint32(1); uid <= 10; uid++ {
		if got := text(t, f, uid); got != "a: b\r\n\r\nx\r\n" {
			t.Errorf("message %d is %q", uid, got)
		}
	}
	if m := f.Messages()[7]; m.Size != 11 { // reading it has told
		t.Errorf("size %d after reading", m.Size)
	}
	if got := f.Keywords(); !slices.Equal(got, []string{"unknown-0", "unknown-1"}) {
		t.Errorf("keywords %q", got)
	}
	bit, _ := f.Keyword("foo", true)
	if bit != KeywordBit(2) {
		t.Errorf("foo is %x", bit)
	}
	if _, _, err := f.SetFlags(context.Background(), uidsOf(f), FlagAdd, Answered|bit, 0); err != nil {
		t.Fatal(err)
	}
	wantNames := []string{".hidden", "100.M10P1.h:2,RTc", "100.M9P1.h:2,Rc", "100.a.h:2,RSc", "100.b.h:2,FPRSabc", "100.c.h:2,Rc",
		"100.d.h:2,Rc", "100.f.h,S=8,W=99:2,RSc", "100.g.h,S=99,W=129:2,Rc", "100.h.h:2,!RSZc,ext", "99.M5P1.h:2,Rc"}
	if got := dirNames(t, path+"/cur"); !slices.Equal(got, wantNames) {
		t.Errorf("files %q\nwant  %q", got, wantNames)
	}
	refresh(t, f)
	if n := len(f.Messages()); n != 10 {
		t.Errorf("%d messages", n)
	}
}

func TestExternalChanges(t *testing.T) {
	p, path := testPool(t)
	f := openFolder(t, openStore(t, p, path), "INBOX")
	put(t, path+"/cur/1.a:2,", "a: b\r\n\r\n")
	put(t, path+"/cur/2.b:2,S", "a: b\r\n\r\n")
	refresh(t, f)
	wantUIDs(t, f, 1, 2)
	signal, cancel := f.Watch()
	defer cancel()
	waitSignal := func() {
		t.Helper()
		select {
		case <-signal:
		case <-time.After(10 * time.Second):
			t.Fatal("no signal")
		}
		refresh(t, f)
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			t.Log("waiting for", what)
			waitSignal()
		}
	}
	seq := f.Status().HighestModSeq
	if err := os.Rename(path+"/cur/1.a:2,", path+"/cur/1.a:2,FT"); err != nil {
		t.Fatal(err)
	}
	until("flags", func() bool { return f.Messages()[0].Flags == Flagged|Deleted })
	if got := f.Messages()[0].ModSeq; got <= seq {
		t.Errorf("modseq %d, was %d", got, seq)
	}
	if err := os.Remove(path + "/cur/2.b:2,S"); err != nil {
		t.Fatal(err)
	}
	until("removal", func() bool { return len(f.Messages()) == 1 })
	put(t, path+"/tmp/3.c", "a: b\r\n\r\n")
	if err := os.Rename(path+"/tmp/3.c", path+"/new/3.c"); err != nil {
		t.Fatal(err)
	}
	until("delivery", func() bool { return len(f.Messages()) == 2 })
	wantUIDs(t, f, 1, 3)
	put(t, path+"/new/4.d", "a: b\r\n\r\n")
	p.Delivered(path, "")
	until("hint", func() bool { return len(f.Messages()) == 3 })
	// A file that comes back is a new message.
	put(t, path+"/cur/2.b:2,S", "a: b\r\n\r\n")
	until("return", func() bool { return len(f.Messages()) == 4 })
	wantUIDs(t, f, 1, 3, 4, 5)
	list, _, err := readUIDList(path)
	if err != nil || len(list.recs) != 4 || list.damaged {
		t.Errorf("uidlist %+v, %v", list, err)
	}
}

func TestDuplicates(t *testing.T) {
	p, path := testPool(t)
	put(t, path+"/cur/1.a:2,", "a: b\r\n\r\none\r\n")
	put(t, path+"/cur/1.a:2,S", "a: b\r\n\r\ntwo\r\n")
	put(t, path+"/new/1.a", "a: b\r\n\r\nthree\r\n")
	put(t, path+"/cur/2.b:2,", "a: b\r\n\r\nlinked\r\n")
	if err := os.Link(path+"/cur/2.b:2,", path+"/cur/2.b:2,F"); err != nil {
		t.Fatal(err)
	}
	f := openFolder(t, openStore(t, p, path), "INBOX")
	var texts []string
	for _, m := range f.Messages() {
		texts = append(texts, strings.TrimPrefix(text(t, f, m.UID), "a: b\r\n\r\n"))
		if strings.HasPrefix(m.Key, "2.b") && m.Flags != Flagged {
			t.Errorf("linked file has flags %x", m.Flags)
		}
	}
	slices.Sort(texts)
	if want := []string{"linked\r\n", "one\r\n", "three\r\n", "two\r\n"}; !slices.Equal(texts, want) {
		t.Errorf("texts %q, want %q", texts, want)
	}
	if left := dirNames(t, path+"/tmp"); len(left) > 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

func TestUIDListDamage(t *testing.T) {
	const guid = "Gb15bd2214ce4036b5a45000083ecc375"
	rows := []struct {
		name, list string
		want       []uint32
		validity   uint32 // 0: a new one
	}{
		{"whole", "3 V100 N9 " + guid + "\n4 :1.a\n6 P0001 O2 :2.b:2,S\n", []uint32{4, 6, 9}, 100},
		{"version 1", "1 100 9\n4 1.a\n6 2.b:2,S\n", []uint32{4, 6, 9}, 100},
		{"stale next", "3 V100 N1\n4 :1.a\n6 :2.b\n", []uint32{4, 6, 7}, 100},
		{"torn line", "3 V100 N1\n4 :1.a\n6 :2.", []uint32{4, 5, 6}, 100},
		{"garbage lines", "3 V100 N1\nx\n4 :1.a\n3 :2.b\n:\n\n", []uint32{5, 6, 7}, 100},
		{"missing line", "3 V100 N20\n4 :1.a\n", []uint32{4, 20, 21}, 100},
		{"twice", "3 V100 N1\n4 :1.a\n6 :2.b\n8 :1.a\n", []uint32{6, 8, 9}, 100},
		{"empty", "", []uint32{1, 2, 3}, 0},
		{"no list at all", "hello\nworld\n", []uint32{1, 2, 3}, 0},
		{"no validity", "3 N4\n4 :1.a\n", []uint32{1, 2, 3}, 0},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p, path := testPool(t)
			put(t, path+"/dovecot-uidlist", row.list)
			put(t, path+"/dovecot-uidvalidity", "0000ffff")
			for _, n := range []string{"1.a:2,", "2.b:2,", "3.c:2,"} {
				put(t, path+"/cur/"+n, "a: b\r\n\r\n")
			}
			f := openFolder(t, openStore(t, p, path), "INBOX")
			wantUIDs(t, f, row.want...)
			v := f.Status().UIDValidity
			if row.validity != 0 && v != row.validity || row.validity == 0 && v <= 0xffff {
				t.Errorf("UIDVALIDITY %d, want %d", v, row.validity)
			}
			if row.name == "whole" {
				if m := f.Messages()[1]; m.UIDL != "0001" || m.Order != 2 {
					t.Errorf("POP3 fields %+v", m)
				}
			}
			l, _, err := readUIDList(path)
			if err != nil || l.damaged || len(l.recs) != 3 || l.validity != v {
				t.Errorf("written %+v, %v", l, err)
			}
			if row.name == "whole" && !slices.Equal(l.head, []string{guid}) {
				t.Errorf("head %q", l.head)
			}
			if err := os.Remove(path + "/dovecot-uidlist"); err != nil {
				t.Fatal(err)
			}
			refresh(t, f)
			wantUIDs(t, f, row.want...)
			if l, _, err := readUIDList(path); err != nil || l.validity != v {
				t.Errorf("rebuilt %+v, %v", l, err)
			}
		})
	}
}

func TestCompaction(t *testing.T) {
	ctx := context.Background()
	p, path := testPool(t)
	f := openFolder(t, openStore(t, p, path), "INBOX")
	for i := range 400 {
		put(t, fmt.Sprintf("%s/cur/%d.a:2,", path, i+1), "a: b\r\n\r\n")
	}
	refresh(t, f)
	if _, err := f.Expunge(ctx, uidsOf(f)[:390]); err != nil {
		t.Fatal(err)
	}
	put(t, path+"/cur/999.a:2,", "a: b\r\n\r\n")
	refresh(t, f)
	put(t, path+"/cur/1000.a:2,", "a: b\r\n\r\n")
	refresh(t, f)
	l, _, err := readUIDList(path)
	if err != nil || len(l.recs) != 12 || l.next != 403 {
		t.Errorf("%d lines, next %d, %v", len(l.recs), l.next, err)
	}
}

func TestStaleLock(t *testing.T) {
	p, path := testPool(t)
	s := openStore(t, p, path)
	host, _ := os.Hostname()
	put(t, path+"/dovecot-uidlist.lock", "999999999:"+host)
	put(t, path+"/new/1.a", "a: b\r\n\r\n")
	wantUIDs(t, openFolder(t, s, "INBOX"), 1)
	put(t, path+"/dovecot-uidlist.lock", "1:elsewhere")
	old := time.Now().Add(-3 * time.Minute)
	if err := os.Chtimes(path+"/dovecot-uidlist.lock", old, old); err != nil {
		t.Fatal(err)
	}
	f := openFolder(t, s, "INBOX")
	appendText(t, f, "a: b\r\n\r\n", 0)
	wantUIDs(t, f, 1, 2)

	// A server that was killed had our number.
	put(t, path+"/dovecot-uidlist.lock", fmt.Sprintf("%d:%s", os.Getpid(), host))
	if err := os.Chtimes(path+"/dovecot-uidlist.lock", old, started.Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	appendText(t, f, "a: b\r\n\r\n", 0)
	wantUIDs(t, f, 1, 2, 3)

	// A program was killed before it wrote into its lock.
	put(t, path+"/dovecot-uidlist.lock", "")
	if err := os.Chtimes(path+"/dovecot-uidlist.lock", old, time.Now().Add(-2*emptyLock)); err != nil {
		t.Fatal(err)
	}
	appendText(t, f, "a: b\r\n\r\n", 0)
	wantUIDs(t, f, 1, 2, 3, 4)

	put(t, path+"/dovecot-uidlist.lock", "1:elsewhere")
	put(t, path+"/new/2.a", "a: b\r\n\r\n")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := f.Refresh(ctx); err == nil {
		t.Error("a fresh lock was ignored")
	}
	if err := os.Remove(path + "/dovecot-uidlist.lock"); err != nil {
		t.Fatal(err)
	}
	refresh(t, f)
	wantUIDs(t, f, 1, 2, 3, 4, 5)
}
