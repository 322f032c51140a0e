package dkim

import (
	"context"

	"github.com/wafermail/wafer/core/dns"
)

// Bounds of what a selector may hold.
const (
	maxRecords = 20 // that are looked at
	maxKeys    = 5  // that are tried
)

// Keys is what DNS says at a selector.
type Keys struct {
	Keys  []*PublicKey // at least one if Fault is nil
	Fault *Fault
}

// KeyName is the name of the key record of a signature (RFC 6376 §3.6.2.1).
func KeyName(domain, selector string) string { return selector + "._domainkey." + domain }

// LookupKeys finds the keys of signatures, each name once, in parallel. The answers
// are in the signatures' order.
func LookupKeys(ctx context.Context, r dns.Resolver, signatures []*Signature) []Keys {
	if len(signatures) == 0 {
		return nil
	}
	questions := make([]dns.Question, 0, len(signatures))
	at := make(map[string]int, len(signatures))
	for _, s := range signatures {
		name := KeyName(s.Domain, s.Selector)
		if _, ok := at[name]; !ok {
			at[name] = len(questions)
			questions = append(questions, dns.Question{Type: "TXT", Name: name})
		}
	}
	found := make([]Keys, len(questions))
	for i, a := range dns.LookupAll(ctx, r, questions) {
		found[i] = readKeys(questions[i].Name, a)
	}
	keys := make([]Keys, len(signatures))
	for i, s := range signatures {
		keys[i] = found[at[KeyName(s.Domain, s.Selector)]]
	}
	return keys
}

// readKeys takes the usable keys of an answer. Records that are no keys may stand
// beside them; RFC 6376 §6.1.2 lets us try one after another.
func readKeys(name string, a dns.Answer) Keys {
	switch a.Status {
	case dns.Found:
	case dns.NoData, dns.NXDomain:
		return Keys{Fault: faultf(PermError, KeyMissing, "there is no key at %s (%s)", name, a.Status)}
	default:
		return Keys{Fault: faultf(TempError, KeyUnavailable, "the key at %s cannot be looked up now", name)}
	}
	var keys Keys
	for i, record := range a.Records {
		if i == maxRecords || len(keys.Keys) == maxKeys {
			break
		}
		key, fault := ParseRecord(record)
		switch {
		case fault == nil:
			keys.Keys = append(keys.Keys, key)
		case keys.Fault == nil || fault.Reason != KeySyntax:
			keys.Fault = fault // what is wrong with a key says more than that there is none
		}
	}
	if len(keys.Keys) > 0 {
		keys.Fault = nil
	} else if keys.Fault == nil {
		keys.Fault = faultf(PermError, KeyMissing, "there is no key at %s", name)
	}
	return keys
}

// CheckKeys says whether one of the keys made the signature of digest, and which one.
// The key is nil if none was fit to be tried.
func CheckKeys(keys Keys, s *Signature, digest []byte) (*PublicKey, *Fault) {
	fit, fault := keys.fit(s)
	for _, key := range fit {
		if key.verify(digest, s.Value) {
			return key, nil
		}
	}
	if len(fit) > 0 {
		return fit[0], faultf(Fail, SignatureMismatch, "the signature does not match the header fields")
	}
	return nil, fault
}

// fit returns the keys that may be used for s, or why there are none.
func (k Keys) fit(s *Signature) ([]*PublicKey, *Fault) {
	if k.Fault != nil {
		return nil, k.Fault
	}
	var fit []*PublicKey
	var first *Fault
	for _, key := range k.Keys {
		fault := key.fits(s)
		if fault == nil {
			fit = append(fit, key)
		} else if first == nil {
			first = fault
		}
	}
	if len(fit) > 0 {
		first = nil
	}
	return fit, first
}
