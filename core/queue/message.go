package queue

import (
	"maps"
	"slices"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Message is a message in the queue, without its body.
type Message struct {
	Envelope mail.Envelope // without Rcpts; Received is when it arrived
	Rcpts    []Recipient
	Head     []byte // header fields above the body's
	Size     int64  // of the body's file in octets
	EightBit bool   // there are octets above 127
	Hold     string // why it is held, "" if it is not
	Double   bool   // a notice to the postmaster about a notice that could not be sent

	Tries  int       // rounds of attempts
	Tried  time.Time // when the last one was; zero: never
	Warned bool      // the sender knows of the delay

	sum     uint32    // CRC-32C of the body
	delay   time.Time // first attempt not before that
	open    bool      // an attempt was announced whose result is not there
	records int       // lines of the envelope file
}

// Delay keeps the message from its first attempt until t.
func (m *Message) Delay(t time.Time) { m.delay = t }

// State is where a recipient stands.
type State uint8

// The states of a recipient.
const (
	Waiting State = iota
	Sent
	Failed
)

// Recipient is one recipient of a queued message.
type Recipient struct {
	mail.Recipient           // where it goes
	Original       mail.Path // the RCPT that an alias led here from; null: this one
	From           mail.Path // reverse-path towards this recipient
	Head           string    // header fields for this recipient, above the message's
	Route          *mail.Route

	State   State
	Outcome mail.Outcome // of the last attempt
	At      time.Time    // of the last attempt; zero: none yet
	told    bool         // no notice is due
	// Rewritten says that From is meant as it stands, even if it is null.
	Rewritten bool
}

// Address is the address by which the sender knows the recipient.
func (r *Recipient) Address() mail.Path {
	if r.Original.IsNull() {
		return r.To
	}
	return r.Original
}

// settle notes what an attempt came to.
func (r *Recipient) settle(o mail.Outcome, at time.Time) {
	if r.State != Waiting {
		return
	}
	r.Outcome, r.At = o, at
	switch {
	case o.Status.Permanent():
		r.State = Failed
	case o.Status.OK():
		r.State = Sent
	}
}

// expire ends the waiting; the last outcome stays as the reason.
func (r *Recipient) expire() {
	if r.State == Waiting {
		r.State = Failed
	}
}

// Waiting is the number of recipients that are not settled.
func (m *Message) Waiting() (n int) {
	for i := range m.Rcpts {
		if m.Rcpts[i].State == Waiting {
			n++
		}
	}
	return n
}

// results are the records that would bring a fresh message to m's state.
func (m *Message) results() (rs []record) {
	byTime := map[time.Time]map[int]mail.Outcome{}
	for i := range m.Rcpts {
		r := &m.Rcpts[i]
		if r.At.IsZero() {
			continue
		}
		if byTime[r.At] == nil {
			byTime[r.At] = map[int]mail.Outcome{}
		}
		byTime[r.At][i] = r.Outcome
	}
	for at, outcomes := range byTime {
		rs = append(rs, resultsOf(outcomes, at)...)
	}
	expired := record{Result: &resultRecord{At: m.Tried, Expired: true}}
	for i := range m.Rcpts {
		if r := &m.Rcpts[i]; r.State == Failed && !r.Outcome.Status.Permanent() {
			expired.Result.Rcpts.add(i)
		}
	}
	if len(expired.Result.Rcpts) > 0 {
		rs = append(rs, expired)
	}
	return rs
}

// resultsOf are records that note outcomes by recipient, one for all that are equal.
func resultsOf(outcomes map[int]mail.Outcome, at time.Time) (rs []record) {
	index := map[mail.Outcome]int{}
	for _, i := range slices.Sorted(maps.Keys(outcomes)) {
		o := outcomes[i]
		k, ok := index[o]
		if !ok {
			k = len(rs)
			index[o] = k
			rs = append(rs, resultOf(o, at))
		}
		rs[k].Result.Rcpts.add(i)
	}
	return rs
}

func resultOf(o mail.Outcome, at time.Time) record {
	return record{Result: &resultRecord{
		At: at, Code: o.Status.Code, Enhanced: o.Status.Enhanced, Text: octets(o.Status.Text), Remote: o.Remote, Notifies: o.Notifies,
	}}
}
