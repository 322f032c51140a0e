package imapd

import (
	"net"
	"sync"
	"time"
)

// wakeup lets others end a session's wait for input: they move its read deadline
// into the past. A session that is busy with a command is not disturbed.
type wakeup struct {
	mu      sync.Mutex
	conn    net.Conn // under TLS, if any
	busy    bool     // a command is being read or run
	kicked  bool     // a folder has news
	closing bool     // the server shuts down
}

var past = time.Unix(1, 0) // never changed

// arm sets the deadline for the next read.
func (w *wakeup) arm(d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.busy && (w.kicked || w.closing) {
		return w.conn.SetReadDeadline(past)
	}
	return w.conn.SetReadDeadline(time.Now().Add(d))
}

// moveTo goes on with another connection over the same socket.
func (w *wakeup) moveTo(conn net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn = conn
	if w.closing && !w.busy {
		_ = conn.SetReadDeadline(past)
	}
}

// kick ends a wait in IDLE, or with NOTIFY for a command; not one in the midst of a
// command, after which it is made up for.
func (w *wakeup) kick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kicked = true
	if w.busy {
		return
	}
	_ = w.conn.SetReadDeadline(past) // fails only if the connection is closed
}

// stop ends a wait for good.
func (w *wakeup) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closing = true
	if !w.busy {
		_ = w.conn.SetReadDeadline(past) // fails only if the connection is closed
	}
}

// taken returns and clears what has woken the session.
func (w *wakeup) taken() (kicked, closing bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	kicked, closing = w.kicked, w.closing
	w.kicked = false
	return kicked, closing
}

// setBusy returns whether the server shuts down.
func (w *wakeup) setBusy(busy bool) (closing bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = busy
	return w.closing
}
