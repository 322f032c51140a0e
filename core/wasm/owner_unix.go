//go:build unix

package wasm

import (
	"io/fs"
	"os"
	"syscall"
)

// isOurs reports whether a file belongs to who we are: root must not run what
// a user has compiled.
func isOurs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
