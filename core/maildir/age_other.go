//go:build !linux

package maildir

import (
	"os"
	"time"
)

// olderThan reports whether the contents of a file have not changed since t.
func olderThan(fi os.FileInfo, t time.Time) bool { return fi.ModTime().Before(t) }
