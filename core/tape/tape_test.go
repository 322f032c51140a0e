package tape

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

var secret = []byte("0123456789abcdef0123456789abcdef")

// secrets are the two kinds of tapes.
var secrets = []struct {
	name   string
	secret []byte
}{{"plain", nil}, {"sealed", secret}}

func atNoon() time.Time { return noon }

func open(t testing.TB, dir string, o Options) *Tape {
	t.Helper()
	if o.Now == nil {
		o.Now = atNoon
	}
	tape, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return tape
}

func shut(t testing.TB, tape *Tape) {
	t.Helper()
	if err := tape.Close(); err != nil {
		t.Fatal(err)
	}
}

// put appends an entry of text.
func put(tape *Tape, at time.Time, session, text string) {
	tape.Append(at, session, func(b []byte) []byte { return append(b, text...) })
}

// read returns "SESSION:DATA" of the entries.
func read(t testing.TB, dir string, f Filter, o ReadOptions) ([]string, Stats) {
	t.Helper()
	var got []string
	stats, err := Read(t.Context(), dir, f, o, func(e Entry) error {
		got = append(got, e.Session+":"+string(e.Data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if int(stats.Entries) != len(got) {
		t.Errorf("%d entries in %+v, want %d", stats.Entries, stats, len(got))
	}
	return got, stats
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range all {
		all[i] = filepath.Base(name)
	}
	return all
}

func same(t testing.TB, got, want []string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		if len(g)+len(w) > 2000 {
			t.Fatalf("got %d entries, want %d, or others", len(got), len(want))
		}
		t.Fatalf("got\n%s\nwant\n%s", g, w)
	}
}

// TestRoundTrip: what is appended is read, in its order and with its time.
func TestRoundTrip(t *testing.T) {
	rows := []struct {
		name    string
		entries int
		size    int
	}{
		{"none", 0, 0},
		{"an empty one", 1, 0},
		{"a few", 10, 100},
		{"more than a chunk", 1000, 1000},
		{"more than a chunk, the other way", 1001, 1000},
		{"large ones", 20, large + 1},
		{"the largest", 1, MaxEntry},
	}
	for _, kind := range secrets {
		for _, row := range rows {
			t.Run(kind.name+" "+row.name, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "new", "folder")
				tape := open(t, dir, Options{Secret: kind.secret, Fast: row.entries%2 == 0})
				var want []string
				for i := range row.entries {
					text := strings.Repeat(fmt.Sprint(i), row.size)[:row.size]
					session := fmt.Sprint("s", i%3)
					put(tape, noon.Add(time.Duration(i)), session, text)
					want = append(want, session+":"+text)
				}
				shut(t, tape)
				if tape.Dropped() != 0 || tape.Written() != uint64(row.entries) {
					t.Errorf("dropped %d, written %d", tape.Dropped(), tape.Written())
				}
				n := 0
				stats, err := Read(t.Context(), dir, Filter{}, ReadOptions{Secret: kind.secret}, func(e Entry) error {
					if got := e.Session + ":" + string(e.Data); n >= len(want) || got != want[n] {
						t.Fatalf("entry %d differs", n)
					}
					if !e.Time.Equal(noon.Add(time.Duration(n))) || e.Time.Location() != time.UTC {
						t.Fatalf("entry %d has time %v", n, e.Time)
					}
					n++
					return nil
				})
				if err != nil || n != len(want) || len(stats.Problems) > 0 {
					t.Errorf("%d of %d entries, %+v, %v", n, len(want), stats, err)
				}
			})
		}
	}
}

// TestMixedSizes: large and small entries of a session keep their order.
func TestMixedSizes(t *testing.T) {
	dir := t.TempDir()
	tape := open(t, dir, Options{})
	var want []string
	for i := range 200 {
		text := strings.Repeat("x", i*i*7)
		put(tape, noon, fmt.Sprint(i), text)
		want = append(want, fmt.Sprint(i, ":", text))
	}
	shut(t, tape)
	got, stats := read(t, dir, Filter{}, ReadOptions{Parallel: 3})
	same(t, got, want)
	if len(stats.Problems) > 0 {
		t.Error(stats.Problems)
	}
}

// TestLinger: an entry reaches the disk a second later, without Close.
func TestLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		tape := open(t, dir, Options{})
		defer shut(t, tape)
		for i := range 3 {
			put(tape, noon, "a", fmt.Sprint(i))
			time.Sleep(linger + time.Millisecond) // of the bubble's clock
			synctest.Wait()
			got, stats := read(t, dir, Filter{}, ReadOptions{})
			if len(got) != i+1 || len(stats.Problems) > 0 {
				t.Errorf("after %d entries: %v, %+v", i+1, got, stats)
			}
		}
	})
}

// TestTooMuch: what does not fit is dropped and counted, and nothing waits.
func TestTooMuch(t *testing.T) {
	rows := []struct {
		name          string
		o             Options
		entries, size int
		session       string
		min, max      uint64 // dropped
	}{
		{"too large", Options{}, 3, MaxEntry + 1, "s", 3, 3},
		{"session too long", Options{}, 3, 1, strings.Repeat("s", maxSession+1), 3, 3},
		{"entries", Options{Queue: 10}, 25, 1, "s", 15, 15},
		{"octets", Options{}, 3000, 60 << 10, "s", 1000, 2500},
		{"octets of large ones", Options{}, 100, 1 << 20, "s", 36, 50},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			tape := open(t, dir, row.o)
			disk := stuck(tape)
			data := bytes.Repeat([]byte("d"), row.size)
			for range row.entries {
				tape.Append(noon, row.session, func(b []byte) []byte { return append(b, data...) })
			}
			dropped := tape.Dropped()
			close(disk)
			shut(t, tape)
			if dropped < row.min || dropped > row.max || tape.Dropped() != dropped || tape.Written()+dropped != uint64(row.entries) {
				t.Errorf("dropped %d, then %d; written %d", dropped, tape.Dropped(), tape.Written())
			}
			got, _ := read(t, dir, Filter{}, ReadOptions{})
			if len(got) != row.entries-int(dropped) {
				t.Errorf("%d entries", len(got))
			}
			if tape.memory != 0 || tape.entries != 0 {
				t.Errorf("%d octets, %d entries wait for ever", tape.memory, tape.entries)
			}
		})
	}
}

// stuck makes the disk of a new tape wait until the channel is closed.
func stuck(tape *Tape) chan struct{} {
	free := make(chan struct{})
	tape.w.create = func(path string) (file, error) {
		<-free
		return create(path)
	}
	return free
}

// TestNobodyWaits: whoever appends does not wait for a disk that hangs.
func TestNobodyWaits(t *testing.T) {
	tape := open(t, t.TempDir(), Options{})
	disk := stuck(tape)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			data := make([]byte, 10<<10)
			for range 2000 {
				tape.Append(noon, "s", func(b []byte) []byte { return append(b, data...) })
			}
		})
	}
	all.Wait() // with the disk stuck
	if tape.Dropped() == 0 || tape.Written() != 0 {
		t.Errorf("dropped %d, written %d", tape.Dropped(), tape.Written())
	}
	close(disk)
	shut(t, tape)
	if tape.Dropped()+tape.Written() != 16000 {
		t.Errorf("dropped %d, written %d", tape.Dropped(), tape.Written())
	}
}

// TestAppendAndClose: whatever is appended while the tape is closed is either
// written or counted.
func TestAppendAndClose(t *testing.T) {
	for range 20 {
		dir := t.TempDir()
		tape := open(t, dir, Options{Secret: secret})
		var all sync.WaitGroup
		begun := make(chan struct{}, 8)
		const each = 500
		for g := range 4 {
			all.Go(func() {
				for i := range each {
					if i == 100 {
						begun <- struct{}{}
					}
					text := fmt.Sprint(i)
					if i%100 == 99 {
						text = strings.Repeat("l", large+1)
					}
					put(tape, noon, fmt.Sprint(g), text)
				}
			})
		}
		<-begun
		for range 2 {
			all.Go(func() {
				if err := tape.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if tape.Written()+tape.Dropped() != 4*each {
			t.Fatalf("written %d, dropped %d", tape.Written(), tape.Dropped())
		}
		got, stats := read(t, dir, Filter{}, ReadOptions{Secret: secret})
		if uint64(len(got)) != tape.Written() || len(stats.Problems) > 0 {
			t.Fatalf("%d entries of %d, %v", len(got), tape.Written(), stats.Problems)
		}
		put(tape, noon, "", "after")
		if tape.Written()+tape.Dropped() != 4*each+1 {
			t.Error("an entry after Close is not counted")
		}
	}
}

// TestShortSecret: a secret that can be guessed is refused.
func TestShortSecret(t *testing.T) {
	if _, err := Open(t.TempDir(), Options{Secret: []byte("short")}); err == nil || !strings.Contains(err.Error(), "too short") {
		t.Error(err)
	}
}

// TestNoFolder: what cannot be made or listed is an error.
func TestNoFolder(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(name, Options{}); err == nil {
		t.Error("a tape in a file")
	}
	if _, err := Read(t.Context(), name, Filter{}, ReadOptions{}, nil); err == nil {
		t.Error("read a file as a folder")
	}
	if _, err := Examine(name); err == nil {
		t.Error("examined a file as a folder")
	}
	if _, err := Read(t.Context(), filepath.Join(t.TempDir(), "none"), Filter{}, ReadOptions{}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
