package mtasts

import (
	"fmt"
	"strings"
	"testing"
)

const good = "version: STSv1\nmode: enforce\nmx: mx.example.net\r\nmx: *.wild.example\nmax_age: 86400\nfuture: x\n"

// TestParsePolicy: RFC 8461 §3.2.
func TestParsePolicy(t *testing.T) {
	rows := []struct {
		name, in, want string
	}{
		{"good", good, "enforce [mx.example.net *.wild.example] 24h0m0s"},
		{"none needs no mx", "version: STSv1\nmode: none\nmax_age: 1\n", "none [] 1s"},
		{"the first counts", "version: STSv1\nmode: testing\nmode: enforce\nmx: a.b\nmax_age: 1\n", "testing [a.b] 1s"},
		{"too long is cut", "version: STSv1\nmode: testing\nmx: a.b\nmax_age: 4294967295\n", "testing [a.b] 8766h0m0s"},
		{"ten digits", "version: STSv1\nmode: testing\nmx: a.b\nmax_age: 9999999999\n", "testing [a.b] 8766h0m0s"},
		{"eleven digits", "version: STSv1\nmode: testing\nmx: a.b\nmax_age: 00000000001\n", ""},
		{"any order, no space, no last line end", "mx:a.b\nmax_age:1\nmode:enforce\nversion:STSv1", "enforce [a.b] 1s"},
		{"spaces at the end", "version: STSv1 \r\nmode: enforce\t\r\nmx: a.b \r\nmax_age: 1 \r\n\r\n", "enforce [a.b] 1s"},
		{"unknown fields, one twice", "version: STSv1\nx_y-z.1: a: b=c;\nx_y-z.1: \u00e9\nmode: none\nmax_age: 1\n", "none [] 1s"},
		{"a second field of nonsense", "version: STSv1\nmode: none\nmode: maybe\nmax_age: 1\nmax_age: x\n", "none [] 1s"},
		{"longest", "version: STSv1\nmode: none\nmax_age: 1\n" + strings.Repeat("x: y\n", 13096) + "x: " + strings.Repeat("y", 16), "none [] 1s"},
		{"one octet longer", "version: STSv1\nmode: none\nmax_age: 1\n" + strings.Repeat("x: y\n", 13096) + "x: " + strings.Repeat("y", 17), ""},
		{"most hosts", "version: STSv1\nmode: enforce\nmax_age: 1\n" + strings.Repeat("mx: a.b\n", 256), "enforce [" + strings.Repeat("a.b ", 255) + "a.b] 1s"},
		{"too many hosts", "version: STSv1\nmode: enforce\nmax_age: 1\n" + strings.Repeat("mx: a.b\n", 257), ""},
		{"space before the name", "version: STSv1\n mode: none\nmax_age: 1\n", ""},
		{"mode in capitals", "version: STSv1\nmode: NONE\nmax_age: 1\n", ""},
		{"bare CR", "version: STSv1\rmode: none\rmax_age: 1\r", ""},
		{"NUL", "version: STSv1\nmode: none\nmax_age: 1\nx: \x00\n", ""},
		{"byte order mark", "\ufeffversion: STSv1\nmode: none\nmax_age: 1\n", ""},
		{"empty", "", ""},
		{"mx is an address", "version: STSv1\nmode: enforce\nmx: [192.0.2.1]\nmax_age: 1\n", ""},
		{"mx is a bare wildcard", "version: STSv1\nmode: enforce\nmx: *.\nmax_age: 1\n", ""},
		{"mx has a wildcard within", "version: STSv1\nmode: enforce\nmx: a.*.b\nmax_age: 1\n", ""},
		{"mx has two wildcards", "version: STSv1\nmode: enforce\nmx: *.*.b\nmax_age: 1\n", ""},
		{"max_age with a sign", "version: STSv1\nmode: none\nmax_age: +1\n", ""},
		{"max_age with a unit", "version: STSv1\nmode: none\nmax_age: 1d\n", ""},
		{"no version", "mode: none\nmax_age: 1\n", ""},
		{"another version", "version: STSv2\nmode: none\nmax_age: 1\n", ""},
		{"no mode", "version: STSv1\nmax_age: 1\nmx: a.b\n", ""},
		{"another mode", "version: STSv1\nmode: maybe\nmax_age: 1\nmx: a.b\n", ""},
		{"no max_age", "version: STSv1\nmode: enforce\nmx: a.b\n", ""},
		{"negative max_age", "version: STSv1\nmode: enforce\nmx: a.b\nmax_age: -1\n", ""},
		{"no mx", "version: STSv1\nmode: enforce\nmax_age: 1\n", ""},
		{"mx of nonsense", "version: STSv1\nmode: enforce\nmx: a b\nmax_age: 1\n", ""},
		{"no field", "version: STSv1\nnonsense\n", ""},
		{"HTML", "<!doctype html>\n", ""},
		{"huge", good + strings.Repeat("x: y\n", 20000), ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p, err := ParsePolicy(strings.NewReader(r.in))
			got := ""
			if err == nil {
				got = fmt.Sprint(p.Mode, " ", p.MX, " ", p.MaxAge)
			}
			if got != r.want {
				t.Errorf("%q (%v), want %q", got, err, r.want)
			}
		})
	}
}

// TestMatch: RFC 8461 §4.1.
func TestMatch(t *testing.T) {
	p := Policy{MX: []string{"mx.example.net", "*.wild.example", "*.xn--bcher-kva.example"}}
	for host, want := range map[string]bool{
		"mx.example.net": true, "MX.example.NET.": true, "a.mx.example.net": false, "a.wild.example": true, "a.b.wild.example": false, "wild.example": false, "": false,
		".wild.example": false, "xwild.example": false, "*.wild.example": true, "A.Wild.EXAMPLE": true, "example.net": false, "mx.b\u00fccher.example": true, "mx.xn--bcher-kva.example": true, "wild": false,
	} {
		if p.Match(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}

// TestParseRecord: RFC 8461 §3.1.
func TestParseRecord(t *testing.T) {
	for in, want := range map[string]string{
		"v=STSv1; id=2026;": "2026", "v=STSv1;id=a1": "a1", "v=STSv1 ; x=y; id=1": "1",
		"v=STSv2; id=1": "", "v=STSv1;": "", "v=STSv1; id=a b": "", "id=1; v=STSv1": "", "v=STSv1; id=1|v=STSv1; id=2": "",
		"v=STSv1;id=1;;": "", "v=STSv1;id=1; ": "1", "v=STSv1\t;\tid=1\t;": "1", "v=STSv1": "", "v=STSv1|v=STSv1;id=4": "4", "v=STSv1;id=1;id=2": "1",
		"v=STSv1; id=1; junk": "", "v=STSv1; id=1; x=": "", "v=STSv1; id=1; x=a b": "", "v=STSv1; id=1; x=a=b": "", "v=STSv1; id = 1": "", "v=STSv1; ID=1": "",
		"V=STSv1; id=1": "", " v=STSv1; id=1": "", "v=STSv1; id=1\n": "", "v=STSv1; x_y-z.2=\"ok\"; id=20260301T00": "20260301T00", "v=STSv1; -x=1; id=1": "",
		"v=STSv10; id=1|v=STSv1; id=2": "2", "": "", "v=STSv1; x=" + strings.Repeat("y", maxRecord) + "; id=1": "", "v=STSv1; id=" + strings.Repeat("x", 32): strings.Repeat("x", 32),
		"v=STSv1; id=1|v=STSv1; junk": "", "v=STSv1; junk|v=STSv1; id=1": "",
		"v=spf1 -all|v=STSv1; id=3": "3", "v=STSv1; id=" + strings.Repeat("x", 33): "",
	} {
		if id, ok := ParseRecord(strings.Split(in, "|")); id != want || ok != (want != "") {
			t.Errorf("%q: %q %v", in, id, ok)
		}
	}
}

// FuzzParsePolicy: what is accepted is whole and within its bounds.
func FuzzParsePolicy(f *testing.F) {
	f.Add(good) // more in testdata
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePolicy(strings.NewReader(s))
		if err != nil {
			return
		}
		if err := p.check(); err != nil || len(s) > maxPolicy || !strings.Contains(s, "STSv1") {
			t.Errorf("%+v: %v", p, err)
		}
		for _, mx := range p.MX {
			if host := strings.Replace(mx, "*", "x", 1); !p.Match(host) {
				t.Errorf("%q does not match %q", host, mx)
			}
		}
	})
}

// FuzzParseRecord: an id is an id, and a second record is never passed over.
func FuzzParseRecord(f *testing.F) {
	f.Add("v=STSv1; id=2026;", "v=spf1 -all") // more in testdata
	f.Fuzz(func(t *testing.T, a, b string) {
		id, ok := ParseRecord([]string{a, b})
		if ok != (id != "") || len(id) > 32 || ok && !strings.Contains(a+"\n"+b, "id="+id) {
			t.Errorf("%q, %q: %q %v", a, b, id, ok)
		}
		back, _ := ParseRecord([]string{b, a})
		if back != id {
			t.Errorf("%q, %q: %q one way and %q the other", a, b, id, back)
		}
	})
}
