//go:build !wasip1

package main

import (
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDecodeWords(t *testing.T) {
	rows := []struct{ name, in, want string }{
		{"none", "plain text", "plain text"},
		{"Q", "=?iso-8859-1?Q?Andr=E9?= Pirard", "André Pirard"},
		{"B", "=?utf-8?B?w6R0?=", "ät"},
		{"space between words goes", "=?utf-8?Q?a?= \r\n =?utf-8?Q?b?=", "ab"},
		{"space between word and text stays", "=?utf-8?Q?a?= b =?utf-8?Q?c?=", "a b c"},
		{"text before", "x =?utf-8?Q?a?=", "x a"},
		{"underscore is a space", "=?utf-8?q?a_b?=", "a b"},
		{"a character across two words", "=?utf-8?B?w6==?= =?utf-8?B?pA==?=", "ä"},
		{"different charsets", "=?utf-8?Q?=C3=A4?= =?iso-8859-1?Q?=E4?=", "ää"},
		{"euro in Latin-9", "=?ISO-8859-15?Q?=A4=BD?=", "€œ"},
		{"euro in Windows-1252", "=?windows-1252?Q?=80=93=E9=81?=", "€“é\u0081"},
		{"Latin-1 as Windows-1252", "=?iso-8859-1?Q?=93x=94?=", "“x”"},
		{"language", "=?us-ascii*en?Q?hi?=", "hi"},
		{"another charset stays", "=?koi8-r?B?8NLJ18XU?= x", "=?koi8-r?B?8NLJ18XU?= x"},
		{"another encoding stays", "=?utf-8?X?abc?=", "=?utf-8?X?abc?="},
		{"no end", "=?utf-8?Q?abc", "=?utf-8?Q?abc"},
		{"inside a word", "lot=?utf-8?Q?te?=ry", "lottery"},
		{"spaces in it", "=?utf-8?Q?a b?=", "a b"},
		{"bad hexadecimal", "=?utf-8?Q?=zz=4?=", "=zz=4"},
		{"base64 with rubbish", "=?utf-8?B?a G!k?=", "hi"},
		{"base64, one character too many", "=?utf-8?B?aGlh?=", "hia"},
		{"not UTF-8", "=?utf-8?Q?=ff=fe?=", "\ufffd"},
		{"control characters", "=?utf-8?Q?a=0D=0Ab=00?=", "a  b "},
		{"empty", "=?utf-8?Q??=", ""},
		{"question marks", "=?=?=?", "=?=?=?"},
		{"raw octets", "caf\xe9", "caf\ufffd"},
	}
	for _, r := range rows {
		if got := decodeWords(r.in); got != r.want {
			t.Errorf("%s: %q: got %q, want %q", r.name, r.in, got, r.want)
		}
	}
}

func TestParams(t *testing.T) {
	rows := []struct {
		name, in, kind string
		want           []string
	}{
		{"plain", `attachment; filename=a.exe`, "attachment", []string{"a.exe"}},
		{"quoted", `ATTACHMENT; FileName="a b.exe"; size=1`, "attachment", []string{"a b.exe"}},
		{"spaces", `attachment ; filename = "a.exe" `, "attachment", []string{"a.exe"}},
		{"escaped quote", `attachment; filename="a\"b.exe"`, "attachment", []string{`a"b.exe`}},
		{"Windows path", `attachment; filename="c:\temp\a.exe"`, "attachment", []string{`c:\temp\a.exe`}},
		{"unquoted with spaces", `attachment; filename=my file.exe; x=y`, "attachment", []string{"my file.exe"}},
		{"no closing quote", `attachment; filename="a.exe`, "attachment", []string{"a.exe"}},
		{"semicolon in quotes", `attachment; x="a;b"; filename=c`, "attachment", []string{"c"}},
		{"extended", `attachment; filename*=utf-8''r%C3%A4t.exe`, "attachment", []string{"rät.exe"}},
		{"extended, Latin-1 and language", `attachment; filename*=iso-8859-1'de'r%E4t.exe`, "attachment", []string{"rät.exe"}},
		{"extended, no quotes", `attachment; filename*=a%2Eexe`, "attachment", []string{"a.exe"}},
		{"segments", `attachment; filename*0="a"; filename*1=".exe"`, "attachment", []string{"a.exe"}},
		{"segments in another order", `attachment; filename*1=".exe"; filename*0="a"`, "attachment", []string{"a.exe"}},
		{"extended segments", `attachment; filename*0*=utf-8''%C3; filename*1*=%A4; filename*2=.exe`, "attachment", []string{"ä.exe"}},
		{"a segment is missing", `attachment; filename*0=a; filename*2=.exe`, "attachment", []string{"a.exe"}},
		{"both kinds", `attachment; filename=a.txt; filename*=utf-8''a.exe`, "attachment", []string{"a.txt", "a.exe"}},
		{"twice", `attachment; filename=a.txt; filename=a.exe`, "attachment", []string{"a.txt", "a.exe"}},
		{"encoded word", `attachment; filename="=?utf-8?Q?a=2Eexe?="`, "attachment", []string{"a.exe"}},
		{"no parameter", `attachment`, "attachment", nil},
		{"nothing", ``, "", nil},
		{"rubbish", `;;=;a;filename;=b;filename=c`, "", []string{"c"}},
		{"other names", `attachment; xfilename=a; filename2=b; filename*x=c; filename*-1=d; filename*999999999999999999999=e`, "attachment", nil},
	}
	for _, r := range rows {
		kind, params := parseParams(r.in)
		if got := values(params, "filename"); kind != r.kind || !reflect.DeepEqual(got, r.want) {
			t.Errorf("%s: %s: got %q %q, want %q %q", r.name, r.in, kind, got, r.kind, r.want)
		}
	}
}

func TestExtensions(t *testing.T) {
	x, _ := parseExtensions([]string{"EXE", ".scr", "com", "tar.gz"})
	for name, want := range map[string]bool{
		"a.exe": true, "A.EXE": true, "a.txt": false, "exe": false, "a.exe.": true, "a.exe . . ": true, "a.exe\u00a0": true,
		"invoice.pdf.exe": true, "invoice.exe.pdf": true, "a.exe                .jpg": true, "a. exe": true,
		"photo\u202egpj.exe": true, "\u202etxt.a": true, "a.e\u200bxe": true, "a.ex\u00ade": true, "שלום\u200f.pdf": false,
		"www.example.com.pdf": false, "www.example.com": true, `c:\dir.exe\a.txt`: false, "../../a.scr": true,
		"a.exe:.jpg": true, "a.exe::$DATA": true, ".exe": true, "a.tar.gz": true, "a.gz": false, "": false, "...": false, "a.exex": false,
		"exe.txt": false, "exe.a.txt": false,
	} {
		if got := x.refuse(name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
	if (extensions{}).refuse("a.exe") {
		t.Error("no extensions refuse a.exe")
	}
}

func TestNeedles(t *testing.T) {
	for pattern, want := range map[string][]string{
		"lottery": {"lottery"}, "(?i)LOTTERY.*win": {"lottery"}, "^$": nil, "[0-9]+": nil, "a*": nil, "(?:abc)?": nil, "(abc)+x": {"abc"}, "(?:ab){2,}": {"ab"},
		"viagra|cialis": {"viagra", "cialis"}, "viagra|": nil, "x(foo|bar)y": {"foo", "bar"}, "(?i)é": nil, ".": nil, "ab|[c]d*": {"ab", "c"},
	} {
		if got := needles(pattern); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q, want %q", pattern, got, want)
		}
	}
	for _, value := range []string{"loTTery", "King", "kiſs", "", "é"} {
		for _, pattern := range []string{"(?i)lottery", "(?i)king", "(?i)kiss", "(?i)kis", "^$", "k*"} {
			r, wrong := parseRule("warn x ~ " + pattern)
			if wrong != "" {
				t.Fatal(wrong)
			}
			v := newText(value)
			if got, want := r.matches(&v), r.pattern.MatchString(value); got != want {
				t.Errorf("%s on %q: got %v, want %v", pattern, value, got, want)
			}
		}
	}
}

// FuzzNeedles: no expression misses because of its needles.
func FuzzNeedles(f *testing.F) {
	f.Fuzz(func(t *testing.T, pattern, value string) {
		r, wrong := parseRule("warn x ~ " + pattern)
		if wrong != "" || len(pattern) > 200 || len(value) > 1000 {
			return
		}
		v := newText(value)
		if got, want := r.matches(&v), r.pattern.MatchString(value); got != want {
			t.Errorf("%q on %q: got %v, want %v", pattern, value, got, want)
		}
	})
}

// FuzzDecodeWords: the result is bounded UTF-8 without control characters.
func FuzzDecodeWords(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		got := decodeWords(s)
		if !utf8.ValidString(got) || len(got) > 3*len(s) || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("%q: got %q", s, got)
		}
	})
}

// FuzzParams: names and values are bounded, and values are UTF-8.
func FuzzParams(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		_, params := parseParams(s)
		if len(params) > maxParams {
			t.Errorf("%q: %d parameters", s, len(params))
		}
		for _, v := range values(params, "filename") {
			if !utf8.ValidString(v) || len(v) > 3*len(s) {
				t.Errorf("%q: value %q", s, v)
			}
			(extensions{"exe", "scr"}).refuse(v)
		}
	})
}

// TestHostileLength: what would be slow if it took the square of a length.
func TestHostileLength(t *testing.T) {
	const n = 1 << 20
	for _, piece := range []string{"=?", "=?a?q?", "=?utf-8?q?x", "=?utf-8?q??=", ";", ";a", "=", "a=;", `"`, "a=\";"} {
		s := strings.Repeat(piece, n/len(piece))
		decodeWords(s)
		_, params := parseParams(s)
		values(params, "a")
		_, params = parseParams(s + "=")
		values(params, "a")
	}
}
