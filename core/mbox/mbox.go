// Package mbox reads and writes mbox files: many messages in one file, each begun
// by a line "From sender date".
//
//	r := mbox.NewReader(file)
//	for {
//		m, err := r.Next() // io.EOF after the last
//		io.Copy(w, m)
//	}
//
//	w := mbox.NewWriter(file)
//	err := w.Write(mbox.Envelope{Sender: "ann@example.org", Date: date, Flags: f}, message)
//
// What is written is the variant called mboxrd: each line of a message that is
// "From " behind any number of ">" gets one ">" more, and reading takes one away,
// so that nothing in a message can begin another one. The older variants are read
// too. Content-Length fields are not believed: they are often wrong, and a sender
// can choose them. A line begins a message if it is "From ", something, and a date;
// the empty line before it is its own where there is one.
//
// Flags travel in the header fields that mutt, Dovecot and others use: Status (R
// read, O old), X-Status (A answered, F flagged, D deleted, T draft) and X-Keywords.
// Fields of these names with other values belong to the message and stay.
//
// # BUGS
//
// The format has line ends LF and cannot tell whether the last line of a message had
// one: reading gives it one. A CR before a CRLF is lost with the CRLF. In a
// file of the variants that do not quote, a line of a message that looks like the
// beginning of a message is taken for one.
package mbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// ErrFormat means that what is read is no mbox: it does not begin with "From ".
var ErrFormat = errors.New("not an mbox file")

// Bounds of what a message's own lines may take in memory.
const (
	maxLine   = 64 << 10  // octets of a line that is looked at as a whole
	maxHeader = 256 << 10 // octets of a header in which flags are looked for
)

// Flags are what the header fields of an mbox say of a message.
type Flags struct {
	Seen, Answered, Flagged, Deleted, Draft bool
	Keywords                                []string // as they stand, at most maxKeywords
}

// Envelope is what an mbox says of a message besides its octets.
type Envelope struct {
	Sender string    // reverse-path, "" if it has none or none is known
	Date   time.Time // of the arrival; zero if the line does not say
	Flags  Flags
}

// Reader reads messages one after another. It is for one goroutine.
type Reader struct {
	r       *bufio.Reader
	off     int64
	begun   bool
	message *Message
	from    string // the line that begins the next message, without its end
	more    bool   // from is there
	err     error
}

// NewReader returns a Reader. It reads ahead.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, maxLine)}
}

// Offset is the number of octets that have been looked at.
func (r *Reader) Offset() int64 { return r.off }

// Message is one message of an mbox: an io.Reader of its octets, without the
// fields that are in the Envelope, valid until the next call of Next.
type Message struct {
	Envelope
	Internal bool // it is no mail: programs keep their notes of the folder in it

	r     *Reader
	buf   []byte // to be read
	blank []byte // an empty line that may belong to the next From line
	mid   bool   // the last piece was not the end of its line
	done  bool
}

// Next returns the next message; what has not been read of the last one is passed
// over. The error is io.EOF after the last message, and wraps ErrFormat if the
// file is no mbox. An empty file has no messages.
func (r *Reader) Next() (*Message, error) {
	if r.message != nil {
		if _, err := io.Copy(io.Discard, r.message); err != nil {
			return nil, err
		}
	}
	if !r.begun {
		if err := r.begin(); err != nil {
			return nil, err
		}
	}
	if !r.more {
		if r.err == nil {
			r.err = io.EOF
		}
		return nil, r.err
	}
	m := &Message{r: r}
	m.Sender, m.Date, _ = parseFrom(r.from)
	r.more, r.message = false, m
	if err := m.readHeader(); err != nil {
		return nil, err
	}
	return m, nil
}

// begin finds the first From line.
func (r *Reader) begin() error {
	r.begun = true
	for {
		line, _, err := r.line()
		if len(bytes.TrimRight(line, "\r\n")) == 0 && err == nil {
			continue // empty lines before the first message hurt nobody
		}
		if len(line) == 0 && errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if !bytes.HasPrefix(line, []byte("From ")) {
			return fmt.Errorf("%w: it begins with %.40q", ErrFormat, line)
		}
		r.from, r.more = string(bytes.TrimRight(line, "\r\n")), true
		return nil
	}
}

// line returns the next line with its end, or a piece of a long one. whole says that
// it ends a line.
func (r *Reader) line() (piece []byte, whole bool, err error) {
	piece, err = r.r.ReadSlice('\n')
	r.off += int64(len(piece))
	if errors.Is(err, bufio.ErrBufferFull) {
		return piece, false, nil
	}
	return piece, err == nil, err
}

// Read gives octets of the message, with the line ends that the file has.
func (m *Message) Read(p []byte) (int, error) {
	for len(m.buf) == 0 {
		if m.done {
			return 0, io.EOF
		}
		if err := m.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, m.buf)
	m.buf = m.buf[n:]
	return n, nil
}

// fill takes the next line of the file into buf, or finds the end of the message.
func (m *Message) fill() error {
	piece, whole, err := m.r.line()
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read mbox: %w", err)
	}
	start := !m.mid
	m.mid = !whole
	if len(piece) == 0 { // the end of the file; the last empty line is not of the message
		m.done, m.r.err = true, io.EOF
		return nil
	}
	if start {
		if bytes.HasPrefix(piece, []byte("From ")) {
			line := string(bytes.TrimRight(piece, "\r\n"))
			if _, date, ok := parseFrom(line); ok && !date.IsZero() {
				m.r.from, m.r.more, m.done = line, true, true
				return nil
			}
		}
		piece = unquote(piece)
	}
	m.buf = append(m.buf[:0:0], m.blank...)
	m.blank = nil
	if start && whole && len(bytes.TrimRight(piece, "\r\n")) == 0 {
		m.blank = bytes.Clone(piece)
		return nil
	}
	m.buf = append(m.buf, piece...)
	if err != nil { // the file ends without a line end
		m.buf = append(m.buf, '\n')
		m.done, m.r.err = true, io.EOF
	}
	return nil
}

// unquote takes one ">" from a line that is "From " behind some.
func unquote(line []byte) []byte {
	if rest := bytes.TrimLeft(line, ">"); len(rest) < len(line) && bytes.HasPrefix(rest, []byte("From ")) {
		return line[1:]
	}
	return line
}

// readHeader reads the header into buf, without the fields that hold flags. A header
// that is too long is left as it is from there on.
func (m *Message) readHeader() error {
	var kept []byte
	var field []byte
	f := fields{m: m}
	end := func() {
		if len(field) > 0 && !f.take(field) {
			kept = append(kept, field...)
		}
		field = field[:0]
	}
	total := 0
	for !m.done && total < maxHeader {
		if err := m.fill(); err != nil {
			return err
		}
		if m.blank != nil { // the header is over
			break
		}
		total += len(m.buf)
		if c := m.buf; len(c) > 0 && c[0] != ' ' && c[0] != '\t' && !m.continued(field) {
			end()
		}
		field = append(field, m.buf...)
		m.buf = nil
	}
	end()
	m.buf = append(kept, m.buf...)
	f.finish()
	return nil
}

// continued reports whether field is a piece of a line that goes on.
func (m *Message) continued(field []byte) bool {
	return len(field) > 0 && field[len(field)-1] != '\n'
}

// maxKeywords bounds the keywords of one message.
const maxKeywords = 100

// fields collects what header fields say of a message.
type fields struct {
	m       *Message
	imap    bool
	subject string
}

// take reads a field and reports whether it is one that only an mbox has.
func (f *fields) take(field []byte) bool {
	name, value, ok := strings.Cut(string(field[:min(len(field), 16<<10)]), ":")
	if !ok {
		return false
	}
	value = strings.Join(strings.Fields(value), " ")
	m := f.m
	switch strings.ToLower(name) {
	case "status":
		if strings.Trim(value, "RODNU") != "" {
			return false
		}
		m.Flags.Seen = strings.Contains(value, "R")
	case "x-status":
		if strings.Trim(value, "AFDTGR") != "" {
			return false
		}
		for _, c := range value {
			switch c {
			case 'A':
				m.Flags.Answered = true
			case 'F':
				m.Flags.Flagged = true
			case 'D':
				m.Flags.Deleted = true
			case 'T':
				m.Flags.Draft = true
			}
		}
	case "x-keywords":
		for _, k := range strings.Fields(value) {
			if len(m.Flags.Keywords) < maxKeywords {
				m.Flags.Keywords = append(m.Flags.Keywords, k)
			}
		}
	case "x-uid":
		return value != "" && strings.Trim(value, "0123456789") == ""
	case "x-imapbase", "x-imap":
		first, _, _ := strings.Cut(value, " ")
		if first == "" || strings.Trim(first, "0123456789") != "" {
			return false
		}
		f.imap = f.imap || strings.EqualFold(name, "x-imap")
	case "subject":
		f.subject = value
		return false
	default:
		return false
	}
	return true
}

// finish decides what can only be decided by several fields.
func (f *fields) finish() {
	f.m.Internal = f.imap && strings.Contains(f.subject, "FOLDER INTERNAL DATA")
}
