//go:build !wasip1

package main

import (
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

// waits returns how long the reply waits.
func waits(t *testing.T, f *sdk.Fake, facts sdk.Facts) time.Duration {
	t.Helper()
	v, err := f.Call(facts)
	if err != nil || v.Action != sdk.ActionNext || len(v.Mods) > 1 {
		t.Fatalf("got %+v, %v", v, err)
	}
	if len(v.Mods) == 0 {
		return 0
	}
	if v.Mods[0].Name+v.Mods[0].Value != "" || v.Reason != "tarpit" {
		t.Errorf("got %+v", v)
	}
	return time.Duration(v.Mods[0].Number) * time.Millisecond
}

func TestWhen(t *testing.T) {
	rows := []struct {
		name   string
		config map[string][]string
		facts  sdk.Facts
		want   time.Duration
	}{
		{"always", nil, sdk.Facts{}, 5 * time.Second},
		{"own delay", map[string][]string{"delay": {"1m"}}, sdk.Facts{}, time.Minute},
		{"less than a second", map[string][]string{"delay": {"250ms"}}, sdk.Facts{}, 250 * time.Millisecond},
		{"score is there", map[string][]string{"when_score": {"3"}}, sdk.Facts{Rare: map[string]string{sdk.FactScore: "3"}}, 5 * time.Second},
		{"score is less", map[string][]string{"when_score": {"3"}}, sdk.Facts{Rare: map[string]string{sdk.FactScore: "2.99"}}, 0},
		{"no score", map[string][]string{"when_score": {"1"}}, sdk.Facts{}, 0},
		{"no score, from 0 on", map[string][]string{"when_score": {"0"}}, sdk.Facts{}, 5 * time.Second},
		{"score below zero", map[string][]string{"when_score": {"0"}}, sdk.Facts{Rare: map[string]string{sdk.FactScore: "-1.5"}}, 0},
		{"rubbish for a score", map[string][]string{"when_score": {"1"}}, sdk.Facts{Rare: map[string]string{sdk.FactScore: "much"}}, 0},
		{"tag is there", map[string][]string{"tags": {"dnsbl", "slow"}}, sdk.Facts{Rare: map[string]string{sdk.FactTags: "one\nslow\n"}}, 5 * time.Second},
		{"last tag", map[string][]string{"tags": {"slow"}}, sdk.Facts{Rare: map[string]string{sdk.FactTags: "one\nslow"}}, 5 * time.Second},
		{"part of a tag", map[string][]string{"tags": {"slow"}}, sdk.Facts{Rare: map[string]string{sdk.FactTags: "slower\nso slow"}}, 0},
		{"no tags", map[string][]string{"tags": {"slow"}}, sdk.Facts{}, 0},
		{"tag without score", map[string][]string{"tags": {"slow"}, "when_score": {"1"}}, sdk.Facts{Rare: map[string]string{sdk.FactTags: "slow"}}, 0},
		{"failed login", nil, sdk.Facts{Stage: sdk.Auth}, 5 * time.Second},
		{"login", nil, sdk.Facts{Stage: sdk.Auth, AuthOK: true}, 0},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if r.facts.Stage == 0 {
				r.facts.Stage = sdk.Connect
			}
			if got := waits(t, configured(t, r.config), r.facts); got != r.want {
				t.Errorf("waits %s, want %s", got, r.want)
			}
		})
	}
}

func TestEveryStage(t *testing.T) {
	f := configured(t, nil)
	for stage := sdk.Connect; stage <= sdk.Message; stage++ {
		if got := waits(t, f, sdk.Facts{Stage: stage}); got != 5*time.Second {
			t.Errorf("stage %d: waits %s", stage, got)
		}
	}
}

func TestStep(t *testing.T) {
	rows := []struct {
		name             string
		delay, step, max string
		want             []time.Duration
	}{
		{"grows", "1s", "2s", "6s", []time.Duration{time.Second, 3 * time.Second, 5 * time.Second, 6 * time.Second, 6 * time.Second}},
		{"first time for nothing", "0s", "20s", "1m", []time.Duration{0, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute}},
		{"a step of days", "1s", "300d", "1m", []time.Duration{time.Second, time.Minute, time.Minute}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := configured(t, map[string][]string{"delay": {r.delay}, "step": {r.step}, "max": {r.max}})
			for i, want := range r.want {
				if got := waits(t, f, sdk.Facts{Stage: sdk.Auth, Client: "192.0.2.1"}); got != want {
					t.Errorf("time %d: waits %s, want %s", i+1, got, want)
				}
			}
			if got := waits(t, f, sdk.Facts{Stage: sdk.Auth, Client: "192.0.2.2"}); got != r.want[0] {
				t.Errorf("another client: waits %s", got)
			}
			if got := waits(t, f, sdk.Facts{Stage: sdk.Auth, Client: "192.0.2.1", AuthOK: true}); got != 0 {
				t.Errorf("success: waits %s", got)
			}
			f.Clock = f.Clock.Add(10 * time.Minute)
			if got := waits(t, f, sdk.Facts{Stage: sdk.Auth, Client: "192.0.2.1"}); got != r.want[0] {
				t.Errorf("later: waits %s", got)
			}
		})
	}
}

func TestGrant(t *testing.T) {
	f := sdk.NewFake(&plugin)
	f.Grants = nil
	if err := f.Configure(map[string][]string{"step": {"1s"}}); err == nil || err.Error() != `step: needs the grant "count"` {
		t.Errorf("step without the grant: %v", err)
	}
	if err := f.Configure(nil); err != nil {
		t.Errorf("without step: %v", err)
	}
	f = configured(t, map[string][]string{"step": {"1s"}})
	f.Grants = nil
	if v, err := f.Call(sdk.Facts{Stage: sdk.Mail, Client: "192.0.2.1"}); err == nil {
		t.Errorf("a counter that does not count gave %+v", v)
	}
}

func TestConfigErrors(t *testing.T) {
	rows := []struct {
		name   string
		config map[string][]string
		want   string
	}{
		{"too long", map[string][]string{"delay": {"61s"}}, "delay: must be at most 1m"},
		{"nothing", map[string][]string{"delay": {"0s"}}, "delay: must be more than 0s, or step must"},
		{"max too long", map[string][]string{"step": {"1s"}, "max": {"2m"}}, "max: must be between delay and 1m"},
		{"max too short", map[string][]string{"step": {"1s"}, "max": {"4s"}}, "max: must be between delay and 1m"},
		{"per", map[string][]string{"step": {"1s"}, "per": {"32d"}}, "per: must be between 1s and 31d"},
		{"score", map[string][]string{"when_score": {"high"}}, `when_score: "high" is not allowed here`},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if err := sdk.NewFake(&plugin).Configure(r.config); err == nil || err.Error() != r.want {
				t.Errorf("got %v, want %s", err, r.want)
			}
		})
	}
}
