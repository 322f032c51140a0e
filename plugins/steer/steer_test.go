//go:build !wasip1

package main

import (
	"fmt"
	"strings"
	"testing"

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

func TestSteer(t *testing.T) {
	rows := []struct {
		name   string
		config string
		facts  sdk.Facts
		want   string // action, code, and modifications
	}{
		{"transport", "transport=hub hop=[192.0.2.1]:25", sdk.Facts{Stage: sdk.Route}, "0 0 [6 hub [192.0.2.1]:25 0]"},
		{"transport counts at route only", "transport=hub", sdk.Facts{Stage: sdk.Queued}, "0 0"},
		{"limit", "limit=2", sdk.Facts{Stage: sdk.Route}, "0 0 [8   2]"},
		{"delay", "delay=10m", sdk.Facts{Stage: sdk.Queued}, "0 0 [7   600000]"},
		{"hold", "action=hold", sdk.Facts{Stage: sdk.Queued}, "6 0"},
		{"hold, too few", "action=hold recipients_over=10", sdk.Facts{Stage: sdk.Queued, RecipientCount: 10}, "0 0"},
		{"hold, enough", "action=hold recipients_over=10", sdk.Facts{Stage: sdk.Queued, RecipientCount: 11}, "6 0"},
		{"reject", "action=reject", sdk.Facts{Stage: sdk.Route}, "2 550"},
		{"defer", "action=defer text=later", sdk.Facts{Stage: sdk.Route}, "3 450"},
		{"defer at queued", "action=defer", sdk.Facts{Stage: sdk.Queued}, "0 0"},
		{"discard", "action=discard", sdk.Facts{Stage: sdk.Route}, "5 0"},
		{"a notice", "action=discard", sdk.Facts{Stage: sdk.Bounce}, "5 0"},
		{"this notice", "action=discard notices=delayed", sdk.Facts{Stage: sdk.Bounce, Rare: map[string]string{sdk.FactNotice: "delayed"}}, "5 0"},
		{"another notice", "action=discard notices=delayed", sdk.Facts{Stage: sdk.Bounce, Rare: map[string]string{sdk.FactNotice: "failed"}}, "0 0"},
		{"notices are not held", "action=hold", sdk.Facts{Stage: sdk.Bounce}, "0 0"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			v, err := configured(t, fields(r.config)).Call(r.facts)
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprint(int(v.Action), " ", v.Code)
			for _, m := range v.Mods {
				got += fmt.Sprintf(" [%d %s %s %d]", m.Op, m.Name, m.Value, m.Number)
			}
			if got != r.want {
				t.Errorf("%s, want %s", got, r.want)
			}
		})
	}
}

// fields are a configuration in short.
func fields(s string) map[string][]string {
	m := map[string][]string{}
	for _, f := range strings.Fields(s) {
		k, v, _ := strings.Cut(f, "=")
		m[k] = append(m[k], v)
	}
	return m
}

func TestConfig(t *testing.T) {
	for config, want := range map[string]string{
		"": "action: says nothing", "hop=x": "hop: needs a transport", "delay=6d": "delay: must be at most 5d", "limit=-1": "limit:",
		"limit=10001": "limit:", "action=hold text=x": "text: goes with", "action=discard notices=soon": "notices:", "action=jump": "action",
		"action=hold recipients_over=-1": "recipients_over:",
	} {
		if err := sdk.NewFake(&plugin).Configure(fields(config)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", config, err, want)
		}
	}
}
