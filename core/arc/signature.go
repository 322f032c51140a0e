package arc

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/dkim"
)

// signature is a signature field that is being verified.
type signature struct {
	*dkim.Signature
	// other is another way to read a message signature, the same if there is none. RFC
	// 8617 §4.1.2 gives one without c= the default of RFC 6376, simple; but there are
	// sealers that leave c= out and mean relaxed, as seals always are.
	other *dkim.Signature
	fault *dkim.Fault // what is wrong with it, as far as it is known
}

// readSignature reads an ARC-Message-Signature or ARC-Seal.
func readSignature(raw []byte) signature {
	s, fault := dkim.ParseSignature(raw)
	if fault != nil && fault.Reason == dkim.Syntax {
		fault = readSparse(s, raw, fault)
	}
	t := signature{Signature: s, other: s, fault: fault}
	if _, ok := s.Tags.Lookup("c"); !ok && s.Headers != nil {
		other := *s
		other.HeaderCanon, other.BodyCanon = dkim.Relaxed, dkim.Relaxed
		t.other = &other
	}
	return t
}

// readSparse reads a signature with empty names in its h=, of which RFC 6376 has none
// but the ARC test suite has. They stand for no field. The fault stays if it is another.
func readSparse(s *dkim.Signature, raw []byte, fault *dkim.Fault) *dkim.Fault {
	h, ok := s.Tags.Lookup("h")
	if !ok || s.Headers == nil {
		return fault
	}
	names := slices.DeleteFunc(strings.Split(h, ":"), func(name string) bool { return strings.Trim(name, " \t\r\n") == "" })
	dense, fault := dkim.ParseSignature(bytes.Replace(raw, []byte(h), []byte(strings.Join(names, ":")), 1))
	s.Headers, s.BodyHash, s.Length = dense.Headers, dense.BodyHash, dense.Length
	return fault
}

// describe copies what a signature says.
func (s signature) describe() Check {
	if s.Signature == nil {
		return Check{}
	}
	return Check{Domain: s.Domain, Selector: s.Selector, Algorithm: s.Algorithm, Headers: s.Headers, Time: s.Time}
}

// check takes a step if nothing is wrong yet.
func (s *signature) check(step func(*dkim.Signature) *dkim.Fault) {
	if s.fault == nil {
		s.fault = step(s.Signature)
	}
}

// coversNoSeal: a message signature must not cover seals (RFC 8617 §4.1.2). The other
// ARC fields, which it must not cover either, are let pass: sealers of old cover them,
// and it does no harm.
func coversNoSeal(s *dkim.Signature) *dkim.Fault {
	if slices.Contains(s.Headers, "arc-seal") {
		return &dkim.Fault{Status: dkim.PermError, Reason: dkim.Syntax, Text: "tag h lists ARC-Seal"}
	}
	return nil
}

// body compares the hash of the body, in both ways to read the signature.
func (s *signature) body(sum, other dkim.BodySum) {
	s.fault = bodyFault(s.Signature, sum)
	if s.other == s.Signature {
		return
	}
	switch otherFault := bodyFault(s.other, other); {
	case otherFault != nil: // s.fault is the one to tell
		s.other = s.Signature
	case s.fault != nil:
		s.Signature, s.fault = s.other, nil
	}
}

func bodyFault(s *dkim.Signature, sum dkim.BodySum) *dkim.Fault {
	switch {
	case sum.Digest == nil:
		return &dkim.Fault{Status: dkim.Fail, Reason: dkim.BodyTruncated,
			Text: fmt.Sprintf("the body has %d octets, the signature covers %d", sum.Octets, s.Length)}
	case !bytes.Equal(sum.Digest, s.BodyHash):
		return &dkim.Fault{Status: dkim.Fail, Reason: dkim.BodyMismatch, Text: "the body is not what was signed"}
	case s.Length >= 0 && s.Length < sum.Octets:
		return &dkim.Fault{Status: dkim.Policy, Reason: dkim.LengthRefused,
			Text: fmt.Sprintf("the signature covers only %d of %d octets of the body", s.Length, sum.Octets)}
	}
	return nil
}

// verify checks the signature with the keys of its selector and reports on it.
func (s *signature) verify(keys dkim.Keys, fields [][]byte, out *Check) {
	if keys.Fault != nil {
		s.fault = keys.Fault
		return
	}
	digest := s.Digest(fields)
	key, fault := dkim.CheckKeys(keys, s.Signature, digest[:])
	if fault != nil && s.other != s.Signature {
		digest = s.other.Digest(fields)
		key, fault = dkim.CheckKeys(keys, s.other, digest[:])
	}
	if key == nil {
		key = keys.Keys[0]
	}
	out.KeyBits = key.Bits
	if s.fault = fault; fault == nil {
		out.Status = dkim.Pass
	}
}
