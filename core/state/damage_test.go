package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestDamage(t *testing.T) {
	rows := []struct {
		name  string
		spoil func(b []byte) []byte
		aside bool // for certain
	}{
		{"garbage", func([]byte) []byte { return bytes.Repeat([]byte("nonsense"), 4096) }, true},
		{"short", func([]byte) []byte { return []byte("x") }, true},
		{"both metas", func(b []byte) []byte { clear(b[16:8192]); return b }, true},
		{"half", func(b []byte) []byte { return b[:len(b)/2/4096*4096] }, true},
		{"all pages", func(b []byte) []byte { clear(b[8192:]); return b }, false},
		{"nothing", func([]byte) []byte { return nil }, false},
	}
	good := filled(t)
	for i := 8192; i < len(good); i += 499 {
		rows = append(rows, struct {
			name  string
			spoil func(b []byte) []byte
			aside bool
		}{fmt.Sprint("octet ", i), func(b []byte) []byte { b[i] ^= 0x55; return b }, false})
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, fileName), r.spoil(bytes.Clone(good)), 0o600); err != nil {
				t.Fatal(err)
			}
			if broken := use(t, dir); broken && len(matches(t, dir, fileName+".broken-*")) == 0 {
				t.Error("what was found to be damaged is not set aside")
			}
			if aside := len(matches(t, dir, fileName+".broken-20260101T120000.000Z")) == 1; r.aside && !aside {
				t.Error("not set aside")
			}
		})
	}
}

// use works with a store for a while: errors of reading are fine, the end of the
// process is not, and what is written in the end is there. It returns whether
// damage was met.
func use(t *testing.T, dir string) (broken bool) {
	t.Helper()
	s, err := Open(dir, Options{Now: func() time.Time { return start }})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		_, _, err := s.Get(ctx, fmt.Sprint("k", i), start)
		broken = broken || errors.Is(err, errDamaged)
	}
	_, err = s.List("", 1000)
	broken = broken || errors.Is(err, errDamaged)
	for i := range 300 {
		put(t, s, fmt.Sprint("k", i), "x", time.Hour, start)
	}
	put(t, s, "new", "x", time.Hour, start)
	if err := s.flush(); err != nil {
		t.Errorf("flush: %v", err)
	}
	if err := s.sweep(); err != nil {
		t.Errorf("sweep: %v", err)
	}
	if got, _, err := s.Get(ctx, "new", start); string(got) != "x" || err != nil {
		t.Errorf("what was written is %q, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	return broken
}

// filled is a file with some records.
func filled(t *testing.T) []byte {
	dir := t.TempDir()
	s := opened(t, dir, Options{})
	for i := range 300 {
		put(t, s, fmt.Sprint("k", i), strings.Repeat("v", i), time.Hour, start)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func matches(t *testing.T, dir, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestTruncated: wherever a file ends, the store opens and works.
func TestTruncated(t *testing.T) {
	good := filled(t)
	for n := 0; n <= len(good); n += 4096 {
		for _, size := range []int{n, n + 100} {
			if size > len(good) {
				continue
			}
			t.Run(fmt.Sprint(size), func(t *testing.T) {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, fileName), good[:size], 0o600); err != nil {
					t.Fatal(err)
				}
				use(t, dir)
			})
		}
	}
}

// TestDamageWhileRunning cuts the file short under the store's feet: it goes on
// with an empty one.
func TestDamageWhileRunning(t *testing.T) {
	for _, first := range []string{"read", "written"} {
		t.Run("found when it is "+first, func(t *testing.T) {
			dir := t.TempDir()
			s := opened(t, dir, Options{})
			for i := range 300 {
				put(t, s, fmt.Sprint("k", i), strings.Repeat("v", i), time.Hour, start)
			}
			if err := s.flush(); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(filepath.Join(dir, fileName), 0); err != nil {
				t.Fatal(err)
			}
			if first == "read" {
				var readers sync.WaitGroup
				readers.Go(func() {
					if _, _, err := s.Get(ctx, "k7", start); !errors.Is(err, errDamaged) {
						t.Errorf("get: %v", err)
					}
				})
				readers.Wait()
			}
			put(t, s, "new", "x", time.Hour, start)
			if err := s.flush(); err != nil {
				t.Fatal(err)
			}
			if a, b := get(t, s, "k7", start), get(t, s, "new", start); a != "-" || b != "x" {
				t.Errorf("then %q and %q", a, b)
			}
			if len(matches(t, dir, fileName+".broken-*")) != 1 {
				t.Error("not set aside")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if got := get(t, opened(t, dir, Options{}), "new", start); got != "x" {
				t.Errorf("after a restart: %q", got)
			}
		})
	}
}

// TestDamageOnAFullDisk: until there is a new file, memory serves.
func TestDamageOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, dir, Options{})
	put(t, s, "old", "x", time.Hour, start)
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	s.file.Load().broken.Store(true)
	away := dir + ".away"
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	put(t, s, "new", "x", time.Hour, start)
	if err := s.flush(); err == nil {
		t.Error("flushed to nowhere")
	}
	if a, b := get(t, s, "old", start), get(t, s, "new", start); a != "-" || b != "x" {
		t.Errorf("meanwhile %q and %q", a, b)
	}
	if all, err := s.List("", 10); err != nil {
		t.Errorf("list: %+v, %v", all, err)
	}
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the folder is back, and in it the old file
		if err := s.flush(); err != nil {
			t.Error(err)
		}
	}
	if got := get(t, s, "new", start); got != "x" {
		t.Errorf("in the end %q", got)
	}
}

// TestPlace: what is no damage is not set aside.
func TestPlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.db")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, Options{}); err == nil {
		t.Error("opened a file in the folder's place")
	}
	if _, err := Open(filepath.Join(t.TempDir(), "a", "b"), Options{}); err == nil {
		t.Error("opened without a parent")
	}
}
