package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/maildir"
)

// mailboxCmd looks at and mends mail stores, while the server runs or not.
type mailboxCmd struct {
	List    mailboxListCmd    `cmd:"" help:"List the folders of a user with what is in them."`
	Status  mailboxStatusCmd  `cmd:"" help:"Show one folder: UIDs, counts, keywords, quota."`
	Check   mailboxCheckCmd   `cmd:"" help:"Look for damage, and mend it with --repair."`
	Rebuild mailboxRebuildCmd `cmd:"" help:"Make the server's own index files of all folders anew."`
	Import  mailboxImportCmd  `cmd:"" help:"Store the mail of mbox files or of another Maildir."`
	Export  mailboxExportCmd  `cmd:"" help:"Write mbox files, or another Maildir."`
}

// mailboxFlag names a mail store.
type mailboxFlag struct {
	configFlag
	Dir  string `placeholder:"DIR" help:"A Maildir, in place of a user of the configuration."`
	JSON bool   `help:"Print JSON."`
	User string `arg:"" optional:"" help:"Address: local@domain."`
}

// find is where the mail lies, and a pool for it. Of a Maildir without a configuration
// nobody knows which files in tmp/ are mail that waits, so all of them count as such.
func (f *mailboxFlag) find(std streams) (dir string, pool *maildir.Pool, err error) {
	owed := func(string) bool { return true }
	switch {
	case f.Dir == "" && f.User == "":
		return "", nil, errors.New("write whose mail it is, such as ann@example.org, or --dir DIR")
	case f.Dir != "" && f.User != "":
		return "", nil, errors.New("a user and --dir exclude each other")
	case f.Dir != "":
		dir = f.Dir
	default:
		c, err := f.load(std)
		if err != nil {
			return "", nil, err
		}
		if dir, err = core.Mailbox(c, f.User); err != nil {
			return "", nil, err
		}
		if owed, err = maildir.Promised(c.State); err != nil {
			return "", nil, err
		}
	}
	pool, err = poolFor(dir, owed)
	return dir, pool, err
}

// poolFor is a pool for the Maildir dir: files that are made belong to its owner.
func poolFor(dir string, owed func(string) bool) (*maildir.Pool, error) {
	fi, err := os.Stat(filepath.Join(dir, "cur"))
	if err != nil || !fi.IsDir() {
		return nil, fmt.Errorf("%s is no Maildir: there is no cur in it", dir)
	}
	uid, gid := owner(fi)
	return maildir.NewPool(maildir.Options{UID: uid, GID: gid, Owed: owed}), nil
}

// open opens the store. close writes what has been found out.
func (f *mailboxFlag) open(std streams) (store *maildir.Store, close func() error, err error) {
	dir, pool, err := f.find(std)
	if err != nil {
		return nil, nil, err
	}
	store, err = pool.Open(dir)
	if err != nil {
		return nil, nil, errors.Join(err, pool.Close())
	}
	return store, func() error { store.Close(); return pool.Close() }, nil
}

// folderLine is what list and status print of a folder.
type folderLine struct {
	Name       string   `json:"name"`
	Messages   int      `json:"messages"`
	Unseen     int      `json:"unseen"`
	Octets     int64    `json:"octets"`
	Subscribed bool     `json:"subscribed"`
	SpecialUse string   `json:"special_use,omitempty"`
	Validity   uint32   `json:"uidvalidity"`
	Next       uint32   `json:"uidnext"`
	ModSeq     uint64   `json:"highestmodseq"`
	Deleted    int      `json:"deleted"`
	Keywords   []string `json:"keywords,omitempty"`
	Further    []string `json:"further_keywords,omitempty"` // that file names have no letter for
}

func lineOf(ctx context.Context, s *maildir.Store, info maildir.FolderInfo) (folderLine, error) {
	f, err := s.Folder(ctx, info.Name)
	if err != nil {
		return folderLine{}, err
	}
	defer f.Close()
	if err := f.Measure(ctx); err != nil {
		return folderLine{}, err
	}
	st := f.Status()
	l := folderLine{Name: info.Name, Messages: st.Messages, Unseen: st.Unseen, Octets: st.Size, Subscribed: info.Subscribed, SpecialUse: info.SpecialUse,
		Validity: st.UIDValidity, Next: st.UIDNext, ModSeq: st.HighestModSeq, Deleted: st.Deleted}
	for _, k := range f.Keywords() {
		if k != "" {
			l.Keywords = append(l.Keywords, k)
		}
	}
	if l.Further, err = f.FurtherKeywords(); err != nil {
		return l, err
	}
	return l, nil
}

func (f *mailboxFlag) print(std streams, v any) error {
	enc := json.NewEncoder(std.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

type mailboxListCmd struct{ mailboxFlag }

// Run lists.
func (c *mailboxListCmd) Run(std streams) (err error) {
	s, done, err := c.open(std)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	ctx := context.Background()
	folders, err := s.Folders(ctx)
	if err != nil {
		return err
	}
	lines := []folderLine{}
	for _, info := range folders {
		if info.NoSelect {
			continue
		}
		l, err := lineOf(ctx, s, info)
		if err != nil {
			return err
		}
		lines = append(lines, l)
	}
	if c.JSON {
		return c.print(std, lines)
	}
	w := tabwriter.NewWriter(std.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "messages\tunseen\toctets\tfolder")
	for _, l := range lines {
		name := strings.TrimSpace(l.Name + " " + l.SpecialUse)
		if l.Subscribed {
			name += " (subscribed)"
		}
		fmt.Fprintf(w, "%d\t%d\t%d\t%s\n", l.Messages, l.Unseen, l.Octets, name)
	}
	return w.Flush()
}

type mailboxStatusCmd struct {
	mailboxFlag
	Folder string `default:"INBOX" help:"The folder (${default})."`
}

// Run shows a folder.
func (c *mailboxStatusCmd) Run(std streams) (err error) {
	s, done, err := c.open(std)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	l, err := lineOf(context.Background(), s, maildir.FolderInfo{Name: c.Folder})
	if err != nil {
		return err
	}
	if c.JSON {
		return c.print(std, l)
	}
	_, err = fmt.Fprintf(std.out, "folder         %s\nUIDVALIDITY    %d\nUIDNEXT        %d\nHIGHESTMODSEQ  %d\nmessages       %d\nunseen         %d\ndeleted        %d\noctets         %d\nkeywords       %s\n",
		l.Name, l.Validity, l.Next, l.ModSeq, l.Messages, l.Unseen, l.Deleted, l.Octets, cmp.Or(strings.Join(l.Keywords, " "), "none"))
	if err == nil && len(l.Further) > 0 {
		_, err = fmt.Fprintf(std.out, "further        %s\n               dovecot-keywords has these beyond 26; file names have no letter for them\n", strings.Join(l.Further, " "))
	}
	return err
}

type mailboxRebuildCmd struct{ mailboxFlag }

// Run makes the index files anew.
func (c *mailboxRebuildCmd) Run(std streams) (err error) {
	s, done, err := c.open(std)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	ctx := context.Background()
	folders, err := s.Folders(ctx)
	if err != nil {
		return err
	}
	for _, info := range folders {
		if info.NoSelect {
			continue
		}
		if err := s.ForgetIndex(info.Name); err != nil {
			return err
		}
		l, err := lineOf(ctx, s, info)
		if err != nil {
			return err
		}
		fmt.Fprintf(std.out, "%s: %d messages\n", l.Name, l.Messages)
	}
	return nil
}
