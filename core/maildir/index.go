package maildir

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"time"
)

// wafer.index holds what the Maildir itself does not say, or says slowly:
// modification sequences, sizes, dates, and the state of the directories for
// which that is true. It is ours alone and disposable: whatever is wrong with
// it, it is ignored and written anew, and nothing in it overrides the
// directory or dovecot-uidlist.
//
// It is "WAFERIX", a version octet, numbers as unsigned varints in the order
// of encodeIndex, all base names in one piece, and the CRC-32C of everything
// before, little-endian.
const (
	indexName    = "wafer.index"
	indexMagic   = "WAFERIX\x02"
	maxIndexFile = 1 << 30
)

// index is the contents of wafer.index.
type index struct {
	validity, next uint32
	modseq, floor  uint64
	cur, fresh     int64 // mtimes in nanoseconds, 0 if they were not settled
	list, keywords stamp
	msgs           []Message
	odd            map[uint32]string
	gone           []gone
}

var errIndex = errors.New("not a wafer.index of this version")

func encodeIndex(x *index) []byte {
	b := make([]byte, 0, 256+110*len(x.msgs))
	b = append(b, indexMagic...)
	u := func(v uint64) { b = binary.AppendUvarint(b, v) }
	str := func(s string) { u(uint64(len(s))); b = append(b, s...) }
	st := func(s stamp) { u(s.ino); u(uint64(s.size)); u(uint64(s.mtime)) }
	u(uint64(x.validity))
	u(uint64(x.next))
	u(x.modseq)
	u(x.floor)
	u(uint64(x.cur))
	u(uint64(x.fresh))
	st(x.list)
	st(x.keywords)
	u(uint64(len(x.gone)))
	for _, g := range x.gone {
		u(uint64(g.uid))
		u(g.modseq)
	}
	u(uint64(len(x.msgs)))
	var last uint32
	for i := range x.msgs {
		m := &x.msgs[i]
		u(uint64(m.UID - last))
		last = m.UID
		u(uint64(m.Flags))
		u(m.ModSeq)
		u(uint64(m.Size - unknownSize))
		u(uint64(m.Date.UnixNano()))
		u(uint64(m.Order))
		u(uint64(len(m.Key)))
		str(m.UIDL)
		str(x.odd[m.UID])
	}
	for i := range x.msgs {
		b = append(b, x.msgs[i].Key...)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// indexReader reads numbers until the first error.
type indexReader struct {
	b   []byte
	bad bool
}

func (r *indexReader) u() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *indexReader) str() string {
	n := r.u()
	if n == 0 {
		return ""
	}
	if n > uint64(len(r.b)) {
		r.bad = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *indexReader) stamp() stamp {
	return stamp{ino: r.u(), size: int64(r.u()), mtime: int64(r.u())}
}

// count reads a number of things that take at least min octets each.
func (r *indexReader) count(min int) int {
	n := r.u()
	if n > uint64(len(r.b)/min) {
		r.bad = true
		return 0
	}
	return int(n)
}

func decodeIndex(data []byte) (*index, error) {
	end := len(data) - 4
	if end < len(indexMagic) || string(data[:len(indexMagic)]) != indexMagic ||
		crc32.Checksum(data[:end], castagnoli) != binary.LittleEndian.Uint32(data[end:]) {
		return nil, errIndex
	}
	r := indexReader{b: data[len(indexMagic):end]}
	x := &index{
		validity: uint32(r.u()), next: uint32(r.u()), modseq: r.u(), floor: r.u(),
		cur: int64(r.u()), fresh: int64(r.u()), list: r.stamp(), keywords: r.stamp(),
	}
	x.gone = make([]gone, r.count(2))
	for i := range x.gone {
		x.gone[i] = gone{uint32(r.u()), r.u()}
	}
	x.msgs = make([]Message, r.count(9))
	lens := make([]uint64, len(x.msgs))
	uid, total := uint64(0), uint64(0)
	for i := range x.msgs {
		step := r.u()
		if uid += step; step == 0 || step > maxUID || uid > maxUID {
			return nil, errIndex
		}
		m := &x.msgs[i]
		m.UID, m.Flags, m.ModSeq, m.Size = uint32(uid), Flags(r.u())&onDisk, r.u(), int64(r.u())+unknownSize
		m.Date, m.Order = time.Unix(0, int64(r.u())), uint32(r.u())
		lens[i] = r.u()
		m.UIDL = r.str()
		if odd := r.str(); odd != "" {
			if x.odd == nil {
				x.odd = map[uint32]string{}
			}
			x.odd[m.UID] = odd
		}
		if r.bad || m.Size < unknownSize || lens[i] == 0 || lens[i] > 4096 {
			return nil, errIndex
		}
		total += lens[i]
	}
	if r.bad || total != uint64(len(r.b)) {
		return nil, errIndex
	}
	names := string(r.b)
	for i := range x.msgs {
		x.msgs[i].Key, names = names[:lens[i]], names[lens[i]:]
	}
	return x, nil
}

// load takes over wafer.index where that is possible. The turn is held.
func (b *box) load() {
	if b.obsolete {
		return
	}
	f, err := os.Open(b.file(indexName))
	if err != nil {
		return
	}
	defer f.Close() // only read
	fi, err := f.Stat()
	if err != nil || fi.Size() > maxIndexFile {
		return
	}
	data := make([]byte, fi.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return
	}
	x, err := decodeIndex(data)
	if err != nil {
		b.p.log.Warn("ignored an index", "folder", b.dir, "err", err)
		return
	}
	list, err := stampOf(b.file(uidlistName))
	if err != nil || list == (stamp{}) {
		return // without the list nobody knows whether these UIDs are still right
	}
	kw, kwStamp, err := readKeywords(b.dir)
	if err != nil {
		return
	}
	b.cur, b.fresh = settledState(x.cur), settledState(x.fresh)
	b.listStamp, b.kwStamp = x.list, kwStamp
	curTime, newTime, err := b.dirTimes()
	same := err == nil && list == x.list && kwStamp == x.keywords && curTime.Equal(b.cur.mtime) && newTime.Equal(b.fresh.mtime)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.validity, b.next, b.modseq, b.floor = x.validity, x.next, x.modseq, x.floor
	b.msgs, b.odd, b.gone, b.kw = x.msgs, x.odd, x.gone, kw
	b.loaded, b.saved, b.changes = true, x.modseq, 0
	if !same { // the process may have died after changes that clients know of and the index does not
		b.modseq = max(b.modseq, newSeq(time.Now()))
	}
}

// settledState is the state of a directory that had the given mtime and was
// known to be settled, or of one of which nothing is known if mtime is 0.
func settledState(mtime int64) dirState {
	if mtime == 0 {
		return dirState{}
	}
	t := time.Unix(0, mtime)
	return dirState{mtime: t, looked: t.Add(racyWindow(t))}
}

// saveIfWorth writes the index if much has changed since it was written.
func (b *box) saveIfWorth() {
	<-b.turn
	defer b.give()
	if b.changes > len(b.msgs)/16 || b.loaded && b.saved == 0 {
		b.writeIndex()
	}
}

// save writes the index if anything has changed since it was written.
func (b *box) save() {
	<-b.turn
	defer b.give()
	if b.modseq != b.saved || b.changes > 0 {
		b.writeIndex()
	}
}

// writeIndex writes wafer.index. Nothing depends on its success. The turn is held.
func (b *box) writeIndex() {
	if !b.loaded || b.broken() != nil {
		return
	}
	x := &index{
		validity: b.validity, next: b.next, modseq: b.modseq, floor: b.floor,
		list: b.listStamp, keywords: b.kwStamp, msgs: b.msgs, odd: b.odd, gone: b.gone,
	}
	if b.cur.settled() {
		x.cur = b.cur.mtime.UnixNano()
	}
	if b.fresh.settled() {
		x.fresh = b.fresh.mtime.UnixNano()
	}
	temp := b.file("tmp/" + b.p.names.base(time.Now()))
	err := b.p.write(temp, encodeIndex(x))
	if err == nil {
		if err = b.p.ops.rename(temp, b.file(indexName)); err != nil {
			err = errors.Join(err, b.p.ops.remove(temp))
		}
	}
	if err != nil {
		b.p.log.Warn("could not write an index", "folder", b.dir, "err", err)
		return
	}
	b.saved, b.changes, b.obsolete = b.modseq, 0, false
}
