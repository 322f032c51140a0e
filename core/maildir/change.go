package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
)

// FlagOp says what SetFlags does with the flags it is given.
type FlagOp int

// The operations of STORE (RFC 9051 §6.4.6).
const (
	FlagSet    FlagOp = iota // replace all flags
	FlagAdd                  // FLAGS +
	FlagRemove               // FLAGS -
)

func (op FlagOp) apply(have, flags Flags) Flags {
	switch op {
	case FlagAdd:
		have |= flags
	case FlagRemove:
		have &^= flags
	default:
		have = flags
	}
	return have & onDisk
}

// SetFlags changes the flags of messages, durably. UIDs that no message has
// are passed over. If unchangedSince is not 0, messages with a higher ModSeq
// are left alone and returned in modified (RFC 7162 §3.1.3). changed holds the
// messages whose flags are other ones now; they share one ModSeq. On an error
// some messages may have been changed: changed holds them too.
func (f *Folder) SetFlags(ctx context.Context, uids []uint32, op FlagOp, flags Flags, unchangedSince uint64) (changed []Message, modified []uint32, err error) {
	b := f.b
	if err := b.begin(ctx); err != nil {
		return nil, nil, err
	}
	var run flagRun
	for _, uid := range uids {
		i, ok := find(b.msgs, uid)
		if !ok {
			continue
		}
		if unchangedSince != 0 && b.msgs[i].ModSeq > unchangedSince {
			modified = append(modified, uid)
			continue
		}
		if err = ctx.Err(); err != nil {
			break
		}
		if err = b.reflag(ctx, &run, uid, op, flags); err != nil {
			break
		}
	}
	b.publishFlags(&run)
	for _, uid := range run.done {
		if i, ok := find(b.msgs, uid); ok {
			changed = append(changed, b.msgs[i])
		}
	}
	b.give()
	if len(changed) > 0 {
		b.wake()
		err = errors.Join(err, b.p.ops.sync(b.file("cur")))
	}
	return changed, modified, err
}

// moved is a message whose file has another name.
type moved struct {
	uid   uint32
	flags Flags
	path  string
}

// flagRun is one SetFlags.
type flagRun struct {
	renamed []moved  // not published yet
	done    []uint32 // published
}

// reflag renames one file. Another program may be faster and take the name
// away; then its work is published first, and the change is made on top. The turn is held.
func (b *box) reflag(ctx context.Context, run *flagRun, uid uint32, op FlagOp, flags Flags) error {
	for range 5 {
		i, ok := find(b.msgs, uid)
		if !ok {
			return nil
		}
		m := b.msgs[i]
		want := op.apply(m.Flags, flags)
		if want == m.Flags {
			return nil
		}
		from := b.path(&m)
		_, info := splitName(from)
		_, extra, tail := parseInfo(info)
		to := "cur/" + makeName(m.Key, want, extra, tail)
		err := b.p.ops.renameNew(b.file(from), b.file(to))
		if err == nil {
			run.renamed = append(run.renamed, moved{uid, want, to})
			return nil
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("set flags of message %d: %w", uid, err)
		}
		b.publishFlags(run)
		if err := b.look(ctx, true); err != nil {
			return err
		}
	}
	return fmt.Errorf("set flags of message %d: another program keeps renaming it", uid)
}

// publishFlags shows to everybody what run has done so far. The turn is held.
func (b *box) publishFlags(run *flagRun) {
	if len(run.renamed) == 0 {
		return
	}
	if err := b.touchedCur(); err != nil {
		b.cur = dirState{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	msgs := b.edit()
	seq := b.tick()
	for _, mv := range run.renamed {
		if i, ok := find(msgs, mv.uid); ok {
			m := &msgs[i]
			m.Flags, m.ModSeq = mv.flags, seq
			b.place(m, mv.path)
			run.done = append(run.done, mv.uid)
		}
	}
	b.changes += len(run.renamed)
	run.renamed = run.renamed[:0]
}

// Expunge removes messages whatever their flags, durably, and returns the UIDs
// of those that are gone now and were not before. On an error some may be gone.
func (f *Folder) Expunge(ctx context.Context, uids []uint32) (removed []uint32, err error) {
	b := f.b
	if err := b.begin(ctx); err != nil {
		return nil, err
	}
	lost := map[uint32]bool{}
	var freed Usage
	for _, uid := range uids {
		i, ok := find(b.msgs, uid)
		if !ok || lost[uid] {
			continue
		}
		size := b.stored(&b.msgs[i])
		if err = ctx.Err(); err != nil {
			break
		}
		var ok2 bool
		if ok2, err = b.unlink(ctx, b.msgs[i].UID); err != nil {
			break
		}
		if ok2 {
			lost[uid] = true
			removed = append(removed, uid)
			freed = freed.plus(Usage{size, 1})
		}
	}
	b.forgetMessages(lost)
	b.give()
	if len(removed) > 0 {
		b.p.ledger(b.root).add(f.name, Usage{}.minus(freed))
		b.wake()
		err = errors.Join(err, b.p.ops.sync(b.file("cur")))
	}
	return removed, err
}

// unlink removes the file of a message; false if another was faster. The turn is held.
func (b *box) unlink(ctx context.Context, uid uint32) (bool, error) {
	for range 5 {
		i, ok := find(b.msgs, uid)
		if !ok {
			return false, nil
		}
		err := b.p.ops.remove(b.file(b.path(&b.msgs[i])))
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return false, fmt.Errorf("expunge message %d: %w", uid, err)
		}
		if err := b.look(ctx, true); err != nil {
			return false, err
		}
	}
	return false, fmt.Errorf("expunge message %d: another program keeps renaming it", uid)
}

// forgetMessages publishes that messages are gone. The turn is held.
func (b *box) forgetMessages(lost map[uint32]bool) {
	if len(lost) == 0 {
		return
	}
	if err := b.touchedCur(); err != nil {
		b.cur = dirState{}
	}
	b.mu.Lock()
	for uid := range lost { // a look in between may have found it
		if _, ok := find(b.msgs, uid); !ok {
			delete(lost, uid)
		}
	}
	b.expunged(lost)
	b.mu.Unlock()
}

// Open opens a message for reading. It returns ErrExpunged if there is none
// with this UID, or no longer.
func (f *Folder) Open(uid uint32) (c *Content, err error) {
	err = f.find(uid, func(name string, size int64) (int64, error) {
		c, err = f.b.p.opener.open(name, size)
		if err != nil {
			return 0, err
		}
		return c.Size(), nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// find hands over the path of a message's file, and the size that it should have, to
// read, which returns the size that it has. A file that was renamed meanwhile is
// looked for.
func (f *Folder) find(uid uint32, read func(name string, size int64) (int64, error)) error {
	b := f.b
	for try := 0; ; try++ {
		b.mu.RLock()
		i, ok := find(b.msgs, uid)
		var m Message
		var rel string
		if ok {
			m, rel = b.msgs[i], b.path(&b.msgs[i])
		}
		b.mu.RUnlock()
		if !ok {
			return ErrExpunged
		}
		size, err := read(b.file(rel), m.Size)
		if err == nil {
			if size != m.Size {
				b.resize(uid, size)
			}
			return nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("open message %d in %s: %w", uid, f.name, err)
		}
		if try == 5 {
			return fmt.Errorf("open message %d: %s keeps being renamed", uid, path.Base(rel))
		}
		if err := b.relook(); err != nil {
			return err
		}
	}
}

// relook lists everything: a file was not where it should be.
func (b *box) relook() error {
	ctx := context.Background()
	if err := b.take(ctx); err != nil {
		return err
	}
	defer b.give()
	return b.look(ctx, true)
}

// resize corrects the size of a message whose name said a wrong one, or whose
// file was still being written when it was measured. Nobody is told: a
// message's size cannot change by the rules (RFC 9051 §2.3.4).
func (b *box) resize(uid uint32, size int64) {
	<-b.turn
	defer b.give()
	b.mu.Lock()
	defer b.mu.Unlock()
	if i, ok := find(b.msgs, uid); ok {
		b.edit()[i].Size = size
		b.changes++
	}
}
