package sdk

import (
	"errors"
	"time"

	"github.com/wafermail/wafer/sdk/abi"
)

// The errors of the calls that an Event offers.
var (
	ErrDenied    = errors.New("not granted")
	ErrTimeout   = errors.New("the call's time is used up")
	ErrTemporary = errors.New("temporary failure")
	ErrQuota     = errors.New("the call's allowance is used up")
	ErrBadArg    = errors.New("bad argument")
)

func codeError(code int64) error {
	switch code {
	case abi.Denied:
		return ErrDenied
	case abi.Timeout:
		return ErrTimeout
	case abi.Quota:
		return ErrQuota
	case abi.BadArg:
		return ErrBadArg
	}
	return ErrTemporary
}

// Event is one question of the server with the facts that it knows. Facts of
// later stages are empty. It is valid until the Judge returns.
type Event struct {
	raw  []byte
	text [abi.LastEventField + 1][]byte
	num  [abi.LastEventField + 1]uint64
	host host
}

// index finds the fields of raw; their values are decoded when they are asked for.
func (e *Event) index(raw []byte) error {
	e.raw = raw
	clear(e.text[:])
	clear(e.num[:])
	r := reader{b: raw}
	for {
		field, v, p, ok := r.next()
		if !ok {
			break
		}
		if field > abi.LastEventField {
			continue
		}
		e.num[field], e.text[field] = v, p
	}
	if r.bad {
		return errWire
	}
	return nil
}

// Stage is the stage that the plugin is asked at.
func (e *Event) Stage() Stage { return Stage(e.num[abi.EventStage]) }

// Time is when the event happened, to the millisecond.
func (e *Event) Time() time.Time { return time.UnixMilli(int64(e.num[abi.EventTime])) }

// Session is the session's id.
func (e *Event) Session() string { return string(e.text[abi.EventSession]) }

// Door is the listener's profile: "mx", "submission", "submissions", "lmtp",
// "imap", "imaps", "pop3" or "pop3s".
func (e *Event) Door() string { return string(e.text[abi.EventDoor]) }

// Protocol is "smtp", "lmtp", "imap" or "pop3".
func (e *Event) Protocol() string { return string(e.text[abi.EventProtocol]) }

// Client is the client's IP address.
func (e *Event) Client() string { return string(e.text[abi.EventClient]) }

// ClientPort is the client's TCP port.
func (e *Event) ClientPort() int { return int(e.num[abi.EventClientPort]) }

// ClientName is the client's verified host name, "" if it has none.
func (e *Event) ClientName() string { return string(e.text[abi.EventClientName]) }

// Helo is the argument of HELO, EHLO or LHLO as it was given.
func (e *Event) Helo() string { return string(e.text[abi.EventHelo]) }

// User is the authenticated user; at Auth the user who tried.
func (e *Event) User() string { return string(e.text[abi.EventUser]) }

// Sender is the reverse-path without angle brackets; "" is the null path if
// HasSender.
func (e *Event) Sender() string { return string(e.text[abi.EventSender]) }

// Recipient is the forward-path in question at Rcpt; later the only one, if
// there is only one.
func (e *Event) Recipient() string { return string(e.text[abi.EventRecipient]) }

// RecipientCount is the number of recipients accepted so far.
func (e *Event) RecipientCount() int { return int(e.num[abi.EventRcptCount]) }

// Size is the SIZE parameter in octets; at Message the octets received.
func (e *Event) Size() int64 { return int64(e.num[abi.EventSize]) }

// Hostname is the server's own name.
func (e *Event) Hostname() string { return string(e.text[abi.EventHostname]) }

// QueueID is the message's id.
func (e *Event) QueueID() string { return string(e.text[abi.EventQueueID]) }

func (e *Event) flag(bit uint64) bool { return e.num[abi.EventFlags]&bit != 0 }

// Trusted reports whether the client is in a trusted network.
func (e *Event) Trusted() bool { return e.flag(abi.FlagTrusted) }

// EarlyTalker reports whether the client spoke before it was its turn.
func (e *Event) EarlyTalker() bool { return e.flag(abi.FlagEarlyTalker) }

// Extended reports whether the client said EHLO rather than HELO.
func (e *Event) Extended() bool { return e.flag(abi.FlagExtended) }

// TLS reports whether the connection is encrypted.
func (e *Event) TLS() bool { return e.flag(abi.FlagTLS) }

// AuthOK reports, at Auth, whether the exchange succeeded.
func (e *Event) AuthOK() bool { return e.flag(abi.FlagAuthOK) }

// HasSender reports whether there is a transaction with a reverse-path.
func (e *Event) HasSender() bool { return e.flag(abi.FlagHasSender) }

// Now is the host's time, to the millisecond. It stands still during a call.
func (e *Event) Now() time.Time { return time.UnixMilli(e.host.now()) }

// Levels of Log.
const (
	Debug = -4
	Info  = 0
	Warn  = 4
	Error = 8
)

// Log writes a line to the server's log. Level is one of Debug, Info, Warn,
// Error. A call may log 8 KiB; the rest is dropped.
func (e *Event) Log(level int, text string) { e.host.log(int32(level), text) }

// Names of rare facts, for Event.Fact.
const (
	FactServer      = abi.FactServer      // our address and port: "192.0.2.1:25"
	FactReverseName = abi.FactReverseName // name that the client's address maps to, verified or not
	FactMechanism   = abi.FactMechanism   // SASL mechanism
	FactTLSVersion  = abi.FactTLSVersion  // "TLSv1.3"
	FactTLSCipher   = abi.FactTLSCipher
	FactTLSSNI      = abi.FactTLSSNI     // name that the client asked for
	FactRecipients  = abi.FactRecipients // accepted so far, one a line
)

// Fact returns a rare fact by name, one of the Fact constants: "" if there is
// none.
func (e *Event) Fact(name string) string {
	buf := make([]byte, 512)
	for {
		n := e.host.fact(name, buf)
		if n < 0 {
			return ""
		}
		if int(n) <= len(buf) {
			return string(buf[:n])
		}
		buf = make([]byte, n)
	}
}

// Question is one DNS lookup. Type is "A", "AAAA", "MX", "TXT", "PTR", "NS" or
// "CNAME"; for PTR, Name is an IP address.
type Question struct{ Type, Name string }

// Answer is the result of one Question.
type Answer struct {
	Status  DNSStatus
	Records []string // A, AAAA: addresses; MX: "10 host"; TXT: the joined strings; others: names without the last dot
}

// DNSStatus is the outcome of a lookup.
type DNSStatus uint8

// The outcomes of a lookup.
const (
	DNSOK       DNSStatus = abi.DNSOK       // records follow, or the name exists without such records
	DNSNotFound DNSStatus = abi.DNSNotFound // the name does not exist
	DNSTemp     DNSStatus = abi.DNSTemp     // no answer: try later
)

// DNS looks qs up in parallel and returns as many answers in the same order.
// It needs the grant "dns" (else ErrDenied); a call may ask 20 questions (else
// ErrQuota) and wait 4 seconds in all (else ErrTimeout).
func (e *Event) DNS(qs ...Question) ([]Answer, error) {
	var req []byte
	for _, q := range qs {
		var m []byte
		m = appendString(m, abi.QuestionType, q.Type)
		m = appendString(m, abi.QuestionName, q.Name)
		req = appendBytes(req, abi.DNSItem, m)
	}
	buf := make([]byte, 2048)
	for {
		n := e.host.dns(req, buf)
		if n < 0 {
			return nil, codeError(int64(n))
		}
		if int(n) <= len(buf) {
			return decodeAnswers(buf[:n], len(qs))
		}
		buf = make([]byte, n)
	}
}

func decodeAnswers(b []byte, want int) ([]Answer, error) {
	as := make([]Answer, 0, want)
	r := reader{b: b}
	for {
		field, _, p, ok := r.next()
		if !ok {
			break
		}
		if field != abi.DNSItem {
			continue
		}
		var a Answer
		ar := reader{b: p}
		for {
			field, v, p, ok := ar.next()
			if !ok {
				break
			}
			switch field {
			case abi.AnswerStatus:
				a.Status = DNSStatus(v)
			case abi.AnswerRecord:
				a.Records = append(a.Records, string(p))
			}
		}
		r.bad = r.bad || ar.bad
		as = append(as, a)
	}
	if r.bad || len(as) != want {
		return nil, errWire
	}
	return as, nil
}

// Limits of Count: octets of a key, and the longest window.
const (
	MaxKey    = abi.MaxKey
	MaxWindow = abi.MaxWindow * time.Millisecond
)

// Count adds delta, which must not be negative, to the counter called key and
// returns its sum over the sliding window that ends now. Delta 0 only reads.
// Counters belong to the check. It needs the grant "count" (else ErrDenied).
func (e *Event) Count(key string, delta int64, window time.Duration) (int64, error) {
	n := e.host.count(key, delta, window.Milliseconds())
	if n < 0 {
		return 0, codeError(n)
	}
	return n, nil
}
