package tape

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hours writes a tape with an entry at each hour, a chunk for each and six in a
// file.
func hours(t testing.TB, n int, key []byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	w := newTestWriter(t, dir, Options{File: 1 << 20, Age: 6 * time.Hour, Total: 1 << 30, Keep: 1000 * time.Hour, Secret: key})
	for i := range n {
		at := noon.Add(time.Duration(i) * time.Hour)
		if err := w.write(one(at, "s", fmt.Sprint(i)), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestFilter: entries are chosen by their times, and neither files nor chunks that
// have none are read.
func TestFilter(t *testing.T) {
	rows := []struct {
		name         string
		since, until time.Duration // -1: none
		want         string
		files        int
		chunks       int
	}{
		{"all", -1, -1, "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17", 3, 18},
		{"since", 15 * time.Hour, -1, "15 16 17", 1, 3},
		{"until", -1, 2 * time.Hour, "0 1 2", 1, 3},
		{"both", 5 * time.Hour, 7 * time.Hour, "5 6 7", 2, 3},
		{"between two", 5*time.Hour + 1, 6*time.Hour - 1, "", 1, 0},
		{"later", 50 * time.Hour, -1, "", 1, 0},
		{"none", 7 * time.Hour, 5 * time.Hour, "", 0, 0},
	}
	for _, kind := range secrets {
		dir := hours(t, 18, kind.secret)
		for _, row := range rows {
			t.Run(kind.name+" "+row.name, func(t *testing.T) {
				f := Filter{}
				if row.since >= 0 {
					f.Since = noon.Add(row.since)
				}
				if row.until >= 0 {
					f.Until = noon.Add(row.until)
				}
				got, stats := read(t, dir, f, ReadOptions{Secret: kind.secret})
				if s := strings.ReplaceAll(strings.Join(got, " "), "s:", ""); s != row.want || stats.Chunks != row.chunks || len(stats.Problems) > 0 {
					t.Errorf("%s, want %s; %+v, want %d chunks", s, row.want, stats, row.chunks)
				}
				if stats.Files > row.files+1 { // clocks are not believed to the minute
					t.Errorf("%d files, want %d", stats.Files, row.files)
				}
			})
		}
	}
}

// TestProgress: it grows and ends at the whole.
func TestProgress(t *testing.T) {
	dir := hours(t, 18, nil)
	if err := os.Truncate(filepath.Join(dir, nameOf(noon)), 300); err != nil { // whatever is wrong
		t.Fatal(err)
	}
	var last, all int64
	calls := 0
	_, stats := read(t, dir, Filter{Since: noon.Add(2 * time.Hour)}, ReadOptions{Progress: func(done, total int64) {
		if done < last || done > total || all > 0 && total != all {
			t.Errorf("%d of %d after %d of %d", done, total, last, all)
		}
		last, all = done, total
		calls++
	}})
	if last != all || calls < stats.Chunks {
		t.Errorf("ended at %d of %d after %d calls", last, all, calls)
	}
}

// TestReadEnds: an error of each or the end of the context ends it at once, and
// nothing goes on afterwards.
func TestReadEnds(t *testing.T) {
	dir := hours(t, 200, secret)
	before := runtime.NumGoroutine()
	mine := errors.New("mine")
	for stop := range 50 {
		n := 0
		_, err := Read(t.Context(), dir, Filter{}, ReadOptions{Secret: secret, Parallel: 2}, func(Entry) error {
			if n++; n > stop {
				return mine
			}
			return nil
		})
		if !errors.Is(err, mine) || n != stop+1 {
			t.Fatalf("%d entries, %v", n, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		n = 0
		_, err = Read(ctx, dir, Filter{}, ReadOptions{Secret: secret, Parallel: 2}, func(Entry) error {
			if n++; n > stop {
				cancel()
			}
			return nil
		})
		if !errors.Is(err, context.Canceled) || n != stop+1 {
			t.Fatalf("%d entries, %v", n, err)
		}
	}
	if now := runtime.NumGoroutine(); now > before {
		t.Errorf("%d goroutines, before %d", now, before)
	}
}

// TestReadWhileWriting: whoever reads meets a beginning of what was written, in
// its order, and no problem.
func TestReadWhileWriting(t *testing.T) {
	for _, kind := range secrets {
		t.Run(kind.name, func(t *testing.T) {
			dir := t.TempDir()
			tape := open(t, dir, Options{Secret: kind.secret, File: 200 << 10, Now: time.Now})
			const n = 4000
			written := make(chan struct{})
			go func() {
				defer close(written)
				for i := range n {
					put(tape, noon, "s", fmt.Sprintf("%d %s", i, strings.Repeat("x", 3000)))
				}
				if err := tape.Close(); err != nil {
					t.Error(err)
				}
			}()
			for done := false; !done; {
				select {
				case <-written:
					done = true
				default:
				}
				next := 0
				stats, err := Read(t.Context(), dir, Filter{}, ReadOptions{Secret: kind.secret}, func(e Entry) error {
					if !strings.HasPrefix(string(e.Data), fmt.Sprint(next, " ")) {
						return fmt.Errorf("%.10q where %d belongs", e.Data, next)
					}
					next++
					return nil
				})
				if err != nil || len(stats.Problems) > 0 {
					t.Fatal(err, stats.Problems)
				}
				if done && next+int(tape.Dropped()) != n {
					t.Errorf("%d entries, dropped %d", next, tape.Dropped())
				}
				if _, err := Examine(dir); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestExamine: the sums are those of what was written.
func TestExamine(t *testing.T) {
	for _, kind := range secrets {
		t.Run(kind.name, func(t *testing.T) {
			dir := hours(t, 18, kind.secret)
			sum, err := Examine(dir)
			if err != nil || sum.Files != 3 || sum.Chunks != 18 || sum.Entries != 18 || !sum.First.Equal(noon) || !sum.Last.Equal(noon.Add(17*time.Hour)) || len(sum.Problems) > 0 {
				t.Errorf("%+v, %v", sum, err)
			}
			var size int64
			for _, name := range names(t, dir) {
				fi, err := os.Stat(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				size += fi.Size()
			}
			if sum.Octets != size {
				t.Errorf("%d octets, want %d", sum.Octets, size)
			}
			if err := os.Truncate(filepath.Join(dir, names(t, dir)[0]), 500); err != nil {
				t.Fatal(err)
			}
			if sum, err = Examine(dir); err != nil || len(sum.Problems) != 1 || sum.Entries >= 18 {
				t.Errorf("%+v, %v", sum, err)
			}
		})
	}
	if sum, err := Examine(t.TempDir()); err != nil || sum.Files != 0 || !sum.First.IsZero() {
		t.Errorf("%+v, %v", sum, err)
	}
}

// TestRenamed: a file under another's name, or twice, is told.
func TestRenamed(t *testing.T) {
	dir := hours(t, 6, secret)
	if err := os.Link(filepath.Join(dir, nameOf(noon)), filepath.Join(dir, nameOf(noon.Add(time.Minute)))); err != nil {
		t.Fatal(err)
	}
	_, stats := read(t, dir, Filter{}, ReadOptions{Secret: secret})
	if len(stats.Problems) != 1 || !strings.Contains(stats.Problems[0].What, "name should be "+nameOf(noon)) {
		t.Error(stats.Problems)
	}
}

// TestUnreadable: a file that may not be read does not keep others from it.
func TestUnreadable(t *testing.T) {
	dir := hours(t, 18, nil)
	middle := filepath.Join(dir, nameOf(noon.Add(6*time.Hour)))
	if err := os.Remove(middle); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(middle, 0o700); err != nil { // none of ours
		t.Fatal(err)
	}
	got, stats := read(t, dir, Filter{}, ReadOptions{})
	if len(got) != 12 || len(stats.Problems) > 0 {
		t.Errorf("%d entries, %v", len(got), stats.Problems)
	}
	r := newReader(Filter{}, ReadOptions{})
	stats, err := r.run(t.Context(), nil, func() error { // as if it were opened meanwhile
		return errors.Join(r.file(stored{path: middle, size: 1}, false), r.file(stored{path: filepath.Join(dir, "none"), size: 1}, false))
	})
	if err != nil || len(stats.Problems) == 0 {
		t.Errorf("%+v, %v", stats, err)
	}
}
