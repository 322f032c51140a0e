package imapd

import (
	"errors"
	"fmt"
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
	found, err := s.find(&q)
	if err != nil {
		return done{}, err
	}
	s.found("SEARCH", &q, found, byUID)
	return done{}, nil
}

// find judges every message and returns the indexes of those that match, in order.
func (s *session) find(q *searchQuery) ([]int32, error) {
	if q.modseq {
		s.useCondstore()
	}
	s.arrivals()
	v := s.view
	if err := v.resolve(&q.key); err != nil {
		return nil, err
	}
	if err := s.measured(q.sizes); err != nil {
		return nil, err
	}
	defer v.noted()
	run := &searchRun{s: s, now: time.Now()}
	progress := s.newProgress(len(v.msgs))
	var found []int32
	for i := range v.msgs {
		if err := progress.step(i); err != nil {
			return nil, err
		}
		ok, err := run.matches(&q.key, i)
		if err != nil {
			return nil, s.storeError("search", v.name, err)
		}
		if ok {
			found = append(found, int32(i))
		}
	}
	return found, nil
}

// measured makes sure that the sizes of all messages are known, if they are needed.
func (s *session) measured(needed bool) error {
	if !needed {
		return nil
	}
	if err := s.view.folder.Measure(s.ctx); err != nil {
		return s.storeError("measure messages", s.view.name, err)
	}
	s.view.merge()
	return nil
}

// progress tells a client that a long command is still at work (RFC 9585).
type progress struct {
	s     *session
	goal  int
	told  time.Time
	every time.Duration
}

// progressEvery is how long a client waits without a word.
const progressEvery = 10 * time.Second

func (s *session) newProgress(goal int) *progress {
	return &progress{s: s, goal: goal, told: time.Now(), every: s.srv.progressEvery}
}

// step says that done things have been done. Its error is the session's end.
func (p *progress) step(done int) error {
	if done%256 != 0 {
		return nil
	}
	if err := p.s.ctx.Err(); err != nil {
		return err
	}
	if time.Since(p.told) < p.every {
		return nil
	}
	p.told = time.Now()
	w := &p.s.out
	w.str("* OK [INPROGRESS (")
	w.text(p.s.tag)
	w.line(fmt.Sprintf(" %d %d)] Still at work", done, p.goal))
	w.flush()
	return w.err
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
	case searchSavedBefore, searchSavedOn, searchSavedSince:
		saved, ok := saveDate(m)
		if !ok {
			saved = m.Date // RFC 8514 §4.3
		}
		return compareDay(saved, k.day, k.op-searchSavedBefore), nil
	case searchSaveDates:
		_, ok := saveDate(m)
		return ok, nil
	case searchThreadID:
		return false, nil // no message has one
	case searchEmailID:
		id, err := t.message().emailID()
		return id == k.name, err
	}
	switch k.op {
	case searchSentBefore, searchSentOn, searchSentSince:
		header, err := t.header("Date")
		return err == nil && sent(header, k), err
	case searchHeader:
		header, err := t.header(k.name)
		return err == nil && hasField(header, k), err
	}
	msg := t.message()
	if err := msg.open(); err != nil { // the text needs the file in any case
		return false, err
	}
	if err := msg.readHeader(); err != nil {
		return false, err
	}
	return msg.contains(k.text, k.op == searchText)
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
		date, ok := sentDate(f.Value())
		return ok && compareDay(date, k.day, k.op-searchSentBefore)
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
