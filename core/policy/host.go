package policy

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// liveHost is the real world for one call of one check. A Session has one and
// begins it anew for each call.
type liveHost struct {
	set   *Set
	check *Check
	ev    *Event
	now   time.Time
}

// maxKey bounds a counter's key, in octets.
const maxKey = 512

func (h *liveHost) begin(s *Set, c *Check, ev *Event) {
	h.set, h.check, h.ev, h.now = s, c, ev, s.o.Now()
}

// Now is fixed within a call, so that a plugin cannot see time pass.
func (h *liveHost) Now() time.Time { return h.now }

func (h *liveHost) Random(p []byte) { h.set.o.Random(p) }

func (h *liveHost) DNS(ctx context.Context, qs []Question) []Answer {
	answers := make([]Answer, len(qs))
	if h.set.o.Resolver == nil {
		for i := range answers {
			answers[i].Status = DNSTemp
		}
		return answers
	}
	if len(qs) == 1 {
		answers[0] = h.set.o.Resolver.LookupDNS(ctx, qs[0])
		return answers
	}
	var wg sync.WaitGroup
	for i, q := range qs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			answers[i] = h.set.o.Resolver.LookupDNS(ctx, q)
		}()
	}
	wg.Wait()
	return answers
}

func (h *liveHost) Count(_ context.Context, key string, delta int64, window time.Duration) (int64, error) {
	if len(key) > maxKey {
		key = key[:maxKey]
	}
	return h.set.o.Counters.Add(h.check.label+"\x00"+key, delta, window, h.now)
}

func (h *liveHost) Log(level int, text string) {
	h.set.o.Logger.Log(context.Background(), slog.Level(level), "plugin says", "check", h.check.label, "session", h.ev.Session, "text", text)
}
