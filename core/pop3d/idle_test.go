package pop3d

import (
	"context"
	"io"
	"log/slog"
	"net"
	"runtime"
	"testing"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/maildir"
)

// BenchmarkIdle reports what an idle connection costs: heap and stacks of the
// server's side and of a bare client's socket in the same process.
func BenchmarkIdle(b *testing.B) {
	srv, err := New(Config{
		Hostname: "x.test", Auth: auth.NewService(auth.Config{Users: users{}}), Limits: Limits{PerClient: 1 << 20},
		Mailbox: func(context.Context, string) (*maildir.Store, error) { return nil, io.EOF },
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	const n = 1000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		var conns []net.Conn
		for range n {
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			var greeting [8]byte
			if _, err := io.ReadFull(c, greeting[:]); err != nil {
				b.Fatal(err)
			}
			conns = append(conns, c)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse)/n, "B/conn")
		for _, c := range conns {
			_ = c.Close()
		}
	}
	if err := srv.Shutdown(context.Background()); err != nil {
		b.Fatal(err)
	}
	<-done
}
