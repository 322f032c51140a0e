package maildir

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/wafermail/wafer/core/durable"
)

// The commit log lets one barrier make a delivery durable instead of two.
//
// A Maildir delivery has two steps that must not be torn apart by a power cut:
// the file's contents, then its name in new/. Instead of a sync after each, the
// intention is written down first: one line says which finished file in tmp/
// goes where. The barrier makes file, name in tmp/ and line durable together;
// then the file is renamed into new/ and 250 is sent. If the power fails before
// the rename has reached the disk, the next start finds the line and the file
// and renames again. The file moves by rename(2), so it is the file's presence
// in tmp/ that says the work is still to be done; lines are never taken back.
//
// After a mere kill the page cache has survived. Then a file that is still in
// tmp/ belongs to a message that nobody was told was accepted, and it is
// removed: the client will send it again. The kernel's boot id in the log's
// first line tells the two cases apart.
//
// A line is: CRC-32C of the rest, in hexadecimal; "deliver" or "keep"; the
// file's size; CRC-32C of the file; the file; its targets. Paths are quoted as
// in Go. "keep" marks a message that was acknowledged although some target
// failed for now: it stays until it could be delivered. A line that does not
// parse is where the log was torn, and ends it.

const (
	commitHeader  = "wafer-commits 1 "
	commitLimit   = 8 << 20 // octets after which a new segment begins
	maxCommitLine = 4 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// commit is one line of the log.
type commit struct {
	keep    bool
	size    int64
	sum     uint32
	file    string   // in some tmp/
	targets []string // final names
}

func (c commit) append(b []byte) []byte {
	verb := "deliver"
	if c.keep {
		verb = "keep"
	}
	var line []byte
	line = append(line, verb...)
	line = append(line, ' ')
	line = strconv.AppendInt(line, c.size, 10)
	line = append(line, ' ')
	line = strconv.AppendUint(line, uint64(c.sum), 16)
	line = append(line, ' ')
	line = strconv.AppendQuote(line, c.file)
	for _, t := range c.targets {
		line = append(line, ' ')
		line = strconv.AppendQuote(line, t)
	}
	b = append(b, fmt.Sprintf("%08x ", crc32.Checksum(line, castagnoli))...)
	b = append(b, line...)
	return append(b, '\n')
}

var errTorn = errors.New("line is not whole")

func parseCommit(line string) (commit, error) {
	var c commit
	if len(line) < 9 || line[8] != ' ' {
		return c, errTorn
	}
	want, err := strconv.ParseUint(line[:8], 16, 32)
	if err != nil || crc32.Checksum([]byte(line[9:]), castagnoli) != uint32(want) {
		return c, errTorn
	}
	verb, rest, _ := strings.Cut(line[9:], " ")
	size, rest, _ := strings.Cut(rest, " ")
	sum, rest, ok := strings.Cut(rest, " ")
	if !ok || verb != "deliver" && verb != "keep" {
		return c, errTorn
	}
	c.keep = verb == "keep"
	if c.size, err = strconv.ParseInt(size, 10, 64); err != nil {
		return c, errTorn
	}
	s, err := strconv.ParseUint(sum, 16, 32)
	if err != nil {
		return c, errTorn
	}
	c.sum = uint32(s)
	for i := 0; rest != ""; i++ {
		q, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return c, errTorn
		}
		p, err := strconv.Unquote(q)
		if err != nil {
			return c, errTorn
		}
		if i == 0 {
			c.file = p
		} else {
			c.targets = append(c.targets, p)
		}
		rest = strings.TrimPrefix(rest[len(q):], " ")
	}
	if len(c.targets) == 0 {
		return c, errTorn
	}
	return c, nil
}

// commitLog appends commits to segments "commits.N" in one directory.
type commitLog struct {
	dir string

	mu    sync.Mutex
	f     *os.File
	n     int   // number of the segment
	size  int64 // of the segment
	limit int64
	busy  map[int]*busy // segments with commits under way, and the current one
}

// busy is a segment that is still needed.
type busy struct {
	open int    // commits under way
	dirs dirSet // that its commits rename into
}

// dirSet is a set of directories.
type dirSet map[string]struct{}

// add adds the directories of the named files.
func (s dirSet) add(files []string) {
	for _, f := range files {
		s[filepath.Dir(f)] = struct{}{}
	}
}

// existing lists those that are still there, in order.
func (s dirSet) existing() (dirs []string) {
	for dir := range s {
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	sort.Strings(dirs)
	return dirs
}

func segment(dir string, n int) string { return filepath.Join(dir, fmt.Sprintf("commits.%d", n)) }

// openCommitLog begins a new segment in dir.
func openCommitLog(dir string, after int) (*commitLog, error) {
	l := &commitLog{dir: dir, n: after, limit: commitLimit, busy: map[int]*busy{}}
	if err := l.begin(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *commitLog) begin() error {
	name := segment(l.dir, l.n+1)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open commit log: %w", err)
	}
	head := commitHeader + durable.BootID() + "\n"
	if _, err := f.WriteString(head); err != nil {
		return errors.Join(fmt.Errorf("write commit log: %w", err), f.Close(), os.Remove(name))
	}
	if l.f != nil {
		if err := l.f.Close(); err != nil {
			return err
		}
	}
	l.f, l.size = f, int64(len(head))
	l.n++
	l.busy[l.n] = &busy{dirs: dirSet{}}
	return nil
}

// add writes commits in one write and returns the segment that holds them, for
// done. They are durable after the next barrier on path().
func (l *commitLog) add(cs ...commit) (seg int, path string, err error) {
	var b []byte
	for _, c := range cs {
		b = c.append(b)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > l.limit {
		if err := l.begin(); err != nil {
			return 0, "", err
		}
	}
	n, err := l.f.Write(b)
	l.size += int64(n)
	if err != nil { // the line may be torn: nothing after it would be read
		return 0, "", errors.Join(fmt.Errorf("write commit log: %w", err), l.begin())
	}
	s := l.busy[l.n]
	s.open++
	for _, c := range cs {
		s.dirs.add(c.targets)
	}
	return l.n, l.f.Name(), nil
}

// done says that a commit of segment seg is over, but for the renames, which
// are not durable yet. It returns the segments that take no more lines and of
// which nothing is under way: once dirs are durable their files may be removed.
func (l *commitLog) done(seg int) (full []int, dirs []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy[seg].open--
	if len(l.busy) == 1 {
		return nil, nil
	}
	all := dirSet{}
	for n, s := range l.busy {
		if n == l.n || s.open > 0 {
			continue
		}
		full = append(full, n)
		maps.Copy(all, s.dirs)
		delete(l.busy, n)
	}
	return full, all.existing()
}

func (l *commitLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}

// readCommits reads every segment in dir, oldest first. sameBoot says of each
// commit whether the machine has run on since.
func readCommits(dir string) (cs []commit, sameBoot []bool, segments []int, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "commits.*"))
	if err != nil {
		return nil, nil, nil, err
	}
	for _, name := range names {
		if n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(name), "commits.")); err == nil {
			segments = append(segments, n)
		}
	}
	sort.Ints(segments)
	for _, n := range segments {
		f, err := os.Open(segment(dir, n))
		if err != nil {
			return nil, nil, nil, fmt.Errorf("read commit log: %w", err)
		}
		part, same, err := readSegment(f)
		f.Close() // only read
		if err != nil {
			return nil, nil, nil, fmt.Errorf("read commit log %s: %w", f.Name(), err)
		}
		for _, c := range part {
			cs, sameBoot = append(cs, c), append(sameBoot, same)
		}
	}
	return cs, sameBoot, segments, nil
}

func readSegment(r io.Reader) (cs []commit, sameBoot bool, err error) {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4096), maxCommitLine)
	for first := true; sc.Scan(); first = false {
		line := sc.Text()
		if first {
			boot, ok := strings.CutPrefix(line, commitHeader)
			if !ok {
				return nil, false, nil // torn before its first barrier
			}
			sameBoot = boot != "" && boot == durable.BootID()
			continue
		}
		c, err := parseCommit(line)
		if err != nil {
			return cs, sameBoot, nil
		}
		cs = append(cs, c)
	}
	if err := sc.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return nil, false, err
	}
	return cs, sameBoot, nil
}
