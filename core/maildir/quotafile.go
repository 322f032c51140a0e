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
	"syscall"
	"time"
)

// The file maildirsize in a Maildir's root says how much is in all its folders
// (https://www.courier-mta.org/imap/README.maildirquota.html): a line of limits,
// "<octets>S,<messages>C", and then lines of changes, "<octets> <messages>", the
// first of which is the sum when it was counted. Changes are appended by
// whoever makes them. It is counted anew when it makes no sense or the limits are
// other ones, when a reader finds it longer than maildirsizeMax, and before
// anybody is told that the mailbox is full, unless that was done just now.
//
// Dovecot locks nothing here. Among ourselves a flock(2), shared by those who
// append, keeps a line from going into a file that has just been replaced; and
// who appends to a file that has become long sums it up, for a count of all
// folders is no work for a delivery. Between a message's name and its line a
// count may come, which then has it twice: the next count mends that.
const (
	maildirsizeName  = "maildirsize"
	maildirsizeMax   = 5120
	maildirsizeSum   = 2048     // octets at which it is summed up by who appends
	maildirsizeRead  = 64 << 10 // octets that are read of one that has grown too long
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
	if len(data) > maildirsizeRead || bytes.IndexByte(data, 0) >= 0 {
		return t, false
	}
	head, rest, ok := strings.Cut(string(data), "\n")
	if !ok {
		return t, false
	}
	t.limit = parseLimits(head)
	for rest != "" {
		line, next, whole := strings.Cut(rest, "\n")
		if !whole {
			break
		}
		rest = next
		octets, after, ok := signed(line)
		messages, _, also := signed(after)
		if !ok || !also || messages != int64(int32(messages)) {
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

// signed reads a number after spaces, and returns what is behind it.
func signed(s string) (n int64, rest string, ok bool) {
	s = strings.TrimLeft(s, " \t")
	digits := strings.TrimPrefix(s, "-")
	i := 0
	for i < len(digits) && digits[i] >= '0' && digits[i] <= '9' {
		i++
	}
	if n = number(digits[:i]); n < 0 || i < len(digits) && digits[i] != ' ' && digits[i] != '\t' && digits[i] != '\r' {
		return 0, "", false
	}
	if len(digits) < len(s) {
		n = -n
	}
	return n, digits[i:], true
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
	if ok && len(data) < maildirsizeMax && t.limit == limit && (!full || t.lines == 1 && time.Since(fi.ModTime()) < maildirsizeStale) {
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
	f, err := l.open(syscall.LOCK_SH)
	if err != nil {
		return after, err
	}
	defer func() { err = errors.Join(err, f.Close()) }() // and unlocks
	if _, err := fmt.Fprintf(f, "%d %d\n", more.Storage, more.Messages); err != nil {
		return after, err
	}
	end, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return after, err
	}
	data := make([]byte, min(end, maildirsizeRead+1))
	if _, err := f.ReadAt(data, 0); err != nil {
		return after, err
	}
	t, ok := parseTally(data)
	if !ok || t.limit != l.want(t) {
		return after, errRecount
	}
	if end < maildirsizeSum {
		return t.used, nil
	}
	return t.used, l.sumUp(f)
}

// open opens and locks the file that is there now.
func (l *ledger) open(how int) (*os.File, error) {
	for {
		f, err := os.OpenFile(l.file(), os.O_RDWR|os.O_APPEND, 0)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), how); err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		fi, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if linkCount(fi) > 0 {
			return f, nil
		}
		if err := f.Close(); err != nil { // it was replaced meanwhile
			return nil, err
		}
	}
}

// sumUp replaces the long file f by its sum, unless others are busy with it: then
// one of them does.
func (l *ledger) sumUp(f *os.File) error {
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return nil
	}
	t, ok := l.read(f)
	fi, err := f.Stat()
	if err != nil || !ok || linkCount(fi) == 0 { // changing the lock is not one step
		return err
	}
	return l.rewrite(t)
}

func (l *ledger) read(f *os.File) (tally, bool) {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, maildirsizeRead+1))
	if err != nil {
		return tally{}, false
	}
	return parseTally(data)
}

// recount counts everything and writes the file anew if there is a quota or t,
// what it said, has limits. Where the folders change meanwhile, what the file
// says is better, if it says anything.
func (l *ledger) recount(t tally) (Usage, error) {
	used, still, err := l.count()
	if err == nil && !still {
		used, still, err = l.count()
	}
	if err != nil {
		return used, fmt.Errorf("count %s: %w", l.root, err)
	}
	if !l.quota.limited() && t.limit == (Usage{}) {
		return used, nil
	}
	f, err := l.open(syscall.LOCK_EX)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return used, err
	default:
		defer f.Close() // only read; and unlocks
		if now, ok := l.read(f); ok && !still {
			used = now.used
		}
	}
	return used, l.rewrite(tally{limit: l.want(t), used: used})
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
