package imapd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/maildir"
)

// factsVersion is that of what is kept in a folder's facts. It changes with the
// encoding, and with anything in how a message is described.
const factsVersion = 2

// The facts that are kept about a message.
const (
	headerFact     maildir.FactKind = 1 // length of the ENVELOPE, the ENVELOPE as it is sent, the fields of notedNames as they stand
	structureFact  maildir.FactKind = 2 // length of the BODY, the BODY, the BODYSTRUCTURE as they are sent
	structureFact2 maildir.FactKind = 3 // the same as IMAP4rev2 has them
	emailFact      maildir.FactKind = 4 // the EMAILID
	previewFact    maildir.FactKind = 5 // the PREVIEW
)

// notedNames are the fields of a header that clients ask for in lists of messages,
// and that searching and sorting look at. In lower case, sorted.
var notedNames = []string{ // never changed
	"bcc", "cc", "content-type", "date", "from", "importance", "in-reply-to", "list-id", "message-id", "newsgroups",
	"priority", "references", "reply-to", "sender", "subject", "to", "x-priority",
}

// longestName is the length of the longest of notedNames.
const longestName = 12

// isNoted reports whether a field is one of notedNames.
func isNoted(name string) bool {
	if len(name) > longestName {
		return false
	}
	var b [longestName]byte
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b[i] = c
	}
	_, found := slices.BinarySearch(notedNames, string(b[:len(name)]))
	return found
}

func allNoted(names []string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return !isNoted(n) })
}

func (v *view) getFacts() *maildir.Facts {
	if v.facts == nil {
		v.facts = v.folder.Facts(factsVersion)
	}
	return v.facts
}

// noted writes what has been noted.
func (v *view) noted() {
	if v.facts != nil {
		v.facts.Flush()
	}
}

// envelope is the message's ENVELOPE as it is sent.
func (m *message) envelope() ([]byte, error) {
	env, _, err := m.headerFact()
	return env, err
}

// notedFields is a block of the header's fields that are in notedNames, at least.
func (m *message) notedFields() ([]byte, error) {
	if m.header != nil {
		return m.header, nil
	}
	_, fields, err := m.headerFact()
	return fields, err
}

// headerFact finds the headerFact, or makes it of the header. What it returns is
// valid until the next fact is asked for.
func (m *message) headerFact() (env, fields []byte, err error) {
	f := m.v.getFacts()
	if m.header == nil {
		if b, ok := f.Get(m.uid, headerFact); ok {
			if env, fields, ok = twoParts(b); ok {
				return env, fields, nil
			}
		}
	}
	b, err := m.describeHeader()
	if err != nil {
		return nil, nil, err
	}
	f.Note(m.uid, headerFact, b)
	env, fields, _ = twoParts(b)
	return env, fields, nil
}

// describeHeader makes the headerFact of the header.
func (m *message) describeHeader() ([]byte, error) {
	if err := m.readHeader(); err != nil {
		return nil, err
	}
	env := rendered(func(w *writer) error { writeEnvelope(w, m.header); return nil })
	b := append(binary.AppendUvarint(make([]byte, 0, 2*len(env)), uint64(len(env))), env...)
	for field := range mail.HeaderFields(m.header) {
		if isNoted(field.Name()) {
			b = append(b, field.Raw...)
		}
	}
	return b, nil
}

// structureKind is the fact that holds a message's structure.
func structureKind(rev2 bool) maildir.FactKind {
	if rev2 {
		return structureFact2
	}
	return structureFact
}

// structure is the message's BODY and BODYSTRUCTURE as they are sent.
func (m *message) structure(rev2 bool) (body, structure []byte, err error) {
	kind := structureKind(rev2)
	f := m.v.getFacts()
	if b, ok := f.Get(m.uid, kind); ok {
		if body, structure, ok = twoParts(b); ok {
			return body, structure, nil
		}
	}
	b, err := m.describeStructure(rev2)
	if err != nil {
		return nil, nil, err
	}
	f.Note(m.uid, kind, b)
	body, structure, _ = twoParts(b)
	return body, structure, nil
}

// describeStructure makes the structureFact of the message's parts.
func (m *message) describeStructure(rev2 bool) (b []byte, err error) {
	if err := m.parse(); err != nil {
		return nil, err
	}
	write := func(extended bool) []byte {
		return rendered(func(w *writer) error {
			werr := (&bodyWriter{w: w, msg: m, extended: extended, global: rev2}).write(m.tree)
			err = errors.Join(err, werr)
			return werr
		})
	}
	body, structure := write(false), write(true)
	return slices.Concat(binary.AppendUvarint(nil, uint64(len(body))), body, structure), err
}

// twoParts takes a fact apart that begins with the length of its first part.
func twoParts(b []byte) (first, second []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, false
	}
	return b[k : k+int(n)], b[k+int(n):], true
}

// rendered is what f writes. Errors of f leave it incomplete.
func rendered(f func(*writer) error) []byte {
	var out bytes.Buffer
	w := writer{dst: &out, deadline: func(time.Duration) {}, buf: make([]byte, 0, 1024)}
	_ = f(&w) // f keeps its error
	w.flush()
	return out.Bytes()
}
