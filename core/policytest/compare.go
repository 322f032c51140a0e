package policytest

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/rehearse"
)

// findings collects what was not as expected.
type findings []string

func (f *findings) say(what, got, want string) {
	if got != want {
		*f = append(*f, fmt.Sprintf("%s: got %s, want %s", what, got, want))
	}
}

// compare says what of a step's end is not as expected. An error means that
// the expectation itself makes no sense.
func (w *world) compare(x *config.Expect, r *StepResult) ([]string, error) {
	var f findings
	o := &r.Outcome
	d := &o.Decisive
	if x.Verdict != "" {
		f.say("verdict", o.Verdict, x.Verdict)
	}
	if x.Code != 0 {
		f.say("code", strconv.Itoa(code(d)), strconv.Itoa(x.Code))
	}
	if x.Enhanced != "" {
		f.say("enhanced", quoted(d.Status.Enhanced), quoted(x.Enhanced))
	}
	if x.Text != nil && !x.Text.Match(Text(d.Status, d.ID)) {
		f.say("text", quoted(Text(d.Status, d.ID)), quoted(x.Text.String()))
	}
	if x.Reason != "" {
		f.say("reason", quoted(d.Reason), quoted(x.Reason))
	}
	if x.By != "" && !isBy(d.By, x.By) {
		if x.By != rehearse.Core {
			if _, err := w.label(x.By); err != nil {
				return nil, fmt.Errorf("expect by: %w", err)
			}
		}
		f.say("by", quoted(d.By), quoted(x.By))
	}
	if x.At != "" {
		f.say("at", d.Stage.String(), x.At)
	}
	compareEffects(&f, x, &o.Effects)
	for _, rcpt := range sortedKeys(x.Rcpt) {
		got := "no reply"
		for i := range o.Replies {
			if e := &o.Replies[i]; e.Stage == policy.Rcpt && strings.EqualFold(e.Rcpt.String(), rcpt) {
				got = strconv.Itoa(code(e))
			}
		}
		f.say("rcpt "+rcpt, got, strconv.Itoa(x.Rcpt[rcpt]))
	}
	for _, name := range sortedKeys(x.Checks) {
		label, err := w.label(name)
		if err != nil {
			return nil, fmt.Errorf("expect checks: %w", err)
		}
		f.say("check "+name, said(r.Records, label), x.Checks[name])
	}
	if err := w.compareMemory(&f, x); err != nil {
		return nil, err
	}
	asked := questions(r.Records)
	for _, q := range x.Asked {
		if !slices.ContainsFunc(asked, func(a string) bool { return strings.EqualFold(a, q) }) {
			f.say("asked", "["+strings.Join(asked, ", ")+"]", q)
		}
	}
	return f, nil
}

func quoted(s string) string { return strconv.Quote(s) }

// code is the reply code of r.
func code(r *rehearse.Reply) int {
	if r.Status.Code == 0 {
		return 250
	}
	return r.Status.Code
}

// Text is the text of a refusal without the decision's id behind it.
func Text(st mail.Status, id mail.ID) string {
	if id == "" {
		return st.Text
	}
	return strings.TrimSuffix(st.Text, " ("+string(id)+")")
}

func isBy(got, want string) bool { return got == want || strings.HasSuffix(got, "/"+want) }

// said is what a check said in the end.
func said(records []policy.Record, label string) string {
	got := "not asked"
	for i := range records {
		r := &records[i]
		switch {
		case r.Check != label:
		case r.Skipped != "":
			if got == "not asked" {
				got = "skipped"
			}
		case r.Error != "":
			got = "error"
		default:
			got = r.Action
		}
	}
	return got
}

func compareEffects(f *findings, x *config.Expect, e *policy.Effects) {
	for _, name := range sortedKeys(x.Header) {
		want := x.Header[name]
		var values []string
		good := false
		for _, field := range e.Prepend {
			if strings.EqualFold(field.Name, name) {
				values = append(values, quoted(field.Value))
				good = good || want.Match(field.Value)
			}
		}
		if !good {
			f.say("header "+name, orNone(values), quoted(want.String()))
		}
	}
	for _, name := range x.NoHeader {
		for _, field := range e.Prepend {
			if strings.EqualFold(field.Name, name) {
				f.say("header "+name, quoted(field.Value), "none")
			}
		}
	}
	for _, tag := range x.Tags {
		if !slices.Contains(e.Tags, tag) {
			f.say("tag "+quoted(tag), orNone(e.Tags), "it among them")
		}
	}
	if x.Score != nil && math.Abs(e.Score-*x.Score) > 1e-9 {
		f.say("score", strconv.FormatFloat(e.Score, 'g', -1, 64), strconv.FormatFloat(*x.Score, 'g', -1, 64))
	}
	for _, to := range []struct {
		what string
		got  []mail.Path
		want []string
	}{{"redirect", e.Redirect, x.Redirect}, {"bcc", e.BCC, x.BCC}} {
		for _, want := range to.want {
			if !slices.ContainsFunc(to.got, func(p mail.Path) bool { return strings.EqualFold(p.String(), want) }) {
				var got []string
				for _, p := range to.got {
					got = append(got, p.String())
				}
				f.say(to.what, orNone(got), want)
			}
		}
	}
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// compareMemory compares state and counters after the step.
func (w *world) compareMemory(f *findings, x *config.Expect) error {
	for _, check := range sortedKeys(x.State) {
		label, err := w.label(check)
		if err != nil {
			return fmt.Errorf("expect state: %w", err)
		}
		have := w.state.List(label, w.clock)
		for _, key := range sortedKeys(x.State[check]) {
			want := x.State[check][key]
			got, ok := have[key]
			switch {
			case !ok && want.String() == "":
			case !ok:
				f.say("state of "+check, fmt.Sprintf("no key %q among %q", key, sortedKeys(have)), quoted(want.String()))
			case !want.Match(got):
				f.say(fmt.Sprintf("state of %s, key %q", check, key), quoted(got), quoted(want.String()))
			}
		}
	}
	for _, check := range sortedKeys(x.Counts) {
		label, err := w.label(check)
		if err != nil {
			return fmt.Errorf("expect counts: %w", err)
		}
		have := map[string]int64{}
		for _, c := range w.counters.List(label, w.clock, 1_000_000) {
			have[c.Key] = c.Sum
		}
		for _, key := range sortedKeys(x.Counts[check]) {
			got, ok := have[key]
			if want := x.Counts[check][key]; ok && got != want || !ok && want != 0 {
				f.say(fmt.Sprintf("count of %s, key %q", check, key), fmt.Sprintf("%d (the keys are %q)", got, sortedKeys(have)), strconv.FormatInt(want, 10))
			}
		}
	}
	return nil
}

// questions are the DNS questions of checks, in their order.
func questions(records []policy.Record) (asked []string) {
	for i := range records {
		for _, c := range records[i].Calls {
			if c.Call == "dns" {
				asked = append(asked, c.Ask)
			}
		}
	}
	return asked
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
