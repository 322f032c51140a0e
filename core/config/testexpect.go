package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/wafermail/wafer/core/policy"
	"github.com/zclconf/go-cty/cty"
)

// verdicts are what a step may end in.
var verdicts = []string{"accept", "reject", "defer", "disconnect", "discard", "hold", "quarantine"}

// expect reads an expect block; n is nil if there is none.
func (r *reader) expect(n *node, at hcl.Range, what string) (x Expect) {
	if n == nil {
		r.fault(at, what+" expects nothing", `A test that cannot fail tests nothing: write expect { verdict = "reject" }, and more of what matters.`)
		return x
	}
	x.Verdict = n.choice("verdict", "", verdicts...)
	x.Code = int(n.count("code", 0, 200, 599))
	x.Enhanced, x.Reason, x.By = n.text("enhanced", ""), n.text("reason", ""), n.text("by", "")
	x.At = n.choice("at", "", stageWords...)
	if s := n.text("text", ""); n.body.Attributes["text"] != nil {
		p := r.pattern(s, n.at("text"))
		x.Text = &p
	}
	if m := n.lists("header", `{ "Received-SPF" = "~ ^pass" }`); m != nil {
		x.Header = map[string]Pattern{}
		for _, name := range slices.Sorted(maps.Keys(m)) {
			x.Header[name] = r.pattern(strings.Join(m[name], " "), n.at("header"))
		}
	}
	x.NoHeader, _ = n.elements("no_header")
	x.Tags, _ = n.elements("tags")
	x.Redirect, _ = n.elements("redirect")
	x.BCC, _ = n.elements("bcc")
	x.Asked, _ = n.elements("asked")
	if v, at, ok := n.value("score"); ok {
		if v.Type() != cty.Number {
			n.wrong(at, "score", "a number")
		} else {
			f, _ := v.AsBigFloat().Float64()
			x.Score = &f
		}
	}
	if v, at, ok := n.value("rcpt"); ok {
		x.Rcpt = map[string]int{}
		for name, code := range r.numbers(n, v, at, "rcpt", `{ "ann@example.test" = 250, "nobody@example.test" = 550 }`) {
			x.Rcpt[name] = int(code)
		}
	}
	r.expectChecks(n, &x)
	if tables := n.tables("state"); tables != nil {
		x.State = map[string]map[string]Pattern{}
		for _, check := range slices.Sorted(maps.Keys(tables)) {
			x.State[check] = map[string]Pattern{}
			for _, k := range slices.Sorted(maps.Keys(tables[check])) {
				x.State[check][k] = r.pattern(tables[check][k], n.at("state"))
			}
		}
	}
	if v, at, ok := n.value("counts"); ok {
		x.Counts = map[string]map[string]int64{}
		if t := v.Type(); !t.IsObjectType() && !t.IsMapType() {
			n.wrong(at, "counts", `a map of maps by check, such as { rate = { "client=192.0.2.1" = 3 } }`)
		} else {
			for it := v.ElementIterator(); it.Next(); {
				k, inner := it.Element()
				x.Counts[k.AsString()] = r.numbers(n, inner, at, "counts", `{ rate = { "client=192.0.2.1" = 3 } }`)
			}
		}
	}
	if len(n.body.Attributes) == 0 {
		r.fault(at, what+" expects nothing", `Write at least verdict = "accept" or another of `+oneOf(verdicts)+".")
	}
	n.done()
	return x
}

// expectChecks reads what single checks have to say.
func (r *reader) expectChecks(n *node, x *Expect) {
	m := n.lists("checks", `{ spf = "next", rate = "defer" }`)
	words := []string{"error", "skipped", "not asked"}
	for a := policy.Next; a <= policy.DeferIfReject; a++ {
		words = append(words, a.String())
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		v := m[name]
		if x.Checks == nil {
			x.Checks = map[string]string{}
		}
		if len(v) != 1 || !slices.Contains(words, v[0]) {
			r.fault(n.at("checks"), "check "+name+" cannot say "+strings.Join(v, ", "), "Write one of "+oneOf(words)+".")
			continue
		}
		x.Checks[name] = v[0]
	}
}

// numbers reads a map of whole numbers.
func (r *reader) numbers(n *node, v cty.Value, at hcl.Range, name, example string) map[string]int64 {
	out := map[string]int64{}
	if t := v.Type(); v.IsNull() || !t.IsObjectType() && !t.IsMapType() {
		n.wrong(at, name, "a map of numbers, such as "+example)
		return out
	}
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		i, whole := int64(0), false
		if !e.IsNull() {
			i, whole = wholeNumber(e)
		}
		if !whole {
			n.wrong(at, name, "a map of numbers, such as "+example)
			continue
		}
		out[k.AsString()] = i
	}
	return out
}

// pattern reads a text, or an expression behind "~".
func (r *reader) pattern(s string, at hcl.Range) Pattern {
	p := Pattern{text: s}
	expr, ok := strings.CutPrefix(s, "~")
	if !ok {
		return p
	}
	re, err := regexp.Compile(strings.TrimSpace(expr))
	if err != nil {
		r.fault(at, "bad regular expression", err.Error()+". Behind ~ stands an expression of Go's regexp package; without ~ the text must be equal.")
		return p
	}
	p.re = re
	return p
}
