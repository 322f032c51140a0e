// Package delegate speaks Postfix's policy delegation protocol, in both
// directions.
//
// New is the client: a policy.Plugin that puts each question to a policy daemon
// (policyd-spf, postgrey, a company's own) as Postfix's check_policy_service
// does, with the attributes of Postfix 3.7 in Postfix's order, and takes the
// answer for a verdict. A Server is the daemon: a running Postfix asks it, and
// the policies of the door "policy" answer.
//
// A request is lines of "name=value" and an empty line; an answer is
// "action=" with an action of access(5), and an empty line. Both ends read
// with bounds on lines, octets and time.
//
// # The client
//
// Connections are kept and used again, the latest first. One that the daemon has
// closed, or on which it has said something unasked, is thrown away unused.
// Whatever goes wrong (no connection, no answer in time, an answer that is none,
// an action that is not known) is an error, so the check's on_error decides. A
// daemon that is down is warned of once, and once when it is back.
//
// Of access(5) it knows OK, DUNNO, REJECT, DEFER, DEFER_IF_PERMIT,
// DEFER_IF_REJECT, 4NN, 5NN (421 and 521 hang up), numbers (OK), PREPEND, HOLD,
// DISCARD, REDIRECT, BCC, INFO, WARN, and the restrictions permit and reject, in
// either case. Codes and texts are Postfix's: 554 5.7.1 for REJECT, 450 4.7.1 for
// DEFER, "<value>: Sender address rejected: TEXT".
//
// # The server
//
// Postfix says everything at once, and mostly at RCPT only. The Server asks the
// stages connect, starttls, helo, auth, mail and rcpt in their order, each one
// only if what it is about has changed within the same SMTP session; at DATA or
// at END-OF-MESSAGE, whichever is first, it asks data. A question that is
// repeated, because the service stands in several lists of Postfix's, gets the
// same answer without asking again. Refusals are given at once: when they are to
// be given is smtpd_delay_reject's to say, not reply_at's.
//
// No objection, and also accept, is DUNNO. It is never OK: that would end
// Postfix's own list, and with it reject_unauth_destination, if that stands
// behind. An answer has room for one action, so of several effects the first
// goes with this answer and the others with the next ones about the same
// transaction. Quarantine is the header field X-Wafer-Quarantine with the reason,
// for whoever delivers behind Postfix.
//
// A request that cannot be read ends the connection without an answer, as the
// protocol wants it; Postfix then asks again, and defers. One with a value that
// makes no sense, such as a sender that is no address, is answered
// DEFER_IF_PERMIT 4.3.5.
//
// # BUGS
//
// The client: FILTER, and restrictions other than permit and reject, are
// errors, where Postfix would go on with them. HOLD, DISCARD, REDIRECT and BCC are
// errors at connect and helo, where there is no message yet. The ciphers of TLS
// have their IANA names, and what is not known here (client certificates,
// sasl_sender, stress) is empty.
//
// The server: Postfix applies HOLD, DISCARD and REDIRECT to the message, so a
// policy that discards for one recipient discards for all. A sender can write an
// X-Wafer-Quarantine field of his own, and so file his mail in Junk. Effects that
// are still waiting when Postfix asks no more are lost; that is logged when the
// next transaction shows it. What Postfix itself refused after our answer counts
// as accepted in Event.Rcpts. There is no message stage. defer_if_permit becomes
// its 4xx in our answer at RCPT, not at the end of Postfix's lists; a Postfix that
// asks at other commands only is given what is held of connect, helo and mail at
// once, but not that flag.
package delegate

import "github.com/wafermail/wafer/core/policy"

// Bounds of what is read from the other side.
const (
	maxLine    = 8 << 10  // octets of a line
	maxBlock   = 64 << 10 // octets of a request or an answer
	maxLines   = 200      // of a request or an answer
	maxValue   = 4 << 10  // octets of a value that is sent
	requestTag = "smtpd_access_policy"
)

// Stages are those at which a daemon can be asked: the protocol has no word for
// starttls and auth.
func Stages() []policy.Stage {
	return []policy.Stage{policy.Connect, policy.Helo, policy.Mail, policy.Rcpt, policy.Data, policy.Message}
}
