package srs

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

func path(t testing.TB, s string) mail.Path {
	t.Helper()
	if s == "" {
		return mail.Path{}
	}
	p, err := mail.ParsePath(s, true)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return p
}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func rewriter(t testing.TB, domain string, secrets ...string) *Rewriter {
	t.Helper()
	var bs [][]byte
	for _, s := range secrets {
		bs = append(bs, []byte(s))
	}
	r, err := New(bs, domain, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRoundTrip: what goes out comes back, through one, two and three forwarders.
func TestRoundTrip(t *testing.T) {
	a, b, c := rewriter(t, "a.example", "one"), rewriter(t, "b.example", "two"), rewriter(t, "c.example", "three")
	for _, s := range []string{"ann@example.net", "o=k@example.net", `"a b"@example.net`, "bób@exämple.net", "x+y@sub.example.net"} {
		from := path(t, s)
		one, err := a.Forward(from, now)
		if err != nil || !strings.HasPrefix(one.Local(), "SRS0=") || one.Domain() != "a.example" {
			t.Fatalf("%s: %s (%v)", s, one, err)
		}
		two, err := b.Forward(one, now)
		if err != nil || !strings.HasPrefix(two.Local(), "SRS1=") || !strings.Contains(two.Local(), "=a.example==") {
			t.Fatalf("%s: %s (%v)", s, two, err)
		}
		three, err := c.Forward(two, now)
		if err != nil || !strings.Contains(three.Local(), "=a.example==") {
			t.Fatalf("%s: %s (%v)", s, three, err)
		}
		back, err := c.Reverse(three, now) // straight to the first
		if err != nil || back != one {
			t.Errorf("%s: %s (%v), want %s", s, back, err, one)
		}
		if back, err = b.Reverse(two, now); err != nil || back != one {
			t.Errorf("%s: %s (%v), want %s", s, back, err, one)
		}
		back, err = a.Reverse(one.WithLocal(strings.ToLower(one.Local())), now.Add(20*24*time.Hour))
		if err != nil || !strings.EqualFold(back.Key(), from.Key()) {
			t.Errorf("%s: %s (%v), want %s", s, back, err, from)
		}
	}
}

// TestReverse: what is not taken back.
func TestReverse(t *testing.T) {
	r := rewriter(t, "a.example", "new", "old")
	good, err := rewriter(t, "a.example", "old").Forward(path(t, "ann@example.net"), now)
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name, in string
		at       time.Time
		err      error
	}{
		{"older secret", good.String(), now, nil},
		{"next day", good.String(), now.Add(24 * time.Hour), nil},
		{"our clock is behind", good.String(), now.Add(-24 * time.Hour), nil},
		{"too old", good.String(), now.Add(22 * 24 * time.Hour), ErrExpired},
		{"another address", strings.Replace(good.String(), "ann", "eve", 1), now, ErrHash},
		{"another domain within", strings.Replace(good.String(), "example.net", "example.com", 1), now, ErrHash},
		{"another day", strings.Replace(good.String(), "="+stamp(now)+"=", "=AA=", 1), now, ErrHash},
		{"hash cut short", strings.Replace(good.String(), good.Local()[5:9], good.Local()[5:6], 1), now, ErrHash},
		{"no SRS", "ann@a.example", now, ErrNotSRS},
		{"not our domain", good.WithDomain("b.example").String(), now, ErrNotSRS},
		{"a tag alone", "SRS0=@a.example", now, ErrNotSRS},
		{"SRS1 of nothing", "SRS1=abcd=x=y@a.example", now, ErrNotSRS},
		{"forged SRS1", "SRS1=AAAA=victim.example==HHHH=TT=example.net=ann@a.example", now, ErrHash},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p, err := r.Reverse(path(t, row.in), row.at)
			if !errors.Is(err, row.err) {
				t.Errorf("%s: %s (%v), want %v", row.in, p, err, row.err)
			}
		})
	}
}

// TestForward: what stays as it is.
func TestForward(t *testing.T) {
	r := rewriter(t, "a.example", "one")
	for in, want := range map[string]error{"": nil, "ann@a.example": nil, strings.Repeat("x", 60) + "@example.net": ErrTooLong} {
		p := path(t, in)
		if got, err := r.Forward(p, now); !errors.Is(err, want) || err == nil && got != p {
			t.Errorf("%q: %q (%v)", in, got, err)
		}
	}
	if _, err := New(nil, "a.example", Options{}); err == nil {
		t.Error("no secret")
	}
	if _, err := New([][]byte{{1}}, "a.example", Options{Separator: '@'}); err == nil {
		t.Error("separator")
	}
}

// FuzzReverse: only what Forward made comes back.
func FuzzReverse(f *testing.F) {
	for _, s := range []string{"SRS0=AAAA=BB=example.net=ann", "SRS1=AAAA=example.net==BBBB=CC=example.com=bob", "srs0+x=y=z=", "SRS0-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, local string) {
		r := rewriter(t, "a.example", "one")
		p, err := r.Reverse(mail.Path{}.WithLocal(local).WithDomain("a.example"), now)
		if err != nil {
			return
		}
		again, err := r.Forward(p, now)
		if err != nil && !errors.Is(err, ErrTooLong) {
			t.Errorf("%q came back as %s, which cannot be sent on: %v", local, p, err)
		}
		_ = again
	})
}
