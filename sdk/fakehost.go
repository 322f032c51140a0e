//go:build !wasip1

package sdk

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wafermail/wafer/sdk/abi"
)

// host is the calls into the server, answered by the Fake.
type host struct{ f *Fake }

func (h host) log(level int32, text string) {
	h.f.Lines = append(h.f.Lines, strconv.Itoa(int(level))+" "+text)
}

func (h host) now() int64 { return h.f.Clock.UnixMilli() }

// random fills b with a row of octets that is the same in every run.
func (h host) random(b []byte) {
	for i := range b {
		h.f.drawn++
		x := h.f.drawn * 0x9e3779b97f4a7c15
		b[i] = byte(x>>56 ^ x>>32)
	}
}

func (h host) granted(name string) bool { return slices.Contains(h.f.Grants, name) }

// answer copies v into buf if it fits and returns its length.
func answer(v string, buf []byte) int32 {
	if len(v) <= len(buf) {
		copy(buf, v)
	}
	return int32(len(v))
}

func (h host) fact(name string, buf []byte) int32 {
	v, ok := h.f.facts.Rare[name]
	if !ok {
		return abi.NotFound
	}
	return answer(v, buf)
}

func (h host) header(name string, index int32, buf []byte) int32 {
	switch {
	case !h.granted(abi.GrantMessage):
		return abi.Denied
	case index < 0 || len(name) > abi.MaxName:
		return abi.BadArg
	}
	for _, field := range h.f.Header {
		got, value, _ := strings.Cut(field, ":")
		if name != "" && !strings.EqualFold(strings.TrimRight(got, " \t"), name) {
			continue
		}
		if index--; index < 0 {
			value = strings.TrimSpace(value)
			if name == "" {
				value = strings.TrimRight(got, " \t") + ": " + value
			}
			return answer(value, buf)
		}
	}
	return abi.NotFound
}

func (h host) body(off int64, buf []byte) int32 {
	switch {
	case !h.granted(abi.GrantMessage):
		return abi.Denied
	case h.f.facts.Stage != Message:
		return abi.NotFound
	case off < 0:
		return abi.BadArg
	case off >= int64(len(h.f.Body)):
		return 0
	}
	return int32(copy(buf, h.f.Body[off:]))
}

func (h host) dns(req, buf []byte) int32 {
	if !h.granted(abi.GrantDNS) {
		return abi.Denied
	}
	var out []byte
	r := reader{b: req}
	for n := 1; ; n++ {
		_, _, p, ok := r.next()
		if !ok {
			break
		}
		if n > abi.MaxDNSQuestion {
			return abi.Quota
		}
		var q Question
		for qr := (reader{b: p}); ; {
			field, _, p, ok := qr.next()
			if !ok {
				break
			}
			if field == abi.QuestionType {
				q.Type = string(p)
			} else {
				q.Name = string(p)
			}
		}
		h.f.Asked = append(h.f.Asked, q)
		a, ok := h.f.Zone[q.Type+" "+strings.ToLower(q.Name)]
		if !ok {
			a.Status = DNSNotFound
		}
		m := appendUint(nil, abi.AnswerStatus, uint64(a.Status))
		for _, rec := range a.Records {
			m = appendBytes(m, abi.AnswerRecord, []byte(rec))
		}
		out = appendBytes(out, abi.DNSItem, m)
	}
	if len(out) <= len(buf) {
		copy(buf, out)
	}
	return int32(len(out))
}

// refused is why a call of counters or state is not made, 0 if it is.
func (h host) refused(grant, key string) int32 {
	switch {
	case !h.granted(grant):
		return abi.Denied
	case len(key) > abi.MaxKey:
		return abi.BadArg
	case h.f.ops >= abi.MaxStateOps:
		return abi.Quota
	}
	return 0
}

func (h host) count(key string, delta, window int64) int64 {
	if code := h.refused(abi.GrantCount, key); code != 0 {
		return int64(code)
	}
	if delta < 0 || window <= 0 || window > abi.MaxWindow {
		return abi.BadArg
	}
	h.f.ops++
	if delta > 0 {
		h.f.counts[key] = append(h.f.counts[key], counted{h.f.Clock, delta})
	}
	var sum int64
	for _, c := range h.f.counts[key] {
		if h.f.Clock.Sub(c.at) < time.Duration(window)*time.Millisecond {
			sum += c.delta
		}
	}
	return sum
}

func (h host) stateGet(key string, buf []byte) int32 {
	if code := h.refused(abi.GrantState, key); code != 0 {
		return code
	}
	k, ok := h.f.values[key]
	if !ok || !h.f.Clock.Before(k.until) {
		h.f.ops++
		return abi.NotFound
	}
	if len(k.value) <= len(buf) { // who has to ask again pays once
		h.f.ops++
	}
	return answer(string(k.value), buf)
}

func (h host) statePut(key string, value []byte, ttl int64) int32 {
	if code := h.refused(abi.GrantState, key); code != 0 {
		return code
	}
	if len(value) > abi.MaxState || ttl > abi.MaxStateTTL {
		return abi.BadArg
	}
	h.f.ops++
	if ttl <= 0 {
		delete(h.f.values, key)
		return 0
	}
	h.f.values[key] = kept{value: slices.Clone(value), until: h.f.Clock.Add(time.Duration(ttl) * time.Millisecond)}
	return 0
}

func (h host) stateSeen(key string, ttl int64, buf []byte) int32 {
	if code := h.refused(abi.GrantState, key); code != 0 {
		return code
	}
	if ttl <= 0 || ttl > abi.MaxStateTTL {
		return abi.BadArg
	}
	h.f.ops++
	k := h.f.seen[key]
	if !h.f.Clock.Before(k.until) {
		k = kept{}
	}
	var b []byte
	if s := k.sighting; s.Count > 0 {
		b = appendUint(b, abi.SightingFirst, uint64(s.First.UnixMilli()))
		b = appendUint(b, abi.SightingLast, uint64(s.Last.UnixMilli()))
		b = appendUint(b, abi.SightingCount, uint64(s.Count))
	} else {
		k.sighting.First = h.f.Clock
	}
	k.sighting.Last, k.until = h.f.Clock, h.f.Clock.Add(time.Duration(ttl)*time.Millisecond)
	k.sighting.Count++
	h.f.seen[key] = k
	return answer(string(b), buf)
}

func (h host) list(name, key string, buf []byte) int32 {
	if !h.granted(abi.GrantList) {
		return abi.Denied
	}
	if len(key) > abi.MaxKey {
		return abi.BadArg
	}
	entries, ok := h.f.Lists[name]
	if !ok {
		return abi.NoList
	}
	v, ok := entries[key]
	if !ok {
		return abi.NotFound
	}
	return answer(v, buf)
}

func (h host) metric(label string, delta int64) {
	if _, known := h.f.Metrics[label]; known || len(h.f.Metrics) < abi.MaxMetrics && isMetric(label) {
		h.f.Metrics[label] += delta
	}
}

// isMetric reports whether label is [a-z0-9_-]{1,64}.
func isMetric(label string) bool {
	return label != "" && len(label) <= abi.MaxLabel && strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}
