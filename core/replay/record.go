package replay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/tape"
)

// RecordOptions say how a tape is kept. The zero value is good.
type RecordOptions struct {
	Total  int64               // octets of all files; 0: 1 GiB
	Keep   time.Duration       // how long files are kept; 0: 48 h
	Secret []byte              // seals the files; nil: they are plain
	Mask   func(*policy.Asked) // changes what is to be hidden; nil: nothing is
	Logger *slog.Logger        // nil: silent
	Now    func() time.Time    // of files; nil: time.Now
}

// Recorder is a policy.Tape that writes files. It never waits for the disk: what finds
// the queue full, or no room on the disk, is dropped and counted, and mail goes on.
type Recorder struct {
	*tape.Tape
	mask func(*policy.Asked)
}

// Record opens a tape in dir, which is made if it is missing.
func Record(dir string, o RecordOptions) (*Recorder, error) {
	if o.Keep <= 0 {
		o.Keep = 48 * time.Hour
	}
	if o.Total <= 0 {
		o.Total = 1 << 30
	}
	// Mail waits for the cores: S2 takes less of them than Zstandard.
	t, err := tape.Open(dir, tape.Options{Total: o.Total, File: max(o.Total/16, 1<<20), Keep: o.Keep, Fast: true, Secret: o.Secret, Logger: o.Logger, Now: o.Now})
	if err != nil {
		return nil, fmt.Errorf("open the tape: %w", err)
	}
	return &Recorder{t, o.Mask}, nil
}

// Asked queues a moment, or drops it (policy.Tape).
func (r *Recorder) Asked(a *policy.Asked) {
	if r.mask != nil {
		r.mask(a)
	}
	r.Append(a.Event.Time, a.Event.Session, func(b []byte) []byte { return Encode(b, a) })
}

// ErrNoTape means that there is nothing to be read.
var ErrNoTape = errors.New("there is no tape")

// Read reads a tape in the order in which it was written, also while it is written, and
// calls each for every moment that f chooses. Damage never ends it: what cannot be read is
// in the problems, and what is sound around it is read. It ends with an error of each's.
func Read(ctx context.Context, dir string, f tape.Filter, o tape.ReadOptions, each func(*policy.Asked) error) (tape.Stats, error) {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return tape.Stats{}, fmt.Errorf("%w in %s: write tape { } in the configuration to record", ErrNoTape, dir)
	}
	bad := 0
	stats, err := tape.Read(ctx, dir, f, o, func(e tape.Entry) error {
		a, err := Decode(e.Data)
		if err != nil {
			bad++
			return nil
		}
		return each(a)
	})
	if bad > 0 {
		stats.Problems = append(stats.Problems, tape.Problem{File: dir, What: fmt.Sprintf("%d entries are damaged, or of another version", bad), Advice: "they are left out"})
	}
	return stats, err
}
