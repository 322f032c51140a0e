//go:build !wasip1

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/wafermail/wafer/sdk"
)

// zone is the DNS of the tests below: the client of "good" facts may send for
// example.com, whose other policies are named after their result.
func zone() map[string]sdk.Answer {
	z := map[string]sdk.Answer{}
	for q, record := range map[string]string{
		"TXT example.com":           "v=spf1 ip4:192.0.2.1 -all",
		"TXT explained.example":     "v=spf1 ip4:192.0.2.1 exp=why.explained.example -all",
		"TXT why.explained.example": "%{i} may not send for %{o}",
		"TXT soft.example":          "v=spf1 ip4:192.0.2.1 ~all",
		"TXT neutral.example":       "v=spf1 ?all",
		"TXT broken.example":        "v=spf1 moo -all",
		"TXT nomail.example":        "v=spf1 -all",
		"TXT mail.example.com":      "v=spf1 a -all",
		"A mail.example.com":        "192.0.2.1",
		"TXT relay.example":         "v=spf1 ip4:198.51.100.9 -all",
		"A helo.example":            "198.51.100.9",
		"PTR 198.51.100.9":          "out.relay.example",
		"A out.relay.example":       "198.51.100.9",
		"PTR 198.51.100.10":         "liar.relay.example",
		"TXT xn--mller-kva.example": "v=spf1 -all",
	} {
		z[q] = sdk.Answer{Records: []string{record}}
	}
	z["TXT later.example"] = sdk.Answer{Status: sdk.DNSTemp}
	return z
}

func ask(t *testing.T, config map[string][]string, facts sdk.Facts) sdk.Verdict {
	t.Helper()
	f := sdk.NewFake(&plugin)
	f.Zone = zone()
	if err := f.Configure(config); err != nil {
		t.Fatal(err)
	}
	if facts.Stage == 0 {
		facts.Stage = sdk.Mail
	}
	facts.Hostname = "mx.local.example"
	v, err := f.Call(facts)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// said is a verdict in one line: action, code, reason.
func said(v sdk.Verdict) string {
	s := fmt.Sprintf("%d", v.Code)
	if v.Code == 0 {
		s = map[sdk.Action]string{sdk.ActionNext: "next", sdk.ActionAccept: "accept", sdk.ActionQuarantine: "quarantine"}[v.Action]
	}
	return strings.Join(strings.Fields(s+" "+v.Enhanced+" "+v.Reason), " ")
}

func TestVerdicts(t *testing.T) {
	const good, bad = "192.0.2.1", "198.51.100.7"
	type config = map[string][]string
	rows := []struct {
		name                 string
		config               config
		client, helo, sender string
		want                 string
	}{
		{"pass", nil, good, "mail.example.com", "a@example.com", "next spf-pass"},
		{"fail", nil, bad, "h", "a@example.com", "550 5.7.23 spf-fail"},
		{"fail for HELO", nil, bad, "mail.example.com", "a@soft.example", "550 5.7.23 spf-helo-fail"},
		{"HELO is not asked", config{"identities": {"mail"}}, bad, "mail.example.com", "a@soft.example", "next spf-softfail"},
		{"MAIL is not asked", config{"identities": {"helo"}}, bad, "soft.example", "a@example.com", "next spf-helo-softfail"},
		{"softfail", nil, bad, "h", "a@soft.example", "next spf-softfail"},
		{"softfail rejected", config{"softfail": {"reject"}}, bad, "h", "a@soft.example", "550 5.7.23 spf-softfail"},
		{"softfail rejected for HELO only", config{"helo_softfail": {"reject"}}, bad, "soft.example", "a@soft.example", "550 5.7.23 spf-helo-softfail"},
		{"softfail for HELO is let through", config{"softfail": {"reject"}, "helo_softfail": {"next"}}, bad, "soft.example", "a@soft.example", "550 5.7.23 spf-softfail"},
		{"fail is not acted on", config{"fail": {"next"}}, bad, "h", "a@example.com", "next spf-fail"},
		{"permerror", nil, good, "h", "a@broken.example", "next spf-permerror"},
		{"permerror rejected", config{"permerror": {"reject"}}, good, "h", "a@broken.example", "550 5.7.24 spf-permerror"},
		{"temperror", nil, good, "h", "a@later.example", "next spf-temperror"},
		{"temperror deferred", config{"temperror": {"defer"}}, good, "h", "a@later.example", "451 4.7.24 spf-temperror"},
		{"temperror for HELO deferred", config{"temperror": {"defer"}}, good, "later.example", "a@example.com", "451 4.7.24 spf-helo-temperror"},
		{"fail deferred", config{"fail": {"defer"}}, bad, "h", "a@example.com", "451 4.7.23 spf-fail"},
		{"plain enhanced code", config{"enhanced_codes": {"false"}}, bad, "h", "a@example.com", "550 5.7.1 spf-fail"},
		{"quarantine", config{"softfail": {"quarantine"}}, bad, "h", "a@soft.example", "quarantine spf-softfail"},
		{"accept", config{"pass": {"accept"}}, good, "h", "a@example.com", "accept spf-pass"},
		{"accept for HELO", config{"helo_pass": {"accept"}}, good, "mail.example.com", "a@nomail.example", "accept spf-helo-pass"},
		{"no policy", nil, bad, "h", "a@none.example", "next spf-none"},
		{"no policy, rejected", config{"none": {"reject"}}, bad, "mail.example.org", "a@none.example", "550 5.7.23 spf-helo-none"},
		{"the greeting tells what the sender does not", nil, good, "mail.example.com", "a@none.example", "next spf-helo-pass"},
		{"null sender", nil, bad, "mail.example.com", "", "550 5.7.23 spf-helo-fail"},
		{"null sender as MAIL FROM", config{"identities": {"mail"}}, bad, "mail.example.com", "", "550 5.7.23 spf-fail"},
		{"helo_null_only, null sender", config{"helo_null_only": {"true"}}, bad, "mail.example.com", "", "550 5.7.23 spf-helo-fail"},
		{"helo_null_only, a sender", config{"helo_null_only": {"true"}}, bad, "mail.example.com", "a@soft.example", "next spf-softfail"},
		{"no_mail, sends none", config{"no_mail": {"true"}}, bad, "h", "a@nomail.example", "550 5.7.23 spf-fail"},
		{"no_mail, sends some", config{"no_mail": {"true"}}, bad, "h", "a@example.com", "next spf-fail"},
		{"reject_not_pass, softfail", config{"reject_not_pass": {"Soft.example"}}, bad, "h", "a@soft.example", "550 5.7.23 spf-softfail"},
		{"reject_not_pass, neutral", config{"reject_not_pass": {"neutral.example"}}, bad, "h", "a@neutral.example", "550 5.7.23 spf-neutral"},
		{"reject_not_pass, permerror", config{"reject_not_pass": {"broken.example"}}, bad, "h", "a@broken.example", "next spf-permerror"},
		{"this host", nil, "127.0.0.1", "mail.example.com", "a@nomail.example", "next spf-skipped"},
		{"this host is checked, too", config{"skip": {}}, "127.0.0.1", "h", "a@nomail.example", "550 5.7.23 spf-fail"},
		{"mapped network", config{"skip": {"::ffff:198.51.100.0/120"}}, bad, "h", "a@nomail.example", "next spf-skipped"},
		{"trusted network", config{"trust_networks": {"198.51.100.0/24"}}, bad, "h", "a@nomail.example", "next spf-skipped"},
		{"trusted domain", config{"trust_domains": {"relay.example"}}, "198.51.100.9", "h", "a@nomail.example", "next spf-skipped"},
		{"not of the trusted domain", config{"trust_domains": {"relay.example"}}, bad, "h", "a@nomail.example", "550 5.7.23 spf-fail"},
		{"trusted greeting", config{"trust_helo": {"helo.example"}}, "198.51.100.9", "HELO.example", "a@nomail.example", "next spf-skipped"},
		{"forged greeting", config{"trust_helo": {"helo.example"}}, bad, "helo.example", "a@nomail.example", "550 5.7.23 spf-fail"},
		{"trusted name", config{"trust_ptr": {"relay.example"}}, "198.51.100.9", "h", "a@nomail.example", "next spf-skipped"},
		{"forged name", config{"trust_ptr": {"relay.example"}}, "198.51.100.10", "h", "a@nomail.example", "550 5.7.23 spf-fail"},
		{"prospective", config{"prospective": {good}}, bad, "h", "a@example.com", "next spf-pass"},
		{"internationalised domain", nil, good, "h", "a@Müller.example", "550 5.7.23 spf-fail"},
		{"bare postmaster", nil, good, "h", "postmaster", "next spf-none"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			v := ask(t, r.config, sdk.Facts{Client: r.client, Helo: r.helo, Sender: r.sender, HasSender: true})
			if got := said(v); got != r.want {
				t.Errorf("got %s (%s), want %s", got, v.Text, r.want)
			}
		})
	}
}

func TestTexts(t *testing.T) {
	rows := []struct {
		name, sender string
		config       map[string][]string
		want         string
	}{
		{"fail", "a@example.com", nil, "Message rejected due to: SPF fail - not authorized. Please see http://www.openspf.net/Why?s=mfrom;id=a@example.com;ip=198.51.100.7;r=local.example"},
		{"explained", "a@explained.example", nil, "Message rejected due to: SPF fail - not authorized. The domain explained.example explains: 198.51.100.7 may not send for explained.example. Please see http://www.openspf.net/Why?s=mfrom;id=a@explained.example;ip=198.51.100.7;r=local.example"},
		{"own words", "a@soft.example", map[string][]string{"reason": {"{rejectdefer}: {spf}"}, "softfail": {"defer"}}, "deferred: domain owner discourages use of this host"},
		{"by our own list", "a@soft.example", map[string][]string{"reason": {"{spf}"}, "reject_not_pass": {"soft.example"}}, "Receiver policy for SPF SoftFail"},
		{"hidden", "a@example.com", map[string][]string{"reason": {"{url}"}, "hide_receiver": {"true"}}, "http://www.openspf.net/Why?s=mfrom;id=a@example.com;ip=198.51.100.7;r=<UNKNOWN>"},
		{"permerror", "a@broken.example", map[string][]string{"reason": {"{spf}"}, "permerror": {"reject"}}, "SPF Permanent Error: Unknown mechanism found: moo"},
		{"temperror", "a@later.example", map[string][]string{"reason": {"{spf}"}, "temperror": {"reject"}}, "SPF Temporary Error: DNS has no answer now"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			v := ask(t, r.config, sdk.Facts{Stage: sdk.Rcpt, Client: "198.51.100.7", Helo: "h", Sender: r.sender, Recipient: "b@local.example", HasSender: true})
			if v.Text != r.want {
				t.Errorf("\n got %s\nwant %s", v.Text, r.want)
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	mail := sdk.Facts{Client: "192.0.2.1", Helo: "mail.example.com", Sender: "a@example.com", HasSender: true}
	with := func(change func(*sdk.Facts)) sdk.Facts {
		f := mail
		change(&f)
		return f
	}
	const tail = `client-ip=192.0.2.1; envelope-from="a@example.com"; helo=mail.example.com; receiver=mx.local.example; mechanism="ip4:192.0.2.1"; identity=mailfrom`
	rows := []struct {
		name   string
		config map[string][]string
		facts  sdk.Facts
		want   string // fields joined by " | "
	}{
		{"Received-SPF", nil, mail, "Received-SPF: Pass (mx.local.example: domain of example.com designates 192.0.2.1 as permitted sender) " + tail},
		{"Authentication-Results", map[string][]string{"header": {"authentication-results"}}, mail, "Authentication-Results: mx.local.example; spf=pass (mx.local.example: domain of example.com designates 192.0.2.1 as permitted sender) smtp.mailfrom=example.com"},
		{"for HELO, with our name", map[string][]string{"header": {"authentication-results"}, "authserv_id": {"local.example"}, "identities": {"helo"}}, mail, "Authentication-Results: local.example; spf=pass (mx.local.example: domain of mail.example.com designates 192.0.2.1 as permitted sender) smtp.helo=mail.example.com"},
		{"none", map[string][]string{"header": {"none"}}, mail, ""},
		{"hidden receiver", map[string][]string{"hide_receiver": {"true"}}, mail, "Received-SPF: Pass (domain of example.com designates 192.0.2.1 as permitted sender) " + strings.Replace(tail, " receiver=mx.local.example;", "", 1)},
		{"prospective", map[string][]string{"prospective": {"192.0.2.1"}}, mail, ""},
		{"at HELO", nil, with(func(f *sdk.Facts) { f.Stage = sdk.Helo }), ""},
		{"at the first recipient", nil, with(func(f *sdk.Facts) { f.Stage = sdk.Rcpt }), "Received-SPF: Pass (mx.local.example: domain of example.com designates 192.0.2.1 as permitted sender) " + tail},
		{"at the second recipient", nil, with(func(f *sdk.Facts) { f.Stage, f.RecipientCount = sdk.Rcpt, 1 }), ""},
		{"nasty greeting", nil, with(func(f *sdk.Facts) { f.Helo, f.Sender = "a\" ;\\(x", "" }), `Received-SPF: None (mx.local.example: domain of a" ;\\\(x has no policy) client-ip=192.0.2.1; envelope-from="<>"; helo="a\" ;\\(x"; receiver=mx.local.example; identity=helo`},
		{"error", nil, with(func(f *sdk.Facts) { f.Sender = "a@broken.example" }), `Received-SPF: PermError (mx.local.example: permanent error in processing domain of broken.example: Unknown mechanism found) client-ip=192.0.2.1; envelope-from="a@broken.example"; helo=mail.example.com; receiver=mx.local.example; problem=moo; identity=mailfrom`},
		{"skipped", map[string][]string{"header": {"both"}}, with(func(f *sdk.Facts) { f.Client = "::1" }), `Authentication-Results: mx.local.example; none (SPF check N/A for local connections) | X-Comment: SPF check N/A for local connections - client-ip=::1; envelope-from="a@example.com"; helo=mail.example.com; receiver=mx.local.example`},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			var fields []string
			for _, m := range ask(t, r.config, r.facts).Mods {
				fields = append(fields, m.Name+": "+m.Value)
			}
			if got := strings.Join(fields, " | "); got != r.want {
				t.Errorf("\n got %s\nwant %s", got, r.want)
			}
		})
	}
	v := ask(t, map[string][]string{"softfail": {"tag"}}, sdk.Facts{Client: "198.51.100.7", Sender: "a@soft.example", HasSender: true})
	if len(v.Mods) != 2 || v.Mods[0].Value != "spf-softfail" {
		t.Errorf("tag: got %+v", v.Mods)
	}
}

func TestConfigErrors(t *testing.T) {
	for field, values := range map[string][]string{
		"identities": {}, "void_limit": {"-1"}, "prospective": {"mail"}, "skip": {"10.0.0.0/99"}, "trust_networks": {"relay.example"},
		"trust_domains": {"a b"}, "trust_ptr": {"192.0.2.1/8"}, "trust_helo": {""}, "reject_not_pass": {"..."}, "fail": {"refuse"}, "header": {"spf"},
	} {
		err := sdk.NewFake(&plugin).Configure(map[string][]string{field: values})
		var c *sdk.ConfigError
		if !errors.As(err, &c) || c.Field != field {
			t.Errorf("%s = %q: got %v", field, values, err)
		}
	}
}

// TestBudget gives a policy within the RFC's limits fewer questions than it
// needs: what was answered counts, and the rest is a temporary error.
func TestBudget(t *testing.T) {
	var record strings.Builder
	answers := map[sdk.Question]sdk.Answer{}
	put := func(kind, name, record string) {
		q := sdk.Question{Type: kind, Name: name}
		a := answers[q]
		a.Records = append(a.Records, record)
		answers[q] = a
	}
	record.WriteString("v=spf1")
	for i := range 10 {
		d := fmt.Sprintf("d%d.example.com", i)
		record.WriteString(" mx:" + d)
		for j := range 10 {
			host := fmt.Sprintf("h%d.%s", j, d)
			put("MX", d, fmt.Sprintf("%d %s", j, host))
			put("A", host, fmt.Sprintf("192.0.%d.%d", i, j))
		}
	}
	put("TXT", "example.com", record.String()+" -all")
	run := func(client string, budget int) (outcome, int) {
		asked := 0
		l := newLookups(func(qs ...sdk.Question) (as []sdk.Answer, err error) {
			if asked+len(qs) > budget {
				return nil, sdk.ErrQuota
			}
			asked += len(qs)
			for _, q := range qs {
				as = append(as, answers[q])
			}
			return as, nil
		})
		v := evaluation{dns: l, most: 2}
		v.ip = netip.MustParseAddr(client)
		return v.check("example.com"), asked
	}
	rows := []struct {
		client string
		budget int
		want   result
		asked  int
	}{
		{"198.51.100.7", 111, fail, 111}, {"192.0.9.9", 111, pass, 111}, {"192.0.0.3", 20, pass, 12},
		{"192.0.1.0", 20, pass, 20}, {"192.0.5.0", 20, temperror, 20}, {"198.51.100.7", 20, temperror, 20}, {"198.51.100.7", 0, temperror, 0},
	}
	for _, r := range rows {
		if o, asked := run(r.client, r.budget); o.result != r.want || asked != r.asked {
			t.Errorf("%s with %d questions: got %s after %d, want %s after %d", r.client, r.budget, o.result, asked, r.want, r.asked)
		}
	}
}

func TestPunycode(t *testing.T) {
	rows := []struct{ name, in, want string }{
		{"German", "Bücher.example", "xn--bcher-kva.example"},
		{"no basic code point", "他们为什么不说中文.example", "xn--ihqwcrb4cv8a8dqg056pqjye.example"},
		{"mixed", "3年b組金八先生", "xn--3b-ww4c5e180e575a65lsy2b"},
		{"ASCII", "Mail.Example", "Mail.Example"},
		{"not UTF-8", "b\xfccher.example", "b\xfccher.example"},
	}
	for _, r := range rows {
		if got := asciiDomain(r.in); got != r.want {
			t.Errorf("%s: %q: got %q, want %q", r.name, r.in, got, r.want)
		}
	}
}
