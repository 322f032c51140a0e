//go:build !wasip1

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/sdk"
)

// step is one event: at its stage, after so much time, with what it is answered.
type step struct {
	after time.Duration
	stage sdk.Stage
	ok    bool
	want  int
}

func TestFailures(t *testing.T) {
	const fail, connect = sdk.Auth, sdk.Connect
	rows := []struct {
		name   string
		config map[string][]string
		steps  []step
	}{
		{"the third attempt after two failures", nil, []step{{0, fail, false, 0}, {0, fail, false, 0}, {0, fail, false, 450}}},
		{"a good login after too many failures", nil, []step{{0, fail, false, 0}, {0, fail, false, 0}, {0, fail, true, 450}}},
		{"good logins do not count", nil, []step{{0, fail, true, 0}, {0, fail, true, 0}, {0, fail, true, 0}, {0, fail, false, 0}, {0, fail, true, 0}}},
		{"a banned client cannot connect", nil, []step{{0, connect, false, 0}, {0, fail, false, 0}, {0, fail, false, 0}, {0, connect, false, 421}, {time.Minute, connect, false, 0}}},
		{"connections do not count", nil, []step{{0, connect, false, 0}, {0, connect, false, 0}, {0, connect, false, 0}, {0, fail, false, 0}}},
		{"who goes on stays banned", nil, []step{{0, fail, false, 0}, {0, fail, false, 0}, {50 * time.Second, fail, false, 450}, {50 * time.Second, fail, false, 0}, {0, fail, false, 450}}},
		{"what is refused does not count", map[string][]string{"count_refused": {"false"}}, []step{{0, fail, false, 0}, {0, fail, false, 0}, {50 * time.Second, fail, false, 450}, {11 * time.Second, fail, false, 0}, {0, fail, false, 0}, {0, fail, false, 450}}},
		{"without reset failures stay", nil, []step{{0, fail, false, 0}, {0, fail, true, 0}, {0, fail, false, 0}, {0, fail, false, 450}}},
		{"reset", map[string][]string{"reset": {"true"}}, []step{{0, fail, false, 0}, {0, fail, true, 0}, {0, fail, false, 0}, {0, fail, false, 0}, {0, fail, false, 450}}},
		{"no reset for the banned", map[string][]string{"reset": {"true"}}, []step{{0, fail, false, 0}, {0, fail, false, 0}, {0, fail, true, 450}, {0, fail, true, 450}}},
		{"failures outlive the reset before them", map[string][]string{"reset": {"true"}}, []step{{0, fail, false, 0}, {0, fail, true, 0}, {59 * time.Second, fail, false, 0}, {0, fail, false, 0}, {2 * time.Second, fail, false, 450}}},
		{"what a reset forgot stays forgotten", map[string][]string{"reset": {"true"}}, []step{{0, fail, false, 0}, {59 * time.Second, fail, true, 0}, {0, fail, false, 0}, {0, fail, true, 0}, {time.Second, fail, false, 0}, {0, fail, false, 0}}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			config := map[string][]string{"limit": {"2"}, "cost": {"failures"}}
			for k, v := range r.config {
				config[k] = v
			}
			f := configured(t, config)
			for i, s := range r.steps {
				f.Clock = f.Clock.Add(s.after)
				if got := ask(t, f, sdk.Facts{Stage: s.stage, Client: "192.0.2.1", AuthOK: s.ok}); got != s.want {
					t.Errorf("step %d: got %d, want %d", i+1, got, s.want)
				}
			}
			if got := ask(t, f, sdk.Facts{Stage: sdk.Auth, Client: "192.0.2.2"}); got != 0 {
				t.Errorf("another client: got %d", got)
			}
		})
	}
}

func TestCountRefused(t *testing.T) {
	for refused, want := range map[string]int{"true": 450, "false": 0} {
		f := configured(t, map[string][]string{"limit": {"1000"}, "cost": {"bytes"}, "count_refused": {refused}})
		big := sdk.Facts{Stage: sdk.Message, Client: "192.0.2.1", Size: 2000}
		small := sdk.Facts{Stage: sdk.Message, Client: "192.0.2.1", Size: 1000}
		if got := ask(t, f, big); got != 450 {
			t.Errorf("count_refused %s: a message over the limit: got %d", refused, got)
		}
		if got := ask(t, f, small); got != want {
			t.Errorf("count_refused %s: the next: got %d, want %d", refused, got, want)
		}
	}
}

func TestAnswers(t *testing.T) {
	rows := []struct {
		name   string
		config map[string][]string
		facts  sdk.Facts
		want   string // code, enhanced code and text
	}{
		{"anvil, connections", nil, sdk.Facts{Stage: sdk.Connect}, "421 4.7.0 Error: too many connections from 192.0.2.1"},
		{"anvil, mail", nil, sdk.Facts{Stage: sdk.Mail}, "450 4.7.1 Error: too much mail from 192.0.2.1"},
		{"anvil, recipients", nil, sdk.Facts{Stage: sdk.Rcpt}, "450 4.7.1 Error: too many recipients from 192.0.2.1"},
		{"anvil, TLS", nil, sdk.Facts{Stage: sdk.StartTLS}, "454 4.7.0 Error: too many new TLS sessions from 192.0.2.1"},
		{"anvil, AUTH", nil, sdk.Facts{Stage: sdk.Auth}, "450 4.7.1 Error: too many AUTH commands from 192.0.2.1"},
		{"own code", map[string][]string{"code": {"452"}}, sdk.Facts{Stage: sdk.Rcpt}, "452 4.7.1 Error: too many recipients from 192.0.2.1"},
		{"own code at connect", map[string][]string{"code": {"521"}, "action": {"disconnect"}}, sdk.Facts{Stage: sdk.Connect}, "521 4.7.0 Error: too many connections from 192.0.2.1"},
		{"code of a reject at connect", map[string][]string{"code": {"571"}, "action": {"reject"}}, sdk.Facts{Stage: sdk.Connect}, "421 4.7.0 Error: too many connections from 192.0.2.1"},
		{"own text", map[string][]string{"text": {"4.2.2 %k of %c: %s of %l %w in %p, 100%%"}, "key": {"user+door"}}, sdk.Facts{Stage: sdk.Rcpt, User: "Joe", Door: "mx"}, "450 4.2.2 joe mx of 192.0.2.1: 1 of 0 recipients in 60s, 100%"},
		{"hostile key", map[string][]string{"text": {"%k"}, "key": {"helo"}}, sdk.Facts{Stage: sdk.Rcpt, Helo: "%c\r\n250 ok"}, "450 4.7.1 %c??250 ok"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			config := map[string][]string{"limit": {"0"}}
			for k, v := range r.config {
				config[k] = v
			}
			r.facts.Client = "192.0.2.1"
			v, err := configured(t, config).Call(r.facts)
			got := strings.Join([]string{itoa(v.Code), v.Enhanced, v.Text}, " ")
			if err != nil || got != r.want {
				t.Errorf("got %s, %v; want %s", got, err, r.want)
			}
		})
	}
	for stage := sdk.Connect; stage <= sdk.Message; stage++ {
		v, err := configured(t, map[string][]string{"limit": {"0"}, "action": {"tag"}}).Call(sdk.Facts{Stage: stage, Client: "192.0.2.1"})
		if err != nil || v.Action != sdk.ActionNext || len(v.Mods) != 1 || v.Mods[0].Value != "ratelimit" || v.Reason != "rate-limit" {
			t.Errorf("tag at stage %d: %+v, %v", stage, v, err)
		}
	}
}

func itoa(n int) string {
	return string([]byte{byte('0' + n/100%10), byte('0' + n/10%10), byte('0' + n%10)})
}

func TestPrefixes(t *testing.T) {
	f := configured(t, map[string][]string{"limit": {"1"}, "key": {"client-net"}, "prefix4": {"16"}, "prefix6": {"48"}})
	for _, row := range []struct {
		client string
		want   int
	}{{"192.0.2.1", 0}, {"192.0.200.1", 450}, {"192.1.2.1", 0}, {"2001:db8:0:1::1", 0}, {"2001:db8:0:2::1", 450}, {"2001:db8:1::1", 0}} {
		if got := ask(t, f, sdk.Facts{Stage: sdk.Mail, Client: row.client}); got != row.want {
			t.Errorf("%s: got %d, want %d", row.client, got, row.want)
		}
	}
}

func TestStateGrant(t *testing.T) {
	f := sdk.NewFake(&plugin)
	f.Grants = []string{sdk.GrantCount}
	if err := f.Configure(map[string][]string{"limit": {"1"}, "cost": {"failures"}, "reset": {"true"}}); err == nil || err.Error() != `reset: needs the grant "state"` {
		t.Errorf("reset without the grant: %v", err)
	}
	if err := f.Configure(map[string][]string{"limit": {"1"}, "cost": {"failures"}}); err != nil {
		t.Errorf("without reset: %v", err)
	}
	f = configured(t, map[string][]string{"limit": {"1"}, "cost": {"failures"}, "reset": {"true"}})
	f.Grants = nil
	if v, err := f.Call(sdk.Facts{Stage: sdk.Auth, Client: "192.0.2.1"}); err == nil {
		t.Errorf("without state: %+v", v)
	}
}
