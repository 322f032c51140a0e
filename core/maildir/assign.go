package maildir

import (
	"errors"
	"strings"
	"time"
)

var errFull = errors.New("folder has no UID left")

// give assigns recs the next UIDs in their order and writes them into
// dovecot-uidlist, which is locked: appended where that will do, else with a
// new list in place of the old one, without the lines of messages that are
// gone. The UIDs are durable when it returns nil, and so is what was written to
// the paths in also.
func (s *scan) give(recs []uidRec, rewrite bool, also ...string) error {
	b := s.b
	name := b.file(uidlistName)
	next := b.next
	if s.list != nil {
		next = max(next, s.list.next)
	}
	if next == 0 {
		next = 1
	}
	for i := range recs {
		if next > maxUID {
			return errFull
		}
		recs[i].uid = next
		next++
	}
	if !rewrite {
		if len(recs) == 0 {
			return nil
		}
		var lines []byte
		for _, r := range recs {
			lines = r.append(lines)
		}
		err := b.p.ops.appendTo(name, lines)
		if err == nil {
			err = b.p.ops.sync(append(also, name)...)
		}
		return s.written(next, recs, err)
	}
	if s.list == nil {
		if err := s.readList(); err != nil {
			return err
		}
	}
	fresh := make(map[string]bool, len(recs))
	for _, r := range recs {
		fresh[r.name] = true
	}
	l := *s.list
	l.recs = make([]uidRec, 0, len(s.list.recs)+len(recs))
	for _, r := range s.list.recs {
		if _, dead := b.dead[r.name]; !dead && !fresh[r.name] {
			l.recs = append(l.recs, r)
		}
	}
	l.recs = append(l.recs, recs...)
	l.next, l.damaged = next, false
	err := b.p.replace(name, name+".tmp", l.bytes())
	if err == nil && len(also) > 0 {
		err = b.p.ops.sync(also...)
	}
	if err == nil {
		if b.dead != nil {
			b.dead = map[string]struct{}{}
		}
		s.rewrite = false
		s.list = &l
	}
	return s.written(next, nil, err)
}

// written notes that dovecot-uidlist has been changed by us.
func (s *scan) written(next uint32, appended []uidRec, err error) error {
	b := s.b
	if err != nil {
		b.listStamp = stamp{} // who knows what it holds
		s.stamp = stamp{}
		return err
	}
	st, err := stampOf(b.file(uidlistName))
	if err != nil {
		return err
	}
	s.stamp = st
	if s.list != nil {
		s.list.next = next
		s.list.recs = append(s.list.recs, appended...)
	}
	if b.listStamp = st; s.distrust {
		b.listStamp = stamp{}
	}
	return nil
}

// pack gives the base names of many newcomers one common string, which spares
// an allocation for each.
func pack(news []newcomer) {
	n := 0
	for i := range news {
		n += len(news[i].m.Key)
	}
	var all strings.Builder
	all.Grow(n)
	for i := range news {
		all.WriteString(news[i].m.Key)
	}
	s := all.String()
	for i := range news {
		k := len(news[i].m.Key)
		news[i].m.Key, s = s[:k], s[k:]
	}
	for i := range news {
		news[i].m.UIDL = strings.Clone(news[i].m.UIDL)
	}
}

// reset forgets all that the box knows: its UIDVALIDITY has changed. The turn is held.
func (b *box) reset() {
	b.mu.Lock()
	b.loaded, b.msgs, b.shared, b.odd, b.gone = false, nil, false, nil, nil
	b.validity, b.next, b.dead = 0, 0, nil
	b.mu.Unlock()
	b.restFacts()
	b.cur, b.fresh, b.listStamp, b.obsolete = dirState{}, dirState{}, stamp{}, true
	b.p.log.Warn("UIDVALIDITY was changed by another program", "folder", b.dir)
}

// newSeq is the modification sequence to begin with when earlier ones are not
// known for certain. Each change adds one, so time is always ahead of it.
func newSeq(now time.Time) uint64 { return uint64(now.UnixMicro()) }
