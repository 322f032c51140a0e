package arc

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/wafermail/wafer/core/authres"
	"github.com/wafermail/wafer/core/dkim"
)

// The fields of a set, in the order in which seals cover them (RFC 8617 §5.1.1).
const (
	kindResults = iota
	kindMessage
	kindSeal
	kinds
)

// kindOf is the kind of the field called name in lower case.
func kindOf(name string) (kind int, ok bool) {
	switch name {
	case "arc-authentication-results":
		return kindResults, true
	case "arc-message-signature":
		return kindMessage, true
	case "arc-seal":
		return kindSeal, true
	}
	return 0, false
}

// name is the kind for people.
func name(kind int) string {
	return [kinds]string{FieldResults, FieldMessage, FieldSeal}[kind]
}

// set is a set as it stands in a message. Absent fields have the index -1.
type set struct {
	fields        [kinds]int // indexes in Message.Fields
	results       authres.Field
	message, seal signature
	cv            CV
}

// chain is all that a message has of ARC.
type chain struct {
	m      *dkim.Message
	fields int   // how many there are; not all were read if there are too many
	sets   []set // by instance, the first is that of i=1
	fault  *fault
}

// fault says why a chain cannot pass. A nil *fault means that nothing is wrong.
type fault struct {
	reason Reason
	text   string
}

func faultf(r Reason, format string, args ...any) *fault {
	return &fault{r, fmt.Sprintf(format, args...)}
}

// collect reads the chain of a message and checks its structure (RFC 8617 §5.2, steps
// 1 to 3).
func collect(m *dkim.Message, maxSets int) *chain {
	c := &chain{m: m}
	for i := range m.Fields {
		kind, ok := kindOf(m.Fields[i].Name)
		if !ok {
			continue
		}
		c.fields++
		if c.fields > kinds*maxSets {
			continue // counted only
		}
		c.note(c.add(i, kind, maxSets))
	}
	switch {
	case c.fields > kinds*maxSets:
		c.fault = faultf(TooManySets, "there are %d ARC fields; %d sets are allowed", c.fields, maxSets)
	case c.fault != nil && c.fault.reason == TooManySets:
	case c.ended():
		c.fault = faultf(Ended, "the seal of set %d says that the chain failed before", len(c.sets))
	default:
		c.note(c.gaps())
		c.note(c.statuses())
	}
	return c
}

// note keeps the first fault, but that there are too many sets comes before all.
func (c *chain) note(f *fault) {
	if c.fault == nil || f != nil && f.reason == TooManySets && c.fault.reason != TooManySets {
		c.fault = f
	}
}

// add reads a field.
func (c *chain) add(index, kind, maxSets int) *fault {
	raw := c.m.Fields[index].Raw
	var s signature
	var results authres.Field
	instance, ok := 0, false
	if kind == kindResults {
		instance, results, ok = readResults(raw)
	} else {
		s = readSignature(raw)
		i, _ := s.Tags.Lookup("i")
		instance, ok = number(i)
	}
	switch {
	case !ok && s.fault != nil && s.Tags == nil:
		return faultf(Unreadable, "an %s cannot be read: %s", name(kind), s.fault.Text)
	case !ok || instance == 0:
		return faultf(Unreadable, "an %s has no instance number", name(kind))
	case instance > maxSets:
		return faultf(TooManySets, "there is a set %d; %d sets are allowed", instance, maxSets)
	}
	for len(c.sets) < instance {
		c.sets = append(c.sets, set{fields: [kinds]int{-1, -1, -1}})
	}
	t := &c.sets[instance-1]
	if t.fields[kind] >= 0 {
		return faultf(Duplicate, "set %d has more than one %s", instance, name(kind))
	}
	t.fields[kind] = index
	switch kind {
	case kindResults:
		t.results = results
	case kindMessage:
		t.message = s
	case kindSeal:
		cv, _ := s.Tags.Lookup("cv")
		t.seal, t.cv = s, CV(strings.ToLower(cv[:min(len(cv), 20)]))
	}
	return nil
}

// ended reports whether the newest set says that the chain is broken.
func (c *chain) ended() bool {
	return len(c.sets) > 0 && c.sets[len(c.sets)-1].cv == Fail
}

// gaps looks for what a chain lacks.
func (c *chain) gaps() *fault {
	for i, t := range c.sets {
		for kind, index := range t.fields {
			if index < 0 {
				return faultf(Incomplete, "set %d of %d has no %s", i+1, len(c.sets), name(kind))
			}
		}
	}
	return nil
}

// statuses checks that each seal says of the chain before it what alone can be true.
func (c *chain) statuses() *fault {
	for i, t := range c.sets {
		want := Pass
		if i == 0 {
			want = None
		}
		if t.cv != want {
			return faultf(ChainStatus, "the seal of set %d says cv=%q, not %s", i+1, string(t.cv), want)
		}
	}
	return nil
}

// covered returns the fields that the seals of the first n sets cover together.
func (c *chain) covered(n int) [][]byte {
	fields := make([][]byte, 0, kinds*(n+1))
	for _, t := range c.sets[:n] {
		for _, index := range t.fields {
			fields = append(fields, c.m.Fields[index].Raw)
		}
	}
	return fields
}

// report is what can be told of the sets before they are verified.
func (c *chain) report() []Set {
	var sets []Set
	for i, t := range c.sets {
		if t.fields == [kinds]int{-1, -1, -1} {
			continue
		}
		s := Set{Instance: i + 1, CV: t.cv, AuthResults: t.results, Message: t.message.describe(), Seal: t.seal.describe()}
		s.Domain, s.Selector = s.Seal.Domain, s.Seal.Selector
		sets = append(sets, s)
	}
	return sets
}

// number reads an instance number (RFC 8617 §4.2.1): one or two digits.
func number(s string) (n int, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int(s[i]-'0')
		if i == 2 {
			return 0, false
		}
	}
	return n, s != ""
}

// readResults reads an ARC-Authentication-Results field (RFC 8617 §4.1.1). That its
// results cannot be read is no fault of the chain.
func readResults(raw []byte) (instance int, results authres.Field, ok bool) {
	s := string(raw[bytes.IndexByte(raw, ':')+1:])
	for _, want := range []string{"i", "="} {
		if s, ok = strings.CutPrefix(skipBlank(s), want); !ok {
			return 0, results, false
		}
	}
	s = skipBlank(s)
	digits := 0
	for digits < len(s) && s[digits] >= '0' && s[digits] <= '9' {
		digits++
	}
	if instance, ok = number(s[:digits]); !ok {
		return 0, results, false
	}
	if s, ok = strings.CutPrefix(skipBlank(s[digits:]), ";"); !ok {
		return 0, results, false
	}
	results, err := authres.Parse(s)
	if err != nil {
		results = authres.Field{}
	}
	return instance, results, true
}

// skipBlank returns s from the first octet on that is neither white space nor in a
// comment (RFC 5322 §3.2.2). A comment that never ends is all that is left.
func skipBlank(s string) string {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == '\\' && depth > 0:
			i++
		case depth > 0 || c == ' ' || c == '\t' || c == '\r' || c == '\n':
		default:
			return s[i:]
		}
	}
	return ""
}
