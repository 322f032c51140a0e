package mail

import (
	"strings"
	"testing"
)

// TestReadPath: what clients send, and what is made of it.
func TestReadPath(t *testing.T) {
	long := strings.Repeat("a", MaxLocal)
	rows := []struct {
		name, in string
		utf8     bool
		want     string // String(); "!" and words that the error must hold
	}{
		{"plain", "ann@example.org", false, "ann@example.org"},
		{"null", "", false, ""},
		{"name alone", "Postmaster", false, "Postmaster"},
		{"quoted name alone", `"ann"`, false, "ann"},
		{"literal", "ann@[192.0.2.1]", false, "ann@[192.0.2.1]"},
		{"IPv6 literal", "ann@[IPv6:2001:db8::1]", false, "ann@[IPv6:2001:db8::1]"},
		{"bad literal", "ann@[192.0.2]", false, "!literal is malformed"},

		{"comment in front", "(the boss) ann@example.org", false, "ann@example.org"},
		{"comment behind", "ann@example.org (Ann)", false, "ann@example.org"},
		{"comments around the at", "ann(a)@(b)example.org", false, "ann@example.org"},
		{"comment in a comment", "ann(a(b)c)@example.org", false, "ann@example.org"},
		{"comment between the words", "ann.(a b)smith@example.org", false, "ann.smith@example.org"},
		{"brackets of comments in a comment's quoted pair", `ann(a\)b)@example.org`, false, "ann@example.org"},
		{"what is forbidden outside may stand in a comment", `ann(<;,>"@)@example.org`, false, "ann@example.org"},
		{"comment that does not end", "ann(a@example.org", false, "!comment does not end"},
		{"comment that ends too often", "ann)@example.org", false, "!must be quoted"},
		{"comment and nothing else", "(nobody)", false, ""},

		{"blanks at the ends", "  ann@example.org\t", false, "ann@example.org"},
		{"blanks around the at", "ann @ example.org", false, "ann@example.org"},
		{"blank in the local part", "ann smith@example.org", false, "!quote it"},
		{"blank in the domain", "ann@example .org", false, "!quote it"},
		{"blanks and nothing else", " \t ", false, ""},

		{"route", "@a.example,@b.example:ann@example.org", false, "ann@example.org"},
		{"route of one host", "@a.example:ann@example.org", false, "ann@example.org"},
		{"route with blanks", "@a.example, @b.example : ann@example.org", false, "ann@example.org"},
		{"route to a name alone", "@a.example:ann", false, "ann"},
		{"route without an address", "@a.example:", false, ""},
		{"route that does not end", "@a.example,@b.example", false, "!source route without an address"},
		{"domain alone", "@example.org", false, "!source route without an address"},

		{"needless quotes", `"ann"@example.org`, false, "ann@example.org"},
		{"quoted blank", `"ann smith"@example.org`, false, `"ann smith"@example.org`},
		{"quoted words with dots", `"ann"."b c"@example.org`, false, `"ann.b c"@example.org`},
		{"quotes around the domain", `ann@"example.org"`, false, "ann@example.org"},
		{"quotes around the whole", `"ann@example.org"`, false, "ann@example.org"},
		{"at within the quotes", `"ann@work"@example.org`, false, `"ann@work"@example.org`},
		{"quotes and comments", `(a)"ann"(b)@example.org`, false, "ann@example.org"},
		{"bracket in quotes", `"a>b"@example.org`, false, `"a>b"@example.org`},
		{"comment in quotes is none", `"a(b)c"@example.org`, false, `"a(b)c"@example.org`},
		{"quotes that do not end", `"ann@example.org`, false, "!does not end"},
		{"more behind the quotes", `"ann"x@example.org`, false, "!goes on behind its quotes"},
		{"two quoted strings in a row", `"ann""b"@example.org`, false, "!goes on behind its quotes"},
		{"quote in the middle", `ann"b"@example.org`, false, "!quote in its middle"},
		{"empty quotes", `""@example.org`, false, "!source route"},
		{"nothing but quotes", `""`, false, ""},

		{"backslash", `a\nn@example.org`, false, "ann@example.org"},
		{"at behind a backslash", `ann\@work@example.org`, false, `"ann@work"@example.org`},
		{"blank behind a backslash", `ann\ smith@example.org`, false, `"ann smith"@example.org`},
		{"quote behind a backslash", `ann\"b@example.org`, false, `"ann\"b"@example.org`},
		{"backslash behind a backslash", `ann\\b@example.org`, false, `"ann\\b"@example.org`},
		{"bracket behind a backslash", `ann\>@example.org`, false, `"ann>"@example.org`},
		{"quoted pair in quotes", `"a\"b"@example.org`, false, `"a\"b"@example.org`},
		{"backslash at the end", `ann@example.org\`, false, "!ends in a backslash"},
		{"CR behind a backslash", "ann\\\r@example.org", false, "!ends in a backslash"},

		{"dot behind the domain", "ann@example.org.", false, "ann@example.org"},
		{"two dots behind the domain", "ann@example.org..", false, "!empty label"},
		{"nothing but a dot", "ann@.", false, "!no domain"},
		{"no domain", "ann@", false, "!no domain"},
		{"empty domain between", "ann@@example.org", false, "!empty domain"},
		{"no local part", `\@example.org`, false, "!no local part"},
		{"quoted local part that looks like a route", `"@a.example:ann"@example.org`, false, `"@a.example:ann"@example.org`},
		{"no local part behind a route", "@a.example:@example.org", false, "!no local part"},

		{"two dots", "a..b@example.org", false, `"a..b"@example.org`},
		{"dots at the ends", ".a.@example.org", false, `".a."@example.org`},
		{"other characters", "a[b]:c@example.org", false, `"a[b]:c"@example.org`},
		{"bang path", "host!ann@example.org", false, "host!ann@example.org"},
		{"percent", "ann%work@example.org", false, "ann%work@example.org"},
		{"two ats", "ann@work@example.org", false, `"ann@work"@example.org`},
		{"hyphen in front", "-ann@example.org", false, "!begins with a hyphen"},
		{"hyphen in front, quoted", `"-oQ/tmp"@example.org`, false, "!begins with a hyphen"},
		{"hyphen in front, behind a backslash", `\-f@example.org`, false, "!begins with a hyphen"},
		{"hyphen elsewhere", "a-@example.org", false, "a-@example.org"},
		{"left bracket", "a<b@example.org", false, "!must be quoted"},
		{"right bracket", "a>b@example.org", false, "!must be quoted"},
		{"injection of a parameter", "ann@example.org> SIZE=1", false, "!must be quoted"},
		{"semicolon", "a;b@example.org", false, "!must be quoted"},
		{"comma", "a,b@example.org", false, "!must be quoted"},

		{"CR LF", "ann@example.org\r\nRCPT TO:<x>", false, "!allowed nowhere"},
		{"LF in quotes", "\"a\nb\"@example.org", false, "!allowed nowhere"},
		{"NUL in a comment", "ann(\x00)@example.org", false, "!allowed nowhere"},
		{"control character", "a\x1bb@example.org", false, "\"a\x1bb\"@example.org"},

		{"local part outside ASCII", "jürgen@example.org", false, "jürgen@example.org"},
		{"domain outside ASCII", "ann@bücher.example", false, "!SMTPUTF8"},
		{"domain outside ASCII, announced", "ann@bücher.example", true, "ann@bücher.example"},
		{"no UTF-8", "ann\xff@example.org", true, "!not valid UTF-8"},

		{"longest local part", long + "@example.org", false, long + "@example.org"},
		{"local part too long", long + "a@example.org", false, "!too long"},
		{"too long once it is in quotes", long[2:] + ".." + "@" + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + "." + strings.Repeat("d", 63) + "." + strings.Repeat("e", 61) + ".f", false, "!too long"},
		{"nothing but quoted pairs", strings.Repeat(`\"`, MaxLocal) + "@example.org", false, "!too long"},
		{"path too long", strings.Repeat("(", 2*MaxPath+1), false, "!path is too long"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p, err := ReadPath(row.in, row.utf8)
			if words, bad := strings.CutPrefix(row.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), words) {
					t.Fatalf("ReadPath(%.200q) = %.200q, %v; want an error with %q", row.in, p, err, words)
				}
				if !p.IsNull() {
					t.Fatalf("ReadPath(%q) = %q beside its error", row.in, p)
				}
				return
			}
			if err != nil || p.String() != row.want {
				t.Fatalf("ReadPath(%q) = %q, %v; want %q", row.in, p, err, row.want)
			}
			checkWritten(t, row.in, p)
		})
	}
}

// TestReadPathTakesWhatParsePathTakes: nobody loses by it but who begins with a
// hyphen.
func TestReadPathTakesWhatParsePathTakes(t *testing.T) {
	for _, s := range []string{"ann@example.org", "", "postmaster", `"a b"@example.org`, `"x> NOTIFY=NEVER"@example.org`, `"a\"b\\c"@[IPv6:::1]`, "a+b=c@xn--bcher-kva.example"} {
		strict, err := ParsePath(s, true)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := ReadPath(s, true); err != nil || p != strict {
			t.Errorf("ReadPath(%q) = %q, %v; ParsePath has %q", s, p, err, strict)
		}
	}
}

// checkWritten fails unless p, written, is harmless on a protocol line and is
// read back as it was.
func checkWritten(t *testing.T, in string, p Path) {
	t.Helper()
	out := p.String()
	if strings.ContainsAny(out, "\r\n\x00") {
		t.Fatalf("%q is written as %q", in, out)
	}
	if again, err := ParsePath(out, true); err != nil || again != p {
		t.Fatalf("%q is written as %q and read back as %q, %v", in, out, again, err)
	}
}

// FuzzReadPath: whatever a client sends, a path that is taken is one that the
// strict grammar can say.
func FuzzReadPath(f *testing.F) {
	for _, s := range []string{"ann@example.org", "@a,@b:ann@example.org.", `(c\)(d)) "a"."b c" @ "example.org"`, `a\@b@[IPv6:::1]`, "ä..@bücher.example", `""`, "@a:"} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, s string, utf8ok bool) {
		p, err := ReadPath(s, utf8ok)
		if err != nil {
			if !p.IsNull() {
				t.Fatalf("ReadPath(%q) = %q beside %v", s, p, err)
			}
			return
		}
		if p.IsNull() && strings.Trim(s, " \t") != "" && !strings.ContainsAny(s, `"(:`) {
			t.Fatalf("%q is taken for the null path", s)
		}
		if strings.HasPrefix(p.Local(), "-") {
			t.Fatalf("%q begins with a hyphen", p)
		}
		checkWritten(t, s, p)
	})
}
