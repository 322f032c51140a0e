package main

import (
	"strconv"
	"strings"

	"github.com/wafermail/wafer/sdk"
)

// Bounds of a message's header. What is beyond is not looked at.
const (
	maxFields = 1000
	maxHeader = 256 << 10 // octets of all fields
	maxValue  = 8 << 10   // octets of one decoded value that rules see
)

// content is a message as rules see it. Values are decoded.
type content struct {
	header [][2]string // name and value as it is written
	fields []field     // that rules name
	any    []text      // "Name: value" of the message's own
	files  []text
	unread bool
}

func (k *checks) judge(e *sdk.Event) sdk.Verdict {
	var m content
	if err := m.readHeader(e, k.names); err != nil {
		return sdk.Fail("read header: " + err.Error())
	}
	if k.needsParts {
		w := walk{limit: k.maxBody, field: m.addPart, file: func(name string) { m.files = append(m.files, newText(name)) }}
		if err := w.message(m.header, e.Body); err != nil {
			return sdk.Fail("read body: " + err.Error())
		}
		m.unread = m.unread || w.unread
	}
	return k.decide(e, &m)
}

// field is a decoded header field.
type field struct {
	name string // in lower case; of a part with partPrefix
	text
}

// readHeader reads the header and decodes the fields that names has, all if it
// has fieldAny.
func (m *content) readHeader(e *sdk.Event, names map[string]bool) error {
	octets := 0
	for i := 0; ; i++ {
		line, ok, err := e.Header("", i)
		if err != nil || !ok {
			return err
		}
		if octets += len(line); i >= maxFields || octets > maxHeader {
			m.unread = true
			return nil
		}
		name, value, _ := strings.Cut(line, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		m.header = append(m.header, [2]string{name, value})
		lower := strings.ToLower(name)
		if !names[lower] && !names[fieldAny] {
			continue
		}
		value = shorten(decodeWords(value))
		m.fields = append(m.fields, field{lower, newText(value)})
		if names[fieldAny] {
			m.any = append(m.any, newText(name+": "+value))
		}
	}
}

func (m *content) addPart(name, value string) {
	m.fields = append(m.fields, field{partPrefix + strings.ToLower(name), newText(shorten(decodeWords(value)))})
}

func shorten(s string) string { return s[:min(len(s), maxValue)] }

// decide looks for faults of the header, then at the rules, then at attachments.
func (k *checks) decide(e *sdk.Event, m *content) sdk.Verdict {
	v := sdk.Next()
	for _, name := range k.require {
		if m.count(name) == 0 {
			e.Metric("missing", 1)
			if k.fieldAction != actTag {
				return ends(k.fieldAction, k.missing.about(name)).Because("headers-missing")
			}
			v = v.Tag("headers-missing")
			break
		}
	}
	for _, name := range k.single {
		if m.count(name) > 1 {
			e.Metric("duplicate", 1)
			if k.fieldAction != actTag {
				return ends(k.fieldAction, k.twice.about(name)).Because("headers-duplicate")
			}
			v = v.Tag("headers-duplicate")
			break
		}
	}
	effects := 0
	for i := range k.rules {
		r := &k.rules[i]
		value, found := m.find(r)
		if found == r.not {
			continue
		}
		e.Metric("rule-"+strconv.Itoa(i+1), 1)
		if !r.isEffect() {
			return with(ends(r.action, r.answer(value)).Because("headers-rule"), v)
		}
		if effects++; effects <= maxEffects {
			v = r.effect(e, v, i+1, value)
		}
	}
	for _, file := range m.files {
		name := file.value
		if !k.extensions.refuse(name) {
			continue
		}
		e.Metric("attachment", 1)
		if k.attachmentAction != actTag {
			p := k.attachmentReply
			p.text = strings.ReplaceAll(p.text, "%n", name)
			return with(ends(k.attachmentAction, p).Because("headers-attachment"), v)
		}
		v = v.Tag("headers-attachment")
		break
	}
	if m.unread {
		e.Metric("unread", 1)
		if k.unreadAction != actTag {
			return with(ends(k.unreadAction, k.unread).Because("headers-unread"), v)
		}
		v = v.Tag("headers-unread")
	}
	return v
}

// maxEffects is how many effects one verdict has room for beside its own tags.
const maxEffects = 56

// with gives v the effects of before.
func with(v, before sdk.Verdict) sdk.Verdict {
	v.Mods, v.Score = append(before.Mods, v.Mods...), v.Score+before.Score
	return v
}

// count is how many fields of the message have this name.
func (m *content) count(name string) (n int) {
	for _, f := range m.header {
		if strings.EqualFold(f[0], name) {
			n++
		}
	}
	return n
}

// find returns the first value that a rule's expression matches.
func (m *content) find(r *rule) (value string, found bool) {
	for _, name := range r.fields {
		switch name {
		case fieldAny:
			for i := range m.any {
				if r.matches(&m.any[i]) {
					return m.any[i].value, true
				}
			}
		case fieldFile:
			for i := range m.files {
				if r.matches(&m.files[i]) {
					return m.files[i].value, true
				}
			}
		default:
			for i := range m.fields {
				if f := &m.fields[i]; f.name == name && r.matches(&f.text) {
					return f.value, true
				}
			}
		}
	}
	return "", false
}

// answer is the rule's reply; $1 in it is what the first group matched.
func (r *rule) answer(value string) reply {
	p := r.reply
	if !r.not && strings.Contains(p.text, "$") {
		p.text = string(r.pattern.ExpandString(nil, p.text, value, r.pattern.FindStringSubmatchIndex(value)))
	}
	return p
}

// effect adds what a rule does besides ending the rules.
func (r *rule) effect(e *sdk.Event, v sdk.Verdict, number int, value string) sdk.Verdict {
	switch r.action {
	case actTag:
		return v.Tag(r.word)
	case actScore:
		return v.AddScore(r.score)
	case actBCC:
		return v.BCC(r.word)
	case actRedirect:
		return v.Redirect(r.word)
	}
	e.Log(sdk.Warn, "rule "+strconv.Itoa(number)+" matches "+strconv.Quote(value[:min(len(value), 200)]))
	return v
}

// about puts a name at the end of a reply.
func (p reply) about(name string) reply {
	p.text += name
	return p
}
