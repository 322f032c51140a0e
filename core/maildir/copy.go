package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// CopyPair says which message became which (RFC 4315 §3, COPYUID).
type CopyPair struct{ From, To uint32 }

// Copy copies messages with their flags, keywords and dates into dst, durably:
// all of them or, on an error, none. UIDs that no message has are passed over.
// The copies get UIDs in the order of the originals. Files are hard links
// where the file system allows.
func (f *Folder) Copy(ctx context.Context, uids []uint32, dst *Folder) ([]CopyPair, error) {
	return f.transfer(ctx, uids, dst, false)
}

// Move moves messages into dst, durably, and returns which became which. Each
// is at every moment in exactly one of the two folders where both are on one
// file system; else it is copied first. On an error some may have been moved:
// they are in the pairs. Moving into the same folder gives new UIDs.
func (f *Folder) Move(ctx context.Context, uids []uint32, dst *Folder) ([]CopyPair, error) {
	return f.transfer(ctx, uids, dst, true)
}

// passenger is a message on its way from one folder to another.
type passenger struct {
	arrival
	uid   uint32
	from  string // file, absolute
	clone bool   // the file had to be copied, so it is still in its folder
}

func (f *Folder) transfer(ctx context.Context, uids []uint32, dst *Folder, move bool) (pairs []CopyPair, err error) {
	src := f.b
	uids = sorted(uids)
	flags, err := f.translate(uids, dst)
	if err != nil {
		return nil, err
	}
	verb := "copy"
	if move {
		verb = "move"
	}
	sizes, err := f.fits(uids, dst, move)
	if err != nil {
		return nil, fmt.Errorf("%s from %s to %s: %w", verb, f.name, dst.name, err)
	}
	for range 5 {
		var done []CopyPair
		done, err = src.carry(ctx, uids, dst.b, flags, move)
		pairs = append(pairs, done...)
		if !errors.Is(err, os.ErrNotExist) {
			break
		}
		for _, p := range done { // another program renamed a file: go on with the rest
			uids = slices.DeleteFunc(uids, func(u uint32) bool { return u == p.From })
		}
		if err := src.relook(); err != nil {
			return pairs, err
		}
	}
	f.carried(pairs, sizes, dst, move)
	if err != nil {
		err = fmt.Errorf("%s from %s to %s: %w", verb, f.name, dst.name, err)
	}
	return pairs, err
}

// translate returns a function from flags of f to flags of dst, with the
// keywords that the messages have made in dst. Keywords for which dst has no
// letter left are lost.
func (f *Folder) translate(uids []uint32, dst *Folder) (func(Flags) Flags, error) {
	if f.b == dst.b {
		return func(fl Flags) Flags { return fl }, nil
	}
	var used Flags
	f.b.mu.RLock()
	for _, uid := range uids {
		if i, ok := find(f.b.msgs, uid); ok {
			used |= f.b.msgs[i].Flags
		}
	}
	f.b.mu.RUnlock()
	const system = 1<<keywordShift - 1
	to := map[Flags]Flags{}
	for i, name := range f.Keywords() {
		if bit := KeywordBit(i); used&bit != 0 && name != "" {
			if have, ok := dst.Keyword(name, true); ok {
				to[bit] = have
			} else if err := dst.b.broken(); err != nil {
				return nil, err
			}
		}
	}
	return func(fl Flags) Flags {
		out := fl & system
		for from, bit := range to {
			if fl&from != 0 {
				out |= bit
			}
		}
		return out
	}, nil
}

// carry copies or moves once. os.ErrNotExist means that a file was not where
// it should be: then nothing was copied, and what was moved is in pairs.
func (b *box) carry(ctx context.Context, uids []uint32, dst *box, flags func(Flags) Flags, move bool) (pairs []CopyPair, err error) {
	if err := b.beginBoth(ctx, dst); err != nil {
		return nil, err
	}
	defer func() {
		b.give()
		if dst != b {
			dst.give()
		}
	}()
	now := time.Now()
	var all []*passenger
	var batch []*arrival
	for _, uid := range uids {
		i, ok := find(b.msgs, uid)
		if !ok {
			continue
		}
		m := b.msgs[i]
		ps := &passenger{uid: uid, from: b.file(b.path(&m))}
		ps.arrival = arrival{base: b.p.renamed(&m, now), flags: flags(m.Flags), m: m}
		ps.m.Order, ps.m.UIDL = 0, ""
		dst.board(ctx, ps, move)
		all, batch = append(all, ps), append(batch, &ps.arrival)
	}
	if len(all) == 0 {
		return nil, nil
	}
	err = dst.admitAll(ctx, batch)
	for _, a := range batch {
		err = errors.Join(err, a.err)
	}
	if err != nil && !move {
		return nil, errors.Join(err, dst.withdrawAll(batch))
	}
	lost := map[uint32]bool{}
	for _, ps := range all {
		if ps.err != nil {
			continue
		}
		pairs = append(pairs, CopyPair{ps.uid, ps.m.UID})
		if ps.clone {
			if rerr := b.p.ops.remove(ps.from); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
				err = errors.Join(err, rerr)
				continue
			}
		}
		lost[ps.uid] = true
	}
	if move && len(lost) > 0 {
		b.forgetMessages(lost)
		b.wake()
		err = errors.Join(err, b.p.ops.sync(b.file("cur")))
	}
	return pairs, err
}

// beginBoth begins two folders in an order that all agree on.
func (b *box) beginBoth(ctx context.Context, dst *box) error {
	if b == dst {
		return b.begin(ctx)
	}
	first, second := b, dst
	if second.dir < first.dir {
		first, second = second, first
	}
	if err := first.begin(ctx); err != nil {
		return err
	}
	if err := second.begin(ctx); err != nil {
		first.give()
		return err
	}
	return nil
}

// board says how the file of ps gets into the folder b.
func (b *box) board(ctx context.Context, ps *passenger, move bool) {
	ops := &b.p.ops
	ps.put = func(path string) error {
		if move {
			err := ops.renameNew(ps.from, path)
			if err == nil || !noHardLinks(err) {
				return err
			}
		} else if err := ops.link(ps.from, path); err == nil || !noHardLinks(err) {
			return err
		}
		ps.clone = move
		return b.clone(ps.from, path, ps.m.Date)
	}
	ps.undo = func(path string) error {
		if move && !ps.clone {
			return ops.renameNew(path, ps.from)
		}
		return ops.remove(path)
	}
}

// clone copies a file between file systems; its contents are durable before it
// gets the name path.
func (b *box) clone(from, path string, date time.Time) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() // only read
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	temp := b.file("tmp/" + b.p.names.base(time.Now()))
	if _, err := b.p.spool(temp, in, fi.Size(), date); err != nil {
		return err
	}
	err = b.p.ops.sync(temp)
	if err == nil {
		err = b.p.ops.renameNew(temp, path)
	}
	if err != nil {
		return errors.Join(err, b.p.ops.remove(temp))
	}
	return nil
}

// withdrawAll expunges those of a batch that were admitted. The turn is held.
func (b *box) withdrawAll(batch []*arrival) (err error) {
	lost := map[uint32]bool{}
	for _, a := range batch {
		if a.err == nil && a.m.UID != 0 {
			if rerr := b.p.ops.remove(b.file(a.path)); rerr != nil {
				err = errors.Join(err, rerr)
				continue
			}
			lost[a.m.UID] = true
		}
	}
	b.forgetMessages(lost)
	return err
}

// renamed makes a new base name for m with the sizes of its old one, unless they
// have turned out to be wrong. A name is never used twice: UIDs hang on it.
func (p *Pool) renamed(m *Message, now time.Time) string {
	name := p.names.base(now)
	s, w := sizesOf(m.Key)
	if w >= 0 && (w != m.Size || s > w) {
		return name
	}
	if s >= 0 {
		name = fmt.Sprintf("%s,S=%d", name, s)
	}
	if w >= 0 {
		name = fmt.Sprintf("%s,W=%d", name, w)
		if strings.Contains(m.Key, binaryMark) {
			name += binaryMark
		}
	}
	return name
}
