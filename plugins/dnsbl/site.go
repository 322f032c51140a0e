package main

import (
	"strconv"
	"strings"

	"github.com/wafermail/wafer/plugins/internal/address"
)

// site is one entry of lists: a DNS list, which of its answers count, and how
// much. Several sites may be of one domain.
type site struct {
	domain string
	filter *filter // nil: every answer of a list counts
	weight int64
}

// Bounds of a configuration.
const (
	maxDomains = 60 // a verdict has 64 modifications, and each list that has an entry adds one
	maxSites   = 240
	maxWeight  = 10000
)

// parseSite reads an entry in the syntax of postscreen_dnsbl_sites:
// "domain=filter*weight", where filter and weight may be left out. wrong is what
// is wrong with it, "" if nothing.
func parseSite(s string) (e site, wrong string) {
	s, weight, weighed := strings.Cut(strings.TrimSpace(s), "*")
	domain, pattern, filtered := strings.Cut(s, "=")
	e = site{domain: address.WithoutDot(strings.ToLower(domain)), weight: 1}
	if !address.IsFQDN(e.domain) || !isASCII(e.domain) || len(e.domain) > 200 {
		return e, strconv.Quote(domain) + " is no domain of a list"
	}
	if weighed {
		n, err := strconv.ParseInt(weight, 10, 64)
		if err != nil || n > maxWeight || n < -maxWeight {
			return e, "weight " + strconv.Quote(weight) + " is no whole number from -10000 to 10000"
		}
		e.weight = n
	}
	if filtered {
		if e.filter, wrong = parseFilter(pattern); wrong != "" {
			return e, "filter " + strconv.Quote(pattern) + ": " + wrong
		}
	}
	return e, ""
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// filter is a set of values for each of an address's four octets.
type filter [4][4]uint64

func (f *filter) add(octet, from, to int) {
	for v := from; v <= to; v++ {
		f[octet][v/64] |= 1 << (v % 64)
	}
}

func (f *filter) has(a [4]byte) bool {
	for i, v := range a {
		if f[i][v/64]&(1<<(v%64)) == 0 {
			return false
		}
	}
	return true
}

// parseFilter reads four fields joined by ".". A field is a number from 0 to
// 255, or numbers and ranges "a..b" joined by ";" in brackets; brackets may also
// stand around the whole.
func parseFilter(s string) (f *filter, wrong string) {
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") && depthEnds(s) {
		s = inner[:len(inner)-1]
	}
	f = new(filter)
	for octet := range 4 {
		if octet > 0 {
			rest, ok := strings.CutPrefix(s, ".")
			if !ok {
				return nil, `wants four fields joined by "."`
			}
			s = rest
		}
		if s, wrong = f.field(octet, s); wrong != "" {
			return nil, wrong
		}
	}
	if s != "" {
		return nil, "ends before " + strconv.Quote(s)
	}
	if f[0][127/64]&(1<<(127%64)) == 0 {
		return nil, "never matches, because lists answer with addresses in 127.0.0.0/8"
	}
	return f, ""
}

// depthEnds reports whether the bracket that begins s is closed by the one that
// ends it.
func depthEnds(s string) bool {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '[':
			depth++
		case ']':
			if depth--; depth == 0 {
				return i == len(s)-1
			}
		}
	}
	return false
}

// field reads one field from the beginning of s and returns what follows it.
func (f *filter) field(octet int, s string) (rest, wrong string) {
	s, bracket := strings.CutPrefix(s, "[")
	for {
		from, rest, ok := number(s)
		if !ok {
			return s, "wants a number from 0 to 255 before " + strconv.Quote(s)
		}
		to := from
		if !bracket {
			f.add(octet, from, from)
			return rest, ""
		}
		if after, ok := strings.CutPrefix(rest, ".."); ok {
			if to, rest, ok = number(after); !ok || to < from {
				return rest, "range " + strconv.Itoa(from) + ".. wants a number from " + strconv.Itoa(from) + " to 255 at its end"
			}
		}
		f.add(octet, from, to)
		if after, ok := strings.CutPrefix(rest, "]"); ok {
			return after, ""
		}
		if s, ok = strings.CutPrefix(rest, ";"); !ok {
			return rest, `wants ";" or "]" before ` + strconv.Quote(rest)
		}
	}
}

// number reads a number from 0 to 255 from the beginning of s.
func number(s string) (n int, rest string, ok bool) {
	i := 0
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		if n = n*10 + int(s[i]-'0'); n > 255 {
			return 0, s, false
		}
	}
	return n, s[i:], i > 0
}
