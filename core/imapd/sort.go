package imapd

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/maildir"
)

// sortKey is one criterion of SORT (RFC 5256 §3, RFC 5957).
type sortKey struct {
	by      sortBy
	reverse bool
}

type sortBy uint8

const (
	sortArrival sortBy = iota
	sortSize
	sortDate // from here on the header is looked at
	sortSubject
	sortFrom
	sortTo
	sortCc
	sortDisplayFrom
	sortDisplayTo
	sortKinds
)

// maxSortKeys bounds the criteria of one SORT.
const maxSortKeys = 2 * int(sortKinds)

// sortKeys reads "(REVERSE DATE SUBJECT …)".
func (p *parser) sortKeys() (keys []sortKey, err error) {
	reverse := false
	err = p.list(func() error {
		word, err := p.keyword()
		if err != nil {
			return err
		}
		if word == "REVERSE" && !reverse {
			reverse = true
			return nil
		}
		by, ok := map[string]sortBy{"ARRIVAL": sortArrival, "SIZE": sortSize, "DATE": sortDate, "SUBJECT": sortSubject, "FROM": sortFrom,
			"TO": sortTo, "CC": sortCc, "DISPLAYFROM": sortDisplayFrom, "DISPLAYTO": sortDisplayTo}[word]
		switch {
		case !ok:
			return bad("Unknown sort key %s", clip(word, 40))
		case len(keys) == maxSortKeys:
			return bad("Too many sort keys")
		}
		keys = append(keys, sortKey{by, reverse})
		reverse = false
		return nil
	})
	switch {
	case err != nil:
	case reverse:
		err = bad("REVERSE needs a key after it")
	case len(keys) == 0:
		err = bad("No sort key is named")
	}
	return keys, err
}

// cmdSort is SORT and UID SORT (RFC 5256, RFC 5267).
func (s *session) cmdSort(p *parser, byUID bool) (done, error) {
	q, keys, err := p.sortQuery()
	if err != nil {
		return done{}, err
	}
	for _, k := range keys {
		q.sizes = q.sizes || k.by == sortSize
	}
	found, err := s.find(&q)
	if err != nil {
		return done{}, err
	}
	if found, err = s.sorted(found, keys); err != nil {
		return done{}, err
	}
	s.found("SORT", &q, found, byUID)
	return done{}, nil
}

// sortQuery reads SORT's arguments.
func (p *parser) sortQuery() (q searchQuery, keys []sortKey, err error) {
	if err = p.space(); err != nil {
		return q, nil, err
	}
	sp := &searchParser{p: p, q: &q}
	if err = sp.results(); err != nil {
		return q, nil, err
	}
	if keys, err = p.sortKeys(); err != nil {
		return q, nil, err
	}
	if err = p.space(); err != nil {
		return q, nil, err
	}
	return q, keys, sp.criteria()
}

// criteria reads a character set and search keys, as SORT and THREAD have them.
func (sp *searchParser) criteria() (err error) {
	if err = sp.readCharset(); err != nil {
		return err
	}
	sp.q.key, err = sp.and(0, false)
	return err
}

// sortValues are what one message is sorted by.
type sortValues struct {
	i     int32
	times [sortKinds]int64
	texts [sortKinds]string
}

// sorted puts messages into the order of keys. Where they are equal the lower number
// comes first.
func (s *session) sorted(found []int32, keys []sortKey) ([]int32, error) {
	var wants [sortKinds]bool
	opens := false
	for _, k := range keys {
		wants[k.by] = true
		opens = opens || k.by >= sortDate
	}
	defer s.view.noted()
	look := &ahead{}
	if opens {
		look = s.lookAhead(found)
		defer look.end()
	}
	all := make([]sortValues, len(found))
	progress := s.newProgress(len(found))
	for n, i := range found {
		if err := progress.step(n); err != nil {
			return nil, err
		}
		if opens {
			look.reach(n)
		}
		m := &s.view.msgs[i]
		v := &all[n]
		v.i = i
		v.times[sortArrival], v.times[sortSize], v.times[sortDate] = m.Date.Unix(), m.Size, m.Date.Unix()
		if !opens {
			continue
		}
		if err := s.listed(m.UID, func(header []byte) { v.read(header, &wants) }); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b sortValues) int {
		for _, k := range keys {
			c := cmp.Compare(a.times[k.by], b.times[k.by])
			if c == 0 {
				c = strings.Compare(a.texts[k.by], b.texts[k.by])
			}
			if c != 0 {
				if k.reverse {
					return -c
				}
				return c
			}
		}
		return cmp.Compare(a.i, b.i)
	})
	for n := range all {
		found[n] = all[n].i
	}
	return found, nil
}

// lookAhead is for headers of the messages with the indexes in found.
func (s *session) lookAhead(found []int32) *ahead {
	a := &ahead{v: s.view, headers: true, uids: make([]uint32, len(found))}
	for n, i := range found {
		a.uids[n] = s.view.msgs[i].UID
	}
	return a
}

// listed hands over the fields of a message's header that lists are made of, nothing
// if the message has gone.
func (s *session) listed(uid uint32, look func(header []byte)) error {
	m := s.view.message(uid)
	defer m.close()
	header, err := m.notedFields()
	if err != nil && !errors.Is(err, maildir.ErrExpunged) {
		return s.storeError("read message", s.view.name, err)
	}
	look(header)
	return nil
}

// read takes what is wanted from a header.
func (v *sortValues) read(header []byte, wants *[sortKinds]bool) {
	var seen [sortKinds]bool
	first := func(by sortBy) bool {
		was := seen[by]
		seen[by] = true
		return wants[by] && !was
	}
	for f := range mail.HeaderFields(header) {
		switch {
		case f.Is("Date"):
			if first(sortDate) {
				if t, ok := sentDate(f.Value()); ok {
					v.times[sortDate] = t.Unix()
				}
			}
		case f.Is("Subject"):
			if first(sortSubject) {
				v.texts[sortSubject], _ = baseSubject(f.Value())
			}
		case f.Is("From"):
			if first(sortFrom) {
				v.texts[sortFrom] = firstMailbox(f.Value())
			}
			if first(sortDisplayFrom) {
				v.texts[sortDisplayFrom] = firstDisplay(f.Value())
			}
		case f.Is("To"):
			if first(sortTo) {
				v.texts[sortTo] = firstMailbox(f.Value())
			}
			if first(sortDisplayTo) {
				v.texts[sortDisplayTo] = firstDisplay(f.Value())
			}
		case f.Is("Cc"):
			if first(sortCc) {
				v.texts[sortCc] = firstMailbox(f.Value())
			}
		}
	}
}

// firstAddress is the first address of a field; ok is false if there is none.
func firstAddress(field string) (first address, ok bool) {
	addresses(clip(field, maxSortText), func(a address) {
		if !ok {
			first, ok = a, true
		}
	})
	return first, ok
}

// firstMailbox is the local part of a field's first address, ready to be compared.
func firstMailbox(field string) string {
	a, ok := firstAddress(field)
	if !ok {
		return ""
	}
	return casemap(a.mailbox)
}

// firstDisplay is the name of a field's first address, or the address if it has none
// (RFC 5957 §3).
func firstDisplay(field string) string {
	a, ok := firstAddress(field)
	switch {
	case !ok:
		return ""
	case a.name != "":
		return casemap(decodeWords(a.name))
	}
	return casemap(a.mailbox + "@" + a.host)
}
