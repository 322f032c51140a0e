package migrate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/maildir"
)

const (
	uidlistName  = "dovecot-uidlist"
	keywordsName = "dovecot-keywords"
	maxLines     = 20 // of one file that are reported one by one
)

// uidlist is what can be saved of a dovecot-uidlist, and what is wrong with it.
type uidlist struct {
	validity, next uint64
	head           []string // other header fields
	recs           []record // ascending UIDs, each base name once
	wrong          []string
	headless       bool // not even UIDVALIDITY can be read
}

// record is a line: a message's UID and base name, with the fields between.
type record struct {
	uid    uint64
	fields string
	base   string
}

const maxUID = 1<<32 - 2

// readUIDs takes what makes sense in data, line by line. Dovecot and the store read up
// to the first broken line only, so that later messages get new UIDs; here they
// keep theirs.
func readUIDs(data []byte) (l uidlist) {
	text := string(data)
	head, rest, ok := strings.Cut(text, "\n")
	v1 := l.header(strings.TrimSuffix(head, "\r"))
	if !ok || l.validity == 0 || l.validity > 1<<32-1 {
		l.wrong = append(l.wrong, "its first line makes no sense")
		l.headless = true
	}
	var last uint64
	for n := 2; rest != ""; n++ {
		var line string
		line, rest, ok = strings.Cut(rest, "\n")
		r, why := parseRecord(strings.TrimSuffix(line, "\r"), v1)
		switch {
		case !ok:
			l.wrong = append(l.wrong, fmt.Sprintf("line %d is cut short", n))
			continue
		case why != "":
			l.wrong = append(l.wrong, fmt.Sprintf("line %d: %s", n, why))
			continue
		case r.uid <= last:
			l.wrong = append(l.wrong, fmt.Sprintf("line %d: UID %d comes after %d", n, r.uid, last))
		}
		last = max(last, r.uid)
		l.recs = append(l.recs, r)
	}
	l.next = max(l.next, last+1)
	l.tidy()
	return l
}

// tidy brings the records into order. Of two with one base name the one with the higher
// UID stays, as in Dovecot; of two with one UID the first.
func (l *uidlist) tidy() {
	slices.SortStableFunc(l.recs, func(a, b record) int {
		switch {
		case a.uid < b.uid:
			return -1
		case a.uid > b.uid:
			return 1
		}
		return 0
	})
	at := map[string]uint64{}
	for _, r := range l.recs {
		if have, twice := at[r.base]; twice && have != r.uid {
			l.wrong = append(l.wrong, fmt.Sprintf("%s has two UIDs, %d and %d", r.base, have, r.uid))
		}
		at[r.base] = r.uid
	}
	var last uint64
	l.recs = slices.DeleteFunc(l.recs, func(r record) bool {
		if r.uid == last || at[r.base] != r.uid {
			return true
		}
		last = r.uid
		return false
	})
}

// header reads the first line and reports whether it is that of version 1.
func (l *uidlist) header(line string) (v1 bool) {
	f := strings.Fields(line)
	if len(f) == 0 {
		return false
	}
	if f[0] == "1" && len(f) >= 3 {
		l.validity, l.next = decimal(f[1]), decimal(f[2])
		return true
	}
	if f[0] != "3" {
		return false
	}
	for _, field := range f[1:] {
		switch field[0] {
		case 'V':
			l.validity = decimal(field[1:])
		case 'N':
			l.next = min(decimal(field[1:]), maxUID+1)
		case 'G':
			if len(field) == 33 && strings.Trim(field[1:], "0123456789abcdefABCDEF") == "" {
				l.head = append(l.head, field)
				continue
			}
			l.wrong = append(l.wrong, "the folder's id is none")
		default:
			l.head = append(l.head, field)
		}
	}
	return false
}

func parseRecord(line string, v1 bool) (r record, wrong string) {
	id, name, ok := strings.Cut(line, " ")
	r.uid = decimal(id)
	if !ok || r.uid == 0 || r.uid > maxUID {
		return r, fmt.Sprintf("%.60q has no UID", line)
	}
	name = strings.TrimLeft(name, " ")
	if !v1 {
		if strings.HasPrefix(name, ":") {
			name = name[1:]
		} else if r.fields, name, ok = strings.Cut(name, " :"); !ok {
			return r, fmt.Sprintf("%.60q has no file name", line)
		}
		for _, f := range strings.Fields(r.fields) {
			if f[0] < 'A' || f[0] > 'Z' {
				return r, fmt.Sprintf("%.60q has a field that is none", line)
			}
		}
	}
	r.base = maildir.ParseFileName(name).Base
	if r.base == "" || strings.Contains(r.base, "/") {
		return r, fmt.Sprintf("%.60q has no file name", line)
	}
	return r, ""
}

// decimal parses up to 18 digits, 0 for anything else.
func decimal(s string) uint64 {
	if len(s) > 18 || strings.Trim(s, "0123456789") != "" {
		return 0
	}
	n, _ := strconv.ParseUint(s, 10, 64) // 0 if it is empty
	return n
}
