package dkim

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

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
	window            = 16 << 10 // octets of the message that are looked at at once
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

	r     io.ReaderAt
	size  int64
	first []byte         // the message's first octets, if the header section is among them
	body  int64          // where the body begins; size if there is none
	ids   map[string]int // numbers the names
	last  []int          // index + 1 of the last field of a name, by number
	prev  []int          // index + 1 of the field of the same name above, by index
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
	m := &Message{r: r, size: size}
	block, err := m.readShort()
	if err == nil && block == nil {
		block, err = m.readLong(l)
	}
	if err == nil {
		err = m.index(block, l)
	}
	switch {
	case errors.Is(err, ErrHeaderTooLarge):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("read header section: %w", err)
	}
	return m, nil
}

// readShort returns the header section if it is in the first window, else nil.
func (m *Message) readShort() ([]byte, error) {
	first := make([]byte, min(m.size, window))
	if n, err := m.r.ReadAt(first, 0); n < len(first) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	n := 0
	for f := range mail.HeaderFields(first) {
		n += len(f.Raw)
	}
	if n == len(first) && m.size > window {
		return nil, nil
	}
	m.first, m.body = first, int64(n)
	switch { // the blank line
	case n < len(first) && first[n] == '\n':
		m.body++
	case n < len(first):
		m.body += 2
	}
	return first[:n], nil
}

func isBlankLine(line []byte) bool {
	return len(line) == 1 && line[0] == '\n' || len(line) == 2 && line[0] == '\r' && line[1] == '\n'
}

// sieve decides which fields are kept.
type sieve struct {
	limits     Limits
	octets     int // kept so far
	signatures int // seen so far
}

// keep reports whether the field that begins with line is kept.
func (s *sieve) keep(f mail.HeaderField) bool {
	if f.Is(fieldDKIM) {
		s.signatures++
		return s.signatures <= s.limits.Signatures
	}
	return !f.Is("")
}

// add counts octets that are kept and reports whether there is room for them.
func (s *sieve) add(n int) bool {
	s.octets += n
	return s.octets <= s.limits.Header
}

// surplus is how many signatures were not kept.
func (s *sieve) surplus() int { return max(s.signatures-s.limits.Signatures, 0) }

// readLong reads a header section of any length and returns the fields that are kept.
// It counts the surplus signatures, which index does not see any more.
func (m *Message) readLong(l Limits) ([]byte, error) {
	lines := bufio.NewReaderSize(io.NewSectionReader(m.r, 0, m.size), window)
	sieve := sieve{limits: l}
	var block []byte
	var (
		keep   bool // the field under way is kept
		inside bool // the line under way has begun in an earlier piece
	)
	for m.body = 0; ; {
		piece, err := lines.ReadSlice('\n')
		if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
			return nil, err
		}
		m.body += int64(len(piece))
		if !inside && isBlankLine(piece) {
			break
		}
		if !inside && len(piece) > 0 && piece[0] != ' ' && piece[0] != '\t' {
			for f := range mail.HeaderFields(piece) {
				keep = sieve.keep(f)
			}
		}
		if keep {
			if !sieve.add(len(piece)) {
				return nil, ErrHeaderTooLarge
			}
			block = append(block, piece...)
		}
		inside = err == bufio.ErrBufferFull
		if err == io.EOF {
			if m.body < m.size {
				return nil, io.ErrUnexpectedEOF
			}
			break
		}
	}
	m.Surplus = sieve.surplus()
	return block, nil
}

// index takes the fields of block that are kept and chains those of one name.
func (m *Message) index(block []byte, l Limits) error {
	sieve := sieve{limits: l}
	n := bytes.Count(block, []byte{'\n'}) + 1
	m.Fields = make([]Field, 0, n)
	m.prev = make([]int, 0, n)
	m.last = make([]int, 0, min(n, 32))
	m.ids = make(map[string]int, min(n, 16))
	for f := range mail.HeaderFields(block) {
		if !sieve.keep(f) {
			continue
		}
		if !sieve.add(len(f.Raw)) {
			return ErrHeaderTooLarge
		}
		name := lowerName(f.Raw)
		id, known := m.ids[name]
		if !known {
			id = len(m.last)
			m.ids[name] = id
			m.last = append(m.last, 0)
		}
		m.Fields = append(m.Fields, Field{Name: name, Raw: f.Raw})
		m.prev = append(m.prev, m.last[id])
		m.last[id] = len(m.Fields)
	}
	m.Surplus += sieve.surplus()
	return nil
}

// lowerName is the name of a field in lower case.
func lowerName(raw []byte) string {
	var buf [64]byte
	name := buf[:0]
	for _, c := range bytes.TrimRight(raw[:max(bytes.IndexByte(raw, ':'), 0)], " \t") {
		name = append(name, lower(c))
	}
	return string(name)
}

// top returns the index + 1 of the last field called name in lower case, 0 if there
// is none.
func (m *Message) top(name string) int {
	if id, ok := m.ids[name]; ok {
		return m.last[id]
	}
	return 0
}

// Select returns the fields that a list of names in lower case stands for (RFC 6376
// §5.4.2): those of one name from the bottom up, nothing for a name that has run out.
// The field with the index without is passed over (a signature does not cover itself);
// -1 for none. unsigned are the names of which there are more fields than names ask
// for.
func (m *Message) Select(names []string, without int) (fields [][]byte, unsigned []string) {
	fields = make([][]byte, 0, len(names))
	next := append(make([]int, 0, 64), m.last...) // index + 1 of the next field of a name
	for _, name := range names {
		id, ok := m.ids[name]
		if !ok {
			continue
		}
		at := next[id]
		if at > 0 && at == without+1 {
			at = m.prev[at-1]
		}
		if at > 0 {
			fields = append(fields, m.Fields[at-1].Raw)
			at = m.prev[at-1]
		}
		next[id] = at
	}
	for _, name := range names {
		id, ok := m.ids[name]
		if !ok {
			continue
		}
		at := next[id]
		if at > 0 && at == without+1 {
			at = m.prev[at-1]
		}
		if at > 0 {
			unsigned = append(unsigned, name)
		}
		next[id] = 0
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
	at := m.body
	if rest := m.first[min(at, int64(len(m.first))):]; len(rest) > 0 {
		for _, h := range hashes {
			h.Write(rest) // never fails
		}
		at += int64(len(rest))
	}
	if at == m.size {
		return nil
	}
	buf := make([]byte, min(m.size-at, window))
	for at < m.size {
		n, err := m.r.ReadAt(buf[:min(int64(len(buf)), m.size-at)], at)
		for _, h := range hashes {
			h.Write(buf[:n])
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
