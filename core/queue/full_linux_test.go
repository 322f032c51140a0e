package queue

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// TestDiskFull: on a disk that fills up, every message is either refused as a whole,
// with ErrFull, or there after a restart; and there is no room for more.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("a file system of its own needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t, func(c *Config) { c.Dir = filepath.Join(dir, "queue") })
	w.far.says(func(*mail.Delivery, mail.Recipient) mail.Outcome { return outcome(450, "4.2.0", "later") })
	defer func() { w.close() }()
	if err := w.q.Room(1000); !errors.Is(err, ErrFull) {
		t.Errorf("room on a small disk: %v", err)
	}
	taken, refused := 0, 0
	for i := range 200 {
		m := &Message{Envelope: mail.Envelope{ID: mail.NewID(time.Now()), From: path(t, "ann@example.org")}}
		m.Rcpts = []Recipient{{Recipient: mail.Recipient{To: path(t, "x@example.net")}}}
		size := 1000
		if i%2 == 0 {
			size = 300_000 // more than is held in memory
		}
		d := w.q.Begin(m.Envelope.ID)
		_, err := io.WriteString(d, body+strings.Repeat("x", size))
		if cerr := d.Commit(m); err == nil {
			err = cerr
		} else if cerr == nil {
			t.Errorf("message %d was taken after %v", i, err)
		}
		d.Close()
		switch {
		case err == nil:
			taken++
		case errors.Is(err, ErrFull), errors.Is(err, syscall.ENOSPC):
			refused++
		default:
			t.Errorf("message %d: %v", i, err)
		}
	}
	if taken == 0 || refused == 0 {
		t.Errorf("%d taken, %d refused", taken, refused)
	}
	w.close()
	w.open()
	if n := len(w.list()); n != taken {
		t.Errorf("%d messages after a restart, %d were taken", n, taken)
	}
}
