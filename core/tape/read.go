package tape

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Entry is one entry of a tape. Data is the reader's, and valid until the
// function that was given it returns.
type Entry struct {
	Time    time.Time // in UTC
	Session string
	Data    []byte
}

// Filter chooses entries by their times. What is zero does not matter.
type Filter struct{ Since, Until time.Time }

// ReadOptions of Read. The zero value is good.
type ReadOptions struct {
	Secret   []byte // that the tape was written with; empty: only files that are not sealed are read
	Unsealed bool   // with a secret: files that are not sealed are read too, whoever wrote them
	Parallel int    // chunks that are decompressed at once; 0: as many as there are CPUs

	// Progress is called after each chunk, if it is set, with the octets of the
	// files that are done and those of all. They end up the same.
	Progress func(done, total int64)
}

// Stats is what a reader met.
type Stats struct {
	Files   int    // that were read, in whole or in part
	Chunks  int    // that were read
	Skipped int    // chunks that were not, because of their times
	Entries uint64 // that were handed on
	Octets  int64  // of their data

	Problems []Problem // the first MaxProblems, in the order of the tape
	More     int       // others
}

// MaxProblems is how many problems are kept.
const MaxProblems = 100

// Problem is something that cannot be read as it was written. What is sound
// around it was read.
type Problem struct {
	File   string // its path
	Offset int64  // where it begins
	What   string
	Advice string // what to do
}

// String is the problem on one line.
func (p Problem) String() string {
	return fmt.Sprintf("%s at %d: %s; %s", p.File, p.Offset, p.What, p.Advice)
}

func (s *Stats) add(p Problem) {
	if len(s.Problems) < MaxProblems {
		s.Problems = append(s.Problems, p)
	} else {
		s.More++
	}
}

// slack is how far the times of entries may be from those of their files.
const slack = 10 * time.Minute

// Read calls each with the entries of dir that f chooses, in the order in which
// they were written. Damage does not end it: see Stats.Problems. What does is the
// end of ctx, an error of each, which it returns, or a folder that cannot be
// listed. A folder without a tape has no entries.
func Read(ctx context.Context, dir string, f Filter, o ReadOptions, each func(Entry) error) (Stats, error) {
	all, err := list(dir)
	if err != nil {
		return Stats{}, fmt.Errorf("read tape: %w", err)
	}
	var chosen []stored
	newest := ""
	for i, file := range all {
		newest = file.path
		if i+1 < len(all) && !f.Since.IsZero() && all[i+1].born.Add(slack).Before(f.Since) ||
			!f.Until.IsZero() && file.born.Add(-slack).After(f.Until) {
			continue
		}
		chosen = append(chosen, file)
	}
	r := newReader(f, o)
	for _, file := range chosen {
		r.total += file.size
	}
	return r.run(ctx, each, func() error {
		for _, file := range chosen {
			if err := r.file(file, file.path == newest); err != nil {
				return err
			}
		}
		return nil
	})
}

// reader reads files one after the other, and decompresses their chunks side by
// side. A piece goes from idle through the scanner to the workers, and in the
// scanner's order to whoever reads; there is a fixed number of them, which bounds
// the memory.
type reader struct {
	f     Filter
	o     ReadOptions
	total int64
	stats Stats

	ctx   context.Context // of run
	held  *piece          // the scanner's
	idle  chan *piece
	work  chan *piece
	order chan *piece
}

// piece is a chunk on its way, or news of one that is not read.
type piece struct {
	found   found
	raw     []byte
	fault   *Problem
	news    bool
	length  int64 // octets of the file that are done with it
	skipped bool
	opened  bool // a file was
	ready   chan struct{}
}

// newReader has no goroutines yet.
func newReader(f Filter, o ReadOptions) *reader {
	if o.Parallel <= 0 {
		o.Parallel = runtime.GOMAXPROCS(0)
	}
	n := 2*o.Parallel + 2
	r := &reader{f: f, o: o, idle: make(chan *piece, n), work: make(chan *piece, n), order: make(chan *piece, n)}
	for range n {
		r.idle <- &piece{ready: make(chan struct{}, 1)}
	}
	return r
}

// run calls each with the entries of what scan hands on.
func (r *reader) run(ctx context.Context, each func(Entry) error, scan func() error) (Stats, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.ctx = ctx
	var all sync.WaitGroup
	for range r.o.Parallel {
		all.Go(r.decode)
	}
	all.Go(func() {
		_ = scan() // its only error is that of ctx
		close(r.work)
		close(r.order)
	})
	var err error
	var done int64
	for p := range r.order {
		if !p.news {
			<-p.ready
		}
		if err == nil {
			err = r.deliver(ctx, p, each)
		}
		if err != nil {
			cancel()
		} else if done += p.length; r.o.Progress != nil {
			r.o.Progress(min(done, r.total), r.total)
		}
		r.idle <- p
	}
	all.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	if err == nil && r.o.Progress != nil && done < r.total {
		r.o.Progress(r.total, r.total)
	}
	return r.stats, err
}

// deliver hands on what is in p.
func (r *reader) deliver(ctx context.Context, p *piece, each func(Entry) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.opened {
		r.stats.Files++
	}
	if p.skipped {
		r.stats.Skipped++
	}
	switch {
	case p.fault != nil:
		r.stats.add(*p.fault)
		return nil
	case p.news:
		return nil
	}
	r.stats.Chunks++
	return entriesOf(p.raw, &p.found.header, func(e Entry) error {
		if !r.f.Since.IsZero() && e.Time.Before(r.f.Since) || !r.f.Until.IsZero() && e.Time.After(r.f.Until) {
			return nil
		}
		r.stats.Entries++
		r.stats.Octets += int64(len(e.Data))
		return each(e)
	})
}

// decode makes chunks into entries, until there are no more.
func (r *reader) decode() {
	unzip, err := newUnzip()
	if err == nil {
		defer unzip.Close()
	}
	for p := range r.work {
		e := err
		if e == nil && r.ctx.Err() == nil {
			p.raw, e = p.found.entries(p.raw, unzip)
		}
		if e != nil {
			p.fault = &Problem{File: p.found.name, Offset: p.found.off, What: e.Error(), Advice: "its entries are missing; check who may write to the folder"}
		}
		p.ready <- struct{}{}
	}
}

func newUnzip() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRaw), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))
}

// entries unseals and decompresses the chunk into the memory of raw, and sees
// that it is as its header says.
func (f *found) entries(raw []byte, unzip *zstd.Decoder) ([]byte, error) {
	b, err := f.key.open(f.stored, &f.header, f.body[:])
	if err != nil {
		return raw, errors.New("the chunk's seal is broken")
	}
	if cap(raw) < int(f.header.raw) {
		raw = make([]byte, 0, f.header.raw)
	}
	raw, err = unpack(raw[:0:f.header.raw], b, f.header.fast, unzip)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the chunk cannot be decompressed: %w", err)
	case len(raw) != int(f.header.raw):
		return raw, errEntries
	}
	return raw, entriesOf(raw, &f.header, nil)
}

// unpack decompresses b into the room that raw has, and not one octet more.
func unpack(raw, b []byte, fast bool, unzip *zstd.Decoder) ([]byte, error) {
	if !fast {
		return unzip.DecodeAll(b, raw)
	}
	if n, err := s2.DecodedLen(b); err != nil || n != cap(raw) {
		return nil, errors.Join(err, errEntries)
	}
	return s2.Decode(raw[:cap(raw)], b)
}

// file scans one file.
func (r *reader) file(file stored, newest bool) error {
	in, err := os.Open(file.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r.tell(func(p *piece) { p.length = file.size }) // removed meanwhile
	}
	if err != nil {
		return r.tell(func(p *piece) {
			p.fault = &Problem{File: file.path, What: "it cannot be opened: " + err.Error(), Advice: "read it as a user who may"}
			p.length = file.size
		})
	}
	defer in.Close() // only read
	if err := r.tell(func(p *piece) { p.opened, p.length = true, fileHead }); err != nil {
		return err
	}
	if fi, err := in.Stat(); err == nil { // it may have grown
		file.size = fi.Size()
	}
	s := scanner{in: in, size: file.size, name: file.path, born: file.born, newest: newest, access: access{secret: r.o.Secret, unsealed: r.o.Unsealed}, out: r}
	return s.scan()
}

// piece returns a piece that nobody has.
func (r *reader) piece() (*piece, error) {
	select {
	case p := <-r.idle:
		*p = piece{found: found{stored: p.found.stored}, raw: p.raw, ready: p.ready}
		return p, nil
	case <-r.ctx.Done():
		return nil, r.ctx.Err()
	}
}

// tell hands on news.
func (r *reader) tell(fill func(p *piece)) error {
	p, err := r.piece()
	if err != nil {
		return err
	}
	p.news = true
	fill(p)
	r.order <- p
	return nil
}

// wants is true of chunks that may have entries which the filter chooses.
func (r *reader) wants(h *header) bool {
	return (r.f.Since.IsZero() || !time.Unix(0, h.last).Before(r.f.Since)) && (r.f.Until.IsZero() || !time.Unix(0, h.first).After(r.f.Until))
}

func (r *reader) buffer() (*found, error) {
	if r.held == nil {
		p, err := r.piece()
		if err != nil {
			return nil, err
		}
		r.held = p
	}
	return &r.held.found, nil
}

func (r *reader) take(f *found) {
	p := r.held
	r.held = nil
	p.length = chunkHead + int64(len(f.stored))
	r.work <- p
	r.order <- p
}

// What cannot be told, because ctx has ended, nobody waits for.

func (r *reader) skip(_ *header, length int64) {
	_ = r.tell(func(p *piece) { p.skipped, p.length = true, length })
}

func (r *reader) problem(x Problem) { _ = r.tell(func(p *piece) { p.fault = &x }) }
