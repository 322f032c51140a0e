// Package lists holds an operator's tables for checks to look things up in: the
// lists of config.hcl. Three types, with the files of Postfix's texthash:, cidr:
// and regexp: tables:
//
//	table    key value            exact keys, in lower case
//	cidr     192.0.2.0/24 value   the first network that holds the address
//	regexp   /pattern/flags value the first pattern that matches; $1 in the value
//
// In all of them a line that begins with blank goes on with the line before it,
// and lines that are empty or begin with "#" say nothing. A file is read again
// when it changes, at most once a second; if it is broken then, what it said
// before stays and the faults are logged once.
//
// # BUGS
//
// Patterns are RE2's: look-around and back-references are refused, not ignored.
// if and endif are refused too. A change that keeps size and modification time
// is not seen.
package lists

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The types.
const (
	Table  = "table"
	CIDR   = "cidr"
	Regexp = "regexp"
)

// Bounds of one list.
const (
	MaxFile    = 64 << 20  // octets of a file
	MaxEntries = 2_000_000 // keys of a table, networks of a cidr list
	MaxRegexps = 10_000    // patterns: each is tried in turn
	maxLine    = 64 << 10  // octets of a line with those that go on with it
	maxFaults  = 20        // told of one file
)

// recheck is how often a file is looked at, at most.
const recheck = time.Second

// Spec says where a list comes from.
type Spec struct {
	Name    string
	Type    string            // Table, CIDR or Regexp; "" is Table
	File    string            // "" : Entries
	Entries map[string]string // type Table only
	Logger  *slog.Logger      // nil: silent
	Now     func() time.Time  // nil: time.Now
}

// List is a table. It is safe for concurrent use.
type List struct {
	spec     Spec
	now      func() time.Time
	contents atomic.Pointer[contents]

	looked atomic.Int64 // when the file was last looked at, in ns since 1970
	mu     sync.Mutex   // held while the file is read
	stamp  stamp        // of the file as it was last read, whole or broken
}

// contents is what a list says at one time.
type contents struct {
	entries int
	finder
}

// finder is one type's way to look things up.
type finder interface {
	find(key string) (value string, ok bool)
}

// stamp tells one state of a file from another.
type stamp struct {
	size  int64
	mtime time.Time
	file  os.FileInfo // for its inode
}

func (s stamp) same(t stamp) bool {
	return s.size == t.size && s.mtime.Equal(t.mtime) && s.file != nil && t.file != nil && os.SameFile(s.file, t.file)
}

// Open reads a list. Every fault of a file is in the error, each with its line.
func Open(s Spec) (*List, error) {
	l := &List{spec: s, now: s.Now}
	if l.now == nil {
		l.now = time.Now
	}
	if l.spec.Type == "" {
		l.spec.Type = Table
	}
	if l.spec.Logger == nil {
		l.spec.Logger = slog.New(slog.DiscardHandler)
	}
	if s.File == "" {
		if l.spec.Type != Table {
			return nil, fmt.Errorf("list %s: a list of type %s is a file", s.Name, s.Type)
		}
		t := make(table, len(s.Entries))
		for k, v := range s.Entries {
			t[strings.ToLower(k)] = v
		}
		l.contents.Store(&contents{len(t), t})
		return l, nil
	}
	c, at, err := l.read()
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", s.Name, err)
	}
	l.contents.Store(c)
	l.stamp = at
	l.looked.Store(l.now().UnixNano())
	return l, nil
}

// Lookup returns the value of key: in lower case for a table, an IP address for
// a cidr list. It looks first whether the file has changed, if it has not for a
// second; who finds that another caller is reading it does not wait.
func (l *List) Lookup(key string) (value string, ok bool) {
	if l.spec.File != "" {
		l.refresh()
	}
	return l.contents.Load().find(key)
}

// Len is the number of entries.
func (l *List) Len() int { return l.contents.Load().entries }

// refresh reads the file again if it has changed.
func (l *List) refresh() {
	now, last := l.now().UnixNano(), l.looked.Load()
	if now-last < int64(recheck) && now >= last || !l.looked.CompareAndSwap(last, now) || !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	fi, err := os.Stat(l.spec.File)
	var at stamp
	if err == nil {
		at = stamp{fi.Size(), fi.ModTime(), fi}
		if at.same(l.stamp) {
			return
		}
	} else if l.stamp.file == nil { // said already
		return
	}
	c, read, err := l.read()
	if err != nil {
		l.stamp = at
		l.spec.Logger.Warn("a list has changed for the worse; what it said before stays", "list", l.spec.Name, "err", err)
		return
	}
	l.contents.Store(c)
	l.stamp = read
	l.spec.Logger.Info("list read again", "list", l.spec.Name, "file", l.spec.File, "entries", c.entries)
}

// read reads the file.
func (l *List) read() (*contents, stamp, error) {
	f, err := os.Open(l.spec.File)
	if err != nil {
		return nil, stamp{}, err
	}
	defer f.Close() // only read
	fi, err := f.Stat()
	if err != nil {
		return nil, stamp{}, err
	}
	at := stamp{fi.Size(), fi.ModTime(), fi}
	if !fi.Mode().IsRegular() {
		return nil, at, fmt.Errorf("%s is not a file", l.spec.File)
	}
	c, err := parse(l.spec.Type, l.spec.File, io.LimitReader(f, MaxFile+1))
	return c, at, err
}

// parse reads a list of a type from src; name stands before the line in faults.
func parse(kind, name string, src io.Reader) (*contents, error) {
	p := &parser{name: name, src: src}
	switch kind {
	case Table:
		return p.table()
	case CIDR:
		return p.cidr()
	case Regexp:
		return p.regexps()
	}
	return nil, fmt.Errorf("no list is of type %q; write %q, %q or %q", kind, Table, CIDR, Regexp)
}

// errMany ends a list of faults.
var errMany = errors.New("and there are more faults")
