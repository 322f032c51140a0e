package auth

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestExchange(t *testing.T) {
	null := func(parts ...string) []byte { return []byte(strings.Join(parts, "\x00")) }
	for _, row := range []struct {
		name, mechanism string
		responses       [][]byte // nil first: no initial response
		challenges      []string
		user            string
		want            error
	}{
		{"plain initial", "PLAIN", [][]byte{null("", "a@x", "pw")}, nil, "a@x", nil},
		{"plain asked", "plain", [][]byte{nil, null("", "a@x", "pw")}, []string{""}, "a@x", nil},
		{"plain same authzid", "PLAIN", [][]byte{null("A@X", "a@x", "pw")}, nil, "a@x", nil},
		{"plain other authzid", "PLAIN", [][]byte{null("b@x", "a@x", "pw")}, nil, "a@x", ErrCredentials},
		{"plain wrong", "PLAIN", [][]byte{null("", "a@x", "no")}, nil, "a@x", ErrCredentials},
		{"plain empty", "PLAIN", [][]byte{{}}, nil, "", ErrMalformed},
		{"plain without authzid", "PLAIN", [][]byte{null("a@x", "pw")}, nil, "", ErrMalformed},
		{"plain four parts", "PLAIN", [][]byte{null("", "a@x", "pw", "")}, nil, "", ErrMalformed},
		{"plain no user", "PLAIN", [][]byte{null("", "", "pw")}, nil, "", ErrMalformed},
		{"plain no password", "PLAIN", [][]byte{null("", "a@x", "")}, nil, "a@x", ErrMalformed},
		{"plain huge", "PLAIN", [][]byte{bytes.Repeat([]byte("x"), MaxResponse+1)}, nil, "", ErrMalformed},
		{"login", "LOGIN", [][]byte{nil, []byte("a@x"), []byte("pw")}, []string{"Username:", "Password:"}, "a@x", nil},
		{"login initial", "login", [][]byte{[]byte("a@x"), []byte("pw")}, []string{"Password:"}, "a@x", nil},
		{"login wrong", "LOGIN", [][]byte{nil, []byte("a@x"), []byte("no")}, []string{"Username:", "Password:"}, "a@x", ErrCredentials},
		{"login empty name", "LOGIN", [][]byte{nil, {}, []byte("pw")}, []string{"Username:", "Password:"}, "", ErrMalformed},
		{"login empty password", "LOGIN", [][]byte{nil, []byte("a@x"), {}}, []string{"Username:", "Password:"}, "a@x", ErrMalformed},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, _ := newTestService(t, map[string]string{"a@x": "{PLAIN}pw"})
			e, err := s.Start(row.mechanism, peer("192.0.2.1"))
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range row.responses {
				challenge, done, err := e.Next(t.Context(), r)
				if i < len(row.challenges) {
					if done || err != nil || string(challenge) != row.challenges[i] {
						t.Fatalf("challenge %d = %q, %v, %v; want %q", i, challenge, done, err, row.challenges[i])
					}
					continue
				}
				if !done || !errors.Is(err, row.want) {
					t.Fatalf("end = %v, %v; want %v", done, err, row.want)
				}
			}
			if e.User() != row.user || (e.Identity().User != "") != (row.want == nil) {
				t.Errorf("User %q, Identity %q", e.User(), e.Identity().User)
			}
			if _, done, err := e.Next(t.Context(), []byte("more")); !done || !errors.Is(err, ErrMalformed) {
				t.Errorf("after the end: %v, %v", done, err)
			}
		})
	}
	s, _ := newTestService(t, nil)
	if _, err := s.Start("CRAM-MD5", peer("::1")); !errors.Is(err, ErrMechanism) {
		t.Errorf("unknown mechanism: %v", err)
	}
}

func FuzzSASL(f *testing.F) {
	f.Add("PLAIN", []byte("\x00a@x\x00pw"), []byte(""))
	f.Add("LOGIN", []byte("a@x"), []byte("pw"))
	f.Add("LOGIN", []byte(""), []byte("pw"))
	f.Add("PLAIN", []byte("a@x\x00a@x\x00pw\x00"), []byte("\x00\x00"))
	f.Fuzz(func(t *testing.T, mechanism string, first, second []byte) {
		clock := newClock()
		s := NewService(Config{
			Users:    fakeUsers{hashes: map[string]string{"a@x": "{PLAIN}pw"}},
			Throttle: NewThrottle(ThrottleOptions{Wait: clock.wait}),
		})
		s.decoy = "{PLAIN}no" // hashing in earnest would only slow the fuzzer down
		e, err := s.Start(mechanism, peer("192.0.2.1"))
		if err != nil {
			return
		}
		_, done, err := e.Next(t.Context(), first)
		if !done {
			_, done, err = e.Next(t.Context(), second)
		}
		if !done {
			t.Fatalf("the exchange does not end: %v", err)
		}
		if (err == nil) != (e.Identity().User == "a@x") {
			t.Fatalf("identity %q with error %v", e.Identity().User, err)
		}
		if err == nil && e.User() != "a@x" {
			t.Fatalf("user %q became a@x", e.User())
		}
	})
}
