package maildir

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eyes is the one inotify(7) instance of a Pool. Each folder that somebody
// watches has two watches in it, for cur and new.
type eyes struct {
	log  *slog.Logger
	f    *os.File
	done chan struct{} // closed when run has ended

	mu    sync.Mutex
	boxes map[*box]*sight
	byWD  map[int32]target
	full  bool // the system's limit was reached and said so in the log
}

// sight is a watched folder.
type sight struct {
	users int
	wds   []int32
}

// target is a watched directory.
type target struct {
	b   *box
	sub string // "cur/" or "new/"
}

const watchMask = unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_CREATE | unix.IN_DELETE |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// openEyes returns nil where inotify is not to be had.
func openEyes(log *slog.Logger) *eyes {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		log.Warn("mailboxes are not watched", "err", os.NewSyscallError("inotify_init1", err))
		return nil
	}
	e := &eyes{
		log: log, f: os.NewFile(uintptr(fd), "inotify"), done: make(chan struct{}),
		boxes: map[*box]*sight{}, byWD: map[int32]target{},
	}
	go e.run()
	return e
}

func (e *eyes) close() error {
	err := e.f.Close()
	<-e.done
	return err
}

// watch begins to look at b, or counts one more who wants that.
func (e *eyes) watch(b *box) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.boxes[b]; s != nil {
		s.users++
		return
	}
	s := &sight{users: 1}
	e.boxes[b] = s
	for _, sub := range []string{"cur/", "new/"} {
		wd, err := e.add(b.file(sub))
		if err != nil {
			if !e.full {
				e.log.Warn("some mailboxes are not watched; raise fs.inotify.max_user_watches", "folder", b.dir, "err", err)
			}
			e.full = true
			return
		}
		s.wds = append(s.wds, wd)
		e.byWD[wd] = target{b, sub}
	}
}

func (e *eyes) add(dir string) (wd int32, err error) {
	conn, err := e.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	cerr := conn.Control(func(fd uintptr) { n, err = unix.InotifyAddWatch(int(fd), dir, watchMask) })
	if err = errors.Join(cerr, os.NewSyscallError("inotify_add_watch", err)); err != nil {
		return 0, err
	}
	return int32(n), nil
}

// unwatch ends what watch began.
func (e *eyes) unwatch(b *box) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.boxes[b]
	if s == nil {
		return
	}
	if s.users--; s.users > 0 {
		return
	}
	delete(e.boxes, b)
	conn, err := e.f.SyscallConn()
	if err != nil {
		return
	}
	for _, wd := range s.wds {
		delete(e.byWD, wd)
		_ = conn.Control(func(fd uintptr) { // it may be gone with its directory
			_, _ = unix.InotifyRmWatch(int(fd), uint32(wd))
		})
	}
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
	t, ok := e.byWD[wd]
	var all []*box
	if mask&unix.IN_Q_OVERFLOW != 0 {
		for b := range e.boxes {
			all = append(all, b)
		}
	}
	e.mu.Unlock()
	for _, b := range all {
		b.lostEvents()
	}
	switch {
	case !ok || mask&unix.IN_IGNORED != 0:
	case mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF) != 0:
		t.b.lostEvents()
	case name != "" && name[0] != '.':
		t.b.note(event{t.sub + name, mask&(unix.IN_MOVED_TO|unix.IN_CREATE) != 0})
	}
}
