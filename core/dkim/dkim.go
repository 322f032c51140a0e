// Package dkim verifies and makes DKIM signatures (RFC 6376, RFC 8301, RFC 8463):
// rsa-sha256 with keys of 1024 to 4096 bits and ed25519-sha256.
//
// A stored message is verified by
//
//	results := dkim.Verify(ctx, draft, size, dkim.VerifyOptions{Resolver: resolver})
//
// which gives one Result for each signature, in the words of RFC 8601 §2.7.1, and
// signed by
//
//	signer, err := dkim.NewSigner(dkim.SignerOptions{Keys: keys})
//	fields, err := signer.Sign(draft, size) // to be put above the message
//
// Keys come from GenerateKey, ReadKeyFile and ParseKey; ZoneLine is what has to
// stand in DNS and CheckRecord says whether it does.
//
// Other kinds of signature that are made in the same way (RFC 8617) find the parts
// here: ParseTags, Canon, BodyHash, Read and the methods of Message, ParseSignature,
// LookupKeys, CheckKeys and SignField.
//
// A message has CR LF line ends. Header fields are told apart exactly as core/mail
// does for the rest of the server, so that no signature covers a field that others see
// elsewhere: a bare LF ends a line of the header section. In the body a bare CR or LF
// is an octet like any other.
//
// Memory is bounded by VerifyOptions.MaxHeader and a few windows of 16 KiB whatever
// the message, time by its size, DNS questions by VerifyOptions.MaxSignatures.
// No goroutine outlives a call.
//
// # BUGS
//
// Beyond MaxSignatures, signature fields are counted and dropped; a signature that
// covers such a dropped field fails. DNS over anything but TXT records (q= other than
// dns/txt) is unknown, as is the rsa-sha1 of old, whose signatures are refused (RFC
// 8301 §3.1). The g= tag of RFC 4871 is ignored, as RFC 6376 does. The copied header
// fields of z= are not looked at. Of several TXT records at a selector, at most five
// keys are tried.
package dkim

import "fmt"

// Status is the outcome of verifying a signature in the words of RFC 8601 §2.7.1.
type Status string

// The outcomes. A message without signatures has no Result at all, which
// Authentication-Results calls "none".
const (
	Pass      Status = "pass"      // it verified
	Fail      Status = "fail"      // body or header is not what was signed
	Policy    Status = "policy"    // well made, but not accepted: key size, expiry, l=
	Neutral   Status = "neutral"   // the signature field is malformed, or was not looked at
	TempError Status = "temperror" // not to be known now: DNS or disk failed
	PermError Status = "permerror" // not to be verified ever: no key, unknown algorithm, From not signed
)

// Reason is a stable label for programs: why a Result is not Pass.
type Reason string

// The reasons, by the Status that they come with.
const (
	// Fail
	BodyMismatch      Reason = "body-hash-mismatch"
	BodyTruncated     Reason = "body-truncated" // shorter than l= says
	SignatureMismatch Reason = "signature-mismatch"

	// Policy
	KeyTooShort   Reason = "key-too-short" // RFC 8301 §3.2
	KeyTooLong    Reason = "key-too-long"
	Expired       Reason = "expired"     // x= is past
	FromFuture    Reason = "from-future" // t= is to come
	LengthRefused Reason = "length-refused"

	// Neutral
	Syntax         Reason = "syntax"           // of the signature field
	TooMany        Reason = "too-many"         // more signatures than are looked at
	HeaderTooLarge Reason = "header-too-large" // the whole header section

	// TempError
	KeyUnavailable Reason = "key-unavailable" // DNS gave no answer
	ReadError      Reason = "read-error"      // of the message

	// PermError
	VersionUnknown   Reason = "version-unknown"
	AlgorithmUnknown Reason = "algorithm-unknown"
	AlgorithmRefused Reason = "algorithm-refused" // rsa-sha1, RFC 8301 §3.1
	CanonUnknown     Reason = "canonicalization-unknown"
	QueryUnknown     Reason = "query-unknown" // no dns/txt in q=
	FromUnsigned     Reason = "from-unsigned" // h= lacks From
	IdentityMismatch Reason = "identity-mismatch"
	KeyMissing       Reason = "key-missing" // no TXT record
	KeyRevoked       Reason = "key-revoked" // empty p=
	KeySyntax        Reason = "key-syntax"
	KeyType          Reason = "key-type"    // k= is not what a= needs
	KeyHash          Reason = "key-hash"    // h= of the key lacks sha256
	KeyService       Reason = "key-service" // s= of the key lacks email
	KeyStrict        Reason = "key-strict"  // t=s and i= is below d=
)

// Fault says why something about a signature cannot pass. A nil *Fault means that
// nothing is wrong.
type Fault struct {
	Status Status
	Reason Reason
	Text   string // for people; what the message or DNS says is quoted
}

func faultf(s Status, r Reason, format string, args ...any) *Fault {
	return &Fault{Status: s, Reason: r, Text: fmt.Sprintf(format, args...)}
}

// clip shortens what a peer sent for a text.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
