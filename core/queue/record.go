package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/wafermail/wafer/core/mail"
)

// An envelope file is a list of records, one a line: CRC-32C of the rest in eight
// hexadecimal digits, a space, a JSON object, LF. The first record is the message;
// those after it say what has happened since. Records are only ever appended, so
// a line that was torn by a kill is the last one, and what it would have said has
// not been acted on. A file that has grown long is replaced, whole, by one that
// says the same in few records.

// version is the format of the files, told in the first record and in "format".
const version = 1

// maxRecord bounds a line, in octets: 50,000 recipients are 5 MB.
const maxRecord = 32 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is one line. One of its fields is set.
type record struct {
	Message *messageRecord `json:"message,omitempty"`
	Attempt *attemptRecord `json:"attempt,omitempty"`
	Result  *resultRecord  `json:"result,omitempty"`
	Told    *toldRecord    `json:"told,omitempty"`
	Hold    *holdRecord    `json:"hold,omitempty"`
	Reroute *rerouteRecord `json:"reroute,omitempty"`
}

// messageRecord is the first record: the envelope, and the rest that does not
// change. The first attempt needs no record of its own.
type messageRecord struct {
	Version  int               `json:"v"`
	ID       mail.ID           `json:"id"`
	Session  string            `json:"session,omitempty"`
	Arrived  time.Time         `json:"arrived"`
	Client   string            `json:"client,omitempty"`
	Name     string            `json:"name,omitempty"`
	Helo     string            `json:"helo,omitempty"`
	From     string            `json:"from"`
	User     string            `json:"user,omitempty"`
	Body     string            `json:"body,omitempty"`
	UTF8     bool              `json:"utf8,omitempty"`
	Return   string            `json:"ret,omitempty"`
	EnvID    string            `json:"envid,omitempty"`
	Protocol string            `json:"protocol,omitempty"`
	Head     octets            `json:"head"`
	Size     int64             `json:"size"`
	Sum      uint32            `json:"crc"`
	EightBit bool              `json:"eight_bit,omitempty"`
	Hold     string            `json:"hold,omitempty"`
	Double   bool              `json:"double,omitempty"` // tells the postmaster; its failure is told to nobody
	Delay    time.Time         `json:"delay,omitzero"`   // not to be tried before
	Rcpts    []recipientRecord `json:"rcpts"`
}

type recipientRecord struct {
	To       string      `json:"to"`
	Notify   []string    `json:"notify,omitempty"`
	ORcpt    string      `json:"orcpt,omitempty"`
	Original string      `json:"original,omitempty"` // as given in RCPT, if an alias led from there
	From     *string     `json:"from,omitempty"`     // instead of the envelope's
	Head     string      `json:"head,omitempty"`     // above the message's
	Route    *mail.Route `json:"route,omitempty"`    // settled in advance
}

// attemptRecord announces an attempt before anything is dialled.
type attemptRecord struct {
	At    time.Time `json:"at"`
	Tries int       `json:"tries"` // with this one
}

// resultRecord is what recipients came to.
type resultRecord struct {
	At       time.Time `json:"at"`
	Rcpts    spans     `json:"rcpts"`
	Code     int       `json:"code"`
	Enhanced string    `json:"enhanced,omitempty"`
	Text     octets    `json:"text,omitempty"`
	Remote   string    `json:"remote,omitempty"`
	Notifies bool      `json:"notifies,omitempty"`
	Expired  bool      `json:"expired,omitempty"` // they are not tried again, whatever the last outcome was
}

// toldRecord says that a notice is in the queue: of the failures up to here, or
// of the delay.
type toldRecord struct {
	At    time.Time `json:"at"`
	Delay bool      `json:"delay,omitempty"`
}

// holdRecord holds the message, or with an empty reason releases it.
type holdRecord struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

// rerouteRecord settles the way of all recipients that wait; nil unsettles it.
type rerouteRecord struct {
	At    time.Time   `json:"at"`
	Route *mail.Route `json:"route"`
}

// octets is text that may hold any octet: a string in JSON where it is UTF-8, else
// a list of one string in base 64.
type octets string

// MarshalJSON implements json.Marshaler.
func (o octets) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(o)) {
		return json.Marshal(string(o))
	}
	return json.Marshal([][]byte{[]byte(o)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (o *octets) UnmarshalJSON(b []byte) error {
	var list [][]byte
	if err := json.Unmarshal(b, &list); err == nil && len(list) == 1 {
		*o = octets(list[0])
		return nil
	}
	return json.Unmarshal(b, (*string)(o))
}

// spans is a set of recipient indices as pairs of first and last.
type spans [][2]int

func (s *spans) add(i int) {
	if n := len(*s); n > 0 && (*s)[n-1][1] == i-1 {
		(*s)[n-1][1] = i
		return
	}
	*s = append(*s, [2]int{i, i})
}

// each calls f with every index below n.
func (s spans) each(n int, f func(i int)) {
	for _, p := range s {
		for i := max(p[0], 0); i <= p[1] && i < n; i++ {
			f(i)
		}
	}
}

// append adds the record's line to b.
func (r *record) append(b []byte) ([]byte, error) {
	j, err := json.Marshal(r)
	if err != nil {
		return b, err
	}
	if len(j) > maxRecord {
		return b, fmt.Errorf("a record of %d octets is longer than %d", len(j), maxRecord)
	}
	b = append(b, fmt.Sprintf("%08x ", crc32.Checksum(j, castagnoli))...)
	b = append(b, j...)
	return append(b, '\n'), nil
}

// errTorn ends a file whose last line is not whole.
var errTorn = errors.New("the line is torn")

// parseRecord reads the line without its LF.
func parseRecord(line []byte) (*record, error) {
	if len(line) < 10 || line[8] != ' ' {
		return nil, errTorn
	}
	sum, err := strconv.ParseUint(string(line[:8]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(line[9:], castagnoli) {
		return nil, errTorn
	}
	r := new(record)
	if err := json.Unmarshal(line[9:], r); err != nil {
		return nil, err
	}
	return r, nil
}

// parseMessage rebuilds a message from an envelope file. size is the number of
// octets that made sense; what follows was torn off.
func parseMessage(b []byte) (m *Message, size int, err error) {
	for size < len(b) {
		end := bytes.IndexByte(b[size:], '\n')
		if end < 0 {
			break
		}
		r, err := parseRecord(b[size : size+end])
		switch {
		case errors.Is(err, errTorn) && m != nil && bytes.IndexByte(b[size+end+1:], '\n') < 0:
			return m, size, nil
		case err != nil:
			return nil, size, fmt.Errorf("record at octet %d: %w", size, err)
		case m == nil && r.Message == nil:
			return nil, size, errors.New("the first record is no message")
		case m == nil:
			if m, err = newMessage(r.Message); err != nil {
				return nil, size, err
			}
		default:
			m.apply(r)
		}
		size += end + 1
		m.records++
	}
	if m == nil {
		return nil, size, io.ErrUnexpectedEOF
	}
	return m, size, nil
}

// newMessage reads the first record.
func newMessage(r *messageRecord) (*Message, error) {
	if r.Version != version {
		return nil, fmt.Errorf("format %d is not known; this program writes %d", r.Version, version)
	}
	m := &Message{
		Envelope: mail.Envelope{
			ID: r.ID, Session: r.Session, Received: r.Arrived, User: r.User, Size: r.Size, Body: mail.Body(r.Body),
			UTF8: r.UTF8, Return: r.Return, EnvID: r.EnvID, Protocol: r.Protocol,
			Client: mail.Client{Name: r.Name, Helo: r.Helo},
		},
		Head: []byte(r.Head), Size: r.Size, sum: r.Sum, EightBit: r.EightBit, Hold: r.Hold, Double: r.Double, delay: r.Delay, Tries: 1,
	}
	if r.Client != "" {
		addr, err := netip.ParseAddrPort(r.Client)
		if err != nil {
			return nil, err
		}
		m.Envelope.Client.Addr = addr
	}
	var err error
	if m.Envelope.From, err = parsePath(r.From); err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	m.Rcpts = make([]Recipient, len(r.Rcpts))
	for i, x := range r.Rcpts {
		rcpt := Recipient{Recipient: mail.Recipient{Notify: x.Notify, ORcpt: x.ORcpt}, From: m.Envelope.From, Head: x.Head, Route: x.Route}
		if rcpt.To, err = parsePath(x.To); err != nil {
			return nil, fmt.Errorf("recipient: %w", err)
		}
		if x.Original != "" {
			if rcpt.Original, err = parsePath(x.Original); err != nil {
				return nil, fmt.Errorf("recipient: %w", err)
			}
		}
		if x.From != nil {
			if rcpt.From, err = parsePath(*x.From); err != nil {
				return nil, fmt.Errorf("sender for recipient: %w", err)
			}
		}
		m.Rcpts[i] = rcpt
	}
	return m, nil
}

// parsePath reads an address that String wrote; "" is the null path.
func parsePath(s string) (mail.Path, error) {
	if s == "" {
		return mail.Path{}, nil
	}
	p, err := mail.ParsePath(s, true)
	if err != nil {
		return mail.ReadPath(s, true)
	}
	return p, nil
}

// first is the message's first record.
func (m *Message) first() *messageRecord {
	e := &m.Envelope
	r := &messageRecord{
		Version: version, ID: e.ID, Session: e.Session, Arrived: e.Received, Name: e.Client.Name, Helo: e.Client.Helo,
		From: e.From.String(), User: e.User, Body: string(e.Body), UTF8: e.UTF8, Return: e.Return, EnvID: e.EnvID,
		Protocol: e.Protocol, Head: octets(m.Head), Size: m.Size, Sum: m.sum, EightBit: m.EightBit, Hold: m.Hold, Double: m.Double, Delay: m.delay,
		Rcpts: make([]recipientRecord, len(m.Rcpts)),
	}
	if e.Client.Addr.IsValid() {
		r.Client = e.Client.Addr.String()
	}
	for i := range m.Rcpts {
		x := &m.Rcpts[i]
		r.Rcpts[i] = recipientRecord{To: x.To.String(), Notify: x.Notify, ORcpt: x.ORcpt, Head: x.Head, Route: x.Route}
		if !x.Original.IsNull() && x.Original != x.To {
			r.Rcpts[i].Original = x.Original.String()
		}
		if x.From != e.From {
			from := x.From.String()
			r.Rcpts[i].From = &from
		}
	}
	return r
}

// apply changes the message as a later record says.
func (m *Message) apply(r *record) {
	switch {
	case r.Attempt != nil:
		m.Tries, m.Tried = r.Attempt.Tries, r.Attempt.At
		m.open = true
	case r.Result != nil && r.Result.Expired:
		r.Result.Rcpts.each(len(m.Rcpts), func(i int) { m.Rcpts[i].expire() })
	case r.Result != nil:
		x := r.Result
		o := mail.Outcome{Status: mail.Status{Code: x.Code, Enhanced: x.Enhanced, Text: string(x.Text)}, Remote: x.Remote, Notifies: x.Notifies}
		x.Rcpts.each(len(m.Rcpts), func(i int) { m.Rcpts[i].settle(o, x.At) })
		m.Tried, m.open = x.At, false
	case r.Told != nil && r.Told.Delay:
		m.Warned = true
	case r.Told != nil:
		for i := range m.Rcpts {
			m.Rcpts[i].told = m.Rcpts[i].State != Waiting
		}
	case r.Hold != nil:
		m.Hold = r.Hold.Reason
	case r.Reroute != nil:
		for i := range m.Rcpts {
			if m.Rcpts[i].State == Waiting {
				m.Rcpts[i].Route = r.Reroute.Route
			}
		}
	}
}
