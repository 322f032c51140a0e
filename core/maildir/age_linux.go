package maildir

import (
	"os"
	"syscall"
	"time"
)

// olderThan reports whether neither the contents nor the status of a file has
// changed since t. The time of the contents alone may be a message's date.
func olderThan(fi os.FileInfo, t time.Time) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && fi.ModTime().Before(t) && time.Unix(st.Ctim.Unix()).Before(t)
}
