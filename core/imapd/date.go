package imapd

import (
	"strings"
	"time"
)

// maxDateField is how many octets of a Date field are looked at.
const maxDateField = 200

// sentDate reads a Date field (RFC 5322 §3.3 and §4.3). A time of day that is missing
// or invalid is midnight, such a zone is UTC (RFC 5256 §2.2). ok is false if there
// is no valid day.
func sentDate(value string) (date time.Time, ok bool) {
	d := dateScanner{s: clip(value, maxDateField)}
	d.skip()
	if d.word() != "" { // the day of the week says nothing
		d.skip()
		d.char(',')
		d.skip()
	}
	day, digits := d.number()
	if digits == 0 || digits > 2 {
		return date, false
	}
	d.skip()
	month, ok := monthNamed(d.word())
	if !ok {
		return date, false
	}
	d.skip()
	year, digits := d.number()
	switch {
	case digits < 2 || digits > 4:
		return date, false
	case digits == 2 && year < 50:
		year += 2000
	case digits < 4:
		year += 1900
	}
	at := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	if at.Day() != day || at.Month() != month {
		return date, false
	}
	d.skip()
	hour, minute, second, ok := d.clock()
	if !ok {
		return at, true
	}
	d.skip()
	return time.Date(year, month, day, hour, minute, second, 0, time.FixedZone("", d.zone())), true
}

// monthNamed finds a month by its English name of three letters.
func monthNamed(name string) (time.Month, bool) {
	i := strings.Index("JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC", strings.ToUpper(name))
	if len(name) != 3 || i < 0 || i%3 != 0 {
		return 0, false
	}
	return time.Month(i/3 + 1), true
}

// dateScanner reads the parts of a date.
type dateScanner struct {
	s string
	i int
}

// skip passes over blanks and comments (RFC 5322 §3.2.2).
func (d *dateScanner) skip() {
	for depth := 0; d.i < len(d.s); d.i++ {
		switch c := d.s[d.i]; {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == '\\' && depth > 0:
			d.i++
		case depth == 0 && !isBlank(c):
			return
		}
	}
	d.i = len(d.s)
}

// word reads letters.
func (d *dateScanner) word() string {
	start := d.i
	for d.i < len(d.s) && (d.s[d.i]|0x20 >= 'a' && d.s[d.i]|0x20 <= 'z') {
		d.i++
	}
	return d.s[start:d.i]
}

// number reads digits, as far as they can mean something.
func (d *dateScanner) number() (n, digits int) {
	for ; d.i < len(d.s) && d.s[d.i] >= '0' && d.s[d.i] <= '9' && digits < 6; digits++ {
		n = n*10 + int(d.s[d.i]-'0')
		d.i++
	}
	return n, digits
}

// char passes over c, and reports whether it was there.
func (d *dateScanner) char(c byte) bool {
	if d.i < len(d.s) && d.s[d.i] == c {
		d.i++
		return true
	}
	return false
}

// clock reads a time of day.
func (d *dateScanner) clock() (hour, minute, second int, ok bool) {
	part := func() int {
		d.skip()
		n, digits := d.number()
		d.skip()
		if digits == 0 || digits > 2 {
			return 99
		}
		return n
	}
	hour = part()
	if !d.char(':') {
		return 0, 0, 0, false
	}
	minute = part()
	if d.char(':') {
		second = part()
	}
	return hour, minute, second, hour < 24 && minute < 60 && second <= 60
}

// zone reads a zone and returns its seconds east of UTC.
func (d *dateScanner) zone() int {
	sign := 1
	switch {
	case d.char('+'):
	case d.char('-'):
		sign = -1
	default:
		return obsoleteZone(strings.ToUpper(d.word())) * 3600
	}
	n, digits := d.number()
	if digits != 4 || n%100 > 59 {
		return 0
	}
	return sign * (n/100*3600 + n%100*60)
}

// obsoleteZone is how many hours a zone lies east of UTC. Zones of one letter count
// as UTC, for they have been used in both directions (RFC 5322 §4.3).
func obsoleteZone(name string) int {
	switch name {
	case "EDT":
		return -4
	case "EST", "CDT":
		return -5
	case "CST", "MDT":
		return -6
	case "MST", "PDT":
		return -7
	case "PST":
		return -8
	}
	return 0
}
