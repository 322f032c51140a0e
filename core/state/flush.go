package state

import (
	"encoding/binary"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// The file's buckets: records by key; their keys by the time of their end, so
// that what ends first comes first; and how many octets there are.
var (
	records = []byte("records")
	ends    = []byte("ends")
	meta    = []byte("meta")
)

var octetsKey = []byte("octets")

const (
	flushEvery = time.Second
	sweepEvery = time.Hour
	complaints = time.Minute // how often a disk that takes nothing is complained of
	sweepStep  = 1000        // records that a transaction of a sweep removes
)

// maintain flushes and sweeps until Close.
func (s *Store) maintain() {
	flush, sweep := time.NewTicker(flushEvery), time.NewTicker(sweepEvery)
	defer flush.Stop()
	defer sweep.Stop()
	var complained time.Time
	for {
		due := false
		select {
		case <-s.quit:
			return
		case <-flush.C:
		case <-s.soon:
		case <-sweep.C:
			due = true
		}
		err := s.flush()
		if err == nil && (due || s.grown.Load() > s.o.MaxOctets/4) {
			err = s.sweep()
		}
		if err != nil && time.Since(complained) >= complaints {
			complained = time.Now()
			s.o.Logger.Error("state cannot be written", "dir", s.dir, "err", err)
		}
	}
}

// flush writes what is pending.
func (s *Store) flush() error {
	s.disk.Lock()
	defer s.disk.Unlock()
	s.mu.Lock()
	if s.flushing == nil {
		s.flushing, s.pending = s.pending, map[string][]byte{}
	} else { // what the disk did not take the last time, and since
		for k, record := range s.pending {
			if old, ok := s.flushing[k]; ok {
				s.octets -= len(k) + len(old)
			}
			s.flushing[k] = record
		}
		clear(s.pending)
	}
	batch := s.flushing
	s.mu.Unlock()
	if len(batch) > 0 {
		if err := s.update(func(tx *bbolt.Tx) error { return store(tx, batch) }); err != nil {
			return err
		}
	}
	s.mu.Lock()
	for k, record := range batch {
		s.octets -= len(k) + len(record)
	}
	s.flushing = nil
	s.mu.Unlock()
	return nil
}

// store writes a batch in the order of its keys.
func store(tx *bbolt.Tx, batch map[string][]byte) error {
	keys := make([]string, 0, len(batch))
	for k := range batch {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	total := octets(tx)
	for _, k := range keys {
		freed, err := drop(tx, []byte(k))
		if err != nil {
			return err
		}
		total -= freed
		record := batch[k]
		if record == nil {
			continue
		}
		if err := tx.Bucket(records).Put([]byte(k), record); err != nil {
			return err
		}
		if err := tx.Bucket(ends).Put(endKey(record, []byte(k)), nil); err != nil {
			return err
		}
		total += int64(len(k) + len(record))
	}
	return setOctets(tx, total)
}

// drop removes a record and returns its octets.
func drop(tx *bbolt.Tx, k []byte) (int64, error) {
	old := tx.Bucket(records).Get(k)
	if old == nil {
		return 0, nil
	}
	freed := int64(len(k) + len(old))
	if len(old) >= headLen {
		if err := tx.Bucket(ends).Delete(endKey(old, k)); err != nil {
			return 0, err
		}
	}
	return freed, tx.Bucket(records).Delete(k)
}

// endKey is a record's key in the bucket of ends.
func endKey(record, k []byte) []byte {
	return append(append(make([]byte, 0, headLen+len(k)), record[:headLen]...), k...)
}

func octets(tx *bbolt.Tx) int64 {
	if b := tx.Bucket(meta).Get(octetsKey); len(b) == 8 {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func setOctets(tx *bbolt.Tx, n int64) error {
	return tx.Bucket(meta).Put(octetsKey, binary.BigEndian.AppendUint64(nil, uint64(max(n, 0))))
}

// sweep removes what has ended, and beyond MaxOctets what would end first.
func (s *Store) sweep() error {
	if err := s.flush(); err != nil {
		return err
	}
	s.disk.Lock()
	defer s.disk.Unlock()
	s.grown.Store(0)
	now, before := s.o.Now(), int64(0)
	for more := true; more; {
		more = false
		err := s.update(func(tx *bbolt.Tx) error {
			total := octets(tx)
			before = max(before, total)
			c := tx.Bucket(ends).Cursor()
			var gone [][]byte
			for k, _ := c.First(); k != nil && len(gone) < sweepStep; k, _ = c.Next() {
				if len(k) < headLen || now.Before(until(k)) && total <= s.o.MaxOctets {
					break
				}
				total -= int64(len(k) - headLen + len(tx.Bucket(records).Get(k[headLen:])))
				gone = append(gone, slices.Clone(k))
			}
			for _, k := range gone {
				if _, err := drop(tx, k[headLen:]); err != nil {
					return err
				}
				if err := tx.Bucket(ends).Delete(k); err != nil { // of a record that was not there
					return err
				}
			}
			more = len(gone) == sweepStep
			return setOctets(tx, total)
		})
		if err != nil {
			return err
		}
	}
	if before > s.o.MaxOctets {
		s.o.Logger.Warn("state was full: what would have ended first is forgotten", "dir", s.dir, "octets", before, "bound", s.o.MaxOctets)
	}
	return nil
}
