//go:build !wasip1

package main

import (
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

// ask asks and returns the code, 0 for no opinion.
func ask(t *testing.T, f *sdk.Fake, facts sdk.Facts) int {
	t.Helper()
	v, err := f.Call(facts)
	if err != nil {
		t.Fatal(err)
	}
	return v.Code
}

func TestWindowSlides(t *testing.T) {
	f := configured(t, map[string][]string{"limit": {"2"}, "per": {"60s"}})
	facts := sdk.Facts{Stage: sdk.Mail, Client: "192.0.2.7"}
	for i, want := range []int{0, 0, 450, 450} {
		if got := ask(t, f, facts); got != want {
			t.Errorf("question %d within a second: got %d, want %d", i+1, got, want)
		}
	}
	if got := ask(t, f, sdk.Facts{Stage: sdk.Mail, Client: "192.0.2.8"}); got != 0 {
		t.Errorf("another client: got %d", got)
	}
	f.Clock = f.Clock.Add(61 * time.Second)
	if got := ask(t, f, facts); got != 0 {
		t.Errorf("a minute later: got %d", got)
	}
}

func TestKeys(t *testing.T) {
	rows := []struct {
		name, key    string
		first, other sdk.Facts
		shared       bool
	}{
		{"one network, IPv4", "client-net", sdk.Facts{Client: "192.0.2.1"}, sdk.Facts{Client: "192.0.2.200"}, true},
		{"two networks, IPv4", "client-net", sdk.Facts{Client: "192.0.2.1"}, sdk.Facts{Client: "192.0.3.1"}, false},
		{"one network, IPv6", "client-net", sdk.Facts{Client: "2001:db8::1"}, sdk.Facts{Client: "2001:db8::ffff:1"}, true},
		{"two networks, IPv6", "client-net", sdk.Facts{Client: "2001:db8::1"}, sdk.Facts{Client: "2001:db8:0:1::1"}, false},
		{"case of a name", "helo", sdk.Facts{Helo: "MAIL.example"}, sdk.Facts{Helo: "mail.example"}, true},
		{"sender", "sender", sdk.Facts{Sender: "a@b.example"}, sdk.Facts{Sender: "c@b.example"}, false},
		{"sender's domain", "sender-domain", sdk.Facts{Sender: "a@b.example"}, sdk.Facts{Sender: "c@B.example"}, true},
		{"null sender", "sender", sdk.Facts{HasSender: true}, sdk.Facts{HasSender: true}, true},
		{"user", "user", sdk.Facts{User: "a@b.example"}, sdk.Facts{User: "A@b.example"}, true},
		{"nobody", "user", sdk.Facts{}, sdk.Facts{}, false},
		{"recipient", "recipient", sdk.Facts{Recipient: "a@b.example"}, sdk.Facts{Recipient: "a@b.example"}, true},
		{"recipient's domain", "recipient-domain", sdk.Facts{Recipient: "a@b.example"}, sdk.Facts{Recipient: "c@b.example"}, true},
		{"name", "client-name", sdk.Facts{ClientName: "A.example"}, sdk.Facts{ClientName: "a.example"}, true},
		{"no name", "client-name", sdk.Facts{}, sdk.Facts{}, false},
		{"IPv4 in IPv6", "client-net", sdk.Facts{Client: "::ffff:192.0.2.1"}, sdk.Facts{Client: "192.0.2.9"}, true},
		{"no address", "client-net", sdk.Facts{Client: "nonsense"}, sdk.Facts{Client: "nonsense"}, false},
		{"door", "door", sdk.Facts{Door: "mx", Client: "192.0.2.1"}, sdk.Facts{Door: "mx", Client: "192.0.2.2"}, true},
		{"all together", "global", sdk.Facts{Client: "192.0.2.1"}, sdk.Facts{Client: "198.51.100.1"}, true},
		{"long names", "helo+sender+recipient", sdk.Facts{Helo: strings.Repeat("a", 5000), Sender: strings.Repeat("b", 5000), Recipient: strings.Repeat("c", 5000)}, sdk.Facts{Helo: strings.Repeat("a", 127), Sender: strings.Repeat("b", 127), Recipient: strings.Repeat("c", 127)}, true},
		{"joined, one differs", "client+sender", sdk.Facts{Client: "192.0.2.1", Sender: "a@b.example"}, sdk.Facts{Client: "192.0.2.1", Sender: "c@b.example"}, false},
		{"joined, both same", "client + sender", sdk.Facts{Client: "192.0.2.1", Sender: "a@b.example"}, sdk.Facts{Client: "192.0.2.1", Sender: "a@b.example"}, true},
		{"joined, one missing", "client+user", sdk.Facts{Client: "192.0.2.1"}, sdk.Facts{Client: "192.0.2.1"}, false},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := configured(t, map[string][]string{"key": {r.key}, "limit": {"1"}})
			r.first.Stage, r.other.Stage = sdk.Rcpt, sdk.Rcpt
			if got := ask(t, f, r.first); got != 0 {
				t.Fatalf("first: got %d", got)
			}
			if got := ask(t, f, r.other); (got != 0) != r.shared {
				t.Errorf("second: got %d, shared counter %v", got, r.shared)
			}
		})
	}
}

func TestCost(t *testing.T) {
	size := configured(t, map[string][]string{"limit": {"1000"}, "cost": {"size"}})
	if got := ask(t, size, sdk.Facts{Stage: sdk.Message, Client: "192.0.2.1", Size: 1000}); got != 0 {
		t.Errorf("1000 of 1000 octets: got %d", got)
	}
	if got := ask(t, size, sdk.Facts{Stage: sdk.Message, Client: "192.0.2.1", Size: 1}); got != 450 {
		t.Errorf("1001 of 1000 octets: got %d", got)
	}
	rcpts := configured(t, map[string][]string{"limit": {"3"}, "cost": {"recipients"}})
	if got := ask(t, rcpts, sdk.Facts{Stage: sdk.Data, Client: "192.0.2.1", RecipientCount: 4}); got != 450 {
		t.Errorf("4 of 3 recipients: got %d", got)
	}
}

func TestActions(t *testing.T) {
	rows := []struct {
		name, action string
		stage        sdk.Stage
		want         sdk.Action
		code         int
		enhanced     string
	}{
		{"defer", "defer", sdk.Rcpt, sdk.ActionDefer, 450, "4.7.1"},
		{"reject", "reject", sdk.Rcpt, sdk.ActionReject, 554, "5.7.1"},
		{"disconnect", "disconnect", sdk.Rcpt, sdk.ActionDisconnect, 421, "4.7.0"},
		{"hold", "hold", sdk.Rcpt, sdk.ActionHold, 0, ""},
		{"defer at connect", "defer", sdk.Connect, sdk.ActionDisconnect, 421, "4.7.0"},
		{"reject at connect", "reject", sdk.Connect, sdk.ActionDisconnect, 421, "4.7.0"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := configured(t, map[string][]string{"limit": {"0"}, "action": {r.action}})
			v, err := f.Call(sdk.Facts{Stage: r.stage, Client: "192.0.2.1"})
			if err != nil || v.Action != r.want || v.Code != r.code || v.Enhanced != r.enhanced || v.Reason != "rate-limit" {
				t.Errorf("got %+v, %v; want %d %d %s", v, err, r.want, r.code, r.enhanced)
			}
		})
	}
}

func TestCountFails(t *testing.T) {
	f := configured(t, map[string][]string{"limit": {"1"}})
	f.Grants = nil
	if v, err := f.Call(sdk.Facts{Stage: sdk.Mail, Client: "192.0.2.1"}); err == nil {
		t.Errorf("a counter that does not count gave verdict %+v", v)
	}
}

func TestConfigErrors(t *testing.T) {
	rows := []struct {
		name   string
		config map[string][]string
		want   string
	}{
		{"no limit", map[string][]string{}, "limit: required"},
		{"negative limit", map[string][]string{"limit": {"-1"}}, "limit: must not be negative"},
		{"unknown key", map[string][]string{"limit": {"1"}, "key": {"client+moon"}}, `key: "moon" is none of client, client-net, client-name, helo, user, sender, sender-domain, recipient, recipient-domain, door, global`},
		{"key twice", map[string][]string{"limit": {"1"}, "key": {"client+client"}}, `key: "client" is there twice`},
		{"long key", map[string][]string{"limit": {"1"}, "key": {"client+client-net+helo+user+sender+recipient+door"}}, `key: has more than 6 parts`},
		{"prefix", map[string][]string{"limit": {"1"}, "prefix4": {"0"}}, "prefix4: must be between 1 and 32"},
		{"IPv6 prefix", map[string][]string{"limit": {"1"}, "prefix6": {"129"}}, "prefix6: must be between 1 and 128"},
		{"long time", map[string][]string{"limit": {"1"}, "per": {"32d"}}, "per: must be between 1s and 31d"},
		{"no failures allowed", map[string][]string{"limit": {"0"}, "cost": {"failures"}}, "limit: must be at least 1, or nobody could log in"},
		{"reset of mail", map[string][]string{"limit": {"1"}, "reset": {"true"}}, `reset: goes with cost = "failures" only`},
		{"code", map[string][]string{"limit": {"1"}, "code": {"554"}}, "code: 554 does not go with defer"},
		{"code of a tag", map[string][]string{"limit": {"1"}, "code": {"450"}, "action": {"tag"}}, "code: 450 does not go with tag"},
		{"text", map[string][]string{"limit": {"1"}, "text": {"100%"}}, `text: after "%" comes one of c, k, l, p, s, w and %`},
		{"short time", map[string][]string{"limit": {"1"}, "per": {"10ms"}}, "per: must be between 1s and 31d"},
		{"no time", map[string][]string{"limit": {"1"}, "per": {"soon"}}, `per: "soon" is not allowed here`},
		{"unknown field", map[string][]string{"limit": {"1"}, "each": {"60s"}}, "each: unknown field"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if err := sdk.NewFake(&plugin).Configure(r.config); err == nil || err.Error() != r.want {
				t.Errorf("got %v, want %s", err, r.want)
			}
		})
	}
}
