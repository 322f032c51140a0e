package dkim_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/dkim"
	"github.com/wafermail/wafer/core/dns"
)

// zone is a resolver with TXT records.
func zone(records map[string][]string) *dns.Zone {
	names := map[string]map[string][]string{}
	for name, txt := range records {
		names[name] = map[string][]string{"TXT": txt}
	}
	return dns.NewZone(names)
}

// clock stands at the time when the outside vectors were already made.
func clock() time.Time { return time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC) }

func verify(t testing.TB, message []byte, r dns.Resolver) []dkim.Result {
	t.Helper()
	return dkim.Verify(context.Background(), bytes.NewReader(message), int64(len(message)), dkim.VerifyOptions{Resolver: r, Now: clock})
}

func passes(results []dkim.Result) bool {
	for _, r := range results {
		if r.Status == dkim.Pass {
			return true
		}
	}
	return false
}

const plain = "From: Alice <alice@example.com>\r\nTo: bob@example.net\r\nSubject: plain\r\n\r\nHello,\r\n\tthis  is a test. \r\n"

// signWith signs a message with tags of the test's own: changed and added ones as
// "name=value", dropped ones as "-name".
func signWith(t testing.TB, message string, private crypto.Signer, changes ...string) []byte {
	t.Helper()
	m, err := dkim.Read(strings.NewReader(message), int64(len(message)), dkim.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	a := "ed25519-sha256"
	if _, ok := private.Public().(*rsa.PublicKey); ok {
		a = "rsa-sha256"
	}
	tags := dkim.Tags{
		{Name: "v", Value: "1"}, {Name: "a", Value: a}, {Name: "c", Value: "relaxed/relaxed"}, {Name: "d", Value: "example.com"},
		{Name: "s", Value: "ed"}, {Name: "h", Value: "From:To:Subject"}, {Name: "bh"},
	}
	for _, change := range changes {
		name, value, _ := strings.Cut(strings.TrimPrefix(change, "-"), "=")
		at := len(tags)
		for i := range tags {
			if tags[i].Name == name {
				at = i
			}
		}
		switch {
		case change[0] == '-':
			tags = append(tags[:at], tags[at+1:]...)
		case at == len(tags):
			tags = append(tags, dkim.Tag{Name: name, Value: value})
		default:
			tags[at].Value = value
		}
	}
	covers := &dkim.Signature{Length: -1, BodyCanon: dkim.Relaxed}
	var h string
	for i := range tags {
		switch tag := &tags[i]; tag.Name {
		case "c":
			if !strings.HasSuffix(tag.Value, "/relaxed") {
				covers.BodyCanon = dkim.Simple
			}
		case "l":
			if n, err := strconv.ParseInt(tag.Value, 10, 64); err == nil {
				covers.Length = n
			}
		case "h":
			h = strings.ToLower(tag.Value)
		}
	}
	sums, err := m.HashBody([]*dkim.Signature{covers})
	if err != nil {
		t.Fatal(err)
	}
	for i := range tags {
		if tags[i].Name == "bh" && tags[i].Value == "" {
			tags[i].Value = base64.StdEncoding.EncodeToString(sums[0].Digest)
			if sums[0].Digest == nil {
				tags[i].Value = base64.StdEncoding.EncodeToString(make([]byte, 32))
			}
		}
	}
	fields, _ := m.Select(strings.Split(strings.ReplaceAll(h, " ", ""), ":"), -1)
	field, err := dkim.SignField("DKIM-Signature", tags, private, fields)
	if err != nil {
		t.Fatal(err)
	}
	return append(field, message...)
}

// TestReasons has a row for everything that can be wrong, and some that cannot.
func TestReasons(t *testing.T) {
	const domain = "example.com"
	keys, records := bothKeys(t)
	ed := records["ed._domainkey."+domain][0]
	p := strings.TrimPrefix(ed, "v=DKIM1; k=ed25519; ")
	odd := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 1022), big.NewInt(1))
	short, err := dkim.Record(&rsa.PublicKey{N: odd, E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	odd = new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 4096), big.NewInt(1))
	long, err := dkim.Record(&rsa.PublicKey{N: odd, E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	unix := func(d time.Duration) string { return strconv.FormatInt(clock().Add(d).Unix(), 10) }
	list := func(s ...string) []string { return s }

	for _, row := range []struct {
		name   string
		tags   []string
		txt    []string // nil: the key's record
		change func(string) string
		status dkim.Status
		reason dkim.Reason
	}{
		{name: "plain", status: dkim.Pass},
		{name: "d in upper case", tags: list("d=EXAMPLE.com"), status: dkim.Pass},
		{name: "i with a user", tags: list("i=alice@example.com"), status: dkim.Pass},
		{name: "i below d, other case", tags: list("i=@Sub.Example.COM"), status: dkim.Pass},
		{name: "i quoted", tags: list("i=a=3Db=40c@example.com"), status: dkim.Pass},
		{name: "unknown tag", tags: list("zz=1"), status: dkim.Pass},
		{name: "x to come", tags: list("t="+unix(-time.Hour), "x="+unix(time.Hour)), status: dkim.Pass},
		{name: "x just past", tags: list("x=" + unix(-4*time.Minute)), status: dkim.Pass},
		{name: "t just to come", tags: list("t=" + unix(4*time.Minute)), status: dkim.Pass},
		{name: "x of thirteen digits", tags: list("x=9999999999999"), status: dkim.Pass},
		{name: "q with another method", tags: list("q=dns/caa : dns/txt"), status: dkim.Pass},
		{name: "simple body", tags: list("c=relaxed"), status: dkim.Pass},
		{name: "two keys, ours last", txt: list("v=DKIM1; k=ed25519; p="+edKey, ed), status: dkim.Pass},
		{name: "SPF beside the key", txt: list("v=spf1 -all", ed), status: dkim.Pass},
		{name: "revoked beside the key", txt: list("v=DKIM1; p=", ed), status: dkim.Pass},
		{name: "h of the key", txt: list("v=DKIM1; k=ed25519; h=sha1 : sha256; " + p), status: dkim.Pass},
		{name: "s of the key", txt: list("v=DKIM1; k=ed25519; s=tlsrpt:email; " + p), status: dkim.Pass},
		{name: "t=s", txt: list("v=DKIM1; k=ed25519; t=s; " + p), tags: list("i=A@EXAMPLE.COM"), status: dkim.Pass},

		{"body", nil, nil, func(s string) string { return s + "x" }, dkim.Fail, dkim.BodyMismatch},
		{"header", nil, nil, func(s string) string { return strings.Replace(s, "plain", "plane", 1) }, dkim.Fail, dkim.SignatureMismatch},
		{"signature's own field", nil, nil, func(s string) string { return strings.Replace(s, "v=1", "zz=2; v=1", 1) }, dkim.Fail, dkim.SignatureMismatch},
		{"field added to an oversigned one", list("h=From:From:To"), nil, func(s string) string { return "From: eve@example.com\r\n" + s }, dkim.Fail, dkim.SignatureMismatch},
		{"body cut", list("l=20"), nil, func(s string) string { return s[:len(s)-20] }, dkim.Fail, dkim.BodyTruncated},
		{"l too large", list("l=99999999999999999999999999"), nil, nil, dkim.Fail, dkim.BodyTruncated},
		{"another key", nil, list("v=DKIM1; k=ed25519; p=" + edKey), nil, dkim.Fail, dkim.SignatureMismatch},

		{"expired", list("x=" + unix(-6*time.Minute)), nil, nil, dkim.Policy, dkim.Expired},
		{"expired, x before t", list("t="+unix(0), "x=1000000000"), nil, nil, dkim.Policy, dkim.Expired},
		{"future", list("t=" + unix(6*time.Minute)), nil, nil, dkim.Policy, dkim.FromFuture},
		{"t of thirteen digits", list("t=9999999999999"), nil, nil, dkim.Policy, dkim.FromFuture},
		{"key too short", list("a=rsa-sha256"), list(short), nil, dkim.Policy, dkim.KeyTooShort},
		{"key too long", list("a=rsa-sha256"), list(long), nil, dkim.Policy, dkim.KeyTooLong},

		{"no v", list("-v"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"no a", list("-a"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"no d", list("-d"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"no s", list("-s"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"no h", list("-h"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"no bh", list("-bh"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"empty b", nil, nil, func(s string) string { i := strings.Index(s, " b="); return s[:i+3] + s[strings.Index(s, "From:")-2:] }, dkim.Neutral, dkim.Syntax},
		{"bh not base64", list("bh=!!!"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"bh too short", list("bh=AAAA"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"tag twice", nil, nil, func(s string) string { return strings.Replace(s, "v=1;", "v=1; v=1;", 1) }, dkim.Neutral, dkim.Syntax},
		{"d not a name", list("d=exa mple.com"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"d with an empty label", list("d=example..com"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"s with a slash", list("s=a/b"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"x not a number", list("x=soon"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"l negative", list("l=-1"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"x before t", list("t="+unix(2*time.Minute), "x="+unix(time.Minute)), nil, nil, dkim.Neutral, dkim.Syntax},
		{"h with an empty name", list("h=From::To"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"h too long", list("h=From" + strings.Repeat(":x", 1000)), nil, nil, dkim.Neutral, dkim.Syntax},
		{"i without a domain", list("i=alice"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"i badly quoted", list("i=a=4@example.com"), nil, nil, dkim.Neutral, dkim.Syntax},
		{"i with a line end", list("i=a=0D=0Ab@example.com"), nil, nil, dkim.Neutral, dkim.Syntax},

		{"version", list("v=2"), nil, nil, dkim.PermError, dkim.VersionUnknown},
		{"version 01", list("v=01"), nil, nil, dkim.PermError, dkim.VersionUnknown},
		{"rsa-sha1", list("a=rsa-sha1"), nil, nil, dkim.PermError, dkim.AlgorithmRefused},
		{"algorithm", list("a=rsa-sha512"), nil, nil, dkim.PermError, dkim.AlgorithmUnknown},
		{"canonicalization", list("c=nofws"), nil, nil, dkim.PermError, dkim.CanonUnknown},
		{"query", list("q=http"), nil, nil, dkim.PermError, dkim.QueryUnknown},
		{"h without From", list("h=To:Subject"), nil, nil, dkim.PermError, dkim.FromUnsigned},
		{"i of another domain", list("i=@example.org"), nil, nil, dkim.PermError, dkim.IdentityMismatch},
		{"i ends alike", list("i=@notexample.com"), nil, nil, dkim.PermError, dkim.IdentityMismatch},
		{"i above d", list("i=@com"), nil, nil, dkim.PermError, dkim.IdentityMismatch},
		{"no record", list("s=none"), nil, nil, dkim.PermError, dkim.KeyMissing},
		{"empty name", list("s=empty"), nil, nil, dkim.PermError, dkim.KeyMissing},
		{"revoked", nil, list("v=DKIM1; k=ed25519; p="), nil, dkim.PermError, dkim.KeyRevoked},
		{"key syntax", nil, list("v=DKIM1; k=ed25519; p=***"), nil, dkim.PermError, dkim.KeySyntax},
		{"not a key", nil, list("v=spf1 -all"), nil, dkim.PermError, dkim.KeySyntax},
		{"garbage beyond all bounds", nil, append(make([]string, 30), ed), nil, dkim.PermError, dkim.KeySyntax},
		{"key type", nil, list(records["rsa._domainkey."+domain][0]), nil, dkim.PermError, dkim.KeyType},
		{"key hash", nil, list("v=DKIM1; k=ed25519; h=sha1; " + p), nil, dkim.PermError, dkim.KeyHash},
		{"key service", nil, list("v=DKIM1; k=ed25519; s=tlsrpt; " + p), nil, dkim.PermError, dkim.KeyService},
		{"t=s and i below", list("i=@sub.example.com"), list("v=DKIM1; k=ed25519; t=y:s; " + p), nil, dkim.PermError, dkim.KeyStrict},

		{"DNS fails", list("s=fails"), nil, nil, dkim.TempError, dkim.KeyUnavailable},
		{"DNS is silent", list("s=silent"), nil, nil, dkim.TempError, dkim.KeyUnavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			message := string(signWith(t, plain, keys[1].Private, row.tags...))
			if row.change != nil {
				message = row.change(message)
			}
			if row.txt == nil {
				row.txt = list(ed)
			}
			r := dns.NewZone(map[string]map[string][]string{
				"ed._domainkey." + domain:      {"TXT": row.txt},
				"x.empty._domainkey." + domain: {"TXT": {"x"}},
				"fails._domainkey." + domain:   {"RCODE": {"SERVFAIL"}},
				"silent._domainkey." + domain:  {"RCODE": {"DROP"}},
			})
			got := verify(t, []byte(message), r)
			if len(got) != 1 || got[0].Status != row.status || got[0].Reason != row.reason {
				t.Fatalf("got %+v, want %s %s; message:\n%s", got, row.status, row.reason, message)
			}
			if (got[0].Text == "") != (row.status == dkim.Pass) || got[0].Expired != (row.reason == dkim.Expired) {
				t.Errorf("got text %q, expired %v", got[0].Text, got[0].Expired)
			}
		})
	}
}

// TestResult: what a Result tells besides its status.
func TestResult(t *testing.T) {
	keys, records := bothKeys(t)
	record := records["ed._domainkey.example.com"]
	record[0] += "; t=y"
	message := signWith(t, plain, keys[1].Private, "i=Al=3Bice@Sub.example.com", "l=6", "t=1700000000", "x=1900000000")
	message = append([]byte("Subject: another\r\nX-Other: y\r\n"), message...)
	got := verify(t, message, zone(records))
	if len(got) != 1 {
		t.Fatalf("got %d results", len(got))
	}
	r := got[0]
	if r.Status != dkim.Pass || r.Domain != "example.com" || r.Identity != "Al;ice@Sub.example.com" || r.Selector != "ed" ||
		r.Algorithm != "ed25519-sha256" || r.KeyBits != 256 || len(r.B) != 12 || !r.Testing || r.Expired {
		t.Errorf("got %+v", r)
	}
	if r.Time.Unix() != 1700000000 || r.Expire.Unix() != 1900000000 || strings.Join(r.Headers, ":") != "from:to:subject" {
		t.Errorf("got times %v, %v, headers %v", r.Time, r.Expire, r.Headers)
	}
	// In relaxed form the body is "Hello,\r\n this is a test.\r\n".
	if !r.Partial || r.BodyLength != 6 || r.UnsignedOctets != 20 || strings.Join(r.UnsignedFields, " ") != "subject" {
		t.Errorf("got partial %v, length %d, unsigned octets %d, fields %v", r.Partial, r.BodyLength, r.UnsignedOctets, r.UnsignedFields)
	}

	refused := dkim.Verify(context.Background(), bytes.NewReader(message), int64(len(message)),
		dkim.VerifyOptions{Resolver: zone(records), Now: clock, RefuseLength: true})
	if refused[0].Status != dkim.Policy || refused[0].Reason != dkim.LengthRefused || refused[0].BodyLength != 6 {
		t.Errorf("l= refused: got %+v", refused)
	}
	whole := verify(t, signWith(t, plain, keys[1].Private), zone(records))
	if whole[0].Partial || whole[0].BodyLength != -1 || whole[0].UnsignedOctets != 0 || whole[0].UnsignedFields != nil || whole[0].Identity != "@example.com" {
		t.Errorf("without l=: got %+v", whole)
	}
}

// TestMessages: bodies and headers that are unusual.
func TestMessages(t *testing.T) {
	keys, records := bothKeys(t)
	for _, row := range []struct{ name, message string }{
		{"no blank line", "From: a@example.com\r\nSubject: x\r\n"},
		{"no line end", "From: a@example.com\r\nSubject: x"},
		{"no body", "From: a@example.com\r\n\r\n"},
		{"body of a blank line", "From: a@example.com\r\n\r\n\r\n"},
		{"no last line end", "From: a@example.com\r\n\r\nx"},
		{"bare LF all over", "From: a@example.com\nSubject: x\n y\n\nbody\nmore\n"},
		{"bare LF in the body", "From: a@example.com\r\n\r\na\nb\r\nc"},
		{"NUL", "From: a@example.com\r\nSubject: \x00\r\n\r\na\x00b\r\n"},
		{"octets above 127", "From: \xff@example.com\r\nSubject: \xe4\r\n\r\n\xf6\r\n"},
		{"lines that are no fields", "From: a@example.com\r\nnonsense\r\n more\r\nSubject: x\r\n\r\nbody\r\n"},
		{"blank before the colon", "From : a@example.com\r\nSubject\t: x\r\n\r\nbody\r\n"},
		{"header beyond a window", "X-Long: " + strings.Repeat("x", 100<<10) + "\r\nFrom: a@example.com\r\nSubject: x\r\n\r\nbody\r\n"},
		{"many fields", strings.Repeat("X-Some: thing\r\n", 8000) + "From: a@example.com\r\n\r\nbody\r\n"},
		{"long body", "From: a@example.com\r\n\r\n" + strings.Repeat("line after  line\t\r\n", 20000)},
		{"blank line at the end of a window", "From: a@example.com\r\nX: " + strings.Repeat("x", 16<<10-26) + "\r\n\r\nbody\r\n"},
		{"blank line across windows", "From: a@example.com\r\nX: " + strings.Repeat("x", 16<<10-27) + "\r\n\r\nbody\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			signer, err := dkim.NewSigner(dkim.SignerOptions{Keys: keys, Now: clock})
			if err != nil {
				t.Fatal(err)
			}
			fields, err := signer.Sign(strings.NewReader(row.message), int64(len(row.message)))
			if err != nil {
				t.Fatal(err)
			}
			got := verify(t, append(fields, row.message...), zone(records))
			if len(got) != 2 || got[0].Status != dkim.Pass || got[1].Status != dkim.Pass {
				t.Errorf("got %+v", got)
			}
		})
	}
	if got := verify(t, []byte(plain), zone(records)); got != nil {
		t.Errorf("a message without signatures has results: %+v", got)
	}
	if got := verify(t, nil, zone(records)); got != nil {
		t.Errorf("an empty message has results: %+v", got)
	}
}
