package decisions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// TestFilter: what is set must all be true of an entry.
func TestFilter(t *testing.T) {
	records := make([]policy.Record, 6)
	for n := range records {
		records[n] = record(n)
	}
	records[1].Session, records[1].Client, records[1].Check = "S2", "192.0.2.77", "inbound/helo"
	records[1].Action, records[1].Sender = "reject", "<>"
	records[2].Sender, records[2].Recipient, records[2].Check = "", "", "logins/rate"
	records[2].Client, records[2].User = "2001:db8::5", "ann"
	records[3].Recipient, records[3].Action, records[3].Error = "carl@bücher.example", "defer", "fuel"
	records[4].Action, records[4].Skipped = "reject", "refused"
	records[5].Sender, records[5].Client = "<ANN@EXAMPLE.ORG>", "fe80::1%eth0"

	prefix := netip.MustParsePrefix
	rows := []struct {
		name string
		f    Filter
		want string
	}{
		{"all", Filter{}, "0 1 2 3 4 5"},
		{"id", Filter{ID: "ID000003"}, "3"},
		{"part of an id", Filter{ID: "ID00000"}, ""},
		{"session", Filter{Session: "S2"}, "1"},
		{"sender", Filter{Sender: "ann@example.org"}, "0 3 4 5"},
		{"sender in brackets and capitals", Filter{Sender: "<Ann@Example.ORG>"}, "0 3 4 5"},
		{"sender's domain", Filter{Sender: "@EXAMPLE.org"}, "0 3 4 5"},
		{"null sender", Filter{Sender: "<>"}, "1"},
		{"another sender", Filter{Sender: "n@example.org"}, ""},
		{"recipient", Filter{Recipient: "bob@example.test"}, "0 1 4 5"},
		{"recipient's domain in its other form", Filter{Recipient: "@xn--bcher-kva.example"}, "3"},
		{"recipient with its domain in its other form", Filter{Recipient: "carl@xn--bcher-kva.example"}, "3"},
		{"client", Filter{Client: prefix("192.0.2.1/32")}, "0 3 4"},
		{"network", Filter{Client: prefix("192.0.2.0/24")}, "0 1 3 4"},
		{"network of IPv6", Filter{Client: prefix("2001:db8::/32")}, "2"},
		{"address with a zone", Filter{Client: prefix("fe80::/10")}, "5"},
		{"check", Filter{Check: "spf"}, "0 3 4 5"},
		{"check of a policy", Filter{Check: "inbound/helo"}, "1"},
		{"policy", Filter{Check: "logins/"}, "2"},
		{"end of a check's name", Filter{Check: "pf"}, ""},
		{"verdict", Filter{Verdict: "reject"}, "1"},
		{"verdict of on_error", Filter{Verdict: "defer"}, "3"},
		{"errors", Filter{Verdict: "error"}, "3"},
		{"since", Filter{Since: noon.Add(4 * time.Second)}, "4 5"},
		{"until", Filter{Until: noon.Add(time.Second)}, "0 1"},
		{"before everything", Filter{Until: noon.Add(-time.Hour)}, ""},
		{"after everything", Filter{Since: noon.Add(time.Hour)}, ""},
		{"several", Filter{Sender: "@example.org", Check: "spf", Until: noon.Add(3 * time.Second)}, "0 3"},
	}
	for _, mask := range []Mask{MaskNone, MaskHash} {
		dir := t.TempDir()
		l := open(t, dir, Options{Mask: mask, Now: func() time.Time { return noon }})
		for _, r := range records {
			l.Decided(r)
		}
		shut(t, l)
		for _, row := range rows {
			if got := ids(t, dir, row.f); got != row.want {
				t.Errorf("mask %s, %s: %q, want %q", mask, row.name, got, row.want)
			}
		}
	}
}

// TestReadSkipsFiles: files that a filter's times exclude are not opened.
func TestReadSkipsFiles(t *testing.T) {
	dir := t.TempDir()
	for n := range 5 {
		at := noon.Add(time.Duration(n) * time.Hour)
		b := fmt.Appendf(nil, `{"id":"ID%06d","time":%q,"check":"c","action":"next"}`+"\n", n, at.Add(30*time.Minute).Format(time.RFC3339))
		if err := os.WriteFile(filepath.Join(dir, at.Format(nameForm)+suffix), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rows := []struct {
		name  string
		f     Filter
		want  int
		files int
	}{
		{"all", Filter{}, 5, 5},
		{"since", Filter{Since: noon.Add(3*time.Hour + 15*time.Minute)}, 2, 2},
		{"until", Filter{Until: noon.Add(time.Hour + 45*time.Minute)}, 2, 2},
		{"both", Filter{Since: noon.Add(2*time.Hour + 15*time.Minute), Until: noon.Add(2*time.Hour + 45*time.Minute)}, 1, 1},
		// Records are late, and clocks differ a little.
		{"at the border", Filter{Since: noon.Add(3*time.Hour + 5*time.Minute)}, 2, 3},
	}
	for _, row := range rows {
		n := 0
		stats, err := Read(dir, row.f, func(Entry) error { n++; return nil })
		if err != nil || n != row.want || stats.Files != row.files {
			t.Errorf("%s: %d entries of %d files, %v; want %d of %d", row.name, n, stats.Files, err, row.want, row.files)
		}
	}
}

// TestBadLines: what is no record is skipped and counted, however long it is.
func TestBadLines(t *testing.T) {
	rows := []struct {
		name, text string
		entries    int
		stats      Stats
	}{
		{"empty", "", 0, Stats{1, 0, 0}},
		{"empty lines", "\n\r\n \n", 0, Stats{1, 0, 0}},
		{"whole", string(line(1)) + string(line(2)), 2, Stats{1, 2, 0}},
		{"last line without an end", string(line(1)) + strings.TrimSpace(string(line(2))), 2, Stats{1, 2, 0}},
		{"torn at the end", string(line(1)) + string(line(2)[:30]), 1, Stats{1, 2, 1}},
		{"no JSON", "hello\n" + string(line(1)), 1, Stats{1, 2, 1}},
		{"another JSON", "[]\n{}\n7\nnull\n" + string(line(1)), 1, Stats{1, 5, 4}},
		{"wrong types", `{"id":7,"check":"c"}` + "\n" + string(line(1)), 1, Stats{1, 2, 1}},
		{"without an id", `{"check":"c"}` + "\n" + `{"id":"x"}` + "\n" + string(line(1)), 1, Stats{1, 3, 2}},
		{"fields of a later version", `{"id":"x","check":"c","time":"2026-01-01T00:00:00Z","colour":"red"}` + "\n", 1, Stats{1, 1, 0}},
		{"NUL", strings.Repeat("\x00", 100) + "\n" + string(line(1)), 1, Stats{1, 2, 1}},
		{"giant", `{"id":"` + strings.Repeat("x", 5<<20) + `","check":"c"}` + "\n" + string(line(1)), 1, Stats{1, 2, 1}},
		{"giant without an end", string(line(1)) + strings.Repeat("x", 5<<20), 1, Stats{1, 2, 1}},
		{"as long as a line may be", `{"id":"x","check":"c","text":"` + strings.Repeat("x", maxLine-100) + `"}` + "\n", 1, Stats{1, 1, 0}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, noon.Format(nameForm)+suffix), []byte(row.text), 0o600); err != nil {
				t.Fatal(err)
			}
			n := 0
			stats, err := Read(dir, Filter{}, func(Entry) error { n++; return nil })
			if err != nil || n != row.entries || stats != row.stats {
				t.Errorf("%d entries, %+v, %v; want %d, %+v", n, stats, err, row.entries, row.stats)
			}
		})
	}
}

// TestReadEnds: with the caller's error, and where there is nothing to read.
func TestReadEnds(t *testing.T) {
	dir := t.TempDir()
	if got := ids(t, dir, Filter{}); got != "" {
		t.Errorf("entries %q of an empty folder", got)
	}
	if _, err := Read(filepath.Join(dir, "none"), Filter{}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	for _, other := range []string{"x.jsonl", "20260102T120000.000000Z.txt", "key"} {
		if err := os.WriteFile(filepath.Join(dir, other), line(1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, noon.Format(nameForm)+suffix), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, dir, Filter{}); got != "" {
		t.Errorf("entries %q of files that are none of ours", got)
	}
	enough := errors.New("enough")
	if err := os.WriteFile(filepath.Join(dir, noon.Add(1).Format(nameForm)+"x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, noon.Add(time.Second).Format(nameForm)+suffix), append(line(1), line(2)...), 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	if _, err := Read(dir, Filter{}, func(Entry) error { n++; return enough }); !errors.Is(err, enough) || n != 1 {
		t.Errorf("%v after %d entries", err, n)
	}
}

// TestFollow: what is added is handed on as it comes, over the ends of files.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	size := int64(len(line(0)))
	d, err := openFolder(dir, &Options{File: 2 * size, Age: time.Hour, Total: 1 << 30, Keep: time.Hour, Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	tick, found, done := make(chan time.Time), make(chan string, 100), make(chan error, 1)
	var stats Stats
	go func() {
		var err error
		stats, err = Follow(ctx, dir, Filter{}, tick, func(e Entry) error { found <- strings.TrimPrefix(string(e.ID), "ID00000"); return nil })
		done <- err
	}()
	// A second tick is taken only once the look that the first began is over.
	look := func(want string) {
		t.Helper()
		tick <- time.Time{}
		tick <- time.Time{}
		got := ""
		for len(found) > 0 {
			got = strings.TrimSpace(got + " " + <-found)
		}
		if got != want {
			t.Errorf("found %q, want %q", got, want)
		}
	}
	write := func(b []byte) {
		t.Helper()
		if err := d.write(b, noon); err != nil {
			t.Fatal(err)
		}
	}
	look("")
	write(line(1))
	look("1")
	write(line(2)[:10])
	look("") // half a line is none yet
	if _, err := d.f.Write(line(2)[10:]); err != nil {
		t.Fatal(err)
	}
	look("2")
	d.size = 2 * size
	write(line(3)) // a new file
	write(line(4))
	write(line(5)) // and another
	look("3 4 5")
	write(line(6)[:10]) // of a writer that dies
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if d, err = openFolder(dir, d.o); err != nil {
		t.Fatal(err)
	}
	write(line(7))
	look("7")
	if err := os.Remove(d.f.Name()); err != nil {
		t.Fatal(err)
	}
	look("")
	stop()
	if err := errors.Join(<-done, d.close()); err != nil {
		t.Error(err)
	}
	if stats != (Stats{4, 7, 1}) {
		t.Errorf("%+v", stats)
	}
}

// TestFollowEnds: with the caller's error.
func TestFollowEnds(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, noon.Format(nameForm)+suffix), line(1), 0o600); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	if _, err := Follow(context.Background(), dir, Filter{}, nil, func(Entry) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
	if _, err := Follow(context.Background(), filepath.Join(dir, "none"), Filter{}, nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

// FuzzLines: whatever is in a file, each line is an entry or counted, and how far
// the reader came is at the end of a line.
func FuzzLines(f *testing.F) {
	f.Add(append(line(1), line(2)...), true)
	f.Add(append(line(1), "{\n\x00\n\r\n[]\n"...), false)
	f.Fuzz(func(t *testing.T, b []byte, torn bool) {
		entries := 0
		r := reader{each: func(e Entry) error {
			if entries++; e.ID == "" || e.Check == "" {
				t.Errorf("entry %+v", e)
			}
			return nil
		}}
		used, err := r.lines(bytes.NewReader(b), torn)
		if err != nil {
			t.Fatal(err)
		}
		want := int64(len(b))
		if !torn {
			want = int64(bytes.LastIndexByte(b, '\n') + 1)
		}
		if used != want || entries != r.stats.Lines-r.stats.Malformed {
			t.Fatalf("used %d, want %d; %d entries, %+v", used, want, entries, r.stats)
		}
	})
}
