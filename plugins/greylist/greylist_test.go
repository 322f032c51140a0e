//go:build !wasip1

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/sdk"
)

func configured(t *testing.T, config map[string][]string) *sdk.Fake {
	t.Helper()
	f := sdk.NewFake(&plugin)
	if err := f.Configure(config); err != nil {
		t.Fatal(err)
	}
	return f
}

// asked returns "code enhanced seconds" of a refusal with that many seconds
// left, "pass N" with the delay in the header field, or "pass".
func asked(t *testing.T, f *sdk.Fake, facts sdk.Facts) string {
	t.Helper()
	v := answer(t, f, facts)
	if v.Action != sdk.ActionNext {
		return fmt.Sprintf("%d %s", v.Code, v.Text[strings.LastIndexByte(v.Text, ' ')+1:])
	}
	for _, m := range v.Mods {
		if m.Name != "" {
			return "pass " + strings.Fields(m.Value)[1]
		}
	}
	return "pass"
}

func answer(t *testing.T, f *sdk.Fake, facts sdk.Facts) sdk.Verdict {
	t.Helper()
	facts.Stage, facts.HasSender, facts.Hostname = sdk.Rcpt, true, "mx.example.org"
	v, err := f.Call(facts)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func alice(client string) sdk.Facts {
	return sdk.Facts{Client: client, Sender: "alice@example.com", Recipient: "bob@local.example"}
}

func TestReply(t *testing.T) {
	rows := []struct {
		name, text, action string
		want               sdk.Action
		enhanced, reply    string
	}{
		{"postgrey's", "", "", sdk.ActionDeferIfPermit, "4.2.0", "<Bob@Local.example>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/Local.example.html"},
		{"at once", "come back in %s s", "defer", sdk.ActionDefer, "4.2.0", "<Bob@Local.example>: Recipient address rejected: come back in 300 s"},
		{"own class", "4.7.1 later", "", sdk.ActionDeferIfPermit, "4.7.1", "<Bob@Local.example>: Recipient address rejected: later"},
		{"no class", "4 seconds. more. or less", "", sdk.ActionDeferIfPermit, "4.2.0", "<Bob@Local.example>: Recipient address rejected: 4 seconds. more. or less"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			config := map[string][]string{}
			if r.text != "" {
				config["text"] = []string{r.text}
			}
			if r.action != "" {
				config["action"] = []string{r.action}
			}
			facts := alice("192.0.2.7")
			facts.Recipient = "Bob@Local.example"
			v := answer(t, configured(t, config), facts)
			if v.Action != r.want || v.Code != 450 || v.Enhanced != r.enhanced || v.Text != r.reply || v.Reason != "greylist-new" {
				t.Errorf("got %+v", v)
			}
		})
	}
}

// TestTime is the life of one triplet under different configurations: at each
// time since the beginning one answer.
func TestTime(t *testing.T) {
	const day = 24 * time.Hour
	type step struct {
		at   time.Duration
		want string
	}
	rows := []struct {
		name   string
		config map[string][]string
		steps  []step
	}{
		{"comes back", nil, []step{
			{0, "450 300"}, {10 * time.Second, "450 290"}, {299*time.Second + 999*time.Millisecond, "450 1"},
			{300 * time.Second, "pass 300"}, {301 * time.Second, "pass"}, {30 * day, "pass"}, {60 * day, "pass"},
		}},
		{"within the retry window", nil, []step{{0, "450 300"}, {2*day - time.Millisecond, "pass 172799"}}},
		{"after the retry window", nil, []step{{0, "450 300"}, {2 * day, "450 300"}, {2*day + 5*time.Minute, "pass 300"}}},
		{"early retries do not make the window longer", nil, []step{{0, "450 300"}, {time.Minute, "450 240"}, {2*day + time.Second, "450 300"}}},
		{"not seen for max_age", nil, []step{{0, "450 300"}, {time.Hour, "pass 3600"}, {34 * day, "pass"}, {34*day + 35*day, "450 300"}}},
		{"own times", map[string][]string{"delay": {"1m"}, "retry_window": {"2m"}, "max_age": {"1h"}}, []step{
			{0, "450 60"}, {2 * time.Minute, "450 60"}, {3 * time.Minute, "pass 60"}, {time.Hour + 3*time.Minute, "450 60"},
		}},
		{"the clock is set back", nil, []step{{time.Hour, "450 300"}, {0, "450 300"}, {5 * time.Minute, "pass 300"}}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			config := map[string][]string{"text": {"%s"}}
			for k, v := range r.config {
				config[k] = v
			}
			f := configured(t, config)
			start := f.Clock
			for _, s := range r.steps {
				f.Clock = start.Add(s.at)
				if got := asked(t, f, alice("192.0.2.7")); got != s.want {
					t.Errorf("after %s: got %q, want %q", s.at, got, s.want)
				}
			}
		})
	}
}

// TestTriplets says which pairs of clients, senders and recipients are one.
func TestTriplets(t *testing.T) {
	facts := func(client, sender, recipient string) sdk.Facts {
		return sdk.Facts{Client: client, Sender: sender, Recipient: recipient}
	}
	host := map[string][]string{"prefix4": {"32"}, "prefix6": {"128"}}
	rows := []struct {
		name   string
		config map[string][]string
		a, b   sdk.Facts
		same   bool
	}{
		{"one network", nil, facts("192.0.2.7", "a@x.example", "b@l.example"), facts("192.0.2.200", "a@x.example", "b@l.example"), true},
		{"two networks", nil, facts("192.0.2.7", "a@x.example", "b@l.example"), facts("192.0.3.7", "a@x.example", "b@l.example"), false},
		{"one IPv6 network", nil, facts("2001:db8::1", "a@x.example", "b@l.example"), facts("2001:db8::ffff:2", "a@x.example", "b@l.example"), true},
		{"two IPv6 networks", nil, facts("2001:db8::1", "a@x.example", "b@l.example"), facts("2001:db8:0:1::1", "a@x.example", "b@l.example"), false},
		{"IPv4 in IPv6", nil, facts("192.0.2.7", "a@x.example", "b@l.example"), facts("::ffff:192.0.2.9", "a@x.example", "b@l.example"), true},
		{"by host", host, facts("192.0.2.7", "a@x.example", "b@l.example"), facts("192.0.2.8", "a@x.example", "b@l.example"), false},
		{"by IPv6 host", host, facts("2001:db8::1", "a@x.example", "b@l.example"), facts("2001:db8::2", "a@x.example", "b@l.example"), false},
		{"case", nil, facts("192.0.2.7", "a@x.example", "b@l.example"), facts("192.0.2.7", "A@X.example", "B@L.Example"), true},
		{"another recipient", nil, facts("192.0.2.7", "a@x.example", "b@l.example"), facts("192.0.2.7", "a@x.example", "c@l.example"), false},
		{"another sender", nil, facts("192.0.2.7", "a@x.example", "b@l.example"), facts("192.0.2.7", "c@x.example", "b@l.example"), false},
		{"recipient's extension counts", nil, facts("192.0.2.7", "a@x.example", "b+1@l.example"), facts("192.0.2.7", "a@x.example", "b@l.example"), false},
		{"null senders", nil, facts("192.0.2.7", "", "b@l.example"), facts("192.0.2.7", "", "b@l.example"), true},
		{"null sender and another", nil, facts("192.0.2.7", "", "b@l.example"), facts("192.0.2.7", "a@x.example", "b@l.example"), false},
		{"VERP", nil, facts("192.0.2.7", "list-return-123-45@x.example", "b@l.example"), facts("192.0.2.7", "list-return-6-789@x.example", "b@l.example"), true},
		{"long addresses", nil, facts("192.0.2.7", strings.Repeat("a", 2000)+"@x.example", "b@l.example"), facts("192.0.2.7", "a@x.example", strings.Repeat("b", 2000)), false},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := configured(t, r.config)
			if v := answer(t, f, r.a); v.Code != 450 {
				t.Fatalf("first: %+v", v)
			}
			f.Clock = f.Clock.Add(10 * time.Minute)
			if v := answer(t, f, r.b); (v.Code == 0) != r.same {
				t.Errorf("second: got %+v, one triplet %v", v, r.same)
			}
		})
	}
}

func TestSender(t *testing.T) {
	for path, want := range map[string]string{
		"": "<>", "alice": "alice", "Alice@Example.COM": "alice@example.com",
		"alice+tag@example.com": "alice@example.com", "+tag@example.com": "@example.com",
		"list-return-123-45-bob=example.net@x.example": "list-return-#-#-bob=example.net@x.example",
		"user7@x.example": "user7@x.example", "7@x.example": "#@x.example", "a_1@x.example": "a_1@x.example",
		"a.1.b@x.example": "a.#.b@x.example", "bounce-1a2b@x.example": "bounce-1a2b@x.example",
		"prvs=0123456789=alice@x.example": "alice@x.example", "prvs=alice=0123456789@x.example": "alice@x.example",
		"prvs=abcdefghij=0123456789@x.example": "#@x.example", "prvs=short=bob@x.example": "bob@x.example",
		"prvs=a=b=c@x.example": "prvs=a=b=c@x.example", "prvs=a@x.example": "prvs=a@x.example", "prvs=a=@x.example": "prvs=a=@x.example",
		"\"a@b\"@x.example": "\"a@b\"@x.example", "grüße-12@x.example": "grüße-#@x.example",
	} {
		if got := sender(path); got != want {
			t.Errorf("sender %q: got %q, want %q", path, got, want)
		}
	}
}

func TestAutoAllow(t *testing.T) {
	rows := []struct {
		name    string
		allow   string
		between time.Duration // each writer comes back so much after the one before
		want    string        // one letter for each writer's first attempt: d(eferred), p(assed)
	}{
		{"five, an hour apart", "5", time.Hour, "dddddppp"},
		{"one", "1", time.Hour, "dppp"},
		{"two, counted once an hour", "2", 10 * time.Minute, "dddddddppp"}, // at 10 and at 70 minutes
		{"never", "0", time.Hour, "dddddddd"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := configured(t, map[string][]string{"auto_allow": {r.allow}})
			got := ""
			for i := range r.want {
				facts := alice(fmt.Sprintf("192.0.2.%d", i+1))
				facts.Sender = fmt.Sprintf("writer%d@example.com", i)
				if v := answer(t, f, facts); v.Code == 0 {
					got += "p"
					f.Clock = f.Clock.Add(r.between)
					continue
				}
				got += "d"
				f.Clock = f.Clock.Add(r.between)
				if v := answer(t, f, facts); v.Code != 0 {
					t.Fatalf("writer %d came back: %+v", i, v)
				}
			}
			if got != r.want {
				t.Errorf("got %s, want %s", got, r.want)
			}
			if v := answer(t, f, alice("198.51.100.1")); v.Code != 450 {
				t.Errorf("another network: %+v", v)
			}
		})
	}
}

// TestAutoAllowAge keeps an allowed network as long as it writes.
func TestAutoAllowAge(t *testing.T) {
	f := configured(t, map[string][]string{"auto_allow": {"1"}, "max_age": {"10d"}})
	answer(t, f, alice("192.0.2.7"))
	f.Clock = f.Clock.Add(time.Hour)
	answer(t, f, alice("192.0.2.7"))
	facts := alice("192.0.2.7")
	for i := range 5 {
		f.Clock = f.Clock.Add(9 * 24 * time.Hour)
		facts.Sender = fmt.Sprintf("writer%d@example.com", i)
		if v := answer(t, f, facts); v.Code != 0 {
			t.Fatalf("message %d: %+v", i, v)
		}
	}
	f.Clock = f.Clock.Add(10 * 24 * time.Hour)
	facts.Sender = "last@example.com"
	if v := answer(t, f, facts); v.Code != 450 {
		t.Errorf("after ten days of silence: %+v", v)
	}
}

func TestHeader(t *testing.T) {
	rows := []struct {
		name   string
		header string
		tags   string
		want   string
	}{
		{"default", "-", "", "X-Greylist: delayed 600 seconds by mx.example.org; Thu, 01 Jan 2026 00:10:00 +0000"},
		{"own", "X-Waited: %t", "", "X-Waited: 600"},
		{"none", "", "", ""},
		{"another recipient has put it there", "-", "one\ngreylist-header\n", ""},
		{"other tags", "-", "one\ntwo", "X-Greylist: delayed 600 seconds by mx.example.org; Thu, 01 Jan 2026 00:10:00 +0000"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			config := map[string][]string{}
			if r.header != "-" {
				config["header"] = []string{r.header}
			}
			f := configured(t, config)
			facts := alice("192.0.2.7")
			answer(t, f, facts)
			f.Clock = f.Clock.Add(10 * time.Minute)
			facts.Rare = map[string]string{sdk.FactTags: r.tags}
			got, tag := "", false
			for _, m := range answer(t, f, facts).Mods {
				if m.Name != "" {
					got += m.Name + ": " + m.Value
				} else {
					tag = m.Value == tagged
				}
			}
			if got != r.want || tag != (got != "") {
				t.Errorf("got %q, tag %v, want %q", got, tag, r.want)
			}
		})
	}
}

func TestExempt(t *testing.T) {
	config := map[string][]string{
		"exempt_clients":    {"192.0.2.0/28", "2001:db8::7", "Example.NET"},
		"exempt_senders":    {"<>", "boss@example.com", "news@", ".example.edu"},
		"exempt_recipients": {"postmaster@", "bob@local.example", "free.example"},
	}
	rows := []struct {
		name, client, clientName, sender, recipient string
		exempt                                      bool
	}{
		{"nobody", "198.51.100.7", "", "a@x.example", "c@local.example", false},
		{"network", "192.0.2.15", "", "a@x.example", "c@local.example", true},
		{"outside the network", "192.0.2.16", "", "a@x.example", "c@local.example", false},
		{"address", "2001:db8::7", "", "a@x.example", "c@local.example", true},
		{"name", "198.51.100.7", "mail.EXAMPLE.net", "a@x.example", "c@local.example", true},
		{"another name", "198.51.100.7", "badexample.net", "a@x.example", "c@local.example", false},
		{"null sender", "198.51.100.7", "", "", "c@local.example", true},
		{"sender", "198.51.100.7", "", "Boss@example.com", "c@local.example", true},
		{"sender's local part", "198.51.100.7", "", "news+1@anywhere.example", "c@local.example", true},
		{"sender's domain", "198.51.100.7", "", "a@cs.example.edu", "c@local.example", true},
		{"postmaster", "198.51.100.7", "", "a@x.example", "Postmaster@local.example", true},
		{"postmaster alone", "198.51.100.7", "", "a@x.example", "postmaster", true},
		{"recipient with extension", "198.51.100.7", "", "a@x.example", "bob+x@local.example", true},
		{"recipient elsewhere", "198.51.100.7", "", "a@x.example", "bob@other.example", false},
		{"recipient's domain", "198.51.100.7", "", "a@x.example", "c@free.example", true},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			v := answer(t, configured(t, config), sdk.Facts{Client: r.client, ClientName: r.clientName, Sender: r.sender, Recipient: r.recipient})
			if (v.Code == 0) != r.exempt {
				t.Errorf("got %+v, exempt %v", v, r.exempt)
			}
		})
	}
}

func TestStateFails(t *testing.T) {
	f := configured(t, nil)
	f.Grants = nil
	if v, err := f.Call(sdk.Facts{Stage: sdk.Rcpt, Client: "192.0.2.1", Recipient: "a@b.example"}); err == nil {
		t.Errorf("without memory: verdict %+v", v)
	}
}

func TestConfigErrors(t *testing.T) {
	rows := []struct{ field, value, want string }{
		{"delay", "0s", "delay: must be at least 1s"},
		{"retry_window", "5m", "retry_window: must be more than delay, or nobody ever passes"},
		{"retry_window", "91d", "retry_window: must be at most 90d"},
		{"max_age", "91d", "max_age: must be between delay and 90d"},
		{"auto_allow", "-1", "auto_allow: must not be negative"},
		{"prefix4", "33", "prefix4: must be between 1 and 32"},
		{"prefix6", "0", "prefix6: must be between 1 and 128"},
		{"header", "no field", `header: must be "Name: value"`},
		{"header", "X Greylist: a", `header: must be "Name: value"`},
		{"exempt_clients", "300.1.2.3/8", `exempt_clients: "300.1.2.3/8" is no network, address or domain`},
		{"exempt_senders", "@", `exempt_senders: "@" is none of "user@domain", "user@", "domain", "<>"`},
		{"exempt_recipients", "a@b c", `exempt_recipients: "a@b c" is none of "user@domain", "user@", "domain"`},
		{"action", "reject", `action: "reject" is not allowed here`},
	}
	for _, r := range rows {
		t.Run(r.field+" "+r.value, func(t *testing.T) {
			if err := sdk.NewFake(&plugin).Configure(map[string][]string{r.field: {r.value}}); err == nil || err.Error() != r.want {
				t.Errorf("got %v, want %s", err, r.want)
			}
		})
	}
}
