package auth

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestThrottleGrowsAndForgives(t *testing.T) {
	s, clock := newTestService(t, map[string]string{"a": "{PLAIN}right", "b": "{PLAIN}right"})
	login := func(user, password, addr string) time.Duration {
		t.Helper()
		_, err := s.Login(t.Context(), user, password, peer(addr))
		if (err == nil) != (password == "right") {
			t.Fatalf("Login(%s, %s): %v", user, password, err)
		}
		return clock.takeWaits()
	}
	for i, want := range []time.Duration{0, 2, 4, 8, 15, 15} {
		if got := login("a", fmt.Sprint("wrong", i), "192.0.2.1"); got != want*time.Second {
			t.Errorf("attempt %d waited %v, want %vs", i, got, want)
		}
	}
	if got := login("b", "right", "192.0.2.1"); got != 15*time.Second {
		t.Errorf("another user at the address waited %v", got)
	}
	if got := login("b", "right", "192.0.2.1"); got != 0 {
		t.Errorf("a user who has logged in here waited %v", got)
	}
	if got := login("a", "right", "198.51.100.1"); got != 8*time.Second {
		t.Errorf("the user from elsewhere waited %v, want 8s for 6 failures", got)
	}
	if got := login("a", "right", "192.0.2.1"); got != 15*time.Second {
		t.Errorf("the user himself waited %v", got)
	}
	// His success forgave his failures for the address, too.
	if got := login("c", "wrong", "192.0.2.1"); got != 0 {
		t.Errorf("after the success the address still waits %v", got)
	}
	clock.advance(10 * halfLife)
	if got := login("c", "wrong again", "192.0.2.1"); got != 0 {
		t.Errorf("much later: %v", got)
	}
}

func TestThrottleSamePasswordDoesNotRaise(t *testing.T) {
	s, clock := newTestService(t, nil)
	for range 20 {
		_, _ = s.Login(t.Context(), "a", "old", peer("192.0.2.1"))
	}
	clock.takeWaits()
	_, _ = s.Login(t.Context(), "a", "old", peer("192.0.2.1"))
	if got := clock.takeWaits(); got != 2*time.Second {
		t.Errorf("after 20 equal failures the wait is %v, want 2s", got)
	}
	// With more than ten passwords in turn each is news again.
	for i := range 22 {
		_, _ = s.Login(t.Context(), "a", fmt.Sprint(i%11), peer("192.0.2.1"))
	}
	clock.takeWaits()
	_, _ = s.Login(t.Context(), "a", "x", peer("192.0.2.1"))
	if got := clock.takeWaits(); got != 15*time.Second {
		t.Errorf("after 11 passwords in turn the wait is %v, want 15s", got)
	}
}

func TestThrottleOwnAccountBuysNothing(t *testing.T) {
	s, clock := newTestService(t, map[string]string{"mine": "{PLAIN}right"})
	for i := range 10 {
		_, _ = s.Login(t.Context(), "victim", fmt.Sprint(i), peer("192.0.2.1"))
		_, _ = s.Login(t.Context(), "mine", "right", peer("192.0.2.1"))
	}
	clock.takeWaits()
	_, _ = s.Login(t.Context(), "victim", "x", peer("192.0.2.1"))
	if got := clock.takeWaits(); got != 15*time.Second {
		t.Errorf("the guesser waits %v, want 15s", got)
	}
}

func TestThrottleWidths(t *testing.T) {
	for _, row := range []struct{ name, from, near, far string }{
		{"IPv4", "192.0.2.%d", "192.0.2.60", "192.0.2.200"},
		{"IPv6", "2001:db8:1:%d::1", "2001:db8:1:99::1", "2001:db8:2::1"},
	} {
		s, clock := newTestService(t, nil)
		for i := range 50 {
			_, _ = s.Login(t.Context(), fmt.Sprint("user", i), "x", peer(fmt.Sprintf(row.from, i+1)))
		}
		clock.takeWaits()
		_, _ = s.Login(t.Context(), "fresh", "x", peer(row.near))
		if got := clock.takeWaits(); got != 15*time.Second {
			t.Errorf("%s: a neighbour waits %v, want 15s", row.name, got)
		}
		_, _ = s.Login(t.Context(), "fresh2", "x", peer(row.far))
		if got := clock.takeWaits(); got != 2*time.Second {
			t.Errorf("%s: the wider network waits %v, want 2s", row.name, got)
		}
		if _, _ = s.Login(t.Context(), "fresh3", "x", peer("203.0.113.1")); clock.takeWaits() != 0 {
			t.Errorf("%s: a stranger waits", row.name)
		}
	}
}

func TestThrottleHardLimit(t *testing.T) {
	s, clock := newTestService(t, map[string]string{"a": "{PLAIN}right", "regular": "{PLAIN}right"})
	if _, err := s.Login(t.Context(), "regular", "right", peer("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if _, err := s.Login(t.Context(), fmt.Sprint("u", i), "x", peer("192.0.2.1")); !errors.Is(err, ErrCredentials) {
			t.Fatalf("attempt %d: %v", i, err)
		}
	}
	clock.takeWaits()
	if _, err := s.Login(t.Context(), "a", "right", peer("192.0.2.1")); !errors.Is(err, ErrThrottled) {
		t.Errorf("beyond the limit: %v", err)
	}
	if clock.takeWaits() != 0 {
		t.Error("a refused attempt waited")
	}
	if _, err := s.Login(t.Context(), "regular", "right", peer("192.0.2.1")); err != nil {
		t.Errorf("a user known at the address: %v", err)
	}
	if _, err := s.Login(t.Context(), "a", "right", peer("198.51.100.7")); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
	clock.advance(halfLife)
	if _, err := s.Login(t.Context(), "a", "right", peer("192.0.2.1")); err != nil {
		t.Errorf("after the half-life: %v", err)
	}
}

func TestThrottleIsBounded(t *testing.T) {
	th := NewThrottle(ThrottleOptions{})
	for i := range throttleSize + 100 {
		p := peer(fmt.Sprintf("2001:%x:%x::1", i>>8, i&0xff))
		th.begin(p.Addr, fmt.Sprint(i), digest{byte(i), byte(i >> 8)}).failed()
	}
	for s := range scopes {
		if n := len(th.tables[s].entries); n > throttleSize || n != th.tables[s].order.Len() {
			t.Errorf("scope %d has %d entries, %d in order", s, n, th.tables[s].order.Len())
		}
	}
}

// The real timer ends with the context and leaves nothing running; synctest
// fails if a goroutine stays.
func TestThrottleTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewService(Config{Users: fakeUsers{}})
		for i := range 4 {
			_, _ = s.Login(t.Context(), "a", fmt.Sprint(i), peer("192.0.2.1"))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := s.Login(ctx, "a", "5", peer("192.0.2.1"))
		if !errors.Is(err, ErrTemporary) || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("Login = %v after %v", err, time.Since(start))
		}
	})
}

func TestThrottleManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewService(Config{Users: fakeUsers{}, MaxConcurrent: 1})
		done := make(chan time.Duration, 10)
		start := time.Now()
		_, _ = s.Login(t.Context(), "a", "first", peer("192.0.2.1"))
		for i := range 10 {
			go func() {
				_, _ = s.Login(t.Context(), "a", fmt.Sprint(i), peer("192.0.2.1"))
				done <- time.Since(start)
			}()
		}
		var longest time.Duration
		for range 10 {
			longest = max(longest, <-done)
		}
		if longest > 15*time.Second {
			t.Errorf("the longest wait was %v", longest)
		}
	})
}
