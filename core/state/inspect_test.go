package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestListAcrossWindows: what is in memory, what is on disk and what is in both
// come in one order, each once.
func TestListAcrossWindows(t *testing.T) {
	s := opened(t, t.TempDir(), Options{Now: func() time.Time { return start }})
	var want []string
	for i := range 3*window + 7 {
		k := fmt.Sprintf("p\x00%05d", i)
		switch {
		case i%5 == 4:
			put(t, s, k, "gone", time.Hour, start)
		default:
			put(t, s, k, "old", time.Hour, start)
			want = append(want, k)
		}
	}
	put(t, s, "p", "another prefix", time.Hour, start)
	put(t, s, "p\x01", "another prefix", time.Hour, start)
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	for i := range 3*window + 7 {
		k := fmt.Sprintf("p\x00%05d", i)
		switch {
		case i%5 == 4:
			put(t, s, k, "", 0, start) // deleted in memory only
		case i%3 == 0:
			put(t, s, k, "new", time.Hour, start)
		}
		if i%2 == 0 {
			put(t, s, k+"a", "new", time.Hour, start)
			want = append(want, k+"a")
		}
	}
	slices.Sort(want)
	for _, limit := range []int{0, 1, window, window + 1, 1 << 20} {
		all, err := s.List("p\x00", limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range all {
			got = append(got, e.Key)
		}
		if !slices.Equal(got, want[:min(limit, len(want))]) {
			t.Errorf("limit %d: %d of %d keys, or not in order", limit, len(got), len(want))
		}
	}
	if n, err := s.Delete("p\x00", false); n != len(want) || err != nil {
		t.Errorf("deleted %d of %d, %v", n, len(want), err)
	}
	if all, err := s.List("", 10); err != nil || len(all) != 2 {
		t.Errorf("left: %+v, %v", all, err)
	}
}

// TestInspectWhileWriting: those who look and delete and those who write do not
// hinder each other, and each sighting is either counted or deleted.
func TestInspectWhileWriting(t *testing.T) {
	s := opened(t, t.TempDir(), Options{Now: func() time.Time { return start }})
	quit := make(chan struct{})
	var lookers, writers sync.WaitGroup
	for range 2 {
		lookers.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				all, err := s.List("w\x00", 500)
				if err != nil {
					t.Error(err)
					return
				}
				if !slices.IsSortedFunc(all, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) }) {
					t.Error("not in order")
					return
				}
			}
		})
	}
	lookers.Go(func() {
		for range 10 {
			if _, err := s.Delete("other\x00", false); err != nil {
				t.Error(err)
			}
		}
	})
	for w := range 4 {
		writers.Go(func() {
			for i := range 2000 {
				if _, err := s.Seen(ctx, fmt.Sprintf("w\x00%d", i%100), time.Hour, start); err != nil {
					t.Error(err)
					return
				}
				if err := s.Put(ctx, fmt.Sprintf("other\x00%d/%d", w, i), nil, time.Hour, start); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	close(quit)
	lookers.Wait()
	all, err := s.List("w\x00", 1000)
	if err != nil || len(all) != 100 {
		t.Fatalf("%d records, %v", len(all), err)
	}
	for _, e := range all {
		if e.Sighting.Count != 80 {
			t.Errorf("%s was seen %d times, want 80", e.Key, e.Sighting.Count)
		}
	}
}

// TestSlowDisk: while memory is full and the disk has not failed, writers wait,
// until their time is over or the store is closed.
func TestSlowDisk(t *testing.T) {
	begun, goOn := make(chan struct{}, 100), make(chan struct{})
	s := opened(t, t.TempDir(), Options{fault: func() error {
		begun <- struct{}{}
		<-goOn
		return nil
	}})
	value := make([]byte, MaxValue)
	put(t, s, "first", "x", time.Hour, start)
	s.wake()
	<-begun
	over, cancel := context.WithCancel(ctx)
	cancel()
	n := 0
	var err error
	for ; err == nil; n++ {
		err = s.Put(over, fmt.Sprint("k", n), value, time.Hour, start)
	}
	if !errors.Is(err, ErrFull) || !errors.Is(err, context.Canceled) || n < 400 {
		t.Errorf("put %d, then %v", n, err)
	}
	waited := make(chan error)
	go func() { waited <- s.Put(ctx, "waits", value, time.Hour, start) }()
	close(goOn)
	if err := <-waited; err != nil {
		t.Errorf("after the flush: %v", err)
	}
	if got := get(t, s, "waits", start); len(got) != MaxValue {
		t.Errorf("what waited has %d octets", len(got))
	}
}
