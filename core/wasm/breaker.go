package wasm

import (
	"sync"
	"sync/atomic"
	"time"
)

// The breaker's rule: that many failures within the window open it, first for
// firstPause, then for twice as long as the last time, up to longestPause. A
// window without failure after it closed forgets.
const (
	breakAfter   = 5
	breakWindow  = 60 * time.Second
	firstPause   = 30 * time.Second
	longestPause = 16 * time.Minute
)

// breaker keeps a plugin that fails again and again from being asked. Its zero
// value is closed.
type breaker struct {
	troubled atomic.Bool // something is remembered below; the only thing that a healthy plugin looks at

	mu     sync.Mutex
	failed [breakAfter]time.Time // ring of the last failures
	n      int
	pause  time.Duration // of the last opening
	until  time.Time
}

// allow reports whether the plugin may be asked at now.
func (b *breaker) allow(now func() time.Time) bool {
	if !b.troubled.Load() {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t := now()
	if t.Before(b.until) {
		return false
	}
	last := b.failed[(b.n+breakAfter-1)%breakAfter]
	if t.Sub(last) > breakWindow && t.Sub(b.until) > breakWindow {
		b.n, b.failed, b.pause = 0, [breakAfter]time.Time{}, 0
		b.troubled.Store(false)
	}
	return true
}

// fail notes a failure and reports for how long that opened the breaker, 0 if
// it did not.
func (b *breaker) fail(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.troubled.Store(true)
	b.failed[b.n%breakAfter] = now
	b.n++
	first := b.failed[b.n%breakAfter] // the one that comes next in the ring is the oldest
	if now.Before(b.until) || b.n < breakAfter || now.Sub(first) > breakWindow {
		return 0
	}
	b.pause = min(max(firstPause, 2*b.pause), longestPause)
	b.until = now.Add(b.pause)
	b.failed, b.n = [breakAfter]time.Time{now}, 1
	return b.pause
}
