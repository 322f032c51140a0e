package imapd

import (
	"math"
	"slices"
	"strconv"
)

// maxSpans is the number of elements that a sequence set may have.
const maxSpans = 16 << 10

// star stands for "*" in a span: the largest number in use. No message has it
// as a number or UID, which stay below 2³²−1 here.
const star = math.MaxUint64

// span is "lo:hi" as given; either may be star, and hi may be below lo.
type span struct{ lo, hi uint64 }

// numSet is a sequence set (RFC 9051 §9): message numbers or UIDs, or "$", the
// result of the last SEARCH that saved it.
type numSet struct {
	spans []span
	saved bool
}

func (p *parser) seqNumber() (uint64, error) {
	if p.eat('*') {
		return star, nil
	}
	n, err := p.number()
	if err == nil && n == 0 {
		return 0, bad("Message numbers begin at 1")
	}
	return uint64(n), err
}

// numSet reads a sequence set.
func (p *parser) numSet() (numSet, error) {
	if p.eat('$') {
		return numSet{saved: true}, nil
	}
	var set numSet
	for {
		lo, err := p.seqNumber()
		if err != nil {
			return set, err
		}
		hi := lo
		if p.eat(':') {
			if hi, err = p.seqNumber(); err != nil {
				return set, err
			}
		}
		if len(set.spans) == maxSpans {
			return set, bad("Sequence set has too many elements")
		}
		set.spans = append(set.spans, span{lo, hi})
		if !p.eat(',') {
			return set, nil
		}
	}
}

// ranges is a sorted list of spans that do not touch, without star and with
// lo ≤ hi.
type ranges []span

// resolve puts largest in the place of "*" and sorts.
func (s numSet) resolve(largest uint64) ranges {
	rs := make(ranges, 0, len(s.spans))
	for _, sp := range s.spans {
		if sp.lo == star {
			sp.lo = largest
		}
		if sp.hi == star {
			sp.hi = largest
		}
		if sp.lo > sp.hi {
			sp.lo, sp.hi = sp.hi, sp.lo
		}
		rs = append(rs, sp)
	}
	slices.SortFunc(rs, func(a, b span) int {
		switch {
		case a.lo < b.lo:
			return -1
		case a.lo > b.lo:
			return 1
		}
		return 0
	})
	out := rs[:0]
	for _, sp := range rs {
		if n := len(out); n > 0 && sp.lo <= out[n-1].hi+1 {
			out[n-1].hi = max(out[n-1].hi, sp.hi)
			continue
		}
		out = append(out, sp)
	}
	return out
}

// contains reports whether n is in rs.
func (rs ranges) contains(n uint64) bool {
	i, found := slices.BinarySearchFunc(rs, n, func(sp span, n uint64) int {
		switch {
		case sp.hi < n:
			return -1
		case sp.lo > n:
			return 1
		}
		return 0
	})
	return found && i < len(rs)
}

// add appends n, which is larger than all before.
func (rs ranges) add(n uint64) ranges {
	if k := len(rs); k > 0 && rs[k-1].hi+1 == n {
		rs[k-1].hi = n
		return rs
	}
	return append(rs, span{n, n})
}

// write writes rs as a sequence set.
func (rs ranges) write(w *writer) {
	for i, sp := range rs {
		if i > 0 {
			w.byte(',')
		}
		w.num(sp.lo)
		if sp.hi != sp.lo {
			w.byte(':')
			w.num(sp.hi)
		}
	}
}

// String is rs as a sequence set.
func (rs ranges) String() string {
	var b []byte
	for i, sp := range rs {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, sp.lo, 10)
		if sp.hi != sp.lo {
			b = strconv.AppendUint(append(b, ':'), sp.hi, 10)
		}
	}
	return string(b)
}
