package auth

import (
	"container/list"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

// Recent successes: how many are remembered, and for how long.
const (
	recentSize = 4096
	recentLife = 5 * time.Minute
)

// digest stands for something secret. It is useless without the process's key.
type digest [16]byte

// recent remembers which user, hash and password have lately been found to
// belong together. A changed password is another hash, so nothing stale ever
// matches.
type recent struct {
	key []byte
	now func() time.Time

	mu    sync.Mutex
	until map[digest]*list.Element
	order *list.List // of recentEntry, oldest first
}

type recentEntry struct {
	key   digest
	until time.Time
}

func newRecent(now func() time.Time) *recent {
	return &recent{key: random(32), now: now, until: make(map[digest]*list.Element), order: list.New()}
}

// mac returns a digest of parts under a key that lives only in this process.
// Lengths are part of it, so ("a", "bc") and ("ab", "c") differ.
func (r *recent) mac(parts ...string) digest {
	h := hmac.New(sha256.New, r.key)
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	var d digest
	copy(d[:], h.Sum(nil))
	return d
}

func (r *recent) has(key digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.until[key]
	return ok && r.now().Before(e.Value.(recentEntry).until)
}

func (r *recent) add(key digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.until[key]; ok {
		r.order.Remove(e)
	}
	now := r.now()
	r.until[key] = r.order.PushBack(recentEntry{key, now.Add(recentLife)})
	for e := r.order.Front(); e != nil; e = r.order.Front() {
		entry := e.Value.(recentEntry)
		if len(r.until) <= recentSize && now.Before(entry.until) {
			return
		}
		r.order.Remove(e)
		delete(r.until, entry.key)
	}
}
