package sdk

import (
	"io"
	"time"

	"github.com/wafermail/wafer/sdk/abi"
)

// Random fills p with random octets.
func (e *Event) Random(p []byte) {
	for len(p) > 0 {
		n := min(len(p), abi.MaxRandom)
		e.host.random(p[:n])
		p = p[n:]
	}
}

// Metric adds delta to the check's metric called label: [a-z0-9_-], at most 64
// octets. A check has at most 64 labels; other labels are not counted.
func (e *Event) Metric(label string, delta int64) { e.host.metric(label, delta) }

// Header returns the index-th header field called name, in any case, from 0 and
// from the top: its body unfolded and not decoded. With name "" all fields
// count, and value is "Name: body". ok is false past the last. It needs the
// grant "message" (else ErrDenied) and stage Message (else ErrNotFound).
func (e *Event) Header(name string, index int) (value string, ok bool, err error) {
	if e.Stage() != Message {
		return "", false, ErrNotFound
	}
	b, code := pull(1024, func(buf []byte) int32 { return e.host.header(name, int32(min(index, 1<<30)), buf) })
	switch {
	case code == abi.NotFound:
		return "", false, nil
	case code < 0:
		return "", false, codeError(int64(code))
	}
	return string(b), true, nil
}

// Body reads octets of the message's body, which begins after the empty line,
// from off into p, like io.ReaderAt: n < len(p) comes with an error, io.EOF at
// the end. It needs the grant "message" (else ErrDenied) and stage Message
// (else ErrNotFound).
func (e *Event) Body(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		got := e.host.body(off+int64(n), p[n:])
		if got < 0 {
			return n, codeError(int64(got))
		}
		if got == 0 {
			return n, io.EOF
		}
		n += int(got)
	}
	return n, nil
}

// StateGet returns the value that the check has put under key; ok is false if
// there is none or its time is over. It needs the grant "state" (else ErrDenied).
func (e *Event) StateGet(key string) (value []byte, ok bool, err error) {
	b, code := pull(256, func(buf []byte) int32 { return e.host.stateGet(key, buf) })
	switch {
	case code == abi.NotFound:
		return nil, false, nil
	case code < 0:
		return nil, false, codeError(int64(code))
	}
	return b, true, nil
}

// StatePut keeps value under key, which is the check's own, for ttl: at most 90
// days; 0 or less deletes it. It needs the grant "state" (else ErrDenied).
func (e *Event) StatePut(key string, value []byte, ttl time.Duration) error {
	if ttl > 0 {
		ttl = max(ttl, time.Millisecond) // less would delete
	}
	if code := e.host.statePut(key, value, max(ttl, 0).Milliseconds()); code < 0 {
		return codeError(int64(code))
	}
	return nil
}

// Sighting is how often a key was seen before. Count 0: never, then the times
// are zero.
type Sighting struct {
	First, Last time.Time
	Count       int64
}

// StateSeen returns the earlier sightings of key, and records this one. What is
// not seen for ttl, at most 90 days, is forgotten. Keys are the check's own and
// apart from those of StatePut. It needs the grant "state" (else ErrDenied).
func (e *Event) StateSeen(key string, ttl time.Duration) (Sighting, error) {
	var buf [abi.MaxSighting]byte
	n := e.host.stateSeen(key, ttl.Milliseconds(), buf[:])
	if n < 0 {
		return Sighting{}, codeError(int64(n))
	}
	return decodeSighting(buf[:min(int(n), len(buf))])
}

func decodeSighting(b []byte) (s Sighting, err error) {
	r := reader{b: b}
	for {
		field, v, _, ok := r.next()
		if !ok {
			break
		}
		switch field {
		case abi.SightingFirst:
			s.First = time.UnixMilli(int64(v))
		case abi.SightingLast:
			s.Last = time.UnixMilli(int64(v))
		case abi.SightingCount:
			s.Count = int64(v)
		}
	}
	if r.bad {
		return Sighting{}, errWire
	}
	return s, nil
}

// List looks key up in the list called name, one of those that the check names
// in lists = [...] (else ErrNoList). It needs the grant "list" (else ErrDenied).
func (e *Event) List(name, key string) (value string, ok bool, err error) {
	b, code := pull(256, func(buf []byte) int32 { return e.host.list(name, key, buf) })
	switch {
	case code == abi.NotFound:
		return "", false, nil
	case code < 0:
		return "", false, codeError(int64(code))
	}
	return string(b), true, nil
}

// Question is one DNS lookup. Type is "A", "AAAA", "MX", "TXT", "PTR", "NS" or
// "CNAME"; for PTR, Name is an IP address.
type Question struct{ Type, Name string }

// Answer is the result of one Question.
type Answer struct {
	Status  DNSStatus
	Records []string // A, AAAA: addresses; MX: "10 host"; TXT: the joined strings; others: names without the last dot
}

// DNSStatus is the outcome of a lookup.
type DNSStatus uint8

// The outcomes of a lookup.
const (
	DNSOK       DNSStatus = abi.DNSOK       // records follow, or the name exists without such records
	DNSNotFound DNSStatus = abi.DNSNotFound // the name does not exist
	DNSTemp     DNSStatus = abi.DNSTemp     // no answer: try later
)

// DNS looks qs up in parallel and returns as many answers in the same order.
// It needs the grant "dns" (else ErrDenied); a call may ask 256 questions (else
// ErrQuota) and wait 4 seconds in all (else ErrTimeout).
func (e *Event) DNS(qs ...Question) ([]Answer, error) {
	var req []byte
	for _, q := range qs {
		var m []byte
		m = appendString(m, abi.QuestionType, q.Type)
		m = appendString(m, abi.QuestionName, q.Name)
		req = appendBytes(req, abi.DNSItem, m)
	}
	b, code := pull(2048, func(buf []byte) int32 { return e.host.dns(req, buf) })
	if code < 0 {
		return nil, codeError(int64(code))
	}
	return decodeAnswers(b, len(qs))
}

func decodeAnswers(b []byte, want int) ([]Answer, error) {
	as := make([]Answer, 0, want)
	r := reader{b: b}
	for {
		field, _, p, ok := r.next()
		if !ok {
			break
		}
		if field != abi.DNSItem {
			continue
		}
		var a Answer
		ar := reader{b: p}
		for {
			field, v, p, ok := ar.next()
			if !ok {
				break
			}
			switch field {
			case abi.AnswerStatus:
				a.Status = DNSStatus(v)
			case abi.AnswerRecord:
				a.Records = append(a.Records, string(p))
			}
		}
		r.bad = r.bad || ar.bad
		as = append(as, a)
	}
	if r.bad || len(as) != want {
		return nil, errWire
	}
	return as, nil
}

// Limits of Count and state: octets of a key and of a value, the longest window,
// the longest time that a value is kept, and how many such calls one event may
// make.
const (
	MaxKey      = abi.MaxKey
	MaxState    = abi.MaxState
	MaxWindow   = abi.MaxWindow * time.Millisecond
	MaxStateTTL = abi.MaxStateTTL * time.Millisecond
	MaxStateOps = abi.MaxStateOps
)

// Count adds delta, which must not be negative, to the counter called key and
// returns its sum over the sliding window that ends now. Delta 0 only reads.
// Counters belong to the check. It needs the grant "count" (else ErrDenied).
func (e *Event) Count(key string, delta int64, window time.Duration) (int64, error) {
	n := e.host.count(key, delta, window.Milliseconds())
	if n < 0 {
		return 0, codeError(n)
	}
	return n, nil
}
