package policy

import (
	"context"
	"errors"
	"time"
)

// Host is the world as one call of a plugin may touch it. One value serves one
// call. Its bodies are live, table (tests) and tape (replay). What the check was
// not granted, the plugin could not have imported.
type Host interface {
	Now() time.Time
	Random(p []byte)
	// DNS answers questions in parallel, in their order.
	DNS(ctx context.Context, qs []Question) []Answer
	// Count adds delta to the counter called key and returns its sum over the
	// sliding window that ends now. Delta 0 only reads. Keys are prefixed with
	// the check, so two checks never share a counter.
	Count(ctx context.Context, key string, delta int64, window time.Duration) (int64, error)
	// StateGet, StatePut and StateSeen are State's methods at the time of Now.
	// Keys are prefixed with the check.
	StateGet(ctx context.Context, key string) (value []byte, ok bool, err error)
	StatePut(ctx context.Context, key string, value []byte, ttl time.Duration) error
	StateSeen(ctx context.Context, key string, ttl time.Duration) (Sighting, error)
	// List looks key up in a list that the check names; ErrNoList if it names none
	// of that name.
	List(name, key string) (value string, ok bool, err error)
	// Metric adds delta to the check's metric called label. A check has at most
	// 64; others are dropped.
	Metric(label string, delta int64)
	// Log writes a line of the plugin's to the log. Levels are slog's.
	Log(level int, text string)
}

// Recorder is a Host that keeps what a call did for the decision log. A Plugin
// looks whether its Host is one.
type Recorder interface {
	// Records reports whether Note would keep anything.
	Records() bool
	// Note keeps one host call that the other methods do not see.
	Note(HostCall)
	// Burned says how much fuel the call has used.
	Burned(fuel int64)
}

// ErrNoList says that a check does not name the list that its plugin asks for.
var ErrNoList = errors.New("the check names no such list")

// State is memory that lasts, with keys that expire. It is safe for concurrent
// use. Values and sightings are apart: neither sees the other's keys.
type State interface {
	// Get returns the value of key; ok is false if there is none at now.
	Get(ctx context.Context, key string, now time.Time) (value []byte, ok bool, err error)
	// Put keeps value, which it copies, until now+ttl. A ttl of 0 or less deletes.
	Put(ctx context.Context, key string, value []byte, ttl time.Duration, now time.Time) error
	// Seen returns the earlier sightings of key and records one at now. What is
	// not seen for ttl is forgotten.
	Seen(ctx context.Context, key string, ttl time.Duration, now time.Time) (Sighting, error)
}

// Sighting is how often a key was seen before. Count 0: never, then the times
// are zero.
type Sighting struct {
	First, Last time.Time
	Count       int64
}

// List is a table of an operator's, such as one from a file. It is safe for
// concurrent use, and a lookup does not wait.
type List interface {
	Lookup(key string) (value string, ok bool)
}

// Question is one DNS lookup. Type is "A", "AAAA", "MX", "TXT", "PTR", "NS",
// "CNAME"; for PTR, Name is an IP address.
type Question struct{ Type, Name string }

// Answer is the result of one Question.
type Answer struct {
	Records []string // A, AAAA: addresses; MX: "10 host"; TXT: the joined strings; others: names without the last dot
	Status  DNSStatus
}

// DNSStatus is the outcome of a lookup.
type DNSStatus uint8

// The outcomes.
const (
	DNSOK       DNSStatus = 0 // records follow, or the name exists without such records
	DNSNotFound DNSStatus = 1 // NXDOMAIN
	DNSTemp     DNSStatus = 2 // SERVFAIL, timeout: try later
)
