package state

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"time"
)

// own is the lock of a key's records.
func (s *Store) own(k string) *sync.Mutex {
	return &s.keys[maphash.String(s.seed, k)%uint64(len(s.keys))]
}

// read returns the record of k if it is there at now, else nil. The caller must
// not change it.
func (s *Store) read(k string, now time.Time) ([]byte, error) {
	record, ok, err := s.remembered(k)
	if err != nil {
		return nil, err
	}
	// What memory held a moment ago and now holds no more is on disk by now.
	if f := s.file.Load(); !ok && f != nil {
		if record, err = f.get(k); err != nil {
			s.wake() // for a new file, if this one is damaged
			return nil, err
		}
	}
	if len(record) < headLen || !now.Before(until(record)) {
		return nil, nil
	}
	return record, nil
}

// remembered returns what is not on disk yet of k; ok with nil is a deletion.
func (s *Store) remembered(k string) (record []byte, ok bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, false, ErrClosed
	}
	if record, ok = s.pending[k]; !ok {
		record, ok = s.flushing[k]
	}
	return record, ok, nil
}

// write keeps record, nil for none, until the next flush. If memory is full, it
// waits for the flush under way, unless the disk failed the last time.
func (s *Store) write(ctx context.Context, k string, record []byte) error {
	for {
		room, err := s.keep(k, record)
		if room == nil {
			return err
		}
		s.wake()
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrFull, ctx.Err())
		}
	}
}

// keep is write without waiting. Where waiting may help, room is closed when there
// may be room.
func (s *Store) keep(k string, record []byte) (room <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	grows := cost(k, record)
	if old, ok := s.pending[k]; ok {
		grows -= cost(k, old)
	}
	if grows > 0 && s.octets+grows > maxPending {
		if s.failing {
			return nil, ErrFull
		}
		return s.room, nil
	}
	s.pending[k] = record
	if s.octets += grows; s.octets > maxPending/4 {
		s.wake()
	}
	s.grown.Add(int64(len(k) + len(record)))
	return nil, nil
}

// cost is about how much memory a record takes.
func cost(k string, record []byte) int { return len(k) + len(record) + overhead }

// wake asks for a flush.
func (s *Store) wake() {
	select {
	case s.soon <- struct{}{}:
	default:
	}
}
