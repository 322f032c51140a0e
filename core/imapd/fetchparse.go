package imapd

import (
	"math"
	"strconv"
	"strings"
)

// fetchKind is one of the data items of FETCH.
type fetchKind uint8

const (
	fetchFlags fetchKind = iota
	fetchUID
	fetchDate
	fetchSize
	fetchModSeq
	fetchSaveDate
	fetchThreadID
	fetchEnvelope // what follows needs the message itself, or facts about it
	fetchEmailID
	fetchPreview
	fetchBody          // BODY without extension data
	fetchBodyStructure // with it
	fetchSection
	fetchBinary
	fetchBinarySize
)

type fetchItem struct {
	kind    fetchKind
	section *section
}

// sectionText is the last word of a section specification (RFC 9051 §6.4.5.1).
type sectionText uint8

const (
	wholeText sectionText = iota
	headerText
	fieldsText
	fieldsNotText
	bodyText
	mimeText
)

// section is what stands in BODY[…]<…>.
type section struct {
	part    []int // part numbers from 1
	text    sectionText
	fields  []string // header field names of fieldsText and fieldsNotText
	label   string   // as it goes into the reply, without the partial's origin
	partial bool
	offset  int64
	count   int64
	peek    bool
}

// fetchQuery is what FETCH asks for.
type fetchQuery struct {
	set          numSet
	items        []fetchItem
	changedSince uint64
	partial      *partial
	vanished     bool // UIDs that have gone since are asked for
}

// wants reports whether an item of kind k is asked for.
func (q *fetchQuery) wants(k fetchKind) bool {
	for _, it := range q.items {
		if it.kind == k {
			return true
		}
	}
	return false
}

// marksSeen reports whether the answer sets \Seen (RFC 9051 §6.4.5).
func (q *fetchQuery) marksSeen() bool {
	for _, it := range q.items {
		if it.section != nil && !it.section.peek {
			return true
		}
	}
	return false
}

// asksHeaders reports whether a headerFact answers some of it.
func (q *fetchQuery) asksHeaders() bool {
	for _, it := range q.items {
		if it.kind == fetchEnvelope || it.kind == fetchSection && len(it.section.part) == 0 && it.section.text == fieldsText && allNoted(it.section.fields) {
			return true
		}
	}
	return false
}

// opens reports whether the messages themselves have to be read.
func (q *fetchQuery) opens() bool {
	for _, it := range q.items {
		if it.kind >= fetchEnvelope {
			return true
		}
	}
	return false
}

func (q *fetchQuery) add(kinds ...fetchKind) {
	for _, k := range kinds {
		if !q.wants(k) {
			q.items = append(q.items, fetchItem{kind: k})
		}
	}
}

// fetchQuery reads FETCH's arguments (RFC 9051 §6.4.5).
func (p *parser) fetchQuery() (q fetchQuery, err error) {
	if err = p.space(); err != nil {
		return q, err
	}
	if q.set, err = p.numSet(); err != nil {
		return q, err
	}
	if err = p.space(); err != nil {
		return q, err
	}
	if p.peek() == '(' {
		err = p.list(func() error { return p.fetchItem(&q, false) })
	} else {
		err = p.fetchItem(&q, true)
	}
	if err != nil {
		return q, err
	}
	if len(q.items) == 0 {
		return q, bad("No data item is named")
	}
	if p.atEnd() {
		return q, nil
	}
	if err = p.space(); err != nil || p.atEnd() {
		return q, err
	}
	err = p.list(func() error {
		word, err := p.keyword()
		if err != nil {
			return err
		}
		if word == "VANISHED" {
			q.vanished = true
			return nil
		}
		if word == "PARTIAL" && q.partial == nil {
			if err := p.space(); err != nil {
				return err
			}
			q.partial, err = p.partial()
			return err
		}
		if word != "CHANGEDSINCE" {
			return bad("Unknown modifier")
		}
		if err := p.space(); err != nil {
			return err
		}
		q.changedSince, err = p.number64()
		q.add(fetchModSeq)
		return err
	})
	if err == nil && q.vanished && q.changedSince == 0 {
		err = bad("VANISHED needs CHANGEDSINCE")
	}
	if err != nil {
		return q, err
	}
	return q, p.end()
}

func isItemChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.'
}

// fetchItem reads one item, or if macro is true ALL, FAST or FULL.
func (p *parser) fetchItem(q *fetchQuery, macro bool) error {
	if len(q.items) >= maxKeys {
		return bad("Too many data items")
	}
	word := strings.ToUpper(p.run(isItemChar))
	switch word {
	case "ALL", "FAST", "FULL":
		if !macro {
			break
		}
		q.add(fetchFlags, fetchDate, fetchSize)
		if word != "FAST" {
			q.add(fetchEnvelope)
		}
		if word == "FULL" {
			q.add(fetchBody)
		}
		return nil
	case "FLAGS":
		q.add(fetchFlags)
		return nil
	case "UID":
		q.add(fetchUID)
		return nil
	case "INTERNALDATE":
		q.add(fetchDate)
		return nil
	case "RFC822.SIZE":
		q.add(fetchSize)
		return nil
	case "MODSEQ":
		q.add(fetchModSeq)
		return nil
	case "SAVEDATE":
		q.add(fetchSaveDate)
		return nil
	case "EMAILID":
		q.add(fetchEmailID)
		return nil
	case "THREADID":
		q.add(fetchThreadID)
		return nil
	case "PREVIEW":
		if p.peek() == ' ' && strings.HasPrefix(strings.ToUpper(string(p.rest())), " (LAZY)") {
			p.pos += len(" (LAZY)")
		}
		q.add(fetchPreview)
		return nil
	case "ENVELOPE":
		q.add(fetchEnvelope)
		return nil
	case "BODYSTRUCTURE":
		q.add(fetchBodyStructure)
		return nil
	case "RFC822":
		return q.addSection(fetchSection, &section{label: "RFC822"})
	case "RFC822.HEADER":
		return q.addSection(fetchSection, &section{label: "RFC822.HEADER", text: headerText, peek: true})
	case "RFC822.TEXT":
		return q.addSection(fetchSection, &section{label: "RFC822.TEXT", text: bodyText})
	case "BODY", "BODY.PEEK":
		if p.peek() != '[' && word == "BODY" {
			q.add(fetchBody)
			return nil
		}
		sec := &section{peek: word == "BODY.PEEK"}
		if err := p.section(sec); err != nil {
			return err
		}
		return q.addSection(fetchSection, sec)
	case "BINARY", "BINARY.PEEK", "BINARY.SIZE":
		sec := &section{peek: word != "BINARY"}
		if err := p.section(sec); err != nil {
			return err
		}
		if sec.text != wholeText {
			return bad("BINARY takes part numbers only")
		}
		sec.label = "BINARY" + strings.TrimPrefix(sec.label, "BODY")
		if word != "BINARY.SIZE" {
			return q.addSection(fetchBinary, sec)
		}
		if sec.partial {
			return bad("BINARY.SIZE has no partial")
		}
		sec.label = "BINARY.SIZE" + strings.TrimPrefix(sec.label, "BINARY")
		return q.addSection(fetchBinarySize, sec)
	}
	return bad("Unknown data item %s", clip(word, 40))
}

func (q *fetchQuery) addSection(k fetchKind, sec *section) error {
	q.items = append(q.items, fetchItem{k, sec})
	return nil
}

// section reads "[…]" and a partial, and makes the label.
func (p *parser) section(sec *section) error {
	if err := p.expect('['); err != nil {
		return err
	}
	var label strings.Builder
	label.WriteString("BODY[")
	word := ""
	for p.peek() != ']' {
		if c := p.peek(); c >= '0' && c <= '9' {
			n, err := p.number()
			if err != nil {
				return err
			}
			if n == 0 || n > math.MaxInt32 || len(sec.part) >= 200 {
				return bad("Bad part number")
			}
			if len(sec.part) > 0 {
				label.WriteByte('.')
			}
			label.WriteString(strconv.Itoa(int(n)))
			sec.part = append(sec.part, int(n))
			if p.eat('.') {
				if p.peek() == ']' {
					return bad("Section ends with a dot")
				}
				continue
			}
			break
		}
		word = strings.ToUpper(p.run(isItemChar))
		if word == "" {
			return bad("Malformed section")
		}
		break
	}
	if word != "" && len(sec.part) > 0 {
		label.WriteByte('.')
	}
	label.WriteString(word)
	switch word {
	case "":
	case "HEADER":
		sec.text = headerText
	case "TEXT":
		sec.text = bodyText
	case "MIME":
		if sec.text = mimeText; len(sec.part) == 0 {
			return bad("MIME needs a part number")
		}
	case "HEADER.FIELDS", "HEADER.FIELDS.NOT":
		sec.text = fieldsText
		if word != "HEADER.FIELDS" {
			sec.text = fieldsNotText
		}
		if err := p.headerList(sec, &label); err != nil {
			return err
		}
	default:
		return bad("Unknown section %s", clip(word, 40))
	}
	if err := p.expect(']'); err != nil {
		return err
	}
	label.WriteByte(']')
	sec.label = label.String()
	return p.partialRange(sec)
}

// headerList reads " (name name …)".
func (p *parser) headerList(sec *section, label *strings.Builder) error {
	if err := p.space(); err != nil {
		return err
	}
	label.WriteString(" (")
	err := p.list(func() error {
		name, err := p.astring()
		if err != nil {
			return err
		}
		if len(name) > 255 || strings.ContainsAny(name, "\r\n") {
			return bad("Bad header field name")
		}
		if len(sec.fields) > 0 {
			label.WriteByte(' ')
		}
		sec.fields = append(sec.fields, name)
		label.WriteString(quoteName(name))
		return nil
	})
	if err == nil && len(sec.fields) == 0 {
		return bad("No header field is named")
	}
	label.WriteByte(')')
	return err
}

// quoteName writes a field name as an astring; octets that no field name has
// and that cannot be quoted become "?".
func quoteName(name string) string {
	atom := name != ""
	for i := 0; i < len(name); i++ {
		atom = atom && isAtomChar(name[i])
	}
	if atom {
		return name
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c < ' ' || c >= 0x7f:
			b.WriteByte('?')
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			fallthrough
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// partialRange reads "<offset.count>".
func (p *parser) partialRange(sec *section) error {
	if !p.eat('<') {
		return nil
	}
	offset, err := p.number64()
	if err != nil {
		return err
	}
	if err := p.expect('.'); err != nil {
		return err
	}
	count, err := p.number64()
	if err != nil {
		return err
	}
	if count == 0 {
		return bad("Partial of no octets")
	}
	sec.partial, sec.offset, sec.count = true, int64(offset), int64(count)
	return p.expect('>')
}
