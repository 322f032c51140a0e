// Package durable makes what was written survive a power cut. A Barrier syncs for
// everybody who waits at once; BootID tells a kill from a power cut.
//
// # BUGS
//
// Where syncfs is not to be had, each file costs an fsync of its own. A disk that
// lies about having written is believed.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// Barrier makes written files and names durable, once for all who wait. On
// Linux 5.8 and later one syncfs(2) covers every file that any session has
// written on that file system, so a hundred deliveries that end together cost
// one journal commit. Elsewhere each path is synced by itself.
//
// The first caller to arrive performs the sync when the one under way has
// ended; those who arrive meanwhile join it. A caller therefore waits for at
// most two syncs, and nobody's sync begins before its writes.
type Barrier struct {
	// Before, if set, is called before each sync, and its error is that sync's: a
	// fault that a test wants to see handled.
	Before func() error

	syncfs bool
	fsync  func(path string) error           // one file or directory
	wide   func(dir *os.File) error          // a whole file system
	device func(path string) (uint64, error) // which file system

	mu     sync.Mutex
	groups map[uint64]*group // by device; as many as there are file systems
}

// SyncMode chooses how a Barrier works.
type SyncMode string

// The modes. SyncAuto is SyncFS where the kernel reports its write errors
// (Linux 5.8), else SyncFile.
const (
	SyncAuto SyncMode = "auto"
	SyncFS   SyncMode = "syncfs"
	SyncFile SyncMode = "fsync"
)

// NewBarrier returns a Barrier. SyncFS is an error where the system has no
// syncfs that reports errors.
func NewBarrier(mode SyncMode) (*Barrier, error) {
	b := &Barrier{fsync: SyncPath, wide: syncWide, device: DeviceOf, groups: map[uint64]*group{}}
	switch mode {
	case SyncAuto, "":
		b.syncfs = syncfsReports()
	case SyncFS:
		if !syncfsReports() {
			return nil, errors.New(`sync mode "syncfs" needs Linux 5.8 or later; write "fsync" or "auto"`)
		}
		b.syncfs = true
	case SyncFile:
	default:
		return nil, fmt.Errorf(`unknown sync mode %q; write "auto", "syncfs" or "fsync"`, mode)
	}
	return b, nil
}

// Sync returns when everything that was written to the named files and
// directories before the call is durable: the data of files, the names in
// directories. On error nothing may be assumed.
func (b *Barrier) Sync(paths ...string) error {
	if !b.syncfs {
		for _, p := range paths {
			if err := b.before(); err != nil {
				return err
			}
			if err := b.fsync(p); err != nil {
				return err
			}
		}
		return nil
	}
	var first *group
	var others []*group
	for _, p := range paths {
		if slices.Contains(paths, filepath.Dir(p)) { // it is on its directory's file system
			continue
		}
		g, err := b.group(p)
		switch {
		case err != nil:
			return err
		case first == nil:
			first = g
		case g != first:
			others = append(others, g)
		}
	}
	if first == nil {
		return nil
	}
	if len(others) == 0 { // the usual case: one file system
		return first.wait()
	}
	errs := make(chan error, len(others))
	for _, g := range others {
		go func() { errs <- g.wait() }()
	}
	err := first.wait()
	for range others {
		err = errors.Join(err, <-errs)
	}
	return err
}

func (b *Barrier) before() error {
	if b.Before == nil {
		return nil
	}
	return b.Before()
}

// group finds the file system that holds path.
func (b *Barrier) group(path string) (*group, error) {
	dev, err := b.device(path)
	if err != nil {
		return nil, fmt.Errorf("find the file system of %s: %w", path, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if g := b.groups[dev]; g != nil {
		return g, nil
	}
	dir, err := os.Open(existingDir(path))
	if err != nil {
		return nil, err
	}
	g := &group{close: dir.Close, sync: func() error {
		if err := b.before(); err != nil {
			return err
		}
		return b.wide(dir)
	}}
	b.groups[dev] = g
	return g, nil
}

// existingDir is path if it is a directory, else its parent.
func existingDir(path string) string {
	if fi, err := os.Stat(path); err == nil && fi.IsDir() {
		return path
	}
	return filepath.Dir(path)
}

// Device says which file system holds path.
func (b *Barrier) Device(path string) (uint64, error) { return b.device(path) }

// Close releases the open directories. No Sync may be under way.
func (b *Barrier) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for dev, g := range b.groups {
		errs = append(errs, g.close())
		delete(b.groups, dev)
	}
	return errors.Join(errs...)
}

// group is the barrier of one file system.
type group struct {
	sync  func() error
	close func() error
	turn  sync.Mutex // held during sync

	mu   sync.Mutex
	next *round // the round that will begin when turn is free; nil if nobody waits
}

type round struct {
	done chan struct{}
	err  error
}

func (g *group) wait() error {
	g.mu.Lock()
	r := g.next
	if r != nil {
		g.mu.Unlock()
		<-r.done
		return r.err
	}
	r = &round{done: make(chan struct{})}
	g.next = r
	g.mu.Unlock()

	g.turn.Lock()
	g.mu.Lock()
	g.next = nil // who arrives from here on may have written after our sync began
	g.mu.Unlock()
	r.err = g.sync()
	g.turn.Unlock()
	close(r.done)
	return r.err
}

// SyncPath makes one file's data or one directory's names durable.
func SyncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}
