package tape

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

// mixed is octets that compress about as events do: words, numbers, and digests.
func mixed(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"inbound/spf", "v=spf1 include:", "example.org", "192.0.2.", "reject", "TXT", "fuel", "mx"}
	var b []byte
	for len(b) < n {
		b = append(b, words[r.IntN(len(words))]...)
		b = binary.LittleEndian.AppendUint32(b, r.Uint32())
	}
	return b[:n]
}

// BenchmarkAppend is what a session pays. The disk takes nothing, and chunks come
// back at once, so that only Append is measured.
func BenchmarkAppend(b *testing.B) {
	for _, goroutines := range []int{1, 8} {
		b.Run(fmt.Sprint(goroutines, " goroutines"), func(b *testing.B) {
			tape := open(b, b.TempDir(), Options{Queue: 1 << 30})
			defer tape.Close()
			data := mixed(1 << 10)
			fill := func(into []byte) []byte { return append(into, data...) }
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			b.SetParallelism(max(1, goroutines/2)) // times GOMAXPROCS
			if goroutines == 1 {
				for b.Loop() {
					tape.Append(noon, "0123456789abcdef", fill)
					tape.forget()
				}
				return
			}
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					tape.Append(noon, "0123456789abcdef", fill)
					tape.forget()
				}
			})
		})
	}
}

// forget makes room as the writer does, without writing.
func (t *Tape) forget() {
	t.mu.Lock()
	var c *chunk
	if n := len(t.full); n > 0 {
		c = t.full[n-1]
		t.full = t.full[:n-1]
	}
	t.mu.Unlock()
	if c != nil {
		t.release(c)
	}
}

// BenchmarkEndToEnd is from Append to the disk, as fast as the writer can.
func BenchmarkEndToEnd(b *testing.B) {
	for i := range 4 {
		kind, fast := secrets[i%2], i >= 2
		b.Run(fmt.Sprint(kind.name, " fast ", fast), func(b *testing.B) {
			tape := open(b, b.TempDir(), Options{Secret: kind.secret, Fast: fast, Now: time.Now})
			data := mixed(16 << 20)
			b.SetBytes(1 << 10)
			b.ReportAllocs()
			var mine atomic.Uint64
			for b.Loop() {
				for mine.Load()-tape.Written() > 32<<10 { // the queue is full: wait for the disk
					time.Sleep(100 * time.Microsecond)
				}
				at := mine.Add(1) << 10 % uint64(len(data))
				tape.Append(noon, "0123456789abcdef", func(into []byte) []byte { return append(into, data[at:at+1<<10]...) })
			}
			if err := tape.Close(); err != nil || tape.Dropped() > 0 {
				b.Fatal(err, tape.Dropped())
			}
		})
	}
}

// BenchmarkRead reads 64 MiB of entries.
func BenchmarkRead(b *testing.B) {
	for _, kind := range secrets {
		dir := b.TempDir()
		tape := open(b, dir, Options{Secret: kind.secret})
		data := mixed(64 << 20)
		for i := 0; i < len(data); i += 1 << 10 {
			for uint64(i>>10)-tape.Written() > 16<<10 {
				time.Sleep(100 * time.Microsecond)
			}
			tape.Append(noon, "0123456789abcdef", func(into []byte) []byte { return append(into, data[i:i+1<<10]...) })
		}
		shut(b, tape)
		for _, parallel := range []int{1, 2} {
			b.Run(fmt.Sprint(kind.name, " parallel ", parallel), func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				for b.Loop() {
					stats, err := Read(b.Context(), dir, Filter{}, ReadOptions{Secret: kind.secret, Parallel: parallel}, func(Entry) error { return nil })
					if err != nil || stats.Octets != int64(len(data)) {
						b.Fatal(err, stats)
					}
				}
			})
		}
	}
}
