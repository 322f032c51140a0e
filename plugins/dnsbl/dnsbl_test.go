//go:build !wasip1

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/wafermail/wafer/sdk"
)

// world is the DNS of the tests. 203.0.113.9 is in all lists.
func world() map[string]sdk.Answer {
	ok := func(records ...string) sdk.Answer { return sdk.Answer{Records: records} }
	return map[string]sdk.Answer{
		"A 9.113.0.203.bl.example.org":        ok("127.0.0.2", "127.0.0.4"),
		"TXT 9.113.0.203.bl.example.org":      ok("see http://bl.example.org/9", "and more"),
		"A 9.113.0.203.second.example.org":    ok("127.0.0.10"),
		"A 9.113.0.203.wl.example.org":        ok("127.0.5.2"),
		"A 9.113.0.203.over.example.org":      ok("127.255.255.254"),
		"A 9.113.0.203.sold.example.org":      ok("192.0.2.80"),
		"A 9.113.0.203.empty.example.org":     ok(),
		"A 9.113.0.203.junk.example.org":      ok("::1", "nonsense", "127.0.0.300"),
		"A 9.113.0.203.silent.example.org":    {Status: sdk.DNSTemp},
		"A bad.example.com.dbl.example.org":   ok("127.0.1.2"),
		"TXT bad.example.com.dbl.example.org": ok("a\r\n250 ok\x00 é"),
		"A 7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example.org": ok("127.0.0.3"),
	}
}

func configured(t *testing.T, config map[string][]string) *sdk.Fake {
	t.Helper()
	f := sdk.NewFake(&plugin)
	f.Zone = world()
	if err := f.Configure(config); err != nil {
		t.Fatal(err)
	}
	return f
}

func with(lists string, more ...string) map[string][]string {
	c := map[string][]string{"lists": strings.Fields(lists)}
	for i := 0; i+1 < len(more); i += 2 {
		c[more[i]] = []string{more[i+1]}
	}
	return c
}

// shown writes a verdict in short: what is done, the code, score and tags.
func shown(v sdk.Verdict) string {
	names := map[sdk.Action]string{sdk.ActionNext: "next", sdk.ActionAccept: "accept", sdk.ActionReject: "reject", sdk.ActionDefer: "defer", sdk.ActionDeferIfPermit: "defer-if-permit", sdk.ActionDeferIfReject: "defer-if-reject"}
	s := fmt.Sprintf("%s %d %g", names[v.Action], v.Code, v.Score)
	for _, m := range v.Mods {
		s += " " + strings.TrimPrefix(m.Value, "dnsbl:")
	}
	return s
}

func TestScore(t *testing.T) {
	bad := "bl.example.org"
	rows := []struct {
		name   string
		config map[string][]string
		want   string
	}{
		{"listed", with(bad), "reject 554 1 bl.example.org"},
		{"filter that fits the second answer", with("bl.example.org=127.0.0.4"), "reject 554 1 bl.example.org"},
		{"filter that does not fit", with("bl.example.org=127.0.0.[5..9]"), "next 0 0"},
		{"one entry counts once, several add up", with("bl.example.org=127.0.0.[2;4]*2 bl.example.org=127.0.0.2*3"), "reject 554 5 bl.example.org"},
		{"below the threshold", with("bl.example.org*2", "threshold", "3"), "next 0 2 bl.example.org"},
		{"two lists together", with("bl.example.org*2 second.example.org", "threshold", "3"), "reject 554 3 bl.example.org second.example.org"},
		{"a good list takes away", with("bl.example.org*2 wl.example.org*-2"), "next 0 0 bl.example.org wl.example.org"},
		{"a good list allows", with("wl.example.org*-2", "allow_threshold", "2"), "accept 0 -2 wl.example.org"},
		{"as postscreen writes it", with("wl.example.org*-2", "allow_threshold", "-2"), "accept 0 -2 wl.example.org"},
		{"not good enough", with("wl.example.org*-2", "allow_threshold", "3"), "next 0 -2 wl.example.org"},
		{"weight 0 only tags", with("bl.example.org*0"), "next 0 0 bl.example.org"},
		{"the list refuses the question", with("over.example.org"), "next 0 0"},
		{"even with a filter for that", with("over.example.org=127.255.255.254"), "next 0 0"},
		{"the list's domain was sold", with("sold.example.org"), "next 0 0"},
		{"no records", with("empty.example.org"), "next 0 0"},
		{"rubbish", with("junk.example.org"), "next 0 0"},
		{"no answer", with("silent.example.org"), "next 0 0"},
		{"no answer matters", with("silent.example.org", "on_temp", "defer"), "defer-if-permit 450 0"},
		{"no answer could not matter", with("silent.example.org", "on_temp", "defer", "threshold", "2"), "next 0 0"},
		{"no answer, listed elsewhere", with("silent.example.org bl.example.org", "on_temp", "defer"), "reject 554 1 bl.example.org"},
		{"no answer of a good list", with("silent.example.org*-1 bl.example.org", "on_temp", "defer"), "defer 450 1 bl.example.org"},
		{"no answer of a good list alone", with("silent.example.org*-1", "on_temp", "defer", "allow_threshold", "1"), "defer-if-reject 450 0"},
		{"defer", with(bad, "action", "defer"), "defer 450 1 bl.example.org"},
		{"own code", with(bad, "code", "571"), "reject 571 1 bl.example.org"},
		{"tag", with(bad, "action", "tag"), "next 0 1 dnsbl bl.example.org"},
		{"a name hides the key", with("bl.example.org", "names", "BL.example.org=the list"), "reject 554 1 the list"},
		{"upper case and a last dot", with("BL.Example.ORG."), "reject 554 1 bl.example.org"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			v, err := configured(t, r.config).Call(sdk.Facts{Stage: sdk.Connect, Client: "203.0.113.9"})
			if got := shown(v); err != nil || got != r.want {
				t.Errorf("got %s, %v; want %s", got, err, r.want)
			}
		})
	}
}

func TestSubjects(t *testing.T) {
	facts := sdk.Facts{
		Stage: sdk.Rcpt, Client: "203.0.113.9", ClientName: "Bad.example.com", Helo: "bad.example.com.", HasSender: true,
		Sender: "Joe@bad.Example.com", Recipient: "x@bad.example.com", Rare: map[string]string{sdk.FactReverseName: "bad.example.com"},
	}
	rows := []struct {
		query  string
		change func(*sdk.Facts)
		asked  string // "": nothing is asked
		text   string // before " blocked using"
	}{
		{queryClient, nil, "9.113.0.203.dbl.example.org", ""},
		{queryClient, func(f *sdk.Facts) { f.Client = "::ffff:203.0.113.9" }, "9.113.0.203.dbl.example.org", ""},
		{queryClient, func(f *sdk.Facts) { f.Client = "2001:db8::7" }, "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.dbl.example.org", ""},
		{queryClient, func(f *sdk.Facts) { f.Client = "10.1.2.3" }, "", ""},
		{queryClient, func(f *sdk.Facts) { f.Client = "100.64.1.2" }, "", ""},
		{queryClient, func(f *sdk.Facts) { f.Client = "127.0.0.2" }, "", ""},
		{queryClient, func(f *sdk.Facts) { f.Client = "::1" }, "", ""},
		{queryClient, func(f *sdk.Facts) { f.Client = "fe80::1%eth0" }, "", ""},
		{queryClient, func(f *sdk.Facts) { f.Client = "fd00::1" }, "", ""},
		{queryClient, func(f *sdk.Facts) { f.Client = "unknown" }, "", ""},
		{queryClientName, nil, "bad.example.com.dbl.example.org", "Service unavailable; Client host [Bad.example.com]"},
		{queryClientName, func(f *sdk.Facts) { f.ClientName = "" }, "", ""},
		{queryReverseName, nil, "bad.example.com.dbl.example.org", "Service unavailable; Unverified Client host [bad.example.com]"},
		{queryHelo, nil, "bad.example.com.dbl.example.org", "Service unavailable; Helo command [bad.example.com.]"},
		{queryHelo, func(f *sdk.Facts) { f.Helo = "[203.0.113.9]" }, "", ""},
		{queryHelo, func(f *sdk.Facts) { f.Helo = "203.0.113.9" }, "", ""},
		{queryHelo, func(f *sdk.Facts) { f.Helo = "a.123" }, "", ""},
		{queryHelo, func(f *sdk.Facts) { f.Helo = "a b\r\n.example" }, "", ""},
		{queryHelo, func(f *sdk.Facts) { f.Helo = "bücher.example" }, "", ""},
		{queryHelo, func(f *sdk.Facts) { f.Helo = strings.Repeat(strings.Repeat("a", 50)+".", 5)[:250] }, "", ""},
		{querySender, nil, "bad.example.com.dbl.example.org", "Service unavailable; Sender address [Joe@bad.Example.com]"},
		{querySender, func(f *sdk.Facts) { f.Sender = "" }, "", ""},
		{querySender, func(f *sdk.Facts) { f.Sender = "joe@[203.0.113.9]" }, "", ""},
		{querySender, func(f *sdk.Facts) { f.Sender = "joe" }, "", ""},
		{queryRecipient, nil, "bad.example.com.dbl.example.org", "Service unavailable; Recipient address [x@bad.example.com]"},
	}
	for i, r := range rows {
		t.Run(fmt.Sprintf("%d %s", i, r.query), func(t *testing.T) {
			f, facts := configured(t, with("dbl.example.org", "query", r.query)), facts
			if r.change != nil {
				r.change(&facts)
			}
			v, err := f.Call(facts)
			if err != nil {
				t.Fatal(err)
			}
			asked := ""
			if len(f.Asked) > 0 {
				asked = f.Asked[0].Name
			}
			if asked != r.asked {
				t.Errorf("asked %q, want %q", asked, r.asked)
			}
			if text, _, _ := strings.Cut(v.Text, " blocked using"); text != r.text {
				t.Errorf("text %q, want %q", text, r.text)
			}
		})
	}
}

func TestText(t *testing.T) {
	rows := []struct{ name, list, text, code, want string }{
		{"Postfix's", "bl.example.org", "", "5.7.1", "Service unavailable; Client host [203.0.113.9] blocked using bl.example.org; see http://bl.example.org/9 / and more"},
		{"no explanation", "second.example.org", "", "5.7.1", "Service unavailable; Client host [203.0.113.9] blocked using second.example.org"},
		{"the heaviest list", "bl.example.org second.example.org*3", "", "5.7.1", "Service unavailable; Client host [203.0.113.9] blocked using second.example.org"},
		{"own", "bl.example.org=127.0.0.4*2", "5.7.2 %c is %a in %d: %s of 100%%", "5.7.2", "203.0.113.9 is 127.0.0.4 in bl.example.org: 2 of 100%"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			config := with(r.list)
			if r.text != "" {
				config["text"] = []string{r.text}
			}
			f := configured(t, config)
			v, err := f.Call(sdk.Facts{Stage: sdk.Mail, Client: "203.0.113.9"})
			if err != nil || v.Text != r.want || v.Enhanced != r.code {
				t.Errorf("got %s %q, %v", v.Enhanced, v.Text, err)
			}
			explains := slices.ContainsFunc(f.Asked, func(q sdk.Question) bool { return q.Type == "TXT" })
			if explains != (r.text == "") {
				t.Errorf("asked %v", f.Asked)
			}
		})
	}
	f := configured(t, with("dbl.example.org", "query", querySender))
	v, err := f.Call(sdk.Facts{Stage: sdk.Mail, HasSender: true, Sender: strings.Repeat("%t\r\n", 200) + "@bad.example.com"})
	if err != nil || strings.ContainsAny(v.Text, "\r\n\x00é") || !strings.Contains(v.Text, "dbl.example.org; a??250 ok? ??") {
		t.Errorf("hostile sender and explanation: %q, %v", v.Text, err)
	}
}

func TestRelayIsNotAllowed(t *testing.T) {
	f := configured(t, with("wl.example.org*-2", "allow_threshold", "1"))
	for class, want := range map[string]sdk.Action{sdk.ClassRelay: sdk.ActionNext, sdk.ClassLocal: sdk.ActionAccept} {
		v, err := f.Call(sdk.Facts{Stage: sdk.Rcpt, Client: "203.0.113.9", Rare: map[string]string{sdk.FactRecipientClass: class}})
		if err != nil || v.Action != want {
			t.Errorf("recipient %s: %+v, %v", class, v, err)
		}
	}
}

func TestLogAndFailure(t *testing.T) {
	f := configured(t, with("over.example.org sold.example.org silent.example.org"))
	if _, err := f.Call(sdk.Facts{Stage: sdk.Connect, Client: "203.0.113.9"}); err != nil {
		t.Fatal(err)
	}
	if len(f.Lines) != 2 || !strings.Contains(f.Lines[0], "over.example.org refused the question") || f.Metrics["no-answer"] != 1 {
		t.Errorf("log %q, metrics %v", f.Lines, f.Metrics)
	}
	f.Grants = nil
	if v, err := f.Call(sdk.Facts{Stage: sdk.Connect, Client: "203.0.113.9"}); err == nil {
		t.Errorf("without DNS: %+v", v)
	}
}

func TestConfigErrors(t *testing.T) {
	var many []string
	for i := range maxDomains + 1 {
		many = append(many, fmt.Sprintf("l%d.example.org", i))
	}
	rows := []struct {
		name   string
		config map[string][]string
		want   string
	}{
		{"none", map[string][]string{"lists": {}}, "lists: wants from 1 to 240 entries"},
		{"too many", map[string][]string{"lists": many}, "lists: has 61 domains; one check asks at most 60: make two checks"},
		{"no domain", with("localhost"), `lists: "localhost": "localhost" is no domain of a list`},
		{"weight", with("a.example*x"), `lists: "a.example*x": weight "x" is no whole number from -10000 to 10000`},
		{"open bracket", with("a.example=127.0.0.[2"), `lists: "a.example=127.0.0.[2": filter "127.0.0.[2": wants ";" or "]" before ""`},
		{"comma", with("a.example=127.0.0.[2,3]"), `lists: "a.example=127.0.0.[2,3]": filter "127.0.0.[2,3]": wants ";" or "]" before ",3]"`},
		{"range", with("a.example=127.0.0.[9..3]"), `lists: "a.example=127.0.0.[9..3]": filter "127.0.0.[9..3]": range 9.. wants a number from 9 to 255 at its end`},
		{"octet", with("a.example=127.0.0.256"), `lists: "a.example=127.0.0.256": filter "127.0.0.256": wants a number from 0 to 255 before "256"`},
		{"three octets", with("a.example=127.0.0"), `lists: "a.example=127.0.0": filter "127.0.0": wants four fields joined by "."`},
		{"five octets", with("a.example=127.0.0.2.3"), `lists: "a.example=127.0.0.2.3": filter "127.0.0.2.3": ends before ".3"`},
		{"not 127", with("a.example=10.0.0.2"), `lists: "a.example=10.0.0.2": filter "10.0.0.2": never matches, because lists answer with addresses in 127.0.0.0/8`},
		{"threshold", with("a.example", "threshold", "0"), "threshold: must be at least 1, or clients without an entry would be refused"},
		{"code", with("a.example", "code", "450"), "code: wants 500 to 599 with the action reject"},
		{"code to defer", with("a.example", "code", "554", "action", "defer"), "code: wants 400 to 499 with the action defer"},
		{"text", with("a.example", "text", "%x"), `text: after "%" comes one of k, c, d, a, t, s and %`},
		{"name", with("a.example", "names", "b.example=x"), `names: "b.example" is none of lists`},
		{"name without", with("a.example", "names", "a.example"), `names: "a.example" is not "domain=name"`},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if err := sdk.NewFake(&plugin).Configure(r.config); err == nil || err.Error() != r.want {
				t.Errorf("got  %v\nwant %s", err, r.want)
			}
		})
	}
}

func TestFilter(t *testing.T) {
	rows := []struct {
		filter   string
		yes, not string
	}{
		{"127.0.0.2", "127.0.0.2", "127.0.0.3 127.0.1.2 127.1.0.2"},
		{"127.0.0.[2..11;20]", "127.0.0.2 127.0.0.11 127.0.0.20", "127.0.0.1 127.0.0.12 127.0.0.19 127.0.0.21"},
		{"127.0.[0..255].[1;2]", "127.0.255.1 127.0.0.2", "127.1.0.1 127.0.0.3"},
		{"[127.0.0.2]", "127.0.0.2", "127.0.0.3"},
		{"[127].0.0.[2]", "127.0.0.2", "127.0.0.3"},
		{"[0..255].0.0.2", "127.0.0.2", "127.0.0.3"},
		{"127.0.0.[63..64;128..191]", "127.0.0.63 127.0.0.64 127.0.0.128 127.0.0.191", "127.0.0.62 127.0.0.65 127.0.0.127 127.0.0.192"},
	}
	for _, r := range rows {
		f, wrong := parseFilter(r.filter)
		if wrong != "" {
			t.Errorf("%s: %s", r.filter, wrong)
			continue
		}
		for want, addresses := range map[bool]string{true: r.yes, false: r.not} {
			for _, a := range strings.Fields(addresses) {
				if f.has(netip.MustParseAddr(a).As4()) != want {
					t.Errorf("%s has %s: want %v", r.filter, a, want)
				}
			}
		}
	}
}

// FuzzSite: what is taken has bounded numbers, and a filter that something matches.
func FuzzSite(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		e, wrong := parseSite(s)
		if wrong != "" {
			return
		}
		if e.weight > maxWeight || e.weight < -maxWeight || e.domain == "" || strings.ContainsAny(e.domain, "=* \r\n\x00") {
			t.Errorf("%q: %+v", s, e)
		}
		if e.filter == nil {
			return
		}
		for octet, set := range e.filter {
			if set == [4]uint64{} {
				t.Errorf("%q: octet %d has no value", s, octet)
			}
		}
	})
}
