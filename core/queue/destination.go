package queue

import (
	"container/heap"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Limits bound what a destination is burdened with. The zero value means the
// defaults.
type Limits struct {
	Start      int           // deliveries at once to begin with; 5
	Concurrent int           // deliveries at once; 20
	Recipients int           // for one delivery; 50
	Interval   time.Duration // between the starts of two deliveries; 0
}

func (l Limits) withDefaults() Limits {
	if l.Concurrent <= 0 {
		l.Concurrent = 20
	}
	if l.Start <= 0 {
		l.Start = 5
	}
	l.Start = min(l.Start, l.Concurrent)
	if l.Recipients <= 0 {
		l.Recipients = 50
	}
	return l
}

// destination is a route that recipients in memory wait for. It keeps to
// Postfix's feedback: every session that comes about widens the window by one,
// every one that does not narrows it, and when as many fail as the window was
// wide, the destination is dead for a while.
type destination struct {
	route  mail.Route
	limits Limits

	jobs    jobs
	running int
	window  float64
	cohorts float64   // failed windows since the last success
	until   time.Time // dead or, with an interval, at rest until then
	dead    bool
	why     mail.Outcome // of the failure that made it dead
	parked  []*item      // that wait on disk for jobs to become few
	at      int          // in the ready heap, -1: not in it
}

func newDestination(r mail.Route, l Limits) *destination {
	l = l.withDefaults()
	return &destination{route: r, limits: l, window: float64(l.Start), at: -1}
}

// can reports whether another delivery may start at now.
func (d *destination) can(now time.Time) bool {
	return len(d.jobs) > 0 && d.running < int(d.window) && !now.Before(d.until)
}

// feedback learns from a delivery. It reports whether the destination is dead now.
func (d *destination) feedback(reached bool, why mail.Outcome, now time.Time, rest time.Duration) bool {
	if reached {
		d.cohorts = 0
		d.window = min(d.window+1, float64(d.limits.Concurrent))
		return false
	}
	d.cohorts += 1 / d.window
	d.window = max(d.window-1, 1)
	if d.cohorts < 1-1e-9 {
		return false
	}
	d.dead, d.until, d.why = true, now.Add(rest), why
	d.cohorts, d.window = 0, float64(d.limits.Start)
	return true
}

// job is what one message wants of one destination: some of its recipients, with
// the same sender and the same extra header.
type job struct {
	live  *live
	dest  *destination
	rcpts []int // indices that no attempt has taken yet
	tag   uint64
}

// jobs is a heap: the one whose turn it is comes first.
type jobs []*job

func (j jobs) Len() int           { return len(j) }
func (j jobs) Less(a, b int) bool { return j[a].tag < j[b].tag }
func (j jobs) Swap(a, b int)      { j[a], j[b] = j[b], j[a] }

// Push implements heap.Interface.
func (j *jobs) Push(x any) { *j = append(*j, x.(*job)) }

// Pop implements heap.Interface.
func (j *jobs) Pop() any {
	old := *j
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*j = old[:len(old)-1]
	return x
}

// ready is a heap of destinations that can take a delivery, by whose turn it is.
type ready []*destination

func (r ready) Len() int           { return len(r) }
func (r ready) Less(a, b int) bool { return r[a].jobs[0].tag < r[b].jobs[0].tag }
func (r ready) Swap(a, b int) {
	r[a], r[b] = r[b], r[a]
	r[a].at, r[b].at = a, b
}

// Push implements heap.Interface.
func (r *ready) Push(x any) {
	d := x.(*destination)
	d.at = len(*r)
	*r = append(*r, d)
}

// Pop implements heap.Interface.
func (r *ready) Pop() any {
	old := *r
	d := old[len(old)-1]
	old[len(old)-1] = nil
	*r = old[:len(old)-1]
	d.at = -1
	return d
}

// settle puts d into the heap, takes it out, or moves it.
func (r *ready) settle(d *destination, now time.Time) {
	can := d.can(now)
	switch {
	case can && d.at < 0:
		heap.Push(r, d)
	case can:
		heap.Fix(r, d.at)
	case d.at >= 0:
		heap.Remove(r, d.at)
	}
}
