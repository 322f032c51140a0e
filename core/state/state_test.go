package state

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

var _ policy.State = (*Store)(nil)

var (
	ctx   = context.Background()
	start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
)

func opened(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func put(t *testing.T, s *Store, key, value string, ttl time.Duration, now time.Time) {
	t.Helper()
	if err := s.Put(ctx, key, []byte(value), ttl, now); err != nil {
		t.Fatal(err)
	}
}

// get returns "value", or "-" for none.
func get(t *testing.T, s *Store, key string, now time.Time) string {
	t.Helper()
	v, ok, err := s.Get(ctx, key, now)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return "-"
	}
	return string(v)
}

func seen(t *testing.T, s *Store, key string, ttl time.Duration, now time.Time) policy.Sighting {
	t.Helper()
	g, err := s.Seen(ctx, key, ttl, now)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestValues(t *testing.T) {
	s := opened(t, t.TempDir(), Options{})
	if got := get(t, s, "k", start); got != "-" {
		t.Errorf("before: %q", got)
	}
	put(t, s, "k", "one", time.Hour, start)
	put(t, s, "k2", "", time.Hour, start)
	rows := []struct {
		name, key, want string
		after           time.Duration
	}{
		{"at once", "k", "one", 0},
		{"empty", "k2", "", 0},
		{"another", "k3", "-", 0},
		{"last moment", "k", "one", time.Hour - 1},
		{"over", "k", "-", time.Hour},
	}
	for _, r := range rows {
		if got := get(t, s, r.key, start.Add(r.after)); got != r.want {
			t.Errorf("%s: got %q, want %q", r.name, got, r.want)
		}
	}
	put(t, s, "k", "two", 2*time.Hour, start)
	if got := get(t, s, "k", start.Add(time.Hour)); got != "two" {
		t.Errorf("put again: %q", got)
	}
	put(t, s, "k", "", 0, start)
	if got := get(t, s, "k", start); got != "-" {
		t.Errorf("deleted: %q", got)
	}
}

func TestSightings(t *testing.T) {
	s := opened(t, t.TempDir(), Options{})
	if g := seen(t, s, "k", time.Hour, start); g.Count != 0 || !g.First.IsZero() || !g.Last.IsZero() {
		t.Errorf("first: %+v", g)
	}
	put(t, s, "k", "a value is another thing", time.Hour, start)
	if g := seen(t, s, "k", time.Hour, start.Add(30*time.Minute)); g.Count != 1 || !g.First.Equal(start) || !g.Last.Equal(start) {
		t.Errorf("second: %+v", g)
	}
	if g := seen(t, s, "k", time.Hour, start.Add(80*time.Minute)); g.Count != 2 || !g.First.Equal(start) || !g.Last.Equal(start.Add(30*time.Minute)) {
		t.Errorf("third, its time having begun anew: %+v", g)
	}
	if g := seen(t, s, "k", time.Hour, start.Add(3*time.Hour)); g.Count != 0 {
		t.Errorf("after its time: %+v", g)
	}
}

func TestLimits(t *testing.T) {
	s := opened(t, t.TempDir(), Options{})
	long := strings.Repeat("k", MaxKey+1)
	_, seenLong := s.Seen(ctx, long, time.Hour, start)
	_, _, getLong := s.Get(ctx, long, start)
	_, seenNever := s.Seen(ctx, "k", 0, start)
	_, seenForever := s.Seen(ctx, "k", MaxTTL+1, start)
	for name, err := range map[string]error{
		"key of Put": s.Put(ctx, long, nil, time.Hour, start), "key of Get": getLong, "key of Seen": seenLong,
		"value": s.Put(ctx, "k", make([]byte, MaxValue+1), time.Hour, start), "ttl of Put": s.Put(ctx, "k", nil, MaxTTL+1, start),
		"no ttl of Seen": seenNever, "ttl of Seen": seenForever,
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	most := strings.Repeat("v", MaxValue)
	put(t, s, long[1:], most, MaxTTL, start)
	if got := get(t, s, long[1:], start); got != most {
		t.Errorf("largest value has %d octets", len(got))
	}
}

func TestRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "policy.db")
	s := opened(t, dir, Options{})
	put(t, s, "k", "one", time.Hour, start)
	seen(t, s, "k", time.Hour, start)
	if _, err := Open(dir, Options{}); err == nil {
		t.Error("opened twice at once")
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put(ctx, "k", nil, time.Hour, start); !errors.Is(err, ErrClosed) {
		t.Errorf("put after Close: %v", err)
	}
	s = opened(t, dir, Options{})
	if got := get(t, s, "k", start); got != "one" {
		t.Errorf("value after restart: %q", got)
	}
	if g := seen(t, s, "k", time.Hour, start); g.Count != 1 {
		t.Errorf("sighting after restart: %+v", g)
	}
}

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

func TestConcurrent(t *testing.T) {
	s := opened(t, t.TempDir(), Options{Now: func() time.Time { return start }})
	const workers, rounds = 16, 200
	counts := make([][rounds]int64, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				g, err := s.Seen(ctx, "one", time.Hour, start)
				if err != nil {
					t.Error(err)
					return
				}
				counts[w][i] = g.Count
				if _, _, err := s.Get(ctx, "two", start); err != nil {
					t.Error(err)
				}
				if err := s.Put(ctx, "two", []byte("x"), time.Hour, start); err != nil {
					t.Error(err)
				}
				if i == rounds/2 {
					if err := s.sweep(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	had := map[int64]bool{}
	for _, row := range counts {
		for _, n := range row {
			had[n] = true
		}
	}
	if g := seen(t, s, "one", time.Hour, start); len(had) != workers*rounds || g.Count != workers*rounds {
		t.Errorf("%d different counts, then %+v, want %d", len(had), g, workers*rounds)
	}
}

func TestSweep(t *testing.T) {
	now := start
	s := opened(t, t.TempDir(), Options{Now: func() time.Time { return now }})
	put(t, s, "short", "x", time.Hour, start)
	put(t, s, "long", "x", 3*time.Hour, start)
	seen(t, s, "short", time.Hour, start)
	seen(t, s, "long", 3*time.Hour, start)
	now = start.Add(2 * time.Hour)
	if err := s.sweep(); err != nil {
		t.Fatal(err)
	}
	now = start // what is listed now was not taken away
	all, err := s.List("", 10)
	if err != nil || len(all) != 2 || all[0].Key != "long" || all[1].Key != "long" {
		t.Errorf("got %+v, %v", all, err)
	}
}

// TestFull checks that what expires next makes room.
func TestFull(t *testing.T) {
	var log bytes.Buffer
	s := opened(t, t.TempDir(), Options{
		Now: func() time.Time { return start }, MaxOctets: 200_000, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	value := strings.Repeat("v", 1000)
	for i := range 150 {
		put(t, s, fmt.Sprint("short", i), value, time.Hour+time.Duration(i)*time.Minute, start)
		put(t, s, fmt.Sprint("long", i), value, 48*time.Hour, start)
	}
	if err := s.sweep(); err != nil {
		t.Fatal(err)
	}
	all, err := s.List("", 1000)
	if err != nil {
		t.Fatal(err)
	}
	long, octets := 0, 0
	for _, e := range all {
		octets += len(e.Key) + len(e.Value)
		if strings.HasPrefix(e.Key, "long") {
			long++
		}
	}
	if long != 150 || octets > 200_000 || octets < 100_000 {
		t.Errorf("%d of what lasts and %d octets are left", long, octets)
	}
}

func TestListAndDelete(t *testing.T) {
	s := opened(t, t.TempDir(), Options{Now: func() time.Time { return start }})
	put(t, s, "p/a\x00one", "1", time.Hour, start)
	put(t, s, "p/a\x00two", "2", time.Hour, start)
	put(t, s, "p/ab\x00one", "3", time.Hour, start)
	put(t, s, "p/a\x00old", "4", time.Hour, start.Add(-2*time.Hour))
	seen(t, s, "p/a\x00one", time.Hour, start.Add(-time.Minute))
	seen(t, s, "p/a\x00one", time.Hour, start)
	show := func(prefix string, limit int) string {
		all, err := s.List(prefix, limit)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, e := range all {
			fmt.Fprintf(&b, "%q=%s/%d ", e.Key, e.Value, e.Sighting.Count)
		}
		return b.String()
	}
	if got, want := show("p/a\x00", 10), `"p/a\x00one"=1/0 "p/a\x00two"=2/0 "p/a\x00one"=/2 `; got != want {
		t.Errorf("list:\n got %s\nwant %s", got, want)
	}
	if got, want := show("p/a", 3), `"p/a\x00one"=1/0 "p/a\x00two"=2/0 "p/ab\x00one"=3/0 `; got != want {
		t.Errorf("list of three:\n got %s\nwant %s", got, want)
	}
	if n, err := s.Delete("p/a\x00o", true); n != 0 || err != nil {
		t.Errorf("deleted %d that are not there, %v", n, err)
	}
	if n, err := s.Delete("p/a\x00two", true); n != 1 || err != nil {
		t.Errorf("deleted %d of one, %v", n, err)
	}
	if n, err := s.Delete("p/a\x00", false); n != 2 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
	if got, want := show("", 10), `"p/ab\x00one"=3/0 `; got != want {
		t.Errorf("after:\n got %s\nwant %s", got, want)
	}
	if g := seen(t, s, "p/a\x00one", time.Hour, start); g.Count != 0 {
		t.Errorf("deleted sighting: %+v", g)
	}
	put(t, s, "\xff\xff", "last", time.Hour, start)
	if got, want := show("\xff", 10), `"\xff\xff"=last/0 `; got != want {
		t.Errorf("last key:\n got %s\nwant %s", got, want)
	}
}

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
	for i := 8192; i < len(good); i += 997 {
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
			use := func() (broken bool) {
				s, err := Open(dir, Options{Now: func() time.Time { return start }})
				if err != nil {
					t.Fatal(err)
				}
				for i := range 300 { // an error is fine, the end of the process is not
					_, _, err := s.Get(ctx, fmt.Sprint("k", i), start)
					broken = broken || errors.Is(err, errDamaged)
				}
				_ = s.Put(ctx, "new", []byte("x"), time.Hour, start)
				broken = broken || errors.Is(s.flush(), errDamaged)
				_ = s.Close()
				return broken
			}
			broken := use()
			aside := len(matches(t, dir, fileName+".broken-20260101T120000.000Z")) == 1
			if r.aside && !aside {
				t.Error("not set aside")
			}
			if broken {
				if use() || len(matches(t, dir, fileName+".broken-*")) == 0 {
					t.Error("what was found damaged is used again")
				}
			}
		})
	}
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
	if s.octets != len("vafter")+headLen+3 {
		t.Errorf("%d octets are pending", s.octets)
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

func BenchmarkSeen(b *testing.B) {
	s := opened(b, b.TempDir(), Options{})
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for i := 0; p.Next(); i++ {
			if _, err := s.Seen(ctx, fmt.Sprint("inbound/greylist\x00192.0.2.0/24 alice@example.com ", i%100_000), time.Hour, start); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkGet(b *testing.B) {
	s := opened(b, b.TempDir(), Options{})
	for i := range 100_000 {
		if err := s.Put(ctx, fmt.Sprint("inbound/greylist\x00", i), []byte("1795000000000+"), time.Hour, start); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.flush(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for i := 0; p.Next(); i++ {
			if _, _, err := s.Get(ctx, fmt.Sprint("inbound/greylist\x00", i%100_000), start); err != nil {
				b.Fatal(err)
			}
		}
	})
}
