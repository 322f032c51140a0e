package policy

import (
	"sync/atomic"
	"time"
)

// Traffic sums up what a Set has decided, for who watches over a new version.
type Traffic struct {
	Sessions uint64        // that asked at least once
	Refused  uint64        // sessions in which something was refused
	Calls    uint64        // of checks
	Errors   uint64        // calls that failed
	P99      time.Duration // 99 of 100 calls took no longer than this, to the next bound of Tally.Latency
}

// traffic counts for Traffic.
type traffic struct{ sessions, refused atomic.Uint64 }

// Traffic is what was decided so far.
func (s *Set) Traffic() (t Traffic) {
	if s == nil {
		return t
	}
	t.Sessions, t.Refused = s.traffic.sessions.Load(), s.traffic.refused.Load()
	var classes [latencyClasses]uint64
	for _, c := range s.checks {
		if c.Observe {
			continue
		}
		for i := range classes {
			n := c.tally.latency[i].Load()
			classes[i] += n
			t.Calls += n
		}
		for stage := range c.tally.failed {
			t.Errors += c.tally.failed[stage].Load()
		}
	}
	bounds := latencyBounds()
	seen := uint64(0)
	for i, n := range classes {
		if seen += n; t.Calls > 0 && seen*100 >= t.Calls*99 {
			t.P99 = time.Hour // above all bounds
			if i < len(bounds) {
				t.P99 = bounds[i]
			}
			break
		}
	}
	return t
}

// met counts the session, once, and that something was refused in it, once.
func (s *Session) met(d *Decision) {
	if !s.asked {
		s.asked = true
		s.set.traffic.sessions.Add(1)
	}
	if d.Refused() && !s.refused {
		s.refused = true
		s.set.traffic.refused.Add(1)
	}
}
