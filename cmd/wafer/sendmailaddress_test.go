package main

import (
	"slices"
	"strings"
	"testing"
)

// TestAddresses: a list of addresses in all the forms that programs write.
func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		name, list, want string // want: joined by blanks, "user!" for a bare name; or the error
	}{
		{"one", "ann@example.test", "ann@example.test"},
		{"none", " ", ""},
		{"two", "ann@example.test, bob@example.test", "ann@example.test bob@example.test"},
		{"empty places", ",, ann@example.test ,,", "ann@example.test"},
		{"semicolon", "ann@example.test; bob@example.test", "ann@example.test bob@example.test"},
		{"name", "Ann <ann@example.test>", "ann@example.test"},
		{"name with a dot", "Ann Q. Example <ann@example.test>", "ann@example.test"},
		{"name in quotes with a comma", `"Example, Ann" <ann@example.test>`, "ann@example.test"},
		{"name with escaped quotes", `"a \" <x@y.test>, b" <ann@example.test>`, "ann@example.test"},
		{"address as a name", "ann@example.test <bob@example.test>", "bob@example.test"},
		{"name in brackets", "[list] Ann <ann@example.test>", "ann@example.test"},
		{"encoded word", "=?utf-8?Q?J=C3=BCrgen?= <j@example.test>", "j@example.test"},
		{"encoded word with specials", "=?utf-8?Q?a,b<c>@d?= <j@example.test>, k@example.test", "j@example.test k@example.test"},
		{"encoded word in an unknown charset", "=?x-klingon?B?AAAA?= <j@example.test>", "j@example.test"},
		{"UTF-8 name", "Jürgen Größe <j@example.test>", "j@example.test"},
		{"UTF-8 address", "jürgen@bücher.example", "jürgen@bücher.example"},
		{"comment behind", "ann@example.test (Ann, or <x@y.test>)", "ann@example.test"},
		{"comments inside", "ann(a)@(b (c) \\) d)example.test", "ann@example.test"},
		{"comment before", "(x, y) ann@example.test", "ann@example.test"},
		{"folded", " ann@example.test,\r\n\tBob\r\n <bob@example.test>", "ann@example.test bob@example.test"},
		{"quoted local part", `"a b"@example.test`, `"a b"@example.test`},
		{"quoted local part with an at", `<"a@b"@example.test>`, `"a@b"@example.test`},
		{"quoted local part folded", "\"a\r\n b\"@example.test", `"a b"@example.test`},
		{"quoted part among others", `a."b c".d@example.test`, `a."b c".d@example.test`},
		{"blanks around", "ann @ example . test", "ann@example.test"},
		{"domain literal", "ann@[192.0.2.1]", "ann@[192.0.2.1]"},
		{"IPv6 literal in a list", "ann@[IPv6:2001:db8::1], bob@example.test", "ann@[IPv6:2001:db8::1] bob@example.test"},
		{"route", "<@a.test,@b.test:ann@example.test>", "ann@example.test"},
		{"group", "friends: ann@example.test, Bob <bob@example.test>; eve@example.test", "ann@example.test bob@example.test eve@example.test"},
		{"group of nobody", "undisclosed-recipients:;", ""},
		{"group name in quotes", `"my: friends": ann@example.test;`, "ann@example.test"},
		{"null", "<>", ""},
		{"null among others", "ann@example.test, Nobody <>", "ann@example.test"},
		{"bare name", "root", "root!"},
		{"bare name with a name", "Root <root>, ann@example.test", "root! ann@example.test"},
		{"bare name in quotes", `"a@b"`, `"a@b"!`},
		{"dots at odd places", "a..b.@example.test", "a..b.@example.test"},
		{"dot behind the domain", "ann@example.test.", "ann@example.test."},
		{"plus and slash", "ann+a/b@example.test", "ann+a/b@example.test"},

		{"words", "Ann Example", "no address, but words"},
		{"words before an address", "Ann ann@example.test", "no address, but words"},
		{"two addresses without a comma", "ann@example.test bob@example.test", "no address, but words"},
		{"two addresses in brackets", "<ann@example.test> <bob@example.test>", "misplaced >"},
		{"text behind", "<ann@example.test> x", "something behind it"},
		{"no end", "Ann <ann@example.test", "no > behind an address"},
		{"no end in a list", "Ann <ann@example.test, bob@example.test", "no > behind an address"},
		{"no begin", "ann@example.test>", "a > without a <"},
		{"quotes without end", `"Ann <ann@example.test>`, "quotes without end"},
		{"comment without end", "ann@example.test (Ann", "a comment without end"},
		{"comment ends in a backslash", `ann@example.test (\`, "a comment without end"},
		{"two ats", "ann@b@example.test", "an @ too many"},
		{"no local part", "@example.test", "without a local part"},
		{"no domain", "ann@", "without a domain"},
		{"quoted domain", `ann@"example.test"`, "misplaced"},
		{"literal for a local part", "[a]@example.test", "misplaced"},
		{"stray paren", "ann)@example.test", "misplaced )"},
		{"NUL", "ann\x00@example.test", "control character 0x0"},
		{"name without an address", "=?utf-8?Q?J=C3=BCrgen?=", "a name without an address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := parseAddresses(c.list)
			var got []string
			for _, a := range found {
				got = append(got, a.whole("!"))
			}
			text := strings.ReplaceAll(strings.Join(got, " "), "@!", "!")
			switch {
			case err != nil && (!strings.Contains(err.Error(), c.want) || c.want == ""):
				t.Errorf("%q: %v, want %s", c.list, err, c.want)
			case err == nil && text != c.want:
				t.Errorf("%q: got %q, want %q", c.list, text, c.want)
			}
		})
	}
}

// FuzzAddresses: what is found can be written again and found again, whatever the
// list is, and a bare name can be given a domain where it stands.
func FuzzAddresses(f *testing.F) {
	for _, s := range []string{
		"", "root", "a@b, c <d@e>; f", "g: a, <@x:b@c>, (c(d)) e;", `"a\"b"@[1.2.3.4]`, "=?u?q?a,b?= <x>", "a\r\n @b", "<", ">", "((", `"\`, "a.@b", "@", ":;,", "a:b:c", "\x80<\xff@x>",
		strings.Repeat("(", 1000), strings.Repeat("<a>:", 300), strings.Repeat("[", 500),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		found, err := parseAddresses(list)
		if err != nil {
			if found != nil {
				t.Fatal("an error and addresses")
			}
			return
		}
		var specs []string
		qualified := list
		for _, a := range slices.Backward(found) {
			specs = append(specs, a.spec)
			if a.bare {
				if a.end > len(list) {
					t.Fatalf("%q: the end of %q is at %d", list, a.spec, a.end)
				}
				qualified = qualified[:a.end] + "@home.test" + qualified[a.end:]
			}
		}
		again, err := parseAddresses(strings.Join(specs, ", "))
		if err != nil || len(again) != len(found) {
			t.Fatalf("%q: %q are read as %v (%v)", list, specs, again, err)
		}
		whole, err := parseAddresses(qualified)
		if err != nil || len(whole) != len(found) {
			t.Fatalf("%q: with domains, %q is read as %v (%v)", list, qualified, whole, err)
		}
		for i, a := range whole {
			if a.bare || a.spec != found[i].whole("home.test") {
				t.Fatalf("%q: %q became %q", list, found[i].spec, a.spec)
			}
		}
	})
}
