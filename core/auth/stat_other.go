//go:build unix && !linux

package auth

import (
	"syscall"
	"time"
)

// changeTime is the zero time where its field has another name: a file is then
// told from its predecessor by inode, size and modification time alone.
func changeTime(*syscall.Stat_t) time.Time { return time.Time{} }
