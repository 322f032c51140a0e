package dmarc

import (
	"strings"
	"testing"
)

func TestFromDomains(t *testing.T) {
	for _, row := range []struct {
		name string
		in   []string
		want string // domains; "!" in front: with an error
	}{
		{"plain", []string{"a@example.com"}, "example.com"},
		{"angle", []string{"A B <a@Example.COM>"}, "example.com"},
		{"folded", []string{"A B\r\n <a@example.com>"}, "example.com"},
		{"last dot", []string{"a@example.com."}, "example.com"},
		{"quoted local part", []string{`"a@bank.example" <"b@c"@example.com>`}, "example.com"},
		{"quoted pair", []string{`"a\"@bank.example" <b@example.com>`}, "example.com"},
		{"comment", []string{"a@example.com (b@bank.example)"}, "example.com"},
		{"nested comments", []string{"(a(b@x.example)c) a@example.com (d)"}, "example.com"},
		{"comment closes by a quoted pair", []string{`(a\) b@bank.example) a@example.com`}, "example.com"},
		{"blanks around", []string{"a @ example.com"}, "example.com"},
		{"list", []string{"a@example.com, B <b@example.org>"}, "example.com example.org"},
		{"same domain twice", []string{"a@example.com, b@EXAMPLE.com"}, "example.com"},
		{"group", []string{"Friends: a@example.com, B <b@example.org>;"}, "example.com example.org"},
		{"comma in a bare name", []string{"Doe, John <a@example.com>"}, "example.com"},
		{"dot in a bare name", []string{"John Q. Doe <a@example.com>"}, "example.com"},
		{"name is the address", []string{"a@example.com <a@example.com>"}, "example.com"},
		{"name is another address", []string{"ceo@bank.example <a@example.com>"}, "bank.example example.com"},
		{"umlaut", []string{"a@bücher.example"}, "xn--bcher-kva.example"},
		{"A-label", []string{"a@XN--bcher-kva.example"}, "xn--bcher-kva.example"},
		{"ideographic dot", []string{"a@bücher。example"}, "xn--bcher-kva.example"},
		{"encoded name", []string{"=?utf-8?q?J=C3=B6rg?= <a@example.com>"}, "example.com"},
		{"encoded name with a bare at", []string{"=?UTF-8?Q?info@bank.example,_x?= <a@example.com>"}, "example.com"},
		{"encoded name hides an address", []string{"=?utf-8?b?Y2VvQGJhbmsuZXhhbXBsZQ==?= <a@example.com>"}, "example.com"},
		{"single label", []string{"root@localhost"}, "localhost"},
		{"underscore", []string{"a@my_host.example"}, "my_host.example"},

		{"none", nil, "!"},
		{"empty", []string{""}, "!"},
		{"empty angle", []string{"MAILER-DAEMON <>"}, "!"},
		{"name only", []string{"John"}, "!"},
		{"empty group", []string{"undisclosed:;"}, "!"},
		{"encoded address only", []string{"=?utf-8?q?=3Cceo=40bank.example=3E?="}, "!"},
		{"two fields", []string{"a@example.com", "b@example.org"}, "!example.com example.org"},
		{"two fields of one domain", []string{"a@example.com", "b@example.com"}, "!example.com"},
		{"literal", []string{"a@[192.0.2.1]"}, "!"},
		{"address without brackets", []string{"a@192.0.2.1"}, "!"},
		{"literal and domain", []string{"a@[192.0.2.1], b@example.com"}, "!example.com"},
		{"encoded local part", []string{"=?utf-8?b?Y2VvQGJhbmsuZXhhbXBsZQ==?=@example.com"}, "!example.com"},
		{"encoded local part with NUL", []string{"=?utf-8?b?Y2VvQGJhbms=?==?utf-8?Q?=00?=\x00@example.com"}, "!example.com"},
		{"encoded domain", []string{"a@=?utf-8?q?bank.example?="}, "!"},
		{"two ats", []string{"a@bank.example@example.com"}, "!bank.example example.com"},
		{"two ats in angles", []string{"<a@bank.example@example.com>"}, "!bank.example example.com"},
		{"route", []string{"<@x.example,@y.example:a@example.com>"}, "!x.example y.example example.com"},
		{"quote never ends", []string{`"A <a@bank.example>`}, "!bank.example"},
		{"comment never ends", []string{"a@example.com (b@bank.example"}, "!example.com bank.example"},
		{"angle never ends", []string{"<a@example.com"}, "!example.com"},
		{"angle in angle", []string{"<a@bank.example <b@example.com>"}, "!bank.example example.com"},
		{"angle closes twice", []string{"<a@example.com>>"}, "!example.com"},
		{"blank in a domain", []string{"a@example .com"}, "!example.com"},
		{"comment in a domain", []string{"a@example.(x)com"}, "!example.com"},
		{"no local part", []string{"<@example.com>"}, "!example.com"},
		{"empty label", []string{"a@example..com"}, "!"},
		{"long label", []string{"a@" + strings.Repeat("x", 64) + ".example"}, "!"},
		{"long name", []string{"a@" + strings.Repeat("x.", 130) + "example"}, "!"},
		{"backslash", []string{`a\@b@example.com`}, "!b@"},
		{"control", []string{"a\x01b@example.com"}, "!example.com"},
		{"not UTF-8", []string{"\xffx <a@example.com>"}, "!example.com"},
		{"too long", []string{"a@example.com", strings.Repeat("x", maxFromOctets)}, "!example.com"},
		{"deep comments", []string{strings.Repeat("(", 1e4) + "a@example.com" + strings.Repeat(")", 1e4)}, "!"},
	} {
		domains, err := FromDomains(row.in)
		got := strings.Join(domains, " ")
		if err != nil {
			got = "!" + got
		}
		if row.name == "backslash" { // either reading will do, with an error
			if err == nil || !strings.Contains(got, "example.com") {
				t.Errorf("%s: %q %v", row.name, got, err)
			}
			continue
		}
		if got != row.want {
			t.Errorf("%s: FromDomains(%.100q) = %q %v, want %q", row.name, row.in, got, err, row.want)
		}
	}
}

func TestFromDomainsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 2000 {
		b.WriteString("a@d")
		b.WriteString(strings.Repeat("x", i%50))
		b.WriteByte(byte('a' + i%26))
		b.WriteString(".example,")
	}
	domains, err := FromDomains([]string{b.String()})
	if len(domains) != maxFromDomains || err == nil {
		t.Errorf("%d domains, %v", len(domains), err)
	}
}

func FuzzFromDomains(f *testing.F) {
	for _, s := range []string{
		"A <a@example.com>", "g: a@x.example, b@y.example;", `"q\"" <"a b"@[192.0.2.1]>`, "=?utf-8?q?a@b?= (c(d)) <x@y . z>",
		"a@b@c", "<@a,@b:c@d>", "((((", "a@\xe3\x80\x82b",
	} {
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		domains, err := FromDomains([]string{a, b})
		if len(domains) == 0 && err == nil {
			t.Error("neither domains nor an error")
		}
		for _, d := range domains {
			if c, ok := canonical(d); !ok || c != d {
				t.Errorf("domain %q is not canonical", d)
			}
		}
	})
}
