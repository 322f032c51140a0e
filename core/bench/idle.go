package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// idleRow is what connections cost that do nothing.
type idleRow struct {
	Door   string  `json:"door"` // "smtp", "imap"
	TLS    bool    `json:"tls"`
	Conns  int     `json:"conns"` // open at the end
	Errors int     `json:"errors"`
	First  string  `json:"first_error,omitempty"`
	KiB    float64 `json:"kib"`      // resident memory for each
	Heap   float64 `json:"heap_kib"` // of the heap in use, for each
	Took   float64 `json:"open_s"`   // to open all
	Load   float64 `json:"load_before"`
}

// rest is how long the server is left alone before its memory is read.
const rest = 5 * time.Second

// measureIdle measures each door on a fresh server.
func measureIdle(ctx context.Context, s *settings, work string, r *report) error {
	for _, row := range []idleRow{{Door: "smtp"}, {Door: "smtp", TLS: true}, {Door: "imap"}, {Door: "imap", TLS: true}} {
		calm(ctx, s.calm)
		if err := measureDoor(ctx, s, work, &row); err != nil {
			return err
		}
		r.Idles = append(r.Idles, row)
		note("idle %s, TLS %v: %.1f KiB for each of %d connections, %d errors", row.Door, row.TLS, row.KiB, row.Conns, row.Errors)
	}
	return nil
}

func measureDoor(ctx context.Context, s *settings, work string, row *idleRow) (err error) {
	row.Load = loadAverage()
	name := fmt.Sprintf("idle-%s-%v", row.Door, row.TLS)
	dir := filepath.Join(work, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	w, err := startWafer(ctx, s.wafer, dir, name, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	// Each user's mailbox holds some mail, and whatever is made at first use
	// has been made before the first look at the memory.
	if _, err := (&loader{address: w.smtp, conns: 10, size: 4096, duration: time.Second}).run(ctx), ctx.Err(); err != nil {
		return err
	}
	few := w.open(ctx, row, 200)
	few.close()
	if few.first != nil {
		return fmt.Errorf("%s: %w%s", name, few.first, tail(w.log))
	}
	before, heap0, err := w.memoryAtRest(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	many := w.open(ctx, row, s.idle)
	defer many.close()
	row.Took = time.Since(start).Seconds()
	row.Conns, row.Errors = len(many.clients), many.failed
	if many.first != nil {
		row.First = many.first.Error()
	}
	if row.Conns == 0 {
		return fmt.Errorf("%s: %w%s", name, many.first, tail(w.log))
	}
	after, heap1, err := w.memoryAtRest(ctx)
	if err != nil {
		return err
	}
	row.KiB = float64(after-before) / 1024 / float64(row.Conns)
	row.Heap = (float64(heap1) - float64(heap0)) / 1024 / float64(row.Conns)
	return nil
}

// memoryAtRest is what the server holds a while after the last event.
func (w *waferServer) memoryAtRest(ctx context.Context) (resident int64, heap uint64, err error) {
	select {
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	case <-time.After(rest):
	}
	st, err := w.status(ctx)
	if err != nil {
		return 0, 0, err
	}
	return w.meter.memory(), st.Memory, nil
}

// crowd is a number of open connections.
type crowd struct {
	clients []*client
	failed  int
	first   error
}

func (c *crowd) close() {
	for _, cl := range c.clients {
		_ = cl.conn.Close() // the peer sees it
	}
}

// open opens n connections, eight at a time.
func (w *waferServer) open(ctx context.Context, row *idleRow, n int) *crowd {
	c := &crowd{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				cl, err := w.openOne(row, i)
				mu.Lock()
				if err != nil {
					c.failed++
					c.first = errors.Join(c.first, err)
				} else {
					c.clients = append(c.clients, cl)
				}
				many := c.failed > 20
				mu.Unlock()
				if many {
					return
				}
			}
		})
	}
	wg.Wait()
	return c
}

func (w *waferServer) openOne(row *idleRow, i int) (*client, error) {
	if row.Door == "smtp" {
		return smtpOpen(w.smtp, 4, i, row.TLS)
	}
	address := w.doors["imap"]
	if row.TLS {
		address = w.doors["imaps"]
	}
	return imapIdle(address, 4, i, fmt.Sprintf("u%d@%s", i%boxes, domain), password, row.TLS)
}
