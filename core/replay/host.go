package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// errUnknown is what a check is told whose question is not on the tape.
var errUnknown = errors.New("the tape does not tell")

// host answers a check's questions from the tape (policy.Host). One that is not there is
// asked live, if that is wanted and possible, and is unknown otherwise.
type host struct {
	call *policy.Called // nil: the check was not asked then
	now  time.Time
	used []bool
	live policy.Resolver // nil: nobody is asked
	seen *notes

	others map[string]*policy.HostAnswer // what DNS told other checks of the session
}

// notes is what a replay of one moment could not be sure of.
type notes struct {
	unknown []string // questions that the tape does not answer
	asked   int      // DNS questions that were asked live
}

func (n *notes) miss(format string, args ...any) {
	if len(n.unknown) < 100 {
		n.unknown = append(n.unknown, fmt.Sprintf(format, args...))
	}
}

func newHost(call *policy.Called, now time.Time, live policy.Resolver, seen *notes) *host {
	h := &host{call: call, now: now, live: live, seen: seen}
	if call != nil {
		h.now, h.used = call.Now, make([]bool, len(call.Answers))
	}
	return h
}

// find is the first answer to a question that has not been given yet, else the last one
// that was: who asks once more hears the same.
func (h *host) find(kind policy.HostKind, key string, fits func(*policy.HostAnswer) bool) *policy.HostAnswer {
	if h.call == nil {
		return nil
	}
	var again *policy.HostAnswer
	for i := range h.call.Answers {
		a := &h.call.Answers[i]
		if a.Kind != kind || a.Key != key || fits != nil && !fits(a) {
			continue
		}
		if !h.used[i] {
			h.used[i] = true
			return a
		}
		again = a
	}
	return again
}

func failed(a *policy.HostAnswer) error {
	switch a.Failed {
	case "":
		return nil
	case policy.ErrNoList.Error():
		return policy.ErrNoList
	}
	return errors.New(a.Failed)
}

// Now is the time of the call then.
func (h *host) Now() time.Time { return h.now }

// Random is what was drawn then.
func (h *host) Random(p []byte) {
	a := h.find(policy.AskedRandom, "", func(a *policy.HostAnswer) bool { return len(a.Value) == len(p) })
	if a == nil {
		h.seen.miss("random: %d octets", len(p))
		clear(p)
		return
	}
	copy(p, a.Value)
}

// DNS answers from the tape.
func (h *host) DNS(ctx context.Context, qs []policy.Question) []policy.Answer {
	answers := make([]policy.Answer, len(qs))
	for i, q := range qs {
		a := h.find(policy.AskedDNS, q.Type+" "+q.Name, nil)
		if a == nil {
			a = h.others[q.Type+" "+q.Name]
		}
		switch {
		case a != nil:
			answers[i] = policy.Answer{Records: slices.Clone(a.Texts), Status: policy.DNSStatus(a.N)}
		case h.live != nil:
			h.seen.asked++
			answers[i] = h.live.LookupDNS(ctx, q)
		default:
			h.seen.miss("dns: %s %s", q.Type, q.Name)
			answers[i] = policy.Answer{Status: policy.DNSTemp}
		}
	}
	return answers
}

// DNSKnown answers without waiting, so that no call is run twice.
func (h *host) DNSKnown(qs []policy.Question) ([]policy.Answer, bool) {
	if h.live != nil {
		return nil, false
	}
	return h.DNS(context.Background(), qs), true
}

// Count answers from the tape.
func (h *host) Count(_ context.Context, key string, delta int64, window time.Duration) (int64, error) {
	a := h.find(policy.AskedCount, key, func(a *policy.HostAnswer) bool { return a.Delta == delta && a.Span == window })
	if a == nil {
		h.seen.miss("count: %q %+d in %s", key, delta, window)
		return 0, errUnknown
	}
	return a.N, failed(a)
}

// StateGet answers from the tape.
func (h *host) StateGet(_ context.Context, key string) ([]byte, bool, error) {
	a := h.find(policy.AskedStateGet, key, nil)
	if a == nil {
		h.seen.miss("state_get: %q", key)
		return nil, false, errUnknown
	}
	return slices.Clone(a.Value), a.OK, failed(a)
}

// StatePut answers as it was answered then; what is put is kept nowhere.
func (h *host) StatePut(_ context.Context, key string, value []byte, ttl time.Duration) error {
	a := h.find(policy.AskedStatePut, key, func(a *policy.HostAnswer) bool { return a.Span == ttl && string(a.Value) == string(value) })
	if a == nil { // nothing depends on it but whether it went well
		return nil
	}
	return failed(a)
}

// StateSeen answers from the tape.
func (h *host) StateSeen(_ context.Context, key string, ttl time.Duration) (policy.Sighting, error) {
	a := h.find(policy.AskedStateSeen, key, func(a *policy.HostAnswer) bool { return a.Span == ttl })
	if a == nil {
		h.seen.miss("state_seen: %q for %s", key, ttl)
		return policy.Sighting{}, errUnknown
	}
	return policy.Sighting{First: a.First, Last: a.Last, Count: a.N}, failed(a)
}

// List answers from the tape.
func (h *host) List(name, key string) (string, bool, error) {
	a := h.find(policy.AskedList, name+"\x00"+key, nil)
	if a == nil {
		h.seen.miss("list: %s %q", name, key)
		return "", false, errUnknown
	}
	return string(a.Value), a.OK, failed(a)
}

// Said is what the check said then (policy.Witness).
func (h *host) Said() (policy.Verdict, error) {
	if h.call == nil {
		h.seen.miss("what a program outside would have said")
		return policy.Verdict{}, nil
	}
	if h.call.Err != "" {
		return policy.Verdict{}, errors.New(h.call.Err)
	}
	return h.call.Verdict, nil
}

// Metric counts nothing.
func (h *host) Metric(string, int64) {}

// Log writes nothing.
func (h *host) Log(int, string) {}

// directory answers from the tape (policy.Directory).
type directory struct {
	facts []policy.Fact
	seen  *notes
}

func (d directory) find(p mail.Path, owners bool) ([]string, bool) {
	for _, f := range slices.Backward(d.facts) {
		if f.Path == p && f.Owners == owners {
			return f.Texts, true
		}
	}
	return nil, false
}

// Class is what it was then.
func (d directory) Class(p mail.Path) string {
	texts, ok := d.find(p, false)
	if !ok || len(texts) == 0 {
		d.seen.miss("class of <%s>", p)
		return ""
	}
	return texts[0]
}

// Owners are those of then.
func (d directory) Owners(p mail.Path) []string {
	texts, ok := d.find(p, true)
	if !ok {
		d.seen.miss("owners of <%s>", p)
	}
	return texts
}

// content answers from the tape (policy.Content).
type content struct {
	fields []policy.HeaderRead
	reads  []policy.BodyRead
	seen   *notes
}

// Header is what was read then.
func (c content) Header(name string, index int) (string, bool) {
	for i := range c.fields {
		if f := &c.fields[i]; f.Index == index && strings.EqualFold(f.Name, name) {
			return f.Value, f.OK
		}
		if f := &c.fields[i]; !f.OK && f.Index < index && strings.EqualFold(f.Name, name) {
			return "", false // there were fewer
		}
	}
	c.seen.miss("header: %s %d", name, index)
	return "", false
}

// Body is what was read then, if the tape has it.
func (c content) Body(p []byte, off int64) (int, error) {
	for i := range c.reads {
		r := &c.reads[i]
		if off < r.Off || off > r.Off+int64(r.N) || !r.End && off+int64(len(p)) > r.Off+int64(r.N) {
			continue
		}
		if r.N > 0 && r.Data == nil {
			break
		}
		n := copy(p, r.Data[off-r.Off:])
		if n < len(p) || r.End && off+int64(n) == r.Off+int64(r.N) {
			return n, io.EOF
		}
		return n, nil
	}
	c.seen.miss("body: %d octets at %d", len(p), off)
	return 0, errUnknown
}
