package auth

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxFile is the largest users file in octets: about a million users.
const maxFile = 128 << 20

// Options says how a users file is to be read.
type Options struct {
	// Domains are the mail domains whose users the file holds. A name without a
	// domain belongs to the first of them.
	Domains []string
	Logger  *slog.Logger     // nil: no log
	Now     func() time.Time // nil: time.Now
}

// File is a users file in Dovecot's passwd-file syntax:
//
//	user:{SCHEME}hash:uid:gid:gecos:home:shell:extra_fields
//
// It reads itself again when it changes on disk. A new version with mistakes is
// reported and not used: the last good one stays in force. A File is safe for
// concurrent use, also by several processes.
type File struct {
	path    string
	domains []string // canonical
	log     *slog.Logger
	now     func() time.Time
	fault   func(step string) error // tests only: makes a step of a write go wrong

	mu       sync.Mutex
	users    *userTable
	version  fileVersion
	problems Problems // of the version on disk
	missing  error    // why the file cannot be read, nil if it can
}

// fileVersion tells one state of a file from another.
type fileVersion struct {
	dev, ino     uint64
	size         int64
	mtime, ctime time.Time
	racy         bool // read so soon after it changed that another change may look the same
}

// Open reads a users file. Every mistake in it is in the error, a Problems; the
// File then holds the lines that are good. A nil File comes with any other
// error: the file cannot be read, or Options name no domain. A missing file is
// such an error (os.ErrNotExist); Create makes one.
func Open(path string, o Options) (*File, error) {
	if len(o.Domains) == 0 {
		return nil, fmt.Errorf("open users file %s: no domain given", path)
	}
	f := &File{path: path, log: o.Logger, now: o.Now, users: new(userTable)}
	for _, d := range o.Domains {
		f.domains = append(f.domains, canonicalDomain(d))
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if f.now == nil {
		f.now = time.Now
	}
	text, v, err := f.read()
	if err != nil {
		return nil, fmt.Errorf("open users file: %w", err)
	}
	f.version = v
	f.users, f.problems = parseFile(path, text, f.domains)
	return f, f.problems.orNil()
}

// Create makes an empty users file, readable by its owner only, unless there is
// one; then it opens it like Open.
func Create(path string, o Options) (*File, error) {
	h, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case err == nil:
		if err := errors.Join(h.Sync(), h.Close()); err != nil {
			return nil, fmt.Errorf("create users file %s: %w", path, err)
		}
		if err := syncFolder(path); err != nil {
			return nil, fmt.Errorf("create users file %s: %w", path, err)
		}
	case !errors.Is(err, os.ErrExist):
		return nil, fmt.Errorf("create users file: %w", err)
	}
	return Open(path, o)
}

// Path is where the file is.
func (f *File) Path() string { return f.path }

// Lookup returns the record of user, "local@domain" or "local" alone, in any
// case. Error: ErrNoUser.
func (f *File) Lookup(user string) (Record, error) {
	rec, ok := f.current().byName[f.key(user)]
	if !ok {
		return Record{}, ErrNoUser
	}
	return *rec, nil
}

// Has reports whether user exists, whether or not he can log in.
func (f *File) Has(user string) bool {
	_, ok := f.current().byName[f.key(user)]
	return ok
}

// List returns all records in the file's order.
func (f *File) List() []Record {
	users := f.current()
	list := make([]Record, len(users.inOrder))
	for i, r := range users.inOrder {
		list[i] = *r
	}
	return list
}

// Decoy implements Decoyer.
func (f *File) Decoy(string) string {
	if typical := f.current().typical; typical != nil {
		return typical.decoy()
	}
	return newDecoy()
}

// DecoyKeys implements KeyDecoyer.
func (f *File) DecoyKeys(user string) (name string, rounds, salt int) {
	s := f.current().shape
	return f.key(user), s.rounds, s.salt
}

// HasKeys implements KeyDecoyer.
func (f *File) HasKeys() bool { return f.current().keys > 0 }

// Problems lists the mistakes in the file as it is on disk now. While there are
// any, users are those of the last good version.
func (f *File) Problems() Problems {
	f.current()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.problems
}

// key is the canonical name of user in this file.
func (f *File) key(user string) string {
	name := canonicalName(user)
	if !strings.Contains(name, "@") {
		return name + "@" + f.domains[0]
	}
	return name
}

// current returns the users, after reading the file again if it has changed.
func (f *File) current() *userTable {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		f.report(err)
		return f.users
	}
	if !f.version.racy && versionOf(info) == f.version {
		return f.users
	}
	text, v, err := f.read()
	if err != nil {
		f.report(err)
		return f.users
	}
	f.missing = nil
	same := f.version
	same.racy = v.racy
	f.version = v
	users, problems := parseFile(f.path, text, f.domains)
	if len(problems) == 0 {
		f.users, f.problems = users, nil
		return f.users
	}
	if v != same || len(f.problems) != len(problems) {
		f.log.Error("users file has mistakes, its last good version stays in force",
			"file", f.path, "problems", len(problems), "first", problems[0].Error())
	}
	f.problems = problems
	return f.users
}

// report logs once that the file cannot be read. The caller holds f.mu.
func (f *File) report(err error) {
	if f.missing == nil {
		f.log.Error("users file cannot be read, its last good version stays in force", "file", f.path, "err", err)
	}
	f.missing = err
}

// read returns the file's text and version. Two versions of one size written
// within the clock's grain look the same, so a file that has only just changed
// is read again at the next look.
func (f *File) read() (string, fileVersion, error) {
	h, err := os.Open(f.path)
	if err != nil {
		return "", fileVersion{}, err
	}
	defer h.Close() // only read
	info, err := h.Stat()
	if err != nil {
		return "", fileVersion{}, err
	}
	if !info.Mode().IsRegular() {
		return "", fileVersion{}, fmt.Errorf("%s is not a regular file", f.path)
	}
	text, err := io.ReadAll(io.LimitReader(h, maxFile+1))
	if err != nil {
		return "", fileVersion{}, fmt.Errorf("read %s: %w", f.path, err)
	}
	if len(text) > maxFile {
		return "", fileVersion{}, fmt.Errorf("%s is larger than %d octets", f.path, maxFile)
	}
	v := versionOf(info)
	v.racy = f.now().Sub(v.ctime) < 50*time.Millisecond
	return string(text), v, nil
}

func versionOf(info os.FileInfo) fileVersion {
	v := fileVersion{size: info.Size(), mtime: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		v.dev, v.ino = uint64(st.Dev), st.Ino //nolint:unconvert // 32 bits on some systems
		v.ctime = changeTime(st)
	}
	return v
}
