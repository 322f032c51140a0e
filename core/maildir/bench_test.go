package maildir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/durable"
)

// bigFolder makes a Maildir with n messages of 4 KiB as wafer or Dovecot name them.
func bigFolder(b *testing.B, n int) string {
	path := filepath.Join(b.TempDir(), "box")
	body := strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef01234567890123\r\n", 64)
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(path, sub), 0o700); err != nil {
			b.Fatal(err)
		}
	}
	for i := range n {
		name := fmt.Sprintf("%s/cur/%d.M%06dP1234Q%d.host.example,S=%d,W=%d:2,S", path, 1700000000+i, i, i, len(body), len(body))
		if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return path
}

func benchOpen(b *testing.B, p *Pool, path string) *Folder {
	s, err := p.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	f, err := s.Folder(context.Background(), "INBOX")
	if err != nil {
		b.Fatal(err)
	}
	return f
}

func noSyncPool() *Pool {
	return NewPool(Options{Sync: func(string) error { return nil }, UID: -1, GID: -1})
}

// BenchmarkOpen opens a folder of 10,000 messages in a new process: first
// means that there is no dovecot-uidlist either, cold that there is no index,
// changed that something happened since it was written, warm that nothing did.
func BenchmarkOpen(b *testing.B) {
	const n = 10_000
	path := bigFolder(b, n)
	prepare := map[string]func(){
		"first":   func() { os.Remove(path + "/" + indexName); os.Remove(path + "/" + uidlistName) },
		"cold":    func() { os.Remove(path + "/" + indexName) },
		"changed": func() { os.WriteFile(path+"/cur/.x", nil, 0o600); os.Remove(path + "/cur/.x") },
		"warm":    func() {},
	}
	for _, name := range []string{"first", "cold", "changed", "warm"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				prepare[name]()
				p := noSyncPool()
				b.StartTimer()
				f := benchOpen(b, p, path)
				b.StopTimer()
				if f.Status().Messages != n {
					b.Fatal("messages are missing")
				}
				f.Close()
				p.Close()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkMemory reports what a message costs in an open folder.
func BenchmarkMemory(b *testing.B) {
	const n = 10_000
	path := bigFolder(b, n)
	for _, name := range []string{"cold", "warm"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if name == "cold" {
					os.Remove(path + "/" + indexName)
				}
				var before, after runtime.MemStats
				p := noSyncPool()
				runtime.GC()
				runtime.ReadMemStats(&before)
				f := benchOpen(b, p, path)
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/n, "B/message")
				f.Close()
				p.Close()
			}
		})
	}
}

func BenchmarkRefresh(b *testing.B) {
	path := bigFolder(b, 10_000)
	p := noSyncPool()
	f := benchOpen(b, p, path)
	defer p.Close()
	defer f.Close()
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Refresh(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStore10000(b *testing.B) {
	path := bigFolder(b, 10_000)
	p := NewPool(Options{UID: -1, GID: -1})
	f := benchOpen(b, p, path)
	defer p.Close()
	defer f.Close()
	uids := uidsOf(f)
	op := FlagAdd
	for b.Loop() {
		if _, _, err := f.SetFlags(context.Background(), uids, op, Flagged, 0); err != nil {
			b.Fatal(err)
		}
		op = FlagAdd + FlagRemove - op
	}
}

// BenchmarkAppend appends 4 KiB durably, from one and from many sessions.
func BenchmarkAppend(b *testing.B) {
	body := strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef01234567890123\r\n", 64)
	for _, par := range []int{1, 8} {
		b.Run(fmt.Sprintf("sessions=%d", par), func(b *testing.B) {
			bar, err := durable.NewBarrier(durable.SyncAuto)
			if err != nil {
				b.Fatal(err)
			}
			defer bar.Close()
			p := NewPool(Options{Barrier: bar, UID: -1, GID: -1})
			f := benchOpen(b, p, filepath.Join(b.TempDir(), "box"))
			defer p.Close()
			defer f.Close()
			b.SetParallelism(par)
			if par == 1 {
				for b.Loop() {
					appendText(b, f, body, Seen)
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					appendText(b, f, body, Seen)
				}
			})
		})
	}
}
