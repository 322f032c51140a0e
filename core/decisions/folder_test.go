package decisions

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

// TestDiskComesBack: what the disk does not take is counted, and what it takes
// later is whole.
func TestDiskComesBack(t *testing.T) {
	dir := t.TempDir()
	o := Options{File: 1 << 20, Age: time.Hour, Total: 1 << 30, Keep: time.Hour, Now: func() time.Time { return noon }}
	d, err := openFolder(dir, &o)
	if err != nil {
		t.Fatal(err)
	}
	good := d.f
	if d.f, err = os.Open(os.DevNull); err != nil { // takes nothing
		t.Fatal(err)
	}
	if err := d.write(line(1), d.born); !errors.Is(err, syscall.EBADF) {
		t.Errorf("write: %v", err)
	}
	if err := d.f.Close(); err != nil {
		t.Fatal(err)
	}
	d.f = good
	if err := errors.Join(d.write(line(2), d.born), d.close(), d.close()); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, dir, Filter{}); got != "2" {
		t.Errorf("entries %s", got)
	}
}

// TestHalfALine: what the disk took of a line spoils no later one, whatever the
// disk does in between.
func TestHalfALine(t *testing.T) {
	dir := t.TempDir()
	o := Options{File: 1 << 24, Age: time.Hour, Total: 1 << 30, Keep: time.Hour, Now: func() time.Time { return noon }}
	d, err := openFolder(dir, &o)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.write(line(1), noon); err != nil {
		t.Fatal(err)
	}
	// What a disk that fills up does: half of the lines are there, and no more.
	good := d.f
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d.f = w
	long := append(line(2), bytes.Repeat([]byte("x"), 1<<20)...)
	took := make(chan error)
	go func() { took <- d.write(long, noon) }()
	if _, err := r.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-took; err == nil {
		t.Fatal("a pipe that nobody reads took a line")
	}
	if _, err := good.Write(line(3)[:20]); err != nil {
		t.Fatal(err)
	}
	d.f = good
	if err := errors.Join(w.Close(), d.write(line(4), noon), d.write(line(5), noon), d.close()); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, dir, Filter{}); got != "1 4 5" {
		t.Errorf("entries %s, want 1 4 5", got)
	}
}

// TestOldFilesStay: that an old file cannot be removed loses no record.
func TestOldFilesStay(t *testing.T) {
	dir := t.TempDir()
	var said bytes.Buffer
	o := Options{File: 1, Age: time.Hour, Total: 1, Keep: time.Hour, Now: func() time.Time { return noon }, Logger: slog.New(slog.NewTextHandler(&said, nil))}
	d, err := openFolder(dir, &o)
	if err != nil {
		t.Fatal(err)
	}
	moved := dir + ".moved"
	if err := d.write(line(1), noon); err != nil {
		t.Fatal(err)
	}
	if err := d.f.Close(); err != nil {
		t.Fatal(err)
	}
	d.f = nil
	d.dir = moved // where files can be made, and are not to be listed
	if err := os.Mkdir(moved, 0o300); err != nil {
		t.Fatal(err)
	}
	err = d.write(line(2), noon)
	if errors.Join(os.Chmod(moved, 0o700), d.close()) != nil || err != nil {
		t.Fatal(err)
	}
	if got := ids(t, moved, Filter{}); got != "2" {
		t.Errorf("entries %s, want 2", got)
	}
	if os.Getuid() != 0 && !strings.Contains(said.String(), "old decisions are not removed") {
		t.Errorf("said %q", said.String())
	}
}

// TestRotation: a new file begins when the last is large or old enough.
func TestRotation(t *testing.T) {
	size := int64(len(line(0)))
	rows := []struct {
		name  string
		o     Options
		after []time.Duration // between the lines
		want  int             // files
	}{
		{"none", Options{File: 100 * size, Age: time.Hour}, []time.Duration{0, 1, 2}, 1},
		{"by size", Options{File: 2 * size, Age: time.Hour}, []time.Duration{0, 1, 2, 3, 4}, 3},
		{"by size, lines larger than a file", Options{File: 1, Age: time.Hour}, []time.Duration{0, 1, 2}, 3},
		{"by size, within a microsecond", Options{File: size, Age: time.Hour}, []time.Duration{0, 0, 0}, 3},
		{"by age", Options{File: 100 * size, Age: time.Hour}, []time.Duration{0, 59 * time.Minute, time.Hour, 119 * time.Minute, 2 * time.Hour}, 3},
		{"the clock goes back", Options{File: size, Age: time.Hour}, []time.Duration{0, -time.Hour, -2 * time.Hour, 5 * time.Hour}, 4},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			now := noon
			row.o.Total, row.o.Keep, row.o.Now = 1<<30, 100*24*time.Hour, func() time.Time { return now }
			d, err := openFolder(dir, &row.o)
			if err != nil {
				t.Fatal(err)
			}
			want := ""
			for n, after := range row.after {
				if err := d.write(line(n), noon.Add(after)); err != nil {
					t.Fatal(err)
				}
				want = strings.TrimSpace(want + fmt.Sprint(" ", n))
			}
			if err := d.close(); err != nil {
				t.Fatal(err)
			}
			if got := names(t, dir); len(got) != row.want || got[0] != "20260102T120000.000000Z.jsonl" {
				t.Errorf("files %v, want %d", got, row.want)
			}
			if got := ids(t, dir, Filter{}); got != want { // in the order in which they were written
				t.Errorf("entries %s, want %s", got, want)
			}
		})
	}
}

// TestPruning: the oldest files go when all together are too large, or too old.
func TestPruning(t *testing.T) {
	size := int64(len(line(0)))
	rows := []struct {
		name string
		o    Options
		step time.Duration
		want string
	}{
		{"enough room", Options{Total: 100 * size, Keep: 1000 * time.Hour}, time.Minute, "0 1 2 3 4 5"},
		{"total", Options{Total: 3 * size, Keep: 1000 * time.Hour}, time.Minute, "3 4 5"},
		{"total of less than a file", Options{Total: 1, Keep: 1000 * time.Hour}, time.Minute, "5"},
		// A file is kept for as long as its last line, and that is when the next begins.
		{"keep", Options{Total: 100 * size, Keep: 2 * time.Hour}, time.Hour, "2 3 4 5"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			other := filepath.Join(dir, "notes.jsonl")
			if err := os.WriteFile(other, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			row.o.File, row.o.Age, row.o.Now = size, 100*time.Hour, func() time.Time { return noon }
			d, err := openFolder(dir, &row.o)
			if err != nil {
				t.Fatal(err)
			}
			for n := range 6 {
				if err := d.write(line(n), noon.Add(time.Duration(n)*row.step)); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.close(); err != nil {
				t.Fatal(err)
			}
			if got := ids(t, dir, Filter{}); got != row.want {
				t.Errorf("entries %s, want %s", got, row.want)
			}
			if _, err := os.Stat(other); err != nil {
				t.Errorf("a file that is none of ours: %v", err)
			}
		})
	}
}

// TestTornLine: what a power cut has left of a line spoils no other.
func TestTornLine(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "20260102T120000.000000Z.jsonl")
	torn := append(line(1), line(2)[:20]...)
	if err := os.WriteFile(name, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, dir, Options{Now: func() time.Time { return noon }})
	l.Decided(record(3))
	shut(t, l)
	if got := ids(t, dir, Filter{}); got != "1 3" {
		t.Errorf("entries %s, want 1 3", got)
	}
	if stats, err := Read(dir, Filter{}, func(Entry) error { return nil }); err != nil || stats != (Stats{1, 3, 1}) {
		t.Errorf("%+v, %v", stats, err)
	}
	// A whole last line, and an empty file, stay as they are.
	for _, whole := range [][]byte{line(1), {}} {
		if err := os.WriteFile(name, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		shut(t, open(t, dir, Options{Now: func() time.Time { return noon }}))
		if b, err := os.ReadFile(name); err != nil || !bytes.Equal(b, whole) {
			t.Errorf("%q became %q, %v", whole, b, err)
		}
	}
}
