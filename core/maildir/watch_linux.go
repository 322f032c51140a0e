package maildir

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eyes is the one inotify(7) instance of a Pool; nil sees nothing. Each folder that
// somebody watches has two watches in it, for cur and new.
type eyes struct {
	log  *slog.Logger
	f    *os.File
	done chan struct{} // closed when run has ended

	mu     sync.Mutex
	sights map[seer]*sight
	byWD   map[int32][]target
	full   bool // the system's limit was reached and said so in the log
}

// seer is who wants to know of a directory: a box or a post.
type seer interface {
	note(event)
	lostEvents() // something unknown may have happened
}

// sight is what a seer looks at.
type sight struct {
	users int
	wds   []int32
}

// target is a watched directory and one who watches it.
type target struct {
	who seer
	sub string // "cur/" or "new/"; "": the root of a tree
}

const watchMask = unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_CREATE | unix.IN_DELETE |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// rootMask is for the root of a tree, in which other programs write subscriptions in place.
const rootMask = watchMask | unix.IN_CLOSE_WRITE

// openEyes returns nil where inotify is not to be had.
func openEyes(log *slog.Logger) *eyes {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		log.Warn("mailboxes are not watched", "err", os.NewSyscallError("inotify_init1", err))
		return nil
	}
	e := &eyes{
		log: log, f: os.NewFile(uintptr(fd), "inotify"), done: make(chan struct{}),
		sights: map[seer]*sight{}, byWD: map[int32][]target{},
	}
	go e.run()
	return e
}

func (e *eyes) close() error {
	err := e.f.Close()
	<-e.done
	return err
}

// working reports whether everything that is to be watched is.
func (e *eyes) working() bool {
	if e == nil {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.full
}

// watch begins to look at subdirectories of dir, or counts one more use of who. It
// looks at the directories that have these names now: others may have had them.
func (e *eyes) watch(who seer, dir string, subs ...string) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sights[who]
	if s == nil {
		s = &sight{}
		e.sights[who] = s
	}
	s.users++
	old := s.wds
	s.wds = nil
	defer func() {
		for _, wd := range old {
			if !slices.Contains(s.wds, wd) {
				e.drop(who, wd)
			}
		}
	}()
	for _, sub := range subs {
		mask := uint32(watchMask)
		if sub == "" {
			mask = rootMask
		}
		wd, err := e.add(filepath.Join(dir, sub), mask)
		if errors.Is(err, os.ErrNotExist) {
			return // deleted just now, which its tree knows
		}
		if err != nil {
			if !e.full {
				e.log.Warn("some mailboxes are not watched; raise fs.inotify.max_user_watches", "folder", dir, "err", err)
			}
			e.full = true
			return
		}
		s.wds = append(s.wds, wd)
		if t := (target{who, sub}); !slices.Contains(e.byWD[wd], t) {
			e.byWD[wd] = append(e.byWD[wd], t)
		}
	}
}

func (e *eyes) add(dir string, mask uint32) (wd int32, err error) {
	conn, err := e.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	cerr := conn.Control(func(fd uintptr) { n, err = unix.InotifyAddWatch(int(fd), dir, mask) })
	if err = errors.Join(cerr, os.NewSyscallError("inotify_add_watch", err)); err != nil {
		return 0, err
	}
	return int32(n), nil
}

// unwatch ends what watch began.
func (e *eyes) unwatch(who seer) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sights[who]
	if s == nil {
		return
	}
	if s.users--; s.users > 0 {
		return
	}
	delete(e.sights, who)
	for _, wd := range s.wds {
		e.drop(who, wd)
	}
}

// drop ends who's interest in a directory. mu is held.
func (e *eyes) drop(who seer, wd int32) {
	e.byWD[wd] = slices.DeleteFunc(e.byWD[wd], func(t target) bool { return t.who == who })
	if len(e.byWD[wd]) > 0 {
		return // others look at it
	}
	delete(e.byWD, wd)
	conn, err := e.f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) { // it may be gone with its directory
		_, _ = unix.InotifyRmWatch(int(fd), uint32(wd))
	})
}

// run hands events to boxes until close.
func (e *eyes) run() {
	defer close(e.done)
	defer func() {
		if v := recover(); v != nil {
			e.log.Error("watching mailboxes ended", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	var buf [64 << 10]byte
	for {
		n, err := e.f.Read(buf[:])
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				e.log.Error("watching mailboxes ended", "err", err)
			}
			return
		}
		e.events(buf[:n])
	}
}

// events reads inotify_event structures.
func (e *eyes) events(data []byte) {
	for len(data) >= unix.SizeofInotifyEvent {
		ev := (*unix.InotifyEvent)(unsafe.Pointer(&data[0]))
		end := unix.SizeofInotifyEvent + int(ev.Len)
		if end > len(data) {
			return
		}
		name := data[unix.SizeofInotifyEvent:end]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		e.event(ev.Wd, ev.Mask, string(name))
		data = data[end:]
	}
}

func (e *eyes) event(wd int32, mask uint32, name string) {
	e.mu.Lock()
	targets := slices.Clone(e.byWD[wd])
	var all []seer
	if mask&unix.IN_Q_OVERFLOW != 0 {
		for who := range e.sights {
			all = append(all, who)
		}
	}
	e.mu.Unlock()
	for _, who := range all {
		who.lostEvents()
	}
	for _, t := range targets {
		switch {
		case mask&unix.IN_IGNORED != 0:
		case mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF) != 0:
			t.who.lostEvents()
		case name != "" && (name[0] != '.' || t.sub == ""):
			t.who.note(event{t.sub + name, mask&(unix.IN_MOVED_TO|unix.IN_CREATE) != 0})
		}
	}
}
