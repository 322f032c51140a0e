package migrate

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/mbox"
	"github.com/wafermail/wafer/core/spill"
)

// TransferOptions says what is brought where.
type TransferOptions struct {
	Folder  string   // Import: the folder that one mbox file goes to; "" is the file's name, or INBOX
	Folders []string // of a Maildir: only these; nil: all
	Temp    string   // directory for messages that are too big for memory; "" is the system's
	Tell    Progress // in octets where files are read, else in messages
}

// Transferred counts what has been done in a folder.
type Transferred struct {
	Folder   string `json:"folder"`
	Source   string `json:"source"` // file or directory
	Messages int    `json:"messages"`
	Octets   int64  `json:"octets"`
	Present  int    `json:"present"`  // messages that were there already
	Keywords int    `json:"keywords"` // that could not be kept: there was no letter left
	Skipped  int    `json:"skipped"`  // messages that the source has and nobody can read
}

// Import stores what a source has that the store s has not: an mbox file, a directory
// of mbox files, which may have directories below it, or a Maildir. Folders are
// made where they are missing, and keep their subscriptions.
//
// It may be run again, after a kill or when the source has grown: a message that has the
// same octets and the same date as one in its folder is not stored again. Nothing is
// marked anywhere. Where the source has a message twice and the folder once, it is
// stored once more. Flags of messages that are there already stay as they are.
func Import(ctx context.Context, s *maildir.Store, source string, o TransferOptions) ([]Transferred, error) {
	fi, err := os.Stat(source)
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	switch {
	case !fi.IsDir():
		name := o.Folder
		if name == "" {
			name = folderOf(filepath.Base(source))
		}
		t, err := importFile(ctx, s, source, name, o)
		return []Transferred{t}, err
	case isMaildir(source):
		return importMaildir(ctx, s, source, o)
	}
	return importTree(ctx, s, source, o)
}

// importTree imports the mbox files of a directory.
func importTree(ctx context.Context, s *maildir.Store, dir string, o TransferOptions) (list []Transferred, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case e.IsDir() && path != dir && strings.HasPrefix(e.Name(), "."):
			return fs.SkipDir // .imap, where Dovecot has its indexes
		case !e.Type().IsRegular() || strings.HasPrefix(e.Name(), "."):
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		t, err := importFile(ctx, s, path, folderOf(rel), o)
		if errors.Is(err, mbox.ErrFormat) { // indexes, notes
			return nil
		}
		list = append(list, t)
		return err
	})
	return list, err
}

// folderOf is the folder of an mbox file with the relative path rel: Work.mbox, Work and
// Work.sbd/Plans are as mutt, Dovecot and Thunderbird name them.
func folderOf(rel string) string {
	parts := strings.Split(filepath.ToSlash(rel), "/")
	for i, p := range parts {
		for _, end := range []string{".mbox", ".mbx", ".sbd"} {
			p = strings.TrimSuffix(p, end)
		}
		parts[i] = strings.ReplaceAll(p, ".", "_")
	}
	name := strings.Join(parts, ".")
	if strings.EqualFold(name, "inbox") || rel == "mbox" {
		return "INBOX"
	}
	return name
}

// importFile imports one mbox file.
func importFile(ctx context.Context, s *maildir.Store, file, name string, o TransferOptions) (t Transferred, err error) {
	t = Transferred{Folder: name, Source: file}
	in, err := os.Open(file)
	if err != nil {
		return t, fmt.Errorf("import: %w", err)
	}
	defer in.Close() // only read
	fi, err := in.Stat()
	if err != nil {
		return t, err
	}
	r := mbox.NewReader(in)
	m, err := r.Next()
	if err != nil && !errors.Is(err, io.EOF) {
		return t, fmt.Errorf("import %s: %w", file, err)
	}
	d, derr := open(ctx, s, name, &t, o)
	if derr != nil {
		return t, derr
	}
	defer d.close()
	for ; err == nil; m, err = r.Next() {
		o.Tell.tell(file, r.Offset(), fi.Size())
		if m.Internal {
			continue
		}
		date := m.Date
		if date.IsZero() {
			date = fi.ModTime().Truncate(time.Second)
		}
		if err := d.store(ctx, m, systemFlags(m.Flags), m.Flags.Keywords, date); err != nil {
			return t, fmt.Errorf("import %s: %w", file, err)
		}
	}
	if !errors.Is(err, io.EOF) {
		return t, fmt.Errorf("import %s: %w", file, err)
	}
	o.Tell.tell(file, fi.Size(), fi.Size())
	return t, nil
}

func systemFlags(f mbox.Flags) (flags maildir.Flags) {
	for bit, set := range map[maildir.Flags]bool{
		maildir.Seen: f.Seen, maildir.Answered: f.Answered, maildir.Flagged: f.Flagged, maildir.Deleted: f.Deleted, maildir.DraftFlag: f.Draft,
	} {
		if set {
			flags |= bit
		}
	}
	return flags
}

// print is what a message is known by: its date in seconds and the digest of its octets
// with CRLF line ends.
type print struct {
	date int64
	sum  [sha256.Size]byte
}

// size and date tell which messages of a folder a newcomer may be equal to.
type look struct{ date, size int64 }

// target is a folder that messages are imported into.
type target struct {
	f    *maildir.Folder
	t    *Transferred
	o    TransferOptions
	like map[look][]uint32 // messages that were there at the beginning, whose digest nobody has asked for
	have map[print]int     // those whose digest is known, less those that the source has too
	full map[string]bool   // keywords that found no letter
}

// open opens a folder, or makes it.
func open(ctx context.Context, s *maildir.Store, name string, t *Transferred, o TransferOptions) (*target, error) {
	f, err := s.Folder(ctx, name)
	if errors.Is(err, maildir.ErrNoFolder) {
		if err := s.Create(name); err != nil && !errors.Is(err, maildir.ErrExists) {
			return nil, fmt.Errorf("import into %q: %w", name, err)
		}
		f, err = s.Folder(ctx, name)
	}
	if err != nil {
		return nil, fmt.Errorf("import into %q: %w", name, err)
	}
	if err := f.Measure(ctx); err != nil {
		f.Close()
		return nil, fmt.Errorf("import into %q: %w", name, err)
	}
	t.Folder = f.Name()
	d := &target{f: f, t: t, o: o, like: map[look][]uint32{}, have: map[print]int{}, full: map[string]bool{}}
	for _, m := range f.Messages() {
		l := look{m.Date.Unix(), m.Size}
		d.like[l] = append(d.like[l], m.UID)
	}
	return d, nil
}

func (d *target) close() { d.f.Close() }

// store adds a message, unless it is there already.
func (d *target) store(ctx context.Context, r io.Reader, flags maildir.Flags, keywords []string, date time.Time) error {
	temp := ""
	b := spill.Buffer{Open: func() (spill.File, error) {
		f, err := os.CreateTemp(d.o.Temp, "wafer-import-")
		if err != nil {
			return nil, err
		}
		temp = f.Name()
		return f, nil
	}}
	sum := sha256.New()
	lines := &crlf{w: sum}
	_, err := io.Copy(io.MultiWriter(&b, lines), r)
	if err == nil {
		err = b.Err()
	}
	size := b.Size()
	if err == nil {
		p := print{date: date.Unix(), sum: [sha256.Size]byte(sum.Sum(nil))}
		if d.present(p, look{p.date, lines.n}) {
			d.t.Present++
		} else {
			err = d.add(ctx, io.NewSectionReader(&b, 0, size), size, flags, keywords, date)
		}
	}
	err = errors.Join(err, b.Close())
	if temp != "" {
		err = errors.Join(err, os.Remove(temp))
	}
	return err
}

// present reports whether the folder has the message, and counts it as found. Only
// messages with its size and date are read.
func (d *target) present(p print, l look) bool {
	for _, uid := range d.like[l] {
		if sum, err := digest(d.f, uid); err == nil {
			d.have[print{l.date, sum}]++
		}
	}
	delete(d.like, l)
	if d.have[p] == 0 {
		return false
	}
	d.have[p]--
	return true
}

func digest(f *maildir.Folder, uid uint32) (sum [sha256.Size]byte, err error) {
	c, err := f.Open(uid)
	if err != nil {
		return sum, err
	}
	defer c.Close() // only read
	h := sha256.New()
	if _, err := io.Copy(h, c); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// add stores a message with its flags, in one step.
func (d *target) add(ctx context.Context, r io.Reader, size int64, flags maildir.Flags, keywords []string, date time.Time) error {
	for _, k := range keywords {
		bit, ok := maildir.Flags(0), false
		if !d.full[k] {
			bit, ok = d.f.Keyword(k, true)
		}
		if !ok {
			d.full[k] = true
			d.t.Keywords++
			continue
		}
		flags |= bit
	}
	_, err := d.f.Append(ctx, r, maildir.AppendOptions{Size: size, Flags: flags, Date: date})
	if errors.Is(err, maildir.ErrCompressed) { // it could not be read again
		d.t.Skipped++
		return nil
	}
	if err != nil {
		return err
	}
	d.t.Messages++
	d.t.Octets += size
	return nil
}

// crlf counts and passes on octets as they are with CRLF line ends.
type crlf struct {
	w  io.Writer
	n  int64
	cr bool
}

func (c *crlf) Write(p []byte) (int, error) {
	start := 0
	for i, b := range p {
		if b == '\n' && !c.cr {
			c.put(p[start:i])
			c.put([]byte{'\r'})
			start = i
		}
		c.cr = b == '\r'
	}
	c.put(p[start:])
	return len(p), nil
}

func (c *crlf) put(p []byte) {
	_, _ = c.w.Write(p) // a digest never fails
	c.n += int64(len(p))
}
