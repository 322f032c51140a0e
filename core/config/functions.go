package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// functions are those of every file. What env and file say comes from outside.
func functions(outside func(name, arg string) (string, error)) map[string]function.Function {
	text := func(names ...string) (params []function.Parameter) {
		for _, name := range names {
			params = append(params, function.Parameter{Name: name, Type: cty.String})
		}
		return params
	}
	reading := func(name, param string) function.Function {
		return function.New(&function.Spec{
			Params: text(param), Type: function.StaticReturnType(cty.String),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				s, err := outside(name, args[0].AsString())
				if err != nil {
					return cty.NilVal, err
				}
				return cty.StringVal(s), nil
			},
		})
	}
	return map[string]function.Function{
		"env":  reading("env", "name"),
		"file": reading("file", "path"),
		"duration": function.New(&function.Spec{
			Params: text("text"), Type: function.StaticReturnType(cty.Number),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				d, err := ParseDuration(args[0].AsString())
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
			Params: text("text", "suffix"), Type: function.StaticReturnType(cty.Bool),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				return cty.BoolVal(strings.HasSuffix(args[0].AsString(), args[1].AsString())), nil
			},
		}),
	}
}

// outside reads what env and file name. It belongs to the digest: who changes
// such a file changes the configuration.
func (r *reader) outside(name, arg string) (string, error) {
	var value string
	switch name {
	case "env":
		v, ok := os.LookupEnv(arg)
		if !ok {
			return "", fmt.Errorf("the environment has no %s", arg)
		}
		value = v
	default:
		path := arg
		if !filepath.IsAbs(path) {
			path = filepath.Join(r.dir, path)
		}
		b, err := r.readOther(path)
		if err != nil {
			return "", fmt.Errorf("%s", strings.TrimSuffix(cause(path, err), "."))
		}
		value = strings.TrimRight(string(b), "\r\n")
	}
	key := name + "\x00" + arg
	r.digest = fmt.Appendf(r.digest, "%s\x00%d\x00%s", key, len(value), value)
	r.seen[key] = value
	return value, nil
}
