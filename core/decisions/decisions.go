// Package decisions keeps the decision log: what each check said at each
// moment, one JSON object on a line (policy.Record), in files of one folder.
//
//	log, err := decisions.Open(dir, decisions.Options{Mask: decisions.MaskHash})
//	… policy.SetOptions{Log: log} …
//	err = log.Close() // once no session uses it any more
//	stats, err := decisions.Read(dir, decisions.Filter{ID: id}, func(e decisions.Entry) error { … })
//
// Decided never waits: it puts the record into a queue, which is bounded in
// records and in octets, and one goroutine writes. What finds the queue full is
// dropped and counted, and so is what the disk does not take; mail goes on.
// What is in the queue when Close is called is written before it returns.
//
// A file is named by the time of its beginning, "20260102T150405.000000Z.jsonl",
// and the newest is the one that is written to. A new one begins when the last
// is large or old enough; the oldest are removed so that all together stay
// within Options.Total and Options.Keep. Several processes may read while one
// writes.
//
// Mail addresses can be masked before they reach the disk, wherever in a record
// they are (see Mask). Message bodies are never in a record.
//
// # BUGS
//
// What was written within the last moments before a power cut may be lost; only
// Close syncs. Masking hides local parts of addresses, not IP addresses, greetings
// or domains, and what a plugin made of an address (a digest, say) it cannot know.
// A total of less than one file's size still leaves that one file. Where the clock
// goes back, a file has a later name than what is in it, and a filter with Until
// may leave the file out. Nothing keeps two processes from writing to one folder.
// Read reads
// every file that its times do not exclude from front to back: there is no index.
package decisions

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// Options of a Log. The zero value is good.
type Options struct {
	Mask  Mask          // "": MaskNone
	File  int64         // octets of one file, about; 0: 64 MiB
	Age   time.Duration // of one file; 0: 24 h
	Total int64         // octets of all files together; 0: 1 GiB
	Keep  time.Duration // how long files are kept; 0: 30 days
	Queue int           // records that may wait to be written; 0: 8192

	Logger *slog.Logger     // nil: no log
	Now    func() time.Time // nil: time.Now
}

// maxWaiting bounds the octets of the records in the queue, about.
const maxWaiting = 64 << 20

// linger is how long a record waits for others.
const linger = 10 * time.Millisecond

// complaints is how often a disk that takes nothing is complained of.
const complaints = time.Minute

// Log is a policy.DecisionLog that writes to the files of a folder. Its methods
// may be called by many goroutines.
type Log struct {
	o       Options
	mask    masker
	files   *folder
	dropped atomic.Uint64
	written atomic.Uint64
	waiting atomic.Int64 // octets in the queue, about
	flushed chan struct{}
	closing chan struct{}

	mu     sync.RWMutex // of closing the queue
	closed bool
	queue  chan policy.Record
}

// Open makes dir, with mode 0700, if it is missing, and returns a Log that goes
// on where the last one ended.
func Open(dir string, o Options) (*Log, error) {
	if o.File <= 0 {
		o.File = 64 << 20
	}
	if o.Age <= 0 {
		o.Age = 24 * time.Hour
	}
	if o.Total <= 0 {
		o.Total = 1 << 30
	}
	if o.Keep <= 0 {
		o.Keep = 30 * 24 * time.Hour
	}
	if o.Queue <= 0 {
		o.Queue = 8192
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make decision log: %w", err)
	}
	m, err := newMasker(dir, o.Mask)
	if err != nil {
		return nil, err
	}
	files, err := openFolder(dir, &o)
	if err != nil {
		return nil, err
	}
	l := &Log{o: o, mask: m, files: files, queue: make(chan policy.Record, o.Queue), flushed: make(chan struct{}), closing: make(chan struct{})}
	go l.run()
	return l, nil
}

// Decided queues r, or drops it (policy.DecisionLog).
func (l *Log) Decided(r policy.Record) {
	size := sizeOf(&r)
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed || l.waiting.Add(size) > maxWaiting {
		if !l.closed {
			l.waiting.Add(-size)
		}
		l.dropped.Add(1)
		return
	}
	select {
	case l.queue <- r:
	default:
		l.waiting.Add(-size)
		l.dropped.Add(1)
	}
}

// sizeOf is about how many octets r holds on to.
func sizeOf(r *policy.Record) int64 {
	n := 1024 + len(r.Text) + len(r.Error) + len(r.Helo) + len(r.Sender) + len(r.Recipient)
	for _, c := range r.Calls {
		n += 64 + len(c.Ask) + len(c.Answer) + len(c.Status)
	}
	if e := r.Effects; e != nil {
		for _, f := range e.Prepend {
			n += len(f)
		}
	}
	return int64(n)
}

// Dropped is how many records were not written, because the queue was full or
// the disk did not take them.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

// Written is how many records were written.
func (l *Log) Written() uint64 { return l.written.Load() }

// Close writes what is queued, syncs and closes. Later records are dropped.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	close(l.closing)
	close(l.queue)
	l.mu.Unlock()
	<-l.flushed
	if n := l.dropped.Load(); n > 0 {
		l.o.Logger.Warn("decisions were not recorded", "dropped", n)
	}
	return l.files.close()
}

// run writes records until the queue is closed and empty. Records that arrive
// together are written together.
func (l *Log) run() {
	defer close(l.flushed)
	var complained time.Time
	var batch []byte
	for r := range l.queue {
		// What comes in the next moment is written with it: waking up for each
		// record would cost those who decide more than the record.
		select {
		case <-time.After(linger):
		case <-l.closing:
		}
		batch = batch[:0]
		for n, more := 0, true; more; {
			l.waiting.Add(-sizeOf(&r))
			if b, err := l.encode(&r); err == nil {
				batch = append(append(batch, b...), '\n')
				n++
			} else {
				l.dropped.Add(1)
				l.o.Logger.Error("a decision cannot be recorded", "id", r.ID, "check", r.Check, "err", err)
			}
			more = false
			if len(batch) < 1<<20 {
				select {
				case r, more = <-l.queue:
				default:
				}
			}
			if more {
				continue
			}
			if err := l.files.write(batch, l.o.Now()); err != nil {
				l.dropped.Add(uint64(n))
				if now := l.o.Now(); now.Sub(complained) >= complaints {
					complained = now
					l.o.Logger.Error("decisions cannot be recorded", "dropped", l.dropped.Load(), "err", err)
				}
				break
			}
			l.written.Add(uint64(n))
		}
	}
}

// encode masks r and returns its line. Clients and plugins chose the texts in r:
// what they make this code do wrong costs the one record.
func (l *Log) encode(r *policy.Record) (b []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("encode decision: panic: %v", v)
		}
	}()
	l.mask.record(r)
	return json.Marshal(r)
}
