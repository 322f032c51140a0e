package tape

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Summary is what a folder holds, by the headers of its chunks.
type Summary struct {
	Files   int
	Sealed  int   // files that are sealed
	Octets  int64 // on disk
	Raw     int64 // octets of the entries before compression, about
	Chunks  int
	Entries uint64

	First, Last time.Time // of entries, in UTC; zero if there are none

	Problems []Problem // the first MaxProblems
	More     int       // others
}

// Examine sums what is in dir. It needs no secret, decompresses nothing and
// believes what it reads: only Read knows whether entries are sound.
func Examine(dir string) (Summary, error) {
	all, err := list(dir)
	if err != nil {
		return Summary{}, fmt.Errorf("examine tape: %w", err)
	}
	e := examiner{}
	for i, file := range all {
		if err := e.file(file, i+1 == len(all)); err != nil {
			return e.sum, fmt.Errorf("examine tape: %w", err)
		}
	}
	e.sum.Problems, e.sum.More = e.stats.Problems, e.stats.More
	return e.sum, nil
}

// examiner is a sink that wants no payload.
type examiner struct {
	sum   Summary
	stats Stats // for its problems
}

func (e *examiner) file(file stored, newest bool) error {
	in, err := os.Open(file.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	defer in.Close() // only read
	if fi, err := in.Stat(); err == nil {
		file.size = fi.Size()
	}
	e.sum.Files++
	e.sum.Octets += file.size
	s := scanner{in: in, size: file.size, name: file.path, born: file.born, newest: newest, access: access{blind: true}, out: e}
	err = s.scan()
	if s.sealed {
		e.sum.Sealed++
	}
	return err
}

func (e *examiner) wants(*header) bool      { return false }
func (e *examiner) buffer() (*found, error) { return nil, errors.ErrUnsupported }
func (e *examiner) take(*found)             {}
func (e *examiner) problem(p Problem)       { e.stats.add(p) }

func (e *examiner) skip(h *header, _ int64) {
	s := &e.sum
	s.Chunks++
	s.Entries += uint64(h.entries)
	s.Raw += int64(h.raw)
	first, last := time.Unix(0, h.first).UTC(), time.Unix(0, h.last).UTC()
	if s.First.IsZero() || first.Before(s.First) {
		s.First = first
	}
	if s.Last.IsZero() || last.After(s.Last) {
		s.Last = last
	}
}
