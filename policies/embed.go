// Package policies holds the policies that wafer is delivered with, as the
// files that stand beside this one.
package policies

import "embed"

// Files are the policies, *.hcl.
//
//go:embed *.hcl
var Files embed.FS
