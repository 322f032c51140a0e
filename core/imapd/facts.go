package imapd

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/maildir"
)

// factsVersion is that of what is kept in a folder's facts. It changes with the
// encoding, and with anything in how a message is described.
const factsVersion = 1

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
	if err := m.readHeader(); err != nil {
		return nil, nil, err
	}
	b := binary.AppendUvarint(nil, 0)
	env = rendered(func(w *writer) error { writeEnvelope(w, m.header); return nil })
	b = append(binary.AppendUvarint(b[:0], uint64(len(env))), env...)
	at := len(b)
	for field := range mail.HeaderFields(m.header) {
		if isNoted(field.Name()) {
			b = append(b, field.Raw...)
		}
	}
	f.Note(m.uid, headerFact, b)
	return env, b[at:], nil
}

// structure is the message's BODY and BODYSTRUCTURE as they are sent.
func (m *message) structure(rev2 bool) (body, structure []byte, err error) {
	kind := structureFact
	if rev2 {
		kind = structureFact2
	}
	f := m.v.getFacts()
	if b, ok := f.Get(m.uid, kind); ok {
		if body, structure, ok = twoParts(b); ok {
			return body, structure, nil
		}
	}
	if err := m.parse(); err != nil {
		return nil, nil, err
	}
	write := func(extended bool) []byte {
		return rendered(func(w *writer) error {
			err = (&bodyWriter{w: w, msg: m, extended: extended, global: rev2}).write(m.tree)
			return err
		})
	}
	if body = write(false); err == nil {
		structure = write(true)
	}
	if err != nil {
		return nil, nil, err
	}
	f.Note(m.uid, kind, slices.Concat(binary.AppendUvarint(nil, uint64(len(body))), body, structure))
	return body, structure, nil
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
