package maildir

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wafermail/wafer/core/durable"
)

// TestDeliverQuota: deliveries count, in folders too; with Enforce what has no
// room is not delivered to anybody, without it everything is.
func TestDeliverQuota(t *testing.T) {
	w := newWorld(t, durable.SyncAuto)
	q := &Quota{Storage: 300, Rules: []QuotaRule{{Folder: "Junk", Ignore: true}}, Warn: []int{50}}
	var warned []string
	w.d.o.Quota = func(root string) *Quota {
		mine := *q
		mine.Warned = func(n int) { warned = append(warned, fmt.Sprintf("%s %d", filepath.Base(root), n)) }
		return &mine
	}
	ann, bob := Target{Maildir: w.root + "/ann"}, Target{Maildir: w.root + "/bob"}
	junk := Target{Maildir: w.root + "/ann", Folder: "Junk"}
	deliver := func(enforce bool, targets ...Target) error {
		t.Helper()
		w.d.o.Enforce = enforce
		for _, target := range targets {
			if err := w.d.Ensure(target); err != nil {
				t.Fatal(err)
			}
		}
		dr, err := w.d.Begin(targets)
		if err != nil {
			t.Fatal(err)
		}
		defer dr.Close()
		if _, err := dr.Write(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		return dr.Deliver(context.Background(), targets, nil)
	}
	used := func(root string, octets, messages int64) {
		t.Helper()
		l := w.d.ledger(root)
		got, err := l.used()
		counted, _, cerr := l.count()
		if err != nil || cerr != nil || got != (Usage{octets, messages}) || counted != got {
			t.Errorf("used %+v, %v, counted %+v, %v, want %d octets in %d", got, err, counted, cerr, octets, messages)
		}
	}
	for range 2 {
		if err := deliver(true, ann, bob); err != nil {
			t.Fatal(err)
		}
	}
	if err := deliver(true, ann, junk); err != nil {
		t.Fatal(err)
	}
	used(ann.Maildir, 300, 3)
	used(bob.Maildir, 200, 2)
	slices.Sort(warned)
	if !slices.Equal(warned, []string{"ann 50", "bob 50"}) {
		t.Errorf("warned %q", warned)
	}
	if err := deliver(true, bob, ann); !errors.Is(err, ErrOverQuota) {
		t.Errorf("%v", err)
	}
	used(bob.Maildir, 200, 2)
	if err := deliver(true, junk); err != nil {
		t.Errorf("Junk is ignored, but %v", err)
	}
	if err := deliver(false, ann); err != nil {
		t.Errorf("without Enforce: %v", err)
	}
	used(ann.Maildir, 400, 4)
	w.d.o.Quota = nil // a maildirsize that is there is kept all the same
	if err := deliver(false, bob); err != nil {
		t.Fatal(err)
	}
	used(bob.Maildir, 300, 3)
	carl := Target{Maildir: w.root + "/carl"}
	if err := deliver(false, carl); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(carl.Maildir + "/" + maildirsizeName); !os.IsNotExist(err) {
		t.Errorf("a maildirsize was made for nobody: %v", err)
	}
}

// TestQuotaTogether: many append at once; nothing is lost in the sum and one
// warning fires once.
func TestQuotaTogether(t *testing.T) {
	p, path := testPool(t)
	s := openStore(t, p, path)
	var warned atomic.Int64
	s.SetQuota(Quota{Storage: 10_000, Warn: []int{50}, Warned: func(int) { warned.Add(1) }})
	f := openFolder(t, s, "INBOX")
	if _, err := s.Recount(context.Background()); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10 {
				appendText(t, f, strings.Repeat("x", 100), 0)
			}
		})
	}
	all.Wait()
	wantUsed(t, s, 8000, 80)
	if n := warned.Load(); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

// BenchmarkDeliverQuota delivers 4 KiB into a big mailbox from 16 sessions,
// with and without a quota.
func BenchmarkDeliverQuota(b *testing.B) {
	for _, limited := range []bool{false, true} {
		b.Run(fmt.Sprintf("quota=%v", limited), func(b *testing.B) {
			bar, err := durable.NewBarrier(durable.SyncAuto)
			if err != nil {
				b.Fatal(err)
			}
			defer bar.Close()
			o := DelivererOptions{State: b.TempDir(), Hostname: "mx", Barrier: bar, UID: -1, GID: -1, Logger: slog.New(slog.DiscardHandler)}
			if limited {
				o.Enforce = true
				o.Quota = func(string) *Quota { return &Quota{Storage: 1 << 40, Warn: []int{80, 95}, Warned: func(int) {}} }
			}
			d, err := NewDeliverer(context.Background(), o)
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			to := []Target{{Maildir: bigFolder(b, 5000)}}
			body := make([]byte, 4096)
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					dr, err := d.Begin(to)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := dr.Write(body); err != nil {
						b.Fatal(err)
					}
					if err := dr.Deliver(context.Background(), to, nil); err != nil {
						b.Fatal(err)
					}
					dr.Close()
				}
			})
		})
	}
}
