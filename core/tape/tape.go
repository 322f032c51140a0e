// Package tape keeps binary entries on disk, in the order in which they came, for
// whoever wants to go through them again: an entry is octets with a time and a
// session, and what they mean is not known here.
//
//	t, err := tape.Open(dir, tape.Options{Secret: secret, Logger: logger})
//	t.Append(now, session, func(b []byte) []byte { return event.Append(b) })
//	err = t.Close() // once nobody appends any more
//
//	stats, err := tape.Read(ctx, dir, tape.Filter{Since: since}, tape.ReadOptions{Secret: secret},
//		func(e tape.Entry) error { … })
//
// Append never waits for the disk. Entries gather in memory and one goroutine
// writes them, when there are 256 KiB or the first is a second old. What waits is
// bounded in entries and octets; what is too much is dropped and counted, and so
// is what the disk does not take. Close writes what waits.
//
// # Files
//
// A file is named by the time of its beginning, "20260102T150405.000000Z.tape".
// A new one begins with each Open, and when the last is large or old enough; the
// oldest are removed so that all together stay within Options.Total and
// Options.Keep. Several processes may read while one writes.
//
// A file is a header and chunks. Numbers are little-endian; CRC is CRC-32C; a tag
// is zero in a file that is not sealed.
//
//	file header, 60 octets
//	 0  8  magic "\x93WFTAPE\n"
//	 8  2  version, 1
//	10  2  flags: 1 sealed
//	12  4  zero
//	16  8  time of beginning, Unix microseconds
//	24 16  salt, random
//	40 16  tag of octets 0 to 40
//	56  4  CRC of octets 0 to 56
//
//	chunk, 88 octets and the payload
//	 0  4  mark "\xf5wtc"; "\xf5wte" ends a file that was closed, without payload
//	 4  4  try: how often the disk had not taken a chunk of the file
//	 8  8  number of the chunk, from 0
//	16  4  octets of the payload
//	20  4  octets of the entries, at most 4 MiB
//	24  4  number of entries
//	28  4  flags: 1 sealed, 2 compressed with S2
//	32  8  earliest time of an entry, Unix nanoseconds
//	40  8  latest time
//	48 16  the file's salt
//	64  4  CRC of the payload
//	68 16  tag of octets 0 to 68
//	84  4  CRC of octets 0 to 84
//	88     payload: the entries compressed with Zstandard or S2, and sealed
//
//	entry
//	 0  4  octets of the data
//	 4  4  octets of the session
//	 8  8  time, Unix nanoseconds
//	16     session, data
//
// With a secret the payload is sealed with AES-256-GCM, its header's octets 0 to
// 64 being the additional data, and tags are those of the same cipher. A file's
// key is the HKDF with SHA-256 of secret and salt. The nonce is an octet that says
// what for (1 file header, 2 chunk header, 3 payload), the try in three octets and
// the number in eight, big-endian. So no chunk can be changed, exchanged for
// another file's, moved, or left out without Read saying so; the last ones can,
// but only together with the end mark, which Read says too unless the file is the
// newest.
//
// # BUGS
//
// What was written within the last moments before a power cut may be lost; files
// are synced when they are ended. A tape that was not closed is said to be cut off
// once there is a newer file, and so is one that ended on a full disk. Whole files
// can be taken away unnoticed, which is what rotation does. A tape that is not
// sealed tells damage by checksums, which anyone can make. Lengths of chunks and
// times are readable without the secret. Old files are removed when a new one
// begins, so a server without any mail keeps them longer. A total of less than one
// file's size still leaves that one file. Where the clock goes back, a file has a
// later name than what is in it, and a filter with Until may leave the file out.
// Times before 1678 and after 2262 are not kept. Nothing keeps two processes from
// writing to one folder; neither's entries are damaged, but readers take the older
// file for one that was cut off.
package tape

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Options of a Tape. The zero value is good.
type Options struct {
	File  int64         // octets of one file, about; 0: 64 MiB
	Age   time.Duration // of one file; 0: 24 h
	Total int64         // octets of all files together; 0: 1 GiB
	Keep  time.Duration // how long files are kept; 0: 7 days
	Queue int           // entries that may wait to be written; 0: 65,536

	// Fast compresses with S2 in place of Zstandard, which takes a third of the time
	// or less, and more room.
	Fast bool

	// Secret seals what is written: octets that cannot be guessed, at least
	// MinSecret. Empty: files are not sealed.
	Secret []byte

	Logger *slog.Logger     // nil: no log
	Now    func() time.Time // of files; nil: time.Now
}

const (
	gathered   = 256 << 10 // octets that are a chunk
	large      = 64 << 10  // an entry that is a chunk of its own
	room       = gathered + large + entryHead + maxSession
	maxWaiting = 64 << 20 // octets of memory that chunks which wait may have
	maxSpare   = 8        // empty chunks that are kept for later
	maxScratch = 2 * large
	linger     = time.Second // how long an entry waits for others
	complaints = time.Minute // how often a disk that takes nothing is complained of
)

// Tape writes entries to the files of a folder. Its methods may be called by many
// goroutines.
type Tape struct {
	o       Options
	w       *writer // run's
	dropped atomic.Uint64
	written atomic.Uint64
	scratch sync.Pool // of *[]byte

	begun    chan struct{} // a chunk has its first entry
	pressing chan struct{} // a chunk is full
	closing  chan struct{}
	ended    chan struct{}

	mu      sync.Mutex
	closed  bool
	current *chunk // nil: none
	full    []*chunk
	spare   []*chunk
	memory  int // octets of chunks that are not spare
	entries int // that wait
}

// chunk is entries that are written together.
type chunk struct {
	raw         []byte
	entries     int
	first, last int64
}

// add appends an entry.
func (c *chunk) add(at int64, session string, data []byte) {
	if c.entries == 0 {
		c.first, c.last = at, at
	}
	c.first, c.last = min(c.first, at), max(c.last, at)
	c.raw = appendEntry(c.raw, at, session, data)
	c.entries++
}

// Open makes dir, with mode 0700, if it is missing, and returns a Tape whose
// entries come after those that are there. The caller closes it.
func Open(dir string, o Options) (*Tape, error) {
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
		o.Keep = 7 * 24 * time.Hour
	}
	if o.Queue <= 0 {
		o.Queue = 64 << 10
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if n := len(o.Secret); n > 0 && n < MinSecret {
		return nil, fmt.Errorf("open tape %s: a secret of %d octets is too short; it needs at least %d", dir, n, MinSecret)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open tape: %w", err)
	}
	t := &Tape{o: o, begun: make(chan struct{}, 1), pressing: make(chan struct{}, 1), closing: make(chan struct{}), ended: make(chan struct{})}
	t.scratch.New = func() any { b := make([]byte, 0, 4<<10); return &b }
	w, err := newWriter(dir, &t.o)
	if err != nil {
		return nil, fmt.Errorf("open tape: %w", err)
	}
	t.w = w
	go t.run()
	return t, nil
}

// Append queues the octets that fill appends to b, which has none, or drops them.
// The time is that of the entry; session is at most 1 KiB, and the entry at most
// MaxEntry octets. A session's entries keep their order if they are appended one
// after the other. Neither fill nor what it is given may be kept.
func (t *Tape) Append(at time.Time, session string, fill func(b []byte) []byte) {
	scratch := t.scratch.Get().(*[]byte)
	data := fill((*scratch)[:0])
	t.put(at.UnixNano(), session, data)
	if cap(data) <= maxScratch {
		*scratch = data
	}
	t.scratch.Put(scratch)
}

func (t *Tape) put(at int64, session string, data []byte) {
	if len(session) > maxSession || len(data) > maxEntry {
		t.dropped.Add(1)
		return
	}
	if len(data) > large {
		t.putLarge(at, session, data)
		return
	}
	t.mu.Lock()
	if t.entries >= t.o.Queue || t.closed {
		t.mu.Unlock()
		t.dropped.Add(1)
		return
	}
	first := t.current == nil
	if first {
		if t.current = t.empty(); t.current == nil {
			t.mu.Unlock()
			t.dropped.Add(1)
			return
		}
	}
	t.current.add(at, session, data)
	t.entries++
	ripe := len(t.current.raw) >= gathered
	if ripe {
		t.full = append(t.full, t.current)
		t.current = nil
	}
	t.mu.Unlock()
	if ripe {
		signal(t.pressing)
	} else if first {
		signal(t.begun)
	}
}

// putLarge queues an entry as a chunk of its own, so that others do not wait for
// it to be copied.
func (t *Tape) putLarge(at int64, session string, data []byte) {
	size := entryHead + len(session) + len(data)
	t.mu.Lock()
	taken := !t.closed && t.entries < t.o.Queue && t.memory+size <= maxWaiting
	if taken {
		t.memory += size
		t.entries++
	}
	t.mu.Unlock()
	if !taken {
		t.dropped.Add(1)
		return
	}
	c := &chunk{raw: make([]byte, 0, size)}
	c.add(at, session, data)
	t.mu.Lock()
	if t.closed {
		t.memory -= size
		t.entries--
		t.mu.Unlock()
		t.dropped.Add(1)
		return
	}
	if t.current != nil { // what came before it
		t.full = append(t.full, t.current)
		t.current = nil
	}
	t.full = append(t.full, c)
	t.mu.Unlock()
	signal(t.pressing)
}

// empty is a chunk without entries, or nil if too much waits. The caller holds mu.
func (t *Tape) empty() *chunk {
	if t.memory+room > maxWaiting {
		return nil
	}
	t.memory += room
	if n := len(t.spare); n > 0 {
		c := t.spare[n-1]
		t.spare = t.spare[:n-1]
		return c
	}
	return &chunk{raw: make([]byte, 0, room)}
}

// signal wakes who waits for c, now or later.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Dropped is how many entries were not written, because too much waited, they
// were too large, or the disk did not take them.
func (t *Tape) Dropped() uint64 { return t.dropped.Load() }

// Written is how many entries were written.
func (t *Tape) Written() uint64 { return t.written.Load() }

// Close writes what waits, and syncs and closes the file. Later entries are
// dropped.
func (t *Tape) Close() error {
	t.mu.Lock()
	first := !t.closed
	t.closed = true
	t.mu.Unlock()
	if !first {
		<-t.ended
		return nil
	}
	close(t.closing)
	<-t.ended
	if n := t.dropped.Load(); n > 0 {
		t.o.Logger.Warn("entries are missing on the tape", "dropped", n)
	}
	return t.w.close()
}

// run writes chunks that are full, and what has waited for long enough.
func (t *Tape) run() {
	defer close(t.ended)
	timer := time.NewTimer(linger)
	defer timer.Stop()
	armed := true
	for {
		select {
		case <-t.begun:
			if !armed {
				timer.Reset(linger)
				armed = true
			}
		case <-t.pressing:
			t.flush(false)
		case <-timer.C:
			armed = false
			t.flush(true)
		case <-t.closing:
			t.flush(true)
			return
		}
	}
}

// flush writes the chunks that are full, and with all the one that is not.
func (t *Tape) flush(all bool) {
	t.mu.Lock()
	if all && t.current != nil {
		t.full = append(t.full, t.current)
		t.current = nil
	}
	ready := t.full
	t.full = t.w.taken[:0]
	t.mu.Unlock()
	for _, c := range ready {
		n := uint64(c.entries)
		if err := t.w.write(c, t.o.Now()); err != nil {
			t.dropped.Add(n)
			t.w.complain(t.dropped.Load(), err)
		} else {
			t.written.Add(n)
		}
		t.release(c)
	}
	clear(ready)
	t.w.taken = ready
}

// release makes a chunk that was written empty again.
func (t *Tape) release(c *chunk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.memory -= cap(c.raw)
	t.entries -= c.entries
	if cap(c.raw) == room && len(t.spare) < maxSpare {
		c.raw, c.entries = c.raw[:0], 0
		t.spare = append(t.spare, c)
	}
}
