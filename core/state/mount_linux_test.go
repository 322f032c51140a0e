package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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

// TestFullFileSystem fills a real file system and makes room again.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	mountTiny(t, dir)
	place := filepath.Join(dir, "policy.db")
	s := opened(t, place, Options{})
	put(t, s, "before", "one", time.Hour, start)
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(ballast, io.LimitReader(zeros{}, 8<<20)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the file system is not full: %v", err)
	}
	value := strings.Repeat("v", 4000)
	for i := range 200 {
		put(t, s, fmt.Sprint("k", i), value, time.Hour, start)
	}
	for range 3 {
		if err := s.flush(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("flush: %v", err)
		}
	}
	if a, b := get(t, s, "before", start), get(t, s, "k7", start); a != "one" || b != value {
		t.Errorf("on the full file system: %q and %d octets", a, len(b))
	}
	if err := errors.Join(ballast.Close(), os.Remove(ballast.Name()), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = opened(t, place, Options{})
	for i := range 200 {
		if got := get(t, s, fmt.Sprint("k", i), start); got != value {
			t.Fatalf("key %d has %d octets", i, len(got))
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestNoRoomToBegin: what a full disk holds of a new file is not left behind.
func TestNoRoomToBegin(t *testing.T) {
	dir := t.TempDir()
	mountTiny(t, dir)
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(f, io.LimitReader(zeros{}, 8<<20))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(ballast, 4<<20-16<<10); err != nil { // room for the folder and a page or two
		t.Fatal(err)
	}
	place := filepath.Join(dir, "policy.db")
	if _, err := Open(place, Options{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("open: %v", err)
	}
	if left := matches(t, place, "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := opened(t, place, Options{}).Close(); err != nil {
		t.Error(err)
	}
}
