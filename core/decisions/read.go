package decisions

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// Entry is one line of the log.
type Entry struct {
	policy.Record
}

// Filter chooses entries. What is zero does not matter; what is set must all be
// true of an entry.
type Filter struct {
	ID      mail.ID // of a decision
	Session string
	// Sender and Recipient are an address in any case, with or without angle
	// brackets; "@example.org" is all of a domain, and "<>" the null sender. In a
	// log with hashed addresses the address is hashed too.
	Sender, Recipient string
	Client            netip.Prefix
	Check             string // "inbound/spf", "spf" in whatever policy, or "inbound/" for all of a policy
	Verdict           string // an action: "reject"; "error" for checks that failed
	Since, Until      time.Time
}

// Stats is what a reader met.
type Stats struct {
	Files, Lines int
	Malformed    int // lines that are no records; they are skipped
}

// maxLine bounds a line, in octets: notes of a call have 256 KiB, which JSON
// may write as six times as much.
const maxLine = 4 << 20

// Read calls each with the entries of dir that f chooses, in the order in which
// they were written. An error of each ends it and is returned. A folder without
// a log has no entries; one that is not there is an error.
func Read(dir string, f Filter, each func(Entry) error) (Stats, error) {
	r, err := newReader(dir, f, each)
	if err != nil {
		return Stats{}, err
	}
	all, err := list(dir)
	if err != nil {
		return r.stats, fmt.Errorf("read decision log: %w", err)
	}
	for i, file := range all {
		if i+1 < len(all) && r.before(all[i+1].born) || r.after(file.born) {
			continue
		}
		r.stats.Files++
		if _, err := r.file(file.path, 0, true); err != nil {
			return r.stats, err
		}
	}
	return r.stats, nil
}

// slack is how far the times of records may be from those of their files.
const slack = 10 * time.Minute

// before reports whether a file that ends at the time is too old to matter.
func (r *reader) before(end time.Time) bool {
	return !r.f.Since.IsZero() && end.Add(slack).Before(r.f.Since)
}

func (r *reader) after(born time.Time) bool {
	return !r.f.Until.IsZero() && born.Add(-slack).After(r.f.Until)
}

// Follow calls each like Read, and then with what is added, until ctx ends or
// each returns an error. It looks for more each time that tick gives a value.
func Follow(ctx context.Context, dir string, f Filter, tick <-chan time.Time, each func(Entry) error) (Stats, error) {
	r, err := newReader(dir, f, each)
	if err != nil {
		return Stats{}, err
	}
	var at fileInfo // the file that is read, and size: how far
	for {
		all, err := list(dir)
		if err != nil {
			return r.stats, fmt.Errorf("read decision log: %w", err)
		}
		for i, file := range all {
			last := i+1 == len(all)
			switch {
			case file.born.Before(at.born), !last && r.before(all[i+1].born):
				continue
			case file.born.After(at.born):
				at = fileInfo{path: file.path, born: file.born}
				r.stats.Files++
			}
			n, err := r.file(file.path, at.size, !last)
			if err != nil {
				return r.stats, err
			}
			at.size += n
		}
		select {
		case <-ctx.Done():
			return r.stats, nil
		case <-tick:
		}
	}
}

// reader reads files and hands on what its filter chooses.
type reader struct {
	f     Filter
	masks []masker // that the log may have been written with
	each  func(Entry) error
	stats Stats
}

func newReader(dir string, f Filter, each func(Entry) error) (*reader, error) {
	r := &reader{f: f, each: each, masks: []masker{{mask: MaskNone}}}
	if f.Sender != "" || f.Recipient != "" {
		key, err := readKey(dir)
		switch {
		case err == nil:
			r.masks = append(r.masks, masker{MaskHash, key})
		case errors.Is(err, fs.ErrNotExist):
		default:
			return nil, fmt.Errorf("key of the decision log: %w", err)
		}
	}
	return r, nil
}

// file reads a file from off and returns how many octets of it were whole
// lines. With torn, a last line without its end counts too: nobody will end it.
func (r *reader) file(name string, off int64, torn bool) (used int64, err error) {
	h, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // removed meanwhile
	}
	if err != nil {
		return 0, fmt.Errorf("read decision log: %w", err)
	}
	defer h.Close() // only read
	if _, err := h.Seek(off, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read decision log %s: %w", name, err)
	}
	used, err = r.lines(h, torn)
	if err != nil {
		return used, fmt.Errorf("read decision log %s: %w", name, err)
	}
	return used, nil
}

// lines reads lines until the end of in.
func (r *reader) lines(in io.Reader, torn bool) (used int64, err error) {
	br := bufio.NewReaderSize(in, 64<<10)
	var line []byte
	for {
		line = line[:0]
		n, long := int64(0), false
		for {
			part, err := br.ReadSlice('\n')
			n += int64(len(part))
			if long = long || len(line)+len(part) > maxLine; !long {
				line = append(line, part...)
			}
			if err == nil {
				break
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if !errors.Is(err, io.EOF) {
				return used, err
			}
			if n > 0 && torn {
				return used + n, r.line(line, long)
			}
			return used, nil
		}
		used += n
		if err := r.line(line, long); err != nil {
			return used, err
		}
	}
}

// line hands on one line's entry, if it is one and is chosen.
func (r *reader) line(line []byte, long bool) error {
	line = bytes.TrimSpace(line)
	if len(line) == 0 && !long {
		return nil
	}
	r.stats.Lines++
	var e Entry
	if long || json.Unmarshal(line, &e.Record) != nil || e.ID == "" || e.Check == "" {
		r.stats.Malformed++
		return nil
	}
	if !r.chooses(&e) {
		return nil
	}
	return r.each(e)
}

// chooses reports whether e is what the filter asks for.
func (r *reader) chooses(e *Entry) bool {
	f := &r.f
	switch {
	case f.ID != "" && e.ID != f.ID,
		f.Session != "" && e.Session != f.Session,
		!f.Since.IsZero() && e.Time.Before(f.Since),
		!f.Until.IsZero() && e.Time.After(f.Until),
		f.Sender != "" && !r.isAddress(f.Sender, e.Sender),
		f.Recipient != "" && !r.isAddress(f.Recipient, e.Recipient),
		f.Check != "" && !isCheck(f.Check, e.Check):
		return false
	}
	if f.Verdict != "" {
		if f.Verdict == "error" {
			if e.Error == "" {
				return false
			}
		} else if e.Action != f.Verdict || e.Skipped != "" {
			return false
		}
	}
	if f.Client.IsValid() {
		a, err := netip.ParseAddr(e.Client)
		return err == nil && f.Client.Contains(a.Unmap().WithZone(""))
	}
	return true
}

func isCheck(want, label string) bool {
	if strings.HasSuffix(want, "/") {
		return strings.HasPrefix(label, want)
	}
	return label == want || strings.HasSuffix(label, "/"+want)
}

// isAddress reports whether the log's address is the one asked for.
func (r *reader) isAddress(want, got string) bool {
	if want == "<>" {
		return got == "<>"
	}
	want, got = bare(want), bare(got)
	if domain, ok := strings.CutPrefix(want, "@"); ok {
		at := strings.LastIndexByte(got, '@')
		return at >= 0 && mail.DomainKey(got[at+1:]) == mail.DomainKey(domain)
	}
	return slices.ContainsFunc(r.masks, func(m masker) bool { return sameAddress(m.address(want), got) })
}

// sameAddress compares as mailboxes are compared: in any case, domains in either
// form.
func sameAddress(a, b string) bool {
	i, j := strings.LastIndexByte(a, '@'), strings.LastIndexByte(b, '@')
	if i < 0 || j < 0 {
		return strings.EqualFold(a, b)
	}
	return strings.EqualFold(a[:i], b[:j]) && mail.DomainKey(a[i+1:]) == mail.DomainKey(b[j+1:])
}

func bare(s string) string { return strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">") }
