package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

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
	"recipients":       func(ev *policy.Event) cty.Value { return cty.NumberIntVal(int64(len(ev.Rcpts))) },
	"size":             func(ev *policy.Event) cty.Value { return cty.NumberIntVal(ev.Size) },
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
	functions := r.eval.Functions
	eval := func(ev *policy.Event) (bool, hcl.Diagnostics) {
		vars := make(map[string]cty.Value, len(used))
		for name, fact := range used {
			vars[name] = fact(ev)
		}
		v, diags := expr.Value(&hcl.EvalContext{Variables: vars, Functions: functions})
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

// evalContext holds the functions of every file.
func evalContext(r *reader) *hcl.EvalContext {
	text := func(name string) []function.Parameter { return []function.Parameter{{Name: name, Type: cty.String}} }
	return &hcl.EvalContext{Functions: map[string]function.Function{
		"env": function.New(&function.Spec{
			Params: text("name"), Type: function.StaticReturnType(cty.String),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				v, ok := os.LookupEnv(args[0].AsString())
				if !ok {
					return cty.NilVal, fmt.Errorf("the environment has no %s", args[0].AsString())
				}
				return cty.StringVal(v), nil
			},
		}),
		"file": function.New(&function.Spec{
			Params: text("path"), Type: function.StaticReturnType(cty.String),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				name := args[0].AsString()
				if !filepath.IsAbs(name) {
					name = filepath.Join(r.dir, name)
				}
				b, err := readFile(name)
				if err != nil {
					return cty.NilVal, err
				}
				return cty.StringVal(strings.TrimRight(string(b), "\r\n")), nil
			},
		}),
		"duration": function.New(&function.Spec{
			Params: text("text"), Type: function.StaticReturnType(cty.Number),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				d, err := parseDuration(args[0].AsString())
				if err != nil {
					return cty.NilVal, fmt.Errorf(`%q is not a duration such as "90s"`, args[0].AsString())
				}
				return cty.NumberFloatVal(d.Seconds()), nil
			},
		}),
		"lower":    stdlib.LowerFunc,
		"contains": stdlib.ContainsFunc,
		"length":   stdlib.LengthFunc,
		"endswith": function.New(&function.Spec{
			Params: []function.Parameter{{Name: "text", Type: cty.String}, {Name: "suffix", Type: cty.String}},
			Type:   function.StaticReturnType(cty.Bool),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				return cty.BoolVal(strings.HasSuffix(args[0].AsString(), args[1].AsString())), nil
			},
		}),
	}}
}

// readable reports why a file cannot be read.
func readable(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close() // only looked at
	if fi, err := f.Stat(); err != nil || fi.IsDir() {
		return fmt.Errorf("%s is not a file", name)
	}
	return nil
}

func emptyBody() *hclsyntax.Body { return &hclsyntax.Body{} }

// format is HCL's canonical layout.
func format(src []byte) []byte { return hclwrite.Format(src) }
