//go:build unix

package core

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// account is the user and group that the server runs as.
type account struct {
	uid, gid int
	groups   []int // supplementary
}

// lookupAccount resolves names or numbers. An empty group is the user's own.
func lookupAccount(name, group string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return account{}, fmt.Errorf("run_as: no user %q on this system", name)
		}
	}
	a := account{}
	if a.uid, err = strconv.Atoi(u.Uid); err != nil {
		return account{}, err
	}
	gid := u.Gid
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			if g, err = user.LookupGroupId(group); err != nil {
				return account{}, fmt.Errorf("run_as: no group %q on this system", group)
			}
		}
		gid = g.Gid
	}
	if a.gid, err = strconv.Atoi(gid); err != nil {
		return account{}, err
	}
	if ids, err := u.GroupIds(); err == nil {
		for _, id := range ids {
			if n, err := strconv.Atoi(id); err == nil && n != 0 {
				a.groups = append(a.groups, n)
			}
		}
	}
	return a, nil
}

// isRoot reports whether the process has the superuser's rights.
func isRoot() bool { return os.Geteuid() == 0 }

// become gives up the superuser's rights for those of a, in every thread and
// for good: it fails if they could be had back.
func (a account) become() error {
	groups := a.groups
	if len(groups) == 0 {
		groups = []int{a.gid}
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("set groups %v: %w", groups, err)
	}
	if err := syscall.Setgid(a.gid); err != nil {
		return fmt.Errorf("set group %d: %w", a.gid, err)
	}
	if err := syscall.Setuid(a.uid); err != nil {
		return fmt.Errorf("set user %d: %w", a.uid, err)
	}
	if a.uid != 0 && syscall.Setuid(0) == nil {
		return errors.New("the superuser's rights could be had back after giving them up")
	}
	return nil
}
