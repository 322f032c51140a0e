package smtpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// body4K is a message of 4 KiB in lines of 70 octets.
var body4K = strings.Repeat(strings.Repeat("x", 68)+"\r\n", 58) + ".\r\n"

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memoryConn plays messages to a session without a kernel in between: what is
// left is the engine. Each read is what one packet of a pipelining client
// would be.
type memoryConn struct {
	scriptConn
	left  int
	parts [2][]byte
	turn  int
}

func (c *memoryConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	part := c.parts[c.turn]
	n := copy(p, part)
	if c.parts[c.turn] = part[n:]; n < len(part) {
		return n, nil
	}
	c.turn ^= 1
	if c.turn == 0 {
		c.left--
	}
	c.parts = [2][]byte{envelope4K, message4K}
	return n, nil
}

func (c *memoryConn) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkEngine4K is the engine alone, per message on one connection.
func BenchmarkEngine4K(b *testing.B) {
	srv, _ := theatre(b, MX, func(_ *Config, c *courier) { c.blackhole = true })
	srv.newJudge = func(Rules) judge { return silent{} }
	nc := &greeting{c: &memoryConn{left: b.N, parts: [2][]byte{envelope4K, message4K}}}
	b.ReportAllocs()
	b.ResetTimer()
	srv.play(nc)
	b.StopTimer()
	if n := srv.Stats().Messages; n != uint64(b.N) {
		b.Fatalf("%d messages of %d", n, b.N)
	}
}

// greeting says EHLO before it plays.
type greeting struct {
	c    *memoryConn
	said bool
}

func (g *greeting) Read(p []byte) (int, error) {
	if !g.said {
		g.said = true
		return copy(p, "EHLO client.example\r\n"), nil
	}
	return g.c.Read(p)
}
func (g *greeting) Write(p []byte) (int, error)        { return g.c.Write(p) }
func (g *greeting) Close() error                       { return nil }
func (g *greeting) LocalAddr() net.Addr                { return g.c.LocalAddr() }
func (g *greeting) RemoteAddr() net.Addr               { return g.c.RemoteAddr() }
func (g *greeting) SetDeadline(t time.Time) error      { return nil }
func (g *greeting) SetReadDeadline(t time.Time) error  { return nil }
func (g *greeting) SetWriteDeadline(t time.Time) error { return nil }

func BenchmarkMessage4K(b *testing.B)    { benchmark4K(b, false) }
func BenchmarkMessage4KTLS(b *testing.B) { benchmark4K(b, true) }

// benchmark4K sends messages over loopback on one reused connection. The time
// and the processor time are those of client, kernel and server together.
func benchmark4K(b *testing.B, secure bool) {
	h := open(b, MX, func(c *Config, h *house) {
		h.courier.blackhole = true
		c.Logger = slog.New(slog.DiscardHandler)
		h.judge = func(Rules) judge { return silent{} }
		if secure {
			c.TLS = testTLS(b)
		}
	})
	c := h.hello()
	if secure {
		c.startTLS()
		c.do("EHLO client.example", "250")
	}
	_ = c.nc.SetDeadline(time.Time{})
	b.ReportAllocs()
	before := cpu()
	for b.Loop() {
		exchange(b, c.nc, c.r)
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

var (
	envelope4K = []byte("MAIL FROM:<a@b.example> SIZE=4096\r\nRCPT TO:<c@local.example>\r\nDATA\r\n")
	message4K  = []byte("Subject: x\r\nFrom: a@b.example\r\n\r\n" + body4K)
)

// exchange sends one message with pipelining.
func exchange(b *testing.B, w io.Writer, r *bufio.Reader) {
	for _, part := range [2]struct {
		sent    []byte
		replies int
	}{{envelope4K, 3}, {message4K, 1}} {
		if _, err := w.Write(part.sent); err != nil {
			b.Fatal(err)
		}
		for range part.replies {
			if line, err := r.ReadSlice('\n'); err != nil || line[0] == '4' || line[0] == '5' {
				b.Fatalf("%q, %v", line, err)
			}
		}
	}
}

// BenchmarkNewConnection4K is a connection for each message.
func BenchmarkNewConnection4K(b *testing.B) {
	h := open(b, MX, func(c *Config, h *house) {
		h.courier.blackhole = true
		c.Logger = slog.New(slog.DiscardHandler)
		h.judge = func(Rules) judge { return silent{} }
	})
	b.ReportAllocs()
	for b.Loop() {
		nc, err := net.Dial("tcp", h.addr)
		if err != nil {
			b.Fatal(err)
		}
		r := bufio.NewReader(nc)
		if _, err := io.WriteString(nc, "EHLO x\r\n"); err != nil {
			b.Fatal(err)
		}
		for line := ""; !strings.HasPrefix(line, "250 "); {
			if line, err = r.ReadString('\n'); err != nil {
				b.Fatal(err)
			}
		}
		exchange(b, nc, r)
		_ = nc.Close()
	}
}

// silent is a policy without checks.
type silent struct{}

func (silent) Ask(context.Context, *policy.Event) policy.Decision { return policy.Decision{} }
func (silent) Overruled(*policy.Event, mail.Status) (policy.Decision, bool) {
	return policy.Decision{}, false
}
func (silent) Reset()                   {}
func (silent) Active(policy.Stage) bool { return false }
func (silent) Answered()                {}

// BenchmarkIdle reports the memory of one idle connection: heap and stacks of
// 2,000 of them. The clients live in the same process; what is left when the
// server is gone is taken to be theirs, with the half-empty spans, so the figure
// is about a sixth lower than that of a server alone.
func BenchmarkIdle(b *testing.B) {
	for _, secure := range []bool{false, true} {
		name := "plain"
		if secure {
			name = "tls"
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				idle(b, secure)
			}
		})
	}
}

func idle(b *testing.B, secure bool) {
	const n = 2000
	h := open(b, MX, func(c *Config, h *house) {
		c.Logger = slog.New(slog.DiscardHandler)
		h.judge = func(Rules) judge { return silent{} }
		if secure {
			c.TLS = testTLS(b)
		}
	})
	var conns [n]net.Conn
	memory := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapInuse + m.StackInuse)
	}
	dial := func(i int) {
		nc, err := net.Dial("tcp", h.addr)
		if err != nil {
			b.Fatal(err)
		}
		talk(b, nc, "", "220")
		talk(b, nc, "EHLO x\r\n", "250")
		if secure {
			talk(b, nc, "STARTTLS\r\n", "220")
			tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
			if err := tc.HandshakeContext(context.Background()); err != nil {
				b.Fatal(err)
			}
			talk(b, tc, "EHLO x\r\n", "250")
			nc = tc
		}
		talk(b, nc, "MAIL FROM:<>\r\n", "250")
		talk(b, nc, "RSET\r\n", "250")
		conns[i] = nc
	}
	before := memory()
	for i := range n {
		dial(i)
	}
	both := memory() - before
	// The client's half: what is left when the server is gone.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = h.srv.Shutdown(ctx)
	clients := memory() - before
	b.ReportMetric((both-clients)/n, "B/conn")
	for _, nc := range conns {
		_ = nc.Close()
	}
}

// talk sends s and reads a whole reply with as little memory as possible.
func talk(b *testing.B, nc net.Conn, s, want string) {
	if s != "" {
		if _, err := io.WriteString(nc, s); err != nil {
			b.Fatal(err)
		}
	}
	var buf [1024]byte
	n := 0
	for {
		k, err := nc.Read(buf[n:])
		if err != nil {
			b.Fatal(err)
		}
		n += k
		lines := strings.Split(strings.TrimSuffix(string(buf[:n]), "\r\n"), "\r\n")
		if last := lines[len(lines)-1]; buf[n-1] == '\n' && last[3] == ' ' {
			if !strings.HasPrefix(last, want) {
				b.Fatalf("%q", last)
			}
			return
		}
	}
}

// TestIdleFootprint bounds what a session takes while it waits, its small
// buffer included and its stack not.
func TestIdleFootprint(t *testing.T) {
	if size := unsafe.Sizeof(session{}); size > 4096 {
		t.Errorf("a session takes %d octets", size)
	}
}
