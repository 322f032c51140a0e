package dmarc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/wafermail/wafer/core/dns"
)

// counted is a resolver that remembers what it was asked.
type counted struct {
	dns.Resolver
	mu    sync.Mutex
	asked []string
}

func (c *counted) Lookup(ctx context.Context, q dns.Question) dns.Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, q.Type+" "+q.Name)
	return c.Resolver.Lookup(ctx, q)
}

// zone has TXT records, "name" to "record"; several are divided by "|", and "!" stands
// for a server that does not answer. Names of which the record is "A" just exist.
func zone(records map[string]string) *counted {
	names := map[string]map[string][]string{}
	for name, txt := range records {
		switch txt {
		case "!":
			names[name] = map[string][]string{"RCODE": {"SERVFAIL"}}
		case "A":
			names[name] = map[string][]string{"A": {"192.0.2.1"}}
		default:
			names[name] = map[string][]string{"TXT": strings.Split(txt, "|")}
		}
	}
	return &counted{Resolver: dns.NewZone(names)}
}

func TestLookup(t *testing.T) {
	for _, row := range []struct {
		name    string
		zone    map[string]string
		domain  string
		mode    Mode
		want    string // policy domain, organizational domain, "!" for an error
		queries int
	}{
		{"own record", map[string]string{"_dmarc.example.com": "v=DMARC1; p=none"}, "example.com", TreeWalk, "example.com example.com", 2},
		{"case and dot", map[string]string{"_dmarc.example.com": "v=DMARC1; p=none"}, "EXAMPLE.com.", TreeWalk, "example.com example.com", 2},
		{"no record", nil, "a.example.com", TreeWalk, " a.example.com", 3},
		{"of the organization", map[string]string{"_dmarc.example.com": "v=DMARC1; p=none"}, "a.mail.example.com", TreeWalk, "example.com example.com", 4},
		{"fewest labels (§4.10.2)", map[string]string{"_dmarc.mail.example.com": "v=DMARC1; p=none", "_dmarc.example.com": "v=DMARC1; p=reject"},
			"a.mail.example.com", TreeWalk, "example.com example.com", 4},
		{"own record, organization above", map[string]string{"_dmarc.mail.example.com": "v=DMARC1; p=none", "_dmarc.example.com": "v=DMARC1; p=reject"},
			"mail.example.com", TreeWalk, "mail.example.com example.com", 3},
		{"psd=n", map[string]string{"_dmarc.mail.example.com": "v=DMARC1; p=none; psd=n", "_dmarc.example.com": "v=DMARC1; p=reject"},
			"a.mail.example.com", TreeWalk, "mail.example.com mail.example.com", 4},
		{"psd=n at the start", map[string]string{"_dmarc.a.example.com": "v=DMARC1; p=none; psd=n", "_dmarc.example.com": "v=DMARC1; p=reject"},
			"a.example.com", TreeWalk, "a.example.com a.example.com", 1},
		{"psd=y only", map[string]string{"_dmarc.com": "v=DMARC1; p=none; psd=y"}, "a.mail.example.com", TreeWalk, "com example.com", 4},
		{"psd=y and the organization's", map[string]string{"_dmarc.bank.example": "v=DMARC1; p=none; psd=y", "_dmarc.giant.bank.example": "v=DMARC1; p=reject"},
			"mail.giant.bank.example", TreeWalk, "giant.bank.example giant.bank.example", 4},
		{"psd=y at the start", map[string]string{"_dmarc.bank.example": "v=DMARC1; p=none; psd=y"}, "bank.example", TreeWalk, "bank.example bank.example", 1},
		{"psd=y between", map[string]string{"_dmarc.b.example.com": "v=DMARC1; p=none; psd=y", "_dmarc.example.com": "v=DMARC1; p=reject"},
			"x.a.b.example.com", TreeWalk, "b.example.com a.b.example.com", 5},
		{"two records are none", map[string]string{"_dmarc.a.example.com": "v=DMARC1; p=none|v=DMARC1; p=reject", "_dmarc.example.com": "v=DMARC1; p=reject"},
			"a.example.com", TreeWalk, "example.com example.com", 3},
		{"others are passed over", map[string]string{"_dmarc.example.com": "junk|v=spf1 -all|v=DMARC1; p=reject"}, "example.com", TreeWalk, "example.com example.com", 2},
		{"own record says nothing", map[string]string{"_dmarc.a.example.com": "v=DMARC1; p=x", "_dmarc.example.com": "v=DMARC1; p=reject"},
			"a.example.com", TreeWalk, " example.com", 3},
		{"eight labels", nil, "a.b.c.d.e.f.example.com", TreeWalk, " a.b.c.d.e.f.example.com", 8},
		{"very many labels", map[string]string{"_dmarc.g.h.i.j.mail.example.com": "v=DMARC1; p=none"},
			"a.b.c.d.e.f.g.h.i.j.mail.example.com", TreeWalk, "g.h.i.j.mail.example.com g.h.i.j.mail.example.com", 8},
		{"between, and never asked", map[string]string{"_dmarc.f.g.h.i.j.mail.example.com": "v=DMARC1; p=none"},
			"a.b.c.d.e.f.g.h.i.j.mail.example.com", TreeWalk, " a.b.c.d.e.f.g.h.i.j.mail.example.com", 8},
		{"no answer for the domain", map[string]string{"_dmarc.a.example.com": "!"}, "a.example.com", TreeWalk, "! a.example.com", 1},
		{"no answer above", map[string]string{"_dmarc.com": "!"}, "a.example.com", TreeWalk, "! a.example.com", 3},
		{"no answer above psd=n", map[string]string{"_dmarc.com": "!", "_dmarc.example.com": "v=DMARC1; p=none; psd=n"}, "a.example.com", TreeWalk, "example.com example.com", 3},
		{"name too long with the label in front", nil, strings.Repeat("x.", 124) + "com", TreeWalk, " " + strings.Repeat("x.", 124) + "com", 7},
		{"no name", nil, "[192.0.2.1]", TreeWalk, "! ", 0},
		{"nothing", nil, "", TreeWalk, "! ", 0},

		{"list: own record", map[string]string{"_dmarc.a.example.co.uk": "v=DMARC1; p=none"}, "a.example.co.uk", PSL, "a.example.co.uk example.co.uk", 1},
		{"list: the organization's", map[string]string{"_dmarc.example.co.uk": "v=DMARC1; p=none", "_dmarc.a.example.co.uk": "v=DMARC1; p=none"},
			"b.a.example.co.uk", PSL, "example.co.uk example.co.uk", 2},
		{"list: not the suffix's", map[string]string{"_dmarc.co.uk": "v=DMARC1; p=none"}, "example.co.uk", PSL, " example.co.uk", 1},
		{"list: the suffix itself", map[string]string{"_dmarc.co.uk": "v=DMARC1; p=none"}, "co.uk", PSL, "co.uk co.uk", 1},
		{"list: no record", nil, "com", PSL, " com", 1},
		{"list: no answer", map[string]string{"_dmarc.example.com": "!"}, "a.example.com", PSL, "! example.com", 2},
	} {
		z := zone(row.zone)
		d, err := Lookup(context.Background(), z, row.domain, LookupOptions{Mode: row.mode})
		got := d.Domain + " " + d.Org
		if err != nil {
			got = "!" + got
		}
		if got != row.want || len(z.asked) != row.queries {
			t.Errorf("%s: Lookup(%.80s) = %q %v, want %q\n%d questions, want %d: %q", row.name, row.domain, got, err, row.want, len(z.asked), row.queries, z.asked)
		}
	}
}

// TestTreeWalkNames is the example of RFC 9989 §4.10.
func TestTreeWalkNames(t *testing.T) {
	want := []string{"a.b.c.d.e.f.g.h.i.j.mail.example.com", "g.h.i.j.mail.example.com", "h.i.j.mail.example.com", "i.j.mail.example.com",
		"j.mail.example.com", "mail.example.com", "example.com", "com"}
	if got := steps(want[0]); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	for n := 1; n < 40; n++ {
		if got := steps(strings.Repeat("x.", n-1) + "com"); len(got) != min(n, 8) || got[len(got)-1] != "com" {
			t.Errorf("%d labels: %q", n, got)
		}
	}
}

func TestNotes(t *testing.T) {
	z := zone(map[string]string{
		"_dmarc.a.example.com": "v=DMARC1; p=none|v=DMARC1; p=none",
		"_dmarc.example.com":   "v=DMARC1; p=reject; adkim=x",
	})
	d, err := Lookup(context.Background(), z, "a.example.com", LookupOptions{})
	want := []string{"_dmarc.a.example.com has 2 DMARC records, so none", `_dmarc.example.com: tag adkim has the value "x"`}
	if err != nil || !slices.Equal(d.Notes, want) {
		t.Errorf("%q %v", d.Notes, err)
	}
}

func TestExternalAllowed(t *testing.T) {
	records := map[string]string{
		"_dmarc.example.com":                             "v=DMARC1; p=none",
		"example.com._report._dmarc.yes.example":         "v=DMARC1",
		"*._report._dmarc.any.example":                   "v=DMARC1;",
		"example.com._report._dmarc.junk.example":        "hello|v=spf1",
		"example.com._report._dmarc.two.example":         "hello|v=DMARC1|v=DMARC1; rua=mailto:b@two.example",
		"example.com._report._dmarc.else.example":        "v=DMARC1; rua=mailto:b@else.example,https://else.example/r",
		"example.com._report._dmarc.thief.example":       "v=DMARC1; rua=mailto:b@victim.example",
		"example.com._report._dmarc.down.example":        "!",
		"example.com._report._dmarc.xn--bcher-kva.test":  "v=DMARC1",
		"xn--bcher-kva.example._report._dmarc.x.example": "v=DMARC1",
		"_dmarc.sub.example.com":                         "v=DMARC1; p=none; psd=n",
	}
	for _, row := range []struct{ domain, dest, want string }{
		{"example.com", "mailto:a@example.com", "mailto:a@example.com"},
		{"example.com", "mailto:a@EXAMPLE.com", "mailto:a@EXAMPLE.com"},
		{"example.com", "mailto:a@reports.example.com", "mailto:a@reports.example.com"},
		{"www.example.com", "mailto:a@example.com", "mailto:a@example.com"},
		{"example.com", "mailto:a@sub.example.com", ""},
		{"example.com", "mailto:a@yes.example!10m", "mailto:a@yes.example"},
		{"example.com", "https://yes.example/x", "https://yes.example/x"},
		{"other.example", "mailto:a@yes.example", ""},
		{"other.example", "mailto:a@any.example", "mailto:a@any.example"},
		{"example.com", "mailto:a@junk.example", ""},
		{"example.com", "mailto:a@no.example", ""},
		{"example.com", "mailto:a@two.example", "mailto:b@two.example"},
		{"example.com", "mailto:a@else.example", "mailto:b@else.example https://else.example/r"},
		{"example.com", "mailto:a@thief.example", ""},
		{"example.com", "mailto:a@down.example", "error"},
		{"example.com", "mailto:a@bücher.test", "mailto:a@bücher.test"},
		{"BÜCHER.example.", "mailto:a@x.example", "mailto:a@x.example"},
		{"example.com", "mailto:a@[192.0.2.1]", ""},
		{"example.com", "tag:x", ""},
		{strings.Repeat("x.", 120) + "com", "mailto:a@any.example", ""},
	} {
		u, err := ParseURI(row.dest)
		if err != nil {
			t.Fatal(err)
		}
		to, err := ExternalAllowed(context.Background(), zone(records), row.domain, u, LookupOptions{})
		var got []string
		for _, u := range to {
			got = append(got, u.Text)
		}
		if err != nil {
			got = []string{"error"}
		}
		if fmt.Sprint(strings.Join(got, " ")) != row.want {
			t.Errorf("%.30s to %s: %q %v, want %q", row.domain, row.dest, got, err, row.want)
		}
	}
}
