package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/maildir"
)

// beyond says which keywords file names have no room for, and how to keep them.
func (r *Report) beyond(user string, f *folder, l uidlist) error {
	t, _, err := f.beyond(l)
	if err != nil || len(t.has) == 0 {
		return err
	}
	free, err := f.free()
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(t.has) {
		n := len(t.has[name])
		i := Issue{User: user, Folder: f.name, Path: filepath.Join(f.dir, "dovecot.index"), Kind: "keyword", Lost: n > 0,
			What: fmt.Sprintf("the keyword %s of %d messages is in dovecot.index alone: file names have letters for %d keywords", name, n, maildir.MaxKeywords)}
		switch {
		case n == 0:
			i.What = fmt.Sprintf("the keyword %s has no letter in file names; no message is known to have it", name)
			i.Remedy = fmt.Sprintf("nothing, if this prints nothing: doveadm search -u USER mailbox %q keyword %s", f.name, name)
		case len(free) > 0:
			i.Remedy = fmt.Sprintf("--apply gives it the letter %c, which no message uses", 'a'+free[0])
			free = free[1:]
		default:
			i.Remedy = fmt.Sprintf("move those messages into a folder of their own, where it gets a letter: doveadm move -u USER %q mailbox %q keyword %s", f.name+"."+name, f.name, name)
		}
		r.add(i)
	}
	return nil
}

// free lists the letters that no file name has, first those that no keyword has either.
func (f *folder) free() (free []int, err error) {
	names, _, err := maildir.KeywordNames(f.dir)
	if err != nil {
		return nil, err
	}
	used := f.used()
	var named []int
	for i, name := range names {
		switch {
		case used&maildir.KeywordBit(i) != 0:
		case name == "":
			free = append(free, i)
		default:
			named = append(named, i)
		}
	}
	return append(free, named...), nil
}

// Apply does for the Maildirs of a report what Survey says that it would: keywords that are
// in Dovecot's index alone get letters that no message uses, and every folder is opened
// once, so that new messages have their UIDs and the index is there. pool makes a Pool
// for a Maildir; it is closed here. Nothing is removed: dovecot-keywords as
// it was stays as dovecot-keywords.before-wafer, and Dovecot may go on at any time.
func Apply(ctx context.Context, r *Report, pool func(dir string) (*maildir.Pool, error), tell Progress) error {
	for i, u := range r.Users {
		tell.tell(u.Name, int64(i), int64(len(r.Users)))
		p, err := pool(u.Dir)
		if err != nil {
			return err
		}
		err = errors.Join(r.apply(ctx, p, u), p.Close())
		if err != nil {
			return fmt.Errorf("take over %s: %w", u.Dir, err)
		}
	}
	return nil
}

func (r *Report) apply(ctx context.Context, p *maildir.Pool, u User) error {
	all, err := folders(u.Dir)
	if err != nil {
		return err
	}
	for i := range all {
		kept, err := all[i].keepKeywords(ctx, p)
		if err != nil {
			return err
		}
		for j := range r.Items {
			x := &r.Items[j]
			if x.User == u.Name && x.Folder == all[i].name && x.Kind == "keyword" && slices.ContainsFunc(kept, func(name string) bool { return strings.Contains(x.What, "the keyword "+name+" ") }) {
				x.Kept = true
			}
		}
	}
	s, err := p.Open(u.Dir)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, f := range u.Folders {
		box, err := s.Folder(ctx, f.Name)
		if errors.Is(err, maildir.ErrNoFolder) {
			continue
		}
		if err != nil {
			return err
		}
		err = box.Measure(ctx)
		box.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// keepKeywords gives letters to keywords that only Dovecot's index has, as far as there
// are any, and returns the names of those. The names of files change before the
// meaning of the letter does, under the lock; the letter had no use before.
func (f *folder) keepKeywords(ctx context.Context, p *maildir.Pool) (kept []string, err error) {
	if err := f.list(); err != nil {
		return nil, err
	}
	data, err := readBounded(filepath.Join(f.dir, uidlistName))
	if err != nil {
		return nil, err
	}
	t, byUID, err := f.beyond(readUIDs(data))
	if err != nil || len(t.has) == 0 {
		return nil, err
	}
	path := filepath.Join(f.dir, keywordsName)
	err = p.Edit(ctx, path, func(old []byte) ([]byte, error) {
		free, err := f.free()
		if err != nil {
			return nil, err
		}
		k := readKeywordFile(old, f.used())
		add := map[uint32]maildir.Flags{}
		for _, name := range sortedKeys(t.has) {
			if len(free) == 0 || len(t.has[name]) == 0 {
				continue
			}
			k.names[free[0]] = name
			k.further = slices.DeleteFunc(k.further, func(line string) bool { return strings.HasSuffix(line, " "+name) })
			for uid := range t.has[name] {
				add[uid] |= maildir.KeywordBit(free[0])
			}
			kept = append(kept, name)
			free = free[1:]
		}
		if len(kept) == 0 {
			return nil, nil
		}
		if err := keepBefore(path, old); err != nil {
			return nil, err
		}
		for uid, flags := range add {
			if err := f.addLetters(byUID[uid], flags); err != nil {
				return nil, err
			}
		}
		return k.bytes(), nil
	})
	return kept, err
}

// keepBefore writes what a file was beside it, unless that has been done before.
func keepBefore(path string, data []byte) error {
	old := path + ".before-wafer"
	if exists(old) {
		return nil
	}
	if err := os.WriteFile(old, data, 0o600); err != nil {
		return err
	}
	return sameOwner(filepath.Dir(path), old)
}

// addLetters renames a message's file so that it has more flags. A file that another
// program has renamed meanwhile stays as it is.
func (f *folder) addLetters(m file, flags maildir.Flags) error {
	to := maildir.FileName{Base: m.Base, Flags: m.Flags | flags}
	err := os.Rename(filepath.Join(f.dir, m.path()), filepath.Join(f.dir, "cur", to.String()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
