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
	ErrNotFound  = errors.New("not there")
	ErrNoList    = errors.New("the check names no such list")
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
	case abi.NotFound:
		return ErrNotFound
	case abi.NoList:
		return ErrNoList
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

	FactRecipientClass = abi.FactRecipientClass // ClassLocal, ClassUnknown or ClassRelay
	FactSenderClass    = abi.FactSenderClass    // the same; "" for the null reverse-path
	FactSenderOwners   = abi.FactSenderOwners   // logins that may use the sender address, one a line; "" if nobody owns it
	FactTags           = abi.FactTags           // that checks have added so far, one a line
	FactScore          = abi.FactScore          // that checks have added up so far: "3.5"
	FactAttempts       = abi.FactAttempts       // at Route and Bounce: rounds of attempts so far: "3"
	FactReply          = abi.FactReply          // at Route and Bounce: what the last attempt came to
	FactNotice         = abi.FactNotice         // at Bounce: "failed", "delayed", "delivered", "relayed"
)

// Values of FactRecipientClass and FactSenderClass.
const (
	ClassLocal   = abi.ClassLocal   // a mailbox or an alias here
	ClassUnknown = abi.ClassUnknown // a domain of ours without such a mailbox
	ClassRelay   = abi.ClassRelay   // no domain of ours
)

// Fact returns a rare fact by name, one of the Fact constants: "" if there is
// none.
func (e *Event) Fact(name string) string {
	b, _ := pull(512, func(buf []byte) int32 { return e.host.fact(name, buf) })
	return string(b)
}

// pull asks for an output with room octets first, and again with as many as it
// has. A negative code is the host's error.
func pull(room int, ask func(buf []byte) int32) (b []byte, code int32) {
	buf := make([]byte, room)
	for {
		n := ask(buf)
		if n < 0 {
			return nil, n
		}
		if int(n) <= len(buf) {
			return buf[:n], 0
		}
		buf = make([]byte, n)
	}
}
