package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

var octetsKey = []byte("octets")

const (
	flushEvery = time.Second
	sweepEvery = time.Hour
	complaints = time.Minute // how often a disk that takes nothing is complained of
)

// maintain flushes and sweeps until Close.
func (s *Store) maintain() {
	flush, sweep := time.NewTicker(flushEvery), time.NewTicker(sweepEvery)
	defer flush.Stop()
	defer sweep.Stop()
	var complained time.Time
	var err error
	due := false
	for {
		soon := s.soon
		if err != nil {
			soon = nil // a disk that takes nothing is not asked more often for it
		}
		select {
		case <-s.quit:
			return
		case <-flush.C:
		case <-soon:
		case <-sweep.C:
			due = true
		}
		was := err
		err = s.flush()
		if err == nil && (due || s.grown.Load() > s.o.MaxOctets/4) {
			if err = s.sweep(); err == nil {
				due = false
			}
		}
		if err != nil && time.Since(complained) >= complaints {
			complained = time.Now()
			s.o.Logger.Warn("state cannot be written", "dir", s.dir, "err", err)
		}
		if err == nil && was != nil {
			s.o.Logger.Info("state is written again", "dir", s.dir)
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
				s.octets -= cost(k, old)
			}
			s.flushing[k] = record
		}
		clear(s.pending)
	}
	batch := s.flushing
	s.mu.Unlock()
	err := s.update(func(tx *bbolt.Tx) error { return store(tx, batch) }, len(batch) == 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = err != nil
	close(s.room)
	s.room = make(chan struct{})
	if err != nil {
		return err
	}
	for k, record := range batch {
		s.octets -= cost(k, record)
	}
	s.flushing = nil
	return nil
}

// update runs a transaction that writes, in a new file if it finds the last to
// be damaged. One that is empty only sees to it that there is a file. The caller
// holds disk.
func (s *Store) update(write func(*bbolt.Tx) error, empty bool) (err error) {
	for range 2 {
		var f *file
		if f, err = s.whole(); err != nil {
			continue
		}
		if empty {
			return nil
		}
		if s.o.fault != nil {
			if err := s.o.fault(); err != nil {
				return err
			}
		}
		if err = f.update(write); !errors.Is(err, errDamaged) {
			return err
		}
	}
	return err
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
		key, record := []byte(k), batch[k]
		if record == nil {
			freed, err := drop(tx, key)
			if err != nil {
				return err
			}
			total -= freed
			continue
		}
		if old := tx.Bucket(records).Get(key); old != nil {
			total -= int64(len(key) + len(old))
			if len(old) >= headLen && !bytes.Equal(old[:headLen], record[:headLen]) {
				if err := tx.Bucket(ends).Delete(endKey(old, key)); err != nil {
					return err
				}
			}
		}
		if err := tx.Bucket(records).Put(key, record); err != nil {
			return err
		}
		if err := tx.Bucket(ends).Put(endKey(record, key), nil); err != nil {
			return err
		}
		total += int64(len(key) + len(record))
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
