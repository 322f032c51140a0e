package lists

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

var _ policy.List = (*List)(nil)

func mustParse(t testing.TB, kind, text string) *contents {
	t.Helper()
	c, err := parse(kind, "list", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFind(t *testing.T) {
	files := map[string]string{
		Table: "# blocked\n\nSpammer@Example.com  REJECT go\n  away\n192.0.2.1\tOK\nbare\n",
		CIDR: "192.0.2.7 first\n192.0.2.0/24 net\n192.0.2.8/32 late\n0.0.0.0/0 world\n2001:db8::/32 six\n::1 loop\n" +
			"10.0.0.0/8 wide\n10.1.0.0/16 narrow\n",
		Regexp: "/^user([0-9]+)@(.*)$/ REJECT $2 has ${1} of $$5 $(1)\n/^Case$/i exact\n/a\\/b/ slash\n/./ rest\n",
	}
	rows := []struct{ kind, key, value string }{
		{Table, "spammer@example.com", "REJECT go away"},
		{Table, "SPAMMER@example.com", "REJECT go away"},
		{Table, "192.0.2.1", "OK"},
		{Table, "bare", ""},
		{Table, "none", "-"},
		{CIDR, "192.0.2.7", "first"},
		{CIDR, "192.0.2.8", "net"},
		{CIDR, "::ffff:192.0.2.8", "net"},
		{CIDR, "198.51.100.1", "world"},
		{CIDR, "10.1.2.3", "world"}, // the world comes first in the file
		{CIDR, "2001:db8::9", "six"},
		{CIDR, "::1", "loop"},
		{CIDR, "::2", "-"},
		{CIDR, "mail.example.com", "-"},
		{CIDR, "192.0.2", "-"},
		{Regexp, "user42@example.com", "REJECT example.com has 42 of $5 42"},
		{Regexp, "USER7@example.com", "REJECT example.com has 7 of $5 7"},
		{Regexp, "Case", "exact"},
		{Regexp, "case", "rest"},
		{Regexp, "xa/bx", "slash"},
		{Regexp, "", "-"},
	}
	for _, row := range rows {
		t.Run(row.kind+" "+row.key, func(t *testing.T) {
			got, ok := mustParse(t, row.kind, files[row.kind]).find(row.key)
			if !ok {
				got = "-"
			}
			if got != row.value {
				t.Errorf("got %q, want %q", got, row.value)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	rows := []struct{ name, kind, text, want string }{
		{"key twice", Table, "a 1\nb 2\nA 3\n", "list:3: a is there already"},
		{"goes on with nothing", Table, "  a 1\n", "list:1: the line begins with blank"},
		{"endless line", Table, "a " + strings.Repeat("x", maxLine+1), "list:1: the line is longer than 65536 octets"},
		{"endless line in pieces", Table, "a 1\n" + strings.Repeat(" "+strings.Repeat("x", 1000)+"\n", 70), "list:1: the line is longer"},
		{"no network", CIDR, "a 1\n", "list:1: a is no network; write one such as 192.0.2.0/24"},
		{"host bits", CIDR, "192.0.2.1/24 x\n", "write 192.0.2.0/24"},
		{"mapped", CIDR, "::ffff:0:0/96 x\n", "write the IPv4 form"},
		{"negated", CIDR, "!192.0.2.0/24 x\n", "!192.0.2.0/24 is not supported"},
		{"if", CIDR, "if 192.0.2.0/24\n", "if is not supported"},
		{"no slashes", Regexp, "abc x\n", "list:1: write /pattern/ value"},
		{"look-ahead", Regexp, "/ok/ 1\n/a(?=b)/ x\n", "list:2: a(?=b)"},
		{"back-reference", Regexp, `/(a)\1/ x`, "RE2 syntax, which has no look-around and no back-references"},
		{"unknown flag", Regexp, "/a/q x\n", `no flag "q"`},
		{"extended", Regexp, "/a/x x\n", "the flag x is not supported"},
		{"no such group", Regexp, "/(a)/ $2\n", "$2 refers to a group in brackets that the pattern does not have: it has 1"},
		{"dollar", Regexp, "/(a)/ cost $x\n", "after $ there is no number"},
		{"open reference", Regexp, "/(a)/ ${1\n", "after $ there is no number"},
		{"empty pattern", Regexp, "// x\n", "write /pattern/ value"},
		{"type", "hash", "", `no list is of type "hash"`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c, err := parse(row.kind, "list", strings.NewReader(row.text))
			if c != nil || err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

// TestManyFaults: all are told, up to a bound.
func TestManyFaults(t *testing.T) {
	_, err := parse(CIDR, "list", strings.NewReader(strings.Repeat("x y\n", 1000)))
	if n := strings.Count(fmt.Sprint(err), "\n") + 1; n != maxFaults+1 {
		t.Errorf("%d lines of faults, want %d", n, maxFaults+1)
	}
	if !strings.Contains(err.Error(), errMany.Error()) {
		t.Error("it is not said that there are more")
	}
}

// TestReload: a file that changes is read again, a broken one is not.
func TestReload(t *testing.T) {
	name := filepath.Join(t.TempDir(), "l")
	written := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	write := func(text string) {
		t.Helper()
		written = written.Add(time.Second)
		if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name+".new", written, written); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	write("a 1\n")
	l, err := Open(Spec{Name: "l", File: name, Logger: slog.New(slog.NewTextHandler(&log, nil)), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	is := func(want string) {
		t.Helper()
		if got, _ := l.Lookup("a"); got != want {
			t.Errorf("a is %q, want %q", got, want)
		}
	}
	is("1")
	write("a 2\n")
	is("1") // not looked at within a second
	now = now.Add(recheck)
	is("2")
	write("a 3\na 4\n")
	for range 3 {
		now = now.Add(recheck)
		is("2")
	}
	if n := strings.Count(log.String(), "changed for the worse"); n != 1 {
		t.Errorf("a broken file is logged %d times:\n%s", n, &log)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		now = now.Add(recheck)
		is("2")
	}
	if n := strings.Count(log.String(), "changed for the worse"); n != 2 {
		t.Errorf("a file that has gone is logged %d times in all:\n%s", n, &log)
	}
	write("a 5\n")
	now = now.Add(recheck)
	is("5")
}

// TestTogether: lookups go on while the file changes.
func TestTogether(t *testing.T) {
	name := filepath.Join(t.TempDir(), "l")
	if err := os.WriteFile(name, []byte("a 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	now := time.Now()
	l, err := Open(Spec{Name: "l", File: name, Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(recheck)
		return now
	}})
	if err != nil {
		t.Fatal(err)
	}
	var g sync.WaitGroup
	for range 4 {
		g.Go(func() {
			for range 200 {
				if _, ok := l.Lookup("a"); !ok {
					t.Error("a was not there for a moment")
				}
			}
		})
	}
	for i := range 50 {
		if err := os.WriteFile(name+".new", fmt.Appendf(nil, "a %d\n", i), 0o600); err != nil {
			t.Error(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Error(err)
		}
	}
	g.Wait()
}

func TestInline(t *testing.T) {
	l, err := Open(Spec{Name: "l", Entries: map[string]string{"Ann@Example.com": "OK"}})
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := l.Lookup("ann@example.com"); !ok || v != "OK" || l.Len() != 1 {
		t.Errorf("%q %v %d", v, ok, l.Len())
	}
	if _, err := Open(Spec{Name: "l", Type: CIDR}); err == nil {
		t.Error("a cidr list without a file was taken")
	}
	if _, err := Open(Spec{Name: "l", File: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "is not a file") {
		t.Errorf("a folder gives %v", err)
	}
}

func fuzz(f *testing.F, kind string, seeds ...string) {
	for _, s := range seeds {
		f.Add(s, "user1@example.com")
		f.Add(s, "192.0.2.1")
	}
	f.Fuzz(func(t *testing.T, text, key string) {
		c, err := parse(kind, "list", strings.NewReader(text))
		if err != nil {
			if c != nil || !strings.Contains(err.Error(), "list") {
				t.Fatalf("fault without a place: %v", err)
			}
			return
		}
		first, ok := c.find(key)
		if second, again := c.find(key); again != ok || second != first {
			t.Fatalf("%q is %q and then %q", key, first, second)
		}
	})
}

func FuzzTable(f *testing.F)  { fuzz(f, Table, "a b\n c\n# d\n192.0.2.1 OK\n", "a\na\n") }
func FuzzCIDR(f *testing.F)   { fuzz(f, CIDR, "192.0.2.0/24 x\n::/0 y\n1 z\n", "0.0.0.0/0\n") }
func FuzzRegexp(f *testing.F) { fuzz(f, Regexp, "/^user([0-9])@/i $1 $$\n/a\\/b/ x\n", "/(/ x\n") }

func BenchmarkLookup(b *testing.B) {
	const n = 1_000_000
	var t, c strings.Builder
	for i := range n {
		fmt.Fprintf(&t, "user%d@example.com REJECT\n", i)
		fmt.Fprintf(&c, "%d.%d.%d.%d REJECT\n", 1+i>>16, i>>8&255, i&255, i&7)
	}
	for kind, text := range map[string]string{Table: t.String(), CIDR: c.String()} {
		l := mustParse(b, kind, text)
		keys := map[string][]string{Table: {"user77@example.com", "nobody@example.com"}, CIDR: {"3.1.7.7", "203.0.113.9"}}[kind]
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				l.find(keys[i&1])
			}
		})
	}
}
