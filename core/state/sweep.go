package state

import (
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

const sweepStep = 1000 // records that a transaction of a sweep removes

// sweep removes what has ended, and beyond MaxOctets what would end first. What
// is written meanwhile is flushed between its steps.
func (s *Store) sweep() error {
	s.grown.Store(0)
	now, most := s.o.Now(), int64(0)
	for more := true; more; {
		select {
		case <-s.quit: // the next start goes on
			more = false
			continue
		default:
		}
		err := s.flush()
		if err == nil {
			var before int64
			before, more, err = s.step(now)
			most = max(most, before)
		}
		if err != nil {
			return err
		}
	}
	if most > s.o.MaxOctets {
		s.o.Logger.Warn("state was full: what would have ended first is forgotten", "dir", s.dir, "octets", most, "bound", s.o.MaxOctets)
	}
	return nil
}

// step is one transaction of a sweep. It returns how many octets there were, and
// whether there may be more to remove.
func (s *Store) step(now time.Time) (before int64, more bool, err error) {
	s.disk.Lock()
	defer s.disk.Unlock()
	err = s.update(func(tx *bbolt.Tx) error {
		before = octets(tx)
		total := before
		var gone [][]byte
		c := tx.Bucket(ends).Cursor()
		for k, _ := c.First(); k != nil && len(gone) < sweepStep; k, _ = c.Next() {
			if len(k) >= headLen && now.Before(until(k)) && total <= s.o.MaxOctets {
				break
			}
			if len(k) >= headLen {
				if record := tx.Bucket(records).Get(k[headLen:]); record != nil {
					total -= int64(len(k) - headLen + len(record))
				}
			}
			gone = append(gone, slices.Clone(k))
		}
		for _, k := range gone {
			if len(k) >= headLen {
				if _, err := drop(tx, k[headLen:]); err != nil {
					return err
				}
			}
			if err := tx.Bucket(ends).Delete(k); err != nil { // of a record that was not there
				return err
			}
		}
		more = len(gone) == sweepStep
		return setOctets(tx, total)
	}, false)
	return before, more, err
}
