package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"time"
)

// AppendOptions describes a message that is stored.
type AppendOptions struct {
	Size  int64     // exact number of octets to read
	Flags Flags     // of this folder
	Date  time.Time // INTERNALDATE; zero: now
}

// arrival is a message on its way into a folder: a complete file, durable
// under another name.
type arrival struct {
	put   func(path string) error // makes the file appear under path, which nothing has
	undo  func(path string) error // takes it away again
	base  string
	path  string // that put was called with
	flags Flags
	m     Message // size and date are known
	err   error
	done  bool
}

// Append stores a.Size octets of r as a new message, durably. If r ends early
// nothing is stored and the error wraps io.ErrUnexpectedEOF. It is ErrCompressed
// if whoever reads the file would unpack it, which Dovecot refuses too, and
// ErrOverQuota if there is no room.
func (f *Folder) Append(ctx context.Context, r io.Reader, a AppendOptions) (Message, error) {
	b := f.b
	if err := b.broken(); err != nil {
		return Message{}, err
	}
	if err := b.room(f.name, Usage{a.Size, 1}); err != nil {
		return Message{}, fmt.Errorf("append to %s: %w", f.name, err)
	}
	now := time.Now()
	if a.Date.IsZero() {
		a.Date = now
	}
	base := b.p.names.base(now)
	temp := b.file("tmp/" + base)
	r, err := refuseCompressed(io.LimitReader(r, a.Size))
	if err != nil {
		return Message{}, fmt.Errorf("append to %s: %w", f.name, err)
	}
	size, err := b.p.spool(temp, r, a.Size, a.Date)
	if err != nil {
		return Message{}, fmt.Errorf("append to %s: %w", f.name, err)
	}
	if err := b.p.ops.sync(temp); err != nil {
		return Message{}, fmt.Errorf("append to %s: %w", f.name, errors.Join(err, b.p.ops.remove(temp)))
	}
	// Programs that read the name trust it: W is the size with CRLF line ends,
	// and equals S unless the client sent bare LFs.
	base = fmt.Sprintf("%s,S=%d,W=%d", base, a.Size, size)
	n := &arrival{
		base:  base,
		flags: a.Flags & onDisk,
		put:   func(path string) error { return b.p.ops.renameNew(temp, path) },
		undo:  func(path string) error { return b.p.ops.renameNew(path, temp) },
		m:     Message{Size: size, Date: a.Date, Key: base},
	}
	if err := b.admit(ctx, n); err != nil {
		if rerr := b.p.ops.remove(temp); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		return Message{}, fmt.Errorf("append to %s: %w", f.name, err)
	}
	b.p.ledger(b.root).add(f.name, Usage{a.Size, 1})
	return n.m, nil
}

// refuseCompressed returns ErrCompressed if what r gives begins like a compressed
// file, else a Reader of the same octets.
func refuseCompressed(r io.Reader) (io.Reader, error) {
	head := make([]byte, magicBytes)
	n, err := io.ReadFull(r, head)
	switch {
	case compressionOf(head[:n]) != plain:
		return nil, ErrCompressed
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return bytes.NewReader(head[:n]), nil
	case err != nil:
		return nil, err
	}
	return io.MultiReader(bytes.NewReader(head), r), nil
}

// spool writes n octets of r into the new file name with the given mtime. It
// returns their number with CRLF line ends. On an error there is no file.
func (p *Pool) spool(name string, r io.Reader, n int64, date time.Time) (size int64, err error) {
	out, err := p.ops.create(name)
	if err != nil {
		return 0, err
	}
	c := lineCounter{w: out}
	got, err := io.CopyBuffer(&c, io.LimitReader(r, n), make([]byte, contentRead))
	if err == nil && got < n {
		err = fmt.Errorf("message ends after %d of %d octets: %w", got, n, io.ErrUnexpectedEOF)
	}
	err = errors.Join(err, out.Close())
	if err == nil {
		err = p.own(name)
	}
	if err == nil {
		err = p.ops.chtimes(name, date)
	}
	if err != nil {
		return 0, errors.Join(err, p.ops.remove(name))
	}
	return c.at.crlf, nil
}

// lineCounter counts what it passes on as it would be with CRLF line ends.
type lineCounter struct {
	w  io.Writer
	at mark
}

func (c *lineCounter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.at.count(p[:n])
	return n, err
}

// admit gives a message its name in cur and its UID. Those who arrive while
// another is at it are served together by the next one.
func (b *box) admit(ctx context.Context, n *arrival) error {
	b.mu.Lock()
	b.waiting = append(b.waiting, n)
	b.mu.Unlock()
	if err := b.take(ctx); err != nil {
		if b.withdraw(n) {
			return err
		}
		<-b.turn // it is being served at this moment
	}
	defer b.give()
	if n.done {
		return n.err
	}
	b.mu.Lock()
	batch := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	err := b.admitAll(ctx, batch)
	for _, a := range batch {
		a.done = true
		if err != nil && a.err == nil {
			a.err = err
		}
	}
	return n.err
}

// withdraw takes back a message that nobody has begun to admit.
func (b *box) withdraw(n *arrival) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, a := range b.waiting {
		if a == n {
			b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// admitAll makes the files of a batch appear in cur, with UIDs in the order of
// the batch, and publishes them when all that is durable. On an error of its
// own none of them stays. The turn is held.
func (b *box) admitAll(ctx context.Context, batch []*arrival) error {
	ctx = context.WithoutCancel(ctx) // it serves others too
	if err := b.look(ctx, false); err != nil {
		return err
	}
	unlock, err := b.p.lock(ctx, b.file(uidlistName))
	if err != nil {
		return err
	}
	defer unlock()
	s := &scan{b: b, now: time.Now(), stamp: b.listStamp}
	st, err := stampOf(b.file(uidlistName))
	if err != nil {
		return err
	}
	if st != b.listStamp || st == (stamp{}) {
		s.distrust = true
		if err := s.readList(); err != nil {
			return err
		}
		if s.list.validity != b.validity {
			return fmt.Errorf("store in %s: UIDVALIDITY was changed by another program", b.dir)
		}
	}
	var news []newcomer
	var recs []uidRec
	for _, a := range batch {
		a.path = "cur/" + makeName(a.base, a.flags, "", "")
		if a.err = a.put(b.file(a.path)); a.err != nil {
			continue
		}
		a.m.Key, a.m.Flags = a.base, a.flags
		news = append(news, newcomer{found: found{a.base, a.path}, m: a.m})
		recs = append(recs, uidRec{name: a.base})
	}
	if err := b.touchedCur(); err != nil {
		b.cur = dirState{}
	}
	err = s.give(recs, s.rewrite || s.wasteful(), b.file("cur"))
	if err != nil {
		b.cur = dirState{}
		for _, a := range batch {
			if a.err == nil {
				a.err = errors.Join(err, a.undo(b.file(a.path)))
			}
		}
		return err
	}
	for i := range recs {
		news[i].m.UID = recs[i].uid
	}
	b.mu.Lock()
	if len(news) > 0 {
		b.enter(news)
	}
	b.next = max(b.next, recsNext(recs))
	b.mu.Unlock()
	b.wake()
	i := 0
	for _, a := range batch {
		if a.err == nil {
			at, _ := find(b.msgs, recs[i].uid)
			a.m = b.msgs[at]
			i++
		}
	}
	return nil
}

func recsNext(recs []uidRec) (next uint32) {
	if n := len(recs); n > 0 {
		next = recs[n-1].uid + 1
	}
	return next
}

// sorted returns uids ascending, without those that come twice.
func sorted(uids []uint32) []uint32 {
	s := append([]uint32(nil), uids...)
	sort.Slice(s, func(i, j int) bool { return s[i] < s[j] })
	kept := s[:0]
	for i, u := range s {
		if i == 0 || u != s[i-1] {
			kept = append(kept, u)
		}
	}
	return kept
}
