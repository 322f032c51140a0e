// Package state keeps what checks want to remember: values under keys, and when
// and how often a key was seen, each until its time is over. It is a policy.State
// on disk, in one bbolt file that one process holds.
//
//	s, err := state.Open("/var/lib/wafer/policy.db", state.Options{Logger: log})
//	defer s.Close()
//
// What was written is read back at once and by every goroutine; sightings of one
// key are counted one after the other, so none is lost. A key that has expired
// is not there, at the very time that the caller gives; its room is taken back
// by a sweep each hour.
//
// No write waits for the disk, unless it is slower than those who write. What is written is kept in memory, and once a
// second, when it is much, and at Close, one goroutine puts all of it into the
// file in one transaction, which is synced: when the power fails or the process
// is killed, what was written in the last second or two is gone, and nothing
// older, and the file is whole. That is enough for a greylist, whose client comes
// back anyway, and it is not enough for mail.
//
// A disk that is full or broken is tried again each second. Until it takes the
// transaction, what is written stays in memory, up to 32 MiB; beyond, writes
// fail, and the checks' on_error decides. What is kept on disk is bounded by
// Options.MaxOctets: beyond, what would expire first is forgotten first, which in
// a greylist are the clients that never came back.
//
// A file that cannot be read, at the start or later, is renamed to
// state.db.broken-TIME, a warning says so, and an empty one is begun: what it
// held can be learned again, mail cannot wait for it.
//
// # BUGS
//
// MaxOctets is looked at in the sweep, which comes early when a quarter of it has
// been written; until it is over there may be more. It counts keys and values;
// the file may be several times as large, and does not shrink.
//
// What memory does not hold is read through a map of the file: a read of what the
// kernel has not at hand waits for the disk.
//
// Open reads the heads of all of the file's pages, so with a large file that the
// kernel has not at hand it takes seconds. What is wrong later is found when it is
// read: that call fails, and the file is set aside within a second. Octets that
// have changed within a key or a value are not found: records have no checksums.
//
// Nobody else may write to the file while a Store holds it. Where it is cut short
// meanwhile, calls that read at that moment may hang. A file that was set aside
// stays open until the process ends if its damage met a transaction, and nobody
// removes it.
package state

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// Limits of one record.
const (
	MaxKey   = 1<<10 + 512         // octets of a key: 1 KiB of the check's own behind the check's name
	MaxValue = 64 << 10            // octets of a value
	MaxTTL   = 90 * 24 * time.Hour // that anything is kept
)

const (
	maxPending = 32 << 20 // octets of memory for what is not on disk yet, about
	overhead   = 96       // octets of memory that a record takes beyond its key and itself, about
)

// Errors of calls.
var (
	ErrClosed = errors.New("state is closed")
	ErrFull   = errors.New("the disk takes no state, and memory is full of what it should have taken")
)

// Options says how a Store works. The zero value will do.
type Options struct {
	Logger    *slog.Logger     // nil: silent
	Now       func() time.Time // of sweeps, List and Delete; nil: time.Now
	MaxOctets int64            // of all keys and values; 0: 1 GiB

	fault func() error // asked before each transaction; nil: none fails
}

// Store is a policy.State on disk. It is safe for concurrent use.
type Store struct {
	dir  string
	o    Options
	seed maphash.Seed
	file atomic.Pointer[file] // nil: the last was damaged, and the disk takes no new one

	grown atomic.Int64  // octets written since the last sweep
	soon  chan struct{} // asks for a flush
	quit  chan struct{}
	done  sync.WaitGroup

	keys [64]sync.Mutex // by hash: who reads a record to write it holds its own
	disk sync.Mutex     // held during a transaction that writes, and while file changes

	mu       sync.RWMutex
	closed   bool
	pending  map[string][]byte // what was written since the last flush began; nil: deleted
	flushing map[string][]byte // what the flush under way writes
	octets   int               // cost of both
	failing  bool              // the last flush did
	room     chan struct{}     // closed when the next flush has ended
}

// Kinds of records: the first octet of their keys.
const (
	kindValue    = 'v'
	kindSighting = 's'
)

// Records begin with the time of their end, in ns since 1970, big-endian. A
// value follows; a sighting's first and last time and its count, 8 octets each.
const (
	headLen     = 8
	sightingLen = headLen + 24
)

func recordKey(kind byte, key string) (string, error) {
	if len(key) > MaxKey {
		return "", fmt.Errorf("key has %d octets, more than %d", len(key), MaxKey)
	}
	return string(kind) + key, nil
}

// until is when record ends; one that is too short has ended.
func until(record []byte) time.Time {
	if len(record) < headLen {
		return time.Time{}
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(record)))
}

func sighting(record []byte) policy.Sighting {
	if len(record) != sightingLen {
		return policy.Sighting{}
	}
	return policy.Sighting{
		First: time.Unix(0, int64(binary.BigEndian.Uint64(record[8:]))),
		Last:  time.Unix(0, int64(binary.BigEndian.Uint64(record[16:]))),
		Count: int64(binary.BigEndian.Uint64(record[24:])),
	}
}

// Get returns the value of key; ok is false if there is none at now.
func (s *Store) Get(_ context.Context, key string, now time.Time) (value []byte, ok bool, err error) {
	k, err := recordKey(kindValue, key)
	if err != nil {
		return nil, false, fmt.Errorf("get state: %w", err)
	}
	record, err := s.read(k, now)
	if err != nil {
		return nil, false, fmt.Errorf("get state: %w", err)
	}
	if record == nil {
		return nil, false, nil
	}
	return append([]byte{}, record[headLen:]...), true, nil
}

// Put keeps value until now+ttl; a ttl of 0 or less deletes it.
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration, now time.Time) error {
	k, err := recordKey(kindValue, key)
	switch {
	case err != nil:
		return fmt.Errorf("put state: %w", err)
	case len(value) > MaxValue:
		return fmt.Errorf("put state: value has %d octets, more than %d", len(value), MaxValue)
	case ttl > MaxTTL:
		return fmt.Errorf("put state: ttl %s is more than %s", ttl, MaxTTL)
	}
	own := s.own(k)
	own.Lock()
	defer own.Unlock()
	var record []byte
	if ttl > 0 {
		record = binary.BigEndian.AppendUint64(make([]byte, 0, headLen+len(value)), uint64(now.Add(ttl).UnixNano()))
		record = append(record, value...)
	}
	if err := s.write(ctx, k, record); err != nil {
		return fmt.Errorf("put state: %w", err)
	}
	return nil
}

// Seen returns the earlier sightings of key and records one at now. What is not
// seen for ttl is forgotten.
func (s *Store) Seen(ctx context.Context, key string, ttl time.Duration, now time.Time) (policy.Sighting, error) {
	k, err := recordKey(kindSighting, key)
	switch {
	case err != nil:
		return policy.Sighting{}, fmt.Errorf("see state: %w", err)
	case ttl <= 0 || ttl > MaxTTL:
		return policy.Sighting{}, fmt.Errorf("see state: ttl %s is not between 0 and %s", ttl, MaxTTL)
	}
	own := s.own(k)
	own.Lock()
	defer own.Unlock()
	record, err := s.read(k, now)
	if err != nil {
		return policy.Sighting{}, fmt.Errorf("see state: %w", err)
	}
	before := sighting(record)
	first := now
	if before.Count > 0 {
		first = before.First
	}
	after := binary.BigEndian.AppendUint64(make([]byte, 0, sightingLen), uint64(now.Add(ttl).UnixNano()))
	after = binary.BigEndian.AppendUint64(after, uint64(first.UnixNano()))
	after = binary.BigEndian.AppendUint64(after, uint64(now.UnixNano()))
	after = binary.BigEndian.AppendUint64(after, uint64(before.Count+1))
	if err := s.write(ctx, k, after); err != nil {
		return policy.Sighting{}, fmt.Errorf("see state: %w", err)
	}
	return before, nil
}
