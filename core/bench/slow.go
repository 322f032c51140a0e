package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// slowRow is what sessions that wait for DNS do to the others.
type slowRow struct {
	Waiting int     `json:"waiting"` // sessions whose names nobody answers for
	Stored  float64 `json:"stored_per_second"`
	P99     float64 `json:"p99_ms"` // dot→250 of the others
	Errors  int     `json:"errors"`
	First   string  `json:"first_error,omitempty"`
	Peak    float64 `json:"resident_mib"` // of the server at the end of the run
	Load    float64 `json:"load"`
}

// slowConns is how many connections send mail meanwhile.
const slowConns = 10

// measureSlow loads a server with its policies, without sessions that wait for
// DNS and with s.waiting of them.
func measureSlow(ctx context.Context, s *settings, work string, r *report) error {
	for round := range s.repeat {
		for _, waiting := range []int{0, s.waiting} {
			calm(ctx, s.calm)
			row, err := measureWaiting(ctx, s, work, fmt.Sprintf("slow-%d-%d", round, waiting), waiting)
			if err != nil {
				return err
			}
			r.Slows = append(r.Slows, *row)
			note("round %d: %d sessions wait for DNS: %.0f/s, p99 %.1f ms, %.0f MiB, %d errors %s", round+1, waiting, row.Stored, row.P99, row.Peak, row.Errors, row.First)
		}
	}
	return nil
}

func measureWaiting(ctx context.Context, s *settings, work, name string, waiting int) (row *slowRow, err error) {
	row = &slowRow{Waiting: waiting, Load: loadAverage()}
	dir, err := folder(work, name)
	if err != nil {
		return nil, err
	}
	w, err := startWafer(ctx, s.wafer, dir, name, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	var warm = loader{address: w.smtp, conns: slowConns, size: 4096, duration: time.Second}
	warm.run(ctx)
	ctx, cancel := context.WithCancel(ctx)
	var crowd sync.WaitGroup
	defer crowd.Wait()
	defer cancel()
	failed := make(chan error, waiting)
	for i := range waiting {
		crowd.Go(func() {
			if err := waitForDNS(ctx, w.smtp, i); err != nil && ctx.Err() == nil {
				failed <- err
			}
		})
	}
	if waiting > 0 { // until they wait
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
	l := loader{address: w.smtp, conns: slowConns, size: 4096, duration: s.duration}
	o := l.run(ctx)
	row.Stored = float64(o.accepted) / o.ended.Sub(o.began).Seconds()
	row.P99 = ms(quantile(o.waits, 0.99))
	row.Errors = o.errors + len(failed)
	if len(failed) > 0 {
		row.First = (<-failed).Error()
	} else if o.first != nil {
		row.First = o.first.Error()
	}
	row.Peak = float64(w.meter.memory()) / (1 << 20)
	return row, nil
}

// waitForDNS sends MAIL from domains that no name server answers for, over and
// over, until ctx ends.
func waitForDNS(ctx context.Context, address string, n int) error {
	for round := 0; ctx.Err() == nil; round++ {
		c, err := smtpOpen(address, 4, n, false)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
		err = c.command(fmt.Sprintf("MAIL FROM:<x@n%d-%d.slow.test>", n, round), "250")
		if err == nil {
			err = c.command("RCPT TO:<u1@"+domain+">", "450")
		}
		stop()
		if err != nil {
			return err
		}
		c.quit()
	}
	return nil
}
