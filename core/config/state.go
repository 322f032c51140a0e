package config

import (
	"path/filepath"

	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// defaultState is where state is if the configuration does not say.
const defaultState = "/var/lib/wafer"

// State finds the state directory in a configuration file that may be broken otherwise,
// so that a server can be asked that serves an earlier one. It is "" if not even that
// can be read.
func State(file string) string {
	file, err := filepath.Abs(file)
	if err != nil {
		return ""
	}
	src, err := readFile(file)
	if err != nil {
		return ""
	}
	if _, deep := tooDeep(src, file); deep {
		return ""
	}
	f, _ := hclparse.NewParser().ParseHCL(src, file) // as much as can be parsed
	if f == nil {
		return ""
	}
	body, ok := f.Body.(*hclsyntax.Body)
	if !ok || body == nil {
		return ""
	}
	a := body.Attributes["state"]
	if a == nil {
		return defaultState
	}
	v, diags := a.Expr.Value(nil)
	if diags.HasErrors() || v.IsNull() || !v.IsKnown() || v.Type() != cty.String || v.AsString() == "" {
		return ""
	}
	if path := v.AsString(); filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(file), v.AsString())
}
