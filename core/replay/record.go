package replay

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/wafermail/wafer/core/policy"
)

// A tape is a folder of files, named by the time of their beginning. A file begins with
// fileMagic, one octet that is 1 if what follows is sealed, and a salt of 16 octets. Then
// come chunks: a head of headSize octets, and entries, each with its length before it,
// compressed with S2 and, with a secret, sealed with AES-256-GCM under a key that HKDF
// makes of secret and salt. The nonce is the chunk's number, and the head is authenticated
// with it, so that chunks cannot be exchanged or left out unnoticed.
const (
	fileMagic  = "wafer-tape 1\n"
	fileEnd    = ".tape"
	saltSize   = 16
	fileHead   = len(fileMagic) + 1 + saltSize
	headSize   = 40
	chunkMagic = 0x77545001
	chunkRaw   = 256 << 10 // octets of entries that a chunk has, about
	maxChunk   = 8 << 20   // that it may have
	maxQueue   = 32 << 20  // octets that wait to be written
	chunkWait  = time.Second
	complaints = time.Minute
	nameLayout = "20060102T150405.000000Z"
)

// RecordOptions say how a tape is kept. The zero value is good.
type RecordOptions struct {
	Total  int64               // octets of all files; 0: 1 GiB
	Keep   time.Duration       // how long files are kept; 0: 48 h
	Secret []byte              // seals the files; nil: they are plain
	Mask   func(*policy.Asked) // changes what is to be hidden; nil: nothing is
	Logger *slog.Logger        // nil: silent
	Now    func() time.Time    // nil: time.Now
}

// Recorder is a policy.Tape that writes files. It never waits for the disk: what finds
// the queue full, or no room on the disk, is dropped and counted, and mail goes on.
type Recorder struct {
	dir string
	o   RecordOptions

	dropped, written atomic.Uint64
	waiting          atomic.Int64
	pool             sync.Pool

	mu     sync.RWMutex // of closing the queue
	closed bool
	queue  chan *entry
	done   chan struct{}

	closing chan struct{}
}

// entry is one that waits to be written.
type entry struct {
	at time.Time
	b  []byte
}

// Record opens a tape in dir, which is made if it is missing.
func Record(dir string, o RecordOptions) (*Recorder, error) {
	if o.Total <= 0 {
		o.Total = 1 << 30
	}
	if o.Keep <= 0 {
		o.Keep = 48 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the tape: %w", err)
	}
	r := &Recorder{dir: dir, o: o, queue: make(chan *entry, 16<<10), done: make(chan struct{}), closing: make(chan struct{})}
	r.pool.New = func() any { return &entry{} }
	go r.run(&tapeWriter{r: r})
	return r, nil
}

// Asked queues a moment, or drops it (policy.Tape).
func (r *Recorder) Asked(a *policy.Asked) {
	e, _ := r.pool.Get().(*entry)
	if r.o.Mask != nil {
		r.o.Mask(a)
	}
	e.at, e.b = a.Event.Time, Encode(e.b[:0], a)
	size := int64(len(e.b))
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.closed || r.waiting.Load()+size > maxQueue {
		r.dropped.Add(1)
		r.pool.Put(e)
		return
	}
	select {
	case r.queue <- e:
		r.waiting.Add(size)
	default:
		r.dropped.Add(1)
		r.pool.Put(e)
	}
}

// Written and Dropped count moments.
func (r *Recorder) Written() uint64 { return r.written.Load() }

// Dropped counts what the queue or the disk did not take.
func (r *Recorder) Dropped() uint64 { return r.dropped.Load() }

// Close writes what waits, and closes.
func (r *Recorder) Close() error {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.closing)
		close(r.queue)
	}
	r.mu.Unlock()
	<-r.done
	return nil
}

// run gathers entries into chunks. It looks at the queue now and then: being woken by
// each entry would cost the sessions more than the entry does.
func (r *Recorder) run(w *tapeWriter) {
	defer close(r.done)
	defer w.close()
	begun := time.Time{} // when the chunk that is being gathered was begun
	for {
		var e *entry
		ok := true
		if w.entries == 0 {
			e, ok = <-r.queue
		} else {
			select {
			case e, ok = <-r.queue:
			case <-time.After(chunkWait - min(time.Since(begun), chunkWait)):
			}
		}
		if e != nil {
			if w.entries == 0 {
				begun = time.Now()
			}
			r.take(w, e)
			select {
			case <-time.After(linger):
			case <-r.closing:
			}
			for more := true; more; {
				select {
				case e, ok = <-r.queue:
					if more = ok; ok {
						r.take(w, e)
					}
				default:
					more = false
				}
			}
		}
		if !ok || time.Since(begun) >= chunkWait {
			w.flush()
		}
		if !ok {
			return
		}
	}
}

// linger is how long an entry waits for others.
const linger = 20 * time.Millisecond

func (r *Recorder) take(w *tapeWriter, e *entry) {
	r.waiting.Add(-int64(len(e.b)))
	w.add(e)
	if cap(e.b) <= 64<<10 {
		r.pool.Put(e)
	}
}

// tapeWriter writes files. Only run uses it.
type tapeWriter struct {
	r    *Recorder
	f    *os.File
	size int64
	seal cipher.AEAD
	next uint64 // chunk of the file

	raw         []byte
	entries     uint32
	first, last time.Time
	stored      []byte
	complained  time.Time
}

func (w *tapeWriter) add(e *entry) {
	if w.entries == 0 || e.at.Before(w.first) {
		w.first = e.at
	}
	if w.entries == 0 || e.at.After(w.last) {
		w.last = e.at
	}
	w.raw = binary.AppendUvarint(w.raw, uint64(len(e.b)))
	w.raw = append(w.raw, e.b...)
	if w.entries++; len(w.raw) >= chunkRaw {
		w.flush()
	}
}

// flush writes the chunk that has been gathered.
func (w *tapeWriter) flush() {
	if w.entries == 0 {
		return
	}
	err := w.write()
	if err == nil {
		w.r.written.Add(uint64(w.entries))
	} else {
		w.r.dropped.Add(uint64(w.entries))
		if now := w.r.o.Now(); now.Sub(w.complained) >= complaints {
			w.complained = now
			w.r.o.Logger.Warn("the tape takes nothing; mail goes on", "folder", w.r.dir, "dropped", w.r.dropped.Load(), "err", err)
		}
		w.close() // half a chunk may stand at its end
	}
	w.raw, w.entries = w.raw[:0], 0
}

func (w *tapeWriter) write() error {
	if w.f == nil || w.size >= max(w.r.o.Total/16, 1<<20) {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	if need := headSize + s2.MaxEncodedLen(len(w.raw)); cap(w.stored) < need+64 {
		w.stored = make([]byte, 0, need+64)
	}
	w.stored = w.stored[:headSize]
	clear(w.stored)
	// S2 costs a tenth of what zstd does, and mail is waiting for the core.
	packed := s2.Encode(w.stored[headSize:cap(w.stored)], w.raw)
	w.stored = w.stored[:headSize+len(packed)]
	head := w.stored[:headSize]
	size := len(w.stored) - headSize
	if w.seal != nil {
		size += w.seal.Overhead()
	}
	le := binary.LittleEndian
	le.PutUint32(head, chunkMagic)
	le.PutUint32(head[4:], uint32(size))
	le.PutUint32(head[8:], uint32(len(w.raw)))
	le.PutUint32(head[12:], w.entries)
	le.PutUint64(head[16:], uint64(w.first.UnixNano()))
	le.PutUint64(head[24:], uint64(w.last.UnixNano()))
	if w.seal != nil {
		w.stored = w.seal.Seal(w.stored[:headSize], nonce(w.next), w.stored[headSize:], head[:32])
		head = w.stored[:headSize]
	}
	le.PutUint32(head[36:], crc32.Update(crc32.Checksum(head[:32], castagnoli()), castagnoli(), w.stored[headSize:]))
	n, err := w.f.Write(w.stored)
	w.size += int64(n)
	if err != nil {
		return errors.Join(err, w.f.Truncate(w.size-int64(n)))
	}
	w.next++
	return nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func nonce(n uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 4, 12), n) }

// sealer is the cipher of a file.
func sealer(secret, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, secret, salt, "wafer tape", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// rotate begins a file, and removes what is too much or too old.
func (w *tapeWriter) rotate() error {
	w.close()
	now := w.r.o.Now()
	w.prune(now)
	head := append([]byte(fileMagic), 0)
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	w.seal = nil
	if w.r.o.Secret != nil {
		head[len(fileMagic)] = 1
		var err error
		if w.seal, err = sealer(w.r.o.Secret, salt); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(filepath.Join(w.r.dir, now.UTC().Format(nameLayout)+fileEnd), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(head, salt...)); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	w.f, w.size, w.next = f, int64(fileHead), 0
	return nil
}

func (w *tapeWriter) close() {
	if w.f != nil {
		if err := w.f.Close(); err != nil {
			w.r.o.Logger.Warn("close a tape", "err", err)
		}
	}
	w.f = nil
}

// prune leaves room for one more file.
func (w *tapeWriter) prune(now time.Time) {
	names, err := tapeFiles(w.r.dir)
	if err != nil {
		return
	}
	room := w.r.o.Total - max(w.r.o.Total/16, 1<<20)
	for _, name := range slices.Backward(names) {
		fi, err := os.Stat(name)
		if err != nil {
			continue
		}
		if room -= fi.Size(); room < 0 || now.Sub(fi.ModTime()) > w.r.o.Keep {
			if err := os.Remove(name); err != nil {
				w.r.o.Logger.Warn("remove an old tape", "err", err)
			}
		}
	}
}

// tapeFiles lists the files of a tape, the oldest first.
func tapeFiles(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), fileEnd) && e.Type().IsRegular() {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names, err
}
