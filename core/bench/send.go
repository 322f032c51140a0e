package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sendRow is mail on its way out.
type sendRow struct {
	Beside  string  `json:"beside"` // what the other destination is
	Arrived float64 `json:"arrived_per_second"`
	CPU     float64 `json:"cpu_us"`         // of the server, for a message
	P50     float64 `json:"transit_p50_ms"` // from the client's composing it to its arrival
	P99     float64 `json:"transit_p99_ms"`
	Errors  int     `json:"errors"`
	Load    float64 `json:"load"`
}

const (
	sendConns   = 10
	badMessages = 100
)

// fars are the hosts that mail is sent to; the first is the good one.
var fars = []string{"good", "slow", "silent", "dead"}

// farAddress is where the i-th of them is.
func farAddress(i int) string { return "127.0.7." + strconv.Itoa(i+1) }

// measureSend sends mail through the queue to a sink, alone and beside a bad
// destination.
func measureSend(ctx context.Context, s *settings, work string, r *report) error {
	for round := range s.repeat {
		for i, beside := range append([]string{"alone"}, fars[1:]...) {
			calm(ctx, s.calm)
			row, err := measureBeside(ctx, s, work, fmt.Sprintf("send-%d-%d", round, i), beside)
			if err != nil {
				return err
			}
			r.Sends = append(r.Sends, *row)
			note("round %d: out, %s: %.0f/s, %.0f µs, transit p50 %.1f ms, %d errors", round+1, beside, row.Arrived, row.CPU, row.P50, row.Errors)
		}
	}
	return nil
}

func measureBeside(ctx context.Context, s *settings, work, name, beside string) (row *sendRow, err error) {
	row = &sendRow{Beside: beside, Load: loadAverage()}
	dir, err := folder(work, name)
	if err != nil {
		return nil, err
	}
	good, port, err := startSink(farAddress(0)+":0", 0)
	if err != nil {
		return nil, err
	}
	defer good.stop()
	slow, _, err := startSink(farAddress(1)+":"+port, 2*time.Second)
	if err != nil {
		return nil, err
	}
	defer slow.stop()
	silent, err := net.Listen("tcp", farAddress(2)+":"+port) // takes connections and says nothing
	if err != nil {
		return nil, err
	}
	defer silent.Close() // it is over
	w, err := startWafer(ctx, s.wafer, dir, name, false, fmt.Sprintf("\nrelay {\n  port    = %s\n  mta_sts = false\n}\nlistener \"submission\" {\n  profile = \"submission\"\n  address = \"127.0.0.1:0\"\n}\n", port))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	l := loader{
		address: w.doors["submission"], conns: sendConns, size: 4096, duration: s.duration, user: "u0@" + domain,
		to: func(n int) string { return fmt.Sprintf("x%d@d%d.good.far.test", n, n%50) },
	}
	warm := l
	warm.duration = time.Second
	sent := warm.run(ctx).accepted
	if err := good.await(ctx, sent); err != nil {
		return nil, err
	}
	good.reset()
	var bad sync.WaitGroup
	defer bad.Wait()
	if beside != "alone" {
		b := l
		b.conns, b.limit, b.network, b.user = 5, badMessages, 5, "u1@"+domain
		b.to = func(n int) string { return fmt.Sprintf("x%d@d.%s.far.test", n, beside) }
		bad.Go(func() { b.run(ctx) })
	}
	before, err := w.meter.cpu()
	if err != nil {
		return nil, err
	}
	o := l.run(ctx)
	if err := good.await(ctx, o.accepted); err != nil {
		return nil, err
	}
	after, err := w.meter.cpu()
	if err != nil {
		return nil, err
	}
	transits, last := good.seen()
	row.Arrived = float64(len(transits)) / last.Sub(o.began).Seconds()
	row.CPU = float64((after - before).Microseconds()) / float64(len(transits))
	row.P50, row.P99 = ms(quantile(transits, 0.5)), ms(quantile(transits, 0.99))
	row.Errors = o.errors
	return row, nil
}

// farSink is an SMTP server that takes everything and keeps nothing but the times.
type farSink struct {
	ln    net.Listener
	delay time.Duration // before each reply to a message
	group sync.WaitGroup

	mu       sync.Mutex
	open     map[net.Conn]bool
	transits []time.Duration
	last     time.Time
}

func startSink(address string, delay time.Duration) (s *farSink, port string, err error) {
	s = &farSink{delay: delay, open: map[net.Conn]bool{}}
	if s.ln, err = net.Listen("tcp", address); err != nil {
		return nil, "", err
	}
	_, port, err = net.SplitHostPort(s.ln.Addr().String())
	s.group.Go(s.accept)
	return s, port, err
}

func (s *farSink) accept() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.open[c] = true
		s.mu.Unlock()
		s.group.Go(func() {
			s.serve(c)
			s.mu.Lock()
			delete(s.open, c)
			s.mu.Unlock()
			_ = c.Close() // it is over
		})
	}
}

func (s *farSink) stop() {
	_ = s.ln.Close() // it is over
	s.mu.Lock()
	for c := range s.open {
		_ = c.Close() // it is over
	}
	s.mu.Unlock()
	s.group.Wait()
}

// serve answers in groups, as pipelining clients want it.
func (s *farSink) serve(c net.Conn) {
	r, w := bufio.NewReaderSize(c, 16<<10), bufio.NewWriter(c)
	say := func(line string) {
		_, _ = w.WriteString(line + "\r\n") // Flush has the error
		if r.Buffered() == 0 {
			_ = w.Flush() // the next read fails
		}
	}
	say("220 sink")
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		verb, _, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		switch string(verb) {
		case "EHLO":
			say("250-sink\r\n250-PIPELINING\r\n250 8BITMIME")
		case "DATA":
			say("354 go on")
			if !s.message(r) {
				return
			}
			if s.delay > 0 {
				time.Sleep(s.delay)
			}
			say("250 2.0.0 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

// message reads to the final dot, and notes how long the message has taken.
func (s *farSink) message(r *bufio.Reader) bool {
	var composed int64
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return false
		}
		if string(line) == ".\r\n" {
			break
		}
		if rest, ok := strings.CutPrefix(string(line[:min(len(line), 40)]), "Message-ID: <"); ok && composed == 0 {
			digits, _, _ := strings.Cut(rest, ".")
			composed, _ = strconv.ParseInt(digits, 10, 64) // of the load generator, or of a notice
		}
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = now
	s.transits = append(s.transits, now.Sub(time.Unix(0, composed)))
	return true
}

func (s *farSink) seen() ([]time.Duration, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transits, s.last
}

func (s *farSink) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.transits = nil
}

// await returns when n messages have come.
func (s *farSink) await(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		got, _ := s.seen()
		if len(got) >= n {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d messages have arrived: %w", len(got), n, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
