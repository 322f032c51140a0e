package arc

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/wafermail/wafer/core/dkim"
	"github.com/wafermail/wafer/core/dns"
)

// VerifyOptions says how to verify. Resolver is required, the rest may be zero.
type VerifyOptions struct {
	Resolver  dns.Resolver
	Now       func() time.Time // nil: time.Now
	Skew      time.Duration    // that clocks may differ, for t= and x=; 0: 5 min; negative: none
	MaxSets   int              // more fail; 0 and beyond 50: 50
	MaxHeader int              // octets of the header section; 0: 256 KiB
}

const defaultSkew = 5 * time.Minute

// maxSignatures is how many DKIM-Signature fields are seen. A message signature that
// covers more of them fails.
const maxSignatures = 100

// verification is one chain that is being verified.
type verification struct {
	*chain
	o    VerifyOptions
	now  time.Time
	out  []Set // those of chain.sets
	temp bool  // something could not be known
}

// Verify verifies the chain of the message of size octets in r as RFC 8617 §5.2 says.
// It returns when ctx ends, as far as Resolver does, and waits for all that it started.
func Verify(ctx context.Context, r io.ReaderAt, size int64, o VerifyOptions) Result {
	m, err := dkim.Read(r, size, dkim.Limits{Header: o.MaxHeader, Signatures: maxSignatures})
	switch {
	case errors.Is(err, dkim.ErrHeaderTooLarge):
		return Result{CV: Fail, Reason: HeaderTooLarge, Text: "the header section is too large to be looked at", OldestPass: -1}
	case err != nil:
		return unread(nil)
	}
	maxSets := MaxSets
	if o.MaxSets > 0 {
		maxSets = min(o.MaxSets, MaxSets)
	}
	c := collect(m, maxSets)
	v := &verification{chain: c, o: o, out: c.report()}
	switch {
	case c.fields == 0:
		return Result{CV: None, OldestPass: -1}
	case c.fault != nil:
		return v.fail(c.fault)
	}
	v.now = time.Now()
	if o.Now != nil {
		v.now = o.Now()
	}
	return v.run(ctx)
}

func unread(sets []Set) Result {
	return Result{CV: TempError, Reason: ReadError, Text: "the message cannot be read", Sets: sets, OldestPass: -1}
}

func (v *verification) fail(f *fault) Result {
	return Result{CV: Fail, Reason: f.reason, Text: f.text, Sets: v.out, OldestPass: -1}
}

// run verifies a chain of sound structure, the cheap steps first.
func (v *verification) run(ctx context.Context) Result {
	for i := range v.sets {
		t := &v.sets[i]
		t.message.check(v.acceptable)
		t.message.check(coversNoSeal)
		t.seal.check(v.acceptable)
	}
	if f := v.decided(); f != nil {
		return v.fail(f)
	}
	if err := v.bodies(); err != nil {
		return unread(v.out)
	}
	if f := v.decided(); f != nil {
		return v.fail(f)
	}
	v.signatures(ctx)
	if f := v.decided(); f != nil {
		return v.fail(f)
	}
	if v.temp {
		return Result{CV: TempError, Reason: KeyUnavailable, Text: "a key of the chain cannot be looked up now", Sets: v.out, OldestPass: -1}
	}
	return Result{CV: Pass, Sets: v.out, OldestPass: v.oldestPass()}
}

func (c *Check) fail(f *dkim.Fault) {
	c.Status, c.Reason, c.Text = f.Status, f.Reason, f.Text
}

// decided copies the faults into the report, and returns why the chain fails if it is
// known by now. The newest message signature comes first, then the seals from the newest
// to the oldest; other message signatures do not matter (RFC 8617 §5.2, steps 4 to 6).
func (v *verification) decided() *fault {
	for i, t := range v.sets {
		for _, c := range []struct {
			fault *dkim.Fault
			out   *Check
		}{{t.message.fault, &v.out[i].Message}, {t.seal.fault, &v.out[i].Seal}} {
			if c.fault != nil {
				c.out.fail(c.fault)
			}
		}
	}
	n := len(v.sets)
	if f := v.final(v.sets[n-1].message.fault); f != nil {
		return faultf(MessageFailed, "%s of set %d by %q: %s", FieldMessage, n, v.out[n-1].Message.Domain, f.Text)
	}
	for i := n - 1; i >= 0; i-- {
		if f := v.final(v.sets[i].seal.fault); f != nil {
			return faultf(SealFailed, "%s of set %d by %q: %s", FieldSeal, i+1, v.out[i].Domain, f.Text)
		}
	}
	return nil
}

// final is a fault that will still be there tomorrow. Others are noted.
func (v *verification) final(f *dkim.Fault) *dkim.Fault {
	if f != nil && f.Status == dkim.TempError {
		v.temp = true
		return nil
	}
	return f
}

// acceptable holds the times of a signature to the clock (RFC 6376 §3.5). Seals have
// no x=.
func (v *verification) acceptable(s *dkim.Signature) *dkim.Fault {
	skew := v.o.Skew
	if skew == 0 {
		skew = defaultSkew
	}
	skew = max(skew, 0)
	message := s.Headers != nil
	switch {
	case message && !s.Expire.IsZero() && v.now.After(s.Expire.Add(skew)):
		return &dkim.Fault{Status: dkim.Policy, Reason: dkim.Expired, Text: "the signature expired at " + s.Expire.Format(time.RFC3339)}
	case s.Time.After(v.now.Add(skew)):
		return &dkim.Fault{Status: dkim.Policy, Reason: dkim.FromFuture, Text: "the signature was made in the future, at " + s.Time.Format(time.RFC3339)}
	}
	return nil
}

// bodies compares the hashes of the body, which is read once.
func (v *verification) bodies() error {
	var at []*signature
	var signatures []*dkim.Signature
	for i := range v.sets {
		if s := &v.sets[i].message; s.fault == nil {
			at, signatures = append(at, s), append(signatures, s.Signature, s.other)
		}
	}
	sums, err := v.m.HashBody(signatures)
	if err != nil {
		return err
	}
	for i, s := range at {
		s.body(sums[2*i], sums[2*i+1])
	}
	return nil
}

// signatures looks the keys up, all at once, and checks each signature.
func (v *verification) signatures(ctx context.Context) {
	var all []*dkim.Signature
	for _, t := range v.sets {
		all = append(all, t.seal.Signature)
		if t.message.fault == nil {
			all = append(all, t.message.Signature)
		}
	}
	keys := v.lookup(ctx, all)
	next := func() (k dkim.Keys) {
		k, keys = keys[0], keys[1:]
		return k
	}
	for i := range v.sets {
		t, out := &v.sets[i], &v.out[i]
		fields := append(v.covered(i), v.m.Fields[t.fields[kindResults]].Raw, v.m.Fields[t.fields[kindMessage]].Raw)
		t.seal.verify(next(), fields, &out.Seal)
		if t.message.fault != nil {
			continue
		}
		fields, out.Message.UnsignedFields = v.m.Select(t.message.Headers, t.fields[kindMessage])
		t.message.verify(next(), fields, &out.Message)
	}
}

func (v *verification) lookup(ctx context.Context, signatures []*dkim.Signature) []dkim.Keys {
	if v.o.Resolver != nil {
		return dkim.LookupKeys(ctx, v.o.Resolver, signatures)
	}
	keys := make([]dkim.Keys, len(signatures))
	for i := range keys {
		keys[i].Fault = &dkim.Fault{Status: dkim.TempError, Reason: dkim.KeyUnavailable, Text: "there is no resolver"}
	}
	return keys
}

// oldestPass looks for the oldest message signature since which all pass (RFC 8617
// §5.2, step 5).
func (v *verification) oldestPass() int {
	for i := len(v.out) - 1; i >= 0; i-- {
		if v.out[i].Message.Status != dkim.Pass {
			return i + 2
		}
	}
	return 0
}
