package policy

import (
	"context"
	"log/slog"
	"strings"
	"time"
)

// Table is a Host whose answers were written down beforehand: the world of a
// test. The zero value knows no names. One goroutine uses it.
type Table struct {
	Time     time.Time           // what Now says
	Bytes    []byte              // what Random says, over and over; zeros if empty
	Answers  map[Question]Answer // by name in lower case without a last dot; what is missing does not exist
	Counters *Counters           // nil: new ones
	State    State               // nil: a new one in memory
	Lists    map[string]List     // by the name that the check uses
	Metrics  map[string]int64    // what was counted with Metric
	Lines    []string            // what was logged, as "WARN text"
	Calls    []HostCall          // what was noted: see Recorder
	Fuel     int64               // of the last call
}

// Now is the table's time.
func (t *Table) Now() time.Time { return t.Time }

// Random fills p from the table's bytes.
func (t *Table) Random(p []byte) {
	for i := range p {
		p[i] = 0
		if len(t.Bytes) > 0 {
			p[i] = t.Bytes[i%len(t.Bytes)]
		}
	}
}

// DNS answers from the table.
func (t *Table) DNS(_ context.Context, qs []Question) []Answer {
	answers := make([]Answer, len(qs))
	for i, q := range qs {
		a, ok := t.Answers[Question{q.Type, strings.ToLower(strings.TrimSuffix(q.Name, "."))}]
		if !ok {
			a.Status = DNSNotFound
		}
		answers[i] = a
	}
	return answers
}

// Count counts at the table's time.
func (t *Table) Count(_ context.Context, key string, delta int64, window time.Duration) (int64, error) {
	if t.Counters == nil {
		t.Counters = NewCounters(CounterOptions{})
	}
	return t.Counters.Add(key, delta, window, t.Time)
}

func (t *Table) state() State {
	if t.State == nil {
		t.State = NewMemory()
	}
	return t.State
}

// StateGet reads the table's state at its time.
func (t *Table) StateGet(ctx context.Context, key string) ([]byte, bool, error) {
	return t.state().Get(ctx, key, t.Time)
}

// StatePut writes the table's state at its time.
func (t *Table) StatePut(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return t.state().Put(ctx, key, value, ttl, t.Time)
}

// StateSeen sees a key at the table's time.
func (t *Table) StateSeen(ctx context.Context, key string, ttl time.Duration) (Sighting, error) {
	return t.state().Seen(ctx, key, ttl, t.Time)
}

// List looks key up in one of the table's lists.
func (t *Table) List(name, key string) (string, bool, error) {
	l, ok := t.Lists[name]
	if !ok {
		return "", false, ErrNoList
	}
	value, ok := l.Lookup(key)
	return value, ok, nil
}

// Metric counts in the table.
func (t *Table) Metric(label string, delta int64) {
	if t.Metrics == nil {
		t.Metrics = map[string]int64{}
	}
	t.Metrics[label] += delta
}

// Log keeps the line.
func (t *Table) Log(level int, text string) {
	t.Lines = append(t.Lines, slog.Level(level).String()+" "+text)
}

// Records is true (Recorder).
func (t *Table) Records() bool { return true }

// Note keeps the call (Recorder).
func (t *Table) Note(c HostCall) { t.Calls = append(t.Calls, c) }

// Burned keeps the fuel (Recorder).
func (t *Table) Burned(fuel int64) { t.Fuel = fuel }
