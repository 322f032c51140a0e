package tape

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mountTiny mounts a file system of 4 MiB, which only root may.
func mountTiny(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestFullFileSystem fills a real file system and makes room again: what was
// written before and after is whole, what came between is counted, and nobody
// has waited.
func TestFullFileSystem(t *testing.T) {
	for _, kind := range secrets {
		t.Run(kind.name, func(t *testing.T) {
			dir := t.TempDir()
			mountTiny(t, dir)
			place := filepath.Join(dir, "tape")
			var said bytes.Buffer
			tape := open(t, place, Options{File: 256 << 10, Secret: kind.secret, Logger: slog.New(slog.NewTextHandler(&said, nil))})
			fill := func(name string, n int) {
				for range n {
					noise := make([]byte, 1000) // does not compress
					_, _ = rand.Read(noise)
					tape.Append(noon, name, func(b []byte) []byte { return append(b, noise...) })
				}
			}
			fill("before", 1000)
			until(t, func() bool { return tape.Written() == 1000 })
			ballast, err := os.Create(filepath.Join(dir, "ballast"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(ballast, io.LimitReader(zeros{}, 8<<20)); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("the file system is not full: %v", err)
			}
			fill("full", 2000)
			until(t, func() bool { return tape.Written()+tape.Dropped() == 3000 })
			if tape.Dropped() == 0 {
				t.Error("a full disk takes everything")
			}
			if err := errors.Join(ballast.Close(), os.Remove(ballast.Name())); err != nil {
				t.Fatal(err)
			}
			fill("after", 1000)
			written := tape.Written()
			shut(t, tape)
			if got := tape.Written() - written; got == 0 || tape.Written()+tape.Dropped() != 4000 {
				t.Errorf("written %d after there is room, %d in all, dropped %d", got, tape.Written(), tape.Dropped())
			}
			got, stats := read(t, place, Filter{}, ReadOptions{Secret: kind.secret})
			count := map[string]int{}
			for _, e := range got {
				name, _, _ := strings.Cut(e, ":")
				count[name]++
			}
			if count["before"] != 1000 || count["after"] != 1000 || uint64(len(got)) != tape.Written() {
				t.Errorf("read %v, written %d", count, tape.Written())
			}
			// A file that was ended on the full disk has no end mark; else all is well.
			if slices.ContainsFunc(stats.Problems, func(p Problem) bool { return !strings.Contains(p.What, "end mark is missing") }) {
				t.Error(stats.Problems)
			}
			if n := strings.Count(said.String(), "cannot be written"); n != 1 {
				t.Errorf("complained %d times:\n%s", n, said.String())
			}
		})
	}
}

// until waits for what another goroutine brings about.
func until(t *testing.T, done func() bool) {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatal("it did not happen within a minute")
		}
	}
}
