package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The file maildirsize in a Maildir's root says how much is in all its folders
// (https://www.courier-mta.org/imap/README.maildirquota.html): a line of limits,
// "<octets>S,<messages>C", and then lines of changes, "<octets> <messages>", the
// first of which is the sum when it was counted. Changes are appended by
// whoever makes them; nobody locks. It is counted anew when it has grown to
// maildirsizeMax, when it makes no sense or the limits are other ones, and before
// anybody is told that the mailbox is full, unless that was done just now.
//
// Between a message's name and its line a count may come, which then has it
// twice, or not at all: the next count mends that.
const (
	maildirsizeName  = "maildirsize"
	maildirsizeMax   = 5120
	maildirsizeStale = 15 * time.Minute
)

// tally is what a maildirsize says.
type tally struct {
	limit Usage
	used  Usage
	lines int // of changes
}

// parseTally reads a maildirsize; a last line without its end counts for
// nothing. It is false if the file must be counted anew.
func parseTally(data []byte) (t tally, ok bool) {
	if len(data) >= maildirsizeMax || bytes.IndexByte(data, 0) >= 0 {
		return t, false
	}
	head, rest, ok := strings.Cut(string(data), "\n")
	if !ok {
		return t, false
	}
	t.limit = parseLimits(head)
	for rest != "" {
		line, after, whole := strings.Cut(rest, "\n")
		if !whole {
			break
		}
		rest = after
		f := strings.Fields(line)
		if len(f) < 2 {
			return t, false
		}
		octets, oerr := strconv.ParseInt(f[0], 10, 62)
		messages, merr := strconv.ParseInt(f[1], 10, 32)
		if oerr != nil || merr != nil {
			return t, false
		}
		t.used = t.used.plus(Usage{octets, messages})
		if t.used.Storage > maxQuota || t.used.Storage < -maxQuota {
			return t, false
		}
		t.lines++
	}
	return t, t.lines > 0 && t.used.Storage >= 0 && t.used.Messages >= 0
}

// parseLimits reads "1000S,10C"; what it does not know is passed over.
func parseLimits(line string) (u Usage) {
	for _, field := range strings.Split(strings.TrimSuffix(line, "\r"), ",") {
		if field == "" {
			continue
		}
		n := number(field[:len(field)-1])
		switch {
		case n < 0:
		case field[len(field)-1] == 'S':
			u.Storage = n
		case field[len(field)-1] == 'C':
			u.Messages = n
		}
	}
	return u
}

// bytes is the file of a mailbox that was just counted.
func (t tally) bytes() []byte {
	var limits []string
	if t.limit.Storage > 0 || t.limit.Messages == 0 {
		limits = append(limits, strconv.FormatInt(t.limit.Storage, 10)+"S")
	}
	if t.limit.Messages > 0 {
		limits = append(limits, strconv.FormatInt(t.limit.Messages, 10)+"C")
	}
	return fmt.Appendf(nil, "%s\n%d %d\n", strings.Join(limits, ","), t.used.Storage, t.used.Messages)
}

// ledger keeps the maildirsize of the Maildir root. Without a quota it keeps one
// that is there, and makes none.
type ledger struct {
	root  string
	quota *Quota
	log   *slog.Logger
	temp  func() string                        // name for a new file in root
	write func(name string, data []byte) error // makes a file with the right owner
	move  func(old, new string) error          // replaces new
	clear func(name string) error              // removes a file
}

func (l *ledger) file() string { return filepath.Join(l.root, maildirsizeName) }

// want are the limits that the file must show.
func (l *ledger) want(t tally) Usage {
	if l.quota.limited() {
		return Usage{l.quota.Storage, l.quota.Messages}
	}
	return t.limit
}

// used is how much there is now.
func (l *ledger) used() (Usage, error) {
	f, err := os.Open(l.file())
	if errors.Is(err, os.ErrNotExist) {
		return l.recount(tally{})
	}
	if err != nil {
		return Usage{}, err
	}
	defer f.Close() // only read
	fi, err := f.Stat()
	if err != nil {
		return Usage{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maildirsizeMax))
	if err != nil {
		return Usage{}, err
	}
	t, ok := parseTally(data)
	limit := l.want(t)
	full := limit.Storage > 0 && t.used.Storage >= limit.Storage || limit.Messages > 0 && t.used.Messages >= limit.Messages
	if ok && t.limit == limit && (!full || t.lines == 1 && time.Since(fi.ModTime()) < maildirsizeStale) {
		return t.used, nil
	}
	return l.recount(t)
}

// add notes that more has been stored in the folder, or less if it is negative,
// and calls for a warning where that is due. Mail does not depend on it: what
// goes wrong is logged, and mended by the next count.
func (l *ledger) add(folder string, more Usage) {
	if more == (Usage{}) || l.quota.ignores(folder) {
		return
	}
	after, err := l.append(more)
	if errors.Is(err, os.ErrNotExist) && !l.quota.limited() {
		return
	}
	if err != nil {
		if !errors.Is(err, errRecount) && !errors.Is(err, os.ErrNotExist) {
			l.log.Warn("could not note the use of a mailbox", "maildir", l.root, "err", err)
		}
		if after, err = l.recount(tally{}); err != nil {
			l.log.Warn("could not count a mailbox", "maildir", l.root, "err", err)
			return
		}
	}
	if l.quota == nil || l.quota.Warned == nil {
		return
	}
	if n := l.quota.crossed(after.minus(more), after); n > 0 {
		l.quota.Warned(n)
	}
}

var errRecount = errors.New("maildirsize must be counted anew")

// append adds a line and returns the sum up to it: what others append at the same
// time is either before it or after it, so each sees its own step.
func (l *ledger) append(more Usage) (after Usage, err error) {
	f, err := os.OpenFile(l.file(), os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return after, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := fmt.Fprintf(f, "%d %d\n", more.Storage, more.Messages); err != nil {
		return after, err
	}
	end, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return after, err
	}
	if end >= maildirsizeMax {
		return after, errRecount
	}
	data := make([]byte, end)
	if _, err := f.ReadAt(data, 0); err != nil {
		return after, err
	}
	t, ok := parseTally(data)
	if !ok || t.limit != l.want(t) {
		return after, errRecount
	}
	return t.used, nil
}

// recount counts everything and writes the file anew if there is a quota or t, what
// it said, has limits. If the folders keep changing meanwhile it is not written.
func (l *ledger) recount(t tally) (Usage, error) {
	for try := 0; ; try++ {
		used, still, err := l.count()
		if err != nil {
			return used, fmt.Errorf("count %s: %w", l.root, err)
		}
		if !still && try < 3 {
			continue
		}
		if !l.quota.limited() && t.limit == (Usage{}) {
			return used, nil
		}
		if !still {
			if err := l.clear(l.file()); err != nil && !errors.Is(err, os.ErrNotExist) {
				return used, err
			}
			return used, nil
		}
		return used, l.rewrite(tally{limit: l.want(t), used: used})
	}
}

func (l *ledger) rewrite(t tally) error {
	temp := l.temp()
	if err := l.write(temp, t.bytes()); err != nil {
		return err
	}
	if err := l.move(temp, l.file()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", l.file(), err), l.clear(temp))
	}
	return nil
}

// count adds up all folders. still is false if one has changed meanwhile.
func (l *ledger) count() (used Usage, still bool, err error) {
	dirs, err := foldersIn(l.root)
	if err != nil {
		return used, false, err
	}
	dirs["INBOX"] = l.root
	seen := map[string]time.Time{}
	for name, dir := range dirs {
		if l.quota.ignores(name) {
			continue
		}
		for _, sub := range []string{"new", "cur"} {
			d := filepath.Join(dir, sub)
			if fi, err := os.Stat(d); err == nil {
				seen[d] = fi.ModTime()
			}
			u, err := sumDir(d)
			if err != nil {
				return used, false, err
			}
			used = used.plus(u)
		}
	}
	for d, mtime := range seen {
		if fi, err := os.Stat(d); err != nil || !fi.ModTime().Equal(mtime) {
			return used, false, nil
		}
	}
	return used, true, nil
}

// sumDir adds up one directory: sizes as names say them, or as the files have them.
func sumDir(dir string) (u Usage, err error) {
	d, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return u, nil
	}
	if err != nil {
		return u, err
	}
	defer d.Close() // only read
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			if n, err := storedSize(dir, name); err == nil {
				u = u.plus(Usage{n, 1})
			} else if !errors.Is(err, os.ErrNotExist) {
				return u, err
			}
		}
		if errors.Is(err, io.EOF) {
			return u, nil
		}
		if err != nil {
			return u, err
		}
	}
}

// storedSize is what the file name in dir counts for.
func storedSize(dir, name string) (int64, error) {
	base, _ := splitName(name)
	if s, _ := sizesOf(base); s >= 0 && s <= maxQuota {
		return s, nil
	}
	fi, err := os.Stat(filepath.Join(dir, name))
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}
