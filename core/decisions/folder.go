package decisions

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

const (
	nameForm = "20060102T150405.000000Z"
	suffix   = ".jsonl"
)

// folder is the files of a log that is being written.
type folder struct {
	dir  string
	o    *Options
	f    *os.File // nil: none is open
	size int64
	born time.Time // of f, by its name
	torn bool      // f ends with half a line
}

// fileInfo is one file of a log.
type fileInfo struct {
	path string
	born time.Time
	size int64
}

// list is the files of dir, the oldest first. Files with other names are none
// of ours.
func list(dir string) ([]fileInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []fileInfo
	for _, e := range entries {
		stem, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || !e.Type().IsRegular() {
			continue
		}
		born, err := time.Parse(nameForm, stem)
		if err != nil {
			continue
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, fileInfo{filepath.Join(dir, e.Name()), born, fi.Size()})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].born.Before(all[j].born) })
	return all, nil
}

// openFolder goes on with the newest file of dir, if there is one.
func openFolder(dir string, o *Options) (*folder, error) {
	d := &folder{dir: dir, o: o}
	all, err := list(dir)
	if err != nil {
		return nil, fmt.Errorf("open decision log: %w", err)
	}
	if len(all) > 0 {
		last := all[len(all)-1]
		if err := d.resume(last); err != nil {
			return nil, fmt.Errorf("open decision log: %w", err)
		}
	} else if err := d.begin(o.Now()); err != nil {
		return nil, fmt.Errorf("open decision log: %w", err)
	}
	return d, nil
}

// resume goes on with a file. A line that a power cut has torn is ended, so
// that it spoils no other.
func (d *folder) resume(last fileInfo) error {
	f, err := os.OpenFile(last.path, os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	d.f, d.size, d.born = f, last.size, last.born
	end := make([]byte, 1)
	if last.size > 0 {
		if _, err = f.ReadAt(end, last.size-1); err == nil && end[0] != '\n' {
			_, err = f.Write([]byte("\n"))
			d.size++
		}
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

// begin makes a new file. A name that is taken already stands for a clock that
// went back, or for two files within a microsecond.
func (d *folder) begin(now time.Time) error {
	for range 1000 {
		now = now.UTC().Truncate(time.Microsecond)
		if !d.born.IsZero() && !now.After(d.born) {
			now = d.born.Add(time.Microsecond) // the newest file has the last name
		}
		f, err := os.OpenFile(filepath.Join(d.dir, now.Format(nameForm)+suffix), os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
		if errors.Is(err, fs.ErrExist) {
			now = now.Add(time.Microsecond)
			continue
		}
		if err != nil {
			return err
		}
		d.f, d.size, d.born, d.torn = f, 0, now, false
		return nil
	}
	return errors.New("no name is free for a new file")
}

// write appends lines, to a new file if it is time for one.
func (d *folder) write(lines []byte, now time.Time) error {
	if d.f != nil && d.size > 0 && (d.size+int64(len(lines)) > d.o.File || now.Sub(d.born) >= d.o.Age) {
		err := d.f.Close()
		d.f = nil
		if err != nil {
			return err
		}
	}
	if d.f == nil {
		if err := d.begin(now); err != nil {
			return err
		}
		if err := d.prune(now, int64(len(lines))); err != nil { // no reason to lose lines
			d.o.Logger.Warn("old decisions are not removed", "dir", d.dir, "err", err)
		}
	}
	if d.torn { // the next record begins on a line of its own
		lines = append([]byte{'\n'}, lines...)
	}
	n, err := d.f.Write(lines)
	d.size += int64(n)
	if n > 0 {
		d.torn = lines[n-1] != '\n'
	}
	return err
}

// prune removes the oldest files until what is left, with the file that has
// just begun and may grow to its full size, is within the bounds.
func (d *folder) prune(now time.Time, coming int64) error {
	all, err := list(d.dir)
	if err != nil {
		return err
	}
	total := max(coming, d.o.File)
	for _, f := range all {
		total += f.size
	}
	for i, f := range all {
		if f.path == d.f.Name() || i+1 == len(all) { // the newest stays, whoever made it
			break
		}
		// A file is as old as its last line, which is older than the next one's name.
		stale := now.Sub(all[i+1].born) > d.o.Keep
		if total <= d.o.Total && !stale {
			break
		}
		if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		total -= f.size
	}
	return nil
}

// close syncs and closes the file.
func (d *folder) close() error {
	if d.f == nil {
		return nil
	}
	err := errors.Join(d.f.Sync(), d.f.Close())
	d.f = nil
	if err != nil {
		return fmt.Errorf("close decision log: %w", err)
	}
	return nil
}
