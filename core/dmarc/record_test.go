package dmarc

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// show is a record in short, with what differs from the defaults.
func show(r Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "p=%s", r.P)
	add := func(name, value, normal string) {
		if value != normal {
			fmt.Fprintf(&b, " %s=%s", name, value)
		}
	}
	add("sp", string(r.SP), "")
	add("np", string(r.NP), "")
	add("adkim", string(r.ADKIM), "r")
	add("aspf", string(r.ASPF), "r")
	add("fo", r.FO, "0")
	for _, u := range r.RUA {
		fmt.Fprintf(&b, " rua=%s(%s,%d)", u.Text, u.Host(), u.Max)
	}
	for _, u := range r.RUF {
		fmt.Fprintf(&b, " ruf=%s", u.Text)
	}
	add("psd", r.PSD, "u")
	add("t", fmt.Sprint(r.Test), "false")
	add("pct", fmt.Sprint(r.Percent), "100")
	add("rf", r.Format, "afrf")
	add("ri", fmt.Sprint(r.Interval), "86400")
	return b.String()
}

func TestParseRecord(t *testing.T) {
	many := strings.Repeat("mailto:r@example.com,", 500)
	for _, row := range []struct{ name, txt, want string }{
		{"least", "v=DMARC1;p=none", "p=none"},
		{"all tags", "v=DMARC1; p=reject; sp=quarantine; np=none; adkim=s; aspf=s; fo=1:d:s; psd=n; t=y; pct=20; ri=3600; rf=afrf:iodef",
			"p=reject sp=quarantine np=none adkim=s aspf=s fo=1:d:s psd=n t=true pct=20 rf=afrf:iodef ri=3600"},
		{"case of names and values", "V=DMARC1; P=REJECT; ADKIM=S; PSD=Y; T=Y; FO=D:S", "p=reject adkim=s fo=d:s psd=y t=true"},
		{"blanks", "v = DMARC1 ;\tp =\treject\t;", "p=reject"},
		{"blank at the end", "v=DMARC1; p=reject ", "p=reject"},
		{"empty tags", "v=DMARC1;;; p=reject;;", "p=reject"},
		{"no tag", "v=DMARC1; hello; p=reject", "p=reject"},
		{"unknown tags", "v=DMARC1; x=1; p=reject; zz=;", "p=reject"},
		{"p last", "v=DMARC1; rf=afrf; p=reject", "p=reject"},
		{"twice", "v=DMARC1; p=reject; p=none; sp=none; sp=reject", "p=reject sp=none"},
		{"bad alignment", "v=DMARC1; p=reject; adkim=x; aspf=", "p=reject"},
		{"bad numbers", "v=DMARC1; p=reject; pct=-1; ri=abc", "p=reject"},
		{"percent above", "v=DMARC1; p=reject; pct=101", "p=reject"},
		{"percent with a sign", "v=DMARC1; p=reject; pct=+50", "p=reject"},
		{"percent nothing", "v=DMARC1; p=reject; pct=0", "p=reject pct=0"},
		{"bad fo", "v=DMARC1; p=reject; fo=0:1", "p=reject"},
		{"fo twice", "v=DMARC1; p=reject; fo=d:d", "p=reject"},
		{"bad psd and t", "v=DMARC1; p=reject; psd=x; t=maybe", "p=reject"},
		{"reports", "v=DMARC1; p=none; rua=mailto:a@Example.COM!10m, https://r.example/x ; ruf=mailto:f@example.com",
			"p=none rua=mailto:a@Example.COM(example.com,10485760) rua=https://r.example/x(r.example,0) ruf=mailto:f@example.com"},
		{"bad among good reports", "v=DMARC1; p=none; rua=a@example.com,,mailto:b@example.com,mailto:,mailto:x", "p=none rua=mailto:b@example.com(example.com,0)"},
		{"bad p with reports", "v=DMARC1; p=foo; sp=reject; rua=mailto:b@example.com", "p=none rua=mailto:b@example.com(example.com,0)"},
		{"bad sp with reports", "v=DMARC1; p=reject; sp=foo; np=reject; adkim=s; rua=mailto:b@example.com", "p=none adkim=s rua=mailto:b@example.com(example.com,0)"},
		{"bad np with reports", "v=DMARC1; p=reject; np=foo; rua=mailto:b@example.com", "p=none rua=mailto:b@example.com(example.com,0)"},
		{"no p with reports", "v=DMARC1; rua=mailto:b@example.com", "p=none rua=mailto:b@example.com(example.com,0)"},
		{"no p", "v=DMARC1; sp=reject", "no policy"},
		{"bad np", "v=DMARC1; p=reject; np=foo", "no policy"},
		{"no valid report address", "v=DMARC1; p=foo; rua=b@example.com", "no policy"},
		{"version only", "v=DMARC1", "no policy"},
		{"two equals", "v=DMARC1; p==reject", "no policy"},
		{"no delimiter", "v=DMARC1 p=reject", "no record"},
		{"blank first", " v=DMARC1; p=reject", "no record"},
		{"version in small letters", "v=dmarc1; p=reject", "no record"},
		{"version later", "p=reject; v=DMARC1", "no record"},
		{"version 2", "v=DMARC2; p=reject", "no record"},
		{"version 10", "v=DMARC10; p=reject", "no record"},
		{"quotes", `"v=DMARC1; p=reject"`, "no record"},
		{"backslash", `v=DMARC1\; p=reject`, "no record"},
		{"empty", "", "no record"},
		{"huge", "v=DMARC1; p=reject; x=" + strings.Repeat("x", maxRecord), "no record"},
		{"many reports", "v=DMARC1; p=reject; rua=" + many, "p=reject" + strings.Repeat(" rua=mailto:r@example.com(example.com,0)", maxURIs)},
	} {
		r, err := ParseRecord(row.txt)
		got := show(r)
		if errors.Is(err, ErrNotRecord) {
			got = "no record"
		} else if errors.Is(err, ErrNoPolicy) {
			got = "no policy"
		}
		if got != row.want {
			t.Errorf("%s: ParseRecord(%.200q)\n got %s\nwant %s", row.name, row.txt, got, row.want)
		}
	}
}

func TestParseURI(t *testing.T) {
	for _, row := range []struct{ in, text, host string }{
		{"mailto:a@b.example", "mailto:a@b.example", "b.example"},
		{" MAILTO:a%2Cb@B.Example.!5k ", "MAILTO:a%2Cb@B.Example.", ""},
		{"mailto:%22a%2Cb%22@b.example!5K", "mailto:%22a%2Cb%22@b.example", "b.example"},
		{"mailto:a@b.example?subject=x", "mailto:a@b.example?subject=x", "b.example"},
		{"mailto:a@bücher.example", "mailto:a@bücher.example", "xn--bcher-kva.example"},
		{"https://User@H.example:8443/x?y", "https://User@H.example:8443/x?y", "h.example"},
		{"tag:opaque", "tag:opaque", ""},
		{"mailto:a@b.example!", "", ""},
		{"mailto:a@b.example!x", "", ""},
		{"mailto:a@b.example!5!5", "", ""},
		{"mailto:a%0d%0aBcc:x@b.example", "", ""},
		{"mailto:@b.example", "", ""},
		{"mailto:a", "", ""},
		{"mailto:", "", ""},
		{"a@b.example", "", ""},
		{"https:", "", ""},
		{"", "", ""},
		{"x:" + strings.Repeat("y", maxURI), "", ""},
	} {
		u, err := ParseURI(row.in)
		if err != nil {
			u = URI{}
		}
		if (err != nil) != (row.text == "") && row.host != "" || u.Text != row.text && row.host != "" || u.Host() != row.host {
			t.Errorf("ParseURI(%.80q) = %+v %v, host %q; want %q and %q", row.in, u, err, u.Host(), row.text, row.host)
		}
	}
	for size, want := range map[string]uint64{"5": 5, "1k": 1 << 10, "10M": 10 << 20, "2g": 2 << 30, "1t": 1 << 40, "18446744073709551615t": 1<<64 - 1} {
		if u, err := ParseURI("mailto:a@b.example!" + size); err != nil || u.Max != want {
			t.Errorf("size %s: %d %v, want %d", size, u.Max, err, want)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, s := range []string{
		"v=DMARC1; p=reject; sp=none; rua=mailto:a@example.com!10m,https://x/; fo=1:d; pct=20; t=y; psd=n",
		"V = DMARC1 ;;p==;rua=,,,", "v=DMARC1;p=foo;rua=mailto:%zz@x", "v=DMARC1;ruf=mailto:a@b!99999999999999999999t",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, txt string) {
		r, err := ParseRecord(txt)
		if err != nil {
			return
		}
		switch {
		case r.P.weight() == 0 && r.P != None:
			t.Errorf("p is %q", r.P)
		case len(r.RUA) > maxURIs || len(r.RUF) > maxURIs || len(r.Flaws) > maxFlaws:
			t.Error("lists are not bounded")
		case r.Percent < 0 || r.Percent > 100 || r.Interval < 0:
			t.Errorf("numbers %d %d", r.Percent, r.Interval)
		}
		for _, u := range r.RUA {
			if strings.ContainsFunc(u.Mail.String(), isControl) {
				t.Errorf("address %q", u.Mail)
			}
			_ = u.Host()
		}
	})
}

func BenchmarkParseRecord(b *testing.B) {
	const txt = "v=DMARC1; p=reject; sp=quarantine; adkim=s; aspf=r; pct=100; fo=1; rua=mailto:dmarc-reports@example.com,mailto:r@reports.example.net!10m; ruf=mailto:f@example.com"
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRecord(txt); err != nil {
			b.Fatal(err)
		}
	}
}
