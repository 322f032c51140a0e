package dmarc

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Alignment says how alike two domains have to be.
type Alignment string

// The alignments (RFC 9989 §3.2.10).
const (
	Relaxed Alignment = "r" // the same organizational domain
	Strict  Alignment = "s" // the same domain
)

// Record is a DMARC policy record (RFC 9989 §4.7, RFC 7489 §6.3).
type Record struct {
	P, SP, NP   Policy // SP and NP are "" where they were not given
	ADKIM, ASPF Alignment
	FO          string // when failure reports are wanted: "0", "1", "d", "s" with colons between them
	RUA, RUF    []URI  // where reports go; those that are no URI are left out
	PSD         string // "y", "n" or "u"
	Test        bool   // t=y: the next milder policy is to be applied
	// Of RFC 7489 only:
	Percent  int    // pct, 0 to 100: of failing messages that the policy is for
	Format   string // rf, as it was given
	Interval int    // ri, seconds between aggregate reports
	// Flaws says which parts of the record were passed over, and why.
	Flaws []string
}

// Bounds of a record.
const (
	maxRecord = 16 << 10 // octets
	maxURIs   = 20       // of rua, and of ruf
	maxFlaws  = 10
)

// Why a text is no record.
var (
	// ErrNotRecord means that the text is not about DMARC: to be passed over.
	ErrNotRecord = errors.New("does not begin with v=DMARC1")
	// ErrNoPolicy means that the record is one, but that DMARC does not apply
	// where it does (RFC 9989 §4.10.1).
	ErrNoPolicy = errors.New("record has no valid policy and no address for reports")
)

// ParseRecord reads a TXT record, whose strings were joined. What is wrong in it is
// replaced by its default, unknown tags are ignored, and of a tag that is given twice
// the first counts. If p is missing or bad, or sp or np is bad, the record counts as
// p=none if it has a URI for aggregate reports. The errors are ErrNotRecord and
// ErrNoPolicy.
func ParseRecord(txt string) (Record, error) {
	r, ok := parseRecord(txt)
	switch {
	case !ok:
		return Record{}, ErrNotRecord
	case r.P == "":
		return Record{}, ErrNoPolicy
	}
	return r, nil
}

// parseRecord reads a text that begins as a record does. P stays empty if no policy
// can be read out of it.
func parseRecord(txt string) (Record, bool) {
	if len(txt) > maxRecord {
		return Record{}, false
	}
	version, rest, _ := strings.Cut(txt, ";")
	name, value, ok := strings.Cut(version, "=")
	// No white space stands before the first tag, and the version minds case.
	if !ok || !strings.EqualFold(strings.TrimRight(name, wsp), "v") || strings.Trim(value, wsp) != "DMARC1" {
		return Record{}, false
	}
	r := Record{ADKIM: Relaxed, ASPF: Relaxed, FO: "0", PSD: "u", Percent: 100, Format: "afrf", Interval: 86400}
	var seen tags
	bad := false // p, sp or np cannot be read
	for rest != "" {
		var tag string
		tag, rest, _ = strings.Cut(rest, ";")
		name, value, ok := strings.Cut(tag, "=")
		name = strings.ToLower(strings.Trim(name, wsp))
		value = strings.Trim(value, wsp)
		switch {
		case !ok && name == "":
			continue
		case !ok:
			r.flaw("%.20q is no tag", name)
			continue
		case seen.twice(name):
			r.flaw("tag %s stands twice", name)
			continue
		}
		if !r.set(name, value) {
			r.flaw("tag %s has the value %.40q", name, value)
			bad = bad || name == "p" || name == "sp" || name == "np"
		}
	}
	if bad || r.P == "" {
		r.P, r.SP, r.NP = "", "", ""
		if len(r.RUA) > 0 {
			r.P = None
		}
	}
	return r, true
}

// wsp is the white space of the grammar (RFC 5234 Appendix B.1).
const wsp = " \t"

// flaw notes what is wrong.
func (r *Record) flaw(format string, args ...any) {
	if len(r.Flaws) < maxFlaws {
		r.Flaws = append(r.Flaws, fmt.Sprintf(format, args...))
	}
}

// tags remembers which of the known tags were seen.
type tags uint16

// twice reports whether a known tag is seen again.
func (t *tags) twice(name string) bool {
	for i, known := range [...]string{"p", "sp", "np", "adkim", "aspf", "fo", "rua", "ruf", "psd", "t", "pct", "rf", "ri"} {
		if name == known {
			was := *t&(1<<i) != 0
			*t |= 1 << i
			return was
		}
	}
	return false
}

// set takes one tag. It is false if the value is not one of that tag's.
func (r *Record) set(name, value string) bool {
	switch name {
	case "p":
		return r.P.set(value)
	case "sp":
		return r.SP.set(value)
	case "np":
		return r.NP.set(value)
	case "adkim":
		return r.ADKIM.set(value)
	case "aspf":
		return r.ASPF.set(value)
	case "fo":
		return r.setFO(value)
	case "rua":
		return parseURIs(value, &r.RUA)
	case "ruf":
		return parseURIs(value, &r.RUF)
	case "psd":
		return one(value, "y", "n", "u", &r.PSD)
	case "t":
		t := "n"
		ok := one(value, "y", "n", "n", &t)
		r.Test = t == "y"
		return ok
	case "pct":
		return number(value, 100, &r.Percent)
	case "rf":
		r.Format = value
	case "ri":
		return number(value, 1<<31-1, &r.Interval)
	}
	return true
}

func (p *Policy) set(value string) bool {
	return one(Policy(value), None, Quarantine, Reject, p)
}

func (a *Alignment) set(value string) bool {
	return one(Alignment(value), Relaxed, Strict, Strict, a)
}

// one stores value if it is a, b or c in any case.
func one[T ~string](value, a, b, c T, to *T) bool {
	for _, v := range [...]T{a, b, c} {
		if strings.EqualFold(string(value), string(v)) {
			*to = v
			return true
		}
	}
	return false
}

// number stores a number without a sign, up to most.
func number(value string, most int, to *int) bool {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n > uint64(most) {
		return false
	}
	*to = int(n)
	return true
}

// setFO takes a list of options of which each stands at most once, and not both "0"
// and "1".
func (r *Record) setFO(value string) bool {
	var list []string
	for o := range strings.SplitSeq(strings.ToLower(value), ":") {
		o = strings.Trim(o, wsp)
		if len(o) != 1 || !strings.Contains("01ds", o) || len(list) == 3 {
			return false
		}
		for _, have := range list {
			if have == o || have == "0" && o == "1" || have == "1" && o == "0" {
				return false
			}
		}
		list = append(list, o)
	}
	r.FO = strings.Join(list, ":")
	return true
}
