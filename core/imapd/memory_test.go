package imapd

import (
	"fmt"
	"runtime"
	"testing"
)

// BenchmarkIdle measures what a session costs that sits in IDLE: heap and
// stacks of both ends of the connection, of which the client's is small.
func BenchmarkIdle(b *testing.B) {
	ts := startServer(b, func(c *Config) { c.Limits.PerUser, c.Limits.PerClient = 1<<20, 1<<20 })
	first := ts.login(b)
	for range 100 {
		first.appendMessage("INBOX", "", simpleMessage)
	}
	const sessions = 1000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	clients := make([]*client, sessions)
	for i := range clients {
		c := ts.login(b)
		c.ok("SELECT INBOX")
		c.ok("FETCH 1:100 (UID FLAGS ENVELOPE)")
		c.send("i IDLE\r\n")
		c.reply()
		clients[i] = c
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	for b.Loop() {
		first.ok("NOOP")
	}
	b.ReportMetric(float64(after.HeapInuse-before.HeapInuse)/sessions, "heap-B/conn")
	b.ReportMetric(float64(after.StackInuse-before.StackInuse)/sessions, "stack-B/conn")
	for _, c := range clients {
		c.conn.Close()
	}
}

// BenchmarkFetch measures FETCH over a folder of 2000 messages.
func BenchmarkFetch(b *testing.B) {
	ts := startServer(b, nil)
	c := ts.login(b)
	for range 2000 {
		c.appendMessage("INBOX", "", simpleMessage)
	}
	c.ok("SELECT INBOX")
	for _, items := range []string{"(FLAGS)", "(UID FLAGS ENVELOPE)", "(BODYSTRUCTURE)", "(BODY.PEEK[])"} {
		b.Run(items, func(b *testing.B) {
			for b.Loop() {
				if got := len(c.ok("FETCH 1:* " + items)); got != 2000 {
					b.Fatal(got)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/2000, "µs/message")
		})
	}
	for _, key := range []string{"UNSEEN", "SUBJECT zzyzx", "TEXT zzyzx"} {
		b.Run(fmt.Sprintf("SEARCH %s", key), func(b *testing.B) {
			for b.Loop() {
				c.ok("SEARCH " + key)
			}
		})
	}
}
