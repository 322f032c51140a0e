// Package smtpd is the SMTP dialogue: the server side of RFC 5321 for the MX,
// submission and LMTP doors.
//
// # Description
//
// A Server holds one listener profile. Serve accepts connections, each of which
// is one goroutine that walks through a session: greeting, HELO or EHLO, STARTTLS,
// AUTH, transactions. What may pass is not decided here. The core rules (whose
// mailbox is it, may this client relay) are the Courier's, everything else is the
// policy's, and both are pinned for the whole session by Config.Begin.
//
// The message streams from the socket through one pooled buffer into the
// Courier's Draft and is never held in memory. After the final dot the policy
// is asked once more, and then Draft.Commit decides the reply: this package says
// 250 only after Commit has returned.
//
// The submission doors (RFC 6409) take mail from those who have logged in and may
// write as the sender they name (Config.OwnSender). They complete addresses
// without a domain, in the envelope and in the header, add Date, Message-ID and
// From where they are missing, and take Bcc out. The LMTP door (RFC 2033) replies
// to a message once for each recipient.
//
// # Guarantees
//
// Only CR LF "." CR LF ends a message. A message with a bare CR or LF is read to
// that end and refused, except from trusted networks, whose line ends are
// repaired. A session that failed to read is over: nothing that arrives after a
// timeout or inside a cut BDAT is ever taken for a command or for a message.
// Nothing that was sent before a TLS handshake is used after it, and a failed
// handshake ends the session. AUTH is never offered without TLS (loopback may be
// exempted). Every line, list and table that a peer can fill has a bound in
// Limits, and every wait is a deadline on the socket.
//
// Text lines of a message may be as long as Limits.TextLine; they pass
// unchanged (wrapping them would break signatures) and are never buffered. NULs
// and 8-bit octets pass too, whatever BODY said.
//
// # Bugs
//
// Parameters are accepted after HELO as after EHLO. The SASL mechanisms are
// those of package auth, so there is no EXTERNAL. Whoever passes a message on
// with its old From (Resent-From) is refused where From must be the user's own.
// AUTH must be the last command that a client sends at once; a response that
// came with it is taken, a command makes AUTH fail. BURL, FUTURERELEASE,
// REQUIRETLS and DELIVERBY are not offered. The early-talker test without
// GreetDelay sees only what arrived before the policy was asked, and looks at
// TCP sockets only. A message in BODY=BINARYMIME is stored as it came, with
// whatever line ends it has.
package smtpd

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/netip"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// Profile says what a listener is for. Its text is the door's name in policies.
type Profile string

// The profiles. Submissions is submission with TLS from the first octet
// (RFC 8314 §3.3).
const (
	MX          Profile = "mx"
	Submission  Profile = "submission"
	Submissions Profile = "submissions"
	LMTP        Profile = "lmtp"
)

// submits reports whether clients of p must authenticate (RFC 6409).
func (p Profile) submits() bool { return p == Submission || p == Submissions }

// Config is what New needs. Hostname and Begin must be set.
type Config struct {
	Profile  Profile
	Hostname string // our name in the greeting, EHLO and Received

	// TLS is offered by STARTTLS, or used at once by Submissions. nil: no TLS.
	// It is cloned; versions below 1.2 and, on MX, session tickets are switched
	// off (Microsoft's senders abort a handshake that brings tickets).
	TLS *tls.Config

	Trusted     []netip.Prefix // line ends repaired, connection caps lifted
	ProxyFrom   []netip.Prefix // must begin with a PROXY header; empty: nobody may
	XClientFrom []netip.Prefix // may use XCLIENT; empty: nobody may

	Without []string // extensions that are not offered; see Extensions

	OwnSender  Ownership // on submission: where a user must write an address of his own
	HideClient bool      // on submission: Received does not say where the client is

	AuthLoopback bool // offer AUTH without TLS to 127.0.0.0/8 and ::1

	Limits   Limits
	Registry *Registry // connection caps, shared by listeners; nil: one of its own

	// Begin is called once for each connection, whose client is known by then, and pins
	// what judges it.
	Begin func(client netip.Addr) Rules

	// Names looks up the names of a client: verified is the name that the
	// address maps to and that maps back, reverse what the address maps to. It
	// must not take long. nil: no names.
	Names func(ctx context.Context, addr netip.Addr) (verified, reverse string)

	Logger *slog.Logger // nil: no log
}

// Rules are what one session is judged by.
type Rules struct {
	Shadow  *policy.Set   // watches, and decides nothing; nil: nobody does
	Policy  *policy.Set   // nil: no objection
	Auth    Authenticator // nil: no AUTH
	Courier Courier

	Directory policy.Directory // what checks may know of addresses; may be nil

	Release func() // called when the session is over; may be nil
}

// Authenticator is what AUTH needs; *auth.Service is one.
type Authenticator interface {
	Mechanisms(p auth.Peer) []string
	Start(mechanism string, p auth.Peer) (*auth.Exchange, error)
}

// Courier takes messages. Its methods are called by many sessions at once.
type Courier interface {
	// Recipient judges one RCPT: a Status with Code 0 accepts, else it is the
	// reply ("550 5.1.1 …", "554 5.7.1 …", "451 …"). env has no recipients that
	// come later. The bare postmaster arrives without a domain.
	Recipient(ctx context.Context, env *mail.Envelope, to mail.Recipient) mail.Status
	// Begin opens a draft for env, whose recipients are complete. An error is
	// answered with 451.
	Begin(ctx context.Context, env *mail.Envelope) (Draft, error)
}

// Draft is a message on its way to disk. One goroutine uses it.
type Draft interface {
	io.Writer // the message as received: CR LF line ends, dots removed, no trace fields
	// Content is the message for the policy, after the last Write.
	Content() policy.Content
	// Commit makes the message durable for every recipient, with trace on top.
	// The statuses belong to env.Rcpts by index; a Code of 0 is a success. It
	// returns only when all of it is durable, or when nothing is visible: then
	// with an error, which is answered with 451.
	Commit(ctx context.Context, trace []byte, d Disposition) ([]mail.Status, error)
	// Abort removes the draft. It may be called more than once and after Commit.
	Abort()
}

// Disposition is what the policy said about a message besides yes.
type Disposition struct {
	Message  Fate        // for every recipient
	Rcpts    []Fate      // for each of env.Rcpts by index
	Redirect []mail.Path // deliver there instead
	BCC      []mail.Path // deliver there too
	Tags     []string
	Score    float64
}

// For returns the fate of recipient i: the message's and its own together.
func (d Disposition) For(i int) Fate {
	f := d.Message
	if i < len(d.Rcpts) {
		f = f.and(d.Rcpts[i])
	}
	return f
}

// Fate is what the policy wants to happen to an accepted message.
type Fate struct {
	Discard    bool // say 250 and drop it
	Hold       bool // keep it in the queue until released
	Quarantine bool // deliver to Junk
}

func (f Fate) and(g Fate) Fate {
	return Fate{f.Discard || g.Discard, f.Hold || g.Hold, f.Quarantine || g.Quarantine}
}

// fateOf reads the fate out of a decision that does not refuse.
func fateOf(d policy.Decision) Fate {
	return Fate{
		Discard:    d.Action == policy.Discard,
		Hold:       d.Action == policy.Hold,
		Quarantine: d.Action == policy.Quarantine,
	}
}

// judge is a policy.Session; tests have others.
type judge interface {
	Ask(ctx context.Context, ev *policy.Event) policy.Decision
	Overruled(ev *policy.Event, own mail.Status) (policy.Decision, bool)
	Reset()
	Active(stage policy.Stage) bool
	Answered()
}
