package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseQuotaRule(t *testing.T) {
	for s, want := range map[string]QuotaRule{
		"Trash:storage=+100M":            {Folder: "Trash", Storage: 100 << 20},
		"Trash:storage=+10%:messages=+5": {Folder: "Trash", StoragePercent: 10, Messages: 5},
		"Junk*:ignore":                   {Folder: "Junk*", Ignore: true},
		"A.B:storage=-7":                 {Folder: "A.B", Storage: -7 << 10},
		"x:storage=+3b":                  {Folder: "x", Storage: 3},
		"x:storage=+2T":                  {Folder: "x", Storage: 2 << 40},
		"":                               {}, "Trash": {}, ":ignore": {}, "Trash:": {}, "Trash:storage=100M": {}, "Trash:storage=+": {}, "Trash:messages=+x": {},
		"Trash:storage=++1": {}, "Trash:storage=+99999999999T": {}, "Trash:size=+1": {}, "Trash:storage=+1X": {}, "Trash:ignore=+1": {},
	} {
		got, err := ParseQuotaRule(s)
		if (err == nil) != (want != QuotaRule{}) || err == nil && got != want {
			t.Errorf("%q: %+v, %v, want %+v", s, got, err, want)
		}
	}
}

func TestMatchFolder(t *testing.T) {
	for _, row := range []struct {
		pattern, name string
		want          bool
	}{
		{"Trash", "Trash", true}, {"Trash", "Trash.a", false}, {"Trash*", "Trash.a", true}, {"*", "INBOX", true}, {"inbox", "INBOX", true},
		{"T?ash", "Trash", true}, {"T?ash", "Tash", false}, {"*a*b", "xaybzb", true}, {"*a*b", "xayb.", false}, {"", "", true}, {"", "x", false},
		{strings.Repeat("*a", 60) + "b", strings.Repeat("a", 200), false},
	} {
		if got := matchFolder(row.pattern, row.name); got != row.want {
			t.Errorf("%q %q: %v", row.pattern, row.name, got)
		}
	}
}

func TestQuotaRoom(t *testing.T) {
	q := Quota{Storage: 1000, Messages: 10, GracePercent: 10, Grace: 50, Rules: []QuotaRule{
		{Folder: "Trash", Storage: 500, Messages: 2}, {Folder: "Half", StoragePercent: -50}, {Folder: "Free", Ignore: true},
	}}
	for name, row := range map[string]struct {
		folder     string
		used, more Usage
		ok         bool
	}{
		"fits":                  {"INBOX", Usage{400, 3}, Usage{600, 1}, true},
		"grace":                 {"INBOX", Usage{999, 3}, Usage{101, 1}, true},
		"more than grace":       {"INBOX", Usage{999, 3}, Usage{102, 1}, false},
		"full, no grace":        {"INBOX", Usage{1000, 3}, Usage{1, 1}, false},
		"last message":          {"INBOX", Usage{0, 9}, Usage{1, 1}, true},
		"one message more":      {"INBOX", Usage{0, 10}, Usage{1, 1}, false},
		"many":                  {"INBOX", Usage{0, 5}, Usage{1, 6}, false},
		"Trash has more":        {"Trash", Usage{1300, 11}, Usage{200, 1}, true},
		"Trash ends too":        {"Trash", Usage{1500, 1}, Usage{1, 1}, false},
		"less":                  {"Half", Usage{450, 1}, Usage{300, 1}, false},
		"ignored":               {"Free", Usage{9999, 99}, Usage{9999, 99}, true},
		"a folder without rule": {"Other", Usage{1000, 1}, Usage{1, 1}, false},
	} {
		if err := q.room(row.folder, row.used, row.more); (err == nil) != row.ok || err != nil && !errors.Is(err, ErrOverQuota) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseTally(t *testing.T) {
	for name, row := range map[string]struct {
		file string
		want tally
		ok   bool
	}{
		"whole":          {"1000S,5C\n100 2\n-20 -1\n", tally{Usage{1000, 5}, Usage{80, 1}, 2}, true},
		"other order":    {"5C,1000S\n1 1\n", tally{Usage{1000, 5}, Usage{1, 1}, 1}, true},
		"no limits":      {"0S\n1 1\n", tally{Usage{}, Usage{1, 1}, 1}, true},
		"NOQUOTA":        {"NOQUOTA\n1 1\n", tally{Usage{}, Usage{1, 1}, 1}, true},
		"spaces":         {"9S\n   12    1  \n", tally{Usage{9, 0}, Usage{12, 1}, 1}, true},
		"torn":           {"9S\n12 1\n77", tally{Usage{9, 0}, Usage{12, 1}, 1}, true},
		"empty":          {},
		"head only":      {file: "9S\n"},
		"negative":       {file: "9S\n5 1\n-6 0\n"},
		"garbage":        {file: "9S\n5 1\nx y\n"},
		"one number":     {file: "9S\n5\n"},
		"empty line":     {file: "9S\n5 1\n\n"},
		"NUL":            {file: "9S\n5 1\n\x00\x00"},
		"huge":           {file: "9S\n99999999999999999999 1\n"},
		"overflow":       {file: "9S\n" + strings.Repeat("1152921504606846976 1\n", 10)},
		"too long":       {file: "9S\n" + strings.Repeat("1 1\n", 17_000)},
		"no line at all": {file: "9S"},
	} {
		got, ok := parseTally([]byte(row.file))
		if ok != row.ok || ok && got != row.want {
			t.Errorf("%s: %+v %v, want %+v", name, got, ok, row.want)
		}
	}
}

func FuzzTally(f *testing.F) {
	f.Add([]byte("1000S,5C\n100 2\n-20 -1\n"))
	f.Add([]byte("0S\n1 1\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := parseTally(data)
		if !ok {
			return
		}
		again, ok := parseTally(got.bytes())
		if !ok || again.used != got.used || again.limit != got.limit {
			t.Fatalf("%+v is written as %q", got, got.bytes())
		}
	})
}

func FuzzQuotaRule(f *testing.F) {
	f.Add("Trash:storage=+100M:messages=-3")
	f.Add("*:ignore")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseQuotaRule(s)
		if err == nil {
			q := Quota{Storage: 1 << 30, Messages: 9, Rules: []QuotaRule{r}}
			if l := q.limits("Trash"); l.Storage < 0 || l.Messages < 0 {
				t.Fatalf("%q makes limits %+v", s, l)
			}
		}
	})
}

// wantUsed compares the quota with maildirsize, and both with what is there.
func wantUsed(t *testing.T, s *Store, octets, messages int64) {
	t.Helper()
	used, _, err := s.Quota(context.Background())
	if err != nil || used != (Usage{octets, messages}) {
		t.Errorf("used %+v, %v, want %d octets in %d messages", used, err, octets, messages)
	}
	counted, err := s.Recount(context.Background())
	if err != nil || counted != used {
		t.Errorf("counted %+v, %v, but maildirsize has %+v", counted, err, used)
	}
}

// TestQuotaOfChanges: every change of a mailbox is in maildirsize.
func TestQuotaOfChanges(t *testing.T) {
	ctx := context.Background()
	p, path := testPool(t)
	s := openStore(t, p, path)
	s.SetQuota(Quota{Storage: 1000, Messages: 8, Rules: []QuotaRule{{Folder: "Junk", Ignore: true}, {Folder: "Trash", Storage: 1000}}})
	for _, name := range []string{"Junk", "Trash", "Other"} {
		if err := s.Create(name); err != nil {
			t.Fatal(err)
		}
	}
	in, junk, trash, other := openFolder(t, s, "INBOX"), openFolder(t, s, "Junk"), openFolder(t, s, "Trash"), openFolder(t, s, "Other")
	m := strings.Repeat("x", 98) + "\r\n"
	for range 4 {
		appendText(t, in, m, 0)
	}
	wantUsed(t, s, 400, 4)
	appendText(t, junk, m, 0)
	wantUsed(t, s, 400, 4)
	if _, err := in.Copy(ctx, []uint32{1, 2}, other); err != nil {
		t.Fatal(err)
	}
	wantUsed(t, s, 600, 6)
	if _, err := in.Move(ctx, []uint32{1}, trash); err != nil {
		t.Fatal(err)
	}
	wantUsed(t, s, 600, 6)
	if _, err := in.Move(ctx, []uint32{2}, junk); err != nil {
		t.Fatal(err)
	}
	wantUsed(t, s, 500, 5)
	if _, err := junk.Move(ctx, []uint32{1}, in); err != nil {
		t.Fatal(err)
	}
	wantUsed(t, s, 600, 6)
	if _, err := other.Expunge(ctx, []uint32{1}); err != nil {
		t.Fatal(err)
	}
	wantUsed(t, s, 500, 5)
	if err := s.Delete("Other"); err != nil {
		t.Fatal(err)
	}
	wantUsed(t, s, 400, 4)
	if err := s.Rename("Junk", "Good"); err != nil {
		t.Fatal(err)
	}
	wantUsed(t, s, 500, 5)
	big := strings.Repeat("y", 600)
	if _, err := in.Append(ctx, strings.NewReader(big), AppendOptions{Size: 600}); !errors.Is(err, ErrOverQuota) {
		t.Errorf("append: %v", err)
	}
	if err := s.Room(ctx, "INBOX", 600); !errors.Is(err, ErrOverQuota) {
		t.Errorf("room: %v", err)
	}
	if err := s.Room(ctx, "Trash", 600); err != nil {
		t.Errorf("room in Trash: %v", err)
	}
	if _, err := in.Copy(ctx, []uint32{3, 4, 5}, trash); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Copy(ctx, []uint32{3}, in); !errors.Is(err, ErrOverQuota) {
		t.Errorf("copy: %v", err)
	}
	if _, err := in.Move(ctx, []uint32{3}, trash); err != nil {
		t.Errorf("what is full can be tidied up: %v", err)
	}
	wantUsed(t, s, 800, 8)
	if left := dirNames(t, path+"/tmp"); len(left) > 0 {
		t.Errorf("%q is left in tmp", left)
	}
}

// TestQuotaWarnings: each threshold fires when it is crossed, and again after
// the mailbox was emptier.
func TestQuotaWarnings(t *testing.T) {
	ctx := context.Background()
	p, path := testPool(t)
	s := openStore(t, p, path)
	var got []int
	s.SetQuota(Quota{Storage: 1000, Warn: []int{80, 50, 95}, Warned: func(n int) { got = append(got, n) }})
	f := openFolder(t, s, "INBOX")
	store := func(n int, want ...int) {
		t.Helper()
		appendText(t, f, strings.Repeat("x", n), 0)
		if !slices.Equal(got, want) {
			t.Errorf("warned %v, want %v", got, want)
		}
		got = nil
	}
	store(400)
	store(100, 50)
	store(200)
	store(260, 95)
	store(10)
	if _, err := f.Expunge(ctx, []uint32{4, 5}); err != nil || len(got) > 0 {
		t.Errorf("%v, warned %v", err, got)
	}
	store(100, 80)
}

// TestMaildirsizeDamage: a maildirsize that makes no sense, is long, old or has
// other limits is counted anew.
func TestMaildirsizeDamage(t *testing.T) {
	old := time.Now().Add(-time.Hour)
	for name, row := range map[string]struct {
		file    string
		old     bool
		trusted bool
	}{
		"right":                {"1000S,10C\n7 1\n", false, true},
		"several lines":        {"1000S,10C\n7 1\n50 2\n-50 -2\n", true, true},
		"other limits":         {"2000S,10C\n7 1\n", false, false},
		"garbage":              {"hello", false, false},
		"negative":             {"1000S,10C\n-7 1\n", false, false},
		"long":                 {"1000S,10C\n7 1\n" + strings.Repeat("0 0\n", 1300), false, false},
		"full, just counted":   {"1000S,10C\n2000 1\n", false, true},
		"full, counted before": {"1000S,10C\n2000 1\n", true, false},
		"full by changes":      {"1000S,10C\n7 1\n2000 1\n", false, false},
		"messages":             {"1000S,10C\n7 1\n1 12\n", false, false},
	} {
		p, path := testPool(t)
		put(t, path+"/cur/1.a,S=30:2,", "a: b\r\n\r\nx\r\n")
		put(t, path+"/.A/new/2.a", "a: b\r\n\r\nx\r\n")
		put(t, path+"/.A/cur/3.a,S=x,W=5:2,", "a: b\r\n\r\nx\r\n")
		file := path + "/" + maildirsizeName
		put(t, file, row.file)
		if row.old {
			if err := os.Chtimes(file, old, old); err != nil {
				t.Fatal(err)
			}
		}
		s := openStore(t, p, path)
		s.SetQuota(Quota{Storage: 1000, Messages: 10})
		used, limit, err := s.Quota(context.Background())
		if err != nil || limit != (Usage{1000, 10}) {
			t.Errorf("%s: limit %+v, %v", name, limit, err)
		}
		counted := used == Usage{52, 3}
		data, err := os.ReadFile(file)
		if err != nil || counted == row.trusted || counted != (string(data) == "1000S,10C\n52 3\n") {
			t.Errorf("%s: used %+v, %q, %v", name, used, data, err)
		}
	}
}

// TestQuotaFaults: what goes wrong with maildirsize never keeps mail out, and
// the next count is right.
func TestQuotaFaults(t *testing.T) {
	for _, dead := range []bool{false, true} {
		for at := 1; at < 40; at++ {
			x := &faults{dead: dead}
			p, path := testPool(t, x.ops())
			s := openStore(t, p, path)
			s.SetQuota(Quota{Storage: 1000})
			f := openFolder(t, s, "INBOX")
			appendText(t, f, "12345", 0)
			put(t, path+"/"+maildirsizeName, "damaged")
			x.at = x.n + at
			_, err := f.Append(context.Background(), strings.NewReader("1234567"), AppendOptions{Size: 7})
			x.at = 0
			want := Usage{5, 1}
			if err == nil {
				want = Usage{12, 2}
			}
			q, _ := testPool(t)
			s = openStore(t, q, path)
			s.SetQuota(Quota{Storage: 1000})
			used, _, qerr := s.Quota(context.Background())
			counted, cerr := s.Recount(context.Background())
			if qerr != nil || cerr != nil || counted.Messages < want.Messages || err == nil && counted != want || x.what == "" && used != want {
				t.Errorf("%s at %d (dead %v): %v, used %+v, counted %+v, %v %v, want %+v", x.what, at, dead, err, used, counted, qerr, cerr, want)
			}
		}
	}
}

// TestDovecotQuota: Dovecot and we keep the same maildirsize.
func TestDovecotQuota(t *testing.T) {
	ctx := context.Background()
	o := newOracle(t)
	o.configure("mail_plugins = quota\nplugin {\n quota = maildir:User\n quota_rule = *:storage=100k:messages=50\n quota_rule2 = Junk:ignore\n}\n")
	msg := "From: a@b\n\n" + strings.Repeat("x", 1000) + "\n"
	o.run(msg, "save", "-m", "INBOX")
	p := o.pool()
	s := openStore(t, p, o.box)
	s.SetQuota(Quota{Storage: 100 << 10, Messages: 50, Rules: []QuotaRule{{Folder: "Junk", Ignore: true}}})
	for _, name := range []string{"Junk", "Other"} {
		if err := s.Create(name); err != nil {
			t.Fatal(err)
		}
	}
	in, junk, other := openFolder(t, s, "INBOX"), openFolder(t, s, "Junk"), openFolder(t, s, "Other")
	same := func(what string) {
		t.Helper()
		var theirs Usage
		for _, line := range strings.Split(o.run("", "-f", "tab", "quota", "get"), "\n") {
			f := strings.Split(line, "\t")
			if len(f) > 2 && f[1] == "MESSAGE" {
				_, _ = fmt.Sscan(f[2], &theirs.Messages)
			}
			if len(f) > 2 && f[1] == "STORAGE" {
				_, _ = fmt.Sscan(f[2], &theirs.Storage)
			}
		}
		used, _, err := s.Quota(ctx)
		data, _ := os.ReadFile(o.box + "/" + maildirsizeName)
		if err != nil || (used.Storage+1023)/1024 != theirs.Storage && used.Storage/1024 != theirs.Storage || used.Messages != theirs.Messages {
			t.Errorf("%s: Dovecot says %+v KiB, we %+v, %v; %q", what, theirs, used, err, data)
		}
		if counted, still, err := p.ledger(o.box).count(); err != nil || !still || counted != used {
			t.Errorf("%s: counted %+v, %v, maildirsize %q", what, counted, err, data)
		}
		if !strings.HasPrefix(string(data), "102400S,50C\n") {
			t.Errorf("%s: maildirsize %q", what, data)
		}
	}
	same("after Dovecot's save")
	appendText(t, in, msg, 0)
	same("after our append")
	before, _ := os.ReadFile(o.box + "/" + maildirsizeName)
	o.run(msg, "save", "-m", "Other")
	if after, _ := os.ReadFile(o.box + "/" + maildirsizeName); !strings.HasPrefix(string(after), string(before)) {
		t.Errorf("Dovecot did not trust ours: %q, then %q", before, after)
	}
	same("after another save")
	appendText(t, junk, msg, 0)
	same("after one into Junk")
	refresh(t, other)
	if _, err := other.Copy(ctx, uidsOf(other), in); err != nil {
		t.Fatal(err)
	}
	o.run("", "copy", "Other", "mailbox", "INBOX", "uid", "1")
	same("after copies")
	refresh(t, in)
	if _, err := in.Expunge(ctx, uidsOf(in)[:1]); err != nil {
		t.Fatal(err)
	}
	o.run("", "expunge", "mailbox", "Other", "uid", "1")
	same("after expunges")
	if _, err := in.Append(ctx, strings.NewReader(strings.Repeat("x", 120<<10)), AppendOptions{Size: 120 << 10}); !errors.Is(err, ErrOverQuota) {
		t.Errorf("append: %v", err)
	}
}
