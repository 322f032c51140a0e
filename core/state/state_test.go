package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
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
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), dir+": another process holds it") {
		t.Errorf("opened twice at once: %v", err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, _, getErr := s.Get(ctx, "k", start)
	_, seenErr := s.Seen(ctx, "k", time.Hour, start)
	_, listErr := s.List("", 10)
	_, deleteErr := s.Delete("", false)
	for name, err := range map[string]error{
		"Put": s.Put(ctx, "k", nil, time.Hour, start), "Get": getErr, "Seen": seenErr, "List": listErr, "Delete": deleteErr,
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	s = opened(t, dir, Options{})
	if got := get(t, s, "k", start); got != "one" {
		t.Errorf("value after restart: %q", got)
	}
	if g := seen(t, s, "k", time.Hour, start); g.Count != 1 {
		t.Errorf("sighting after restart: %+v", g)
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
