package wasm

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

func BenchmarkHelo(b *testing.B) {
	p := load(b, shared(b), plugin(b, "helo"), LoadOptions{})
	benchmark(b, p, event(b, policy.Helo, "mail.example.com"))
}

func BenchmarkHeloRefused(b *testing.B) {
	p := load(b, shared(b), plugin(b, "helo"), LoadOptions{})
	benchmark(b, p, event(b, policy.Helo, "mailhost"))
}

func BenchmarkRatelimit(b *testing.B) {
	p := load(b, shared(b), plugin(b, "ratelimit"), LoadOptions{Config: map[string][]string{"limit": {"1000000000"}}, Grants: []string{"count"}})
	benchmark(b, p, event(b, policy.Connect, ""))
}

func benchmark(b *testing.B, p *Plugin, ev *policy.Event) {
	w := newWorld()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Call(context.Background(), ev, w); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoadAgain(b *testing.B) {
	load(b, shared(b), plugin(b, "helo"), LoadOptions{})
	code := plugin(b, "helo")
	for b.Loop() {
		p, err := shared(b).Load(context.Background(), code, LoadOptions{Name: "b"})
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkInstance starts an instance from the image and asks it once.
func BenchmarkInstance(b *testing.B) {
	p := load(b, shared(b), plugin(b, "helo"), LoadOptions{Limits: Limits{Calls: 1}})
	benchmark(b, p, event(b, policy.Helo, "mail.example.com"))
}

// BenchmarkLoadCold loads into a new Host, with and without its cache folder
// filled.
func BenchmarkLoadCold(b *testing.B) {
	code := plugin(b, "helo")
	once := func(b *testing.B, dir string) {
		h, err := New(Options{CacheDir: dir})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := h.Load(context.Background(), code, LoadOptions{Name: "b"}); err != nil {
			b.Fatal(err)
		}
		if err := h.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("compile", func(b *testing.B) {
		for b.Loop() {
			once(b, "")
		}
	})
	b.Run("cached", func(b *testing.B) {
		dir := b.TempDir() + "/cache"
		once(b, dir)
		for b.Loop() {
			once(b, dir)
		}
	})
}

// still is a world without locks, so that only the plugin is measured.
func still() *policy.Table { return &policy.Table{Time: time.Unix(1795000000, 0)} }

// BenchmarkDecision is one decision of a Go guest that says nothing (next) and
// one that refuses, through the pool.
func BenchmarkDecision(b *testing.B) {
	for name, helo := range map[string]string{"next": "mail.example.com", "refused": "mailhost"} {
		b.Run(name, func(b *testing.B) {
			p := load(b, shared(b), plugin(b, "helo"), LoadOptions{})
			ev, w := event(b, policy.Helo, helo), still()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Call(context.Background(), ev, w); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSession is one decision through a policy.Session, as a door asks it.
func BenchmarkSession(b *testing.B) {
	c := &policy.Check{Name: "helo", At: []policy.Stage{policy.Helo}, Plugin: load(b, shared(b), plugin(b, "helo"), LoadOptions{})}
	set := policy.NewSet([]*policy.Policy{{Name: "p", On: []string{"mx"}, Checks: []*policy.Check{c}}}, policy.SetOptions{})
	ev, s := event(b, policy.Helo, "mail.example.com"), set.Session("mx")
	b.ReportAllocs()
	for b.Loop() {
		s.Ask(context.Background(), ev)
	}
}

// BenchmarkCrowd is decisions of 64 goroutines that share one plugin.
func BenchmarkCrowd(b *testing.B) {
	p := load(b, shared(b), plugin(b, "helo"), LoadOptions{})
	const crowd = 64
	b.ReportAllocs()
	b.SetParallelism(crowd / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		ev, w := event(b, policy.Helo, "mail.example.com"), still()
		for pb.Next() {
			if _, err := p.Call(context.Background(), ev, w); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
}

// BenchmarkFreshInstance makes an instance from the image and throws it away.
func BenchmarkFreshInstance(b *testing.B) {
	p := load(b, shared(b), plugin(b, "helo"), LoadOptions{})
	b.ReportAllocs()
	for b.Loop() {
		in, err := p.program.newInstance(p.image, p.limits)
		if err != nil {
			b.Fatal(err)
		}
		in.close()
	}
}

// BenchmarkProbe is a decision while hostile plugins run all the time on as many
// goroutines as there are cores; it reports the slowest hundredth too.
func BenchmarkProbe(b *testing.B) {
	spinning := load(b, shared(b), new(builder).complete(spin...).bytes(), LoadOptions{})
	for name, attackers := range map[string]int{"alone": 0, "attacked": runtime.GOMAXPROCS(0)} {
		b.Run(name, func(b *testing.B) {
			p := load(b, shared(b), plugin(b, "helo"), LoadOptions{})
			ctx, stop := context.WithCancel(context.Background())
			var crowd sync.WaitGroup
			for range attackers {
				crowd.Go(func() {
					for ctx.Err() == nil {
						in, err := spinning.pool.take(ctx, time.Second)
						if err != nil {
							return
						}
						_, _ = spinning.askWith(ctx, in, event(b, policy.Helo, "x"), still(), &spinning.limits) // past the breaker, on purpose
					}
				})
			}
			ev, w := event(b, policy.Helo, "mail.example.com"), still()
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				if _, err := p.Call(context.Background(), ev, w); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			stop()
			crowd.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
		})
	}
}
