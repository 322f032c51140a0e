package maildir

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// damagedTree is a Maildir with every kind of damage that can be mended. Every message
// says in its Subject which it is.
func damagedTree(t *testing.T, root string) {
	t.Helper()
	for _, dir := range []string{"cur", "new", "tmp", ".Work/cur", ".Work/tmp", ".Lost/new"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	text := func(s string) string { return "Subject: " + s + "\r\n\r\nbody\r\n" } // 23 octets and the name
	for name, data := range map[string]string{
		"cur/1000.M1P1.h:2,S":                text("one"),
		"cur/1001.M1P1.h,S=26,W=26:2,":       text("two"),
		"cur/1002.M1P1.h,S=9999,W=26:2,F":    text("three"),
		"cur/1003.M1P1.h,S=23,W=9999:2,a":    "Subject: lf\n\nbody\nmore\n",
		"cur/1004.M1P1.h":                    text("bare"),
		"cur/1005.M1P1.h:1,odd":              text("experimental"),
		"new/1006.M1P1.h:2,FS":               text("flagged in new"),
		"new/1007.M1P1.h":                    text("fresh"),
		"cur/1008.M1P1.h:2,":                 text("same name, one"),
		"new/1008.M1P1.h":                    text("same name, other"),
		"cur/1009.M1P1.h:2,":                 text("after the broken line"),
		"tmp/1.old":                          "half",
		"dovecot-uidlist":                    "3 V4711 N20 G0123456789abcdef0123456789abcdef\n1 :1000.M1P1.h\n2 :1001.M1P1.h,S=26,W=26\nrubbish\n3 Pkept :1002.M1P1.h,S=9999,W=26\n3 :999.gone\n4 :1003.M1P1.h,S=23,W=9999:2,a\n5 :1000.M1P1.h\n90 :1004.M1P1.h\n7 :1008.M1P1.h\n8 :1009.M1P1.h\n9 :1.expunged\n1",
		"dovecot-keywords":                   "0 $Junk\nrubbish\n0 Other\n1 $junk\n30 Beyond\n",
		"subscriptions":                      "V\t2\n\nWork\nWork\n\na//b\nSent",
		"wafer.index":                        "rubbish",
		"wafer.facts":                        "rubbish",
		"wafer.metadata":                     "{",
		"maildirsize":                        "1000000S\n5 1\n",
		".Work/cur/1000.M1P1.h:2,":           text("work"),
		".Work/dovecot-uidlist":              "rubbish\n",
		".Work/wafer.facts":                  factsMagic + "\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00x" + strings.Repeat("y", 40),
		".Lost/new/1000.M1P1.h":              text("lost"),
		"new/.keep":                          "",
		"cur/1010.M1P1.h,S=33,W=33,B=1:2,":   "Subject: binary\r\n\r\na\nb\nc\r\n0123456",
		".Work/maildirfolder":                "",
		"dovecot-uidlist.lock":               "1:elsewhere",
		"cur/1011.M1P1.h,S=99999999,W=1:2,R": gzipped(t, text("packed")),
	} {
		put(t, filepath.Join(root, name), data)
	}
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"dovecot-uidlist.lock"} {
		if err := os.Chtimes(filepath.Join(root, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(root, "cur/1000.M1P1.h:2,S"), filepath.Join(root, "cur/1000.M1P1.h:2,")); err != nil {
		t.Fatal(err)
	}
}

// wantFindings are those of damagedTree, in order of folder and file.
func wantFindings() []string {
	return []string{
		" subscriptions:4: \"Work\" stands there twice",
		" subscriptions:5: the line is empty",
		" subscriptions:6: \"a//b\": folder name is not allowed: it has a slash",
		" subscriptions:7: the last line has no end",
		" maildirsize: it tells 5 octets in 1 messages",
		"INBOX tmp/1.old: nobody has written to it for 36 hours",
		"INBOX dovecot-uidlist.lock: a lock that nobody holds any more",
		"INBOX cur/1000.M1P1.h:2,: a second name of the file cur/1000.M1P1.h:2,S",
		"INBOX cur/1004.M1P1.h: the name has no flags part",
		"INBOX cur/1005.M1P1.h:1,odd: what is behind the colon, \":1,odd\", are no flags",
		"INBOX new/1006.M1P1.h:2,FS: a message in new/ has flags already",
		"INBOX new/1008.M1P1.h: another message, cur/1008.M1P1.h:2,, has the same name",
		"INBOX cur/1002.M1P1.h,S=9999,W=26:2,F: the name tells S=9999 and W=26",
		"INBOX cur/1003.M1P1.h,S=23,W=9999:2,a: the name tells S=23 and W=9999",
		"INBOX cur/1001.M1P1.h,S=26,W=26:2,: the name tells S=26 and W=26",
		"INBOX cur/1011.M1P1.h,S=99999999,W=1:2,R: the name tells S=99999999 and W=1",
		"INBOX dovecot-uidlist:2: the message has two UIDs, 1 and 5",
		"INBOX dovecot-uidlist:4: the line is broken: \"rubbish\"",
		"INBOX dovecot-uidlist:6: line 5 has the same UID, 3",
		"INBOX dovecot-uidlist:9: UID 90 is out of order",
		"INBOX dovecot-uidlist:13: the last line is cut short",
		"INBOX dovecot-uidlist: 1 lines are of messages without a file, the first with UID 9",
		"INBOX dovecot-keywords:2: the line is broken: \"rubbish\"",
		"INBOX dovecot-keywords:3: the number has a name already: \"0 Other\"",
		"INBOX dovecot-keywords:4: the name has a number already: \"1 $junk\"",
		"INBOX dovecot-keywords: 1 keywords have no letter in file names",
		"INBOX wafer.index: it is damaged",
		"INBOX wafer.facts: it does not begin as such a file does",
		"INBOX wafer.metadata: annotations cannot be read",
		"Lost .Lost/cur: the directory is missing",
		"Lost .Lost/tmp: the directory is missing",
		"Lost .Lost/maildirfolder: the file that marks a folder is missing",
		"Work .Work/new: the directory is missing",
		"Work .Work/dovecot-uidlist: the first line tells no UIDVALIDITY",
		"Work .Work/wafer.facts: the record at octet 16 is damaged",
	}
}

// checked runs a check.
func checkTree(t *testing.T, p *Pool, root string, o CheckOptions) (list []Finding) {
	t.Helper()
	o.Now = time.Now().Add(48 * time.Hour)
	if err := p.Check(context.Background(), root, o, func(f Finding) { list = append(list, f) }); err != nil {
		t.Fatal(err)
	}
	return list
}

// treeOf is everything in a tree, but for the times.
func treeOf(t *testing.T, root string) (list []string) {
	t.Helper()
	err := filepath.Walk(root, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		line := strings.TrimPrefix(path, root)
		if fi.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + string(data)
		}
		list = append(list, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestCheck(t *testing.T) {
	p := newPool(Options{UID: -1, GID: -1, Sync: func(string) error { return nil }, Hostname: "wafer.example"}, osOps())
	defer p.Close()
	root := t.TempDir()
	damagedTree(t, root)
	before := treeOf(t, root)
	dry := checkTree(t, p, root, CheckOptions{})
	if after := treeOf(t, root); !slices.Equal(before, after) {
		t.Errorf("a dry check has changed the tree:\nbefore %q\nafter  %q", before, after)
	}
	matchFindings(t, dry)
	for _, f := range dry {
		if f.Mended {
			t.Errorf("a dry check says that it has mended %+v", f)
		}
		if f.Mend == "" && !f.Note {
			t.Errorf("nothing can be done about %+v", f)
		}
	}

	mended := checkTree(t, p, root, CheckOptions{Repair: true})
	for _, f := range mended {
		if !f.Mended && !f.Note {
			t.Errorf("not mended: %+v", f)
		}
	}
	for _, f := range checkTree(t, p, root, CheckOptions{}) {
		if !f.Note || f.Mend != "" {
			t.Errorf("still there after a repair: %+v", f)
		}
	}
	repaired(t, p, root)
}

// matchFindings compares findings with those that the damaged tree must have.
func matchFindings(t *testing.T, got []Finding) {
	t.Helper()
	want := wantFindings()
	for _, f := range got {
		line := fmt.Sprintf("%s %s: %s", f.Folder, f.File, f.Fault)
		i := slices.IndexFunc(want, func(w string) bool { return strings.HasPrefix(line, w) })
		if i < 0 {
			t.Errorf("unexpected: %s", line)
			continue
		}
		want = slices.Delete(want, i, i+1)
	}
	for _, w := range want {
		t.Errorf("not found: %s", w)
	}
}

// repaired checks what is in the damaged tree after a repair: no message is lost, and
// those keep their UIDs whose lines made sense.
func repaired(t *testing.T, p *Pool, root string) {
	t.Helper()
	ctx := context.Background()
	s, err := p.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f, err := s.Folder(ctx, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if st := f.Status(); st.UIDValidity != 4711 || st.Messages != 13 || st.UIDNext <= 90 {
		t.Errorf("INBOX has UIDVALIDITY %d, UIDNEXT %d, %d messages; want 4711, above 90, 13", st.UIDValidity, st.UIDNext, st.Messages)
	}
	got := map[string]string{}
	for _, m := range f.Messages() {
		c, err := f.Open(m.UID)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, c.Size())
		if _, err := c.ReadAt(data, 0); err != nil {
			t.Fatal(err)
		}
		c.Close()
		subject, _, _ := bytes.Cut(data, []byte("\r\n"))
		got[strings.TrimPrefix(string(subject), "Subject: ")] = fmt.Sprint(m.UID, m.Flags, m.UIDL)
	}
	for subject, want := range map[string]string{
		"one": fmt.Sprint(5, Seen, ""), "two": fmt.Sprint(2, Flags(0), ""), "three": fmt.Sprint(3, Flagged, "kept"),
		"lf": fmt.Sprint(4, KeywordBit(0), ""), "same name, one": fmt.Sprint(7, Flags(0), ""), "after the broken line": fmt.Sprint(8, Flags(0), ""),
	} {
		if got[subject] != want {
			t.Errorf("message %q has UID, flags and UIDL %s, want %s", subject, got[subject], want)
		}
	}
	if len(got) != 13 {
		t.Errorf("there are %d different messages: %q", len(got), got)
	}
	if kw := f.Keywords(); !slices.Equal(kw, []string{"$Junk"}) {
		t.Errorf("keywords are %q", kw)
	}
	if more, err := f.FurtherKeywords(); err != nil || !slices.Equal(more, []string{"Beyond"}) {
		t.Errorf("further keywords are %q (%v)", more, err)
	}
	if names, err := s.Subscriptions(); err != nil || !slices.Equal(names, []string{"Sent", "Work"}) {
		t.Errorf("subscriptions are %q (%v)", names, err)
	}
	for _, name := range []string{"Work", "Lost"} {
		f, err := s.Folder(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if n := f.Status().Messages; n != 1 {
			t.Errorf("%s has %d messages", name, n)
		}
		f.Close()
	}
}

func TestCheckGood(t *testing.T) {
	ctx := context.Background()
	p := newPool(Options{UID: -1, GID: -1, Sync: func(string) error { return nil }, Hostname: "wafer.example"}, osOps())
	defer p.Close()
	root := filepath.Join(t.TempDir(), "box")
	s, err := p.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.SetQuota(Quota{Storage: 1 << 20})
	if err := s.Create("Entwürfe"); err != nil {
		t.Fatal(err)
	}
	if err := s.Subscribe("Entwürfe"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"INBOX", "Entwürfe"} {
		f, err := s.Folder(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		k, _ := f.Keyword("$Junk", true)
		for i := range 5 {
			text := fmt.Sprintf("Subject: %d\n\nbody\r\n", i)
			m, err := f.Append(ctx, strings.NewReader(text), AppendOptions{Size: int64(len(text)), Flags: Seen | k})
			if err != nil {
				t.Fatal(err)
			}
			f.Facts(1).Note(m.UID, 1, []byte("fact"))
		}
		if _, err := f.Expunge(ctx, []uint32{2}); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	put(t, filepath.Join(root, "new", "1.M1.other"), "Subject: delivered\n\nbody\n")
	for range 2 {
		for _, f := range checkTree(t, p, root, CheckOptions{}) {
			if !f.Note && f.File != maildirsizeName { // a delivery agent that knows of no quota
				t.Errorf("found in a good tree: %+v", f)
			}
		}
	}
}

// TestCheckForDovecot lets Dovecot read what has been mended.
func TestCheckForDovecot(t *testing.T) {
	o := newOracle(t)
	p := o.pool()
	damagedTree(t, o.box)
	o.owns()
	checkTree(t, p, o.box, CheckOptions{Repair: true})
	o.owns()
	s, err := p.Open(o.box)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, name := range []string{"INBOX", "Work", "Lost"} {
		f, err := s.Folder(context.Background(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		mine, his := []string{}, o.uids(name)
		for _, m := range f.Messages() {
			mine = append(mine, fmt.Sprintf("%d %s", m.UID, m.Key))
		}
		if !slices.Equal(mine, his) {
			t.Errorf("%s\nwafer   %q\ndovecot %q", name, mine, his)
		}
		st := f.Status()
		if v, n := o.status(name); fmt.Sprint(st.UIDValidity) != v || fmt.Sprint(st.UIDNext) != n {
			t.Errorf("%s: wafer %d %d, dovecot %s %s", name, st.UIDValidity, st.UIDNext, v, n)
		}
	}
}

func TestAscending(t *testing.T) {
	for _, row := range []struct {
		name string
		uids []uint32
		keep string
	}{
		{"none", nil, ""},
		{"good", []uint32{1, 2, 9}, "+++"},
		{"one far too high", []uint32{1, 4000000000, 3, 4}, "+-++"},
		{"one too low", []uint32{5, 6, 2, 7}, "++-+"},
		{"twice", []uint32{1, 2, 2, 3}, "++-+"},
		{"two halves", []uint32{7, 8, 9, 1, 2}, "+++--"},
	} {
		recs := make([]uidRec, len(row.uids))
		for i, u := range row.uids {
			recs[i].uid = u
		}
		got := ""
		for _, k := range ascending(recs) {
			got += map[bool]string{true: "+", false: "-"}[k]
		}
		if got != row.keep {
			t.Errorf("%s: of %v got %s, want %s", row.name, row.uids, got, row.keep)
		}
	}
}

func FuzzCheckFiles(f *testing.F) {
	f.Add("3 V1 N2\n1 :a\n", "0 $Junk\n", "V\t2\n\nA\n", []byte(factsMagic))
	f.Add("1 5 9\n1 a\n2 b\n2 c\n", "26 x\n26 y\nq", "A\nA\n\n", []byte("x"))
	f.Add("3 V1 N2\n4294967294 :a\n1 x\n", "", "", []byte{})
	f.Fuzz(func(t *testing.T, list, keywords, subs string, facts []byte) {
		p := newPool(Options{UID: -1, GID: -1, Sync: func(string) error { return nil }, Hostname: "h"}, osOps())
		defer p.Close()
		root := t.TempDir()
		for _, d := range []string{"cur", "new", "tmp"} {
			if err := os.Mkdir(filepath.Join(root, d), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		put(t, filepath.Join(root, "cur", "a:2,S"), "Subject: a\n\n")
		put(t, filepath.Join(root, uidlistName), list)
		put(t, filepath.Join(root, keywordsName), keywords)
		put(t, filepath.Join(root, subscriptionsName), subs)
		put(t, filepath.Join(root, factsName), string(facts))
		for _, f := range checkTree(t, p, root, CheckOptions{Repair: true}) {
			if !f.Mended && f.Mend != "" {
				t.Errorf("not mended: %+v", f)
			}
		}
		for _, f := range checkTree(t, p, root, CheckOptions{}) {
			if f.Mend != "" && !f.Note {
				t.Errorf("still there: %+v", f)
			}
		}
	})
}
