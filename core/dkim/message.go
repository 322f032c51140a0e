package dkim

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// Limits bounds what Read keeps of a message. The zero value is useful.
type Limits struct {
	Header     int // octets of the header section that are kept; 0: 256 KiB
	Signatures int // DKIM-Signature fields that are kept, from the top; 0: 10
}

const (
	defaultHeader     = 256 << 10
	defaultSignatures = 10
	window            = 32 << 10
)

// ErrHeaderTooLarge is returned by Read for a header section beyond Limits.Header.
var ErrHeaderTooLarge = errors.New("header section is too large")

// Field is a field of a message's header.
type Field struct {
	Name string // in lower case
	Raw  []byte // as it stands there, with its line ends
}

// Message is a stored message as signatures see it.
type Message struct {
	Fields  []Field // from top to bottom
	Surplus int     // DKIM-Signature fields beyond Limits.Signatures, which are not in Fields

	r    io.ReaderAt
	size int64
	body int64          // where the body begins; size if there is none
	last map[string]int // index + 1 of the last field of a name
	prev []int          // index + 1 of the field of the same name above, by index
}

// Read reads the header section of the message of size octets in r. Lines that are no
// fields are left out. A message may lack the blank line and the body. r must stay
// readable for HashBody. Errors are ErrHeaderTooLarge and those of r.
func Read(r io.ReaderAt, size int64, l Limits) (*Message, error) {
	if l.Header <= 0 {
		l.Header = defaultHeader
	}
	if l.Signatures <= 0 {
		l.Signatures = defaultSignatures
	}
	m := &Message{r: r, size: size, last: make(map[string]int, 32)}
	lines := bufio.NewReaderSize(io.NewSectionReader(r, 0, size), int(min(max(size, 512), window)))
	var block []byte // of the fields that are kept
	var (
		signatures int
		keep       bool // the field under way is kept
		inside     bool // the line under way has begun in an earlier piece
	)
	for {
		piece, err := lines.ReadSlice('\n')
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return nil, fmt.Errorf("read header section: %w", err)
		}
		if !inside && (len(piece) == 1 && piece[0] == '\n' || len(piece) == 2 && piece[0] == '\r' && piece[1] == '\n') {
			m.body += int64(len(piece))
			break
		}
		if !inside && len(piece) > 0 && piece[0] != ' ' && piece[0] != '\t' {
			name := fieldName(piece)
			keep = name != ""
			if strings.EqualFold(name, "DKIM-Signature") {
				signatures++
				keep = signatures <= l.Signatures
			}
		}
		if keep {
			if len(block)+len(piece) > l.Header {
				return nil, ErrHeaderTooLarge
			}
			if block == nil {
				block = make([]byte, 0, min(int(size), 2048))
			}
			block = append(block, piece...)
		}
		m.body += int64(len(piece))
		inside = err == bufio.ErrBufferFull
		if err == io.EOF {
			if m.body < size {
				return nil, fmt.Errorf("read header section: %w", io.ErrUnexpectedEOF)
			}
			break
		}
	}
	m.Surplus = max(signatures-l.Signatures, 0)
	m.index(block)
	return m, nil
}

// fieldName is the name of the field that begins with line, "" if it is no field.
func fieldName(line []byte) string {
	for f := range mail.HeaderFields(line) {
		return f.Name()
	}
	return ""
}

// index takes the fields of block and chains those of one name.
func (m *Message) index(block []byte) {
	n := bytes.Count(block, []byte{'\n'}) + 1
	m.Fields = make([]Field, 0, n)
	m.prev = make([]int, 0, n)
	for f := range mail.HeaderFields(block) {
		name := strings.ToLower(f.Name())
		m.Fields = append(m.Fields, Field{Name: name, Raw: f.Raw})
		m.prev = append(m.prev, m.last[name])
		m.last[name] = len(m.Fields)
	}
}

// Select returns the fields that a list of names stands for (RFC 6376 §5.4.2): those
// of one name from the bottom up, nothing for a name that has run out. The field with
// the index without is passed over (a signature does not cover itself); -1 for none.
// unsigned names in lower case the fields of which there are more than names ask for.
func (m *Message) Select(names []string, without int) (fields [][]byte, unsigned []string) {
	fields = make([][]byte, 0, len(names))
	cursor := make(map[string]int, len(names)) // index + 1 of the next field of a name
	for _, name := range names {
		name = strings.ToLower(name)
		at, begun := cursor[name]
		if !begun {
			at = m.last[name]
		}
		if at > 0 && at == without+1 {
			at = m.prev[at-1]
		}
		if at > 0 {
			fields = append(fields, m.Fields[at-1].Raw)
			at = m.prev[at-1]
		}
		cursor[name] = at
	}
	for _, name := range names {
		name = strings.ToLower(name)
		at, ok := cursor[name]
		delete(cursor, name)
		if at == without+1 && at > 0 {
			at = m.prev[at-1]
		}
		if ok && at > 0 {
			unsigned = append(unsigned, name)
		}
	}
	return fields, unsigned
}

// BodySum is what one signature should find of the body.
type BodySum struct {
	Digest []byte // SHA-256 of what the signature covers; nil if the body is shorter than its l=
	Octets int64  // of the whole body in the signature's canonical form
}

// HashBody reads the body once and returns what each of the signatures should find,
// by their BodyCanon and Length. Each canonicalization that occurs is hashed once.
// Errors are the reader's.
func (m *Message) HashBody(signatures []*Signature) ([]BodySum, error) {
	var lengths [2][]int64
	for _, s := range signatures {
		lengths[s.BodyCanon] = append(lengths[s.BodyCanon], s.Length)
	}
	var hashes []*BodyHash
	var byCanon [2]*BodyHash
	for c, l := range lengths {
		if len(l) > 0 {
			byCanon[c] = NewBodyHash(Canon(c), l...)
			hashes = append(hashes, byCanon[c])
		}
	}
	if err := m.readBody(hashes); err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	sums := make([]BodySum, len(signatures))
	for i, s := range signatures {
		h := byCanon[s.BodyCanon]
		if digest, ok := h.Sum(s.Length); ok {
			sums[i].Digest = digest[:]
		}
		sums[i].Octets = h.Octets()
	}
	return sums, nil
}

func (m *Message) readBody(hashes []*BodyHash) error {
	if len(hashes) == 0 {
		return nil
	}
	buf := make([]byte, min(max(m.size-m.body, 0), window))
	for at := m.body; at < m.size; {
		n, err := m.r.ReadAt(buf[:min(int64(len(buf)), m.size-at)], at)
		for _, h := range hashes {
			h.Write(buf[:n]) // never fails
		}
		at += int64(n)
		switch {
		case at == m.size:
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case n == 0:
			return io.ErrNoProgress
		}
	}
	return nil
}
