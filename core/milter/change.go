package milter

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// change is one thing that the milter wants done to the message.
type change struct {
	kind        byte // ansAddHeader, …
	index       uint32
	name, value string // of a field; name: an address, or why to hold
	args        string // parameters of an address
}

func (c change) size() int { return len(c.name) + len(c.value) + len(c.args) }

// parseChange reads a change; ok is false if code is none.
func parseChange(code byte, data []byte) (c change, ok bool, err error) {
	c.kind = code
	switch code {
	case ansReplBody:
		return c, true, nil
	case ansInsHeader, ansChgHeader:
		if len(data) < 4 {
			return c, true, fmt.Errorf("change %q of %d octets: %w", code, len(data), errGarbage)
		}
		c.index, data = binary.BigEndian.Uint32(data), data[4:]
		fallthrough
	case ansAddHeader:
		var named, valued bool
		c.name, data, named = cutString(data)
		c.value, _, valued = cutString(data)
		if !named || !valued {
			return c, true, fmt.Errorf("change %q: a string does not end: %w", code, errGarbage)
		}
		return c, true, nil
	case ansAddRcpt, ansAddRcptP, ansDelRcpt, ansChgFrom, ansHold:
		if c.name, data, ok = cutString(data); !ok {
			return c, true, fmt.Errorf("change %q: a string does not end: %w", code, errGarbage)
		}
		if code == ansAddRcptP || code == ansChgFrom {
			c.args, _, _ = cutString(data)
		}
		return c, true, nil
	}
	return c, false, nil
}

// String is the change in the decision log.
func (c change) String() string {
	switch c.kind {
	case ansAddHeader:
		return "add header " + c.name
	case ansInsHeader:
		return "insert header " + c.name + " at " + strconv.Itoa(int(c.index))
	case ansChgHeader:
		if c.value == "" {
			return "delete header " + c.name + " " + strconv.Itoa(int(c.index))
		}
		return "change header " + c.name + " " + strconv.Itoa(int(c.index))
	case ansAddRcpt, ansAddRcptP:
		return strings.TrimSpace("add recipient " + c.name + " " + c.args)
	case ansDelRcpt:
		return "delete recipient " + c.name
	case ansChgFrom:
		return strings.TrimSpace("change sender to " + c.name + " " + c.args)
	case ansReplBody:
		return "replace body"
	}
	return "hold " + c.name
}

// outcome is what a question came to.
type outcome struct {
	answer  answer
	changes []change // at Message
	late    int      // recipients that were refused too late for a reply
}

// verdict is out for a policy, and what of it could not be done.
func (o outcome) verdict(ev *policy.Event) (policy.Verdict, misses) {
	v := policy.Verdict{Action: o.answer.action, Status: o.answer.status, Reason: o.answer.reason}
	var missed misses
	if o.late > 0 {
		missed.add("refuse-recipient", strconv.Itoa(o.late)+" refused too late for a reply")
	}
	if v.Action != policy.Next { // what is refused or dropped is not changed
		return v, missed
	}
	e := effects{ev: ev, missed: missed}
	for _, c := range o.changes {
		if c.kind == ansHold {
			v.Action, v.Reason = policy.Hold, "milter-quarantine"
			continue
		}
		e.apply(c)
	}
	v.Effects = policy.Effects{Prepend: e.fields(), BCC: e.bcc}
	return v, e.missed
}

// effects gathers what changes come to.
type effects struct {
	ev       *policy.Event
	inserted []policy.Field // the last one stands on top
	added    []policy.Field
	bcc      []mail.Path
	missed   misses
}

// apply is the one place where it is decided what becomes of a change. What has no
// effect is missed.
func (e *effects) apply(c change) {
	switch c.kind {
	case ansAddHeader:
		e.field(c, &e.added)
	case ansInsHeader:
		if c.index > 1 { // 0 is above our own trace field, 1 below it
			e.missed.add("header-position", c.String()+": put on top")
		}
		e.field(c, &e.inserted)
	case ansChgHeader:
		_, exists := e.ev.Content.Header(c.name, int(max(c.index, 1))-1)
		switch {
		case !exists && c.value == "": // it is done
		case !exists: // as Sendmail and Postfix do
			e.field(c, &e.added)
		case c.value == "":
			e.missed.add("delete-header", c.String())
		default:
			e.missed.add("change-header", c.String())
		}
	case ansAddRcpt, ansAddRcptP:
		e.recipient(c)
	case ansDelRcpt:
		e.missed.add("delete-recipient", c.String())
	case ansChgFrom:
		e.missed.add("change-sender", c.String())
	case ansReplBody:
		e.missed.add("replace-body", c.String())
	}
}

// field keeps a field that is to be put on top.
func (e *effects) field(c change, list *[]policy.Field) {
	switch {
	case !isFieldName(c.name):
		e.missed.add("invalid-header", c.String())
	case !policy.LegalEffect(e.ev.Stage, policy.Prepend):
		e.missed.add("add-header", c.String())
	default:
		*list = append(*list, policy.Field{Name: c.name, Value: unfold(c.value)})
	}
}

// fields are those on top, in their order.
func (e *effects) fields() []policy.Field {
	all := make([]policy.Field, 0, len(e.inserted)+len(e.added))
	for i := range e.inserted {
		all = append(all, e.inserted[len(e.inserted)-1-i])
	}
	if all = append(all, e.added...); len(all) == 0 {
		return nil
	}
	return all
}

// recipient keeps one more recipient.
func (e *effects) recipient(c change) {
	name := strings.TrimSpace(c.name)
	if strings.HasPrefix(name, "<") && strings.HasSuffix(name, ">") {
		name = name[1 : len(name)-1]
	}
	p, err := mail.ParsePath(name, true)
	switch {
	case err != nil || p.Domain() == "":
		e.missed.add("invalid-recipient", c.String())
		return
	case !policy.LegalEffect(e.ev.Stage, policy.BCC):
		e.missed.add("add-recipient", c.String())
		return
	case c.args != "":
		e.missed.add("recipient-parameters", c.String())
	}
	e.bcc = append(e.bcc, p)
}

// isFieldName reports whether s is a header field's name (RFC 5322 §2.2).
func isFieldName(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || c == ':' {
			return false
		}
	}
	return s != "" && len(s) <= 76
}

// unfold is a field's body in one line: line ends go where a blank follows, and
// become blanks where none does, so that nothing can begin another field.
func unfold(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\r' || c == '\n':
			if next := i + 1; next < len(s) && strings.IndexByte(" \t\r\n", s[next]) < 0 {
				b.WriteByte(' ')
			}
		case c < ' ' && c != '\t' || c == 0x7f:
			b.WriteByte(' ')
		default:
			b.WriteByte(c)
		}
	}
	return strings.TrimSpace(b.String())
}

// misses are changes that were not made, by kind.
type misses []miss

type miss struct {
	what  string
	count int64
	first string // of the kind
}

func (m *misses) add(what, first string) {
	for i := range *m {
		if (*m)[i].what == what {
			(*m)[i].count++
			return
		}
	}
	*m = append(*m, miss{what, 1, first})
}
