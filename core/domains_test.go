package core

import (
	"errors"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/mail"
)

// names is a userList.
type names []string

func (ns names) Has(local string) bool {
	for _, n := range ns {
		if n == local {
			return true
		}
	}
	return false
}

func (names) Fields(string) map[string]string { return nil }

func (ns names) First() (string, bool) {
	if len(ns) == 0 {
		return "", false
	}
	return ns[0], true
}

func path(t *testing.T, s string) mail.Path {
	t.Helper()
	p, err := mail.ParsePath(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func testDomains(t *testing.T) *domains {
	to := func(addrs ...string) (ps []mail.Path) {
		for _, a := range addrs {
			ps = append(ps, path(t, a))
		}
		return ps
	}
	org := &domain{
		name: "example.org", maildir: "/mail/%d/%n", separator: "+", users: names{"ann", "bob"},
		aliases: map[string][]mail.Path{
			"both":  to("ann@example.org", "bob@example.org", "ann@example.org"),
			"ann":   to("ann@example.org", "bob@example.org"), // keeps a copy
			"ping":  to("pong@example.org"),
			"pong":  to("ping@example.org"),
			"out":   to("x@elsewhere.example"),
			"com":   to("eve@example.com"),
			"ghost": to("nobody@example.org"),
		},
	}
	com := &domain{name: "example.com", maildir: "/com/%u", users: names{"eve"}, aliases: map[string][]mail.Path{}, catchAll: path(t, "eve@example.com")}
	for i := range 20 {
		com.aliases["deep"+strings.Repeat("x", i)] = to("deep" + strings.Repeat("x", i+1) + "@example.com")
	}
	return &domains{byName: map[string]*domain{"example.org": org, "example.com": com}, main: org}
}

func TestResolve(t *testing.T) {
	rows := []struct {
		name, in string
		want     string // users, joined
		err      error
	}{
		{"user", "bob@example.org", "bob@example.org", nil},
		{"case", "BOB@Example.ORG", "bob@example.org", nil},
		{"detail", "bob+lists@example.org", "bob@example.org", nil},
		{"detail alone", "+lists@example.org", "", errNoMailbox},
		{"no separator in that domain", "eve+x@example.com", "eve@example.com", nil}, // catch-all
		{"unknown", "nobody@example.org", "", errNoMailbox},
		{"alias to two", "both@example.org", "ann@example.org bob@example.org", nil},
		{"alias that keeps a copy", "ann@example.org", "ann@example.org bob@example.org", nil},
		{"alias with detail", "both+x@example.org", "ann@example.org bob@example.org", nil},
		{"aliases in a circle", "ping@example.org", "", errAliasLoop},
		{"alias to another domain of ours", "com@example.org", "eve@example.com", nil},
		{"alias to another host", "out@example.org", "x@elsewhere.example via out@example.org", nil},
		{"alias to nobody", "ghost@example.org", "", errNoMailbox},
		{"aliases too deep", "deep@example.com", "", errAliasLoop},
		{"catch-all", "whoever@example.com", "eve@example.com", nil},
		{"not ours", "x@elsewhere.example", "", errNotOurs},
		{"bare postmaster", "Postmaster", "ann@example.org", nil},
		{"postmaster without alias", "postmaster@example.org", "ann@example.org", nil},
		{"postmaster falls to the catch-all", "postmaster@example.com", "eve@example.com", nil},
		{"null path", "", "", errNotOurs},
		{"quoted at", `"bob@example.org"@elsewhere.example`, "", errNotOurs},
		{"percent hack", "bob%elsewhere.example@example.org", "", errNotOurs},
	}
	ds := testDomains(t)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			e, err := ds.resolve(path(t, row.in))
			var users []string
			for _, b := range e.boxes {
				users = append(users, b.user)
			}
			for _, f := range e.forwards {
				users = append(users, f.to.String()+" via "+f.via.String())
			}
			if got := strings.Join(users, " "); got != row.want || !errors.Is(err, row.err) {
				t.Errorf("resolve(%q) = %q, %v; want %q, %v", row.in, got, err, row.want, row.err)
			}
		})
	}
}

func TestMailboxPath(t *testing.T) {
	ds := testDomains(t)
	rows := []struct{ user, want string }{
		{"ann@example.org", "/mail/example.org/ann"},
		{"eve@example.com", "/com/eve@example.com"},
		{"../../etc@example.org", ""},
		{"a/b@example.org", ""},
		{".hidden@example.org", ""},
		{"ann", ""},
		{"ann@elsewhere.example", ""},
	}
	for _, row := range rows {
		got, err := ds.mailboxOf(row.user)
		if got != row.want || (err == nil) != (row.want != "") {
			t.Errorf("mailbox of %q = %q, %v; want %q", row.user, got, err, row.want)
		}
	}
}
