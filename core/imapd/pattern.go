package imapd

import (
	"math/bits"
	"strings"
)

// maxPattern is how long a LIST pattern may be; mailbox names are shorter.
const maxPattern = 1024

// pattern is a LIST pattern: "*" stands for any octets, "%" for any but the
// separator (RFC 9051 §6.3.9).
type pattern struct {
	ops    []byte // literal octets, '*' and '%' as wildcards
	levels bool   // has a "%"
	never  bool   // matches nothing
}

// compilePattern prepares a pattern. INBOX is written in capitals, since it is
// compared without case (RFC 9051 §5.1).
func compilePattern(s string) pattern {
	if len(s) > maxPattern {
		return pattern{never: true}
	}
	if first, _, _ := strings.Cut(s, "."); strings.EqualFold(first, "INBOX") {
		s = "INBOX" + s[len(first):]
	}
	p := pattern{levels: strings.IndexByte(s, '%') >= 0}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if n := len(p.ops); n > 0 && (c == '*' || c == '%') && (p.ops[n-1] == '*' || p.ops[n-1] == '%') {
			if c == '*' { // any run of wildcards with a star is a star
				p.ops[n-1] = '*'
			}
			continue
		}
		p.ops = append(p.ops, c)
	}
	return p
}

// match walks over the name once with the set of places in the pattern that
// have been reached, as bits. Its time is the product of the two lengths over
// 64, whatever the pattern: trying alternatives one after the other would be
// exponential in the number of stars.
func (p *pattern) match(name string) bool {
	if p.never || len(name) > maxPattern {
		return false
	}
	if strings.EqualFold(name, "INBOX") {
		name = "INBOX"
	}
	n := len(p.ops)
	var a, b [maxPattern/64 + 1]uint64
	cur, next := &a, &b
	words := n/64 + 1
	set := func(to *[maxPattern/64 + 1]uint64, i int) {
		for {
			to[i/64] |= 1 << (i % 64)
			if i == n || p.ops[i] != '*' && p.ops[i] != '%' {
				return
			}
			i++ // a wildcard may be empty
		}
	}
	set(cur, 0)
	for k := 0; k < len(name); k++ {
		c := name[k]
		any := uint64(0)
		for w := 0; w < words; w++ {
			next[w] = 0
		}
		for w := 0; w < words; w++ {
			for set1 := cur[w]; set1 != 0; set1 &= set1 - 1 {
				i := w*64 + bits.TrailingZeros64(set1)
				if i == n {
					continue
				}
				switch op := p.ops[i]; {
				case op == '*', op == '%' && c != '.':
					set(next, i)
				case op == '%':
				case op == c:
					set(next, i+1)
				}
			}
		}
		for w := 0; w < words; w++ {
			any |= next[w]
		}
		if any == 0 {
			return false
		}
		cur, next = next, cur
	}
	return cur[n/64]&(1<<(n%64)) != 0
}
