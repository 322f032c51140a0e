package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"
)

// Store is one session's view of a Maildir++ tree. The methods are safe for
// concurrent use.
type Store struct {
	p    *Pool
	t    *tree
	once sync.Once
}

// tree is a Maildir++ tree as all sessions of the process share it.
type tree struct {
	path  string
	refs  int    // guarded by Pool.mu
	quota *Quota // guarded by Pool.mu

	mu   sync.Mutex // held while folders are made, removed or renamed, or subscriptions change
	pop3 sync.Mutex
}

// FolderInfo is one line of a folder listing.
type FolderInfo struct {
	Name       string // UTF-8, "." between elements
	Subscribed bool
	NoSelect   bool   // it only exists because it has children
	Children   bool   // there are folders below it
	SpecialUse string // `\Drafts`, `\Sent`, `\Junk`, `\Trash`, `\Archive` or "" (RFC 6154)
}

// Close ends the use of s. Folders that were opened through it stay open. It
// may be called more than once.
func (s *Store) Close() {
	s.once.Do(func() {
		s.p.mu.Lock()
		defer s.p.mu.Unlock()
		if s.t.refs--; s.t.refs == 0 {
			delete(s.p.stores, s.t.path)
		}
	})
}

// Folders lists the INBOX first and then all other folders by name, parents
// before children. Parents that are no folders themselves are in it as NoSelect.
func (s *Store) Folders(ctx context.Context) ([]FolderInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dirs, err := s.dirs()
	if err != nil {
		return nil, err
	}
	subscribed, err := s.subscribed()
	if err != nil {
		return nil, err
	}
	all := map[string]*FolderInfo{"INBOX": {Name: "INBOX"}}
	for name, dir := range dirs {
		all[name] = &FolderInfo{Name: name, SpecialUse: s.useOf(name, dir)}
	}
	for name := range dirs {
		for up := above(name); up != ""; up = above(up) {
			info := all[up]
			if info == nil {
				info = &FolderInfo{Name: up, NoSelect: true}
				all[up] = info
			}
			info.Children = true
		}
	}
	list := make([]FolderInfo, 0, len(all))
	for name, info := range all {
		info.Subscribed = subscribed[name]
		list = append(list, *info)
	}
	sort.Slice(list, func(i, j int) bool { return before(list[i].Name, list[j].Name) })
	return list, nil
}

// above is the name of the parent, "" for a name without one.
func above(name string) string {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return ""
	}
	return name[:i]
}

// before orders names: the INBOX and what is below it first, children right
// after their parents.
func before(a, b string) bool {
	if ai, bi := inInbox(a), inInbox(b); ai != bi {
		return ai
	}
	return strings.ReplaceAll(a, ".", "\x00") < strings.ReplaceAll(b, ".", "\x00")
}

func inInbox(name string) bool { return name == "INBOX" || strings.HasPrefix(name, "INBOX.") }

// dirs finds the folders other than INBOX: their directories by name.
func (s *Store) dirs() (map[string]string, error) { return foldersIn(s.t.path) }

// foldersIn finds the folders other than INBOX of the Maildir root.
func foldersIn(root string) (map[string]string, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("list folders: %w", err)
	}
	dirs := map[string]string{}
	for _, e := range entries {
		file := e.Name()
		if len(file) < 2 || file[0] != '.' || e.Type().IsRegular() {
			continue
		}
		name, ok := shownName(file[1:])
		if !ok || !isDir(filepath.Join(root, file, "cur")) {
			continue
		}
		if have, twice := dirs[name]; !twice || filepath.Base(have) != "."+encodeName(name) {
			dirs[name] = filepath.Join(root, file)
		}
	}
	return dirs, nil
}

// Folder opens a folder and brings it up to date with the disk. It returns
// ErrNoFolder or ErrBadName. The caller must Close it.
func (s *Store) Folder(ctx context.Context, name string) (*Folder, error) {
	name, err := cleanName(name)
	if err != nil {
		return nil, err
	}
	dir := dirOf(s.t.path, name)
	if !isDir(filepath.Join(dir, "cur")) {
		return nil, fmt.Errorf("open folder %q: %w", name, ErrNoFolder)
	}
	b, err := s.p.take(s.t.path, dir)
	if err != nil {
		return nil, err
	}
	f := &Folder{name: name, b: b}
	if err := f.Refresh(ctx); err != nil {
		f.Close()
		return nil, fmt.Errorf("open folder %q: %w", name, err)
	}
	return f, nil
}

// Create makes an empty folder, durably. It returns ErrExists or ErrBadName.
func (s *Store) Create(name string) error {
	name, err := cleanName(name)
	if err != nil {
		return err
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	defer s.p.changedTree(s.t.path)
	return s.create(name)
}

// create builds the folder in tmp and then gives it its name. t.mu is held.
func (s *Store) create(name string) error {
	dir := dirOf(s.t.path, name)
	if name == "INBOX" || isDir(filepath.Join(dir, "cur")) {
		return fmt.Errorf("create folder %q: %w", name, ErrExists)
	}
	now := time.Now()
	validity, err := s.p.nextValidity(s.t.path, now)
	if err != nil {
		return fmt.Errorf("create folder %q: %w", name, err)
	}
	temp := filepath.Join(s.t.path, "tmp", s.p.names.base(now))
	if err := s.build(temp, validity); err != nil {
		return errors.Join(fmt.Errorf("create folder %q: %w", name, err), s.p.ops.removeAll(temp))
	}
	if err := s.p.ops.rename(temp, dir); err != nil {
		if isDir(filepath.Join(dir, "cur")) {
			err = ErrExists
		}
		return errors.Join(fmt.Errorf("create folder %q: %w", name, err), s.p.ops.removeAll(temp))
	}
	if err := s.p.ops.sync(s.t.path); err != nil {
		return fmt.Errorf("create folder %q: %w", name, err)
	}
	return nil
}

// build fills a new directory with what makes it a folder, durably.
func (s *Store) build(dir string, validity uint32) error {
	var made []string
	for _, sub := range []string{"", "cur", "new", "tmp"} {
		d := filepath.Join(dir, sub)
		if err := s.p.ops.mkdir(d); err != nil {
			return err
		}
		if err := s.p.own(d); err != nil {
			return err
		}
		made = append(made, d)
	}
	list := newUIDList(validity)
	for name, data := range map[string][]byte{"maildirfolder": nil, uidlistName: list.bytes()} {
		file := filepath.Join(dir, name)
		if err := s.p.write(file, data); err != nil {
			return err
		}
		made = append(made, file)
	}
	return s.p.ops.sync(made...)
}

// Delete removes a folder with all its messages. Folders below it stay. It
// returns ErrNoFolder, or ErrBadName for INBOX.
func (s *Store) Delete(name string) error {
	name, err := cleanName(name)
	if err != nil {
		return err
	}
	if name == "INBOX" {
		return fmt.Errorf("%w: INBOX cannot be deleted", ErrBadName)
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	defer s.p.changedTree(s.t.path)
	dir := dirOf(s.t.path, name)
	if !isDir(filepath.Join(dir, "cur")) {
		return fmt.Errorf("delete folder %q: %w", name, ErrNoFolder)
	}
	temp := filepath.Join(s.t.path, "tmp", s.p.names.base(time.Now())+".deleted")
	if err := s.p.ops.rename(dir, temp); err != nil {
		return fmt.Errorf("delete folder %q: %w", name, err)
	}
	s.p.forget(dir)
	s.p.deleted(s.t.path, name, temp)
	if err := s.p.ops.sync(s.t.path); err != nil {
		return fmt.Errorf("delete folder %q: %w", name, err)
	}
	if err := s.p.ops.removeAll(temp); err != nil {
		s.p.log.Warn("could not remove a deleted folder", "dir", temp, "err", err)
	}
	return nil
}

// Rename renames a folder and all below it, durably. UIDs and UIDVALIDITY stay;
// sessions that have it open get ErrNoFolder. Renaming INBOX makes a new folder
// and moves the messages of INBOX into it; folders below INBOX stay (RFC 9051
// §6.3.6). It returns ErrNoFolder, ErrExists or ErrBadName.
func (s *Store) Rename(old, new string) error {
	old, err := cleanName(old)
	if err != nil {
		return err
	}
	if new, err = cleanName(new); err != nil {
		return err
	}
	if strings.HasPrefix(new, old+".") && old != "INBOX" {
		return fmt.Errorf("%w: a folder cannot go below itself", ErrBadName)
	}
	if old == "INBOX" {
		return s.renameInbox(new)
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	defer s.p.changedTree(s.t.path)
	dirs, err := s.dirs()
	if err != nil {
		return err
	}
	if _, taken := dirs[new]; taken || new == "INBOX" {
		return fmt.Errorf("rename folder %q to %q: %w", old, new, ErrExists)
	}
	var steps [][2]string
	for name, dir := range dirs {
		rest, ok := strings.CutPrefix(name, old)
		if !ok || rest != "" && rest[0] != '.' {
			continue
		}
		to, err := cleanName(new + rest)
		if err != nil {
			return err
		}
		if _, taken := dirs[to]; taken {
			return fmt.Errorf("rename folder %q to %q: %w", name, to, ErrExists)
		}
		steps = append(steps, [2]string{dir, filepath.Join(s.t.path, "."+encodeName(to))})
	}
	if len(steps) == 0 {
		return fmt.Errorf("rename folder %q: %w", old, ErrNoFolder)
	}
	sort.Slice(steps, func(i, j int) bool { return steps[i][0] < steps[j][0] })
	return s.renameAll(old, new, steps)
}

// renameAll renames directories, all or none. t.mu is held.
func (s *Store) renameAll(old, new string, steps [][2]string) error {
	for i, step := range steps {
		err := s.p.ops.renameNew(step[0], step[1])
		if err == nil {
			continue
		}
		for i--; i >= 0; i-- {
			err = errors.Join(err, s.p.ops.renameNew(steps[i][1], steps[i][0]))
		}
		return fmt.Errorf("rename folder %q to %q: %w", old, new, err)
	}
	for _, step := range steps {
		s.p.forget(step[0], step[1])
	}
	s.p.renamedFolder(s.t.path, old, new)
	if err := s.p.ops.sync(s.t.path); err != nil {
		return fmt.Errorf("rename folder %q to %q: %w", old, new, err)
	}
	return nil
}

func (s *Store) renameInbox(new string) error {
	ctx := context.Background()
	if err := s.Create(new); err != nil {
		return err
	}
	dst, err := s.Folder(ctx, new)
	if err != nil {
		return err
	}
	defer dst.Close()
	inbox, err := s.Folder(ctx, "INBOX")
	if err != nil {
		return err
	}
	defer inbox.Close()
	var uids []uint32
	for _, m := range inbox.Messages() {
		uids = append(uids, m.UID)
	}
	_, err = inbox.Move(ctx, uids, dst)
	return err
}

// LockPOP3 gives the caller the mailbox alone among the POP3 sessions of this
// server (RFC 1939 §4), or ErrLocked at once. unlock may be called more than once.
func (s *Store) LockPOP3() (unlock func(), err error) {
	if !s.t.pop3.TryLock() {
		return nil, ErrLocked
	}
	var once sync.Once
	return func() { once.Do(s.t.pop3.Unlock) }, nil
}
