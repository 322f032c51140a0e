package maildir

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/wafermail/wafer/core/durable"
)

// Target is one mailbox that a message goes to.
type Target struct {
	Maildir string // path of the INBOX
	Folder  string // "" for the INBOX, else a top-level folder such as "Junk"
	Header  []byte // goes above everything else: Return-Path, Delivered-To; CRLF line ends
	Binary  bool   // the message came as BINARYMIME: its LFs without CR stay as they are
}

// mark is what the file's name says besides sizes.
func (t Target) mark() string {
	if t.Binary {
		return binaryMark
	}
	return ""
}

// dir is the directory that holds cur, new and tmp.
func (t Target) dir() string {
	if t.Folder == "" {
		return t.Maildir
	}
	return filepath.Join(t.Maildir, "."+t.Folder)
}

// DelivererOptions says how a Deliverer works.
type DelivererOptions struct {
	State    string                       // directory of the commit log; made if missing
	Hostname string                       // goes into file names
	Barrier  *durable.Barrier             // shared with everything else that writes mail
	UID, GID int                          // owner of files and directories made; -1 leaves them alone
	Notify   func(maildir, folder string) // called for each mailbox that has a new message; may be nil
	Quota    func(maildir string) *Quota  // of the Maildir with that path, nil: none; may be nil
	Enforce  bool                         // Deliver refuses what has no room
	Logger   *slog.Logger
	Now      func() time.Time // nil: time.Now
}

// Deliverer writes messages into Maildirs so that what it has acknowledged
// survives a kill and a power cut, and nothing partial is ever visible. See
// commit.go for how.
type Deliverer struct {
	o     DelivererOptions
	disk  disk
	names *names
	log   *commitLog

	mu      sync.Mutex
	kept    []kept
	closed  bool
	stop    chan struct{}
	retries sync.WaitGroup

	retrying sync.Mutex // one Retry at a time
}

// kept is an acknowledged message that some mailboxes could not take yet.
type kept struct {
	file    string
	targets []string
	seg     int // segment whose line keeps it, -1 after a restart
}

const keptRetry = time.Minute

// NewDeliverer opens the commit log in o.State and finishes what an earlier
// process had begun: after a power cut it delivers what may have been
// acknowledged, after a kill it removes what was not.
func NewDeliverer(ctx context.Context, o DelivererOptions) (*Deliverer, error) {
	return newDeliverer(ctx, o, osDisk())
}

func newDeliverer(ctx context.Context, o DelivererOptions, dk disk) (*Deliverer, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Deliverer{o: o, disk: dk, names: newNames(o.Hostname), stop: make(chan struct{})}
	if err := os.MkdirAll(o.State, 0o700); err != nil {
		return nil, err
	}
	segments, err := d.recover(ctx)
	if err != nil {
		return nil, err
	}
	last := 0
	if len(segments) > 0 {
		last = segments[len(segments)-1]
	}
	if d.log, err = openCommitLog(o.State, last); err != nil {
		return nil, err
	}
	if err := o.Barrier.Sync(o.State); err != nil {
		return nil, err
	}
	if err := d.adopt(); err != nil {
		return nil, err
	}
	for _, n := range segments {
		if err := os.Remove(segment(o.State, n)); err != nil {
			return nil, err
		}
	}
	d.retries.Add(1)
	go d.retryLoop()
	return d, nil
}

// recover settles the commits of earlier processes and returns the segments
// that may go once the new log is durable. What is still owed is in d.kept.
func (d *Deliverer) recover(ctx context.Context) (segments []int, err error) {
	cs, same, segments, err := readCommits(d.o.State)
	if err != nil {
		return nil, err
	}
	dirs := dirSet{}
	owed := map[string]bool{} // files with a "keep" line: acknowledged for certain
	for _, c := range cs {
		owed[c.file] = owed[c.file] || c.keep
	}
	redone, dropped := 0, 0
	for i, c := range cs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		dirs.add(c.targets)
		if c.keep != owed[c.file] { // the "keep" line replaces the earlier one
			continue
		}
		switch _, err := os.Lstat(c.file); {
		case errors.Is(err, os.ErrNotExist):
			continue // delivered
		case err != nil:
			return nil, fmt.Errorf("recover %s: %w", c.file, err)
		}
		if !c.keep && (same[i] || !fileIs(c.file, c.size, c.sum)) {
			if err := d.disk.remove(c.file); err != nil {
				return nil, fmt.Errorf("recover %s: %w", c.file, err)
			}
			dropped++
			continue
		}
		if pending := d.publish(c.file, c.targets); len(pending) > 0 {
			d.kept = append(d.kept, kept{file: c.file, targets: pending, seg: -1})
		}
		redone++
	}
	if redone+dropped > 0 {
		d.o.Logger.Warn("finished deliveries of an earlier run", "delivered", redone, "never_acknowledged", dropped, "owed", len(d.kept))
	}
	return segments, d.o.Barrier.Sync(dirs.existing()...)
}

// adopt writes lines for what is owed into the new log, so that the old one can go.
func (d *Deliverer) adopt() error {
	for i := range d.kept {
		k := &d.kept[i]
		fi, err := os.Stat(k.file)
		if err != nil {
			return err
		}
		seg, path, err := d.log.add(commit{keep: true, size: fi.Size(), file: k.file, targets: k.targets})
		if err != nil {
			return err
		}
		if err := d.o.Barrier.Sync(path); err != nil {
			return err
		}
		k.seg = seg
	}
	return nil
}

// Begin opens a draft for a message to targets, whose Maildirs are there (see
// Ensure). The caller must Close the draft.
func (d *Deliverer) Begin(targets []Target) (*Draft, error) {
	if len(targets) == 0 {
		return nil, errors.New("begin a message without recipients")
	}
	return d.newDraft(targets[0].dir()), nil
}

// Deliver makes the draft's message durable in every target: above it stand
// the target's header and then trace. When it returns nil the message is in
// each mailbox, or, where one fails for now, kept until it can be. When it
// returns an error nothing is visible anywhere; with DelivererOptions.Enforce
// that is ErrOverQuota if one of the targets is full. It may be called once.
func (dr *Draft) Deliver(ctx context.Context, targets []Target, trace []byte) error {
	d := dr.d
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.o.Enforce {
		for _, t := range targets {
			if err := d.Room(t, int64(len(t.Header)+len(trace))+dr.Size()); err != nil {
				return err
			}
		}
	}
	copies, err := d.write(dr, targets, trace)
	if err != nil {
		d.discard(copies)
		return err
	}
	cs := make([]commit, len(copies))
	paths := make([]string, 0, 2*len(copies)+1)
	for i, c := range copies {
		cs[i] = c.commit
		paths = append(paths, c.file, filepath.Dir(c.file))
	}
	seg, logPath, err := d.log.add(cs...)
	if err != nil {
		d.discard(copies)
		return err
	}
	err = d.o.Barrier.Sync(append(paths, logPath)...)
	if err != nil {
		d.discard(copies)
		d.done(seg)
		return err
	}
	return d.visible(copies, seg)
}

// visible publishes copies that are durable.
func (d *Deliverer) visible(copies []fileCopy, seg int) error {
	var owed []commit
	stored := 0
	for _, c := range copies {
		pending := d.publish(c.file, c.targets)
		stored += len(c.targets) - len(pending)
		if len(pending) > 0 {
			c.commit.keep, c.commit.targets = true, pending
			owed = append(owed, c.commit)
		}
	}
	defer d.done(seg)
	if len(owed) == 0 {
		return nil
	}
	if stored == 0 {
		d.discard(copies)
		return errors.New("no mailbox could take the message")
	}
	for _, c := range owed {
		keep, path, err := d.log.add(c)
		if err == nil {
			err = d.o.Barrier.Sync(path)
		}
		if err != nil { // the file and its first line are durable; only a kill before the retry could lose it
			d.o.Logger.Error("could not note an owed delivery", "file", c.file, "err", err)
			keep = -1
		}
		d.mu.Lock()
		d.kept = append(d.kept, kept{file: c.file, targets: c.targets, seg: keep})
		d.mu.Unlock()
		d.o.Logger.Warn("delivery kept for retry", "file", c.file, "targets", c.targets)
	}
	return nil
}

// done ends a commit of segment seg. Where that completes a full segment, it
// makes the segment's renames durable and removes it.
func (d *Deliverer) done(seg int) {
	full, dirs := d.log.done(seg)
	if len(full) == 0 {
		return
	}
	if err := d.o.Barrier.Sync(dirs...); err != nil {
		d.o.Logger.Error("commit log segments stay", "segments", full, "err", err)
		return
	}
	for _, n := range full {
		if err := os.Remove(segment(d.o.State, n)); err != nil {
			d.o.Logger.Error("commit log segment stays", "segment", n, "err", err)
		}
	}
}

// publish gives the finished file its names in new/ and returns those that
// failed. The last rename takes the file away, so it comes after every link.
func (d *Deliverer) publish(file string, targets []string) (pending []string) {
	for i, t := range targets {
		var err error
		if i == len(targets)-1 && len(pending) == 0 {
			err = d.disk.rename(file, t)
		} else if err = d.disk.link(file, t); noHardLinks(err) {
			err = d.copyTo(file, t)
		}
		again := errors.Is(err, os.ErrExist) // an earlier try got this far
		if again {
			err = nil
		}
		if err != nil {
			d.o.Logger.Error("could not deliver", "target", t, "err", err)
			pending = append(pending, t)
			continue
		}
		root, folder := mailboxOf(t)
		if !again {
			d.account(root, folder, t)
		}
		if d.o.Notify != nil {
			d.o.Notify(root, folder)
		}
	}
	return pending
}

// noHardLinks reports whether err means that this pair of places cannot be linked.
func noHardLinks(err error) bool {
	return errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.EPERM) ||
		errors.Is(err, syscall.EMLINK) || errors.Is(err, errors.ErrUnsupported)
}

// mailboxOf is the Maildir and the folder of the final name t.
func mailboxOf(t string) (root, folder string) {
	dir := filepath.Dir(filepath.Dir(t))
	if base := filepath.Base(dir); base[0] == '.' {
		if _, err := os.Stat(filepath.Join(dir, "maildirfolder")); err == nil {
			return filepath.Dir(dir), base[1:]
		}
	}
	return dir, ""
}

// discard removes files that will not be delivered.
func (d *Deliverer) discard(copies []fileCopy) {
	for _, c := range copies {
		if err := d.disk.remove(c.file); err != nil && !errors.Is(err, os.ErrNotExist) {
			d.o.Logger.Warn("could not remove a draft", "file", c.file, "err", err)
		}
	}
}

// retryLoop delivers what is owed, every minute until Close.
func (d *Deliverer) retryLoop() {
	defer d.retries.Done()
	tick := time.NewTicker(keptRetry)
	defer tick.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-tick.C:
			d.Retry()
		}
	}
}

// Retry tries at once to deliver every message that is owed to a mailbox, and
// returns how many still are.
func (d *Deliverer) Retry() int {
	d.retrying.Lock()
	defer d.retrying.Unlock()
	d.mu.Lock()
	work := slices.Clone(d.kept)
	d.mu.Unlock()
	for _, k := range work {
		pending := d.publish(k.file, k.targets)
		d.mu.Lock()
		i := slices.IndexFunc(d.kept, func(o kept) bool { return o.file == k.file })
		if d.kept[i].targets = pending; len(pending) == 0 {
			d.kept = slices.Delete(d.kept, i, i+1)
		}
		d.mu.Unlock()
		if len(pending) > 0 {
			continue
		}
		d.o.Logger.Info("owed message delivered", "file", k.file)
		if k.seg >= 0 {
			d.done(k.seg)
		}
	}
	return d.Owed()
}

// Owes reports whether file, an absolute path in some tmp/, is a message that is
// owed to a mailbox.
func (d *Deliverer) Owes(file string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.kept, func(k kept) bool {
		abs, err := filepath.Abs(k.file)
		return err != nil || abs == file
	})
}

// Owed is the number of acknowledged messages that wait for a mailbox.
func (d *Deliverer) Owed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.kept)
}

// Close ends retries and makes every rename durable. No draft may be open.
func (d *Deliverer) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	d.mu.Unlock()
	close(d.stop)
	d.retries.Wait()
	return errors.Join(d.o.Barrier.Sync(d.o.State), d.log.close())
}
