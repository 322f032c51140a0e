package arc_test

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/arc"
	"github.com/wafermail/wafer/core/dkim"
	"github.com/wafermail/wafer/core/dns"
)

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// rsaRecord is the record of an RSA key of so many bits that nobody has.
func rsaRecord(t testing.TB, bits int) string {
	t.Helper()
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	record, err := dkim.Record(&rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// TestLimits: more than anybody sends.
func TestLimits(t *testing.T) {
	one := seal(t, plain, listDomain, "dmarc=pass")
	set := one[:strings.Index(one, "From:")]
	full := plain
	for range arc.MaxSets {
		full = seal(t, full, listDomain, "arc=pass")
	}
	numbered := func(i int) string { return strings.ReplaceAll(set, "i=1;", "i="+strconv.Itoa(i)+";") }
	scattered := func() string {
		var b strings.Builder
		for i := range arc.MaxSets {
			cv := "cv=pass"
			if i == 0 {
				cv = "cv=none"
			}
			s := strings.Replace(numbered(i+1), "cv=none", cv, 1)
			// The selectors of the seal and of the message signature.
			s = strings.Replace(s, "s=ed;", "s=a"+strconv.Itoa(i)+";", 1)
			b.WriteString(strings.Replace(s, "s=ed;", "s=b"+strconv.Itoa(i)+";", 1))
		}
		return b.String()
	}()
	for _, row := range []struct {
		name    string
		message string
		cv      arc.CV
		reason  arc.Reason
		asked   int64
	}{
		{"50 sets", full, arc.Pass, "", 1},
		{"51 sets", numbered(51) + full, arc.Fail, arc.TooManySets, 0},
		{"10,000 seals", strings.Repeat("ARC-Seal: i=1; cv=fail\r\n", 10000) + plain, arc.Fail, arc.TooManySets, 0},
		{"10,000 empty fields", strings.Repeat("ARC-Seal:\r\n", 10000) + plain, arc.Fail, arc.TooManySets, 0},
		{"10,000 signed fields", strings.Repeat(set, 3334) + plain, arc.Fail, arc.HeaderTooLarge, 0},
		{"100 selectors", scattered + plain, arc.Fail, arc.MessageFailed, 100},
		{"a line of 1 MB", "X: " + strings.Repeat("x", 1<<20) + "\r\n" + one, arc.Fail, arc.HeaderTooLarge, 0},
		{"a seal of 1 MB", "ARC-Seal: i=" + strings.Repeat("1", 1<<20) + "\r\n" + one, arc.Fail, arc.HeaderTooLarge, 0},
		{"1 MB that is no field", strings.Repeat("\x00", 1<<20) + "\r\n" + one, arc.Pass, "", 1},
		{"100,000 fields", strings.Repeat("a:\r\n", 100000) + one, arc.Fail, arc.HeaderTooLarge, 0},
		{"10,000 DKIM signatures", strings.Repeat("DKIM-Signature: v=1\r\n", 10000) + plain, arc.None, "", 0},
		{"10,000 DKIM signatures on a chain", strings.Repeat("DKIM-Signature: v=1\r\n", 10000) + one, arc.Pass, "", 1},
		{"comments without end", "ARC-Authentication-Results: " + strings.Repeat("(", 100000) + "\r\n" + one, arc.Fail, arc.Unreadable, 0},
		{"results that are none", forgeResults(t, "((("), arc.Pass, "", 1},
		{"200 tags", "ARC-Seal: " + strings.Repeat("a=b; ", 200) + "\r\n" + one, arc.Fail, arc.Unreadable, 0},
		{"NUL in a tag", "ARC-Seal: i=1; cv=\x00\r\n" + one, arc.Fail, arc.Unreadable, 0},
		{"no body", one[:strings.Index(one, "\r\n\r\n")+2], arc.Fail, arc.MessageFailed, 0},
		{"nothing", "", arc.None, "", 0},
	} {
		c := &counter{Resolver: zone(records(t))}
		got := verify(row.message, c)
		if got.CV != row.cv || got.Reason != row.reason {
			t.Errorf("%s: got %s %s (%s), want %s %s", row.name, got.CV, got.Reason, got.Text, row.cv, row.reason)
		}
		if asked := c.asked.Load(); asked != row.asked {
			t.Errorf("%s: %d questions were asked, want %d", row.name, asked, row.asked)
		}
		if len(got.Sets) > arc.MaxSets {
			t.Errorf("%s: there are %d sets", row.name, len(got.Sets))
		}
	}

	two := seal(t, one, listDomain, "arc=pass")
	got := arc.Verify(context.Background(), strings.NewReader(two), int64(len(two)), arc.VerifyOptions{Resolver: zone(records(t)), Now: clock, MaxSets: 1})
	if got.CV != arc.Fail || got.Reason != arc.TooManySets {
		t.Errorf("two sets where one is allowed: got %+v", got)
	}
}

// forgeResults is a message whose seal covers results that cannot be read.
func forgeResults(t testing.TB, results string) string {
	t.Helper()
	message := forge(t, plain, nil, nil)
	from := strings.Index(message, "\r\nFrom: ") + 2
	start := strings.Index(message, arc.FieldMessage)
	aar := strings.Index(message, arc.FieldResults)
	ams, field := message[start:aar], arc.FieldResults+": i=1; "+results+"\r\n"
	tags := dkim.Tags{{Name: "i", Value: "1"}, {Name: "a", Value: "ed25519-sha256"}, {Name: "cv", Value: "none"}, {Name: "d", Value: listDomain}, {Name: "s", Value: "ed"}}
	return string(signField(t, arc.FieldSeal, tags, [][]byte{[]byte(field), []byte(ams)})) + ams + field + message[from:]
}

// TestUnknown: DNS or the disk do not answer.
func TestUnknown(t *testing.T) {
	one := seal(t, plain, listDomain, "dmarc=pass")
	two := seal(t, one, schoolDomain, "arc=pass")
	without := func(domain, kind string) dns.Resolver {
		names := map[string]map[string][]string{}
		for name, txt := range records(t) {
			names[name] = map[string][]string{"TXT": {txt}}
		}
		names[dkim.KeyName(domain, "ed")] = map[string][]string{"RCODE": {kind}}
		return dns.NewZone(names)
	}
	for _, row := range []struct {
		name    string
		message string
		dns     dns.Resolver
		cv      arc.CV
		reason  arc.Reason
	}{
		{"no resolver", one, nil, arc.TempError, arc.KeyUnavailable},
		{"server failure", one, without(listDomain, "SERVFAIL"), arc.TempError, arc.KeyUnavailable},
		{"no reply", one, without(listDomain, "DROP"), arc.TempError, arc.KeyUnavailable},
		{"no such name", one, without(listDomain, "NXDOMAIN"), arc.Fail, arc.MessageFailed},
		{"of the first of two", two, without(listDomain, "SERVFAIL"), arc.TempError, arc.KeyUnavailable},
		{"of the second of two", two, without(schoolDomain, "SERVFAIL"), arc.TempError, arc.KeyUnavailable},
		{"changed nevertheless", two + "x", without(schoolDomain, "SERVFAIL"), arc.Fail, arc.MessageFailed},
		{"the first changed nevertheless", strings.Replace(two, "dmarc=pass", "dmarc=fail", 1), without(schoolDomain, "SERVFAIL"), arc.Fail, arc.SealFailed},
		{"changed fields nobody can judge", strings.Replace(one, "Subject: ", "Subject: x", 1), without(listDomain, "SERVFAIL"), arc.TempError, arc.KeyUnavailable},
	} {
		got := verify(row.message, row.dns)
		if got.CV != row.cv || got.Reason != row.reason {
			t.Errorf("%s: got %s %s (%s), want %s %s", row.name, got.CV, got.Reason, got.Text, row.cv, row.reason)
		}
	}

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	got := arc.Verify(ctx, strings.NewReader(one), int64(len(one)), arc.VerifyOptions{Resolver: zone(records(t)), Now: clock})
	if got.CV != arc.TempError {
		t.Errorf("context at its end: got %+v", got)
	}

	long := one + strings.Repeat("x\r\n", 20000)
	for _, row := range []struct {
		name  string
		after int64
	}{{"header", 10}, {"body", 40000}} {
		got := arc.Verify(context.Background(), broken{strings.NewReader(long), row.after}, int64(len(long)), arc.VerifyOptions{Resolver: zone(records(t)), Now: clock})
		if got.CV != arc.TempError || got.Reason != arc.ReadError || got.OldestPass != -1 {
			t.Errorf("%s unreadable: got %+v", row.name, got)
		}
		if _, err := sealer(t, listDomain).Seal(broken{strings.NewReader(long), row.after}, int64(len(long)), arc.Result{CV: arc.Fail}, found("")); !errors.Is(err, errDisk) {
			t.Errorf("%s unreadable: sealing says %v", row.name, err)
		}
	}
}

var errDisk = errors.New("disk on fire")

// broken is a reader that fails after some octets.
type broken struct {
	io.ReaderAt
	after int64
}

func (b broken) ReadAt(p []byte, at int64) (int, error) {
	if at+int64(len(p)) > b.after {
		return 0, fmt.Errorf("read: %w", errDisk)
	}
	return b.ReaderAt.ReadAt(p, at)
}
