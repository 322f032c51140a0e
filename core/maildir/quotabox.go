package maildir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// SetQuota says what the user may store, for all sessions of this process and
// until the last Store of the tree is closed. q must not be changed afterwards.
func (s *Store) SetQuota(q Quota) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.t.quota = &q
}

// HasQuota reports whether there is a limit.
func (s *Store) HasQuota() bool {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return s.t.quota.limited()
}

// Quota says how much there is in all folders that count, and how much there
// may be: 0 where there is no limit. It reads one small file; only now and then
// must the folders be counted.
func (s *Store) Quota(ctx context.Context) (used, limit Usage, err error) {
	if err := ctx.Err(); err != nil {
		return used, limit, err
	}
	l := s.p.ledger(s.t.path)
	if l.quota != nil {
		limit = Usage{l.quota.Storage, l.quota.Messages}
	}
	used, err = l.used()
	return used, limit, err
}

// Recount counts all folders anew, whatever maildirsize says.
func (s *Store) Recount(ctx context.Context) (Usage, error) {
	if err := ctx.Err(); err != nil {
		return Usage{}, err
	}
	return s.p.ledger(s.t.path).recount(tally{})
}

// Room returns an error wrapping ErrOverQuota if a message of size octets does
// not fit into the folder. It counts with the grace.
func (s *Store) Room(ctx context.Context, folder string, size int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	folder, err := cleanName(folder)
	if err != nil {
		return err
	}
	return s.p.ledger(s.t.path).room(folder, Usage{size, 1})
}

// room is ErrOverQuota if more does not fit into the folder.
func (l *ledger) room(folder string, more Usage) error {
	if !l.quota.limited() || l.quota.limits(folder) == (Usage{}) {
		return nil
	}
	used, err := l.used()
	if err != nil {
		return err
	}
	return l.quota.room(folder, used, more)
}

// ledger is that of a Maildir with the quota that its Store has.
func (p *Pool) ledger(root string) *ledger {
	l := &ledger{
		root: root, log: p.log, write: p.write, move: p.ops.rename, clear: p.ops.remove,
		temp: func() string { return filepath.Join(root, "tmp", p.names.base(time.Now())) },
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.stores[root]; t != nil {
		l.quota = t.quota
	}
	return l
}

func (b *box) room(folder string, more Usage) error {
	return b.p.ledger(b.root).room(folder, more)
}

// stored is what a message counts for. The turn is held.
func (b *box) stored(m *Message) int64 {
	name := b.path(m)
	n, err := storedSize(b.file(filepath.Dir(name)), filepath.Base(name))
	if err != nil { // it is gone or was renamed: by and large the same
		return max(m.Size, 0)
	}
	return n
}

// fits is ErrOverQuota if the messages do not fit into dst. sizes are what they count for.
func (f *Folder) fits(uids []uint32, dst *Folder, move bool) (sizes map[uint32]int64, err error) {
	files := make(map[uint32]string, len(uids))
	f.b.mu.RLock()
	for _, uid := range uids {
		if i, ok := find(f.b.msgs, uid); ok {
			files[uid] = f.b.file(f.b.path(&f.b.msgs[i]))
		}
	}
	f.b.mu.RUnlock()
	var all Usage
	sizes = make(map[uint32]int64, len(files))
	for uid, file := range files {
		n, err := storedSize(filepath.Dir(file), filepath.Base(file))
		if err != nil {
			continue // renamed or gone by now: the next count has it
		}
		sizes[uid] = n
		all = all.plus(Usage{n, 1})
	}
	l := dst.b.p.ledger(dst.b.root)
	if move && f.b.root == dst.b.root && !l.quota.ignores(f.name) {
		return sizes, nil // nothing is added
	}
	return sizes, l.room(dst.name, all)
}

// carried notes what has been copied or moved.
func (f *Folder) carried(pairs []CopyPair, sizes map[uint32]int64, dst *Folder, move bool) {
	var all Usage
	for _, p := range pairs {
		all = all.plus(Usage{sizes[p.From], 1})
	}
	l := dst.b.p.ledger(dst.b.root)
	if move && f.b.root == dst.b.root && l.quota.ignores(f.name) == l.quota.ignores(dst.name) {
		return
	}
	l.add(dst.name, all)
	if move {
		f.b.p.ledger(f.b.root).add(f.name, Usage{}.minus(all))
	}
}

// deleted notes that the folder, whose directory is dir now, does not count any more.
func (p *Pool) deleted(root, folder, dir string) {
	l := p.ledger(root)
	var all Usage
	for _, sub := range []string{"new", "cur"} {
		u, err := sumDir(filepath.Join(dir, sub))
		if err != nil {
			p.log.Warn("could not count a deleted folder", "dir", dir, "err", err)
		}
		all = all.plus(u)
	}
	l.add(folder, Usage{}.minus(all))
}

// renamedFolder counts anew where a folder may count under one name and not
// under the other.
func (p *Pool) renamedFolder(root, old, new string) {
	l := p.ledger(root)
	for _, r := range quotaRules(l.quota) {
		if !r.Ignore {
			continue
		}
		if _, err := l.recount(tally{}); err != nil {
			p.log.Warn("could not count a mailbox", "maildir", root, "from", old, "to", new, "err", err)
		}
		return
	}
}

func quotaRules(q *Quota) []QuotaRule {
	if q == nil {
		return nil
	}
	return q.Rules
}

// Room returns an error wrapping ErrOverQuota if a message of size octets does
// not fit into the target.
func (d *Deliverer) Room(t Target, size int64) error {
	if err := d.ledger(t.Maildir).room(folderOf(t.Folder), Usage{size, 1}); err != nil {
		return fmt.Errorf("deliver to %s: %w", t.Maildir, err)
	}
	return nil
}

// folderOf is the name of a folder as Target has it.
func folderOf(dir string) string {
	if dir == "" {
		return "INBOX"
	}
	if name, ok := shownName(dir); ok {
		return name
	}
	return dir
}

// account notes the message that has got the name file.
func (d *Deliverer) account(root, folder, file string) {
	n, err := storedSize(filepath.Dir(file), filepath.Base(file))
	if err == nil {
		d.ledger(root).add(folderOf(folder), Usage{n, 1})
	}
}

func (d *Deliverer) ledger(root string) *ledger {
	l := &ledger{
		root: root, log: d.o.Logger, move: d.disk.rename, clear: d.disk.remove, write: d.writeFile,
		temp: func() string { return filepath.Join(root, "tmp", d.names.base(d.o.Now())) },
	}
	if d.o.Quota != nil {
		l.quota = d.o.Quota(root)
	}
	return l
}

// writeFile makes a small file with the right owner.
func (d *Deliverer) writeFile(name string, data []byte) error {
	f, err := d.disk.create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if uid, gid := d.o.UID, d.o.GID; err == nil && (uid >= 0 || gid >= 0) {
		err = f.Chown(uid, gid)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(name) // the error that counts is err
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
