package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// facts are the names that a when expression may use.
var facts = map[string]func(*policy.Event) cty.Value{
	"door":         func(ev *policy.Event) cty.Value { return cty.StringVal(ev.Door) },
	"stage":        func(ev *policy.Event) cty.Value { return cty.StringVal(ev.Stage.String()) },
	"client":       func(ev *policy.Event) cty.Value { return cty.StringVal(ev.Client.Addr().String()) },
	"client_name":  func(ev *policy.Event) cty.Value { return cty.StringVal(ev.ClientName) },
	"reverse_name": func(ev *policy.Event) cty.Value { return cty.StringVal(ev.ReverseName) },
	"trusted":      func(ev *policy.Event) cty.Value { return cty.BoolVal(ev.Trusted) },
	"early_talker": func(ev *policy.Event) cty.Value { return cty.BoolVal(ev.EarlyTalker) },
	"helo":         func(ev *policy.Event) cty.Value { return cty.StringVal(ev.Helo) },
	"extended":     func(ev *policy.Event) cty.Value { return cty.BoolVal(ev.Extended) },
	"tls":          func(ev *policy.Event) cty.Value { return cty.BoolVal(ev.TLS.On()) },
	"tls_version":  func(ev *policy.Event) cty.Value { return cty.StringVal(ev.TLS.Version) },
	"sni":          func(ev *policy.Event) cty.Value { return cty.StringVal(ev.TLS.SNI) },
	"user":         func(ev *policy.Event) cty.Value { return cty.StringVal(ev.User) },
	"mechanism":    func(ev *policy.Event) cty.Value { return cty.StringVal(ev.Mechanism) },
	"authenticated": func(ev *policy.Event) cty.Value {
		return cty.BoolVal(ev.User != "" && (ev.Stage != policy.Auth || ev.AuthOK))
	},
	"sender":           func(ev *policy.Event) cty.Value { return cty.StringVal(ev.Sender.String()) },
	"sender_domain":    func(ev *policy.Event) cty.Value { return cty.StringVal(mail.DomainKey(ev.Sender.Domain())) },
	"null_sender":      func(ev *policy.Event) cty.Value { return cty.BoolVal(ev.HasSender && ev.Sender.IsNull()) },
	"recipient":        func(ev *policy.Event) cty.Value { return cty.StringVal(ev.Recipient.String()) },
	"recipient_domain": func(ev *policy.Event) cty.Value { return cty.StringVal(mail.DomainKey(ev.Recipient.Domain())) },
	"recipient_class":  func(ev *policy.Event) cty.Value { return cty.StringVal(class(ev, ev.Recipient)) },
	"sender_class":     func(ev *policy.Event) cty.Value { return cty.StringVal(class(ev, ev.Sender)) },
	"recipients":       func(ev *policy.Event) cty.Value { return cty.NumberIntVal(int64(len(ev.Rcpts))) },
	"score":            func(ev *policy.Event) cty.Value { return cty.NumberFloatVal(ev.Score) },
	"tags": func(ev *policy.Event) cty.Value {
		tags := make([]cty.Value, len(ev.Tags))
		for i, t := range ev.Tags {
			tags[i] = cty.StringVal(t)
		}
		if len(tags) == 0 {
			return cty.ListValEmpty(cty.String)
		}
		return cty.ListVal(tags)
	},
	"size": func(ev *policy.Event) cty.Value { return cty.NumberIntVal(ev.Size) },
}

// class is what kind of address p is: "local", "unknown", "relay", and "" for none.
func class(ev *policy.Event, p mail.Path) string {
	if ev.Directory == nil || p.IsNull() {
		return ""
	}
	return ev.Directory.Class(p)
}

// when turns an expression into a question about an event. Names that are no
// fact, and results that are not true or false, are faults now, not at night.
func (r *reader) when(expr hclsyntax.Expression) func(*policy.Event) (bool, error) {
	names := make([]string, 0, len(facts))
	for name := range facts {
		names = append(names, name)
	}
	slices.Sort(names)
	used := map[string]func(*policy.Event) cty.Value{}
	good := true
	for _, t := range expr.Variables() {
		name := t.RootName()
		if facts[name] == nil {
			r.fault(t.SourceRange(), "no fact is called "+name, "An expression may use "+strings.Join(names, ", ")+"."+meant(name, names))
			good = false
			continue
		}
		used[name] = facts[name]
	}
	if !good {
		return nil
	}
	known, good := r.constants(expr)
	if !good {
		return nil
	}
	fixed := functions(func(name, arg string) (string, error) {
		if v, ok := known[name+"\x00"+arg]; ok {
			return v, nil
		}
		return "", fmt.Errorf("%s(%q) was not read when the configuration was", name, arg)
	})
	eval := func(ev *policy.Event) (bool, hcl.Diagnostics) {
		vars := make(map[string]cty.Value, len(used))
		for name, fact := range used {
			vars[name] = fact(ev)
		}
		v, diags := expr.Value(&hcl.EvalContext{Variables: vars, Functions: fixed})
		if diags.HasErrors() {
			return false, diags
		}
		if v.Type() != cty.Bool || v.IsNull() || !v.IsKnown() {
			at := expr.Range()
			return false, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "when is not true or false",
				Detail: `Write a comparison, such as when = !tls or when = helo == "example.org".`, Subject: &at}}
		}
		return v.True(), nil
	}
	if _, diags := eval(&policy.Event{Stage: policy.Connect}); diags.HasErrors() {
		r.diags = append(r.diags, diags...)
		return nil
	}
	return func(ev *policy.Event) (bool, error) {
		ok, diags := eval(ev)
		if diags.HasErrors() {
			return false, errors.New(diags[0].Summary)
		}
		return ok, nil
	}
}

// constants reads what env and file say in expr, now and for good: a when
// expression touches no file at night, and a peer cannot choose one.
func (r *reader) constants(expr hclsyntax.Expression) (known map[string]string, good bool) {
	good = true
	r.seen = map[string]string{}
	diags := hclsyntax.VisitAll(expr, func(n hclsyntax.Node) hcl.Diagnostics {
		call, ok := n.(*hclsyntax.FunctionCallExpr)
		if !ok || call.Name != "env" && call.Name != "file" {
			return nil
		}
		if len(call.Variables()) > 0 {
			r.fault(call.Range(), call.Name+" depends on a fact", "Write a fixed text in the brackets: what "+call.Name+" says is read with the configuration, not for each message.")
			good = false
			return nil
		}
		_, diags := call.Value(r.eval)
		return diags
	})
	r.diags = append(r.diags, diags...)
	return r.seen, good && !diags.HasErrors()
}
