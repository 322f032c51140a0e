//go:build !wasip1

package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/sdk"
)

// FuzzRecord parses any record: what is taken must have good domain-specs.
func FuzzRecord(f *testing.F) {
	for _, s := range []string{
		"v=spf1", "v=spf1 a/24//64 mx:%{d2}/0 -all", "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 ?all exp=%{l1r+-}.x.example",
		"v=spf1 include:a.example redirect=b.example.", "v=spf1 a:foo:bar/baz.example.com exists:%%%_%- ptr", "v=spf1 moo.cow=%{s} =x",
	} {
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, single bool) {
		if !isPolicy(s) {
			return
		}
		r, err := parseRecord(s, single)
		if err != nil {
			if err.temporary || err.text == "" {
				t.Errorf("%q: error %+v", s, err)
			}
			return
		}
		specs := []string{r.redirect, r.exp}
		for _, d := range r.directives {
			specs = append(specs, d.spec)
			if d.kind == mechIP && !d.network.IsValid() || d.bits4 < 0 || d.bits4 > 32 || d.bits6 < 0 || d.bits6 > 128 {
				t.Errorf("%q: directive %+v", s, d)
			}
		}
		v := fuzzed("a.b-c@d", "example.com", "h")
		for _, spec := range specs {
			if spec == "" {
				continue
			}
			if err := checkSpec(spec, single); err != nil {
				t.Errorf("%q: domain-spec %q: %v", s, spec, err)
			}
			if _, err := v.expand(spec, "example.com", false); err != nil && err.text != "expansion is too long" {
				t.Errorf("%q: expand %q: %v", s, spec, err)
			}
		}
	})
}

// fuzzed is an evaluation whose DNS knows one PTR name, and no other.
func fuzzed(local, domain, helo string) *evaluation {
	return &evaluation{
		facts: facts{
			ip: netip.MustParseAddr("2001:db8::1"), local: local, origin: domain, helo: helo,
			now: func() time.Time { return time.Unix(1795000000, 0) },
		},
		dns: newLookups(func(qs ...sdk.Question) ([]sdk.Answer, error) {
			as := make([]sdk.Answer, len(qs))
			for i, q := range qs {
				switch q.Type {
				case "PTR":
					as[i].Records = []string{"host.example.com."}
				case "AAAA":
					as[i].Records = []string{"2001:db8::1"}
				}
			}
			return as, nil
		}),
		most: 2,
	}
}

// FuzzExpand expands any macro-string with any facts: the result is bounded, the
// same each time, and a name that fits DNS if it can be one.
func FuzzExpand(f *testing.F) {
	f.Add("%{s}.%{l1r+-}.%{o}.%{d2}.%{ir}.%{v}.%{h}.%{p}", "a+b-c", "example.com", "mail.example.com", false)
	f.Add("%{S}%{L2}%{c}%{r}%{t}%%%_%-", "~jack&jill", "e.example", "[192.0.2.1]", true)
	f.Add("%{d0}", "", "", "", false)
	f.Add("%{", "\xff", "é", "\x00", true)
	f.Fuzz(func(t *testing.T, s, local, domain, helo string, spaces bool) {
		limit := func(s string) string { return s[:min(len(s), 1024)] }
		local, domain, helo = limit(local), limit(domain), limit(helo)
		got, err := fuzzed(local, domain, helo).expand(s, domain, spaces)
		again, _ := fuzzed(local, domain, helo).expand(s, domain, spaces)
		if got != again {
			t.Errorf("%q: %q, then %q", s, got, again)
		}
		if err == nil && len(got) > maxExpansion {
			t.Errorf("%q: %d octets", s, len(got))
		}
		if name, err := fuzzed(local, domain, helo).target(s, domain); err == nil && s != "" && len(name) > maxName && strings.Contains(name, ".") {
			t.Errorf("%q: name of %d octets: %q", s, len(name), name)
		}
	})
}

// FuzzHost evaluates any two records against each other: it ends, with few
// questions and a result.
func FuzzHost(f *testing.F) {
	f.Add("v=spf1 include:b.example redirect=b.example", "v=spf1 a mx ptr exists:%{i}.b.example include:a.example ~all", "a@a.example")
	f.Add("v=spf1 -all exp=b.example", "%{c} %{p}", "@a.example")
	f.Fuzz(func(t *testing.T, first, second, sender string) {
		asked := 0
		fake := sdk.NewFake(&plugin)
		fake.Zone = map[string]sdk.Answer{
			"TXT a.example":    {Records: []string{first}},
			"TXT b.example":    {Records: []string{second}},
			"MX b.example":     {Records: []string{"1 a.example", "0 b.example"}},
			"A b.example":      {Records: []string{"192.0.2.1"}},
			"PTR 198.51.100.7": {Records: []string{"b.example"}},
		}
		if err := fake.Configure(map[string][]string{"reason": {"{explanation}"}}); err != nil {
			t.Fatal(err)
		}
		v, err := fake.Call(sdk.Facts{Stage: sdk.Mail, Client: "198.51.100.7", Helo: "a.example", Sender: sender, HasSender: true})
		asked = len(fake.Asked)
		if err != nil || v.Reason == "" || asked > 60 {
			t.Errorf("%q, %q: %+v, %v after %d questions", first, second, v, err, asked)
		}
	})
}
