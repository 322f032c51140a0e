package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// found is a file of a message.
type found struct {
	base string
	path string // relative to the folder
}

// scan is one look at the directory.
type scan struct {
	b     *box
	now   time.Time
	whole bool             // cur was listed, so what is not in files is gone
	files map[string]found // by base name; those that are known are taken out again

	list     *uidlist       // as on disk, nil if it was not needed
	early    bool           // list was read before the directories
	rewrite  bool           // list is not on disk as it is here
	distrust bool           // another program changed the list meanwhile: read it again next time
	stamp    stamp          // of dovecot-uidlist
	byKey    map[string]int // index in list.recs

	seen  []bool            // by index in the box's messages: the file is where it was
	paths map[uint32]string // files of known messages that have another name now
	lost  map[uint32]bool   // messages without a file
}

// look brings the box up to date with the disk. The turn is held. force lists
// everything.
func (b *box) look(ctx context.Context, force bool) error {
	if err := b.broken(); err != nil {
		return err
	}
	if !b.loaded {
		b.load()
		b.sweep(time.Now())
	}
	s := &scan{b: b, now: time.Now(), paths: map[uint32]string{}, lost: map[uint32]bool{}}
	curTime, newTime, err := b.dirTimes()
	if err != nil {
		return err
	}
	if s.stamp, err = stampOf(b.file(uidlistName)); err != nil {
		return err
	}
	kwStamp, err := stampOf(b.file(keywordsName))
	if err != nil {
		return err
	}
	events, poked := b.takeEvents()
	force = force || !b.loaded || b.unexplained(events)
	s.whole = force || b.cur.stale(curTime, s.now)
	listNew := force || poked || b.fresh.stale(newTime, s.now)
	if !s.whole && !listNew && s.stamp == b.listStamp && kwStamp == b.kwStamp {
		return nil
	}
	if kwStamp != b.kwStamp {
		if err := b.readKeywords(); err != nil {
			return err
		}
	}
	if s.stamp != b.listStamp || !b.loaded || s.whole && b.dead == nil {
		if err := s.readList(); err != nil {
			return err
		}
		s.early = true
		if b.loaded && s.list.validity != b.validity {
			b.reset()
			return b.look(ctx, true)
		}
	}
	s.files = map[string]found{}
	if listNew {
		if err := s.takeNew(newTime); err != nil {
			return err
		}
	}
	if s.whole {
		if err := s.listCur(); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		b.cur = dirState{} // what was moved from new must not be overlooked next time
		return err
	}
	return s.settle(ctx)
}

// dirTimes are the mtimes of cur and new.
func (b *box) dirTimes() (cur, fresh time.Time, err error) {
	ci, err := os.Stat(b.file("cur"))
	if errors.Is(err, os.ErrNotExist) {
		b.p.forget(b.dir)
		return cur, fresh, ErrNoFolder
	}
	if err != nil {
		return cur, fresh, err
	}
	ni, err := os.Stat(b.file("new"))
	if errors.Is(err, os.ErrNotExist) { // some program removes it when it is empty
		err = errors.Join(b.p.ops.mkdir(b.file("new")), b.p.own(b.file("new")))
		return ci.ModTime(), time.Time{}, err
	}
	if err != nil {
		return cur, fresh, err
	}
	return ci.ModTime(), ni.ModTime(), nil
}

func (b *box) readKeywords() error {
	kw, st, err := readKeywords(b.dir)
	if err != nil {
		return fmt.Errorf("read keywords of %s: %w", b.dir, err)
	}
	b.kwStamp = st
	b.mu.Lock()
	b.kw = kw
	b.mu.Unlock()
	return nil
}

// listDir returns the names in a directory that can be messages.
func (b *box) listDir(sub string) ([]string, error) {
	d, err := os.Open(b.file(sub))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", b.file(sub), err)
	}
	names, err := d.Readdirnames(-1)
	d.Close() // only read
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", b.file(sub), err)
	}
	kept := names[:0]
	for _, n := range names {
		if n[0] != '.' && n[0] != ':' && strings.IndexByte(n, '\n') < 0 {
			kept = append(kept, n)
		}
	}
	return kept, nil
}

// takeNew moves the files of new to cur. Flags that a file has already are kept.
func (s *scan) takeNew(mtime time.Time) error {
	b := s.b
	looked := time.Now()
	names, err := b.listDir("new")
	if err != nil {
		return err
	}
	b.fresh = dirState{mtime: mtime, looked: looked}
	if len(names) == 0 {
		return nil
	}
	moved := false
	for _, name := range names {
		base, info := splitName(name)
		to := name
		if !strings.HasPrefix(info, ":2,") {
			to = base + ":2,"
		}
		f := found{base: base, path: "cur/" + to}
		err := b.p.ops.renameNew(b.file("new/"+name), b.file(f.path))
		switch {
		case err == nil:
			moved = true
		case errors.Is(err, os.ErrNotExist): // another program took it: it will be found in cur
			s.whole = true
			continue
		default: // taken already, or no right to: it stays where it is
			f.path = "new/" + name
		}
		if err := s.add(f); err != nil {
			return err
		}
	}
	if moved {
		if fi, err := os.Stat(b.file("new")); err == nil {
			b.fresh.mtime = fi.ModTime() // looked is earlier, so the next look lists it again
		}
		return b.touchedCur()
	}
	return nil
}

// touchedCur notes the mtime that a change of our own has given cur.
func (b *box) touchedCur() error {
	fi, err := os.Stat(b.file("cur"))
	if err != nil {
		return err
	}
	b.cur.mtime = fi.ModTime()
	if b.cur.suspect.IsZero() {
		b.cur.suspect = time.Now()
	}
	return nil
}

// listCur lists cur.
func (s *scan) listCur() error {
	b := s.b
	looked := time.Now()
	before, err := os.Stat(b.file("cur"))
	if err != nil {
		return err
	}
	names, err := b.listDir("cur")
	if err != nil {
		return err
	}
	b.cur = dirState{mtime: before.ModTime(), looked: looked}
	if len(s.files) == 0 && len(names) > len(b.msgs) {
		s.files = make(map[string]found, len(names)-len(b.msgs))
	}
	byKey := s.expect()
	for _, name := range names {
		base, _ := splitName(name)
		if s.expected(byKey, base, name) {
			continue
		}
		if err := s.add(found{base: base, path: "cur/" + name}); err != nil {
			return err
		}
	}
	return nil
}

// expect prepares for a listing in which most files are where the box has them.
func (s *scan) expect() (byKey map[string]int32) {
	msgs := s.b.msgs
	s.seen = make([]bool, len(msgs))
	byKey = make(map[string]int32, len(msgs))
	for i := range msgs {
		byKey[msgs[i].Key] = int32(i)
	}
	return byKey
}

// expected reports whether name is the file of a known message, with the name that it
// has had. Where another file has the same base name, both are left to add.
func (s *scan) expected(byKey map[string]int32, base, name string) bool {
	i, ok := byKey[base]
	if !ok {
		return false
	}
	b := s.b
	m := &b.msgs[i]
	if s.seen[i] {
		s.seen[i] = false
		s.files[base] = found{base: base, path: b.path(m)}
		return false
	}
	if _, odd := b.odd[m.UID]; odd {
		return false
	}
	if _, twice := s.files[base]; twice {
		return false
	}
	var room [280]byte
	if string(m.Flags.appendLetters(append(append(room[:0], base...), ":2,"...))) != name {
		return false
	}
	s.seen[i] = true
	return true
}

// add notes a file. A second one with the same base name is either another
// name of it, or another message that some program named badly: that one gets
// a base name of its own.
func (s *scan) add(f found) error {
	old, twice := s.files[f.base]
	if !twice || old.path == f.path {
		s.files[f.base] = f
		return nil
	}
	b := s.b
	oi, err := os.Lstat(b.file(old.path))
	if errors.Is(err, os.ErrNotExist) { // renamed while we were listing
		s.files[f.base] = f
		return nil
	}
	if err != nil {
		return err
	}
	fi, err := os.Lstat(b.file(f.path))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if os.SameFile(oi, fi) {
		return s.dropName(old, f, fi)
	}
	_, info := splitName(f.path)
	if !strings.HasPrefix(info, ":2,") {
		info = ":2,"
	}
	to := found{base: b.p.names.base(s.now)}
	to.path = "cur/" + to.base + info
	if err := b.p.ops.renameNew(b.file(f.path), b.file(to.path)); err != nil {
		return fmt.Errorf("rename duplicate: %w", err)
	}
	b.p.log.Warn("renamed a duplicate file name", "folder", b.dir, "from", f.path, "to", to.path)
	s.files[to.base] = to
	return b.touchedCur()
}

// dropName removes one of two names of the same file: the one with fewer flags.
// Another program may be renaming the file all the while, so a third name in
// tmp/ guards it.
func (s *scan) dropName(x, y found, fi os.FileInfo) error {
	b := s.b
	if linkCount(fi) < 2 { // seen twice because it was renamed meanwhile
		s.files[y.base] = y
		return nil
	}
	if len(y.path) > len(x.path) {
		x, y = y, x
	}
	guard := b.file("tmp/" + b.p.names.base(s.now))
	if err := b.p.ops.link(b.file(x.path), guard); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			s.files[y.base] = y
			return nil
		}
		return err
	}
	if err := b.p.ops.remove(b.file(y.path)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return errors.Join(err, b.p.ops.remove(guard))
	}
	_, err := os.Lstat(b.file(x.path))
	if errors.Is(err, os.ErrNotExist) { // y was its only name
		err = b.p.ops.renameNew(guard, b.file(x.path))
	} else {
		err = b.p.ops.remove(guard)
	}
	if err != nil {
		return err
	}
	b.p.log.Warn("removed a second name of a file", "folder", b.dir, "file", y.path)
	s.files[x.base] = x
	return b.touchedCur()
}
