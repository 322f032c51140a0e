package wasm

import (
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// tick is how often the watchdog looks at the calls under way.
const tick = 5 * time.Millisecond

// idleTicks is how many looks without a call send the watchdog to sleep.
const idleTicks = 200

// watchdog raises the stop flag of calls that are late. Fuel ends a call that
// only computes, and always at the same instruction; the watchdog is there for
// the time that fuel does not see. It counts its own ticks rather than the
// clock's, so that a machine that stood still does not condemn anybody, and a
// tick that many goroutines had to share counts for the part that each could get.
//
// One goroutine serves all instances of a Host. It sleeps while nothing is
// called.
type watchdog struct {
	wake     chan struct{}
	sleeping atomic.Bool
	quit     chan struct{}
	done     sync.WaitGroup

	mu      sync.Mutex
	watched map[*guard]struct{}

	queued []metrics.Sample // goroutines that could run and do not
}

func newWatchdog() *watchdog {
	w := &watchdog{wake: make(chan struct{}, 1), quit: make(chan struct{}), watched: make(map[*guard]struct{}),
		queued: []metrics.Sample{{Name: "/sched/goroutines/runnable:goroutines"}}}
	w.done.Go(w.run)
	return w
}

// close stops the goroutine and waits for it.
func (w *watchdog) close() {
	close(w.quit)
	w.done.Wait()
}

func (w *watchdog) add(g *guard)    { w.mu.Lock(); w.watched[g] = struct{}{}; w.mu.Unlock() }
func (w *watchdog) remove(g *guard) { w.mu.Lock(); delete(w.watched, g); w.mu.Unlock() }

func (w *watchdog) run() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for idle := 0; ; {
		select {
		case <-w.quit:
			return
		case now := <-ticker.C:
			if w.look(now) {
				idle = 0
				continue
			}
			if idle++; idle < idleTicks {
				continue
			}
		}
		ticker.Stop()
		w.sleeping.Store(true)
		if !w.look(time.Now()) { // a call may have begun before it could see that this sleeps
			select {
			case <-w.quit:
				return
			case <-w.wake:
			}
		}
		w.sleeping.Store(false)
		idle = 0
		ticker.Reset(tick)
	}
}

// look counts a tick for each call under way and reports whether there is one.
func (w *watchdog) look(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	share, busy := w.share(), false
	for g := range w.watched {
		if g.tick(now, share) {
			busy = true
		}
	}
	return busy
}

// share is the part of a tick that a goroutine which wanted all of it could have.
func (w *watchdog) share() time.Duration {
	metrics.Read(w.queued)
	cores := uint64(runtime.GOMAXPROCS(0))
	if w.queued[0].Value.Kind() != metrics.KindUint64 {
		return tick
	}
	return tick * time.Duration(cores) / time.Duration(cores+w.queued[0].Value.Uint64())
}

// rouse makes sure that the watchdog is awake.
func (w *watchdog) rouse() {
	if w.sleeping.Load() {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// guard is what the watchdog knows of one instance.
type guard struct {
	stop api.MutableGlobal // read by the guest at its yields

	mu      sync.Mutex
	running bool
	io      bool          // in a host call that waits
	used    time.Duration // of ticks seen while running and not in io
	cpu     time.Duration // allowed
	wall    time.Duration
	since   time.Time // first tick of this call
	late    string    // why the flag was raised
}

func (g *guard) begin(cpu, wall time.Duration) {
	g.mu.Lock()
	g.running, g.io, g.used, g.late = true, false, 0, ""
	g.cpu, g.wall, g.since = cpu, wall, time.Time{}
	g.stop.Set(0)
	g.mu.Unlock()
}

// end says that the call is over and returns why it was stopped, if it was.
func (g *guard) end() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running = false
	return g.late
}

// waiting marks the beginning and the end of a host call that waits.
func (g *guard) waiting(on bool) {
	g.mu.Lock()
	g.io = on
	g.mu.Unlock()
}

// stopped reports whether the flag is up: host calls end then, too.
func (g *guard) stopped() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.late != ""
}

func (g *guard) tick(now time.Time, share time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.running {
		return false
	}
	if g.since.IsZero() {
		g.since = now
	}
	if !g.io {
		g.used += share
	}
	if g.late != "" {
		return true
	}
	switch {
	case g.used > g.cpu+tick:
		g.late = "computed for more than " + g.cpu.String()
	case now.Sub(g.since) > g.wall:
		g.late = "took longer than " + g.wall.String()
	default:
		return true
	}
	g.stop.Set(1)
	return true
}
