package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A dot lock is a file NAME.lock that exists while somebody changes NAME. It
// holds "PID:HOST" from its first moment. As Dovecot does, it is taken from a
// process of this host that is dead, and from anybody when it is older than
// staleLock; an empty one, which says nothing of its owner, after emptyLock.
const (
	staleLock = 120 * time.Second
	emptyLock = 2 * time.Second
	lockPoll  = 10 * time.Millisecond
)

// started is when this process began. A lock that has its number and is older is
// of an earlier process: in a container, each server may be number 1.
var started = time.Now()

// lock takes the dot lock of the file name, and waits for it as long as ctx
// and staleLock allow. unlock gives it back.
func (p *Pool) lock(ctx context.Context, name string) (unlock func(), err error) {
	lock := name + ".lock"
	content := strconv.Itoa(os.Getpid()) + ":" + p.host
	deadline := time.Now().Add(staleLock + 2*time.Second)
	for {
		err := p.writeLock(lock, []byte(content))
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

// writeLock makes the lock with its content in one step, so that a process
// that is killed cannot leave an empty one, whose owner nobody would know.
func (p *Pool) writeLock(lock string, content []byte) error {
	name := p.names.base(time.Now())
	temp := filepath.Join(filepath.Dir(lock), "tmp", name)
	err := p.write(temp, content)
	if errors.Is(err, os.ErrNotExist) { // a folder of another program's, without tmp
		temp = lock + "." + name
		err = p.write(temp, content)
	}
	if err != nil {
		return err
	}
	err = p.ops.link(temp, lock)
	return errors.Join(err, p.ops.remove(temp))
}

// breakStale removes a lock whose owner is gone.
func (p *Pool) breakStale(lock string) bool {
	fi, err := os.Lstat(lock)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	age := time.Since(fi.ModTime())
	stale := age > staleLock || fi.Size() == 0 && age > emptyLock
	if !stale && fi.Size() > 0 && fi.Size() < 512 {
		data, err := os.ReadFile(lock)
		if err != nil {
			return errors.Is(err, os.ErrNotExist)
		}
		pid, host, ok := strings.Cut(string(data), ":")
		n, err := strconv.Atoi(pid)
		stale = ok && err == nil && n > 0 && p.host != "" && host == p.host && dead(n, fi)
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

// dead reports whether the process of this host that made a lock has ended.
func dead(pid int, lock os.FileInfo) bool {
	if pid == os.Getpid() {
		return lock.ModTime().Before(started)
	}
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
