package migrate

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/mbox"
)

// importMaildir imports another Maildir, which is only read. Compressed files are
// copied as they are where the store reads them.
func importMaildir(ctx context.Context, s *maildir.Store, root string, o TransferOptions) (list []Transferred, err error) {
	all, err := folders(root)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if o.Folders != nil {
		all = slices.DeleteFunc(all, func(f folder) bool { return !slices.Contains(o.Folders, f.name) })
	}
	total, done := int64(0), int64(0)
	for i := range all {
		if err := all[i].list(); err != nil {
			return nil, fmt.Errorf("import: %w", err)
		}
		total += int64(len(all[i].files))
	}
	for i := range all {
		f := &all[i]
		t := Transferred{Folder: f.name, Source: f.dir}
		err := f.copyInto(ctx, s, &t, o, func() {
			done++
			o.Tell.tell(f.name, done, total)
		})
		list = append(list, t)
		if err != nil {
			return list, fmt.Errorf("import %s: %w", f.dir, err)
		}
	}
	data, err := os.ReadFile(filepath.Join(root, "subscriptions"))
	if errors.Is(err, os.ErrNotExist) {
		return list, nil
	}
	if err != nil {
		return list, fmt.Errorf("import subscriptions: %w", err)
	}
	for _, name := range maildir.ParseSubscriptions(string(data)) {
		if err := s.Subscribe(name); err != nil && !errors.Is(err, maildir.ErrBadName) {
			return list, fmt.Errorf("import subscriptions: %w", err)
		}
	}
	return list, nil
}

// copyInto imports the messages of one folder, in the order of their UIDs.
func (f *folder) copyInto(ctx context.Context, s *maildir.Store, t *Transferred, o TransferOptions, next func()) error {
	d, err := open(ctx, s, f.name, t, o)
	if err != nil {
		return err
	}
	defer d.close()
	names, _, err := maildir.KeywordNames(f.dir)
	if err != nil {
		return err
	}
	for _, m := range f.inOrder() {
		if err := ctx.Err(); err != nil {
			return err
		}
		next()
		var keywords []string
		for i, name := range names {
			if name != "" && m.Flags&maildir.KeywordBit(i) != 0 {
				keywords = append(keywords, name)
			}
		}
		flags := m.Flags & (maildir.KeywordBit(0) - 1)
		if err := f.copyFile(ctx, d, m, flags, keywords); err != nil {
			return err
		}
	}
	return nil
}

func (f *folder) copyFile(ctx context.Context, d *target, m file, flags maildir.Flags, keywords []string) error {
	path := filepath.Join(f.dir, m.path())
	in, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		d.t.Skipped++
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close() // only read
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	r, err := maildir.Unpacked(in)
	if err == nil {
		err = errors.Join(d.store(ctx, r, flags, keywords, fi.ModTime()), r.Close())
	}
	if errors.Is(err, maildir.ErrUnreadable) {
		d.t.Skipped++
		return nil
	}
	return err
}

// Export writes folders of the store into mbox files below the directory dir, which is
// made if it is missing: INBOX.mbox, Work.mbox, Work/Plans.mbox for Work.Plans. A file
// gets its name when it is whole; one that is there already is replaced.
func Export(ctx context.Context, s *maildir.Store, dir string, o TransferOptions) (list []Transferred, err error) {
	names := o.Folders
	if names == nil {
		all, err := s.Folders(ctx)
		if err != nil {
			return nil, err
		}
		for _, f := range all {
			if !f.NoSelect {
				names = append(names, f.Name)
			}
		}
	}
	for _, name := range names {
		t := Transferred{Folder: name, Source: filepath.Join(dir, filepath.FromSlash(strings.ReplaceAll(name, ".", "/"))+".mbox")}
		err := exportFolder(ctx, s, &t, o)
		list = append(list, t)
		if err != nil {
			return list, fmt.Errorf("export %q: %w", name, err)
		}
	}
	return list, nil
}

func exportFolder(ctx context.Context, s *maildir.Store, t *Transferred, o TransferOptions) error {
	f, err := s.Folder(ctx, t.Folder)
	if err != nil {
		return err
	}
	defer f.Close()
	t.Folder = f.Name()
	if err := os.MkdirAll(filepath.Dir(t.Source), 0o700); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(t.Source), ".export-")
	if err != nil {
		return err
	}
	w := mbox.NewWriter(out)
	err = writeAll(ctx, f, w, t, o)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = out.Sync()
	}
	err = errors.Join(err, out.Close())
	if err == nil {
		err = os.Rename(out.Name(), t.Source)
	}
	if err != nil {
		return errors.Join(err, os.Remove(out.Name()))
	}
	return nil
}

// writeAll writes every message of a folder.
func writeAll(ctx context.Context, f *maildir.Folder, w *mbox.Writer, t *Transferred, o TransferOptions) error {
	messages := f.Messages()
	names := f.Keywords()
	for i := range messages {
		if err := ctx.Err(); err != nil {
			return err
		}
		o.Tell.tell(t.Folder, int64(i), int64(len(messages)))
		m := &messages[i]
		c, err := f.Open(m.UID)
		if errors.Is(err, maildir.ErrExpunged) {
			continue
		}
		if errors.Is(err, maildir.ErrUnreadable) {
			t.Skipped++
			continue
		}
		if err != nil {
			return err
		}
		err = w.Write(mbox.Envelope{Sender: returnPath(c), Date: m.Date, Flags: mboxFlags(m.Flags, names)}, io.NewSectionReader(c, 0, c.Size()))
		err = errors.Join(err, c.Close())
		if err != nil {
			return err
		}
		t.Messages++
		t.Octets += c.Size()
	}
	o.Tell.tell(t.Folder, int64(len(messages)), int64(len(messages)))
	return nil
}

func mboxFlags(f maildir.Flags, names []string) mbox.Flags {
	x := mbox.Flags{
		Seen: f&maildir.Seen != 0, Answered: f&maildir.Answered != 0, Flagged: f&maildir.Flagged != 0,
		Deleted: f&maildir.Deleted != 0, Draft: f&maildir.DraftFlag != 0,
	}
	for i, name := range names {
		if name != "" && f&maildir.KeywordBit(i) != 0 {
			x.Keywords = append(x.Keywords, name)
		}
	}
	return x
}

// returnPath is the reverse-path that the delivery wrote into the message, "" if none.
func returnPath(c *maildir.Content) string {
	head := bufio.NewReader(io.NewSectionReader(c, 0, 4096))
	for {
		line, err := head.ReadString('\n')
		if err != nil || strings.Trim(line, "\r\n") == "" {
			return ""
		}
		if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "Return-Path") {
			return strings.Trim(strings.TrimSpace(value), "<>")
		}
	}
}

// inOrder lists the messages by UID, and those without one after them by name, which
// begins with the time of the delivery.
func (f *folder) inOrder() []file {
	data, err := os.ReadFile(filepath.Join(f.dir, uidlistName))
	if err != nil {
		data = nil // then the names alone have an order
	}
	l := readUIDs(data)
	uids := make(map[string]uint64, len(l.recs))
	for _, r := range l.recs {
		uids[r.base] = r.uid
	}
	key := func(m file) uint64 {
		if uid := uids[m.Base]; uid != 0 {
			return uid
		}
		return maxUID + 1
	}
	list := slices.Clone(f.files)
	slices.SortFunc(list, func(a, b file) int {
		if c := cmp.Compare(key(a), key(b)); c != 0 {
			return c
		}
		return strings.Compare(a.Base, b.Base)
	})
	return list
}
