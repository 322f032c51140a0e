package maildir

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
)

// badLine is a line of a dovecot-uidlist that is left out.
type badLine struct {
	number int
	why    string
	name   string // base name, if it has one
}

// list looks at dovecot-uidlist.
func (c *checked) list() error {
	l, bad, err := c.lines()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil // nobody has looked at the folder yet
	case errors.Is(err, errNotUIDList):
		c.fault(Finding{File: uidlistName, Fault: "the first line tells no UIDVALIDITY", Mend: "writes it anew, as wafer.index knows it if that is there; else all messages get new UIDs"}, func() error {
			return nil // opening the folder does
		})
		return nil
	case err != nil:
		return err
	}
	for _, b := range bad {
		c.fault(Finding{File: fmt.Sprintf("%s:%d", uidlistName, b.number), Fault: b.why, Mend: "leaves the line out"}, c.relist)
	}
	gone, err := c.without(l)
	if err != nil {
		return err
	}
	if len(gone) > 0 {
		c.fault(Finding{File: uidlistName, Note: true, Fault: fmt.Sprintf("%d lines are of messages without a file, the first with UID %d: it was expunged, or somebody has removed the file", len(gone), gone[0].uid), Mend: "leaves the lines out"}, c.relist)
	}
	return nil
}

// lines reads dovecot-uidlist line by line. Where parseUIDList ends at the first line
// that makes no sense, this goes on behind it: as many lines as make sense together
// stay.
func (c *checked) lines() (l uidlist, bad []badLine, err error) {
	fi, err := os.Stat(c.file(uidlistName))
	if err != nil {
		return l, nil, err
	}
	if fi.Size() > maxUIDList {
		return l, nil, fmt.Errorf("%s is longer than %d octets", c.file(uidlistName), maxUIDList)
	}
	data, err := os.ReadFile(c.file(uidlistName))
	if err != nil {
		return l, nil, err
	}
	head, rest, ok := strings.Cut(string(data), "\n")
	if !ok {
		return l, nil, errNotUIDList
	}
	l, v1, err := parseUIDHeader(strings.TrimSuffix(head, "\r"))
	if err != nil {
		return l, nil, err
	}
	var numbers []int
	for n := 2; rest != ""; n++ {
		line, after, whole := strings.Cut(rest, "\n")
		rest = after
		l.damaged = false
		r, good := l.parseLine(strings.TrimSuffix(line, "\r"), v1)
		switch {
		case !whole:
			bad = append(bad, badLine{n, "the last line is cut short", ""})
		case !good:
			bad = append(bad, badLine{n, fmt.Sprintf("the line is broken: %.60q", line), ""})
		case l.damaged:
			bad = append(bad, badLine{n, fmt.Sprintf("the line has fields that are none: %.60q", line), ""})
			fallthrough
		default:
			l.recs = append(l.recs, r)
			numbers = append(numbers, n)
		}
	}
	l.damaged = false
	bad = append(bad, l.straighten(numbers)...)
	sort.Slice(bad, func(i, j int) bool { return bad[i].number < bad[j].number })
	return l, bad, nil
}

// straighten leaves out lines whose UIDs do not ascend, as few as will do, and of lines
// with the same name all but the last.
func (l *uidlist) straighten(numbers []int) (bad []badLine) {
	keep := ascending(l.recs)
	last := map[string]int{}
	for i, r := range l.recs {
		l.next = max(l.next, r.uid+1) // it may have been told
		if keep[i] {
			last[r.name] = i
		}
	}
	uids := map[uint32]int{}
	for i, r := range l.recs {
		if keep[i] {
			uids[r.uid] = numbers[i]
		}
	}
	kept := l.recs[:0]
	for i, r := range l.recs {
		at, same := uids[r.uid]
		switch {
		case !keep[i] && same:
			bad = append(bad, badLine{numbers[i], fmt.Sprintf("line %d has the same UID, %d", at, r.uid), r.name})
		case !keep[i]:
			bad = append(bad, badLine{numbers[i], fmt.Sprintf("UID %d is out of order", r.uid), r.name})
		case last[r.name] != i:
			bad = append(bad, badLine{numbers[i], fmt.Sprintf("the message has two UIDs, %d and %d", r.uid, l.recs[last[r.name]].uid), r.name})
		default:
			kept = append(kept, r)
		}
	}
	l.recs = kept
	return bad
}

// ascending marks a longest series of lines whose UIDs ascend.
func ascending(recs []uidRec) (keep []bool) {
	ends := make([]int, 0, len(recs)) // ends[k] is the last line of the best series of k+1 lines
	prev := make([]int, len(recs))
	for i, r := range recs {
		k := sort.Search(len(ends), func(k int) bool { return recs[ends[k]].uid >= r.uid })
		prev[i] = -1
		if k > 0 {
			prev[i] = ends[k-1]
		}
		switch {
		case k == len(ends):
			ends = append(ends, i)
		case recs[ends[k]].uid > r.uid: // of two with the same UID the first stays
			ends[k] = i
		}
	}
	keep = make([]bool, len(recs))
	if len(ends) == 0 {
		return keep
	}
	for i := ends[len(ends)-1]; i >= 0; i = prev[i] {
		keep[i] = true
	}
	return keep
}

// without returns the lines that have no file.
func (c *checked) without(l uidlist) (gone []uidRec, err error) {
	have := map[string]bool{}
	for range 2 { // a file that is renamed during a listing may be missing from it
		files, err := c.listing()
		if err != nil {
			return nil, err
		}
		for _, path := range files {
			have[baseOf(path)] = true
		}
	}
	for _, r := range l.recs {
		if !have[r.name] {
			gone = append(gone, r)
		}
	}
	return gone, nil
}

// relist writes dovecot-uidlist anew, with the lines that make sense and have a file.
func (c *checked) relist() error {
	unlock, err := c.p.lock(c.ctx, c.file(uidlistName))
	if err != nil {
		return err
	}
	defer unlock()
	l, bad, err := c.lines()
	if err != nil {
		return absent(err)
	}
	gone, err := c.without(l)
	if err != nil {
		return err
	}
	if len(bad) == 0 && len(gone) == 0 {
		return nil // an earlier finding has mended all
	}
	dead := make(map[uint32]bool, len(gone))
	for _, r := range gone {
		dead[r.uid] = true
	}
	kept := l.recs[:0]
	for _, r := range l.recs {
		if !dead[r.uid] {
			kept = append(kept, r)
		}
	}
	l.recs = kept
	return c.p.replace(c.file(uidlistName), c.file(uidlistName)+".tmp", l.bytes())
}
