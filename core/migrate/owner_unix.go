package migrate

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// OwnerOf is who owns a directory: what maildir.Options.UID and GID are to be for a
// tool that root runs on a user's Maildir.
func OwnerOf(dir string) (uid, gid int, err error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return -1, -1, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return -1, -1, fmt.Errorf("owner of %s: the system does not say", dir)
	}
	return int(st.Uid), int(st.Gid), nil
}

// owner is the number of the user who owns a file.
func owner(fi fs.FileInfo) uint32 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Uid
	}
	return 0
}

// sameOwner gives a file the owner of its folder where we may.
func sameOwner(dir, path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := OwnerOf(dir)
	if err != nil {
		return err
	}
	return os.Lchown(path, uid, gid)
}
