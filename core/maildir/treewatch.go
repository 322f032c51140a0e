package maildir

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// Watch tells one session of changes in a folder, which need not be open, or of
// what Store.Watch names. It is not safe for concurrent use.
type Watch struct {
	post   *post
	signal chan<- struct{}
	seen   uint64
	ended  bool
}

// postKey is what a post looks at: a folder, or the tree below a root.
type postKey struct {
	dir  string
	tree bool
}

// post is a watched place as all sessions of the process share it. It costs a
// few hundred octets, where an open folder costs a list of its messages.
type post struct {
	p     *Pool
	key   postKey
	users int           // guarded by Pool.mu
	turn  atomic.Uint64 // counts changes

	mu       sync.Mutex
	watchers map[*Watch]struct{}
}

// Watch sends to signal, without waiting, after folders have been made, deleted or
// renamed and after subscriptions and annotations have changed, by this process
// or, where the system tells (see Store.Watched), by another one. One channel may
// serve many watches; it should have room for one signal. The caller must Close it.
func (s *Store) Watch(signal chan<- struct{}) *Watch {
	return s.p.watch(postKey{s.t.path, true}, signal)
}

// WatchFolder is Watch for what is in a folder. It returns ErrNoFolder or
// ErrBadName. A folder that is deleted and made anew has to be watched anew.
func (s *Store) WatchFolder(name string, signal chan<- struct{}) (*Watch, error) {
	name, err := cleanName(name)
	if err != nil {
		return nil, err
	}
	dir := dirOf(s.t.path, name)
	if !isDir(filepath.Join(dir, "cur")) {
		return nil, fmt.Errorf("watch folder %q: %w", name, ErrNoFolder)
	}
	return s.p.watch(postKey{dir, false}, signal), nil
}

// Watched reports whether the system tells of changes by other programs. If not,
// who wants to know has to look from time to time.
func (s *Store) Watched() bool { return s.p.eyes.working() }

// Identity is something that a folder keeps when it is renamed and that no folder
// made later has; "" if nothing of the kind is known.
func (s *Store) Identity(name string) string {
	dir := dirOf(s.t.path, name)
	fi, err := os.Stat(filepath.Join(dir, "maildirfolder")) // is made with the folder and never written again
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d %d", inode(fi), fi.ModTime().UnixNano())
}

// watch takes up a post.
func (p *Pool) watch(key postKey, signal chan<- struct{}) *Watch {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.posts[key]
	if at == nil {
		at = &post{p: p, key: key, watchers: map[*Watch]struct{}{}}
		p.posts[key] = at
		if b := p.boxes[key.dir]; b != nil && !key.tree {
			b.post.Store(at)
		}
	}
	if key.tree {
		p.eyes.watch(at, key.dir, "")
	} else {
		p.eyes.watch(at, key.dir, "cur/", "new/")
	}
	at.users++
	w := &Watch{post: at, signal: signal, seen: at.turn.Load()}
	at.mu.Lock()
	at.watchers[w] = struct{}{}
	at.mu.Unlock()
	return w
}

// Changed reports whether anything may have changed since the last call, or since
// the watch began.
func (w *Watch) Changed() bool {
	now := w.post.turn.Load()
	changed := now != w.seen
	w.seen = now
	return changed
}

// Close ends the watch. It may be called more than once.
func (w *Watch) Close() {
	if w.ended {
		return
	}
	w.ended = true
	at, p := w.post, w.post.p
	at.mu.Lock()
	delete(at.watchers, w)
	at.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.eyes.unwatch(at)
	if at.users--; at.users == 0 {
		delete(p.posts, at.key)
	}
}

// wake signals every watcher.
func (at *post) wake() {
	at.turn.Add(1)
	at.mu.Lock()
	defer at.mu.Unlock()
	for w := range at.watchers {
		select {
		case w.signal <- struct{}{}:
		default: // one signal is already under way
		}
	}
}

// note is what the system tells of the place.
func (at *post) note(e event) {
	if at.key.tree {
		switch e.path {
		case subscriptionsName, serverMetadata:
		default:
			if _, ok := shownName(e.path[min(len(e.path), 1):]); !ok || e.path[0] != '.' {
				return
			}
		}
		at.wake()
		return
	}
	at.passOn(func(b *box) { b.note(e) })
	at.wake()
}

func (at *post) lostEvents() {
	at.passOn(func(b *box) { b.lostEvents() })
	at.wake()
}

// passOn tells the box, which need not be watched itself.
func (at *post) passOn(tell func(*box)) {
	if at.key.tree {
		return
	}
	at.p.mu.Lock()
	b := at.p.boxes[at.key.dir]
	at.p.mu.Unlock()
	if b != nil {
		tell(b)
	}
}

// changedTree wakes those who watch the tree at root.
func (p *Pool) changedTree(root string) { p.wakePost(postKey{root, true}) }

func (p *Pool) wakePost(key postKey) {
	p.mu.Lock()
	at := p.posts[key]
	p.mu.Unlock()
	if at != nil {
		at.wake()
	}
}
