package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
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
	KiB    float64 `json:"kib"`    // resident memory for one
	MiB    float64 `json:"mib"`    // of the whole server with a third of them
	Took   float64 `json:"open_s"` // to open a third of them
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
	dir, err := folder(work, name)
	if err != nil {
		return err
	}
	if err := fill(filepath.Join(dir, "mail", domain)); err != nil {
		return err
	}
	w, err := startWafer(ctx, s.wafer, dir, name, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	// The first two crowds fill the room that starting left in the server's heap;
	// what the third one adds is what connections cost.
	start := time.Now()
	first := w.open(ctx, row, s.idle)
	defer first.close()
	row.Took = time.Since(start).Seconds()
	one, err := w.memoryAtRest(ctx)
	if err != nil {
		return err
	}
	second := w.open(ctx, row, s.idle)
	defer second.close()
	before, err := w.memoryAtRest(ctx)
	if err != nil {
		return err
	}
	third := w.open(ctx, row, s.idle)
	defer third.close()
	row.Conns = len(first.clients) + len(second.clients) + len(third.clients)
	row.Errors = first.failed + second.failed + third.failed
	if err := errors.Join(first.first, second.first, third.first); err != nil {
		row.First = err.Error()
	}
	if len(first.clients) == 0 || len(third.clients) == 0 {
		return fmt.Errorf("%s: %s%s", name, row.First, tail(w.log))
	}
	after, err := w.memoryAtRest(ctx)
	if err != nil {
		return err
	}
	row.MiB = float64(one) / (1 << 20)
	row.KiB = float64(after-before) / 1024 / float64(len(third.clients))
	return nil
}

// memoryAtRest is what the server holds a while after the last event.
func (w *waferServer) memoryAtRest(ctx context.Context) (int64, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(rest):
	}
	return w.meter.memory(), nil
}

// fill makes each user's Maildir with ten messages.
func fill(root string) error {
	for n := range boxes {
		box := filepath.Join(root, "u"+strconv.Itoa(n))
		for _, sub := range []string{"tmp", "new", "cur"} {
			if err := os.MkdirAll(filepath.Join(box, sub), 0o700); err != nil {
				return err
			}
		}
		m := worker{loader: &loader{size: 4096}, body: text(4096)}
		for i := range 10 {
			m.compose(i, "s@sender.test", "u"+strconv.Itoa(n)+"@"+domain)
			name := fmt.Sprintf("%d.M%dP1.bench:2,S", 1700000000+i, i)
			if err := os.WriteFile(filepath.Join(box, "cur", name), bytes.TrimSuffix(m.buf, []byte(".\r\n")), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
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
					if c.failed++; c.first == nil {
						c.first = err
					}
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
