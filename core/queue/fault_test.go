package queue

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wafermail/wafer/core/mail"
)

var errInjected = errors.New("injected fault")

// faults fails one step of the disk.
type faults struct{ step, fail atomic.Int64 }

func (f *faults) hit() error {
	if f.step.Add(1) == f.fail.Load() {
		return errInjected
	}
	return nil
}

type faultyFile struct {
	file
	f *faults
}

func (x faultyFile) Write(p []byte) (int, error) {
	if err := x.f.hit(); err != nil {
		n, _ := x.file.Write(p[:len(p)/2]) // a torn write
		return n, err
	}
	return x.file.Write(p)
}

func (x faultyFile) Close() error { return errors.Join(x.file.Close(), x.f.hit()) }

func (f *faults) disk() disk {
	real := osDisk()
	open := func(open func(string) (file, error)) func(string) (file, error) {
		return func(name string) (file, error) {
			if err := f.hit(); err != nil {
				return nil, err
			}
			x, err := open(name)
			if err != nil {
				return nil, err
			}
			return faultyFile{x, f}, nil
		}
	}
	return disk{
		create: open(real.create), append: open(real.append), remove: real.remove,
		rename: func(old, new string) error {
			if err := f.hit(); err != nil {
				return err
			}
			return real.rename(old, new)
		},
	}
}

// TestFaults: with a fault at any step of a commit, either the message is
// acknowledged and there after a restart, or it is not and nothing is left of it.
func TestFaults(t *testing.T) {
	for _, size := range []int{100, 300_000} {
		for fail := int64(1); ; fail++ {
			f := &faults{}
			w := newWorld(t, nil)
			w.far.say = func(*mail.Delivery, mail.Recipient) mail.Outcome { return outcome(450, "4.2.0", "later") }
			w.close()
			w.c.Barrier.Before = f.hit
			q, err := open(context.Background(), w.c, f.disk())
			if err != nil {
				t.Fatal(err)
			}
			w.q = q
			f.step.Store(0)
			f.fail.Store(fail)
			m := &Message{Envelope: mail.Envelope{ID: "0123456789ABCDEFG", From: path(t, "ann@example.org")}}
			m.Rcpts = []Recipient{{Recipient: mail.Recipient{To: path(t, "x@example.net")}}}
			err = w.put(m, body+strings.Repeat("x", size))
			steps := f.step.Load()
			if err != nil && !errors.Is(err, errInjected) {
				t.Errorf("%d octets, step %d: %v", size, fail, err)
			}
			f.fail.Store(0)
			if cerr := w.q.Close(context.Background()); cerr != nil {
				t.Error(cerr)
			}
			w.open()
			if n := len(w.list()); (n == 1) != (err == nil) {
				t.Errorf("%d octets, step %d: %d messages after %v", size, fail, n, err)
			}
			if err != nil {
				w.empty()
			}
			w.close()
			if err == nil && steps < fail {
				break // there is no such step
			}
		}
	}
}

// TestPowerCut: a message whose renames were lost with the power is adopted if it
// is whole; after a mere kill it was never acknowledged.
func TestPowerCut(t *testing.T) {
	rows := []struct {
		name   string
		back   []string // suffixes of the files that are in tmp/ again
		cut    bool     // the machine, not only the process
		broken bool     // and the body is not whole
		want   int
	}{
		{"both, power cut", []string{bodySuffix, envelopeSuffix}, true, false, 1},
		{"envelope, power cut", []string{envelopeSuffix}, true, false, 1},
		{"body, power cut", []string{bodySuffix}, true, false, 1},
		{"both, killed", []string{bodySuffix, envelopeSuffix}, false, false, 0},
		{"both, power cut, body torn", []string{bodySuffix, envelopeSuffix}, true, true, 0},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.far.say = func(*mail.Delivery, mail.Recipient) mail.Outcome { return outcome(450, "4.2.0", "later") }
			id := w.add("ann@example.org", body, "x@example.net")
			w.close()
			for _, suffix := range r.back {
				if err := os.Rename(w.q.spool.path(id, suffix), w.q.spool.tmp(string(id)+suffix)); err != nil {
					t.Fatal(err)
				}
			}
			if r.broken {
				if err := os.Truncate(w.q.spool.tmp(string(id)+bodySuffix), 5); err != nil {
					t.Fatal(err)
				}
			}
			if r.cut {
				if err := os.WriteFile(filepath.Join(w.c.Dir, "boot"), []byte("another"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			w.open()
			if n := len(w.list()); n != r.want {
				t.Errorf("%d messages, want %d", n, r.want)
			}
			w.close()
		})
	}
}

// TestFormat: a spool of another format is left alone.
func TestFormat(t *testing.T) {
	w := newWorld(t, nil)
	w.close()
	if err := os.WriteFile(filepath.Join(w.c.Dir, "format"), []byte("wafer-queue 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), w.c); err == nil || !strings.Contains(err.Error(), "wafer-queue 2") {
		t.Errorf("open: %v", err)
	}
}

// TestShowGone: an id that is not there, or is none.
func TestShowGone(t *testing.T) {
	w := newWorld(t, nil)
	defer w.close()
	for _, id := range []mail.ID{"0123456789ABCDEFG", "../../../etc/passwd", ""} {
		if _, _, err := w.q.Show(id); !errors.Is(err, errGone) || errors.Is(err, fs.ErrPermission) {
			t.Errorf("%q: %v", id, err)
		}
	}
}
