// Package policy decides what may pass. A Policy is an ordered list of checks,
// each a plugin that is asked at its stages; a Session is one connection's walk
// through the policies of its door, with the memory that Postfix's evaluation
// rules need (held refusals, sticky defer flags).
//
// A door makes one Session for each connection and calls Ask at every stage;
// where it has rules of its own, Due before them and Overruled with their 5xx.
// The answer is final and complete: the status to reply with, whether to hang
// up, and the effects that have accumulated. What a plugin is made of is not
// known here: package wasm implements Plugin.
//
// An error is never a verdict: whatever a plugin does wrong ends in the check's
// OnError, is counted and is logged. A refusal's text ends with the decision's
// id, under which the decision log has every check of that moment with what it
// asked the host and what it was told.
//
// # BUGS
//
// Counters live in memory, and without SetOptions.State so does state: a restart
// begins at zero, and when there are too many the longest unused is forgotten. A held refusal is the one that was first made;
// a check that would be content by the time of RCPT is not asked again.
package policy

import (
	"context"
	"net/netip"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Stage is a moment at which checks are asked. The numbers are those of the
// plugin ABI (sdk/abi).
type Stage uint8

// The stages, in the order in which a message meets them.
const (
	Connect  Stage = 1 // a client connected, before the banner
	Helo     Stage = 2 // HELO, EHLO or LHLO
	StartTLS Stage = 3 // after a TLS handshake
	Auth     Stage = 4 // after an AUTH exchange, also of IMAP and POP3, whether it succeeded or not
	Mail     Stage = 5 // MAIL FROM
	Rcpt     Stage = 6 // each RCPT TO; core's own rules about relaying and mailboxes come after it
	Data     Stage = 7 // DATA or the first BDAT, before 354
	Message  Stage = 8 // after the final dot, before the commit

	// Those of the door "queue" have no client that waits for a reply.
	Queued Stage = 9  // the queue has taken a message, before the first attempt
	Route  Stage = 10 // each waiting recipient of a queued message, in each round
	Bounce Stage = 11 // a notice to a sender is due
)

// LastStage is the highest stage.
const LastStage = Bounce

// Event is what a check may know. Fields of later stages are zero; a plugin is
// sent a small part of it and pulls what is rare by name.
type Event struct {
	Stage   Stage
	Time    time.Time
	Session string // session id

	Door     string // profile of the listener: "mx", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s"
	Protocol string // "smtp", "lmtp", "imap", "pop3"
	Server   netip.AddrPort
	Hostname string // our own name

	Client      netip.AddrPort
	ClientName  string // verified name, "" if none
	ReverseName string // PTR name, verified or not, "" if none
	Trusted     bool   // client is in trusted_networks
	EarlyTalker bool   // client spoke before it was its turn

	Helo     string // argument as given
	Extended bool   // EHLO rather than HELO
	TLS      mail.TLS

	User      string // authenticated user (at Auth: the user who tried)
	Mechanism string // SASL mechanism
	AuthOK    bool   // at Auth: the exchange succeeded

	QueueID   mail.ID
	Sender    mail.Path // valid if HasSender
	HasSender bool
	Recipient mail.Path   // at Rcpt: the one in question; later stages: set if there is only one
	Rcpts     []mail.Path // accepted so far, without the one in question
	Size      int64       // SIZE parameter; at Message the octets received

	Content Content // at Message and Queued only, else nil

	Attempts  int       // at Route: rounds so far, 0 in the first; at Bounce: rounds
	Reply     string    // at Route: what the last attempt came to, "" in the first round; at Bounce: why
	Notice    string    // at Bounce: "failed", "delayed", "delivered", "relayed"
	Directory Directory // who is known here; nil: nobody can say

	// Tags and Score are what checks have added so far to the connection, and
	// since MAIL to the transaction. The Session sets them before each check.
	Tags  []string
	Score float64
}

// Directory knows addresses. Its methods are called by many sessions at once
// and do not wait for anything slow.
type Directory interface {
	// Class is ClassLocal, ClassUnknown or ClassRelay, and "" for the null path.
	Class(p mail.Path) string
	// Owners are the logins that may use p as their reverse-path; none if p
	// belongs to nobody in particular.
	Owners(p mail.Path) []string
}

// Classes of addresses.
const (
	ClassLocal   = "local"   // a mailbox or an alias here
	ClassUnknown = "unknown" // a domain of ours without such a mailbox
	ClassRelay   = "relay"   // no domain of ours
)

// Content is the message at stage Message, read in ranges and never whole.
type Content interface {
	// Header returns the index-th (from 0, top to bottom) field called name,
	// in any case: its body unfolded, without the name. ok is false past the last.
	// With name "" every field counts, and value is "Name: body".
	Header(name string, index int) (value string, ok bool)
	// Body reads octets of the message body from off into p, like io.ReaderAt.
	Body(p []byte, off int64) (int, error)
}

// Action is what a check or a chain decided. The numbers are those of the ABI.
type Action uint8

// The actions.
const (
	Next          Action = 0 // no opinion
	Accept        Action = 1 // ends this stage's list of this policy
	Reject        Action = 2 // 5xx
	Defer         Action = 3 // 4xx
	Disconnect    Action = 4 // reply (421 unless it names another code), then hang up
	Discard       Action = 5 // say 250 and drop the message
	Hold          Action = 6 // keep in the queue until released
	Quarantine    Action = 7 // deliver to Junk
	DeferIfPermit Action = 8 // 4xx if nothing else refuses
	DeferIfReject Action = 9 // a later 5xx becomes this 4xx
)

// Verdict is one check's answer.
type Verdict struct {
	Action  Action
	Status  mail.Status // Code 0 and empty fields mean the action's default
	Reason  string      // label for metrics and logs: lower-case words joined by "-"
	Effects Effects
}

// Effects are what checks add to a message without deciding it. They
// accumulate over the whole session or transaction.
type Effects struct {
	Prepend  []Field  // header fields, in the order in which they shall stand on top
	Tags     []string // words for later checks and the log
	Score    float64  // summed
	Redirect []mail.Path
	BCC      []mail.Path
	Tarpit   time.Duration // wait before the reply

	Transport string        // at Route: the way to take, "" for the configuration's
	Hop       string        // and its next hop, "" for the transport's own
	Delay     time.Duration // at Queued and Route: not before the message is that old
	Limit     int           // at Route: deliveries at once to the destination, 0 for the configuration's
}

// Field is a header field without CR or LF in its body; the host folds it.
type Field struct{ Name, Value string }

// Plugin is a loaded and configured plugin of one check.
type Plugin interface {
	// Call asks the plugin. It returns within the plugin's budget whatever the
	// plugin does. An error means that there is no verdict; it names the cause
	// ("trap", "fuel", "deadline", "bad verdict", …) and is safe to log.
	Call(ctx context.Context, ev *Event, host Host) (Verdict, error)
	// Close releases the plugin once no call is under way.
	Close() error
}

// Foreign is a Plugin that asks a program outside, of which a replay knows only what it
// said then.
type Foreign interface{ Foreign() }

// Module is a Plugin that is made of a module.
type Module interface {
	ID() string     // "org.example.dnsbl"
	Digest() string // SHA-256 in hexadecimal
}
