package tape

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	nameForm = "20060102T150405.000000Z"
	suffix   = ".tape"
)

// stored is one file of a tape.
type stored struct {
	path string
	born time.Time // by its name
	size int64
}

// list is the files of dir, the oldest first. Files with other names are none of
// ours.
func list(dir string) ([]stored, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []stored
	for _, e := range names {
		stem, ours := strings.CutSuffix(e.Name(), suffix)
		born, err := time.Parse(nameForm, stem)
		if !ours || err != nil || !e.Type().IsRegular() {
			continue
		}
		fi, err := e.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		case err != nil:
			return nil, err
		default:
			all = append(all, stored{filepath.Join(dir, e.Name()), born, fi.Size()})
		}
	}
	slices.SortFunc(all, func(a, b stored) int { return a.born.Compare(b.born) })
	return all, nil
}

// nameOf is the name of a file that begins at a time.
func nameOf(born time.Time) string { return born.UTC().Format(nameForm) + suffix }

// prune removes the oldest files of dir until what is left, with the newest one
// grown to its full size, is within the bounds.
func prune(dir string, o *Options, now time.Time) error {
	all, err := list(dir)
	if err != nil {
		return err
	}
	total := o.File
	for _, f := range all {
		total += f.size
	}
	for i := 0; i+1 < len(all); i++ {
		// A file is as old as its last entry, which came before the next one's name.
		if total <= o.Total && now.Sub(all[i+1].born) <= o.Keep {
			return nil
		}
		if err := os.Remove(all[i].path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		total -= all[i].size
	}
	return nil
}
