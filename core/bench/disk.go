package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// diskRow is what the bare disk does: files made, written, made durable by a
// sync that the writers share, and renamed.
type diskRow struct {
	Size    int     `json:"size"`
	Writers int     `json:"writers"`
	Rate    float64 `json:"files_per_s"`
	P99     float64 `json:"p99_ms"`
	Round   int     `json:"round"`
	Load    float64 `json:"load_before"`
}

// measureDisk measures the limit that no durable delivery can pass.
func measureDisk(ctx context.Context, s *settings, work string, r *report) error {
	for round := range s.repeat {
		for _, size := range s.sizes {
			for _, writers := range s.conns {
				calm(ctx, s.calm)
				row, err := probeDisk(ctx, work, size, writers, min(s.duration, 2*time.Second))
				if err != nil {
					return err
				}
				row.Round = round + 1
				r.Disks = append(r.Disks, *row)
				note("round %d: disk, %d octets, %d writers: %.0f/s", row.Round, size, writers, row.Rate)
			}
		}
	}
	return nil
}

func probeDisk(ctx context.Context, work string, size, writers int, long time.Duration) (*diskRow, error) {
	dir, err := folder(work, "disk")
	if err != nil {
		return nil, err
	}
	root, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close() // only read
	if err := syncAll(root); err != nil {
		return nil, err
	}
	row := &diskRow{Size: size, Writers: writers, Load: loadAverage()}
	b := text(size)[:size]
	g := newGate(func() error { return syncAll(root) })
	start := time.Now()
	end := start.Add(long)
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			mine, err := writeFiles(ctx, filepath.Join(dir, strconv.Itoa(w)), b, g, end)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			failed = errors.Join(failed, err)
		})
	}
	wg.Wait()
	if failed != nil {
		return nil, failed
	}
	row.Rate = float64(len(took)) / time.Since(start).Seconds()
	row.P99 = ms(quantile(took, 0.99))
	return row, nil
}

// writeFiles is one writer, with a Maildir of its own.
func writeFiles(ctx context.Context, box string, b []byte, g *gate, end time.Time) (took []time.Duration, err error) {
	for _, d := range []string{"tmp", "new"} {
		if err := os.MkdirAll(filepath.Join(box, d), 0o700); err != nil {
			return nil, err
		}
	}
	for n := 0; time.Now().Before(end) && ctx.Err() == nil; n++ {
		start := time.Now()
		name := strconv.Itoa(n)
		if err := os.WriteFile(filepath.Join(box, "tmp", name), b, 0o600); err != nil {
			return nil, err
		}
		if err := g.pass(); err != nil {
			return nil, fmt.Errorf("sync: %w", err)
		}
		if err := os.Rename(filepath.Join(box, "tmp", name), filepath.Join(box, "new", name)); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	return took, forget(filepath.Join(box, "new"))
}

// gate lets those who wait together pass with one sync that began after all of
// them had come.
type gate struct {
	sync func() error

	mu      sync.Mutex
	changed *sync.Cond
	begun   int  // syncs
	ended   int  // syncs
	running bool // begun > ended
	err     error
}

func newGate(sync_ func() error) *gate {
	g := &gate{sync: sync_}
	g.changed = sync.NewCond(&g.mu)
	return g
}

func (g *gate) pass() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	mine := g.begun + 1 // the first sync that begins from now on
	for g.ended < mine {
		if g.running {
			g.changed.Wait()
			continue
		}
		g.running = true
		g.begun++
		g.mu.Unlock()
		err := g.sync()
		g.mu.Lock()
		g.running = false
		g.ended = g.begun
		g.err = errors.Join(g.err, err)
		g.changed.Broadcast()
	}
	return g.err
}
