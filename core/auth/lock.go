package auth

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockFile waits for and takes the lock that writers of the users file share,
// and returns the file's own path, behind any symbolic link. The lock is on the
// file itself, so it leaves nothing behind; since writers replace the file, the
// lock counts only if the file is still the one at path once it is held.
func lockFile(path string) (real string, unlock func(), err error) {
	real, err = filepath.EvalSymlinks(path)
	if err != nil {
		return "", nil, err
	}
	for {
		h, err := os.Open(real)
		if err != nil {
			return "", nil, err
		}
		for {
			err = unix.Flock(int(h.Fd()), unix.LOCK_EX)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		unlock := func() { _ = h.Close() } // which gives the lock up
		if err != nil {
			unlock()
			return "", nil, fmt.Errorf("lock %s: %w", real, err)
		}
		held, err1 := h.Stat()
		now, err2 := os.Stat(real)
		if err := errors.Join(err1, err2); err != nil {
			unlock()
			return "", nil, err
		}
		if os.SameFile(held, now) {
			return real, unlock, nil
		}
		unlock()
	}
}

// keepOwner gives temp the owner and group of the file it will replace.
func keepOwner(temp *os.File, old os.FileInfo) error {
	info, err := temp.Stat()
	if err != nil {
		return err
	}
	want, ok1 := old.Sys().(*syscall.Stat_t)
	have, ok2 := info.Sys().(*syscall.Stat_t)
	if !ok1 || !ok2 || want.Uid == have.Uid && want.Gid == have.Gid {
		return nil
	}
	return temp.Chown(int(want.Uid), int(want.Gid))
}

func folderOf(path string) string { return filepath.Dir(path) }

// syncFolder makes the names in path's folder durable.
func syncFolder(path string) error {
	h, err := os.Open(folderOf(path))
	if err != nil {
		return err
	}
	return errors.Join(h.Sync(), h.Close())
}
