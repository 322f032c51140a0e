package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// window is how many records are looked at in one transaction: a long one would
// keep a file that grows from growing.
const window = 1000

// List returns the values and then the sightings whose keys begin with prefix
// and that have not expired, each in the order of keys, at most limit in all.
// The prefix of a check is its label with "\x00". What is written meanwhile may
// be among them or not.
func (s *Store) List(prefix string, limit int) ([]Entry, error) {
	var all []Entry
	now := s.o.Now()
	for _, kind := range []byte{kindValue, kindSighting} {
		err := s.each(kind, prefix, now, func(k string, record []byte) (bool, error) {
			if len(all) >= limit {
				return false, nil
			}
			e := Entry{Key: k[1:], Until: until(record)}
			if kind == kindValue {
				e.Value = append([]byte{}, record[headLen:]...)
			} else {
				e.Sighting = sighting(record)
			}
			all = append(all, e)
			return true, nil
		})
		if err != nil {
			return nil, fmt.Errorf("list state: %w", err)
		}
	}
	return all, nil
}

// Delete forgets the values and sightings whose keys begin with prefix, all for
// "", and returns how many there were. If exact is true, prefix is the whole key.
// It is on disk when Delete returns. What is written meanwhile may stay.
func (s *Store) Delete(prefix string, exact bool) (n int, err error) {
	now, unsaved := s.o.Now(), 0
	forget := func(k string, _ []byte) (bool, error) {
		if exact && len(k) > 1+len(prefix) {
			return false, nil
		}
		there, err := s.forget(k, now)
		if there {
			n++
		}
		if unsaved++; err == nil && unsaved%window == 0 {
			err = s.flush() // so that those who write find room
		}
		return true, err
	}
	for _, kind := range []byte{kindValue, kindSighting} {
		if err = s.each(kind, prefix, now, forget); err != nil {
			break
		}
	}
	if err == nil {
		err = s.flush()
	}
	if err != nil {
		return n, fmt.Errorf("delete state: %w", err)
	}
	return n, nil
}

// forget removes a record if it is there at now.
func (s *Store) forget(k string, now time.Time) (there bool, err error) {
	own := s.own(k) // so that no sighting which was read before is written after
	own.Lock()
	defer own.Unlock()
	record, err := s.read(k, now)
	if err != nil || record == nil {
		return false, err
	}
	return true, s.write(context.Background(), k, nil)
}

// each calls f with the records of a kind that are there at now and whose keys
// begin with prefix, in the order of their keys, until f returns false.
func (s *Store) each(kind byte, prefix string, now time.Time, f func(k string, record []byte) (more bool, err error)) error {
	low := string(kind) + prefix
	keys, err := s.unsaved(low)
	if err != nil {
		return err
	}
	for from := low; from != ""; {
		var saved []string
		if saved, from, err = s.saved(low, from); err != nil {
			return err
		}
		var here []string // those of memory that belong between them
		if from == "" {
			here, keys = keys, nil
		} else {
			i, _ := slices.BinarySearch(keys, from)
			here, keys = keys[:i], keys[i:]
		}
		saved = append(saved, here...)
		slices.Sort(saved)
		for _, k := range slices.Compact(saved) {
			record, err := s.read(k, now)
			if err != nil {
				return err
			}
			if record == nil {
				continue
			}
			if more, err := f(k, record); err != nil || !more {
				return err
			}
		}
	}
	return nil
}

// unsaved are the keys in memory that begin with low, in order.
func (s *Store) unsaved(low string) (keys []string, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, ErrClosed
	}
	for _, m := range []map[string][]byte{s.pending, s.flushing} {
		for k := range m {
			if strings.HasPrefix(k, low) {
				keys = append(keys, k)
			}
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// saved are the next keys in the file, no less than from, that begin with low; and
// where to go on, "" at the end.
func (s *Store) saved(low, from string) (keys []string, next string, err error) {
	f := s.file.Load()
	if f == nil {
		return nil, "", nil
	}
	err = f.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(records).Cursor()
		for k, _ := c.Seek([]byte(from)); bytes.HasPrefix(k, []byte(low)); k, _ = c.Next() {
			if len(keys) == window {
				next = string(k)
				return nil
			}
			keys = append(keys, string(k))
		}
		return nil
	})
	if errors.Is(err, errDamaged) {
		s.wake()
	}
	return keys, next, err
}
