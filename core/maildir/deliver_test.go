package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/wafermail/wafer/core/durable"
)

// world is a state directory, some Maildirs and a deliverer over a disk whose
// steps can fail.
type world struct {
	t     *testing.T
	root  string
	sync  *durable.Barrier
	syncs atomic.Int64
	step  atomic.Int64 // disk operations and barriers so far
	fail  int64        // the step that fails; 0: none
	d     *Deliverer
}

// Sizes at which package spill begins something new.
const (
	draftChunk  = 32 << 10
	draftMemory = 128 << 10
)

var errInjected = errors.New("injected fault")

func newWorld(t *testing.T, mode durable.SyncMode) *world {
	w := &world{t: t, root: t.TempDir()}
	b, err := durable.NewBarrier(mode)
	if err != nil {
		t.Skipf("this system has no %s barrier: %v", mode, err)
	}
	w.sync = b
	t.Cleanup(func() { b.Close() })
	b.Before = func() error {
		w.syncs.Add(1)
		if w.hit() {
			return errInjected
		}
		return nil
	}
	w.open()
	return w
}

func (w *world) hit() bool { return w.step.Add(1) == w.fail }

func (w *world) open() {
	w.t.Helper()
	d, err := newDeliverer(context.Background(), DelivererOptions{
		State: filepath.Join(w.root, "state"), Hostname: "mx.example.org", Barrier: w.sync, UID: -1, GID: -1,
		Logger: slog.New(slog.DiscardHandler),
	}, w.disk())
	if err != nil {
		w.t.Fatal(err)
	}
	w.d = d
	w.t.Cleanup(func() { d.Close() })
}

// disk is the real one with a fault at step w.fail.
func (w *world) disk() disk {
	real := osDisk()
	two := func(f func(a, b string) error) func(a, b string) error {
		return func(a, b string) error {
			if w.hit() {
				return errInjected
			}
			return f(a, b)
		}
	}
	return disk{
		create: func(name string) (file, error) {
			if w.hit() {
				return nil, errInjected
			}
			f, err := real.create(name)
			if err != nil {
				return nil, err
			}
			return faultyFile{f, w}, nil
		},
		link:   two(real.link),
		rename: two(real.rename),
		remove: real.remove,
	}
}

type faultyFile struct {
	file
	w *world
}

func (f faultyFile) Write(p []byte) (int, error) {
	if f.w.hit() { // half of it reaches the disk, then it is full
		n, _ := f.file.Write(p[:len(p)/2])
		return n, syscall.ENOSPC
	}
	return f.file.Write(p)
}

func (f faultyFile) Close() error {
	err := f.file.Close()
	if f.w.hit() {
		return errInjected
	}
	return err
}

func (w *world) box(name string) string { return filepath.Join(w.root, "mail", name) }

// seen reads what a mail reader sees in the mailbox.
func (w *world) seen(name string) (msgs []string) {
	w.t.Helper()
	for _, sub := range []string{"new", "cur"} {
		des, err := os.ReadDir(filepath.Join(w.box(name), sub))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			w.t.Fatal(err)
		}
		for _, de := range des {
			b, err := os.ReadFile(filepath.Join(w.box(name), sub, de.Name()))
			if err != nil {
				w.t.Fatal(err)
			}
			if want := fmt.Sprintf(",S=%d,W=%d", len(b), len(b)); !strings.HasSuffix(de.Name(), want) {
				w.t.Errorf("%s is named %s, want it to end in %s", name, de.Name(), want)
			}
			msgs = append(msgs, string(b))
		}
	}
	return msgs
}

func (w *world) drafts() (names []string) {
	names, _ = filepath.Glob(filepath.Join(w.root, "mail", "*", "tmp", "*"))
	return names
}

func (w *world) send(body, trace string, targets ...Target) error {
	w.t.Helper()
	for _, t := range targets {
		if err := w.d.Ensure(t); err != nil {
			return err
		}
	}
	dr, err := w.d.Begin(targets)
	if err != nil {
		return err
	}
	defer dr.Close()
	if _, err := io.Copy(dr, iotestChunks{strings.NewReader(body)}); err != nil {
		return err
	}
	return dr.Deliver(context.Background(), targets, []byte(trace))
}

// iotestChunks reads 1,000 octets at a time, so that chunk borders are crossed.
type iotestChunks struct{ r io.Reader }

func (c iotestChunks) Read(p []byte) (int, error) { return c.r.Read(p[:min(len(p), 1000)]) }

func TestDeliver(t *testing.T) {
	big := strings.Repeat("0123456789abcde\n", 40_000) // 640,000 octets: goes through a file
	rows := []struct {
		name string
		body string
		hdr  map[string]string // by mailbox
	}{
		{"one mailbox", "Subject: a\r\n\r\nbody\r\n", map[string]string{"ann": "Delivered-To: ann@example.org\r\n"}},
		{"equal copies", "Subject: a\r\n\r\nbody\r\n", map[string]string{"ann": "", "bob": "", "eve": ""}},
		{"unequal copies", "Subject: a\r\n\r\nbody\r\n", map[string]string{"ann": "X: 1\r\n", "bob": "X: 2\r\n"}},
		{"empty message", "", map[string]string{"ann": ""}},
		{"exactly one chunk", strings.Repeat("x", draftChunk), map[string]string{"ann": ""}},
		{"exactly the memory", strings.Repeat("x", draftMemory), map[string]string{"ann": ""}},
		{"large", big, map[string]string{"ann": "X: 1\r\n", "bob": "X: 1\r\n"}},
	}
	for _, mode := range []durable.SyncMode{durable.SyncFS, durable.SyncFile} {
		for _, row := range rows {
			t.Run(string(mode)+"/"+row.name, func(t *testing.T) {
				w := newWorld(t, mode)
				var targets []Target
				for name, h := range row.hdr {
					targets = append(targets, Target{Maildir: w.box(name), Header: []byte(h)})
				}
				const trace = "Received: from x by y; now\r\n"
				if err := w.send(row.body, trace, targets...); err != nil {
					t.Fatal(err)
				}
				inodes := map[string]uint64{}
				for name, h := range row.hdr {
					if got, want := w.seen(name), []string{h + trace + row.body}; !slices.Equal(got, want) {
						t.Errorf("%s has %d messages %.80q, want %.80q", name, len(got), got, want)
					}
					files, _ := filepath.Glob(filepath.Join(w.box(name), "new", "*"))
					var st syscall.Stat_t
					if err := syscall.Stat(files[0], &st); err != nil {
						t.Fatal(err)
					}
					if first, ok := inodes[h]; ok && first != st.Ino {
						t.Errorf("%s has a copy of its own; equal copies share a file", name)
					}
					inodes[h] = st.Ino
				}
				if len(w.drafts()) != 0 {
					t.Errorf("left in tmp: %v", w.drafts())
				}
			})
		}
	}
}

func TestDeliverToFolder(t *testing.T) {
	w := newWorld(t, durable.SyncAuto)
	if err := w.send("x\r\n", "", Target{Maildir: w.box("ann"), Folder: "Junk"}); err != nil {
		t.Fatal(err)
	}
	junk := filepath.Join(w.box("ann"), ".Junk")
	if _, err := os.Stat(filepath.Join(junk, "maildirfolder")); err != nil {
		t.Error(err)
	}
	if got := w.seen("ann/.Junk"); len(got) != 1 {
		t.Errorf("Junk has %d messages, want 1", len(got))
	}
}

// TestDeliverFaults fails each step of a delivery to three mailboxes in turn.
// An error must leave nothing visible; success must leave every copy whole,
// after a retry where a rename failed.
func TestDeliverFaults(t *testing.T) {
	for _, size := range []int{100, draftMemory * 2} {
		for _, mode := range []durable.SyncMode{durable.SyncFS, durable.SyncFile} {
			for fail := int64(1); ; fail++ {
				w := newWorld(t, mode)
				boxes := []string{"ann", "bob", "eve"}
				targets := []Target{
					{Maildir: w.box("ann"), Header: []byte("X: same\r\n")},
					{Maildir: w.box("bob"), Header: []byte("X: same\r\n")},
					{Maildir: w.box("eve"), Header: []byte("X: other\r\n")},
				}
				for _, tg := range targets {
					if err := w.d.Ensure(tg); err != nil {
						t.Fatal(err)
					}
				}
				body := strings.Repeat("x", size)
				w.step.Store(0)
				w.fail = fail
				err := w.send(body, "", targets...)
				w.fail = 0
				if w.step.Load() < fail { // no such step: every one has been tried
					if err != nil {
						t.Fatalf("no fault, but %v", err)
					}
					if fail < 8 {
						t.Fatalf("only %d steps were seen", fail)
					}
					break
				}
				seen := 0
				for _, b := range boxes {
					for _, m := range w.seen(b) {
						seen++
						if !strings.HasSuffix(m, body) {
							t.Errorf("step %d: a partial message is visible in %s", fail, b)
						}
					}
				}
				if err != nil {
					if seen != 0 || len(w.drafts()) != 0 {
						t.Errorf("step %d: refused (%v), yet %d copies are visible and %v is left", fail, err, seen, w.drafts())
					}
					continue
				}
				if left := w.d.Retry(); left != 0 {
					t.Errorf("step %d: %d messages still owed after a retry without faults", fail, left)
				}
				for _, b := range boxes {
					if got := len(w.seen(b)); got != 1 {
						t.Errorf("step %d: acknowledged, but %s has %d copies", fail, b, got)
					}
				}
				if len(w.drafts()) != 0 {
					t.Errorf("step %d: left in tmp: %v", fail, w.drafts())
				}
			}
		}
	}
}

// TestRecover starts after an earlier process ended between the barrier and the
// rename: by a kill (same boot) or a power cut (another boot).
func TestRecover(t *testing.T) {
	rows := []struct {
		name string
		boot string // "same" or "other"
		line func(c *commit)
		file string // contents of the draft; "-": it is gone
		want int    // messages visible afterwards
	}{
		{"killed: never acknowledged", "same", nil, "whole", 0},
		{"power cut: may have been acknowledged", "other", nil, "whole", 1},
		{"power cut before the data was written", "other", nil, "who\x00\x00", 0},
		{"power cut before the data had its size", "other", nil, "who", 0},
		{"power cut after the rename", "other", nil, "-", 0},
		{"killed: owed to a mailbox", "same", func(c *commit) { c.keep = true }, "whole", 1},
		{"power cut: owed to a mailbox", "other", func(c *commit) { c.keep = true }, "whole", 1},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t, durable.SyncAuto)
			if err := w.d.Ensure(Target{Maildir: w.box("ann")}); err != nil {
				t.Fatal(err)
			}
			w.d.Close()
			draft := filepath.Join(w.box("ann"), "tmp", "1.draft")
			c := commit{size: 5, file: draft, targets: []string{filepath.Join(w.box("ann"), "new", "1.draft,S=5,W=5")}}
			var sum running
			sum.Write([]byte("whole"))
			c.sum = uint32(sum)
			if row.line != nil {
				row.line(&c)
			}
			if row.file != "-" {
				if err := os.WriteFile(draft, []byte(row.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			boot := durable.BootID()
			if row.boot == "other" {
				boot = "00000000-0000-0000-0000-000000000000"
			}
			state := filepath.Join(w.root, "state")
			text := c.append([]byte(commitHeader + boot + "\n"))
			text = append(text, "deadbeef deliver 5 0 \"/torn"...)
			if err := os.WriteFile(segment(state, 7), text, 0o600); err != nil {
				t.Fatal(err)
			}
			w.open()
			if got := len(w.seen("ann")); got != row.want {
				t.Errorf("%d messages visible, want %d", got, row.want)
			}
			if len(w.drafts()) != 0 {
				t.Errorf("left in tmp: %v", w.drafts())
			}
			if segs, _ := filepath.Glob(filepath.Join(state, "commits.*")); !slices.Equal(segs, []string{segment(state, 8)}) {
				t.Errorf("segments %v, want only number 8", segs)
			}
		})
	}
}

// TestOwedSurvivesRestart keeps a message for a mailbox that cannot take it,
// through restarts, until it can.
func TestOwedSurvivesRestart(t *testing.T) {
	w := newWorld(t, durable.SyncAuto)
	targets := []Target{{Maildir: w.box("ann")}, {Maildir: w.box("bob")}}
	for _, tg := range targets {
		if err := w.d.Ensure(tg); err != nil {
			t.Fatal(err)
		}
	}
	real := w.d.disk
	w.d.disk.rename = func(a, b string) error { return syscall.EDQUOT }
	if err := w.send("x\r\n", "", targets...); err != nil {
		t.Fatal(err)
	}
	if len(w.seen("ann")) != 1 || len(w.seen("bob")) != 0 || w.d.Owed() != 1 {
		t.Fatalf("ann %d, bob %d, owed %d; want 1, 0, 1", len(w.seen("ann")), len(w.seen("bob")), w.d.Owed())
	}
	w.d.disk = real
	w.d.Close()
	w.open()
	if len(w.seen("ann")) != 1 || len(w.seen("bob")) != 1 || w.d.Owed() != 0 {
		t.Errorf("after a restart: ann %d, bob %d, owed %d; want 1, 1, 0", len(w.seen("ann")), len(w.seen("bob")), w.d.Owed())
	}
}

func TestSegmentsAreRemoved(t *testing.T) {
	w := newWorld(t, durable.SyncAuto)
	w.d.log.limit = 500
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 25 {
				if err := w.send("x\r\n", "", Target{Maildir: w.box(fmt.Sprint("u", g))}); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	segs, _ := filepath.Glob(filepath.Join(w.root, "state", "commits.*"))
	if len(segs) != 1 {
		t.Errorf("%d segments are left, want the current one only", len(segs))
	}
	for g := range 4 {
		if n := len(w.seen(fmt.Sprint("u", g))); n != 25 {
			t.Errorf("u%d has %d messages, want 25", g, n)
		}
	}
}

func FuzzCommitLine(f *testing.F) {
	c := commit{size: 5, sum: 0xabcdef01, file: "/m/tmp/a \"b\"\n", targets: []string{"/m/new/a,S=5", "/n/new/é"}}
	f.Add(strings.TrimSuffix(string(c.append(nil)), "\n"))
	f.Add("deadbeef deliver 5 0 \"/torn")
	f.Add("")
	f.Fuzz(func(t *testing.T, line string) {
		c, err := parseCommit(line)
		if err != nil {
			return
		}
		again, err := parseCommit(strings.TrimSuffix(string(c.append(nil)), "\n"))
		if err != nil || again.file != c.file || !slices.Equal(again.targets, c.targets) || again.size != c.size || again.sum != c.sum || again.keep != c.keep {
			t.Errorf("%q reads as %+v, written and read again as %+v, %v", line, c, again, err)
		}
	})
}

func BenchmarkDeliver(b *testing.B) {
	body := bytes.Repeat([]byte("0123456789012345678901234567890123456789012345678901234567890123456789012345\r\n"), 4096/78)
	for _, conns := range []int{1, 10, 50} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			root := b.TempDir()
			bar, err := durable.NewBarrier(durable.SyncAuto)
			if err != nil {
				b.Fatal(err)
			}
			defer bar.Close()
			d, err := NewDeliverer(context.Background(), DelivererOptions{State: root + "/state", Hostname: "mx", Barrier: bar, UID: -1, GID: -1, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			var n atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			for g := range conns {
				wg.Add(1)
				go func() {
					defer wg.Done()
					tg := []Target{{Maildir: fmt.Sprintf("%s/u%d", root, g)}}
					if err := d.Ensure(tg[0]); err != nil {
						b.Error(err)
						return
					}
					for n.Add(1) <= int64(b.N) {
						dr, err := d.Begin(tg)
						if err != nil {
							b.Error(err)
							return
						}
						dr.Write(body)
						if err := dr.Deliver(context.Background(), tg, nil); err != nil {
							b.Error(err)
						}
						dr.Close()
					}
				}()
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
