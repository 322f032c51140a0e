package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestQuantileAndMedian(t *testing.T) {
	var d []time.Duration
	for i := 100; i > 0; i-- {
		d = append(d, time.Duration(i))
	}
	for _, row := range []struct {
		name string
		in   []time.Duration
		q    float64
		want time.Duration
	}{
		{"none", nil, 0.5, 0},
		{"one", []time.Duration{7}, 0.99, 7},
		{"half", d, 0.50, 51},
		{"nearly all", d, 0.99, 100},
	} {
		if got := quantile(row.in, row.q); got != row.want {
			t.Errorf("%s: got %d, want %d", row.name, got, row.want)
		}
	}
	same := func(f float64) float64 { return f }
	if got := median([]float64{9, 1, 5}, same); got != 5 {
		t.Errorf("median of three: got %v, want 5", got)
	}
	if got := median([]float64{9, 1, 5, 6}, same); got != 5.5 {
		t.Errorf("median of four: got %v, want 5.5", got)
	}
}

func TestProcFiles(t *testing.T) {
	if got, err := parseUsage([]byte("usage_usec 1500\nuser_usec 1000\n")); err != nil || got != 1500*time.Microsecond {
		t.Errorf("cpu.stat: got %v, %v", got, err)
	}
	if _, err := parseUsage([]byte("user_usec 1000\n")); err == nil {
		t.Error("cpu.stat without usage_usec: no error")
	}
	stat := "42 (a) (b c) S 1 42 42 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 9 0 1 2 3"
	if got, err := parseStat([]byte(stat)); err != nil || got != time.Second {
		t.Errorf("stat: got %v, %v, want 1s", got, err)
	}
	if _, err := parseStat([]byte("42 (a")); err == nil {
		t.Error("short stat: no error")
	}
	if got := parseKB([]byte("VmPeak:\t 9 kB\nVmRSS:\t   12 kB\n"), "VmRSS:"); got != 12*1024 {
		t.Errorf("status: got %d", got)
	}
	mounts := "22 1 8:1 / / rw - ext4 /dev/a rw\n23 22 0:5 / /var/tmp rw,nodev shared:3 - tmpfs tmpfs rw\n"
	for dir, want := range map[string]string{"/var/tmp/x": "tmpfs", "/var/tmpx": "ext4", "/": "ext4"} {
		if got := mountType(mounts, dir); got != want {
			t.Errorf("mountType %s: got %s, want %s", dir, got, want)
		}
	}
}

// The shipped policy is the one that is measured, but for what the load
// generator would meet.
func TestStrictPolicy(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", policyFile))
	if err != nil {
		t.Fatal(err)
	}
	got, err := strict(b)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(got), "127.0.0.0") || !strings.Contains(string(got), "limit = 1000000") {
		t.Errorf("not arranged:\n%s", got)
	}
	if !strings.Contains(string(got), `check "rate"`) || !strings.Contains(string(got), `check "helo"`) {
		t.Errorf("a check is gone:\n%s", got)
	}
	if _, err := strict([]byte(`policy "inbound" {}`)); err == nil {
		t.Error("a policy that cannot be arranged: no error")
	}
}

func TestCommandLine(t *testing.T) {
	for _, row := range []struct {
		args string
		bad  bool
	}{
		{"", false},
		{"-quick -repeat 5 -only load,idle -servers wafer,postfix -conns 1,2 -sizes 100", false},
		{"-only loud", true},
		{"-servers exim", true},
		{"-conns 0", true},
		{"-sizes 4k", true},
		{"-repeat 0", true},
		{"more", true},
	} {
		if _, err := parse(strings.Fields(row.args)); (err != nil) != row.bad {
			t.Errorf("%q: got %v, want an error: %v", row.args, err, row.bad)
		}
	}
}

// sink is an SMTP server that believes everything and counts messages.
func sink(t *testing.T, refuse int64) (address string, messages *atomic.Int64, sizes *atomic.Int64) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	messages, sizes = new(atomic.Int64), new(atomic.Int64)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				fmt.Fprint(conn, "220 sink\r\n")
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
					case "EHLO":
						fmt.Fprint(conn, "250-sink\r\n250 PIPELINING\r\n")
					case "DATA":
						fmt.Fprint(conn, "354 go\r\n")
						for line != ".\r\n" {
							if line, err = r.ReadString('\n'); err != nil {
								return
							}
							sizes.Add(int64(len(line)))
						}
						if messages.Add(1) <= refuse {
							fmt.Fprint(conn, "451 later\r\n")
							continue
						}
						fmt.Fprint(conn, "250 stored\r\n")
					case "QUIT":
						fmt.Fprint(conn, "221 bye\r\n")
						return
					default:
						fmt.Fprint(conn, "250 ok\r\n")
					}
				}
			}()
		}
	}()
	return ln.Addr().String(), messages, sizes
}

func TestWorker(t *testing.T) {
	for _, pipeline := range []bool{false, true} {
		address, messages, sizes := sink(t, 1)
		w := worker{loader: &loader{address: address, size: 4096, pipeline: pipeline}, body: text(4096), seq: new(atomic.Int64), opened: new(atomic.Int64)}
		for range perConn + 5 {
			w.message()
		}
		w.client.quit()
		if messages.Load() != perConn+5 || len(w.waits) != perConn+4 || w.failed != 1 || !strings.Contains(w.first.Error(), "451") {
			t.Errorf("pipeline %v: %d sent, %d accepted, %d failed, first %v", pipeline, messages.Load(), len(w.waits), w.failed, w.first)
		}
		if n := w.opened.Load(); n != 3 { // one after the refusal, one after perConn messages
			t.Errorf("pipeline %v: %d connections, want 3", pipeline, n)
		}
		if n := sizes.Load() / messages.Load(); n < 4096-2*lineLen || n > 4096+2*lineLen {
			t.Errorf("pipeline %v: messages of %d octets", pipeline, n)
		}
	}
}

func TestProbe(t *testing.T) {
	address, _, _ := sink(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := probe(ctx, address); err != nil {
		t.Errorf("a probe that is ended at once: %v", err)
	}
}

// Everybody who passes the gate does so behind a sync that began after he came.
func TestGate(t *testing.T) {
	var syncs atomic.Int64
	begun, go_ := make(chan bool), make(chan bool)
	g := newGate(func() error {
		syncs.Add(1)
		begun <- true
		<-go_
		return nil
	})
	done := make(chan error, 3)
	go func() { done <- g.pass() }()
	<-begun
	go func() { done <- g.pass() }()
	go func() { done <- g.pass() }()
	go_ <- true
	<-begun // for the two that came meanwhile, or the first of them
	select {
	case go_ <- true:
	case <-t.Context().Done():
	}
	for n := 0; n < 3; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			n++
		case <-begun:
			go_ <- true
		}
	}
	if n := syncs.Load(); n < 2 || n > 3 {
		t.Errorf("%d syncs for three, of whom two came later", n)
	}
	broken := errors.New("broken")
	if err := newGate(func() error { return broken }).pass(); !errors.Is(err, broken) {
		t.Errorf("a sync that fails: got %v", err)
	}
}

func TestReport(t *testing.T) {
	r := &report{Machine: "here", Settings: "so"}
	for i, rate := range []float64{100, 300, 200} {
		r.Loads = append(r.Loads,
			loadRow{Server: waferPlain, Size: 4096, Conns: 10, Round: i + 1, Stored: 6 * rate, CPU: 400},
			loadRow{Server: postfix, Size: 4096, Conns: 10, Round: i + 1, Stored: rate, CPU: 2000, Errors: 1, FirstError: "oh"})
	}
	r.Disks = []diskRow{{Size: 4096, Writers: 1, Rate: 2500}}
	r.Idles = []idleRow{{Door: "imap", TLS: true, Conns: 2000, KiB: 12.3}}
	var b strings.Builder
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1200 (600–1800) | 6.0 |", "| 0.20 |", "| 4096 | 1 | 2500 |", "| imap | true | 2000 | 0 | 12.3 |", "the first: oh"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// What is put aside is no longer counted, and loses its contents but not its inode.
func TestClear(t *testing.T) {
	s := &server{mail: filepath.Join(t.TempDir(), domain), idle: func() bool { return true }}
	for n, count := range map[int]int{0: 2, 7: 1} {
		dir := filepath.Join(s.box(n), "new")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for i := range count {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("mail"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n, err := s.delivered(); n != 3 || err != nil {
		t.Fatalf("%d delivered, %v; want 3", n, err)
	}
	if last, err := s.settle(t.Context(), 3); err != nil || last.IsZero() {
		t.Errorf("settle: %v, %v", last, err)
	}
	if err := s.clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := s.delivered(); n != 0 || err != nil {
		t.Errorf("%d delivered after clear, %v", n, err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(s.mail), "aside-*", "*", "*"))
	if err != nil || len(left) != 3 {
		t.Errorf("%d files aside, %v; want 3", len(left), err)
	}
}
