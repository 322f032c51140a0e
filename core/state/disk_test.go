package state

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestKill takes a copy of the files of a store that is not closed, as a kill
// leaves them.
func TestKill(t *testing.T) {
	dir, copied := t.TempDir(), filepath.Join(t.TempDir(), "db")
	s := opened(t, dir, Options{})
	for i := range 1000 {
		put(t, s, fmt.Sprint("k", i), "one", time.Hour, start)
		seen(t, s, fmt.Sprint("k", i), time.Hour, start)
	}
	if err := s.flush(); err != nil { // as it is once a second
		t.Fatal(err)
	}
	put(t, s, "later", "may be lost", time.Hour, start)
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	after := opened(t, copied, Options{})
	for i := range 1000 {
		if got, g := get(t, after, fmt.Sprint("k", i), start), seen(t, after, fmt.Sprint("k", i), time.Hour, start); got != "one" || g.Count != 1 {
			t.Fatalf("key %d: value %q, %+v", i, got, g)
		}
	}
}

// TestDiskFails lets the disk refuse all writes for a while: nothing is lost of
// what memory holds, calls fail when it is full, and all goes on afterwards.
func TestDiskFails(t *testing.T) {
	var failing atomic.Bool
	s := opened(t, t.TempDir(), Options{fault: func() error {
		if failing.Load() {
			return syscall.ENOSPC
		}
		return nil
	}})
	put(t, s, "before", "one", time.Hour, start)
	failing.Store(true)
	value := make([]byte, MaxValue)
	var err error
	n := 0
	for ; n < 2000 && err == nil; n++ {
		err = s.Put(ctx, fmt.Sprint("k", n), value, time.Hour, start)
	}
	if !errors.Is(err, ErrFull) || n < 100 {
		t.Errorf("put %d on a full disk: %v", n, err)
	}
	if err := s.flush(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("flush: %v", err)
	}
	if got := get(t, s, "k1", start); len(got) != MaxValue {
		t.Errorf("what memory holds has %d octets", len(got))
	}
	failing.Store(false)
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	put(t, s, "after", "two", time.Hour, start)
	for key, want := range map[string]int{"before": 3, "k0": MaxValue, fmt.Sprint("k", n-2): MaxValue, "after": 3} {
		if got := get(t, s, key, start); len(got) != want {
			t.Errorf("%s has %d octets, want %d", key, len(got), want)
		}
	}
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.octets != 0 || s.flushing != nil {
		t.Errorf("%d octets are left in memory", s.octets)
	}
}

// TestFailingIsSaidOnce: complaints come once a minute, and the end is said.
func TestFailingIsSaidOnce(t *testing.T) {
	var failing atomic.Bool
	failing.Store(true)
	tried := make(chan struct{}, 1)
	lines := make(chan string, 100)
	s := opened(t, t.TempDir(), Options{Logger: slog.New(slog.NewTextHandler(writer(lines), nil)), fault: func() error {
		select {
		case tried <- struct{}{}:
		default:
		}
		if failing.Load() {
			return syscall.EIO
		}
		return nil
	}})
	put(t, s, "k", "one", time.Hour, start)
	s.wake()
	for range 2 { // at once, and with the next tick
		<-tried
	}
	failing.Store(false)
	var said []string
	for len(said) == 0 || !strings.Contains(said[len(said)-1], "state is written again") {
		said = append(said, <-lines)
	}
	if len(said) != 2 || !strings.Contains(said[0], "level=WARN") || !strings.Contains(said[0], "state cannot be written") {
		t.Errorf("said %q", said)
	}
}

// writer hands lines on.
type writer chan string

func (w writer) Write(b []byte) (int, error) {
	w <- string(b)
	return len(b), nil
}

// TestOverwritingNeedsNoRoom: what takes the place of something as large is
// written even if memory is full.
func TestOverwritingNeedsNoRoom(t *testing.T) {
	s := opened(t, t.TempDir(), Options{fault: func() error { return syscall.ENOSPC }})
	value := make([]byte, MaxValue)
	n := 0
	for ; s.Put(ctx, fmt.Sprint("k", n), value, time.Hour, start) == nil; n++ {
	}
	if n > maxPending/MaxValue || n < maxPending/MaxValue-16 {
		t.Errorf("memory held %d values", n)
	}
	var err error
	for i := range n { // a flush may have begun, after which the old one still takes its room
		if err = s.Put(ctx, fmt.Sprint("k", i), value[1:], time.Hour, start); err == nil {
			break
		}
	}
	s.mu.RLock()
	waiting := len(s.pending)
	s.mu.RUnlock()
	if waiting > 0 && err != nil {
		t.Errorf("put again: %v", err)
	}
	if err := s.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("close: %v", err)
	}
}

// TestKillProcess ends a process that writes, and reads what it had synced.
func TestKillProcess(t *testing.T) {
	if dir := os.Getenv("WAFER_STATE_CHILD"); dir != "" {
		s, err := Open(dir, Options{})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		for i := 0; ; i++ {
			_ = s.Put(ctx, fmt.Sprint("k", i), []byte("x"), time.Hour, start)
			if i%100 == 99 {
				if err := s.flush(); err != nil {
					fmt.Println(err)
					os.Exit(1)
				}
				fmt.Println(i)
			}
		}
	}
	dir := t.TempDir()
	for range 5 {
		cmd := exec.Command(os.Args[0], "-test.run", "TestKillProcess")
		cmd.Env = append(os.Environ(), "WAFER_STATE_CHILD="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last := -1
		for r := bufio.NewScanner(out); last < 1999 && r.Scan(); {
			if last, err = strconv.Atoi(r.Text()); err != nil {
				t.Fatal(r.Text())
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		s := opened(t, dir, Options{})
		for i := range last + 1 {
			if got := get(t, s, fmt.Sprint("k", i), start); got != "x" {
				t.Fatalf("key %d of %d: %q", i, last, got)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
