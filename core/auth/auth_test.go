package auth

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeUsers is a map of users that counts lookups.
type fakeUsers struct {
	hashes map[string]string
	err    error
}

func (f fakeUsers) Lookup(user string) (Record, error) {
	if f.err != nil {
		return Record{}, f.err
	}
	h, ok := f.hashes[user]
	if !ok {
		return Record{}, ErrNoUser
	}
	return Record{User: user, Hash: h}, nil
}

// DecoyKeys keeps the rounds, and so the tests' time, low.
func (f fakeUsers) DecoyKeys(user string) (string, int, int) { return canonicalName(user), 4096, 16 }

func (f fakeUsers) HasKeys() bool { return true }

// fakeClock is a clock that waits by moving on.
type fakeClock struct {
	mu    sync.Mutex
	t     time.Time
	waits []time.Duration
}

func newClock() *fakeClock { return &fakeClock{t: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)} }

func (c *fakeClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *fakeClock) wait(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	c.waits = append(c.waits, d)
	return nil
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// takeWaits returns the sum of the waits since the last call.
func (c *fakeClock) takeWaits() (sum time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.waits {
		sum += d
	}
	c.waits = nil
	return sum
}

func newTestService(t *testing.T, hashes map[string]string) (*Service, *fakeClock) {
	t.Helper()
	clock := newClock()
	s := NewService(Config{
		Users:    fakeUsers{hashes: hashes},
		Throttle: NewThrottle(ThrottleOptions{Now: clock.now, Wait: clock.wait}),
		Now:      clock.now,
	})
	s.decoy = "{PLAIN}nobody's" // as cheap as the rest
	return s, clock
}

func peer(addr string) Peer {
	return Peer{Addr: netip.MustParseAddr(addr), Protocol: "pop3", TLS: true}
}

func TestLogin(t *testing.T) {
	s, _ := newTestService(t, map[string]string{"a@x.test": "{PLAIN}secret", "locked@x.test": "!"})
	for _, row := range []struct {
		name, user, password string
		want                 error
	}{
		{"right", "a@x.test", "secret", nil},
		{"wrong", "a@x.test", "other", ErrCredentials},
		{"unknown user", "b@x.test", "secret", ErrCredentials},
		{"locked", "locked@x.test", "!", ErrCredentials},
		{"empty password", "a@x.test", "", ErrCredentials},
		{"long password", "a@x.test", strings.Repeat("x", MaxPassword+1), ErrCredentials},
		{"long name", strings.Repeat("x", 100000), "secret", ErrCredentials},
	} {
		who, err := s.Login(t.Context(), row.user, row.password, peer("192.0.2.1"))
		if !errors.Is(err, row.want) || (err == nil) != (who.User != "") {
			t.Errorf("%s: Login = %v, %v; want %v", row.name, who, err, row.want)
		}
	}
}

func TestLoginTemporary(t *testing.T) {
	s := NewService(Config{Users: fakeUsers{err: errors.New("disk on fire")}})
	if _, err := s.Login(t.Context(), "a", "b", peer("::1")); !errors.Is(err, ErrTemporary) {
		t.Errorf("users unreadable: %v", err)
	}
	s = NewService(Config{Users: fakeUsers{hashes: map[string]string{"a": "{MD5}x"}}})
	if _, err := s.Login(t.Context(), "a", "b", peer("::1")); !errors.Is(err, ErrTemporary) {
		t.Errorf("hash unusable: %v", err)
	}
	s = NewService(Config{Users: fakeUsers{hashes: map[string]string{"a": "{PLAIN}b"}}, MaxConcurrent: 1})
	s.slots <- struct{}{} // somebody else's hashing
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Login(ctx, "a", "b", peer("::1")); !errors.Is(err, ErrTemporary) || !errors.Is(err, context.Canceled) {
		t.Errorf("no slot: %v", err)
	}
}

func TestPositiveCache(t *testing.T) {
	s, clock := newTestService(t, map[string]string{"a": "{PLAIN}b"})
	login := func(want bool) {
		t.Helper()
		if _, err := s.Login(t.Context(), "a", "b", peer("::1")); (err == nil) != want {
			t.Errorf("Login: %v", err)
		}
	}
	login(true)
	for range cap(s.slots) {
		s.slots <- struct{}{} // no hashing is possible any more
	}
	login(true) // remembered
	if s.recent.has(s.recent.mac("success", "a", "{PLAIN}c", "b")) {
		t.Error("a changed hash is still remembered")
	}
	clock.advance(recentLife)
	if s.recent.has(s.recent.mac("success", "a", "{PLAIN}b", "b")) {
		t.Error("a success is remembered for ever")
	}
	for i := range 3 * recentSize {
		s.recent.add(s.recent.mac(string(rune(i))))
	}
	if n := len(s.recent.until); n > recentSize || n != s.recent.order.Len() {
		t.Errorf("%d successes are remembered, %d in order", n, s.recent.order.Len())
	}
}

// The unknown user's hash must be as costly as a known one's, whatever the file holds.
func TestDecoyCostsTheSame(t *testing.T) {
	for name, hash := range dovecotHashes() {
		if strings.Contains(name, "plain") || name == "cleartext" {
			continue
		}
		f := openText(t, "a:"+hash+"\nb:"+hash+"\nc:{PLAIN}x\n")
		s := NewService(Config{Users: NewDomains(map[string]*File{"x.test": f})})
		for _, user := range []string{"nobody@x.test"} {
			rec, err := s.lookup(user)
			if err != nil || rec.User != "" {
				t.Fatalf("lookup = %v, %v", rec, err)
			}
			known, err1 := parseHash(hash)
			decoy, err2 := parseHash(rec.Hash)
			if err1 != nil || err2 != nil || known.cost() != decoy.cost() {
				t.Errorf("%s: unknown user costs %v, known one %v", name, decoy, known)
			}
		}
	}
}

func TestRecordPermits(t *testing.T) {
	for _, row := range []struct {
		name   string
		fields map[string]string
		addr   string
		want   bool
	}{
		{"no fields", nil, "192.0.2.1", true},
		{"nologin", map[string]string{"nologin": ""}, "192.0.2.1", false},
		{"inside", map[string]string{"allow_nets": "10.0.0.0/8,192.0.2.0/24"}, "192.0.2.1", true},
		{"outside", map[string]string{"allow_nets": "10.0.0.0/8"}, "192.0.2.1", false},
		{"single address", map[string]string{"allow_nets": "192.0.2.1"}, "192.0.2.1", true},
		{"mapped", map[string]string{"allow_nets": "192.0.2.1"}, "::ffff:192.0.2.1", true},
		{"IPv6", map[string]string{"allow_nets": "2001:db8::/32"}, "2001:db8::1", true},
		{"empty list", map[string]string{"allow_nets": ""}, "192.0.2.1", false},
	} {
		if got := (Record{Fields: row.fields}).permits(peer(row.addr)); got != row.want {
			t.Errorf("%s: permits = %v, want %v", row.name, got, row.want)
		}
	}
}
