package policy

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// liveHost is the real world for one call of one check. A Session has one and
// begins it anew for each call.
type liveHost struct {
	set    *Set
	check  *Check
	ev     *Event
	now    time.Time
	logged int        // octets of the log that this call has used up
	calls  []HostCall // for the decision log; empty if there is none
}

// Bounds of one call.
const (
	maxKey    = 512     // octets of a counter's key
	maxLog    = 8 << 10 // octets of log
	maxCalls  = 128     // host calls that the decision log is told of
	maxAnswer = 4 << 10 // octets of an answer that it is told
)

func (h *liveHost) begin(s *Set, c *Check, ev *Event) {
	h.set, h.check, h.ev, h.now, h.logged, h.calls = s, c, ev, s.o.Now(), 0, nil
}

// Now is fixed within a call, so that a plugin cannot see time pass.
func (h *liveHost) Now() time.Time {
	if h.records() {
		h.note(HostCall{Call: "now", Answer: h.now.UTC().Format(time.RFC3339Nano)})
	}
	return h.now
}

func (h *liveHost) Random(p []byte) {
	h.set.o.Random(p)
	if h.records() {
		h.note(HostCall{Call: "random", Answer: hex.EncodeToString(p[:min(len(p), maxAnswer)])})
	}
}

func (h *liveHost) DNS(ctx context.Context, qs []Question) []Answer {
	answers := make([]Answer, len(qs))
	if len(qs) == 1 {
		answers[0] = h.lookup(ctx, qs[0])
	} else {
		var wg sync.WaitGroup
		for i, q := range qs {
			wg.Go(func() { answers[i] = h.lookup(ctx, q) })
		}
		wg.Wait()
	}
	if h.records() {
		for i, q := range qs {
			h.note(HostCall{Call: "dns", Ask: q.Type + " " + q.Name, Answer: strings.Join(answers[i].Records, " "), Status: answers[i].Status.String()})
		}
	}
	return answers
}

// lookup asks the resolver. One that panics has no answer, and takes only this
// question with it.
func (h *liveHost) lookup(ctx context.Context, q Question) (a Answer) {
	if h.set.o.Resolver == nil {
		return Answer{Status: DNSTemp}
	}
	defer func() {
		if r := recover(); r != nil {
			h.set.o.Logger.Warn("resolver panicked", "check", h.check.label, "question", q.Type+" "+q.Name, "panic", fmt.Sprint(r))
			a = Answer{Status: DNSTemp}
		}
	}()
	return h.set.o.Resolver.LookupDNS(ctx, q)
}

func (h *liveHost) Count(_ context.Context, key string, delta int64, window time.Duration) (int64, error) {
	if len(key) > maxKey {
		key = key[:maxKey]
	}
	n, err := h.set.o.Counters.Add(h.check.label+"\x00"+key, delta, window, h.now)
	if h.records() {
		call := HostCall{Call: "count", Ask: fmt.Sprintf("%s %+d %s", key, delta, window), Answer: fmt.Sprint(n)}
		if err != nil {
			call.Answer, call.Status = "", err.Error()
		}
		h.note(call)
	}
	return n, err
}

// Log writes at most maxLog octets for a call, and no louder than a warning: a
// peer's mail may be what the plugin complains of.
func (h *liveHost) Log(level int, text string) {
	text = text[:min(len(text), maxLog-h.logged)]
	if text == "" {
		return
	}
	h.logged += max(len(text), 16)
	h.logged = min(h.logged, maxLog)
	h.set.o.Logger.Log(context.Background(), min(slog.Level(level), slog.LevelWarn), "plugin says",
		"check", h.check.label, "session", h.ev.Session, "text", text)
}

func (h *liveHost) records() bool { return h.set.o.Log != nil }

func (h *liveHost) note(c HostCall) {
	if len(h.calls) < maxCalls {
		c.Answer = c.Answer[:min(len(c.Answer), maxAnswer)]
		h.calls = append(h.calls, c)
	}
}

// String is the status in the decision log.
func (s DNSStatus) String() string {
	switch s {
	case DNSOK:
		return "ok"
	case DNSNotFound:
		return "not-found"
	}
	return "temporary"
}
