// Package maildir keeps mail in Maildir++ trees that other programs can use at
// the same time: Dovecot, mutt, an old delivery agent, rsync.
//
// A Pool belongs to one server. It opens Stores (one mailbox tree of one user)
// and shares every Folder among all sessions of the process:
//
//	p := maildir.NewPool(maildir.Options{Logger: log, Barrier: b, Hostname: host, UID: -1, GID: -1, Watch: true})
//	s, err := p.Open("/var/mail/vhosts/example.org/ann")
//	f, err := s.Folder(ctx, "INBOX")
//	for _, m := range f.Messages() { … }
//
// On disk stands what Dovecot writes and nothing else that matters: cur, new
// and tmp; folders ".A.B" in modified UTF-7 with a maildirfolder file;
// subscriptions; maildirsize, where there is one or a quota was set;
// dovecot-uidlist (version 3; version 1 is read) and dovecot-keywords under
// Dovecot's own lock files; dovecot-uidvalidity. A user can go back to Dovecot
// at any moment, or use both at once, and keeps UIDs, UIDVALIDITY, flags,
// keywords and saved POP3 UIDLs. The one file of our own, wafer.index, holds
// modification sequences and sizes. It may be deleted at any time.
//
// What a method has acknowledged survives a kill and a power cut: contents are
// synced before a name in cur/ shows them, names and UIDs before the method
// returns. A UID is shown to nobody before the line that assigns it is durable.
//
// Messages are presented with CRLF line ends whatever the file has. Flags live
// in file names, so a change of flags is a rename, and whoever holds a name
// that has become stale looks again.
//
// # BUGS
//
// A folder has at most 26 keywords, the letters that file names have room for.
// Dovecot keeps further ones in its binary index, which is not read
// (Folder.FurtherKeywords names those that its text file mentions).
// Of the files that Dovecot's mail_compress has written, those with gzip and
// zstd are read; those with bzip2, xz and lz4 are listed, but opening one is an error.
// COPY of several messages is not one step on disk: a kill in the midst of it
// may leave some of the copies. Flags that another program changes and changes
// back between two looks have not changed. The size of a file that is written
// in place, against the rules of Maildir, is that of the first look until the
// message is opened. A dot lock that could not be removed holds everybody up
// for two minutes.
package maildir

import (
	"container/list"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/durable"
)

// Errors that callers branch on.
var (
	ErrNoFolder = errors.New("no such folder")
	ErrExists   = errors.New("folder exists already")
	ErrBadName  = errors.New("folder name is not allowed")
	ErrExpunged = errors.New("message is expunged")
	ErrLocked   = errors.New("mailbox is locked by another session")
	ErrClosed   = errors.New("mail store is closed")
)

// Bounds of what a Pool keeps in memory of folders that nobody uses.
const (
	maxIdleFolders  = 256
	maxIdleMessages = 500_000
)

// Options says how a Pool works. UID and GID must be set, to -1 if need be: 0 is
// root.
type Options struct {
	Logger *slog.Logger // nil: silent

	// Barrier makes writes durable. If it is nil, Sync is called for each path
	// that must be: it returns when everything written before to that path (and,
	// where it can, to its file system) is durable. If both are nil, fsync(2) is used.
	Barrier *durable.Barrier
	Sync    func(path string) error

	// Owed reports whether a file in a tmp/ is a message that was acknowledged and
	// waits for a mailbox: see Deliverer.Owes. nil: none is. It is called with a
	// clean path.
	Owed func(file string) bool

	Hostname string // goes into file names; "" : the machine's
	UID, GID int    // owner of files and directories made; -1: leave them alone
	Watch    bool   // use inotify(7) where the system has it
}

// Pool shares folders among the sessions of one server. It is safe for
// concurrent use.
type Pool struct {
	o      Options
	log    *slog.Logger
	ops    fileOps
	names  *names
	host   string // for lock files: gethostname, as Dovecot compares it
	eyes   *eyes  // nil: nothing is watched
	opener *opener

	mu       sync.Mutex
	boxes    map[string]*box  // by directory
	stores   map[string]*tree // by INBOX path
	posts    map[postKey]*post
	idle     *list.List // of *box, the longest idle in front
	idleMsgs int
	closed   bool
}

// NewPool returns a Pool. Nothing can fail here: where inotify is not to be
// had, changes by other programs are found by Folder.Refresh alone.
func NewPool(o Options) *Pool { return newPool(o, osOps()) }

func newPool(o Options, ops fileOps) *Pool {
	p := &Pool{o: o, log: o.Logger, ops: ops, boxes: map[string]*box{}, stores: map[string]*tree{}, posts: map[postKey]*post{}, idle: list.New(), opener: newOpener(maxUnpacked)}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.host, _ = os.Hostname() // "" only makes a stale lock last its full time
	if o.Hostname == "" {
		p.o.Hostname = p.host
	}
	p.names = newNames(p.o.Hostname)
	p.names.count.Store(uint64(rand.Uint32())) // another maker of names in this process counts from 0
	if p.ops.sync == nil {
		p.ops.sync = p.barrier()
	}
	if o.Watch {
		p.eyes = openEyes(p.log)
	}
	return p
}

// barrier is the way of o to make paths durable.
func (p *Pool) barrier() func(paths ...string) error {
	if p.o.Barrier != nil {
		return p.o.Barrier.Sync
	}
	one := p.o.Sync
	if one == nil {
		one = durable.SyncPath
	}
	return func(paths ...string) error {
		for _, path := range paths {
			if err := one(path); err != nil {
				return fmt.Errorf("sync %s: %w", path, err)
			}
		}
		return nil
	}
}

// Open returns the Store whose INBOX is the directory path. Missing parts of
// it (cur, new, tmp) are made durably. The caller must Close it.
func (p *Pool) Open(path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"cur", "new", "tmp"} {
		if isDir(filepath.Join(path, sub)) {
			continue
		}
		made, err := makeDirs(filepath.Join(path, sub), p.o.UID, p.o.GID)
		if err != nil {
			return nil, fmt.Errorf("make Maildir %s: %w", path, err)
		}
		if err := p.ops.sync(append(made, path)...); err != nil {
			return nil, fmt.Errorf("make Maildir %s: %w", path, err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	t := p.stores[path]
	if t == nil {
		t = &tree{path: path}
		p.stores[path] = t
	}
	t.refs++
	return &Store{p: p, t: t}, nil
}

// Delivered says that this server has put a message into new/ of a folder ("" is
// the INBOX) of the Maildir at path. Sessions that watch the folder are woken. It
// neither blocks nor fails, and does nothing if nobody has the folder open.
func (p *Pool) Delivered(path, folder string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return
	}
	if folder != "" && !isInbox(folder) {
		folder = "." + folder
	} else {
		folder = ""
	}
	p.mu.Lock()
	b := p.boxes[filepath.Join(path, folder)]
	if b == nil {
		b = p.boxes[filepath.Join(path, encodeName(folder))]
	}
	p.mu.Unlock()
	if b != nil {
		b.poke()
		return
	}
	p.wakePost(postKey{filepath.Join(path, folder), false})
	p.wakePost(postKey{filepath.Join(path, encodeName(folder)), false})
}

// Close writes the indexes of all folders and ends watching. Folders that are
// still open answer ErrClosed to further changes.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	boxes := make([]*box, 0, len(p.boxes))
	for _, b := range p.boxes {
		boxes = append(boxes, b)
	}
	p.mu.Unlock()
	for _, b := range boxes {
		b.retire()
	}
	if p.eyes == nil {
		return nil
	}
	return p.eyes.close()
}

// take returns the shared box of the directory dir, with one more user.
func (p *Pool) take(root, dir string) (*box, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	b := p.boxes[dir]
	if b == nil {
		b = newBox(p, root, dir)
		b.post.Store(p.posts[postKey{dir, false}])
		p.boxes[dir] = b
	}
	if b.idle != nil {
		p.idle.Remove(b.idle)
		p.idleMsgs -= b.idleMsgs
		b.idle = nil
	}
	b.refs++
	return b, nil
}

// release gives b back. The longest idle folders are dropped when there are too many.
func (p *Pool) release(b *box) {
	b.saveIfWorth()
	n := b.count()
	p.mu.Lock()
	var drop []*box
	if b.refs--; b.refs == 0 && !p.closed {
		if p.boxes[b.dir] != b { // deleted or renamed
			p.mu.Unlock()
			b.restFacts()
			return
		}
		b.idleMsgs = n
		b.idle = p.idle.PushBack(b)
		p.idleMsgs += n
		for p.idle.Len() > maxIdleFolders || p.idleMsgs > maxIdleMessages && p.idle.Len() > 1 {
			old := p.idle.Remove(p.idle.Front()).(*box)
			old.idle = nil
			p.idleMsgs -= old.idleMsgs
			delete(p.boxes, old.dir)
			drop = append(drop, old)
		}
	}
	p.mu.Unlock()
	for _, old := range drop {
		old.save()
		old.restFacts()
	}
}

// forget makes the boxes of directories that have been deleted or renamed
// unusable and drops them.
func (p *Pool) forget(dirs ...string) {
	p.mu.Lock()
	var gone []*box
	for _, dir := range dirs {
		if b := p.boxes[dir]; b != nil {
			delete(p.boxes, dir)
			if b.idle != nil {
				p.idle.Remove(b.idle)
				p.idleMsgs -= b.idleMsgs
				b.idle = nil
			}
			gone = append(gone, b)
		}
	}
	p.mu.Unlock()
	for _, b := range gone {
		b.vanish(ErrNoFolder)
	}
}

// own gives a new file or directory to the configured owner.
func (p *Pool) own(name string) error {
	if p.o.UID < 0 && p.o.GID < 0 {
		return nil
	}
	if err := os.Lchown(name, p.o.UID, p.o.GID); err != nil {
		return fmt.Errorf("own %s: %w", name, err)
	}
	return nil
}

// racyWindow is how long after mtime a directory may change again without
// showing another mtime: a tick of the kernel, or two seconds where the file
// system keeps whole seconds only.
func racyWindow(mtime time.Time) time.Duration {
	if mtime.Nanosecond() == 0 {
		return 2 * time.Second
	}
	return 20 * time.Millisecond
}
