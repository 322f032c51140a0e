package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// newcomer is a message that the box does not know yet.
type newcomer struct {
	found
	m    Message
	dead bool // dovecot-uidlist has a line for it that must go
}

// settle brings together what is on disk, what dovecot-uidlist says, and what
// the box knows, and publishes the result.
func (s *scan) settle(ctx context.Context) error {
	s.match()
	if s.whole && len(s.lost) > 0 {
		if err := s.lookAgain(); err != nil {
			return err
		}
	}
	if s.list == nil && len(s.files) > 0 && s.b.dead == nil {
		if err := s.readList(); err != nil {
			return err
		}
	}
	if s.list != nil {
		s.compare()
	}
	news, err := s.attributes(ctx)
	if err == nil {
		err = s.assign(ctx, news)
	}
	if err != nil {
		s.b.cur = dirState{} // what was moved from new must be found again
		return err
	}
	s.publish(news)
	return nil
}

// match takes the files of known messages out of s.files.
func (s *scan) match() {
	if len(s.files) == 0 && !s.whole {
		return
	}
	b := s.b
	for i := range b.msgs {
		if s.seen != nil && s.seen[i] {
			continue
		}
		m := &b.msgs[i]
		f, ok := s.files[m.Key]
		if !ok {
			if s.whole {
				s.lost[m.UID] = true
			}
			continue
		}
		delete(s.files, m.Key)
		if f.path != b.path(m) {
			s.paths[m.UID] = f.path
		}
	}
}

// lookAgain lists the directories once more for messages that were not found:
// a file that is renamed during a listing may be missing from it.
func (s *scan) lookAgain() error {
	b := s.b
	at := map[string]string{}
	for _, sub := range []string{"new", "cur"} {
		names, err := b.listDir(sub)
		if err != nil {
			return err
		}
		for _, name := range names {
			base, _ := splitName(name)
			at[base] = sub + "/" + name
		}
	}
	for i := range b.msgs {
		m := &b.msgs[i]
		if !s.lost[m.UID] {
			continue
		}
		if path, ok := at[m.Key]; ok {
			delete(s.lost, m.UID)
			s.paths[m.UID] = path
		}
	}
	return nil
}

// readList reads dovecot-uidlist, or makes a new one in memory where there is none.
func (s *scan) readList() error {
	b := s.b
	s.rewrite = false
	l, st, err := readUIDList(b.dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errNotUIDList) {
		if err := s.remakeList(); err != nil {
			return err
		}
		l, s.rewrite = *s.list, true
	} else if err != nil {
		return fmt.Errorf("read UIDs of %s: %w", b.dir, err)
	}
	s.list, s.stamp = &l, st
	s.rewrite = s.rewrite || l.damaged
	s.byKey = make(map[string]int, len(l.recs))
	for i := range l.recs {
		s.byKey[l.recs[i].name] = i
	}
	return nil
}

// remakeList makes the list of what the box knows; it is new if the box knows nothing.
func (s *scan) remakeList() error {
	b := s.b
	if !b.loaded {
		v, err := b.p.nextValidity(b.root, s.now)
		l := newUIDList(v)
		s.list = &l
		return err
	}
	b.p.log.Warn("dovecot-uidlist is gone; writing it anew", "folder", b.dir)
	l := newUIDList(b.validity)
	l.next = b.next
	for i := range b.msgs {
		m := &b.msgs[i]
		var fields []string
		if m.UIDL != "" {
			fields = append(fields, "P"+m.UIDL)
		}
		if m.Order != 0 {
			fields = append(fields, "O"+strconv.FormatUint(uint64(m.Order), 10))
		}
		l.recs = append(l.recs, uidRec{uid: m.UID, fields: strings.Join(fields, " "), name: m.Key})
	}
	s.list = &l
	return nil
}

// compare finds known messages that the list gives another UID, or none: to
// clients they are new ones.
func (s *scan) compare() {
	b := s.b
	for i := range b.msgs {
		m := &b.msgs[i]
		if s.lost[m.UID] {
			continue
		}
		if j, ok := s.byKey[m.Key]; ok && s.list.recs[j].uid == m.UID {
			continue
		}
		s.lost[m.UID] = true
		path, moved := s.paths[m.UID]
		if !moved {
			path = b.path(m)
		}
		delete(s.paths, m.UID)
		s.files[m.Key] = found{base: m.Key, path: path}
	}
}

// attributes finds size and date of the newcomers. Files that have gone
// meanwhile are left out. No file is read: a size that the name does not tell is
// not known until somebody asks for it. Many are looked at side by side, since it
// is the disk that one waits for.
func (s *scan) attributes(ctx context.Context) (news []newcomer, err error) {
	files := make([]found, 0, len(s.files))
	for _, f := range s.files {
		files = append(files, f)
	}
	sortArrivals(files)
	look, err := openGlances(s.b.dir)
	if err != nil {
		return nil, err
	}
	defer look.close()
	workers := max(1, min(len(files)/256, 2*runtime.GOMAXPROCS(0), 16))
	all := make([][]newcomer, workers)
	var again atomic.Bool
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			part := files[w*len(files)/workers : (w+1)*len(files)/workers]
			all[w] = make([]newcomer, 0, len(part))
			for i := range part {
				if ctx.Err() != nil {
					return
				}
				switch n, err := s.newcomer(look, part[i]); {
				case err != nil:
					again.Store(true) // renamed meanwhile, perhaps
				case n.m.Key != "":
					all[w] = append(all[w], n)
				}
			}
		})
	}
	group.Wait()
	if again.Load() {
		s.b.cur.looked = time.Time{} // look again next time
	}
	if workers == 1 {
		return all[0], ctx.Err()
	}
	return slices.Concat(all...), ctx.Err()
}

// newcomer finds out about one file. What is no file has no Key.
func (s *scan) newcomer(look glances, f found) (n newcomer, err error) {
	size, date, regular, err := look.at(f.path)
	if err != nil || !regular {
		return newcomer{}, err
	}
	n.found = f
	_, info := splitName(f.path)
	n.m.Flags, _, _ = parseInfo(info)
	n.m.Date, n.m.Key = date, f.base
	sz, w := sizesOf(f.base)
	if i, ok := s.byKey[f.base]; ok {
		r := &s.list.recs[i]
		n.m.UIDL = r.field('P')
		if o := number(r.field('O')); o > 0 && o <= 1<<32-1 {
			n.m.Order = uint32(o)
		}
		if w < 0 || sz != size {
			sz, w = number(r.field('S')), number(r.field('W'))
		}
	}
	if n.m.Size = unknownSize; sz == size && w >= sz {
		n.m.Size = w
	}
	return n, nil
}

// known gives n the UID that the list has for it, if that may be used.
func (s *scan) known(n *newcomer, gone map[uint32]bool) bool {
	b := s.b
	i, ok := s.byKey[n.base]
	_, dead := b.dead[n.base]
	if !ok {
		n.dead = dead
		return false
	}
	uid := s.list.recs[i].uid
	if dead && uid < b.next {
		n.dead = true
		return false
	}
	delete(b.dead, n.base) // it was moved away, and back by a program that gave it another UID
	if at, taken := find(b.msgs, uid); gone[uid] || taken && b.msgs[at].Key != n.base {
		n.dead = true // clients were told that it is gone: it cannot come back under this UID
		return false
	}
	n.m.UID = uid
	return true
}

// assign gives the newcomers UIDs, durably.
func (s *scan) assign(ctx context.Context, news []newcomer) error {
	b := s.b
	gone := make(map[uint32]bool, len(b.gone))
	if len(news) > 0 {
		for _, g := range b.gone {
			gone[g.uid] = true
		}
	}
	missing := 0
	for i := range news {
		if !s.known(&news[i], gone) {
			missing++
		}
	}
	if missing == 0 && !s.rewrite && !s.wasteful() {
		return nil
	}
	unlock, err := b.p.lock(ctx, b.file(uidlistName))
	if err != nil {
		return err
	}
	defer unlock()
	if st, err := stampOf(b.file(uidlistName)); err != nil {
		return err
	} else if st != s.stamp {
		s.distrust = true
		if err := s.readList(); err != nil {
			return err
		}
		if b.loaded && s.list.validity != b.validity {
			return fmt.Errorf("UIDs of %s: the list was replaced by another program", b.dir)
		}
	}
	pending := make([]*newcomer, 0, missing)
	rewrite := s.rewrite || s.wasteful()
	for i := range news {
		n := &news[i]
		if n.m.UID == 0 && !s.known(n, gone) {
			pending = append(pending, n)
			rewrite = rewrite || n.dead
		}
	}
	// They are in the order of their arrival already: attributes has seen to that.
	recs := make([]uidRec, len(pending))
	for i, n := range pending {
		recs[i] = uidRec{name: n.base}
	}
	if err := s.give(recs, rewrite); err != nil {
		return err
	}
	for i, n := range pending {
		n.m.UID = recs[i].uid
	}
	return nil
}

// wasteful reports whether most lines of the list are of messages that are gone.
func (s *scan) wasteful() bool {
	return len(s.b.dead) > 256+len(s.b.msgs)
}

// publish shows the result to everybody.
func (s *scan) publish(news []newcomer) {
	b := s.b
	slices.SortFunc(news, func(x, y newcomer) int { return int(int64(x.m.UID) - int64(y.m.UID)) })
	b.mu.Lock()
	if !b.loaded {
		b.modseq = max(b.modseq+1, newSeq(s.now))
		b.floor = b.modseq
	}
	changed := len(s.lost) > 0 || len(news) > 0
	changed = s.rename() || changed
	b.expunged(s.lost)
	if len(news) > 0 {
		b.enter(news)
	}
	if s.list != nil {
		b.validity, b.next = s.list.validity, max(b.next, s.list.next)
		if b.listStamp = s.stamp; s.distrust {
			b.listStamp = stamp{}
		}
	}
	if s.early && s.whole {
		b.bury(s.list)
	}
	b.loaded = true
	b.mu.Unlock()
	if changed {
		b.wake()
	}
}

// rename notes the new names of known files. mu is held.
func (s *scan) rename() (changed bool) {
	b := s.b
	if len(s.paths) == 0 {
		return false
	}
	var seq uint64
	for uid, path := range s.paths {
		i, ok := find(b.msgs, uid)
		if !ok {
			continue
		}
		_, info := splitName(path)
		flags, _, _ := parseInfo(info)
		if flags != b.msgs[i].Flags {
			if seq == 0 {
				seq = b.tick()
			}
			msgs := b.edit()
			msgs[i].Flags, msgs[i].ModSeq = flags, seq
			b.changes++
		}
		b.place(&b.msgs[i], path)
	}
	return seq != 0
}

// enter adds newcomers, which are in the order of their UIDs. mu is held.
func (b *box) enter(news []newcomer) {
	if b.loaded {
		b.tick()
	} else {
		pack(news)
	}
	if cap(b.msgs) == 0 {
		b.msgs = make([]Message, 0, len(news))
	}
	inOrder := len(b.msgs) == 0 || b.msgs[len(b.msgs)-1].UID < news[0].m.UID
	if !inOrder {
		b.edit()
	}
	for i := range news {
		m := news[i].m
		m.ModSeq = b.modseq
		b.msgs = append(b.msgs, m)
		b.place(&m, news[i].path)
		delete(b.dead, m.Key)
		b.next = max(b.next, m.UID+1)
	}
	if !inOrder {
		slices.SortFunc(b.msgs, func(x, y Message) int { return int(int64(x.UID) - int64(y.UID)) })
	}
	b.changes += len(news)
}

// bury notes which lines of the list have no message. mu and turn are held.
func (b *box) bury(l *uidlist) {
	b.dead = map[string]struct{}{}
	for i := range l.recs {
		r := &l.recs[i]
		if at, ok := find(b.msgs, r.uid); !ok || b.msgs[at].Key != r.name {
			b.dead[r.name] = struct{}{}
		}
	}
}
