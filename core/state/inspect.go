package state

import (
	"bytes"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/wafermail/wafer/core/policy"
)

// Entry is one record, for people to look at.
type Entry struct {
	Key      string          // the check's label, "\x00", the check's own key
	Value    []byte          // nil: it is a sighting
	Sighting policy.Sighting // Count 0: it is a value
	Until    time.Time       // when it is forgotten
}

// List returns the values and then the sightings whose keys begin with prefix
// and that have not expired, each in the order of keys, at most limit in all.
// The prefix of a check is its label with "\x00".
func (s *Store) List(prefix string, limit int) ([]Entry, error) {
	var all []Entry
	err := s.settled(func() error {
		return s.each(prefix, false, func(k, record []byte) bool {
			e := Entry{Key: string(k[1:]), Until: until(record)}
			if k[0] == kindValue {
				e.Value = append([]byte{}, record[headLen:]...)
			} else {
				e.Sighting = sighting(record)
			}
			all = append(all, e)
			return len(all) < limit
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list state: %w", err)
	}
	return all, nil
}

// Delete forgets the values and sightings whose keys begin with prefix, all for
// "", and returns how many there were. If exact is true, prefix is the whole key.
// It is on disk when Delete returns.
func (s *Store) Delete(prefix string, exact bool) (n int, err error) {
	err = s.settled(func() error {
		var gone [][]byte
		err := s.each(prefix, exact, func(k, _ []byte) bool {
			gone = append(gone, bytes.Clone(k))
			return true
		})
		if n = len(gone); err != nil {
			return err
		}
		return s.update(func(tx *bbolt.Tx) error {
			total := octets(tx)
			for _, k := range gone {
				freed, err := drop(tx, k)
				if err != nil {
					return err
				}
				total -= freed
			}
			return setOctets(tx, total)
		})
	})
	if err != nil {
		return 0, fmt.Errorf("delete state: %w", err)
	}
	return n, nil
}

// settled runs f while all that was written is on disk, and nothing is written.
func (s *Store) settled(f func() error) error {
	for i := range s.keys { // so that no sighting which was read before is written after
		s.keys[i].Lock()
		defer s.keys[i].Unlock()
	}
	s.mu.RLock()
	closed := s.closed
	s.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	if err := s.flush(); err != nil {
		return err
	}
	s.disk.Lock()
	defer s.disk.Unlock()
	return f()
}

// each calls f with each record on disk that is there now and whose key begins
// with prefix, or is it, until f returns false.
func (s *Store) each(prefix string, exact bool, f func(k, record []byte) bool) error {
	now := s.o.Now()
	return s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			for _, kind := range []byte{kindValue, kindSighting} {
				low := append([]byte{kind}, prefix...)
				c := tx.Bucket(records).Cursor()
				for k, record := c.Seek(low); bytes.HasPrefix(k, low); k, record = c.Next() {
					if exact && len(k) > len(low) {
						break
					}
					if len(record) >= headLen && now.Before(until(record)) && !f(k, record) {
						return nil
					}
				}
			}
			return nil
		})
	})
}
