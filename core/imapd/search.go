package imapd

import (
	"errors"
	"fmt"
	netmail "net/mail"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/maildir"
)

// cmdSearch is SEARCH and UID SEARCH (RFC 9051 §6.4.4, RFC 5182, RFC 5032).
func (s *session) cmdSearch(p *parser, byUID bool) (done, error) {
	q, err := p.searchQuery()
	if err != nil {
		return done{}, err
	}
	if q.modseq {
		s.useCondstore()
	}
	s.arrivals()
	v := s.view
	if err := v.resolve(&q.key); err != nil {
		return done{}, err
	}
	defer v.noted()
	run := &searchRun{s: s, now: time.Now()}
	var found, uids ranges
	var hits hits
	for i := range v.msgs {
		if i%256 == 0 && s.ctx.Err() != nil {
			return done{}, s.ctx.Err()
		}
		ok, err := run.matches(&q.key, i)
		if err != nil {
			return done{}, s.storeError("search", v.name, err)
		}
		if !ok {
			continue
		}
		m := &v.msgs[i]
		n := uint64(i + 1)
		if byUID {
			n = uint64(m.UID)
		}
		found, uids = found.add(n), uids.add(uint64(m.UID))
		hits.add(n, m)
	}
	if q.save {
		switch only := q.min || q.max; {
		case !only || q.all || q.count || hits.count == 0:
			v.saved = uids
		default: // RFC 5182 §2.1: what MIN and MAX have named
			v.saved = nil
			if q.min {
				v.saved = v.saved.add(uint64(hits.first.UID))
			}
			if q.max && (!q.min || hits.last.UID != hits.first.UID) {
				v.saved = v.saved.add(uint64(hits.last.UID))
			}
		}
		if v.saved == nil {
			v.saved = ranges{}
		}
	}
	if q.extended || s.rev2 {
		q.all = q.all || !q.extended
		s.esearch(&q, found, &hits, byUID)
		return done{}, nil
	}
	s.out.str("* SEARCH")
	for _, sp := range found {
		for n := sp.lo; n <= sp.hi; n++ {
			s.out.byte(' ')
			s.out.num(n)
		}
	}
	if q.modseq && hits.count > 0 {
		s.out.str(fmt.Sprintf(" (MODSEQ %d)", hits.modseq))
	}
	s.out.crlf()
	return done{}, nil
}

// hits is what a SEARCH needs to know of its result besides the numbers.
type hits struct {
	count       uint64
	min, max    uint64
	first, last *maildir.Message
	modseq      uint64
}

func (h *hits) add(n uint64, m *maildir.Message) {
	if h.count == 0 {
		h.min, h.first = n, m
	}
	h.max, h.last = n, m
	h.count++
	h.modseq = max(h.modseq, m.ModSeq)
}

// esearch sends ESEARCH (RFC 9051 §7.3.4, RFC 7162 §3.1.10).
func (s *session) esearch(q *searchQuery, found ranges, h *hits, byUID bool) {
	if q.save && !q.min && !q.max && !q.count && !q.all {
		return // nothing but SAVE was asked for
	}
	w := &s.out
	w.str("* ESEARCH (TAG ")
	w.text(s.tag)
	w.byte(')')
	if byUID {
		w.str(" UID")
	}
	if h.count > 0 {
		if q.min {
			w.str(fmt.Sprintf(" MIN %d", h.min))
		}
		if q.max {
			w.str(fmt.Sprintf(" MAX %d", h.max))
		}
		if q.all {
			w.str(" ALL ")
			found.write(w)
		}
	}
	if q.count {
		w.str(fmt.Sprintf(" COUNT %d", h.count))
	}
	if q.modseq && h.count > 0 {
		modseq := h.modseq
		if !q.all && !q.count {
			modseq = 0
			if q.min {
				modseq = h.first.ModSeq
			}
			if q.max {
				modseq = max(modseq, h.last.ModSeq)
			}
		}
		w.str(fmt.Sprintf(" MODSEQ %d", modseq))
	}
	w.crlf()
}

// resolve turns the sets and keyword names of a search into numbers and bits.
func (v *view) resolve(k *searchKey) error {
	for i := range k.keys {
		if err := v.resolve(&k.keys[i]); err != nil {
			return err
		}
	}
	switch k.op {
	case searchSeq, searchUID:
		rs, err := v.pick(k.set, k.op == searchUID)
		k.ranges = rs
		return err
	case searchKeyword, searchNotKeyword:
		flag, err := flagSet(v.folder, []string{k.name}, false)
		k.flag = flag
		return err
	}
	return nil
}

// searchRun is one SEARCH under way.
type searchRun struct {
	s   *session
	now time.Time
}

// matches judges message i.
func (r *searchRun) matches(k *searchKey, i int) (bool, error) {
	t := &searchTarget{run: r, i: i, m: &r.s.view.msgs[i]}
	ok, err := t.eval(k)
	if t.msg != nil {
		t.msg.close()
	}
	if errors.Is(err, maildir.ErrExpunged) {
		return false, nil
	}
	return ok, err
}

// searchTarget is a message that is judged; it is opened when a key needs it.
type searchTarget struct {
	run *searchRun
	i   int
	m   *maildir.Message
	msg *message
}

// message is the message itself, which is opened when it has to be.
func (t *searchTarget) message() *message {
	if t.msg == nil {
		t.msg = t.run.s.view.message(t.m.UID)
	}
	return t.msg
}

// header is a block with all fields called name, and perhaps others.
func (t *searchTarget) header(name string) ([]byte, error) {
	m := t.message()
	if isNoted(name) {
		return m.notedFields()
	}
	err := m.readHeader()
	return m.header, err
}

func (t *searchTarget) eval(k *searchKey) (bool, error) {
	m := t.m
	recent := m.UID >= t.run.s.view.recent
	switch k.op {
	case searchAnd:
		for i := range k.keys {
			if ok, err := t.eval(&k.keys[i]); err != nil || !ok {
				return false, err
			}
		}
		return true, nil
	case searchOr:
		ok, err := t.eval(&k.keys[0])
		if ok || err != nil {
			return ok, err
		}
		return t.eval(&k.keys[1])
	case searchNot:
		ok, err := t.eval(&k.keys[0])
		return !ok, err
	case searchAll:
		return true, nil
	case searchSeq, searchUID:
		return k.ranges.contains(uint64(t.i + 1)), nil
	case searchHas, searchKeyword:
		return k.flag != 0 && m.Flags&k.flag == k.flag, nil
	case searchHasNot, searchNotKeyword:
		return k.flag == 0 || m.Flags&k.flag == 0, nil
	case searchRecent:
		return recent, nil
	case searchOld:
		return !recent, nil
	case searchNew:
		return recent && m.Flags&maildir.Seen == 0, nil
	case searchLarger:
		return uint64(m.Size) > k.num, nil
	case searchSmaller:
		return uint64(m.Size) < k.num, nil
	case searchBefore, searchOn, searchSince:
		return compareDay(m.Date, k.day, k.op-searchBefore), nil
	case searchOlder:
		return t.run.now.Sub(m.Date) >= time.Duration(k.num)*time.Second, nil
	case searchYounger:
		return t.run.now.Sub(m.Date) <= time.Duration(k.num)*time.Second, nil
	case searchModSeq:
		return m.ModSeq >= k.num, nil
	}
	switch k.op {
	case searchSentBefore, searchSentOn, searchSentSince:
		header, err := t.header("Date")
		return err == nil && sent(header, k), err
	case searchHeader:
		header, err := t.header(k.name)
		return err == nil && hasField(header, k), err
	}
	if err := t.message().readHeader(); err != nil {
		return false, err
	}
	return t.msg.contains(k.text, k.op == searchText)
}

// compareDay compares dates without time and zone: 0 before, 1 on, 2 since.
func compareDay(t, day time.Time, how searchOp) bool {
	y, m, d := t.Date()
	date := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	switch how {
	case 0:
		return date.Before(day)
	case 1:
		return date.Equal(day)
	}
	return !date.Before(day)
}

// sent judges the Date field. A message without a readable one was never sent.
func sent(header []byte, k *searchKey) bool {
	for f := range mail.HeaderFields(header) {
		if !f.Is("Date") {
			continue
		}
		date, err := netmail.ParseDate(clip(f.Value(), 200))
		if err != nil {
			return false
		}
		return compareDay(date, k.day, k.op-searchSentBefore)
	}
	return false
}

// hasField judges the fields with the key's name. The empty text is in all of them.
func hasField(header []byte, k *searchKey) bool {
	for f := range mail.HeaderFields(header) {
		if !f.Is(k.name) {
			continue
		}
		value := f.Value()
		if k.text == "" || strings.Contains(foldText(decodeWords(value)), k.text) {
			return true
		}
		if isAddressField(k.name) && strings.Contains(foldText(decodeWords(plainAddresses(value))), k.text) {
			return true
		}
	}
	return false
}

func isAddressField(name string) bool {
	for _, f := range envelopeFields[envelopeFrom : envelopeBcc+1] {
		if equalFold(name, f) {
			return true
		}
	}
	return false
}

// plainAddresses writes addresses without comments and blanks, as people look
// for them.
func plainAddresses(field string) string {
	var b strings.Builder
	addresses(field, func(a address) {
		b.WriteString(a.name)
		b.WriteString(" <")
		b.WriteString(a.mailbox)
		b.WriteByte('@')
		b.WriteString(a.host)
		b.WriteString("> ")
	})
	return b.String()
}
