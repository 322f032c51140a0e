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
	Lines    []string            // what was logged, as "WARN text"
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

// Log keeps the line.
func (t *Table) Log(level int, text string) {
	t.Lines = append(t.Lines, slog.Level(level).String()+" "+text)
}
