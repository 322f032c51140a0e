package policy

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what a tally keeps by names that a plugin chooses.
const (
	maxReasons = 64
	maxMetrics = 64
	maxLabel   = 64 // octets
)

// The upper bounds of a Tally's histograms; above the last is one more class.
const (
	latencyClasses = 13
	fuelClasses    = 12
)

func latencyBounds() [latencyClasses - 1]time.Duration {
	const us, ms = time.Microsecond, time.Millisecond
	return [...]time.Duration{10 * us, 20 * us, 50 * us, 100 * us, 200 * us, 500 * us, ms, 5 * ms, 20 * ms, 100 * ms, 500 * ms, 2000 * ms}
}

func fuelBounds() [fuelClasses - 1]int64 {
	return [...]int64{1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6, 1e7, 1e8, 1e9}
}

// LatencyBounds are the upper bounds of Tally.Latency in seconds.
func LatencyBounds() (seconds []float64) {
	for _, b := range latencyBounds() {
		seconds = append(seconds, b.Seconds())
	}
	return seconds
}

// FuelBounds are the upper bounds of Tally.Fuel in units of fuel.
func FuelBounds() (units []float64) {
	for _, b := range fuelBounds() {
		units = append(units, float64(b))
	}
	return units
}

// Tally is what a check has decided since its Set was made.
type Tally struct {
	Asked, Next, Refused, Errors uint64

	Verdicts []VerdictCount    // what it said, by stage and action; errors apart
	Reasons  map[string]uint64 // verdicts by their reason label
	Metrics  map[string]int64  // that the plugin keeps itself
	Latency  Histogram         // of its calls, in seconds, by LatencyBounds
	Fuel     Histogram         // of its calls, by FuelBounds
}

// VerdictCount is how often a check decided Action at Stage. Error means that
// on_error decided it.
type VerdictCount struct {
	Stage  Stage
	Action Action
	Error  bool
	Count  uint64
}

// Histogram counts values by class: Counts[i] is of those not above the i-th
// bound and above the one before; the last is of those above all.
type Histogram struct {
	Counts []uint64
	Sum    float64
}

// tally counts outcomes. Its zero value is ready.
type tally struct {
	refused atomic.Uint64

	said    [LastStage + 1][DeferIfReject + 1]atomic.Uint64
	failed  [LastStage + 1]atomic.Uint64
	latency [latencyClasses]atomic.Uint64
	fuel    [fuelClasses]atomic.Uint64
	nanos   atomic.Int64
	burned  atomic.Int64

	mu      sync.Mutex
	reasons map[string]uint64
	metrics map[string]int64
}

// class is the class that v is of.
func class[T int64 | time.Duration](bounds []T, v T) int {
	for i, b := range bounds {
		if v <= b {
			return i
		}
	}
	return len(bounds)
}

// count notes one call.
func (t *tally) count(stage Stage, v *Verdict, err error, took time.Duration, fuel int64) {
	latency := latencyBounds()
	t.latency[class(latency[:], took)].Add(1)
	t.nanos.Add(int64(took))
	if fuel > 0 {
		units := fuelBounds()
		t.fuel[class(units[:], fuel)].Add(1)
		t.burned.Add(fuel)
	}
	if err != nil {
		t.failed[stage].Add(1)
		return
	}
	t.said[stage][v.Action].Add(1)
	if v.Reason == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reasons == nil {
		t.reasons = map[string]uint64{}
	}
	reason := v.Reason
	if _, known := t.reasons[reason]; !known {
		if reason = strings.Clone(reason); len(t.reasons) >= maxReasons { // it may be part of something longer
			reason = "other"
		}
	}
	t.reasons[reason]++
}

// metric adds to a plugin's own metric. Labels that are none are dropped.
func (t *tally) metric(label string, delta int64) {
	if !isMetric(label) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.metrics == nil {
		t.metrics = map[string]int64{}
	}
	if _, known := t.metrics[label]; known || len(t.metrics) < maxMetrics {
		t.metrics[label] += delta
	}
}

func isMetric(label string) bool {
	for _, c := range []byte(label) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return label != "" && len(label) <= maxLabel
}

// read is the tally so far.
func (c *Check) read() Tally {
	t := &c.tally
	out := Tally{Refused: t.refused.Load()}
	for stage := Connect; stage <= LastStage; stage++ {
		for a := Next; a <= DeferIfReject; a++ {
			if n := t.said[stage][a].Load(); n > 0 {
				out.Verdicts = append(out.Verdicts, VerdictCount{Stage: stage, Action: a, Count: n})
				out.Asked += n
				if a == Next {
					out.Next += n
				}
			}
		}
		if n := t.failed[stage].Load(); n > 0 {
			out.Verdicts = append(out.Verdicts, VerdictCount{Stage: stage, Action: c.OnError, Error: true, Count: n})
			out.Asked += n
			out.Errors += n
		}
	}
	out.Latency = histogram(t.latency[:], time.Duration(t.nanos.Load()).Seconds())
	out.Fuel = histogram(t.fuel[:], float64(t.burned.Load()))
	t.mu.Lock()
	defer t.mu.Unlock()
	out.Reasons, out.Metrics = maps.Clone(t.reasons), maps.Clone(t.metrics)
	return out
}

func histogram(counts []atomic.Uint64, sum float64) Histogram {
	h := Histogram{Counts: make([]uint64, len(counts)), Sum: sum}
	for i := range counts {
		h.Counts[i] = counts[i].Load()
	}
	return h
}

// Tallies returns what each check has decided, by label.
func (s *Set) Tallies() map[string]Tally {
	all := map[string]Tally{}
	if s == nil {
		return all
	}
	for _, c := range s.checks {
		all[c.label] = c.read()
	}
	return all
}
