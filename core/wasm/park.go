package wasm

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// A call that waits for DNS holds an instance, which is a megabyte of memory. So
// when many wait already, the call is parked instead: its instance is dropped,
// the answers are waited for without one, and then the plugin is asked again
// from the beginning. It is deterministic given what the host tells it, so with
// the same answers to the same calls it comes to the same place, and goes on.
// The tape holds those answers, so that nothing is counted, remembered or logged
// twice.

const (
	stay     = 64 // instances of a plugin that wait in place
	maxParks = 20 // of one call; then it waits in place, come what may
)

// parkedError ends a run whose call is to be parked.
type parkedError struct{ questions []policy.Question }

func (parkedError) Error() string { return "parked" }

var (
	errPark       = errors.New("parked")
	errOtherCalls = errors.New("the plugin does not do the same again with the same answers")
)

// tape is the host of one call, which may be run several times.
type tape struct {
	policy.Host
	told  []any // answers in the order of the calls
	at    int   // of told: how many this run has heard
	calls int   // runs that were parked
	now   time.Time
}

// again is the answer to the next call if an earlier run has made it.
func again[T any](t *tape) (answer T, ok bool) {
	if t.at == len(t.told) {
		return answer, false
	}
	answer, ok = t.told[t.at].(T)
	if !ok {
		panic(errOtherCalls)
	}
	t.at++
	return answer, true
}

// keep notes an answer for later runs.
func keep[T any](t *tape, answer T) T {
	t.told = append(t.told, answer)
	t.at = len(t.told)
	return answer
}

// The types of answers of which there are several.
type (
	drawn   []byte
	answers []policy.Answer
	counted struct {
		n   int64
		err error
	}
	valued struct {
		value []byte
		ok    bool
		err   error
	}
	stored  struct{ err error }
	sighted struct {
		seen policy.Sighting
		err  error
	}
	listed struct {
		value string
		ok    bool
		err   error
	}
	heard struct{} // of what has no answer: Metric, Log, Note
)

// Now has no place among the others: a guest's own runtime looks at the clock when
// it cleans up, and that depends on what its instance did before.
func (t *tape) Now() time.Time {
	if t.now.IsZero() {
		t.now = t.Host.Now()
	}
	return t.now
}

func (t *tape) Random(p []byte) {
	if b, ok := again[drawn](t); ok {
		copy(p, b)
		return
	}
	t.Host.Random(p)
	keep(t, drawn(bytes.Clone(p)))
}

func (t *tape) DNS(ctx context.Context, qs []policy.Question) []policy.Answer {
	if as, ok := again[answers](t); ok {
		return as
	}
	return keep(t, answers(t.Host.DNS(ctx, qs)))
}

// DNSKnown answers what an earlier run has waited for, or what the host has at hand.
func (t *tape) DNSKnown(qs []policy.Question) ([]policy.Answer, bool) {
	if as, ok := again[answers](t); ok {
		return as, true
	}
	if h, ok := t.Host.(interface {
		DNSKnown([]policy.Question) ([]policy.Answer, bool)
	}); ok {
		if as, ok := h.DNSKnown(qs); ok {
			return keep(t, answers(as)), true
		}
	}
	return nil, false
}

func (t *tape) Count(ctx context.Context, key string, delta int64, window time.Duration) (int64, error) {
	if a, ok := again[counted](t); ok {
		return a.n, a.err
	}
	n, err := t.Host.Count(ctx, key, delta, window)
	keep(t, counted{n, err})
	return n, err
}

func (t *tape) StateGet(ctx context.Context, key string) ([]byte, bool, error) {
	if a, ok := again[valued](t); ok {
		return a.value, a.ok, a.err
	}
	value, ok, err := t.Host.StateGet(ctx, key)
	keep(t, valued{value, ok, err})
	return value, ok, err
}

func (t *tape) StatePut(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if a, ok := again[stored](t); ok {
		return a.err
	}
	return keep(t, stored{t.Host.StatePut(ctx, key, value, ttl)}).err
}

func (t *tape) StateSeen(ctx context.Context, key string, ttl time.Duration) (policy.Sighting, error) {
	if a, ok := again[sighted](t); ok {
		return a.seen, a.err
	}
	seen, err := t.Host.StateSeen(ctx, key, ttl)
	keep(t, sighted{seen, err})
	return seen, err
}

func (t *tape) List(name, key string) (string, bool, error) {
	if a, ok := again[listed](t); ok {
		return a.value, a.ok, a.err
	}
	value, ok, err := t.Host.List(name, key)
	keep(t, listed{value, ok, err})
	return value, ok, err
}

func (t *tape) Metric(label string, delta int64) {
	if _, ok := again[heard](t); !ok {
		t.Host.Metric(label, delta)
		keep(t, heard{})
	}
}

func (t *tape) Log(level int, text string) {
	if _, ok := again[heard](t); !ok {
		t.Host.Log(level, text)
		keep(t, heard{})
	}
}

// Records, Note and Burned are the host's, if it is a policy.Recorder.
func (t *tape) Records() bool {
	r, ok := t.Host.(policy.Recorder)
	return ok && r.Records()
}

func (t *tape) Note(c policy.HostCall) {
	if _, ok := again[heard](t); ok {
		return
	}
	if r, ok := t.Host.(policy.Recorder); ok {
		r.Note(c)
	}
	keep(t, heard{})
}

func (t *tape) Burned(fuel int64) {
	if r, ok := t.Host.(policy.Recorder); ok {
		r.Burned(fuel)
	}
}

// park waits for the answers that the last run could not, on the call's time, and
// makes the tape ready for the next run.
func (t *tape) park(ctx context.Context, qs []policy.Question, l *Limits) {
	began := time.Now()
	waiting, cancel := context.WithTimeout(ctx, l.IO)
	t.told = append(t.told, answers(t.Host.DNS(waiting, qs)))
	cancel()
	waited := time.Since(began)
	l.IO, l.Wall = l.IO-waited, l.Wall-waited
	t.at = 0
	t.calls++
}
