package imapd

import (
	"fmt"
	"math"
	"slices"
)

// partial is a window of a result (RFC 9394): from and to count from 1, or below 0
// from the end.
type partial struct{ from, to int64 }

// partial reads "1:100" or "-1:-100".
func (p *parser) partial() (*partial, error) {
	number := func() (int64, error) {
		minus := p.eat('-')
		n, err := p.number()
		switch {
		case err != nil:
			return 0, err
		case n == 0:
			return 0, bad("PARTIAL counts from 1")
		case minus:
			return -int64(n), nil
		}
		return int64(n), nil
	}
	from, err := number()
	if err != nil {
		return nil, err
	}
	if err := p.expect(':'); err != nil {
		return nil, err
	}
	to, err := number()
	if err != nil {
		return nil, err
	}
	if (from < 0) != (to < 0) {
		return nil, bad("PARTIAL counts from one end")
	}
	if (from > 0) == (from > to) {
		from, to = to, from
	}
	return &partial{from, to}, nil
}

// String is the window as it is sent back.
func (w *partial) String() string { return fmt.Sprintf("%d:%d", w.from, w.to) }

// cut is the window of n results: the indexes from lo up to but not with hi.
func (w *partial) cut(n int) (lo, hi int) {
	clamp := func(x int64) int { return int(min(max(x, 0), int64(n))) }
	if w.from > 0 {
		return clamp(w.from - 1), clamp(w.to)
	}
	return clamp(int64(n) + w.to), clamp(int64(n) + w.from + 1)
}

// inOrder is like ranges for numbers that need not ascend: only runs that do become
// spans.
func inOrder(numbers []uint64) ranges {
	var rs ranges
	for _, n := range numbers {
		if k := len(rs); k > 0 && rs[k-1].hi+1 == n {
			rs[k-1].hi = n
			continue
		}
		rs = append(rs, span{n, n})
	}
	return rs
}

// found answers a SEARCH or a SORT with messages by their index, in the order of the
// result.
func (s *session) found(command string, q *searchQuery, order []int32, byUID bool) {
	v := s.view
	if q.save {
		s.save(q, order)
	}
	if command == "SEARCH" && s.rev2 && !q.extended {
		q.all, q.extended = true, true
	}
	numbers := make([]uint64, len(order))
	for k, i := range order {
		if numbers[k] = uint64(i) + 1; byUID {
			numbers[k] = uint64(v.msgs[i].UID)
		}
	}
	if q.extended {
		s.esearch(q, order, numbers, byUID)
		return
	}
	s.out.str("* ")
	s.out.str(command)
	for _, n := range numbers {
		s.out.byte(' ')
		s.out.num(n)
	}
	if q.modseq && len(order) > 0 {
		s.out.str(fmt.Sprintf(" (MODSEQ %d)", v.highest(order)))
	}
	s.out.crlf()
}

// highest is the highest modification sequence of messages.
func (v *view) highest(order []int32) (modseq uint64) {
	for _, i := range order {
		modseq = max(modseq, v.msgs[i].ModSeq)
	}
	return modseq
}

// named are the messages that the options of a search name: those that MIN, MAX and
// PARTIAL pick, or all.
func (q *searchQuery) named(order []int32) []int32 {
	if q.all || q.count || len(order) == 0 || !q.min && !q.max && q.partial == nil {
		return order
	}
	var named []int32
	if q.min {
		named = append(named, order[0])
	}
	if q.max {
		named = append(named, order[len(order)-1])
	}
	if q.partial != nil {
		lo, hi := q.partial.cut(len(order))
		named = append(named, order[lo:hi]...)
	}
	return named
}

// save keeps a result for "$" (RFC 5182 §2.1).
func (s *session) save(q *searchQuery, order []int32) {
	named := slices.Clone(q.named(order))
	slices.Sort(named)
	s.view.saved = ranges{}
	for _, i := range slices.Compact(named) {
		s.view.saved = s.view.saved.add(uint64(s.view.msgs[i].UID))
	}
}

// esearch sends ESEARCH (RFC 9051 §7.3.4, RFC 5267 §3, RFC 7162 §3.1.10, RFC 9394 §3.1).
func (s *session) esearch(q *searchQuery, order []int32, numbers []uint64, byUID bool) {
	if q.save && !q.min && !q.max && !q.count && !q.all && q.partial == nil {
		return // nothing but SAVE was asked for
	}
	w := &s.out
	w.str("* ESEARCH (TAG ")
	w.text(s.tag)
	w.byte(')')
	if byUID {
		w.str(" UID")
	}
	if n := len(numbers); n > 0 {
		if q.min {
			w.str(fmt.Sprintf(" MIN %d", numbers[0]))
		}
		if q.max {
			w.str(fmt.Sprintf(" MAX %d", numbers[n-1]))
		}
		if q.all {
			w.str(" ALL ")
			inOrder(numbers).write(w)
		}
	}
	if q.partial != nil {
		w.str(" PARTIAL (" + q.partial.String() + " ")
		if lo, hi := q.partial.cut(len(numbers)); lo < hi {
			inOrder(numbers[lo:hi]).write(w)
		} else {
			w.str("NIL")
		}
		w.byte(')')
	}
	if q.count {
		w.str(fmt.Sprintf(" COUNT %d", len(numbers)))
	}
	if q.modseq && len(numbers) > 0 {
		w.str(fmt.Sprintf(" MODSEQ %d", s.view.highest(q.named(order))))
	}
	w.crlf()
}

// window applies PARTIAL to ascending ranges.
func (w *partial) window(rs ranges) ranges {
	total := uint64(0)
	for _, sp := range rs {
		total += sp.hi - sp.lo + 1
	}
	lo, hi := w.cut(int(min(total, math.MaxInt32)))
	var out ranges
	skip, left := uint64(lo), uint64(hi-lo)
	for _, sp := range rs {
		n := sp.hi - sp.lo + 1
		if skip >= n {
			skip -= n
			continue
		}
		sp.lo += skip
		skip = 0
		if n = sp.hi - sp.lo + 1; n > left {
			sp.hi = sp.lo + left - 1
			n = left
		}
		if n == 0 {
			break
		}
		out = append(out, sp)
		left -= n
	}
	return out
}
