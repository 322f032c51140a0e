package rehearse

import (
	"reflect"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/policy"
)

// TestTrace: a line for each check, and below it what it did.
func TestTrace(t *testing.T) {
	base := policy.Record{Stage: "rcpt", Check: "inbound/spf", Where: "inbound.hcl:7", Plugin: "org.example.spf", Digest: "0123456789abcdef", Mode: "enforce", Action: "next", Fuel: 4711, Micros: 1500}
	rows := []struct {
		name   string
		change func(*policy.Record)
		brief  string
		detail string // below the line
	}{
		{"next", func(*policy.Record) {}, "next", "inbound.hcl:7, org.example.spf 0123456789ab|fuel 4711, 1.5ms"},
		{"refusal", func(r *policy.Record) {
			r.Action, r.Code, r.Enhanced, r.Text, r.Reason = "reject", 550, "5.7.1", `say "please"`, "rude"
		}, `reject 550 5.7.1 "say \"please\"" (rude)`, "inbound.hcl:7, org.example.spf 0123456789ab|fuel 4711, 1.5ms"},
		{"observed", func(r *policy.Record) { r.Action, r.Mode = "reject", "observe" }, "reject [observed only]", "inbound.hcl:7, org.example.spf 0123456789ab|fuel 4711, 1.5ms"},
		{"error", func(r *policy.Record) { r.Action, r.Error, r.Code = "defer", "out of fuel", 451 }, "error, so defer: out of fuel", "inbound.hcl:7, org.example.spf 0123456789ab|fuel 4711, 1.5ms"},
		{"exempt", func(r *policy.Record) { r.Skipped = "exempt" }, "not asked: the policy exempts this client", ""},
		{"when", func(r *policy.Record) { r.Skipped = "when" }, "not asked: its when is false", ""},
		{"accepted", func(r *policy.Record) { r.Skipped = "accepted" }, "not asked: an earlier check accepted", ""},
		{"refused", func(r *policy.Record) { r.Skipped = "refused" }, "not asked: an earlier check refused", ""},
		{"another cause", func(r *policy.Record) { r.Skipped = "moon" }, "not asked: moon", ""},
		{"no module", func(r *policy.Record) { r.Plugin, r.Digest = "", "" }, "next", "inbound.hcl:7|fuel 4711, 1.5ms"},
		{"short digest", func(r *policy.Record) { r.Digest = "abc" }, "next", "inbound.hcl:7, org.example.spf abc|fuel 4711, 1.5ms"},
		{"calls", func(r *policy.Record) {
			r.Calls = []policy.HostCall{
				{Call: "now", Answer: "2026-01-01T00:00:00Z"},
				{Call: "dns", Ask: "MX example.org", Answer: "10 a.example", Status: "ok"},
				{Call: "dns", Ask: "A example.org", Status: "ok"},
				{Call: "dns", Ask: "A slow.example", Status: "temporary"},
				{Call: "state_get", Ask: "k", Status: "not-found"},
				{Call: "count", Ask: "k +1 1m0s", Answer: "3"},
			}
		}, "next", "inbound.hcl:7, org.example.spf 0123456789ab|now → 2026-01-01T00:00:00Z|dns MX example.org → 10 a.example|dns A example.org → nothing|" +
			"dns A slow.example (temporary)|state_get k (not-found)|count k +1 1m0s → 3|fuel 4711, 1.5ms"},
		{"effects", func(r *policy.Record) {
			r.Effects = &policy.RecordEffects{Prepend: []string{"X-A: b"}, Tags: []string{"t", "u"}, Score: -2.5, Redirect: []string{"a@b.example"}, BCC: []string{"c@d.example", "e@f.example"}, Tarpit: 2500}
		}, "next", "inbound.hcl:7, org.example.spf 0123456789ab|adds X-A: b|tags t, u|score -2.5|redirects to a@b.example|copies to c@d.example, e@f.example|waits 2.5s|fuel 4711, 1.5ms"},
	}
	for _, row := range rows {
		r := base
		row.change(&r)
		line := "  rcpt     inbound/spf              " + row.brief + "\n"
		want := line
		if row.detail != "" {
			want += "           " + strings.ReplaceAll(row.detail, "|", "\n           ") + "\n"
		}
		var short, long strings.Builder
		Trace(&short, []policy.Record{r}, false)
		Trace(&long, []policy.Record{r}, true)
		if short.String() != line || long.String() != want {
			t.Errorf("%s: got\n%s%swant\n%s%s", row.name, &short, &long, line, want)
		}
	}
}

// TestTraceIsHarmless: no octet of a record reaches the terminal as a command,
// whatever field it is in.
func TestTraceIsHarmless(t *testing.T) {
	const hostile = "a\x1b]0;title\x07\r\n\x00\x7f\u009b1m\u202eb\xffc"
	for _, skip := range []bool{false, true} {
		for _, fails := range []bool{false, true} {
			var r policy.Record
			fill(reflect.ValueOf(&r).Elem(), hostile)
			if !skip {
				r.Skipped = ""
			}
			if !fails {
				r.Error = ""
			}
			r.Code, r.Effects.Score, r.Effects.Tarpit = 550, 1, 1
			var b strings.Builder
			Trace(&b, []policy.Record{r}, true)
			for _, c := range b.String() {
				if c != '\n' && c < ' ' || c >= 0x7f && c < 0xa0 || c == '\u202e' || c == '\ufffd' {
					t.Errorf("skip %v, fails %v: %q in %q", skip, fails, c, b.String())
					break
				}
			}
			if strings.Count(b.String(), "\n") > 12 {
				t.Errorf("a text has made lines:\n%s", &b)
			}
		}
	}
}

// fill sets every string below v to text, and lists to one element.
func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), text)
			}
		}
	}
}
