package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/wafermail/wafer/core/policy"
)

var (
	stageWords = []string{"connect", "helo", "starttls", "auth", "mail", "rcpt", "data", "message"}
	replyWords = []string{"connect", "helo", "mail", "rcpt"}
	grants     = []string{"dns", "count"}
)

// policy reads one policy block.
func (r *reader) policy(n *node, name string, at hcl.Range) Policy {
	p := Policy{Name: name, Where: place(at)}
	if !isWord(name) {
		r.fault(at, strconv.Quote(name)+" cannot name a policy", "Write letters, digits, - and _ only: names become parts of log lines and keys.")
	}
	p.On = n.texts("on")
	if len(p.On) == 0 {
		r.fault(n.body.MissingItemRange(), n.what+" guards no door", `Write on = ["mx"], or more of `+strings.Join(profiles, ", ")+".")
	}
	for _, door := range p.On {
		if !slices.Contains(profiles, door) {
			r.fault(n.at("on"), "no door "+strconv.Quote(door), "Write "+oneOf(profiles)+"."+meant(door, profiles))
		}
	}
	p.ReplyAt = r.replyAt(n)
	if x := n.only("exempt"); x != nil {
		p.Exempt = policy.Exempt{Networks: x.networks("networks"), Authenticated: x.flag("authenticated", false)}
		x.done()
	}
	n.named("check", func(n *node, name string, at hcl.Range) { p.Checks = append(p.Checks, r.check(n, name, at)) })
	n.done()
	return p
}

// isWord reports whether s may be a name in logs and keys.
func isWord(s string) bool {
	for _, c := range s {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// replyAt reads when refusals are given; 0 if that is not said.
func (r *reader) replyAt(n *node) policy.Stage {
	s := n.choice("reply_at", "", replyWords...)
	stage, _ := policy.ParseStage(s)
	return stage
}

// check reads one check block.
func (r *reader) check(n *node, name string, at hcl.Range) Check {
	c := Check{Name: name, Where: place(at)}
	if !isWord(name) {
		r.fault(at, strconv.Quote(name)+" cannot name a check", "Write letters, digits, - and _ only: names become parts of log lines and keys.")
	}
	c.Plugin = n.text("plugin", name)
	if strings.ContainsRune(c.Plugin, '/') || strings.HasSuffix(c.Plugin, ".wasm") {
		c.Path = true
		if !filepath.IsAbs(c.Plugin) {
			c.Plugin = filepath.Join(r.dir, c.Plugin)
		}
		if err := readable(c.Plugin); err != nil {
			r.fault(n.at("plugin"), "plugin cannot be read", err.Error()+". Write the path of a .wasm module, or the name of a plugin that is built in.")
		}
	}
	words := n.texts("at")
	if len(words) == 0 {
		r.fault(n.body.MissingItemRange(), n.what+" is asked at no stage", "Write at = "+oneOf(stageWords)+", or a list of them.")
	}
	for _, w := range words {
		stage, ok := policy.ParseStage(w)
		if !ok {
			r.fault(n.at("at"), "no stage "+strconv.Quote(w), "Write "+oneOf(stageWords)+"."+meant(w, stageWords))
			continue
		}
		if slices.Contains(c.At, stage) {
			r.fault(n.at("at"), "stage "+w+" is there twice", "Write it once.")
			continue
		}
		c.At = append(c.At, stage)
	}
	c.Allow = n.texts("allow")
	for _, g := range c.Allow {
		if !slices.Contains(grants, g) {
			r.fault(n.at("allow"), "nothing called "+strconv.Quote(g)+" can be allowed", "Write "+oneOf(grants)+"."+meant(g, grants))
		}
	}
	switch n.choice("on_error", "defer", "defer", "reject", "accept") {
	case "reject":
		c.OnError = policy.Reject
	case "accept":
		c.OnError = policy.Accept
	default:
		c.OnError = policy.Defer
	}
	c.Observe = n.choice("mode", "enforce", "enforce", "observe") == "observe"
	c.ReplyAt = r.replyAt(n)
	r.with(n, &c)
	n.attrs = append(n.attrs, "when")
	if a := n.body.Attributes["when"]; a != nil {
		c.When = r.when(a.Expr)
	}
	n.done()
	return c
}

// with reads the plugin's own configuration and flattens it: a value is one
// text, a list one text an element, and what lies in an inner map gets the
// path's names joined by dots.
func (r *reader) with(n *node, c *Check) {
	v, at, ok := n.value("with")
	if !ok {
		return
	}
	if t := v.Type(); !t.IsObjectType() && !t.IsMapType() {
		n.wrong(at, "with", `a map, such as { limit = 30 }`)
		return
	}
	c.With, c.WithWhere = map[string][]string{}, map[string]string{}
	r.flatten(c, "", v, at)
	if obj, ok := n.body.Attributes["with"].Expr.(*hclsyntax.ObjectConsExpr); ok {
		for _, item := range obj.Items {
			if key, diags := item.KeyExpr.Value(r.eval); !diags.HasErrors() && key.Type() == cty.String {
				c.WithWhere[key.AsString()] = place(item.KeyExpr.Range())
			}
		}
	}
}

func (r *reader) flatten(c *Check, prefix string, v cty.Value, at hcl.Range) {
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		name := prefix + k.AsString()
		switch t := e.Type(); {
		case e.IsNull():
			r.fault(at, "with."+name+" has no value", "Write a value, or leave it out.")
		case t.IsObjectType(), t.IsMapType():
			r.flatten(c, name+".", e, at)
		case t.IsTupleType(), t.IsListType(), t.IsSetType():
			list := []string{}
			for et := e.ElementIterator(); et.Next(); {
				_, x := et.Element()
				s, err := scalar(x)
				if err != nil {
					r.fault(at, "with."+name+" has an element that is "+err.Error(), "Lists hold texts, numbers, true and false.")
					continue
				}
				list = append(list, s)
			}
			c.With[name] = list
		default:
			s, err := scalar(e)
			if err != nil {
				r.fault(at, "with."+name+" is "+err.Error(), "Write a text, a number, true, false, a list or a map.")
				continue
			}
			c.With[name] = []string{s}
		}
	}
}

func scalar(v cty.Value) (string, error) {
	switch {
	case v.IsNull():
		return "", fmt.Errorf("empty")
	case v.Type() == cty.String:
		return v.AsString(), nil
	case v.Type() == cty.Bool:
		return strconv.FormatBool(v.True()), nil
	case v.Type() == cty.Number:
		return v.AsBigFloat().Text('f', -1), nil
	}
	return "", fmt.Errorf("%s", v.Type().FriendlyName())
}
