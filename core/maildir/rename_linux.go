package maildir

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// renameNew renames old to new unless new exists, in one step where the file
// system can do it.
func renameNew(old, new string) error {
	err := unix.Renameat2(unix.AT_FDCWD, old, unix.AT_FDCWD, new, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return renameCareful(old, new)
	}
	return &os.LinkError{Op: "rename", Old: old, New: new, Err: err}
}
