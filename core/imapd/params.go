package imapd

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// paramSection is a piece of a parameter that was too long for one (RFC 2231 §3).
type paramSection struct {
	name     string // of the whole
	number   int
	extended bool // its value is percent-encoded, with a character set in the first one (§4)
	value    string
	place    int
}

// joinSections joins parameters that come in sections: one that has an encoded section
// keeps a "*" after its name. Joined ones stand after all others, as Dovecot has them.
// A section whose predecessors are missing is left as it came.
func joinSections(params []mail.Param) []mail.Param {
	var sections []paramSection
	for i, p := range params {
		if s, ok := sectionOf(p); ok {
			s.place = i
			sections = append(sections, s)
		}
	}
	if sections == nil {
		return params
	}
	slices.SortStableFunc(sections, func(a, b paramSection) int {
		return cmp.Or(strings.Compare(strings.ToLower(a.name), strings.ToLower(b.name)), cmp.Compare(a.number, b.number))
	})
	var whole []mail.Param
	used := map[int]bool{}
	for len(sections) > 0 {
		first := sections[0]
		var value strings.Builder
		extended, n := false, 0
		for n < len(sections) && sections[n].number == n && strings.EqualFold(sections[n].name, first.name) {
			value.WriteString(sections[n].value)
			extended = extended || sections[n].extended
			used[sections[n].place] = true
			n++
		}
		if n > 0 {
			name := first.name
			if extended {
				name += "*"
			}
			whole = append(whole, mail.Param{Name: name, Value: value.String()})
		}
		sections = sections[max(n, 1):]
	}
	out := make([]mail.Param, 0, len(params))
	for i, p := range params {
		if !used[i] {
			out = append(out, p)
		}
	}
	return append(out, whole...)
}

// sectionOf reads a name such as "filename*1*".
func sectionOf(p mail.Param) (s paramSection, ok bool) {
	name, number, ok := strings.Cut(p.Name, "*")
	if !ok || name == "" {
		return s, false
	}
	number, extended := strings.CutSuffix(number, "*")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != number {
		return s, false
	}
	return paramSection{name: name, number: int(n), extended: extended, value: p.Value}, true
}
