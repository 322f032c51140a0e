package imapd

import (
	"bytes"
	"errors"
	"io"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/maildir"
)

// maxHeader is how many octets of a header are looked at for ENVELOPE,
// HEADER.FIELDS and SEARCH. BODY[HEADER] is exact at any size.
const maxHeader = 2 << 20

// message is a message that is being read. Its file is opened when something is
// asked for that is not among the folder's facts. What is found out about it is
// kept until close.
type message struct {
	v       *view
	uid     uint32
	size    int64            // as the folder knows it
	content *maildir.Content // nil: not open

	header    []byte // up to maxHeader
	headerEnd int64  // 0: not known
	tree      *mail.Part
}

// message is the one with the given UID.
func (v *view) message(uid uint32) *message { return &message{v: v, uid: uid} }

// open opens the file. maildir.ErrExpunged says that it is gone.
func (m *message) open() error {
	if m.content != nil {
		return nil
	}
	c, err := m.v.folder.Open(m.uid)
	if err == nil {
		m.content = c
	}
	return err
}

func (m *message) close() {
	if m.content != nil {
		_ = m.content.Close() // only read
	}
}

// readHeader reads the header of the message.
func (m *message) readHeader() error {
	if m.content == nil && m.header == nil {
		h, ok, err := m.v.folder.Header(nil, m.uid)
		if err != nil {
			return err
		}
		if ok {
			m.header, m.headerEnd = h, int64(len(h))
			return nil
		}
	}
	if m.header != nil && m.content == nil {
		return nil
	}
	if err := m.open(); err != nil {
		return err
	}
	if m.header != nil || m.content.Size() == 0 {
		return nil
	}
	h, err := mail.ReadHeader(m.content, 0, m.content.Size(), maxHeader)
	if err != nil {
		return err
	}
	m.header, m.headerEnd = h, int64(len(h))
	if len(h) == maxHeader { // it may go on
		if err := m.parse(); err != nil {
			return err
		}
		m.headerEnd = m.tree.Header.End
	}
	return nil
}

// parse finds the parts of the message.
func (m *message) parse() error {
	if m.tree != nil {
		return nil
	}
	if err := m.open(); err != nil {
		return err
	}
	tree, err := mail.ParseStructure(m.content, m.content.Size())
	m.tree = tree
	return err
}

// slice is a piece of a message: octets of r from off on.
type slice struct {
	r    io.ReaderAt
	off  int64
	size int64
}

var errNoSection = errors.New("message has no such section")

// section finds what a section specification stands for (RFC 9051 §6.4.5.1).
func (m *message) section(sec *section) (slice, error) {
	if len(sec.part) > 0 {
		if err := m.parse(); err != nil {
			return slice{}, err
		}
		part := findPart(m.tree, sec.part)
		if part == nil {
			return slice{}, errNoSection
		}
		return m.partSection(part, sec)
	}
	if sec.text == fieldsText && allNoted(sec.fields) {
		h, err := m.notedFields()
		return fieldsOf(h, sec), err
	}
	if err := m.open(); err != nil {
		return slice{}, err
	}
	size := m.content.Size()
	if sec.text == wholeText {
		return slice{m.content, 0, size}, nil
	}
	if err := m.readHeader(); err != nil {
		return slice{}, err
	}
	switch sec.text {
	case headerText:
		return slice{m.content, 0, m.headerEnd}, nil
	case bodyText:
		return slice{m.content, m.headerEnd, size - m.headerEnd}, nil
	}
	return fieldsOf(m.header, sec), nil
}

func (m *message) of(r mail.Range) slice { return slice{m.content, r.Start, r.Size()} }

// partSection finds a section of a part.
func (m *message) partSection(part *mail.Part, sec *section) (slice, error) {
	switch sec.text {
	case wholeText:
		return m.of(part.Body), nil
	case mimeText:
		return m.of(part.Header), nil
	}
	inner := part.Message // the other texts are of an embedded message
	if inner == nil {
		return slice{}, errNoSection
	}
	switch sec.text {
	case headerText:
		return m.of(inner.Header), nil
	case bodyText:
		return slice{m.content, inner.Header.End, part.Body.End - inner.Header.End}, nil
	}
	h, err := mail.ReadHeader(m.content, inner.Header.Start, inner.Header.End, maxHeader)
	if err != nil {
		return slice{}, err
	}
	return fieldsOf(h, sec), nil
}

// findPart walks down the numbers of a section; nil if there is no such part.
// What is not multipart has itself as its part 1.
func findPart(p *mail.Part, numbers []int) *mail.Part {
	for i, n := range numbers {
		if i > 0 {
			if p.Message != nil {
				p = p.Message
			} else if p.Parts == nil {
				return nil // a leaf has no parts
			}
		}
		switch {
		case p.Parts != nil:
			if n > len(p.Parts) {
				return nil
			}
			p = p.Parts[n-1]
		case n != 1:
			return nil
		}
	}
	return p
}

// fieldsOf picks fields of a header, with the blank line at the end.
func fieldsOf(header []byte, sec *section) slice {
	var b []byte
	for f := range mail.HeaderFields(header) {
		named := false
		for _, name := range sec.fields {
			if f.Is(name) {
				named = true
				break
			}
		}
		if named == (sec.text == fieldsText) {
			b = append(b, f.Raw...)
		}
	}
	if n := len(b); n > 0 && b[n-1] != '\n' {
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	return slice{bytes.NewReader(b), 0, int64(len(b))}
}
