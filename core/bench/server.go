package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// server is a running mail server that can be measured.
type server struct {
	name  string
	smtp  string // address of the MX door
	mail  string // directory of the Maildirs u0, u1 …
	owner int    // account that the Maildirs belong to, 0: ours
	log   string // file
	meter *meter
	idle  func() bool  // nothing is queued
	sound func() error // it did what it was to do, and is well
	stop  func() error
}

// box is the Maildir of user n.
func (s *server) box(n int) string { return filepath.Join(s.mail, "u"+strconv.Itoa(n)) }

// delivered is the number of messages in the Maildirs.
func (s *server) delivered() (int, error) {
	total := 0
	for n := range boxes {
		names, err := readNames(filepath.Join(s.box(n), "new"))
		if err != nil {
			return 0, err
		}
		total += len(names)
	}
	return total, nil
}

// newest is when the last message arrived.
func (s *server) newest() (time.Time, error) {
	var last time.Time
	for n := range boxes {
		entries, err := os.ReadDir(filepath.Join(s.box(n), "new"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return last, err
		}
		for _, e := range entries {
			fi, err := e.Info()
			if err != nil {
				return last, err
			}
			if t := changed(fi); t.After(last) {
				last = t
			}
		}
	}
	return last, nil
}

// settle waits until want messages lie in the Maildirs, and says since when.
func (s *server) settle(ctx context.Context, want int) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		have, err := s.delivered()
		if err != nil {
			return time.Time{}, err
		}
		if have >= want {
			return s.newest()
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%d of %d messages have arrived: %w%s", have, want, ctx.Err(), tail(s.log))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// clear puts all mail aside, once nothing is queued, and syncs the file system
// so that the next run begins with a clean one. It deletes nothing: ext4 is slow
// to give out inodes that were freed a minute ago, and that would be charged to
// the next run. What was in the files goes.
func (s *server) clear(ctx context.Context) error {
	for n := 0; n < 600 && !s.idle(); n++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	aside, err := os.MkdirTemp(filepath.Dir(s.mail), "aside-")
	if err != nil {
		return err
	}
	for n := range boxes {
		inbox, old := filepath.Join(s.box(n), "new"), filepath.Join(aside, strconv.Itoa(n))
		if err := os.Rename(inbox, old); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := os.Mkdir(inbox, 0o700); err != nil {
			return err
		}
		if s.owner > 0 {
			if err := os.Chown(inbox, s.owner, s.owner); err != nil {
				return err
			}
		}
		if err := forget(old); err != nil {
			return err
		}
	}
	d, err := os.Open(s.mail)
	if err != nil {
		return err
	}
	return errors.Join(syncAll(d), d.Close())
}

// forget empties the files in dir, and keeps them.
func forget(dir string) error {
	names, err := readNames(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Truncate(filepath.Join(dir, name), 0); err != nil {
			return err
		}
	}
	return nil
}

// readNames lists a directory that may be missing.
func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close() // only read
	return d.Readdirnames(-1)
}

// answers waits until the address takes connections.
func answers(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// freeAddress is a loopback address that nothing listens on.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// tail is the end of a log, to be put behind an error.
func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil || len(b) == 0 {
		return ""
	}
	b = b[max(0, len(b)-1500):]
	return "\nits log ends:\n" + string(bytes.TrimSpace(b))
}
