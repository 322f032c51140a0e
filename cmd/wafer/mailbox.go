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
	Rebuild mailboxRebuildCmd `cmd:"" help:"Make the server's own index files of all folders anew."`
}

// mailboxFlag names a mail store.
type mailboxFlag struct {
	configFlag
	Dir  string `placeholder:"DIR" help:"A Maildir, in place of a user of the configuration."`
	JSON bool   `help:"Print JSON."`
	User string `arg:"" optional:"" help:"Address: local@domain."`
}

// open opens the store. Files that are made belong to the owner of the Maildir. close
// writes what has been found out.
func (f *mailboxFlag) open(std streams) (store *maildir.Store, close func() error, err error) {
	dir := f.Dir
	switch {
	case dir == "" && f.User == "":
		return nil, nil, errors.New("write whose mail it is, such as ann@example.org, or --dir DIR")
	case dir != "" && f.User != "":
		return nil, nil, errors.New("a user and --dir exclude each other")
	case dir == "":
		c, err := f.load(std)
		if err != nil {
			return nil, nil, err
		}
		if dir, err = core.Mailbox(c, f.User); err != nil {
			return nil, nil, err
		}
	}
	fi, err := os.Stat(filepath.Join(dir, "cur"))
	if err != nil || !fi.IsDir() {
		return nil, nil, fmt.Errorf("%s is no Maildir: there is no cur in it", dir)
	}
	uid, gid := owner(fi)
	pool := maildir.NewPool(maildir.Options{UID: uid, GID: gid})
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
