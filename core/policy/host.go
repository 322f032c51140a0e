package policy

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
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
	fuel   int64      // that this call has used up
	calls  []HostCall // for the decision log; empty if there is none
	noted  int        // octets in calls
	tape   *taping    // nil: nothing is kept for a replay
}

// Bounds of one call.
const (
	maxKey    = 1 << 10   // octets of a key
	maxLog    = 8 << 10   // octets of log
	maxCalls  = 512       // host calls that the decision log is told of
	maxNoted  = 256 << 10 // octets of all of them
	maxAnswer = 4 << 10   // octets of an answer that it is told
)

func (h *liveHost) begin(s *Set, c *Check, ev *Event, tape *taping) {
	h.tape = tape
	h.set, h.check, h.ev, h.now, h.logged, h.fuel, h.calls, h.noted = s, c, ev, s.o.Now(), 0, 0, nil, 0
}

// Now is fixed within a call, so that a plugin cannot see time pass.
func (h *liveHost) Now() time.Time {
	if h.Records() {
		h.Note(HostCall{Call: "now", Answer: h.now.UTC().Format(time.RFC3339Nano)})
	}
	return h.now
}

func (h *liveHost) Random(p []byte) {
	h.set.o.Random(p)
	if h.Records() {
		h.Note(HostCall{Call: "random", Answer: hex.EncodeToString(p[:min(len(p), maxAnswer)])})
	}
	if h.tape != nil {
		h.tape.answer(HostAnswer{Kind: AskedRandom, Value: bytes.Clone(p)})
	}
}

func (h *liveHost) DNS(ctx context.Context, qs []Question) []Answer {
	answers := make([]Answer, len(qs))
	open := h.known(qs, answers)
	var wg sync.WaitGroup
	for n, i := range open {
		if n == len(open)-1 { // the last one needs no goroutine
			answers[i] = h.lookup(ctx, qs[i])
			break
		}
		wg.Go(func() { answers[i] = h.lookup(ctx, qs[i]) })
	}
	wg.Wait()
	h.noteDNS(qs, answers)
	return answers
}

// DNSKnown answers qs if all of them need no waiting for.
func (h *liveHost) DNSKnown(qs []Question) ([]Answer, bool) {
	answers := make([]Answer, len(qs))
	if open := h.known(qs, answers); len(open) > 0 {
		return nil, false
	}
	h.noteDNS(qs, answers)
	return answers, true
}

func (h *liveHost) noteDNS(qs []Question, answers []Answer) {
	if h.tape != nil {
		for i, q := range qs {
			h.tape.answer(HostAnswer{Kind: AskedDNS, Key: q.Type + " " + q.Name, Texts: answers[i].Records, N: int64(answers[i].Status)})
		}
	}
	if !h.Records() {
		return
	}
	for i, q := range qs {
		h.Note(HostCall{Call: "dns", Ask: q.Type + " " + q.Name, Answer: strings.Join(answers[i].Records, " "), Status: answers[i].Status.String()})
	}
}

// known fills in the answers that need no waiting for, and returns the indexes of
// the others.
func (h *liveHost) known(qs []Question, answers []Answer) (open []int) {
	r, ok := h.set.o.Resolver.(KnownResolver)
	for i, q := range qs {
		if ok {
			if a, known := r.KnownDNS(q); known {
				answers[i] = a
				continue
			}
		}
		open = append(open, i)
	}
	return open
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

// errKey says that a key cannot be one.
var errKey = errors.New("key is longer than 1024 octets")

// key is the check's own name for key.
func (h *liveHost) key(key string) (string, error) {
	if len(key) > maxKey {
		return "", errKey
	}
	return h.set.o.Space + h.check.label + "\x00" + key, nil
}

func (h *liveHost) Count(_ context.Context, key string, delta int64, window time.Duration) (n int64, err error) {
	own, err := h.key(key)
	if err == nil {
		n, err = h.set.o.Counters.Add(own, delta, window, h.now)
	}
	if h.Records() {
		h.note(HostCall{Call: "count", Ask: fmt.Sprintf("%s %+d %s", key, delta, window), Answer: fmt.Sprint(n)}, err)
	}
	if h.tape != nil {
		h.tape.answer(HostAnswer{Kind: AskedCount, Key: key, Delta: delta, Span: window, N: n, Failed: failure(err)})
	}
	return n, err
}

func (h *liveHost) StateGet(ctx context.Context, key string) (value []byte, ok bool, err error) {
	own, err := h.key(key)
	if err == nil {
		value, ok, err = h.set.o.State.Get(ctx, own, h.now)
	}
	if h.Records() {
		h.note(HostCall{Call: "state_get", Ask: key, Answer: string(value), Status: found(ok)}, err)
	}
	if h.tape != nil {
		h.tape.answer(HostAnswer{Kind: AskedStateGet, Key: key, Value: bytes.Clone(value), OK: ok, Failed: failure(err)})
	}
	return value, ok, err
}

func (h *liveHost) StatePut(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	own, err := h.key(key)
	if err == nil {
		err = h.set.o.State.Put(ctx, own, value, ttl, h.now)
	}
	if h.Records() {
		h.note(HostCall{Call: "state_put", Ask: fmt.Sprintf("%s %s %s", key, ttl, value), Status: "ok"}, err)
	}
	if h.tape != nil {
		h.tape.answer(HostAnswer{Kind: AskedStatePut, Key: key, Span: ttl, Value: bytes.Clone(value), Failed: failure(err)})
	}
	return err
}

func (h *liveHost) StateSeen(ctx context.Context, key string, ttl time.Duration) (seen Sighting, err error) {
	own, err := h.key(key)
	if err == nil {
		seen, err = h.set.o.State.Seen(ctx, own, ttl, h.now)
	}
	if h.Records() {
		call := HostCall{Call: "state_seen", Ask: fmt.Sprintf("%s %s", key, ttl), Answer: "0"}
		if seen.Count > 0 {
			call.Answer = fmt.Sprintf("%d %s %s", seen.Count, seen.First.UTC().Format(time.RFC3339Nano), seen.Last.UTC().Format(time.RFC3339Nano))
		}
		h.note(call, err)
	}
	if h.tape != nil {
		h.tape.answer(HostAnswer{Kind: AskedStateSeen, Key: key, Span: ttl, N: seen.Count, First: seen.First, Last: seen.Last, Failed: failure(err)})
	}
	return seen, err
}

func (h *liveHost) List(name, key string) (value string, ok bool, err error) {
	if l := h.check.Lists[name]; l != nil {
		value, ok = l.Lookup(key)
	} else {
		err = ErrNoList
	}
	if h.Records() {
		h.note(HostCall{Call: "list", Ask: name + " " + key, Answer: value, Status: found(ok)}, err)
	}
	if h.tape != nil {
		h.tape.answer(HostAnswer{Kind: AskedList, Key: name + "\x00" + key, Value: []byte(value), OK: ok, Failed: failure(err)})
	}
	return value, ok, err
}

func (h *liveHost) Metric(label string, delta int64) { h.check.tally.metric(label, delta) }

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

// Records reports whether anything keeps the notes (Recorder).
func (h *liveHost) Records() bool { return h.set.o.Log != nil }

// Burned notes the call's fuel (Recorder).
func (h *liveHost) Burned(fuel int64) { h.fuel = fuel }

// Note keeps a call, up to maxCalls (Recorder).
func (h *liveHost) Note(c HostCall) {
	c.Ask, c.Answer = c.Ask[:min(len(c.Ask), maxAnswer)], c.Answer[:min(len(c.Answer), maxAnswer)]
	if size := len(c.Ask) + len(c.Answer); h.Records() && len(h.calls) < maxCalls && h.noted+size <= maxNoted {
		h.calls = append(h.calls, c)
		h.noted += size
	}
}

// note is Note with an error in place of the answer, if there is one.
func (h *liveHost) note(c HostCall, err error) {
	if err != nil {
		c.Answer, c.Status = "", err.Error()
	}
	h.Note(c)
}

func found(ok bool) string {
	if ok {
		return "ok"
	}
	return "not-found"
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
