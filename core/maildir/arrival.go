package maildir

import (
	"cmp"
	"slices"
	"strings"
)

// arrived is when a message was delivered, as the base name of its file begins.
type arrived struct {
	seconds uint64
	micros  int64 // -1: it does not say
	odd     bool  // the numbers are too long to be compared as such
	found
}

// sortArrivals puts files into the order in which Dovecot would give them UIDs; see
// compareArrival.
func sortArrivals(files []found) {
	list := make([]arrived, len(files))
	for i, f := range files {
		list[i] = arrivedAt(f)
	}
	slices.SortFunc(list, arrived.compare)
	for i := range list {
		files[i] = list[i].found
	}
}

const maxDigits = 18 // that an int64 surely has room for

func arrivedAt(f found) (a arrived) {
	a.found, a.micros = f, -1
	n, rest := smallNumber(f.base)
	a.seconds, a.odd = uint64(max(n, 0)), n < 0
	if rest, ok := strings.CutPrefix(rest, ".M"); ok {
		a.micros, _ = smallNumber(rest)
		a.odd = a.odd || a.micros < 0
	}
	return a
}

// smallNumber reads leading digits, none of which make a zero; n is below 0 if there
// are too many.
func smallNumber(s string) (n int64, rest string) {
	i := 0
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		if i >= maxDigits {
			return -1, ""
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n, s[i:]
}

func (a arrived) compare(b arrived) int {
	if a.odd || b.odd {
		return compareArrival(a.base, b.base)
	}
	if c := cmp.Compare(a.seconds, b.seconds); c != 0 {
		return c
	}
	if a.micros >= 0 && b.micros >= 0 && a.micros != b.micros {
		return cmp.Compare(a.micros, b.micros)
	}
	return strings.Compare(a.base, b.base)
}
