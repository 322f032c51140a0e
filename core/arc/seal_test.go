package arc_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"strings"
	"sync"
	"testing"

	"github.com/wafermail/wafer/core/arc"
	"github.com/wafermail/wafer/core/authres"
	"github.com/wafermail/wafer/core/dkim"
)

func TestNewSealer(t *testing.T) {
	ed := testKey().ed
	tiny := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 511), E: 3}}
	for _, row := range []struct {
		name string
		o    arc.SealOptions
		want string // in the error; "": fine
	}{
		{"as usual", arc.SealOptions{Domain: "Example.org", Selector: "a", Key: ed}, ""},
		{"no domain", arc.SealOptions{Selector: "a", Key: ed}, "no domain name"},
		{"no selector", arc.SealOptions{Domain: "example.org", Key: ed}, "no selector"},
		{"no key", arc.SealOptions{Domain: "example.org", Selector: "a"}, "no private key"},
		{"short key", arc.SealOptions{Domain: "example.org", Selector: "a", Key: tiny}, "512 bits"},
		{"no From", arc.SealOptions{Domain: "example.org", Selector: "a", Key: ed, Headers: []string{"To"}, Oversign: []string{}}, "From"},
		{"no field name", arc.SealOptions{Domain: "example.org", Selector: "a", Key: ed, Headers: []string{"From", "a b"}}, "field name"},
		{"seals", arc.SealOptions{Domain: "example.org", Selector: "a", Key: ed, Headers: []string{"From", "ARC-Seal"}}, "ARC-Seal"},
		{"results", arc.SealOptions{Domain: "example.org", Selector: "a", Key: ed, Oversign: []string{"From", "Authentication-Results"}}, "Authentication-Results"},
	} {
		_, err := arc.NewSealer(row.o)
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.want)
		}
	}
}

// TestSealForm: what the fields look like.
func TestSealForm(t *testing.T) {
	long := newSealer(t, arc.SealOptions{Domain: listDomain, Selector: "rsa", Key: testKey().rsa, AuthServID: strings.Repeat("mx.", 25) + "example.org"})
	message := "DKIM-Signature: v=1\r\nDKIM-Signature: v=1\r\nReceived: x\r\n" + plain
	fields, err := long.Seal(strings.NewReader(message), int64(len(message)), arc.Result{CV: arc.None}, authres.Field{})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitAfterSeq(string(fields), "\r\n") {
		if len(line) > 80 && !strings.Contains(line, "mx.mx.") || strings.TrimRight(line, "\r\n") != strings.TrimRight(line, " \t\r\n") {
			t.Errorf("line %q of\n%s", line, fields)
		}
	}
	got := verify(string(fields)+message, zone(records(t)))
	if got.CV != arc.Pass || len(got.Sets) != 1 {
		t.Fatalf("got %+v for\n%s", got, fields)
	}
	s := got.Sets[0]
	headers := strings.Join(s.Message.Headers, ":")
	if strings.Count(headers, "dkim-signature") != 2 || strings.Count(headers, "from") != 2 || strings.Contains(headers, "received") {
		t.Errorf("covered is %s", headers)
	}
	if s.Message.Algorithm != "rsa-sha256" || s.Seal.KeyBits != 2048 || !s.Seal.Time.Equal(clock()) || s.CV != arc.None || s.Selector != "rsa" {
		t.Errorf("got %+v", s)
	}
	if !strings.HasPrefix(s.AuthResults.ServID, "mx.") || len(s.AuthResults.Results) != 0 {
		t.Errorf("results are %+v", s.AuthResults)
	}
	m, err := dkim.Read(bytes.NewReader(fields), int64(len(fields)), dkim.Limits{})
	if err != nil || len(m.Fields) != 3 || m.Fields[0].Name != "arc-seal" || m.Fields[1].Name != "arc-message-signature" || m.Fields[2].Name != "arc-authentication-results" {
		t.Errorf("fields are %q (%v)", fields, err)
	}
}

// TestSealRefuses: chains that no set is added to.
func TestSealRefuses(t *testing.T) {
	one := seal(t, plain, listDomain, "dmarc=pass")
	two := seal(t, one, schoolDomain, "arc=pass")
	result := func(message string) arc.Result { return verify(message, zone(records(t))) }
	full := plain
	for range arc.MaxSets {
		full = seal(t, full, listDomain, "arc=pass")
	}
	failed := seal(t, one+"x", schoolDomain, "arc=fail")
	for _, row := range []struct {
		name    string
		message string
		result  arc.Result
		refused bool
	}{
		{"not known", one, arc.Result{CV: arc.TempError}, true},
		{"full", full, result(full), true},
		{"full and failed", full + "x", result(full + "x"), true},
		{"10,000 fields", strings.Repeat("ARC-Seal:\r\n", 10000) + plain, arc.Result{CV: arc.Fail}, true},
		{"failed before", failed, result(failed), true},
		{"no instance at all", "ARC-Seal: cv=none\r\n" + plain, arc.Result{CV: arc.Fail}, true},
		{"header too large", "X: " + strings.Repeat("x", 1<<20) + "\r\n" + plain, arc.Result{CV: arc.Fail}, true},
		{"no From", "To: a@example.org\r\n\r\n", arc.Result{}, false},
		{"no From, verified", "To: a@example.org\r\n\r\n", arc.Result{CV: arc.None}, true},
		{"1,000 To fields", strings.Repeat("To: a@example.org\r\n", 1000) + plain, arc.Result{CV: arc.None}, true},
		{"200 DKIM signatures", strings.Repeat("DKIM-Signature: v=1\r\n", 200) + plain, arc.Result{CV: arc.None}, true},
		{"blank in front", " " + plain, arc.Result{CV: arc.None}, true},
		{"not verified", plain, arc.Result{}, false},
		{"not verified, with a chain", one, arc.Result{}, false},
		{"result of another", two, result(one), false},
		{"result of none", one, result(plain), false},
		{"result of one that failed", plain, arc.Result{CV: arc.Fail}, false},
		{"damaged since", strings.Replace(one, "ARC-Seal:", "X:", 1), result(one), false},
	} {
		got, err := sealer(t, listDomain).Seal(strings.NewReader(row.message), int64(len(row.message)), row.result, found("arc=x"))
		if err == nil || got != nil || errors.Is(err, arc.ErrRefused) != row.refused {
			t.Errorf("%s: got %q, %v, want it refused: %v", row.name, got, err, row.refused)
		}
	}
}

// TestSealFailed: the set on a failed chain covers only itself (RFC 8617 §5.1.2).
func TestSealFailed(t *testing.T) {
	two := seal(t, seal(t, plain, listDomain, "dmarc=pass"), schoolDomain, "arc=pass")
	for name, came := range map[string]string{
		"body": two + "x", "gap": strings.ReplaceAll(two, "i=1;", "i=7;"),
		"a field twice": "ARC-Seal: i=2; cv=pass\r\n" + two, "a field that cannot be read": "ARC-Seal: ???\r\n" + two,
	} {
		fields := strings.TrimSuffix(seal(t, came, evilDomain, "arc=fail"), came)
		number := "i=3;"
		if name == "gap" {
			number = "i=8;"
		}
		if strings.Count(fields, number) != 3 || !strings.Contains(fields, "cv=fail;") {
			t.Errorf("%s: got\n%s", name, fields)
		}
		m, err := dkim.Read(strings.NewReader(fields), int64(len(fields)), dkim.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		s, fault := dkim.ParseSignature(m.Fields[0].Raw)
		if fault != nil {
			t.Fatalf("%s: %+v", name, fault)
		}
		digest := s.Digest([][]byte{m.Fields[2].Raw, m.Fields[1].Raw})
		if !ed25519.Verify(testKey().ed.Public().(ed25519.PublicKey), digest[:], s.Value) {
			t.Errorf("%s: the seal does not cover its own set only", name)
		}
		if got := verify(fields+came, zone(records(t))); got.CV != arc.Fail || got.Reason != arc.Ended {
			t.Errorf("%s: the next one says %+v", name, got)
		}
	}
}

// TestTogether: one sealer for many.
func TestTogether(t *testing.T) {
	s := sealer(t, listDomain)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			var body [40]byte
			rand.Read(body[:])
			message := plain + base64Of(body[:]) + "\r\n"
			fields, err := s.Seal(strings.NewReader(message), int64(len(message)), arc.Result{CV: arc.None}, found("dmarc=pass"))
			if err != nil {
				t.Error(err)
			} else if got := verify(string(fields)+message, zone(records(t))); got.CV != arc.Pass {
				t.Errorf("got %+v", got)
			}
		})
	}
	group.Wait()
}
