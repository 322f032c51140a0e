// Package plugins carries the standard plugins in the server's binary. Each
// folder beside this file is the source of one; "make plugins" builds them into
// build/, and what is there when the server is compiled goes into it.
//
// # BUGS
//
// A server that was compiled before the plugins were built has none of them,
// and says so when a policy names one.
package plugins

import (
	"embed"
	"io/fs"
)

//go:embed all:build
var build embed.FS

// FS returns the built plugins: "helo.wasm", "ratelimit.wasm", … and a README.
func FS() fs.FS {
	sub, err := fs.Sub(build, "build")
	if err != nil { // only for a name that is no path
		return build
	}
	return sub
}
