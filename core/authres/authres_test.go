package authres

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func full() Field {
	return Field{ServID: "mx.example.org", Results: []Result{
		{Method: "spf", Value: "pass", Props: []Prop{{"smtp", "mailfrom", "someone@bounces.example.com"}, {"smtp", "helo", "mail.example.com"}}},
		{Method: "dkim", Value: "fail", Reason: "signature did not verify", Comment: "2048-bit key", Props: []Prop{
			{"header", "d", "example.com"}, {"header", "i", "@example.com"}, {"header", "s", "2026"}, {"header", "b", "dXNlcm5hbWU/+="},
		}},
		{Method: "dmarc", Value: "fail", Props: []Prop{{"header", "from", "example.com"}, {"policy", "dmarc", "quarantine"}}},
		{Method: "iprev", Value: "pass", Props: []Prop{{"policy", "iprev", "2001:db8::1"}}},
	}}
}

func TestFormat(t *testing.T) {
	long := strings.Repeat("word ", 60)
	for _, row := range []struct {
		name string
		in   Field
		want []string // lines
	}{
		{"nothing", Field{ServID: "mx.example.org"}, []string{"Authentication-Results: mx.example.org; none"}},
		{"version", Field{ServID: "mx.example.org", Version: "1"}, []string{"Authentication-Results: mx.example.org 1; none"}},
		{"full", full(), []string{
			"Authentication-Results: mx.example.org;",
			"\tspf=pass smtp.mailfrom=someone@bounces.example.com",
			"\tsmtp.helo=mail.example.com;",
			"\tdkim=fail (2048-bit key) reason=\"signature did not verify\"",
			"\theader.d=example.com header.i=@example.com header.s=2026",
			"\theader.b=\"dXNlcm5hbWU/+=\";",
			"\tdmarc=fail header.from=example.com policy.dmarc=quarantine;",
			"\tiprev=pass policy.iprev=\"2001:db8::1\"",
		}},
		{"method version", Field{ServID: "x", Results: []Result{{Method: "dkim", Version: "1", Value: "pass"}}},
			[]string{"Authentication-Results: x;", "\tdkim/1=pass"}},
		{"hostile", Field{ServID: "mx\r\nBcc: x", Results: []Result{{
			Method: "s;p f=", Value: "pass\r\n\r\nbody", Comment: "a)b(\\\x00\r\nX: y", Reason: "\"; dkim=pass\r\n ;",
			Props: []Prop{{"smtp;", "mail from", "\"a\r\n.\r\n\"@x;y \xff\u2028"}},
		}}}, []string{
			`Authentication-Results: "mx Bcc: x";`,
			"\tspf=passbody (a\\)b\\(\\\\? X: y) reason=\"\\\"; dkim=pass ;\"",
			"\tsmtp.mailfrom=\"\\\"a . \\\"@x;y ??\"",
		}},
		{"empty", Field{Results: []Result{{}}}, []string{`Authentication-Results: "";`, "\tunknown=unknown"}},
		{"characters", Field{ServID: "x", Results: []Result{{Method: "spf", Value: "pass", Props: []Prop{{"smtp", "mailfrom", "jörg@bücher.example"}}}}},
			[]string{"Authentication-Results: x;", "\tspf=pass smtp.mailfrom=j?rg@b?cher.example"}},
		{"characters of UTF-8", Field{ServID: "x", UTF8: true, Results: []Result{{Method: "spf", Value: "pass", Props: []Prop{{"smtp", "mailfrom", "jörg@bücher.example"}}}}},
			[]string{"Authentication-Results: x;", "\tspf=pass smtp.mailfrom=jörg@bücher.example"}},
		{"long reason", Field{ServID: "x", Results: []Result{{Method: "spf", Value: "fail", Reason: long}}}, []string{
			"Authentication-Results: x;",
			"\tspf=fail reason=\"" + strings.TrimSpace(strings.Repeat("word ", 10)),
			strings.Repeat(" word", 15), strings.Repeat(" word", 15), strings.Repeat(" word", 15), strings.Repeat(" word", 5) + "\"",
		}},
	} {
		got := row.in.Format()
		if want := strings.Join(row.want, "\r\n") + "\r\n"; got != want {
			t.Errorf("%s:\n got %q\nwant %q", row.name, got, want)
		}
		check(t, got)
	}
}

// check holds what a formatted field must be.
func check(t *testing.T, s string) {
	t.Helper()
	if !strings.HasSuffix(s, "\r\n") {
		t.Fatalf("no line end: %q", s)
	}
	for i, line := range strings.Split(strings.TrimSuffix(s, "\r\n"), "\r\n") {
		switch {
		case len(line) > 998:
			t.Errorf("line of %d octets: %q", len(line), line)
		case strings.ContainsFunc(line, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }):
			t.Errorf("control character: %q", line)
		case i > 0 && (line[0] != ' ' && line[0] != '\t' || strings.TrimSpace(line) == ""):
			t.Errorf("no continuation: %q", line)
		}
	}
}

func TestLongValues(t *testing.T) {
	for _, s := range []string{strings.Repeat("x", 5000), strings.Repeat(`\`, 5000), strings.Repeat(" ", 5000), strings.Repeat("é", 5000), strings.Repeat("x ", 5000)} {
		f := Field{ServID: s, Version: s, UTF8: true, Results: []Result{{Method: s, Version: s, Value: s, Reason: s, Comment: s, Props: []Prop{{s, s, s}}}}}
		check(t, f.Format())
		check(t, ReceivedSPF{Result: s, Comment: s, EnvelopeFrom: s, Helo: s, Receiver: s, Identity: s, Mechanism: s, Problem: s, UTF8: true}.Format())
	}
}

func value(formatted string) string {
	_, v, _ := strings.Cut(formatted, ":")
	return v
}

func TestRoundTrip(t *testing.T) {
	want := full()
	want.Results = append(want.Results, Result{Method: "auth", Value: "pass", Comment: `a (b) \c`, Reason: `q " \ ;`, Props: []Prop{{"smtp", "auth", "a b"}}})
	got, err := Parse(value(want.Format()))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
	}
	if got.Results[1].Prop("HEADER", "D") != "example.com" || got.Results[1].Prop("header", "x") != "" {
		t.Error("Prop")
	}
}

// brief is a field in short.
func brief(f Field) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s|%s", f.ServID, f.Version)
	for _, r := range f.Results {
		fmt.Fprintf(&b, "; %s/%s=%s (%s) [%s]", r.Method, r.Version, r.Value, r.Comment, r.Reason)
		for _, p := range r.Props {
			fmt.Fprintf(&b, " %s.%s=%s", p.Type, p.Property, p.Value)
		}
	}
	return b.String()
}

func TestParse(t *testing.T) {
	for _, row := range []struct{ name, in, want string }{
		{"RFC 8601 B.2", " example.org 1; none", "example.org|1"},
		{"RFC 8601 B.3", " example.com;\r\n          spf=pass smtp.mailfrom=example.net", "example.com|; spf/=pass () [] smtp.mailfrom=example.net"},
		{"RFC 8601 B.4", " example.com;\r\n auth=pass (cram-md5) smtp.auth=sender@example.net;\r\n spf=pass smtp.mailfrom=example.net",
			"example.com|; auth/=pass (cram-md5) [] smtp.auth=sender@example.net; spf/=pass () [] smtp.mailfrom=example.net"},
		{"RFC 8601 B.6", ` example.com; dkim=pass reason="good signature" header.i=@mail-router.example.net; dkim=fail reason="bad signature" header.i=@newyork.example.com`,
			"example.com|; dkim/=pass () [good signature] header.i=@mail-router.example.net; dkim/=fail () [bad signature] header.i=@newyork.example.com"},
		{"RFC 8601 B.7", ` foo.example.net (foobar) 1 (baz); dkim (Because I like it) / 1 (One yay) = (wait for it) fail policy (A dot can go here) . (like that) expired (this surprised me) = (as I wasn't expecting it) 1362471462`,
			"foo.example.net|1; dkim/1=fail (as I wasn't expecting it) [] policy.expired=1362471462"},
		{"quoted name", `"mx.example.org"; none`, "mx.example.org|"},
		{"quoted pair", `"mx\.example.org"; none`, "mx.example.org|"},
		{"comment first", "(a (b) c) mx; spf=pass", "mx|; spf/=pass () []"},
		{"last semicolon", "mx; spf=pass;", "mx|; spf/=pass () []"},
		{"two semicolons", "mx;; spf=pass;;", "mx|; spf/=pass () []"},
		{"none among others", "mx; none; spf=pass", "mx|; spf/=pass () []"},
		{"name only", "mx", "mx|"},
		{"bare base64", "mx; dkim=pass header.b=Ab/+c=; spf=none", "mx|; dkim/=pass () [] header.b=Ab/+c=; spf/=none () []"},
		{"bare address of IPv6", "mx; iprev=pass policy.iprev=2001:db8::1", "mx|; iprev/=pass () [] policy.iprev=2001:db8::1"},
		{"quoted local part", `mx; spf=pass smtp.mailfrom="a b"@example.com`, `mx|; spf/=pass () [] smtp.mailfrom="a b"@example.com`},
		{"property without a type", "mx; dmarc=fail action=none header.from=x", "mx|; dmarc/=fail () [] .action=none header.from=x"},
		{"folded in quotes", "mx; spf=fail reason=\"a\r\n b\"", "mx|; spf/=fail () [a b]"},
		{"empty value", `mx; spf=pass smtp.mailfrom=`, "mx|; spf/=pass () [] smtp.mailfrom="},

		{"empty", "", "error"},
		{"no name", "; spf=pass", "error"},
		{"no name, but a result", "spf=pass (sender IP is 192.0.2.1) smtp.mailfrom=x", "error"},
		{"no result", "mx; spf", "error"},
		{"no value", "mx; spf=", "error"},
		{"no semicolon", "mx spf=pass", "error"},
		{"comment never ends", "mx; spf=pass (x", "error"},
		{"quote never ends", `mx; spf=pass reason="x`, "error"},
		{"quoted name never ends", `"mx`, "error"},
		{"deep comments", "mx " + strings.Repeat("(", 1000) + strings.Repeat(")", 1000), "error"},
		{"many results", "mx" + strings.Repeat("; spf=pass", 1000), "error"},
		{"many properties", "mx; spf=pass" + strings.Repeat(" a.b=c", 1000), "error"},
		{"huge", "mx; spf=pass reason=" + strings.Repeat("x", maxField), "error"},
		{"control", "mx; spf=pass \x00", "error"},
	} {
		f, err := Parse(row.in)
		got := brief(f)
		if err != nil {
			got = "error"
		}
		if got != row.want {
			t.Errorf("%s: Parse(%.100q)\n got %s %v\nwant %s", row.name, row.in, got, err, row.want)
		}
	}
}

func TestClaimsName(t *testing.T) {
	const our = "mx.example.org"
	yes := []string{
		"mx.example.org; spf=pass", "MX.Example.ORG;spf=pass", "mx.example.org", "mx.example.org.", " \r\n\tmx.example.org 1; none",
		`"mx.example.org"; none`, `"mx\.example\.org"; none`, `"mx.example.org`, `mx.example.org"; none`, `"mx".example.org; none`, `mx."example".org; none`,
		"(x) mx.example.org; none", "((x) y) mx.example.org (z) 1; none", "(x mx.example.org; none", "(mx.example.org) evil.example; none",
		"mx.example(x).org; none", "mx.(x)example.org; none", "mx.exa(x)mple.org; none", `(\) x) mx.example.org; none`,
		"mx.example\r\n .org; none", "mx . example . org; none", "mx.example.org/1; none", "mx.example.org=pass; none", "mx.example.org, spf=pass",
		"=?utf-8?q?mx.example.org?=; none", "=?utf-8?b?bXguZXhhbXBsZS5vcmc=?=; none", "=?x-y?q?mx?= =?utf-8?q?.example.org?=; none", "mx.=?utf-8?q?example?=.org; none",
		"mx.example.org\x00; none", "mx.exam\x00ple.org; none", "\x01mx.example.org; none", "mx\u3002example\uff0eorg; none", "ｍｘ.example.org; none",
		"mx.exam\u00adple.org; none", "mx.example\u200b.org; none", "<mx.example.org>; none", "x mx.example.org; none", `x"; mx.example.org`,
		strings.Repeat(" ", 10000) + "mx.example.org", "(" + strings.Repeat("x", 10000), "\u200emx.example.org; none",
	}
	no := []string{
		"", ";", "; spf=pass", "example.org; none", "mx2.example.org; none", "xmx.example.org; none", "mx.example.org.evil.example; none", "a.mx.example.org; none",
		"evil.example; spf=pass smtp.mailfrom=mx.example.org", "evil.example (asked by mx.example.org); none", "mx-example.org; none", "mx.example.com; none",
		`"evil.example"; reason="mx.example.org; x"`, "evil.example 1; dkim=pass header.d=mx.example.org",
	}
	for _, v := range yes {
		if !ClaimsName(v, our) {
			t.Errorf("%.80q does not claim %s", v, our)
		}
	}
	for _, v := range no {
		if ClaimsName(v, our) {
			t.Errorf("%.80q claims %s", v, our)
		}
	}
	for _, v := range []string{"bücher.example; none", "BÜCHER.example; none", "xn--bcher-kva.example; none", "XN--BCHER-KVA.Example.; none", "bu\u0308cher.example; none"} {
		for _, name := range []string{"bücher.example", "xn--bcher-kva.example."} {
			if !ClaimsName(v, name) {
				t.Errorf("%q does not claim %s", v, name)
			}
		}
	}
	if !ClaimsName(`"My Server"; none`, "my server") || ClaimsName("x", "") {
		t.Error("names that are no domains")
	}
}

func TestReceivedSPF(t *testing.T) {
	got := ReceivedSPF{
		Result: "pass", Comment: "mx.example.org: domain of a@example.com designates 192.0.2.1 as permitted sender",
		ClientIP: netip.MustParseAddr("::ffff:192.0.2.1"), EnvelopeFrom: "a@example.com", Helo: "mail.example.com", Receiver: "mx.example.org",
		Identity: "mailfrom", Mechanism: "ip4:192.0.2.0/24",
	}.Format()
	want := "Received-SPF: pass (mx.example.org: domain of a@example.com designates\r\n" +
		" 192.0.2.1 as permitted sender) receiver=mx.example.org; identity=mailfrom;\r\n" +
		"\tclient-ip=192.0.2.1; envelope-from=\"a@example.com\";\r\n" +
		"\thelo=mail.example.com; mechanism=\"ip4:192.0.2.0/24\"\r\n"
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	check(t, got)
	got = ReceivedSPF{Result: "none", ClientIP: netip.MustParseAddr("fe80::1%eth0"), Helo: "x;\r\nBcc: y", EnvelopeFrom: ""}.Format()
	if want := "Received-SPF: none client-ip=\"fe80::1\"; helo=\"x; Bcc: y\"\r\n"; got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if got := (ReceivedSPF{Result: "none"}).Format(); got != "Received-SPF: none\r\n" {
		t.Errorf("got %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"mx.example.org 1; dkim/1=pass (x (y)) reason=\"a \\\" b\" header.d=example.com; none", "(c) \"a\\b\" ; spf=pass smtp.mailfrom=\"q\"@x",
		"mx; a=b c.d=e;;", "mx=;", "=?utf-8?q?x?=; spf=\"\"",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		claims := ClaimsName(s, "mx.example.org")
		got, err := Parse(s)
		if err != nil {
			return
		}
		if strings.EqualFold(got.ServID, "mx.example.org") && !claims {
			t.Errorf("%q is ours, but does not claim to be", s)
		}
		formatted := got.Format()
		check(t, formatted)
		again, err := Parse(value(formatted))
		if err != nil {
			t.Fatalf("%q cannot be read: %v", formatted, err)
		}
		if len(again.Results) != len(got.Results) && !slices.ContainsFunc(got.Results, func(r Result) bool { return r.Method == "" }) {
			t.Errorf("%q has %d results, not %d", formatted, len(again.Results), len(got.Results))
		}
	})
}

func BenchmarkFormat(b *testing.B) {
	f := full()
	b.ReportAllocs()
	for b.Loop() {
		_ = f.Format()
	}
}

func BenchmarkClaimsName(b *testing.B) {
	v := value(full().Format())
	b.ReportAllocs()
	for b.Loop() {
		ClaimsName(v, "mail.example.net")
	}
}
