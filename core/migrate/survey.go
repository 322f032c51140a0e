package migrate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/wafermail/wafer/core/maildir"
)

// maxDepth is how far below the given directory Maildirs are looked for:
// DIR/example.org/a/ann/Maildir has four.
const maxDepth = 5

// Report is what Survey finds.
type Report struct {
	Dir   string  `json:"dir"`
	Users []User  `json:"users"`
	Items []Issue `json:"items"`
}

// User is a Maildir that can be taken over.
type User struct {
	Name          string        `json:"name"` // path below the directory of the report
	Dir           string        `json:"dir"`
	Folders       []FolderCount `json:"folders"`
	Messages      int           `json:"messages"`
	Octets        int64         `json:"octets"` // of files
	Keywords      int           `json:"keywords"`
	Subscriptions int           `json:"subscriptions"`
	UIDLs         int           `json:"uidls"` // POP3 UIDLs that were saved with messages
}

// FolderCount is what is in a folder.
type FolderCount struct {
	Name        string   `json:"name"`
	UIDValidity uint64   `json:"uidvalidity"` // 0: it gets one
	UIDNext     uint64   `json:"uidnext"`
	Messages    int      `json:"messages"`
	Octets      int64    `json:"octets"`
	Keywords    []string `json:"keywords"`
	Compressed  int      `json:"compressed"` // messages that are read as they are
}

// Issue is something that is lost, or needs care.
type Issue struct {
	User   string `json:"user"`
	Folder string `json:"folder"`
	Path   string `json:"path"`
	Kind   string `json:"kind"`
	Lost   bool   `json:"lost"` // if nothing is done
	What   string `json:"what"`
	Remedy string `json:"remedy"`
	Kept   bool   `json:"kept"` // Apply has done it
}

// Lost reports whether a takeover as things are would lose something.
func (r *Report) Lost() bool {
	for _, i := range r.Items {
		if i.Lost && !i.Kept {
			return true
		}
	}
	return false
}

// Template is what maildir is to be in the domain blocks of a configuration if every
// Maildir has the place that its user's name tells; "" if not.
func (r *Report) Template() string {
	if len(r.Users) == 0 {
		return ""
	}
	end := ""
	for i, u := range r.Users {
		rel, err := filepath.Rel(r.Dir, u.Dir)
		if err != nil {
			return ""
		}
		parts := strings.Split(filepath.ToSlash(rel), "/")
		if len(parts) < 2 || !strings.Contains(parts[0], ".") {
			return ""
		}
		rest := strings.Join(parts[2:], "/")
		if i > 0 && rest != end {
			return ""
		}
		end = rest
	}
	return filepath.Join(r.Dir, "%d", "%n", end)
}

// Survey finds out what a takeover of the Maildirs in dir would bring: of one Maildir,
// or of a directory with those of many users. It reads only, so that Dovecot
// may go on working there.
func Survey(ctx context.Context, dir string, tell Progress) (*Report, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	r := &Report{Dir: dir, Users: []User{}, Items: []Issue{}}
	if fi, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("survey: %w", err)
	} else if !fi.IsDir() {
		return nil, fmt.Errorf("survey %s: it is no directory", dir)
	}
	return r, r.walk(ctx, dir, 0, tell)
}

func (r *Report) add(i Issue) { r.Items = append(r.Items, i) }

// name is what a user is called who has the directory.
func (r *Report) name(dir string) string {
	rel, err := filepath.Rel(r.Dir, dir)
	if err != nil || rel == "." {
		return filepath.Base(dir)
	}
	if home, last := filepath.Split(rel); home != "" && (strings.EqualFold(last, "maildir") || strings.EqualFold(last, "mail")) {
		return filepath.Clean(home)
	}
	return rel
}

// walk looks for Maildirs and for what is none.
func (r *Report) walk(ctx context.Context, dir string, depth int, tell Progress) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if isMaildir(dir) {
		tell.tell(r.name(dir), int64(len(r.Users)), 0)
		return r.user(ctx, dir)
	}
	if format := foreign(dir); format != "" {
		r.add(Issue{User: r.name(dir), Path: dir, Kind: "format", Lost: true, What: "mail in the format " + format + ", which is not taken over",
			Remedy: "doveadm backup -u USER maildir:/path/of/a/new/Maildir (UIDs stay), then take that over"})
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.add(Issue{User: r.name(dir), Path: dir, Kind: "unreadable", Lost: true, What: err.Error(), Remedy: "run this as root, or as the owner"})
		return nil
	}
	r.scripts(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.Type().IsRegular():
			r.file(path)
		case e.Name() == "sieve" || e.Name() == "lost+found":
		case isDir(path) && depth < maxDepth && e.Type()&fs.ModeSymlink == 0:
			if err := r.walk(ctx, path, depth+1, tell); err != nil {
				return err
			}
		}
	}
	return nil
}

// foreign names a format of Dovecot's that is none of files.
func foreign(dir string) string {
	switch {
	case isFile(filepath.Join(dir, "storage", "dovecot.map.index.log")), isFile(filepath.Join(dir, "storage", "dovecot.map.index")):
		return "mdbox"
	case isDir(filepath.Join(dir, "mailboxes", "INBOX", "dbox-Mails")), isDir(filepath.Join(dir, "mailboxes", "Inbox", "dbox-Mails")):
		return "sdbox"
	}
	return ""
}

// file looks at a file outside of Maildirs.
func (r *Report) file(path string) {
	if strings.HasPrefix(filepath.Base(path), ".") {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close() // only read
	head := make([]byte, 5)
	if _, err := f.ReadAt(head, 0); err == nil && string(head) == "From " {
		r.add(Issue{User: r.name(path), Path: path, Kind: "format", Lost: true, What: "mail in an mbox file, which is not taken over where it stands", Remedy: "wafer mailbox import USER " + path + " (messages get new UIDs)"})
	}
}

// scripts looks for what belongs to users besides mail.
func (r *Report) scripts(dir string) {
	for _, name := range []string{".dovecot.sieve", "dovecot.sieve", "sieve", "sieve-before", "sieve-after"} {
		path := filepath.Join(dir, name)
		if !exists(path) || name == "sieve" && !hasScripts(path) {
			continue
		}
		r.add(Issue{User: r.name(dir), Path: path, Kind: "sieve", Lost: true, What: "Sieve scripts: no rules are carried out at the delivery", Remedy: "keep the files; have a policy or the clients sort the mail"})
	}
}

func hasScripts(dir string) bool {
	m, err := filepath.Glob(filepath.Join(dir, "*.sieve"))
	return err == nil && len(m) > 0
}

// user surveys one Maildir.
func (r *Report) user(ctx context.Context, root string) error {
	u := User{Name: r.name(root), Dir: root, Folders: []FolderCount{}}
	all, err := folders(root)
	if err != nil {
		r.add(Issue{User: u.Name, Path: root, Kind: "unreadable", Lost: true, What: err.Error(), Remedy: "run this as root, or as the owner"})
		return nil
	}
	names := map[string]bool{}
	recent := false
	for i := range all {
		f := &all[i]
		c, err := r.folder(u.Name, f, &u)
		if err != nil {
			r.add(Issue{User: u.Name, Folder: f.name, Path: f.dir, Kind: "unreadable", Lost: true, What: err.Error(), Remedy: "run this as root, or as the owner"})
			continue
		}
		for _, k := range c.Keywords {
			names[fold(k)] = true
		}
		recent = recent || isFile(filepath.Join(f.dir, "dovecot.index")) || isFile(filepath.Join(f.dir, "dovecot.index.log"))
		u.Folders = append(u.Folders, c)
		u.Messages += c.Messages
		u.Octets += c.Octets
	}
	u.Keywords = len(names)
	if data, err := readBounded(filepath.Join(root, "subscriptions")); err == nil {
		u.Subscriptions = len(maildir.ParseSubscriptions(string(data)))
	}
	r.tree(u.Name, root)
	if err := r.damage(ctx, u); err != nil {
		return err
	}
	if recent {
		r.add(Issue{User: u.Name, Path: root, Kind: "index-only", What: "modification sequences and \\Recent are in dovecot.index alone", Remedy: "nothing: clients with CONDSTORE fetch all flags once"})
	}
	r.Users = append(r.Users, u)
	return nil
}

// maxDamage is how many faults of one Maildir are told one by one.
const maxDamage = 20

// damage says what wafer mailbox check would.
func (r *Report) damage(ctx context.Context, u User) error {
	n := 0
	found := func(f maildir.Finding) {
		if f.Note {
			return
		}
		if n++; n > maxDamage {
			return
		}
		i := Issue{User: u.Name, Folder: f.Folder, Path: filepath.Join(u.Dir, f.File), Kind: "damaged", Lost: f.Mend == "", What: f.Fault, Remedy: "look at it by hand"}
		if f.Mend != "" {
			i.Remedy = "wafer mailbox check --dir " + u.Dir + " --repair: " + f.Mend
		}
		r.add(i)
	}
	p := maildir.NewPool(maildir.Options{UID: -1, GID: -1})
	err := errors.Join(p.Check(ctx, u.Dir, maildir.CheckOptions{}, found), p.Close())
	if err != nil {
		return err
	}
	if n > maxDamage {
		r.add(Issue{User: u.Name, Path: u.Dir, Kind: "damaged", What: fmt.Sprintf("%d more faults", n-maxDamage), Remedy: "wafer mailbox check --dir " + u.Dir})
	}
	return nil
}

// folder surveys one folder.
func (r *Report) folder(user string, f *folder, u *User) (c FolderCount, err error) {
	c = FolderCount{Name: f.name, Keywords: []string{}}
	if err := f.list(); err != nil {
		return c, err
	}
	data, err := readBounded(filepath.Join(f.dir, uidlistName))
	if err != nil {
		return c, err
	}
	l := readUIDs(data)
	c.UIDValidity, c.UIDNext, c.Messages = l.validity, l.next, len(f.files)
	for _, rec := range l.recs {
		if strings.HasPrefix(rec.fields, "P") || strings.Contains(rec.fields, " P") {
			u.UIDLs++
		}
	}
	issue := func(kind string, lost bool, what, remedy string) {
		r.add(Issue{User: user, Folder: f.name, Path: f.dir, Kind: kind, Lost: lost, What: what, Remedy: remedy})
	}
	switch {
	case data == nil && len(f.files) > 0:
		issue("no-uidlist", true, "there is no dovecot-uidlist, so that all messages get new UIDs", "if mail_location has CONTROL=, copy dovecot-uidlist and dovecot-keywords from there")
	}
	names, _, err := maildir.KeywordNames(f.dir)
	if err != nil {
		return c, err
	}
	for _, n := range names {
		if n != "" {
			c.Keywords = append(c.Keywords, n)
		}
	}
	if err := r.beyond(user, f, l); err != nil {
		return c, err
	}
	r.files(user, f, &c)
	r.besides(user, f)
	return c, nil
}

// files looks at how messages are stored.
func (r *Report) files(user string, f *folder, c *FolderCount) {
	how := map[string]int{}
	for _, m := range f.files {
		c.Octets += m.size
		s, err := f.compression(m)
		switch {
		case err != nil && !os.IsNotExist(err):
			how["unreadable"]++
		case s == "gzip" || s == "zstd":
			c.Compressed++
		case s != "":
			how[s]++
		}
	}
	for _, s := range sortedKeys(how) {
		i := Issue{User: user, Folder: f.name, Path: f.dir, Kind: "compressed", Lost: true,
			What:   fmt.Sprintf("%d messages are compressed with %s, which is not read", how[s], s),
			Remedy: "with zlib_save = gz in Dovecot: doveadm move a folder's messages to a new folder and back, or doveadm backup to a new Maildir"}
		switch s {
		case "mail_crypt":
			i.Kind, i.What, i.Remedy = "encrypted", fmt.Sprintf("%d messages are encrypted by mail_crypt", how[s]), "doveadm backup -u USER maildir:/path/of/a/new/Maildir with mail_crypt_save_version = 0"
		case "unreadable":
			i.Kind, i.What, i.Remedy = "unreadable", fmt.Sprintf("%d files may not be read", how[s]), "run this as root, or as the owner"
		}
		r.add(i)
	}
	if len(f.odd) > 0 {
		r.add(Issue{User: user, Folder: f.name, Path: filepath.Join(f.dir, f.odd[0]), Kind: "not-a-file", What: fmt.Sprintf("%d things among the messages are no files", len(f.odd)), Remedy: "look at them; they are left alone"})
	}
}

// besides looks at what Dovecot's plugins leave in a folder.
func (r *Report) besides(user string, f *folder) {
	for name, i := range map[string]Issue{
		"dovecot-acl":        {Kind: "acl", Lost: true, What: "access rights: the folder is no longer shared", Remedy: "there are no shared folders; give others copies"},
		"dovecot-virtual":    {Kind: "virtual", Lost: true, What: "a virtual folder: it shows nothing of other folders", Remedy: "search instead; the folder itself is an ordinary one"},
		"dovecot-attributes": {Kind: "metadata", Lost: true, What: "annotations (METADATA) in Dovecot's dictionary", Remedy: "doveadm mailbox metadata list and get, then SETMETADATA by an IMAP client"},
	} {
		if exists(filepath.Join(f.dir, name)) {
			i.User, i.Folder, i.Path = user, f.name, filepath.Join(f.dir, name)
			r.add(i)
		}
	}
}

// tree looks at what belongs to a Maildir as a whole.
func (r *Report) tree(user, root string) {
	r.scripts(root)
	entries, err := os.ReadDir(root)
	if err != nil {
		return
	}
	me := -1
	if uid, _, err := OwnerOf(root); err == nil {
		me = uid
	}
	for _, e := range entries {
		n := e.Name()
		path := filepath.Join(root, n)
		if fi, err := e.Info(); err == nil && me >= 0 && int(owner(fi)) != me {
			r.add(Issue{User: user, Path: path, Kind: "owner", What: fmt.Sprintf("it belongs to user %d, the Maildir to user %d", owner(fi), me), Remedy: fmt.Sprintf("chown -R %d %s", me, path)})
		}
		switch {
		case n == "cur", n == "new", n == "tmp", strings.HasPrefix(n, "."):
		case isDir(filepath.Join(path, "cur")):
			r.add(Issue{User: user, Path: path, Kind: "layout", Lost: true, What: "a folder as LAYOUT=fs has it, which is not seen", Remedy: "doveadm backup -u USER maildir:/path/of/a/new/Maildir, whose layout is Maildir++ (UIDs stay)"})
		}
	}
}
