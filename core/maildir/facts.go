package maildir

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// wafer.facts holds what a session has found out about messages and would have
// to open their files to find out again: an envelope, a MIME tree. What a fact
// says is its owner's business. The file may be removed at any time, and a damaged
// record is one that is not there: nothing in it can change mail, and nothing of
// it is believed that does not have its checksum.
//
// It is "WAFERFA\x01", UIDVALIDITY and the owner's version as 32-bit numbers, then
// records: the length of the fact, UID, kind (an octet), the CRC-32C of these and
// the fact, the fact. Numbers are little-endian. It only grows; what belongs to
// messages that have gone is left out when it is opened and has become the larger part.
const (
	factsName   = "wafer.facts"
	factsMagic  = "WAFERFA\x01"
	factsHead   = len(factsMagic) + 8
	recordHead  = 13
	maxFact     = 64 << 10
	maxFacts    = 1 << 30 // octets of the file
	factsWindow = 64 << 10
	factsFlush  = 256 << 10
	factsSpare  = 1 << 20 // of waste that nobody minds
)

// FactKind tells the facts about one message apart, from 1 to FactKinds.
type FactKind uint8

// FactKinds is the highest FactKind.
const FactKinds = 8

// facts is wafer.facts as all sessions share it. Everything is guarded by mu; mail
// is never read or written under it.
type facts struct {
	mu      sync.RWMutex
	version uint32
	file    *os.File // nil: not open
	number  uint64   // of the file, for readers who kept a piece of it
	written int64
	pending []byte // what comes after written
	at      [FactKinds + 1][]factPlace
	failed  bool // it could not be opened or written; another attempt would do no better
}

// factPlace is where a fact lies.
type factPlace struct {
	uid uint32
	len uint32
	off int64 // of the record
}

// Facts reads and notes facts about a folder's messages. It is for one goroutine;
// several of them share what they note.
type Facts struct {
	b      *box
	number uint64
	window []byte
	off    int64 // of window
}

// Facts returns a way to the folder's facts. version is that of their encoding:
// facts of another version are dropped.
func (f *Folder) Facts(version uint32) *Facts {
	x := &f.b.facts
	x.mu.RLock()
	ready := x.file != nil && x.version == version || x.failed
	x.mu.RUnlock()
	if !ready {
		f.b.openFacts(version)
	}
	return &Facts{b: f.b}
}

// Get returns a fact about the message uid. The slice is valid until the next call.
func (f *Facts) Get(uid uint32, kind FactKind) ([]byte, bool) {
	x := &f.b.facts
	x.mu.RLock()
	defer x.mu.RUnlock()
	list := x.at[kind]
	i, ok := slices.BinarySearchFunc(list, uid, func(p factPlace, uid uint32) int { return cmp.Compare(p.uid, uid) })
	if !ok || x.file == nil {
		return nil, false
	}
	p := list[i]
	size := recordHead + int(p.len)
	if p.off >= x.written {
		start := p.off - x.written
		return factOf(x.pending[start:start+int64(size)], uid, kind)
	}
	if f.number != x.number || p.off < f.off || p.off+int64(size) > f.off+int64(len(f.window)) {
		if f.window == nil {
			f.window = make([]byte, factsWindow)
		}
		w := f.window[:min(int64(cap(f.window)), x.written-p.off)]
		if size > len(w) {
			w = make([]byte, size) // larger than a window
		}
		n, err := x.file.ReadAt(w, p.off)
		f.window, f.off, f.number = w[:n], p.off, x.number
		if n < size {
			_ = err // shorter than it was: the fact is not there
			return nil, false
		}
	}
	start := p.off - f.off
	return factOf(f.window[start:start+int64(size)], uid, kind)
}

// factOf takes a record apart.
func factOf(record []byte, uid uint32, kind FactKind) ([]byte, bool) {
	le := binary.LittleEndian
	if le.Uint32(record[4:]) != uid || record[8] != byte(kind) || le.Uint32(record[9:]) != recordSum(record) {
		return nil, false
	}
	return record[recordHead:], true
}

func recordSum(record []byte) uint32 {
	return crc32.Update(crc32.Checksum(record[:9], castagnoli), castagnoli, record[recordHead:])
}

// Note keeps a fact, if it is small enough and there is room. What is noted may get
// lost until Flush, and afterwards too.
func (f *Facts) Note(uid uint32, kind FactKind, fact []byte) {
	x := &f.b.facts
	x.mu.Lock()
	defer x.mu.Unlock()
	at := x.written + int64(len(x.pending))
	if x.file == nil || x.failed || len(fact) > maxFact || at > maxFacts {
		return
	}
	if !x.add(kind, factPlace{uid, uint32(len(fact)), at}) {
		return
	}
	start := len(x.pending)
	le := binary.LittleEndian
	x.pending = le.AppendUint32(le.AppendUint32(x.pending, uint32(len(fact))), uid)
	x.pending = append(x.pending, byte(kind), 0, 0, 0, 0)
	x.pending = append(x.pending, fact...)
	record := x.pending[start:]
	le.PutUint32(record[9:], recordSum(record))
	if len(x.pending) >= factsFlush {
		x.flush(f.b)
	}
}

// add notes a place; false if the message has such a fact already.
func (x *facts) add(kind FactKind, p factPlace) bool {
	list := x.at[kind]
	if n := len(list); n == 0 || list[n-1].uid < p.uid {
		x.at[kind] = append(list, p)
		return true
	}
	i, found := slices.BinarySearchFunc(list, p.uid, func(q factPlace, uid uint32) int { return cmp.Compare(q.uid, uid) })
	if !found {
		x.at[kind] = slices.Insert(list, i, p)
	}
	return !found
}

// Flush writes what was noted.
func (f *Facts) Flush() {
	x := &f.b.facts
	x.mu.Lock()
	defer x.mu.Unlock()
	x.flush(f.b)
}

// flush writes pending. Only what is written counts: after an error nothing more is kept.
func (x *facts) flush(b *box) {
	if len(x.pending) == 0 || x.file == nil {
		return
	}
	if _, err := x.file.WriteAt(x.pending, x.written); err != nil {
		b.p.log.Warn("could not note facts about messages", "folder", b.dir, "err", err)
		x.close()
		x.failed = true
		return
	}
	x.written += int64(len(x.pending))
	x.pending = x.pending[:0]
	if cap(x.pending) > 2*factsFlush {
		x.pending = nil
	}
}

// close forgets the file.
func (x *facts) close() {
	if x.file != nil {
		_ = x.file.Close() // nothing in it matters
	}
	x.file, x.pending, x.written = nil, nil, 0
	x.at = [FactKinds + 1][]factPlace{}
	x.number++
}

// rest writes what is pending and closes the file, until somebody asks again.
func (b *box) restFacts() {
	b.facts.mu.Lock()
	defer b.facts.mu.Unlock()
	b.facts.flush(b)
	b.facts.close()
	b.facts.failed = false
}

// openFacts opens wafer.facts, or makes it.
func (b *box) openFacts(version uint32) {
	b.mu.RLock()
	validity, msgs := b.validity, b.msgs
	b.shared = true
	b.mu.RUnlock()
	x := &b.facts
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.file != nil && x.version == version || x.failed {
		return // another session was faster
	}
	x.close()
	x.version = version
	err := x.load(b, validity, msgs)
	if err == nil {
		return
	}
	x.close()
	if err := x.create(b, validity); err != nil {
		b.p.log.Warn("could not make a file for facts about messages", "folder", b.dir, "err", err)
		x.close()
		x.failed = true
	}
}

var errFacts = errors.New("not a wafer.facts of this folder and version")

// load finds the records of the file.
func (x *facts) load(b *box, validity uint32, msgs []Message) error {
	f, err := os.OpenFile(b.file(factsName), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	x.file = f
	var head [factsHead]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	if string(head[:len(factsMagic)]) != factsMagic || le.Uint32(head[len(factsMagic):]) != validity || le.Uint32(head[len(factsMagic)+4:]) != x.version {
		return errFacts
	}
	x.written = int64(factsHead)
	in := bufio.NewReaderSize(f, 256<<10)
	var live int64
	i := 0
	for x.written < maxFacts {
		record, err := in.Peek(recordHead)
		if err != nil {
			break // the end, or half a record
		}
		size, uid, kind := le.Uint32(record), le.Uint32(record[4:]), FactKind(record[8])
		if size > maxFact || uid == 0 || kind == 0 || kind > FactKinds {
			break
		}
		if n, err := in.Discard(recordHead + int(size)); err != nil || n < recordHead+int(size) {
			break
		}
		if i >= len(msgs) || msgs[i].UID != uid { // mostly they stand in order
			i, _ = find(msgs, uid)
		}
		if i < len(msgs) && msgs[i].UID == uid && x.add(kind, factPlace{uid, size, x.written}) {
			live += recordHead + int64(size)
		}
		x.written += recordHead + int64(size)
	}
	if waste := x.written - int64(factsHead) - live; waste > live && waste > factsSpare {
		return x.compact(b, validity)
	}
	return nil
}

// create makes an empty file in the place of what is there.
func (x *facts) create(b *box, validity uint32) error {
	temp := b.file("tmp/" + b.p.names.base(time.Now()))
	le := binary.LittleEndian
	head := le.AppendUint32(le.AppendUint32([]byte(factsMagic), validity), x.version)
	if err := b.p.write(temp, head); err != nil {
		return err
	}
	f, err := os.OpenFile(temp, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(err, b.p.ops.remove(temp))
	}
	if err := b.p.ops.rename(temp, b.file(factsName)); err != nil {
		return errors.Join(err, f.Close(), b.p.ops.remove(temp))
	}
	x.file, x.written = f, int64(len(head))
	return nil
}

// compact keeps the records of x.at only.
func (x *facts) compact(b *box, validity uint32) error {
	old, places := x.file, x.at
	defer old.Close() // only read
	x.file = nil
	x.close()
	if err := x.create(b, validity); err != nil {
		return err
	}
	var buf []byte
	for kind := range places {
		for _, p := range places[kind] {
			buf = slices.Grow(buf[:0], recordHead+int(p.len))[:recordHead+int(p.len)]
			if _, err := old.ReadAt(buf, p.off); err != nil {
				continue
			}
			if _, ok := factOf(buf, p.uid, FactKind(kind)); ok && x.add(FactKind(kind), factPlace{p.uid, p.len, x.written + int64(len(x.pending))}) {
				x.pending = append(x.pending, buf...)
			}
			if len(x.pending) >= factsFlush {
				x.flush(b)
			}
		}
	}
	x.flush(b)
	return nil
}
