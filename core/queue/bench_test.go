package queue

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// BenchmarkStart reads a spool of waiting messages.
func BenchmarkStart(b *testing.B) {
	for _, n := range []int{1000, 200_000} {
		b.Run(fmt.Sprintf("messages=%d", n), func(b *testing.B) {
			w := newWorld(b, nil)
			w.far.say = func(*mail.Delivery, mail.Recipient) mail.Outcome { return outcome(450, "4.2.0", "later") }
			for i := range n {
				m := &Message{Envelope: mail.Envelope{ID: mail.NewID(time.Now()), From: path(b, "ann@example.org"), Received: time.Now()}}
				m.Rcpts = []Recipient{{Recipient: mail.Recipient{To: path(b, fmt.Sprintf("user%d@example.net", i))}, From: m.Envelope.From}}
				m.Hold, m.Head = "bench", []byte("Received: from client.example.com (client.example.com [192.0.2.1])\r\n\tby mail.example.org with ESMTPSA; today\r\n")
				m.Size = int64(len(body))
				line, err := (&record{Message: m.first()}).append(nil)
				if err != nil {
					b.Fatal(err)
				}
				for suffix, text := range map[string][]byte{bodySuffix: []byte(body), envelopeSuffix: line} {
					f, err := w.q.spool.disk.create(w.q.spool.path(m.Envelope.ID, suffix))
					if err != nil {
						b.Fatal(err)
					}
					_, err = f.Write(text)
					if cerr := f.Close(); err != nil || cerr != nil {
						b.Fatal(err, cerr)
					}
				}
			}
			w.close()
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for b.Loop() {
				q, err := Open(context.Background(), w.c)
				if err != nil {
					b.Fatal(err)
				}
				w.q = q
				b.StopTimer()
				runtime.GC()
				runtime.ReadMemStats(&after)
				if len(q.items) != n {
					b.Errorf("%d items", len(q.items))
				}
				w.close()
				b.StartTimer()
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/message")
		})
	}
}

// BenchmarkQueue takes messages and brings them to a transport that only reads them.
func BenchmarkQueue(b *testing.B) {
	for _, conns := range []int{1, 10, 50} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			w := newWorld(b, nil)
			text := body + string(make([]byte, 4000))
			b.SetParallelism(conns)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					m := &Message{Envelope: mail.Envelope{ID: mail.NewID(time.Now()), From: path(b, "ann@example.org"), Received: time.Now()}}
					m.Rcpts = []Recipient{{Recipient: mail.Recipient{To: path(b, "x@example.net")}}}
					if err := w.put(m, text); err != nil {
						b.Error(err)
					}
				}
			})
			w.close()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
