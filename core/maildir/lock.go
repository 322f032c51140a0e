package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A dot lock is a file NAME.lock that exists while somebody changes NAME. It
// holds "PID:HOST". As Dovecot does, it is taken from a process of this host
// that is dead, and from anybody when it is older than staleLock.
const (
	staleLock = 120 * time.Second
	lockPoll  = 10 * time.Millisecond
)

// lock takes the dot lock of the file name, and waits for it as long as ctx
// and staleLock allow. unlock gives it back.
func (p *Pool) lock(ctx context.Context, name string) (unlock func(), err error) {
	lock := name + ".lock"
	content := strconv.Itoa(os.Getpid()) + ":" + p.host
	deadline := time.Now().Add(staleLock + 2*time.Second)
	for {
		err := p.write(lock, []byte(content))
		if err == nil {
			return func() {
				if err := p.ops.remove(lock); err != nil {
					p.log.Warn("could not remove a lock", "file", lock, "err", err)
				}
			}, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		if p.breakStale(lock) {
			continue
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("lock %s: another program holds it", name)
		}
		wait := time.NewTimer(lockPoll)
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil, fmt.Errorf("lock %s: %w", name, ctx.Err())
		case <-wait.C:
		}
	}
}

// breakStale removes a lock whose owner is gone.
func (p *Pool) breakStale(lock string) bool {
	fi, err := os.Lstat(lock)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	stale := time.Since(fi.ModTime()) > staleLock
	if !stale && fi.Size() > 0 && fi.Size() < 512 {
		data, err := os.ReadFile(lock)
		if err != nil {
			return errors.Is(err, os.ErrNotExist)
		}
		pid, host, ok := strings.Cut(string(data), ":")
		n, err := strconv.Atoi(pid)
		stale = ok && err == nil && n > 0 && n != os.Getpid() && p.host != "" && host == p.host &&
			errors.Is(syscall.Kill(n, 0), syscall.ESRCH)
	}
	if !stale {
		return false
	}
	// Two may find the same lock stale. The one whose rename wins removes it;
	// a lock made meanwhile has another inode and is put back.
	aside := fmt.Sprintf("%s.stale.%d", lock, os.Getpid())
	if err := p.ops.rename(lock, aside); err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	now, err := os.Lstat(aside)
	if err == nil && !os.SameFile(fi, now) {
		if p.ops.link(aside, lock) == nil {
			p.log.Warn("put a lock back", "file", lock)
		}
	}
	if err := p.ops.remove(aside); err != nil {
		p.log.Warn("could not remove a stale lock", "file", aside, "err", err)
	}
	p.log.Warn("removed a stale lock", "file", lock)
	return true
}
