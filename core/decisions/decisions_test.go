package decisions

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// record is what a check said to a recipient; n tells records apart.
func record(n int) policy.Record {
	return policy.Record{
		ID: mail.ID(fmt.Sprintf("ID%06d", n)), Time: noon.Add(time.Duration(n) * time.Second), Session: "S1", Door: "mx", Stage: "rcpt",
		Client: "192.0.2.1", Sender: "<ann@example.org>", Recipient: "bob@example.test", Check: "inbound/spf", Mode: "enforce", Action: "next",
	}
}

// line is record(n) as it lies in a file.
func line(n int) []byte {
	return fmt.Appendf(nil, `{"id":"ID%06d","time":%q,"check":"inbound/spf","action":"next"}`+"\n", n, noon.Add(time.Duration(n)*time.Second).Format(time.RFC3339))
}

// ids are the entries that f chooses of dir, by their ids.
func ids(t *testing.T, dir string, f Filter) string {
	t.Helper()
	var got []string
	if _, err := Read(dir, f, func(e Entry) error { got = append(got, strings.TrimPrefix(string(e.ID), "ID00000")); return nil }); err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " ")
}

// names are the log's files.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	files, err := list(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		all = append(all, filepath.Base(f.path))
	}
	return all
}

func open(t *testing.T, dir string, o Options) *Log {
	t.Helper()
	l, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func shut(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestClose: what is queued is written before Close returns, later records are
// counted, and a log goes on where the last one ended.
func TestClose(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "decisions")
	l := open(t, dir, Options{Queue: 5000})
	for n := range 3000 {
		l.Decided(record(n))
	}
	shut(t, l)
	if l.Written() != 3000 || l.Dropped() != 0 {
		t.Errorf("written %d, dropped %d", l.Written(), l.Dropped())
	}
	l.Decided(record(1))
	if l.Dropped() != 1 {
		t.Errorf("dropped %d after Close, want 1", l.Dropped())
	}
	shut(t, l) // a second Close has nothing to do

	l = open(t, dir, Options{})
	l.Decided(record(3000))
	shut(t, l)
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("files %v, want one", got)
	}
	n := 0
	stats, err := Read(dir, Filter{}, func(e Entry) error {
		if want := record(n); e.ID != want.ID || !e.Time.Equal(want.Time) || e.Recipient != want.Recipient {
			t.Fatalf("entry %d is %+v", n, e)
		}
		n++
		return nil
	})
	if err != nil || n != 3001 || stats != (Stats{Files: 1, Lines: 3001}) {
		t.Errorf("%d entries, %+v, %v", n, stats, err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, names(t, dir)[0]): 0o600} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, %v; want %v", path, fi.Mode(), err, mode)
		}
	}
}

// TestManyCallers: each record is either written or counted, also while the log
// is closed.
func TestManyCallers(t *testing.T) {
	l := open(t, t.TempDir(), Options{Queue: 64, Mask: MaskHash})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for n := range 500 {
				l.Decided(record(n))
			}
		})
	}
	shut(t, l)
	callers.Wait()
	if got := l.Written() + l.Dropped(); got != 4000 {
		t.Errorf("written %d, dropped %d; want 4000 in all", l.Written(), l.Dropped())
	}
}

// stuck is a log whose disk takes no more: the writer waits in a write. free
// lets what is written from then on go nowhere.
func stuck(t *testing.T, o Options) (l *Log, free func()) {
	t.Helper()
	l = open(t, t.TempDir(), o)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.files.f.Close(); err != nil {
		t.Fatal(err)
	}
	l.files.f = w // the writer looks at it once a record comes
	first := record(0)
	first.Text = strings.Repeat("x", 512<<10) // more than a pipe holds
	l.Decided(first)
	if _, err := r.Read(make([]byte, 1)); err != nil { // the writer is at it
		t.Fatal(err)
	}
	return l, func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestFullQueue: what finds the queue full is dropped and counted at once.
func TestFullQueue(t *testing.T) {
	var said bytes.Buffer
	l, free := stuck(t, Options{Queue: 4, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	for n := range 10 {
		l.Decided(record(n))
	}
	if got := l.Dropped(); got != 6 {
		t.Errorf("dropped %d, want 6", got)
	}
	free() // every write fails now
	if err := l.Close(); err == nil || !strings.Contains(err.Error(), "close decision log") {
		t.Errorf("close: %v", err) // a pipe cannot be synced
	}
	if l.Dropped() != 11 || l.Written() != 0 {
		t.Errorf("dropped %d, written %d; want 11 and 0", l.Dropped(), l.Written())
	}
	if n := strings.Count(said.String(), "decisions cannot be recorded"); n != 1 {
		t.Errorf("complained %d times within a minute:\n%s", n, &said)
	}
	if !strings.Contains(said.String(), `msg="decisions were not recorded" dropped=11`) {
		t.Errorf("Close does not say what was lost:\n%s", &said)
	}
}

// TestFullMemory: the queue is bounded in octets, too.
func TestFullMemory(t *testing.T) {
	l, free := stuck(t, Options{})
	big := record(1)
	big.Calls = []policy.HostCall{{Call: "dns", Ask: strings.Repeat("q", maxWaiting/2-4096)}}
	for range 4 {
		l.Decided(big)
	}
	if got := l.Dropped(); got != 2 {
		t.Errorf("dropped %d, want 2", got)
	}
	l.Decided(record(2)) // there is room for a small one
	if got := l.Dropped(); got != 2 {
		t.Errorf("dropped %d, want 2", got)
	}
	free()
	if err := l.Close(); err == nil {
		t.Error("a pipe was synced")
	}
	if got := l.waiting.Load(); got != 0 {
		t.Errorf("%d octets still wait", got)
	}
}

// TestNoLine: what cannot be written as JSON costs the one record.
func TestNoLine(t *testing.T) {
	dir := t.TempDir()
	var said bytes.Buffer
	l := open(t, dir, Options{Logger: slog.New(slog.NewTextHandler(&said, nil))})
	bad := record(1)
	bad.Effects = &policy.RecordEffects{Score: math.NaN()}
	l.Decided(bad)
	l.Decided(record(2))
	shut(t, l)
	if got := ids(t, dir, Filter{}); got != "2" || l.Dropped() != 1 || l.Written() != 1 {
		t.Errorf("entries %s, dropped %d, written %d", got, l.Dropped(), l.Written())
	}
	if !strings.Contains(said.String(), "id=ID000001") {
		t.Errorf("said %q", said.String())
	}
}

// TestOpenFails: each cause is named.
func TestOpenFails(t *testing.T) {
	rows := []struct {
		name  string
		mask  Mask
		spoil func(dir string) error
		want  string
	}{
		{"key is short", MaskHash, func(dir string) error { return os.WriteFile(filepath.Join(dir, "key"), []byte("short"), 0o600) }, "key is 5 octets, want 32: remove it"},
		{"key cannot be read", MaskHash, func(dir string) error { return os.Mkdir(filepath.Join(dir, "key"), 0o700) }, "key of the decision log: read"},
		{"no such mask", "md5", func(string) error { return nil }, `no mask "md5"; write one of none, hash, drop`},
		{"folder is a file", "", func(dir string) error { return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)) }, "make decision log"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "decisions")
			if err := errors.Join(os.Mkdir(dir, 0o700), row.spoil(dir)); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir, Options{Mask: row.mask}); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("open: %v; want %q", err, row.want)
			}
			if row.mask == MaskHash {
				if _, err := Read(dir, Filter{Sender: "a@b.example"}, nil); err == nil || !strings.Contains(err.Error(), "key of the decision log") {
					t.Errorf("read: %v", err)
				}
			}
		})
	}
}

// BenchmarkDecided is what a decision costs the session that made it: while the
// queue takes it, and when it is full.
func BenchmarkDecided(b *testing.B) {
	r := record(1)
	r.Calls = []policy.HostCall{{Call: "dns", Ask: "TXT example.org", Answer: "v=spf1 -all", Status: "ok"}, {Call: "count", Ask: "ann@example.org +1 1m0s", Answer: "3"}}
	const room = 1 << 14
	begin := func(dir string) *Log {
		l, err := Open(dir, Options{Queue: room, Total: 1})
		if err != nil {
			b.Fatal(err)
		}
		return l
	}
	end := func(l *Log) {
		if err := l.Close(); err != nil || l.Dropped() > 0 {
			b.Fatalf("dropped %d, %v", l.Dropped(), err)
		}
	}
	b.Run("queued", func(b *testing.B) {
		dir := b.TempDir()
		l, n := begin(dir), 0
		b.ReportAllocs()
		for b.Loop() {
			if n++; n == room {
				b.StopTimer()
				end(l)
				l, n = begin(dir), 0
				b.StartTimer()
			}
			l.Decided(r)
		}
		end(l)
	})
	b.Run("full", func(b *testing.B) {
		l := begin(b.TempDir())
		l.waiting.Add(maxWaiting)
		b.ReportAllocs()
		for b.Loop() {
			l.Decided(r)
		}
		if err := l.Close(); err != nil || l.Written() > 0 {
			b.Fatalf("written %d, %v", l.Written(), err)
		}
	})
}
