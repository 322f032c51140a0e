package policy

import (
	"container/list"
	"errors"
	"hash/maphash"
	"strings"
	"sync"
	"time"
)

// pieces is how many parts a window is counted in. A sum covers the running
// part and the pieces-1 before it entirely, so it never counts less than the
// window holds and forgets within 1/pieces of it.
const pieces = 16

// maxWindow bounds a window: longer memories belong on disk.
const maxWindow = 31 * 24 * time.Hour

// maxCount bounds what one slice counts, so that no sum wraps round.
const maxCount = 1 << 50

// CounterOptions bounds Counters.
type CounterOptions struct {
	Keys int // counters at once; the longest unused goes first. 0: 200,000
}

// Counters holds sliding-window counters in memory. It is safe for concurrent
// use and outlives generations.
type Counters struct {
	seed   maphash.Seed
	shards [32]counterShard
}

type counterShard struct {
	mu    sync.Mutex
	max   int
	byKey map[string]*list.Element
	used  *list.List // of *counter, the last used in front
}

type counter struct {
	key    string
	window time.Duration
	last   int64 // number of the running slice since 1970
	sums   [pieces + 1]int64
}

// NewCounters returns empty counters.
func NewCounters(o CounterOptions) *Counters {
	if o.Keys <= 0 {
		o.Keys = 200_000
	}
	c := &Counters{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i] = counterShard{max: max(1, o.Keys/len(c.shards)), byKey: map[string]*list.Element{}, used: list.New()}
	}
	return c
}

// Add adds delta to the counter called key at now, and returns its sum over
// the window that ends at now. A negative sum is zero. A window that differs
// from the key's last one starts the counter anew.
func (c *Counters) Add(key string, delta int64, window time.Duration, now time.Time) (int64, error) {
	if window < pieces || window > maxWindow {
		return 0, errors.New("count: window must be positive and at most 744h")
	}
	s := &c.shards[maphash.String(c.seed, key)%uint64(len(c.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byKey[key]
	if e == nil {
		if delta == 0 {
			return 0, nil
		}
		if s.used.Len() >= s.max {
			oldest := s.used.Back()
			delete(s.byKey, oldest.Value.(*counter).key)
			s.used.Remove(oldest)
		}
		e = s.used.PushFront(&counter{key: key})
		s.byKey[key] = e
	} else {
		s.used.MoveToFront(e)
	}
	return e.Value.(*counter).add(delta, window, now), nil
}

func (c *counter) add(delta int64, window time.Duration, now time.Time) (sum int64) {
	slice := max(now.UnixNano()/int64(window/pieces), 0)
	if c.window != window || slice-c.last > pieces || slice < c.last-pieces {
		c.window, c.last, c.sums = window, slice, [pieces + 1]int64{}
	}
	for c.last < slice { // the ring moves on
		c.last++
		c.sums[c.last%(pieces+1)] = 0
	}
	at := &c.sums[c.last%(pieces+1)]
	*at = min(max(*at+min(max(delta, -maxCount), maxCount), 0), maxCount)
	for _, n := range c.sums {
		sum += n
	}
	return sum
}

// Counted is one counter with its sum.
type Counted struct {
	Check  string // "policy/check"
	Key    string // the check's own
	Sum    int64  // over Window
	Window time.Duration
}

// List returns the counters of check, or of all checks if it is "", that are
// not zero at now, at most limit, in no order.
func (c *Counters) List(check string, now time.Time, limit int) []Counted {
	var all []Counted
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for full, e := range s.byKey {
			owner, key, _ := strings.Cut(full, "\x00")
			if len(all) >= limit {
				break
			}
			if check != "" && owner != check {
				continue
			}
			own := e.Value.(*counter)
			if sum := own.add(0, own.window, now); sum > 0 {
				all = append(all, Counted{owner, key, sum, own.window})
			}
		}
		s.mu.Unlock()
	}
	return all
}

// Reset forgets the counter of check called key, or all of its counters if key
// is "", and returns how many there were.
func (c *Counters) Reset(check, key string) (n int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for full, e := range s.byKey {
			if owner, own, _ := strings.Cut(full, "\x00"); owner == check && (key == "" || own == key) {
				delete(s.byKey, full)
				s.used.Remove(e)
				n++
			}
		}
		s.mu.Unlock()
	}
	return n
}
