package dkim

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"time"

	"github.com/wafermail/wafer/core/dns"
)

// VerifyOptions says how to verify. Resolver is required, the rest may be zero.
type VerifyOptions struct {
	Resolver      dns.Resolver
	Now           func() time.Time // nil: time.Now
	Skew          time.Duration    // that clocks may differ, for t= and x=; 0: 5 min; negative: none
	MaxSignatures int              // that are verified, from the top; 0: 10
	MaxHeader     int              // octets of the header section without surplus signatures; 0: 256 KiB
	RefuseLength  bool             // a signature with l= gets Policy (RFC 6376 §8.2)
}

const defaultSkew = 5 * time.Minute

// Result is the outcome of one signature. Beyond Status, Reason and Text its fields
// are what the signature says, verified or not, as far as it could be read.
type Result struct {
	Status Status
	Reason Reason // "" for Pass
	Text   string // the reason for people; "" for Pass

	Domain    string    // d= in lower case, with A-labels
	Selector  string    // s=
	Identity  string    // i= decoded; "@" and Domain if not given. Any printable characters: quote it
	Algorithm string    // a=
	KeyBits   int       // 0 if no key was found
	B         string    // the first octets of b= in base64, which tell signatures of one domain apart (RFC 6008)
	Headers   []string  // h=: names in lower case, in order
	Time      time.Time // t=; zero if not given
	Expire    time.Time // x=; zero if not given

	Testing bool // the key's t=y: take a failure for no signature at all (RFC 6376 §3.6.1)
	Expired bool // x= is past

	// What the signature leaves open. BodyLength is l=, -1 without. If Partial, the
	// body goes on for UnsignedOctets after it, in canonical form. UnsignedFields are
	// fields that are covered and yet stand there once more, in lower case.
	BodyLength     int64
	Partial        bool
	UnsignedOctets int64
	UnsignedFields []string
}

// headerB is how many characters of b= a Result repeats; RFC 6008 §4 asks for 8.
const headerB = 12

// check is a signature that is being verified.
type check struct {
	*Signature
	field  int // index in Message.Fields
	keys   Keys
	fit    []*PublicKey
	result *Result
}

func (c *check) fail(f *Fault) {
	c.result.Status, c.result.Reason, c.result.Text = f.Status, f.Reason, f.Text
}

// Verify verifies the signatures of the message of size octets in r, from top to
// bottom. A message without any gives no Result. More than MaxSignatures give one more
// Result, with TooMany; a header section beyond MaxHeader and one that cannot be read
// give one Result only. It returns when ctx ends, as far as Resolver does, and waits
// for all that it started.
func Verify(ctx context.Context, r io.ReaderAt, size int64, o VerifyOptions) []Result {
	m, err := Read(r, size, Limits{Header: o.MaxHeader, Signatures: o.MaxSignatures})
	switch {
	case errors.Is(err, ErrHeaderTooLarge):
		return one(faultf(Neutral, HeaderTooLarge, "the header section is too large to be looked at"))
	case err != nil:
		return one(faultf(TempError, ReadError, "the message cannot be read"))
	}
	var checks []*check
	for i, f := range m.Fields {
		if f.Name == "dkim-signature" {
			checks = append(checks, &check{field: i})
		}
	}
	if len(checks) == 0 {
		return nil
	}
	results := make([]Result, len(checks), len(checks)+1)
	for i, c := range checks {
		c.result = &results[i]
	}
	o.verify(ctx, m, checks)
	if m.Surplus > 0 {
		results = append(results, one(faultf(Neutral, TooMany, "%d more signatures are not looked at", m.Surplus))...)
	}
	return results
}

func one(f *Fault) []Result {
	return []Result{{Status: f.Status, Reason: f.Reason, Text: f.Text, BodyLength: -1}}
}

// verify goes on in steps, each with the signatures that passed the one before, the
// cheap steps first.
func (o VerifyOptions) verify(ctx context.Context, m *Message, checks []*check) {
	checks = each(checks, func(c *check) *Fault {
		var fault *Fault
		c.Signature, fault = ParseSignature(m.Fields[c.field].Raw)
		c.describe()
		if fault == nil {
			fault = o.acceptable(c)
		}
		return fault
	})

	for i, keys := range o.lookup(ctx, checks) {
		checks[i].keys = keys
	}
	checks = each(checks, func(c *check) (fault *Fault) {
		c.fit, fault = c.keys.fit(c.Signature)
		if fault != nil && len(c.keys.Keys) > 0 {
			c.result.KeyBits, c.result.Testing = c.keys.Keys[0].Bits, c.keys.Keys[0].Testing
		}
		return fault
	})

	sums, err := m.HashBody(signatures(checks))
	at := -1
	checks = each(checks, func(c *check) *Fault {
		if err != nil {
			return faultf(TempError, ReadError, "the message cannot be read")
		}
		at++
		return c.body(sums[at])
	})

	each(checks, func(c *check) *Fault {
		fields, unsigned := m.Select(c.Headers, c.field)
		c.result.UnsignedFields = unsigned
		digest := c.Digest(fields)
		key, fault := CheckKeys(Keys{Keys: c.fit}, c.Signature, digest[:])
		if fault == nil {
			c.result.Status = Pass
		}
		c.result.KeyBits, c.result.Testing = key.Bits, key.Testing
		return fault
	})
}

// each takes a step with all checks and returns those that are still undecided.
func each(checks []*check, step func(*check) *Fault) []*check {
	left := checks[:0:0]
	for _, c := range checks {
		if fault := step(c); fault != nil {
			c.fail(fault)
		} else {
			left = append(left, c)
		}
	}
	return left
}

func signatures(checks []*check) []*Signature {
	list := make([]*Signature, len(checks))
	for i, c := range checks {
		list[i] = c.Signature
	}
	return list
}

// describe copies what the signature says.
func (c *check) describe() {
	s := c.Signature
	b := base64.StdEncoding.EncodeToString(s.Value[:min(len(s.Value), headerB/4*3)])
	*c.result = Result{
		Domain: s.Domain, Selector: s.Selector, Identity: s.Identity, Algorithm: s.Algorithm,
		B: b, Headers: s.Headers, Time: s.Time, Expire: s.Expire, BodyLength: s.Length,
	}
}

// acceptable holds a signature to what we, rather than its syntax, ask for.
func (o VerifyOptions) acceptable(c *check) *Fault {
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	skew := o.Skew
	if skew == 0 {
		skew = defaultSkew
	}
	skew = max(skew, 0)
	t := now()
	c.result.Expired = !c.Expire.IsZero() && t.After(c.Expire.Add(skew))
	switch {
	case c.result.Expired:
		return faultf(Policy, Expired, "the signature expired at %s", c.Expire.Format(time.RFC3339))
	case c.Time.After(t.Add(skew)):
		return faultf(Policy, FromFuture, "the signature was made in the future, at %s", c.Time.Format(time.RFC3339))
	case !c.Expire.IsZero() && !c.Expire.After(c.Time):
		return faultf(Neutral, Syntax, "tag x is not later than t")
	case o.RefuseLength && c.Length >= 0:
		return faultf(Policy, LengthRefused, "the signature covers only %d octets of the body", c.Length)
	}
	return nil
}

func (o VerifyOptions) lookup(ctx context.Context, checks []*check) []Keys {
	if o.Resolver == nil {
		keys := make([]Keys, len(checks))
		for i := range keys {
			keys[i].Fault = faultf(TempError, KeyUnavailable, "there is no resolver")
		}
		return keys
	}
	return LookupKeys(ctx, o.Resolver, signatures(checks))
}

// body compares the hash of the body.
func (c *check) body(sum BodySum) *Fault {
	if c.Length >= 0 {
		c.result.UnsignedOctets = max(sum.Octets-c.Length, 0)
		c.result.Partial = c.result.UnsignedOctets > 0
	}
	switch {
	case sum.Digest == nil:
		return faultf(Fail, BodyTruncated, "the body has %d octets, the signature covers %d", sum.Octets, c.Length)
	case !bytes.Equal(sum.Digest, c.BodyHash):
		return faultf(Fail, BodyMismatch, "the body is not what was signed")
	}
	return nil
}
