package mail

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParsePath(t *testing.T) {
	rows := []struct {
		name, in string
		utf8     bool
		want     string // String(); "!" and words that the error must hold
	}{
		{"plain", "ann@example.org", false, "ann@example.org"},
		{"null", "", false, ""},
		{"postmaster alone", "PostMaster", false, "PostMaster"},
		{"other name alone", "ann", false, "ann"},
		{"quoted name alone", `"a b"`, false, `"a b"`},
		{"number for a domain", "ann@192.0.2.1", false, "!in brackets"},
		{"number at the end", "ann@example.123", false, "ann@example.123"},
		{"split at the last at", `"a@b"@example.org`, false, `"a@b"@example.org`},
		{"two ats", "a@b@example.org", false, "!must be quoted"},
		{"needless quotes go", `"ann"@example.org`, false, "ann@example.org"},
		{"quoted space", `"an n"@example.org`, false, `"an n"@example.org`},
		{"quoted pair", `"a\"b"@example.org`, false, `"a\"b"@example.org`},
		{"quote that does not end", `"ann@example.org`, false, "!does not end"},
		{"quoted pair that does not end", `"ann\"@example.org`, false, "!does not end"},
		{"parameter injection", `"x> NOTIFY=NEVER"@example.org`, false, `"x> NOTIFY=NEVER"@example.org`},
		{"unquoted injection", `x> NOTIFY=NEVER@example.org`, false, "!must be quoted"},
		{"control in quotes", "\"a\x01b\"@example.org", false, "\"a\x01b\"@example.org"},
		{"CR LF in quotes", "\"a\r\nb\"@example.org", false, "!not allowed"},
		{"NUL", "a\x00b@example.org", false, "!must be quoted"},
		{"two dots", "a..b@example.org", false, "!empty element"},
		{"leading dot", ".a@example.org", false, "!empty element"},
		{"trailing dot", "a.@example.org", false, "!ends with a dot"},
		{"local of 512", strings.Repeat("a", 512) + "@example.org", false, strings.Repeat("a", 512) + "@example.org"},
		{"local of 513", strings.Repeat("a", 513) + "@example.org", false, "!longer than 512"},
		{"domain too long", "a@" + strings.Repeat("b.", 130) + "org", false, "!longer than 255"},
		{"path too long", strings.Repeat("a", 1000) + "@example.org", false, "!longer than 770"},
		{"empty domain", "a@", false, "!no domain"},
		{"empty label", "a@b..org", false, "!empty label"},
		{"final dot", "a@b.org.", false, "!empty label"},
		{"hyphen first", "a@-b.org", false, "!hyphen"},
		{"label of 64", "a@" + strings.Repeat("b", 64) + ".org", false, "!63"},
		{"space in domain", "a@b c.org", false, "!not allowed"},
		{"IPv4 literal", "a@[192.0.2.1]", false, "a@[192.0.2.1]"},
		{"IPv6 literal", "a@[IPv6:2001:db8::1]", false, "a@[IPv6:2001:db8::1]"},
		{"IPv6 without tag", "a@[2001:db8::1]", false, "!malformed"},
		{"bad literal", "a@[300.0.2.1]", false, "!malformed"},
		{"open literal", "a@[192.0.2.1", false, "!malformed"},
		{"UTF-8 not announced", "jürgen@example.org", false, "!SMTPUTF8"},
		{"UTF-8", "jürgen@bücher.example", true, "jürgen@bücher.example"},
		{"broken UTF-8", "j\xff@example.org", true, "!not valid UTF-8"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p, err := ParsePath(row.in, row.utf8)
			if words, bad := strings.CutPrefix(row.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), words) {
					t.Fatalf("ParsePath(%q) = %q, %v; want an error with %q", row.in, p, err, words)
				}
				return
			}
			if err != nil || p.String() != row.want {
				t.Fatalf("ParsePath(%q) = %q, %v; want %q", row.in, p, err, row.want)
			}
		})
	}
	if _, err := ParsePath("jürgen@example.org", false); !errors.Is(err, ErrUTF8) {
		t.Errorf("error %v is not ErrUTF8", err)
	}
}

func TestPathKey(t *testing.T) {
	rows := map[string]string{
		"Ann@Example.ORG":       "ann@example.org",
		"ann@BÜCHER.example":    "ann@xn--bcher-kva.example",
		"Postmaster":            "postmaster",
		`"Ann.Smith"@Example.x`: "ann.smith@example.x",
	}
	for in, want := range rows {
		p, err := ParsePath(in, true)
		if err != nil || p.Key() != want {
			t.Errorf("key of %q = %q, %v; want %q", in, p.Key(), err, want)
		}
	}
}

// FuzzPath: what is accepted is written in a form that is read back equal and
// that cannot break out of a protocol line.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"ann@example.org", `"a b"@[IPv6:::1]`, `"\"\\"@x.org`, "jürgen@bücher.example", "postmaster", "@", `""@x`} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, s string, utf8ok bool) {
		p, err := ParsePath(s, utf8ok)
		if err != nil {
			return
		}
		out := p.String()
		if strings.ContainsAny(out, "\r\n\x00") {
			t.Fatalf("%q is written as %q", s, out)
		}
		quoted := false
		for i := 0; i < len(out); i++ {
			switch {
			case quoted && out[i] == '\\':
				i++
			case out[i] == '"':
				quoted = !quoted
			case !quoted && (out[i] == '>' || out[i] == '<' || out[i] == ' '):
				t.Fatalf("%q is written as %q, which breaks out of its brackets", s, out)
			}
		}
		again, err := ParsePath(out, utf8ok)
		if err != nil || again != p {
			t.Fatalf("%q is written as %q and read back as %q, %v", s, out, again, err)
		}
	})
}

func TestNewID(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a, b, later := NewID(now), NewID(now), NewID(now.Add(time.Millisecond))
	if a == b || len(a) != 17 {
		t.Errorf("ids %q and %q of the same moment", a, b)
	}
	if later <= a {
		t.Errorf("id %q of a later moment sorts before %q", later, a)
	}
}
