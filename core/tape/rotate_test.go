package tape

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// one is a chunk with an entry.
func one(at time.Time, session, text string) *chunk {
	c := &chunk{}
	c.add(at.UnixNano(), session, []byte(text))
	return c
}

func newTestWriter(t testing.TB, dir string, o Options) *writer {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = atNoon
	}
	w, err := newWriter(dir, &o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestRotation: a new file begins when the last is large or old enough.
func TestRotation(t *testing.T) {
	const size = fileHead + 2*(chunkHead+40) + chunkHead // of a file with two chunks, at least
	rows := []struct {
		name  string
		o     Options
		after []time.Duration // of each chunk
		want  int             // files
	}{
		{"none", Options{File: 1 << 20, Age: time.Hour}, []time.Duration{0, 1, 2}, 1},
		{"by size", Options{File: size, Age: time.Hour}, []time.Duration{0, 1, 2, 3, 4}, 3},
		{"chunks larger than a file", Options{File: 1, Age: time.Hour}, []time.Duration{0, 1, 2}, 3},
		{"within a microsecond", Options{File: 1, Age: time.Hour}, []time.Duration{0, 0, 0}, 3},
		{"by age", Options{File: 1 << 20, Age: time.Hour}, []time.Duration{0, 59 * time.Minute, time.Hour, 119 * time.Minute, 2 * time.Hour}, 3},
		{"the clock goes back", Options{File: 1, Age: time.Hour}, []time.Duration{0, -time.Hour, -2 * time.Hour, 5 * time.Hour}, 4},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			row.o.Total, row.o.Keep = 1<<30, 100*24*time.Hour
			w := newTestWriter(t, dir, row.o)
			var want []string
			for n, after := range row.after {
				if err := w.write(one(noon.Add(after), "s", fmt.Sprint(n)), noon.Add(after)); err != nil {
					t.Fatal(err)
				}
				want = append(want, fmt.Sprint("s:", n))
			}
			if err := w.close(); err != nil {
				t.Fatal(err)
			}
			if got := names(t, dir); len(got) != row.want || got[0] != "20260102T120000.000000Z.tape" {
				t.Errorf("files %v, want %d", got, row.want)
			}
			got, stats := read(t, dir, Filter{}, ReadOptions{})
			same(t, got, want) // in the order in which they were written
			if len(stats.Problems) > 0 || stats.Files != row.want || stats.Chunks != len(want) {
				t.Errorf("%+v", stats)
			}
		})
	}
}

// TestPruning: the oldest files go when all together are too large, or too old.
func TestPruning(t *testing.T) {
	file := func() int64 { // octets of one with a chunk
		dir := t.TempDir()
		w := newTestWriter(t, dir, Options{File: 1, Age: time.Hour, Total: 1 << 30, Keep: time.Hour})
		if err := errors.Join(w.write(one(noon, "s", "0"), noon), w.close()); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(filepath.Join(dir, nameOf(noon)))
		if err != nil {
			t.Fatal(err)
		}
		return fi.Size()
	}()
	rows := []struct {
		name string
		o    Options
		step time.Duration
		want string
	}{
		{"enough room", Options{Total: 100 * file, Keep: 1000 * time.Hour}, time.Minute, "0 1 2 3 4 5"},
		{"total", Options{Total: 4 * file, Keep: 1000 * time.Hour}, time.Minute, "3 4 5"},
		{"total of less than a file", Options{Total: 1, Keep: 1000 * time.Hour}, time.Minute, "5"},
		// A file is kept for as long as its last entry, and that is when the next begins.
		{"keep", Options{Total: 100 * file, Keep: 2 * time.Hour}, time.Hour, "2 3 4 5"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			other := filepath.Join(dir, "notes.tape")
			if err := os.WriteFile(other, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			row.o.File, row.o.Age = file, 100*time.Hour
			w := newTestWriter(t, dir, row.o)
			for n := range 6 {
				at := noon.Add(time.Duration(n) * row.step)
				if err := w.write(one(at, "s", fmt.Sprint(n)), at); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.close(); err != nil {
				t.Fatal(err)
			}
			got, _ := read(t, dir, Filter{}, ReadOptions{})
			if s := strings.ReplaceAll(strings.Join(got, " "), "s:", ""); s != row.want {
				t.Errorf("entries %s, want %s", s, row.want)
			}
			if _, err := os.Stat(other); err != nil {
				t.Errorf("a file that is none of ours: %v", err)
			}
		})
	}
}

// TestAgain: each Open begins a file with a later name, whatever the clock says.
func TestAgain(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for i := range 4 {
		tape := open(t, dir, Options{Now: func() time.Time { return noon.Add(-time.Duration(i) * time.Hour) }})
		if i%2 == 0 { // and none without entries
			put(tape, noon, "s", fmt.Sprint(i))
			want = append(want, fmt.Sprint("s:", i))
		}
		shut(t, tape)
	}
	got, stats := read(t, dir, Filter{}, ReadOptions{})
	same(t, got, want)
	if stats.Files != 2 || len(stats.Problems) > 0 {
		t.Errorf("%+v", stats)
	}
}

// badDisk is a file that fails as told.
type badDisk struct {
	file
	takes    int // octets that it still takes; less than 0: all
	truncate error
}

func (d *badDisk) Write(p []byte) (int, error) {
	if d.takes < 0 || len(p) <= d.takes {
		n, err := d.file.Write(p)
		d.takes -= min(n, max(d.takes, 0))
		return n, err
	}
	n, err := d.file.Write(p[:d.takes])
	d.takes = 0
	return n, errors.Join(err, syscall.ENOSPC)
}

func (d *badDisk) Truncate(size int64) error {
	if d.truncate != nil {
		return d.truncate
	}
	return d.file.Truncate(size)
}

// TestBadDisk: wherever the disk stops to take octets, what was written before and
// what is written afterwards is whole.
func TestBadDisk(t *testing.T) {
	for _, kind := range secrets {
		for _, truncate := range []error{nil, syscall.EIO} {
			t.Run(fmt.Sprint(kind.name, " truncate ", truncate), func(t *testing.T) {
				for takes := range 200 {
					dir := t.TempDir()
					w := newTestWriter(t, dir, Options{File: 1 << 20, Age: time.Hour, Total: 1 << 30, Keep: time.Hour, Secret: kind.secret})
					if err := w.write(one(noon, "s", "before"), noon); err != nil {
						t.Fatal(err)
					}
					good := w.out
					w.out = &badDisk{good, takes, truncate}
					want := []string{"s:before"}
					if err := w.write(one(noon, "s", "lost"), noon); err == nil { // it had room after all
						want = append(want, "s:lost")
					} else if !errors.Is(err, syscall.ENOSPC) {
						t.Fatal(err)
					}
					if w.out != nil {
						w.out = good
					}
					if err := errors.Join(w.write(one(noon, "s", "after"), noon), w.close()); err != nil {
						t.Fatal(err)
					}
					got, stats := read(t, dir, Filter{}, ReadOptions{Secret: kind.secret})
					same(t, got, append(want, "s:after"))
					if truncate == nil && len(stats.Problems) > 0 {
						t.Fatal(stats.Problems)
					}
				}
			})
		}
	}
}

// TestNonces: what the disk has taken a part of is never sealed with the nonce of
// something else.
func TestNonces(t *testing.T) {
	type use struct {
		salt   salt
		number uint64
		try    uint32
	}
	seen := map[use]bool{}
	w := newTestWriter(t, t.TempDir(), Options{File: 1 << 20, Age: time.Hour, Total: 1 << 30, Keep: time.Hour, Secret: secret})
	if err := w.write(one(noon, "s", "first"), noon); err != nil {
		t.Fatal(err)
	}
	good := w.out
	for i := range 20 {
		var tried bytes.Buffer
		w.out = &watched{file: &badDisk{good, 100 * (i % 3), nil}, tried: &tried}
		_ = w.write(one(noon, "s", fmt.Sprint(i)), noon)
		h, ok := parseHeader(tried.Bytes()[:chunkHead])
		if u := (use{h.salt, h.number, h.try}); !ok || seen[u] {
			t.Fatalf("write %d: %+v", i, u)
		} else {
			seen[u] = true
		}
	}
	w.out = good
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
}

// watched notes what is to be written.
type watched struct {
	file
	tried *bytes.Buffer
}

func (w *watched) Write(p []byte) (int, error) {
	w.tried.Write(p)
	return w.file.Write(p)
}

// TestBadBeginning: a file that cannot be begun is not left behind.
func TestBadBeginning(t *testing.T) {
	dir := t.TempDir()
	w := newTestWriter(t, dir, Options{File: 1 << 20, Age: time.Hour, Total: 1 << 30, Keep: time.Hour})
	w.create = func(path string) (file, error) {
		f, err := create(path)
		return &badDisk{f, fileHead - 1, nil}, err
	}
	if err := w.write(one(noon, "s", "lost"), noon); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	if got := names(t, dir); len(got) > 0 {
		t.Errorf("left behind: %v", got)
	}
	w.create = create
	if err := errors.Join(w.write(one(noon, "s", "after"), noon), w.close()); err != nil {
		t.Fatal(err)
	}
	got, _ := read(t, dir, Filter{}, ReadOptions{})
	same(t, got, []string{"s:after"})
}

// TestComplaints: a disk that takes nothing is complained of once a minute.
func TestComplaints(t *testing.T) {
	var said bytes.Buffer
	now := noon
	w := newTestWriter(t, t.TempDir(), Options{Logger: slog.New(slog.NewTextHandler(&said, nil)), Now: func() time.Time { return now }})
	for i := range 130 {
		now = noon.Add(time.Duration(i) * time.Second)
		w.complain(uint64(i), syscall.EIO)
	}
	if n := strings.Count(said.String(), "cannot be written"); n != 3 || !strings.Contains(said.String(), "dropped=120") {
		t.Errorf("%d complaints:\n%s", n, said.String())
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
}
