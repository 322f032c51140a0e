package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"
)

// Finding is one thing that is wrong with a mail store.
type Finding struct {
	Folder string `json:"folder"`          // name, "" for the whole tree
	File   string `json:"file"`            // relative to the Maildir, "." for itself
	Fault  string `json:"fault"`           // what is wrong
	Mend   string `json:"mend,omitempty"`  // what repairing does; "" if a person has to
	Note   bool   `json:"note,omitempty"`  // that is as it may be; repairing tidies it up
	Mended bool   `json:"mended"`          // it was repaired
	Err    string `json:"error,omitempty"` // why it was not
}

// CheckOptions says how Pool.Check works.
type CheckOptions struct {
	Repair   bool
	Now      time.Time                            // zero: time.Now()
	Progress func(folder string, done, total int) // called for each file that is read; may be nil
}

// Check looks for what is wrong with the Maildir at path and calls found for each
// thing. Without Repair nothing on disk changes. With it each is mended, under the
// locks that Dovecot and the server take too, so that both may go on meanwhile: UIDs
// that dovecot-uidlist still tells stay. A name that tells a wrong size is mended by a
// new name, and where a session has the folder open the message then has a new UID.
// An error ends the check; what could not be mended does not.
func (p *Pool) Check(ctx context.Context, path string, o CheckOptions, found func(Finding)) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if !isDir(path) {
		return fmt.Errorf("check %s: %w", path, os.ErrNotExist)
	}
	c := &check{p: p, o: o, ctx: ctx, root: path, found: found}
	folders, err := c.folders()
	if err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	for _, f := range folders {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.folder(f); err != nil {
			return fmt.Errorf("check folder %q of %s: %w", f.name, path, err)
		}
	}
	if err := errors.Join(c.subscriptions(), c.maildirsize(), c.annotations("", serverMetadata)); err != nil {
		return fmt.Errorf("check %s: %w", path, err)
	}
	return nil
}

// check is one run of Pool.Check.
type check struct {
	p     *Pool
	o     CheckOptions
	ctx   context.Context
	root  string
	found func(Finding)
}

// checked is a folder that is looked at.
type checked struct {
	*check
	name   string
	dir    string
	mended bool // something was mended: the folder is opened in the end
}

// fault tells of something, and mends it if that is wanted. mend may be nil.
func (c *check) fault(f Finding, mend func() error) {
	if mend == nil {
		f.Mend = ""
	}
	if c.o.Repair && mend != nil {
		if err := mend(); err != nil {
			f.Err = err.Error()
		} else {
			f.Mended = true
		}
	}
	c.found(f)
}

// fault is check.fault for a file of the folder.
func (c *checked) fault(f Finding, mend func() error) {
	f.Folder = c.name
	f.File = c.rel(f.File)
	c.check.fault(f, mend)
	c.mended = c.mended || c.o.Repair && mend != nil
}

// rel is a path in the folder as it stands in findings.
func (c *checked) rel(file string) string {
	rel, err := filepath.Rel(c.root, filepath.Join(c.dir, file))
	if err != nil {
		return file
	}
	return rel
}

func (c *checked) file(name string) string { return filepath.Join(c.dir, name) }

// folders finds everything that is a folder, or was one before something went missing.
func (c *check) folders() ([]*checked, error) {
	entries, err := os.ReadDir(c.root)
	if err != nil {
		return nil, err
	}
	list := []*checked{{check: c, name: "INBOX", dir: c.root}}
	byName := map[string]int{}
	for _, e := range entries {
		file := e.Name()
		dir := filepath.Join(c.root, file)
		if len(file) < 2 || file[0] != '.' || file == ".." || !isDir(dir) || !looksLikeFolder(dir) {
			continue
		}
		name, ok := shownName(file[1:])
		if !ok {
			c.fault(Finding{File: file, Fault: "no folder can have the name of this directory: nobody is shown what is in it"}, nil)
			continue
		}
		if i, twice := byName[name]; twice {
			if file == "."+encodeName(name) {
				list[i].dir, dir = dir, list[i].dir
			}
			c.fault(Finding{Folder: name, File: filepath.Base(dir), Fault: "another directory has the same folder name: nobody is shown what is in this one"}, nil)
			continue
		}
		byName[name] = len(list)
		list = append(list, &checked{check: c, name: name, dir: dir})
	}
	sort.SliceStable(list, func(i, j int) bool { return before(list[i].name, list[j].name) })
	return list, nil
}

// looksLikeFolder reports whether the directory has anything that makes a folder.
func looksLikeFolder(dir string) bool {
	for _, name := range []string{"cur", "new", "tmp", "maildirfolder", uidlistName} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// folder looks at one folder.
func (c *checked) folder() error {
	if err := errors.Join(c.directories(), c.abandoned()); err != nil {
		return err
	}
	for _, step := range []func() error{c.names, c.sizes, c.list, c.keywords, c.index, c.facts} {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	if err := c.annotations(c.name, c.rel(metadataName)); err != nil {
		return err
	}
	if !c.mended || c.name != "INBOX" && dirOf(c.root, c.name) != c.dir {
		return nil
	}
	return c.open()
}

func (c *check) folder(f *checked) error { return f.folder() }

// open lets the store give UIDs to what has none now, and write the index.
func (c *checked) open() error {
	s, err := c.p.Open(c.root)
	if err != nil {
		return err
	}
	defer s.Close()
	f, err := s.Folder(c.ctx, c.name)
	if err != nil {
		return err
	}
	f.Close()
	return nil
}

// directories looks for those that make a folder.
func (c *checked) directories() error {
	for _, sub := range []string{"cur", "new", "tmp"} {
		fi, err := os.Stat(c.file(sub))
		switch {
		case err == nil && fi.IsDir():
		case err == nil:
			c.fault(Finding{File: sub, Fault: "it is no directory"}, nil)
			return fmt.Errorf("%s is no directory", c.file(sub))
		case errors.Is(err, os.ErrNotExist):
			c.fault(Finding{File: sub, Fault: "the directory is missing", Mend: "makes it"}, func() error { return c.makeDir(sub) })
		default:
			return err
		}
	}
	if c.name == "INBOX" {
		return nil
	}
	_, err := os.Lstat(c.file("maildirfolder"))
	if errors.Is(err, os.ErrNotExist) {
		c.fault(Finding{File: "maildirfolder", Fault: "the file that marks a folder is missing: delivery programs do not know whose quota it counts for", Mend: "makes it"}, func() error {
			return errors.Join(c.p.write(c.file("maildirfolder"), nil), c.p.ops.sync(c.dir))
		})
		return nil
	}
	return err
}

func (c *checked) makeDir(sub string) error {
	if err := c.p.ops.mkdir(c.file(sub)); err != nil {
		return err
	}
	if err := c.p.own(c.file(sub)); err != nil {
		return err
	}
	return c.p.ops.sync(c.file(sub), c.dir)
}

// abandoned looks for what killed writers have left: files in tmp/ and locks.
func (c *checked) abandoned() error {
	entries, err := os.ReadDir(c.file("tmp"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		fi, err := e.Info()
		name := "tmp/" + e.Name()
		if err != nil || !fi.Mode().IsRegular() || e.Name() == ".keep" || !olderThan(fi, c.o.Now.Add(-sweepAge)) || c.p.o.Owed != nil && c.p.o.Owed(c.file(name)) {
			continue
		}
		c.fault(Finding{File: name, Fault: "nobody has written to it for 36 hours", Mend: "removes it"}, func() error { return absent(c.p.ops.remove(c.file(name))) })
	}
	for _, name := range []string{uidlistName, keywordsName, subscriptionsName} {
		lock := c.file(name + ".lock")
		fi, err := os.Lstat(lock)
		if err != nil || c.o.Now.Sub(fi.ModTime()) <= staleLock {
			continue
		}
		c.fault(Finding{File: name + ".lock", Fault: "a lock that nobody holds any more", Mend: "removes it"}, func() error {
			if !c.p.breakStale(lock) {
				return errors.New("its owner is alive")
			}
			return nil
		})
	}
	return nil
}

// absent makes the absence of what was to be removed no error.
func absent(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
