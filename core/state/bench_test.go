package state

import (
	"strconv"
	"testing"
	"time"
)

// greylist is n keys as a greylist has them.
func greylist(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = "inbound/greylist\x00192.0.2.0/24 alice@example.com " + strconv.Itoa(i)
	}
	return keys
}

// BenchmarkSeen: of keys that memory or the disk knows.
func BenchmarkSeen(b *testing.B) {
	s, keys := opened(b, b.TempDir(), Options{}), greylist(100_000)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for i := 0; p.Next(); i++ {
			if _, err := s.Seen(ctx, keys[i%len(keys)], time.Hour, start); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPut(b *testing.B) {
	s, keys, value := opened(b, b.TempDir(), Options{}), greylist(100_000), []byte("1795000000000+")
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for i := 0; p.Next(); i++ {
			if err := s.Put(ctx, keys[i%len(keys)], value, time.Hour, start); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkGet: of keys that only the disk knows.
func BenchmarkGet(b *testing.B) {
	s, keys := opened(b, b.TempDir(), Options{}), greylist(100_000)
	for _, k := range keys {
		if err := s.Put(ctx, k, []byte("1795000000000+"), time.Hour, start); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.flush(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for i := 0; p.Next(); i++ {
			if _, ok, err := s.Get(ctx, keys[i%len(keys)], start); err != nil || !ok {
				b.Fatal(ok, err)
			}
		}
	})
}
