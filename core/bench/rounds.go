package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// loadRow is one run of load.
type loadRow struct {
	Server     string  `json:"server"`
	Size       int     `json:"size"` // octets
	Conns      int     `json:"conns"`
	Round      int     `json:"round"`
	Accepted   int     `json:"accepted"`
	Errors     int     `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	Rate       float64 `json:"accepted_per_s"`
	Stored     float64 `json:"stored_per_s"` // in the Maildirs
	P50        float64 `json:"p50_ms"`       // from the message's last octets to 250
	P99        float64 `json:"p99_ms"`
	CPU        float64 `json:"cpu_us"` // the server's, for one message
	Client     float64 `json:"client_cpu_us"`
	Peak       float64 `json:"peak_mib"`
	Probe      float64 `json:"probe_p99_ms"`
	Others     float64 `json:"others_pct"` // of the machine
	Load       float64 `json:"load_before"`
}

// measureLoad runs every round on every server.
func measureLoad(ctx context.Context, s *settings, work string, r *report) (err error) {
	servers, err := startServers(ctx, s, work, r)
	defer func() {
		for _, srv := range servers {
			if e := srv.stop(); e != nil {
				err = errors.Join(err, fmt.Errorf("stop %s: %w", srv.name, e))
			}
		}
	}()
	if err != nil {
		return err
	}
	for _, srv := range servers {
		note("warming up %s", srv.name)
		if _, err := srv.load(ctx, &loader{address: srv.smtp, conns: slices.Max(s.conns), size: 4096, duration: time.Second}); err != nil {
			return fmt.Errorf("%s: %w", srv.name, err)
		}
	}
	for round := range s.repeat {
		for _, size := range s.sizes {
			for _, conns := range s.conns {
				for _, srv := range servers {
					calm(ctx, s.calm)
					row, err := srv.load(ctx, &loader{address: srv.smtp, conns: conns, size: size, duration: s.duration, pipeline: s.pipeline})
					if err != nil {
						return fmt.Errorf("%s: %w", srv.name, err)
					}
					row.Round = round + 1
					r.Loads = append(r.Loads, *row)
					note("round %d: %d octets, %d connections, %s: %.0f/s, %.0f µs CPU (load %.1f, others %.0f %%)", row.Round, size, conns, srv.name, row.Stored, row.CPU, row.Load, row.Others)
				}
			}
		}
	}
	for _, srv := range servers {
		if err := srv.sound(); err != nil {
			return err
		}
	}
	return nil
}

// folder makes a new one that every account may pass through.
func folder(work, name string) (string, error) {
	dir, err := os.MkdirTemp(work, name+"-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// startServers starts those that s names and that can be had.
func startServers(ctx context.Context, s *settings, work string, r *report) (servers []*server, err error) {
	for _, name := range []string{waferPlain, waferPolicy, postfix} {
		if !slices.Contains(s.servers, name) {
			continue
		}
		dir, err := folder(work, name)
		if err != nil {
			return servers, err
		}
		var srv *server
		if name == postfix {
			var spool string
			if spool, err = folder(work, "spool"); err != nil {
				return servers, err
			}
			srv, err = startPostfix(ctx, dir, spool)
		} else {
			var w *waferServer
			if w, err = startWafer(ctx, s.wafer, dir, name, name == waferPolicy); err == nil {
				srv = &w.server
			}
		}
		if errors.Is(err, errNoPeer) {
			note("%v", err)
			r.Notes = append(r.Notes, err.Error()+".")
			continue
		}
		if err != nil {
			return servers, err
		}
		servers = append(servers, srv)
	}
	return servers, nil
}

// load runs l once, beside a probe, and takes the mail away again.
func (s *server) load(ctx context.Context, l *loader) (*loadRow, error) {
	row := &loadRow{Server: s.name, Size: l.size, Conns: l.conns, Load: loadAverage()}
	watch, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var peak int64
	var rtts []time.Duration
	var probeErr error
	wg.Go(func() { peak = s.meter.peak(watch) })
	loading, loaded := context.WithCancel(ctx)
	defer loaded()
	wg.Go(func() { rtts, probeErr = probe(loading, s.smtp) })

	cpu0, err := s.meter.cpu()
	if err != nil {
		return nil, err
	}
	own0 := ownCPU()
	busy0, all0 := machine()
	o := l.run(ctx)
	loaded()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if o.accepted == 0 {
		return nil, fmt.Errorf("no message was accepted: %w%s", o.first, tail(s.log))
	}
	stored, err := s.settle(ctx, o.accepted)
	if err != nil {
		return nil, err
	}
	if stored.Before(o.ended) {
		stored = o.ended
	}
	cpu1, err := s.meter.cpu()
	if err != nil {
		return nil, err
	}
	own := ownCPU() - own0
	busy1, all1 := machine()
	stop()
	wg.Wait()
	if probeErr != nil {
		return nil, probeErr
	}

	n := float64(o.accepted)
	row.Accepted, row.Errors = o.accepted, o.errors
	if o.first != nil {
		row.FirstError = o.first.Error()
	}
	row.Rate = n / o.ended.Sub(o.began).Seconds()
	row.Stored = n / stored.Sub(o.began).Seconds()
	row.P50, row.P99 = ms(quantile(o.waits, 0.50)), ms(quantile(o.waits, 0.99))
	row.CPU = float64((cpu1 - cpu0).Microseconds()) / n
	row.Client = float64(own.Microseconds()) / n
	row.Peak = float64(peak) / (1 << 20)
	row.Probe = ms(quantile(rtts, 0.99))
	if all1 > all0 {
		row.Others = 100 * float64(busy1-busy0-(cpu1-cpu0)-own) / float64(all1-all0)
	}
	return row, s.clear(ctx)
}
