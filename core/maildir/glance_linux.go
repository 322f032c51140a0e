package maildir

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// glances looks at many files of one folder, from the folder's directory on: that takes
// half the time of looking at them by their whole paths.
type glances struct{ dir *os.File }

func openGlances(dir string) (glances, error) {
	f, err := os.Open(dir)
	return glances{f}, err
}

func (g glances) close() { g.dir.Close() } // only read

// at is the size and mtime of a regular file, or of one that a symbolic link leads to,
// by its path in the folder; regular is false for what is none.
func (g glances) at(path string) (size int64, mtime time.Time, regular bool, err error) {
	var st unix.Stat_t
	for {
		err = unix.Fstatat(int(g.dir.Fd()), path, &st, 0)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, mtime, false, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Size, time.Unix(st.Mtim.Unix()), st.Mode&unix.S_IFMT == unix.S_IFREG, nil
}
