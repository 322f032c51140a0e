// Package arc verifies and extends Authenticated Received Chains (RFC 8617): what the
// servers that a message came through say about who sent it, each signed by the one
// that says so.
//
// The chain of a stored message is verified by
//
//	result := arc.Verify(ctx, draft, size, arc.VerifyOptions{Resolver: resolver})
//	if domain, found, ok := arc.Trusted(result, sealers.Has); ok { … found by domain … }
//
// and a set of our own added by
//
//	sealer, err := arc.NewSealer(arc.SealOptions{Domain: "example.org", Selector: "arc", Key: key})
//	fields, err := sealer.Seal(draft, size, result, results) // to be put above the message
//
// A chain that passes proves only who handled the message, and not that they tell the
// truth: anybody can seal. Nothing may be concluded from it without a list of sealers
// that are believed, which is what Trusted takes.
//
// Result.CV is "temperror" besides the three values of the RFC where DNS gave no
// answer and nothing else is wrong: the message may be deferred, or taken as if it had
// no chain, but is not to be sealed.
//
// Memory and time are bounded by VerifyOptions.MaxHeader and the size of the message,
// DNS questions by two for each of at most 50 sets; chains that can be seen to fail
// without DNS ask none. No goroutine outlives a call.
//
// # BUGS
//
// A chain that fails is not looked at further, so that its other sets may have a Check
// without Status. Several fields in one set that differ in algorithm (RFC 8617 §4.2.1)
// are duplicates. A header section beyond MaxHeader fails even if it has no chain. A
// message signature whose l= leaves a part of the body open fails, though the RFC has
// no word on it. In three things a message signature is taken more leniently than the
// RFC says, because other sealers and the ARC test suite do so: it may cover ARC fields
// other than seals, have empty names in h=, and mean relaxed if it has no c=.
// Authentication-Results fields are not collected from the message: the caller gives
// Seal what it found out. Many others verify chains of RSA only, though a Sealer may
// have an Ed25519 key.
package arc

import (
	"strconv"
	"time"

	"github.com/wafermail/wafer/core/authres"
	"github.com/wafermail/wafer/core/dkim"
)

// The names of the fields (RFC 8617 §4.1).
const (
	FieldResults = "ARC-Authentication-Results"
	FieldMessage = "ARC-Message-Signature"
	FieldSeal    = "ARC-Seal"
)

// MaxSets is how many sets a chain may have (RFC 8617 §4.2.1).
const MaxSets = 50

// CV is a chain validation status (RFC 8617 §4.4).
type CV string

// The statuses. TempError is ours and never written into a seal.
const (
	None      CV = "none" // there is no chain
	Pass      CV = "pass"
	Fail      CV = "fail"
	TempError CV = "temperror" // not to be known now: DNS or disk failed
)

// Reason is a stable label for programs: why a chain is not Pass.
type Reason string

// The reasons, by the CV that they come with.
const (
	// Fail
	TooManySets    Reason = "too-many-sets"
	Ended          Reason = "ended"             // the newest seal says that the chain failed before
	Unreadable     Reason = "unreadable"        // a field's i= or the field itself
	Duplicate      Reason = "duplicate"         // a set has a field twice
	Incomplete     Reason = "incomplete"        // a set lacks a field, or is lacking
	ChainStatus    Reason = "chain-status"      // a cv= that cannot stand there
	MessageFailed  Reason = "message-signature" // the newest one; see its Check
	SealFailed     Reason = "seal"              // see the Checks
	HeaderTooLarge Reason = "header-too-large"

	// TempError
	KeyUnavailable Reason = "key-unavailable" // DNS gave no answer
	ReadError      Reason = "read-error"      // of the message
)

// Result is the outcome of verifying a chain.
type Result struct {
	CV     CV
	Reason Reason // "" for None and Pass
	Text   string // the reason for people; what the message or DNS says is quoted
	Sets   []Set  // oldest first; of a chain that fails, as much as could be read
	// OldestPass is the oldest-pass value (RFC 8617 §5.2) if CV is Pass: the lowest
	// instance since which the message was not changed, 0 if it never was. Else -1.
	OldestPass int
}

// Set is what one sealer added (RFC 8617 §4.2).
type Set struct {
	Instance int    // i=
	Domain   string // d= of the seal, in lower case, with A-labels: who is to be trusted or not
	Selector string // s= of the seal
	CV       CV     // cv= of the seal: how the chain was before
	// AuthResults is what the sealer found out. It has no ServID if it could not be read.
	AuthResults authres.Field
	Message     Check // of the ARC-Message-Signature
	Seal        Check // of the ARC-Seal
}

// Check is the outcome of one signature. Beyond Status, Reason and Text its fields are
// what the signature says, verified or not, as far as it could be read.
type Check struct {
	Status dkim.Status // "" if it was not looked at
	Reason dkim.Reason // "" for Pass
	Text   string      // the reason for people; "" for Pass

	Domain    string    // d= in lower case, with A-labels
	Selector  string    // s=
	Algorithm string    // a=
	KeyBits   int       // 0 if no key was tried
	Headers   []string  // h= of a message signature: names in lower case, in order
	Time      time.Time // t=; zero if not given

	// UnsignedFields are fields that a message signature covers and that yet stand there
	// once more, in lower case.
	UnsignedFields []string
}

// AuthResult is the result for an Authentication-Results field (RFC 8617 §10.1,
// §10.2), which has no word for TempError: it is written as other methods do.
func (r Result) AuthResult() authres.Result {
	a := authres.Result{Method: "arc", Value: string(r.CV), Reason: r.Text}
	if r.CV == Pass {
		a.Props = []authres.Prop{{Type: "header", Property: "oldest-pass", Value: strconv.Itoa(r.OldestPass)}}
	}
	return a
}
