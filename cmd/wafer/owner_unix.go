//go:build unix

package main

import (
	"os"
	"syscall"
)

// owner is whom a file belongs to, -1 where that is us already.
func owner(fi os.FileInfo) (uid, gid int) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || os.Getuid() != 0 {
		return -1, -1
	}
	return int(st.Uid), int(st.Gid)
}
