package arc_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/arc"
	"github.com/wafermail/wafer/core/authres"
	"github.com/wafermail/wafer/core/dkim"
	"github.com/wafermail/wafer/core/dns"
)

// testKey makes the keys of these tests once.
var testKey = sync.OnceValue(func() (keys struct {
	rsa *rsa.PrivateKey
	ed  ed25519.PrivateKey
}) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	keys.rsa = key
	_, keys.ed, err = ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return keys
})

// The sealers of these tests. All have the same keys, at the selectors rsa and ed.
const (
	listDomain   = "lists.example.org"
	schoolDomain = "school.example.edu"
	evilDomain   = "evil.example.com"
)

func records(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, domain := range []string{listDomain, schoolDomain, evilDomain} {
		for selector, key := range map[string]crypto.Signer{"rsa": testKey().rsa, "ed": testKey().ed} {
			record, err := dkim.Record(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			all[dkim.KeyName(domain, selector)] = record
		}
	}
	return all
}

// counter counts the questions.
type counter struct {
	dns.Resolver
	asked atomic.Int64
}

func (c *counter) Lookup(ctx context.Context, q dns.Question) dns.Answer {
	c.asked.Add(1)
	return c.Resolver.Lookup(ctx, q)
}

const plain = "From: Alice <alice@example.com>\r\nTo: bob@example.net\r\nSubject: plain\r\nDate: Mon, 04 Mar 2024 10:00:00 +0000\r\nMessage-ID: <m1@example.com>\r\n\r\nHello,\r\n\tthis  is a test. \r\n"

// sealer is a sealer with the Ed25519 key.
func sealer(t testing.TB, domain string) *arc.Sealer {
	t.Helper()
	return newSealer(t, arc.SealOptions{Domain: domain, Selector: "ed", Key: testKey().ed})
}

func newSealer(t testing.TB, o arc.SealOptions) *arc.Sealer {
	t.Helper()
	if o.Now == nil {
		o.Now = clock
	}
	s, err := arc.NewSealer(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// found is what a server found out: "dmarc=pass spf=fail".
func found(results string) authres.Field {
	var f authres.Field
	for _, r := range strings.Fields(results) {
		method, value, _ := strings.Cut(r, "=")
		f.Results = append(f.Results, authres.Result{Method: method, Value: value})
	}
	return f
}

// seal adds a set after verifying what is there.
func seal(t testing.TB, message, domain, results string) string {
	t.Helper()
	return sealAs(t, message, message, sealer(t, domain), results)
}

// sealAs adds a set to a message that came in another form.
func sealAs(t testing.TB, came, goes string, s *arc.Sealer, results string) string {
	t.Helper()
	fields, err := s.Seal(strings.NewReader(goes), int64(len(goes)), verify(came, zone(records(t))), found(results))
	if err != nil {
		t.Fatal(err)
	}
	return string(fields) + goes
}

// TestChains: messages that came through one and more servers.
func TestChains(t *testing.T) {
	changed := func(m string) string { return strings.Replace(m, "Subject: ", "Subject: [list] ", 1) }
	longer := func(m string) string { return m + "-- \r\nfooter\r\n" }
	one := seal(t, plain, listDomain, "dmarc=pass")
	two := seal(t, one, schoolDomain, "arc=pass")
	three := seal(t, two, listDomain, "arc=pass")
	rsaOne := sealAs(t, plain, plain, newSealer(t, arc.SealOptions{Domain: listDomain, Selector: "rsa", Key: testKey().rsa}), "dmarc=pass")
	kept := sealAs(t, one, changed(one), sealer(t, schoolDomain), "arc=pass")
	broken := seal(t, changed(one), schoolDomain, "arc=fail")
	for _, row := range []struct {
		name    string
		message string
		cv      arc.CV
		reason  arc.Reason
		oldest  int
	}{
		{"no chain", plain, arc.None, "", -1},
		{"one set", one, arc.Pass, "", 0},
		{"one set with RSA", rsaOne, arc.Pass, "", 0},
		{"two sets", two, arc.Pass, "", 0},
		{"three sets", three, arc.Pass, "", 0},
		{"trace fields on top", "Received: x\r\nAuthentication-Results: x; none\r\n" + three, arc.Pass, "", 0},
		{"changed subject", changed(one), arc.Fail, arc.MessageFailed, -1},
		{"changed body", longer(three), arc.Fail, arc.MessageFailed, -1},
		{"changed by the second", kept, arc.Pass, "", 2},
		{"changed by the second, sealed thrice", seal(t, kept, listDomain, "arc=pass"), arc.Pass, "", 2},
		{"changed before the second", broken, arc.Fail, arc.Ended, -1},
		{"another From on top", "From: eve@example.com\r\n" + one, arc.Fail, arc.MessageFailed, -1}, // it is oversigned
		{"results changed", strings.Replace(one, "dmarc=pass", "dmarc=fail", 1), arc.Fail, arc.SealFailed, -1},
		{"results of the first changed", strings.Replace(two, "dmarc=pass", "dmarc=fail", 1), arc.Fail, arc.SealFailed, -1},
		{"status changed", strings.Replace(two, "cv=none", "cv=pass", 1), arc.Fail, arc.ChainStatus, -1},
		{"newest status changed", strings.Replace(two, "cv=pass", "cv=none", 1), arc.Fail, arc.ChainStatus, -1},
		{"status in capitals is one", strings.Replace(one, "cv=none", "cv=NONE", 1), arc.Fail, arc.SealFailed, -1},
		{"no status", strings.Replace(one, "cv=none;", "", 1), arc.Fail, arc.ChainStatus, -1},
		{"instance renumbered", strings.ReplaceAll(one, "i=1;", "i=2;"), arc.Fail, arc.Incomplete, -1},
		{"instance 0", strings.Replace(one, "i=1;", "i=0;", 1), arc.Fail, arc.Unreadable, -1},
		{"instance 51", strings.Replace(one, "i=1;", "i=51;", 1), arc.Fail, arc.TooManySets, -1},
		{"instance 100", strings.Replace(one, "i=1;", "i=100;", 1), arc.Fail, arc.Unreadable, -1},
		{"instance of a huge number", strings.Replace(one, "i=1;", "i="+strings.Repeat("9", 60)+";", 1), arc.Fail, arc.Unreadable, -1},
		{"no colon in a line", strings.Replace(one, "ARC-Seal:", "ARC-Seal", 1), arc.Fail, arc.Incomplete, -1},
		{"seal twice", one[:strings.Index(one, "ARC-Message")] + one, arc.Fail, arc.Duplicate, -1},
		{"no seal", one[strings.Index(one, "ARC-Message"):], arc.Fail, arc.Incomplete, -1},
		{"no first set", strings.TrimSuffix(two, one) + plain, arc.Fail, arc.Incomplete, -1},
	} {
		got := verify(row.message, zone(records(t)))
		if got.CV != row.cv || got.Reason != row.reason || got.OldestPass != row.oldest || (got.Text == "") != (row.reason == "") {
			t.Errorf("%s: got %s %s %d (%s), want %s %s %d of\n%s", row.name, got.CV, got.Reason, got.OldestPass, got.Text, row.cv, row.reason, row.oldest, row.message)
		}
		if got.CV != arc.Pass {
			continue
		}
		for i, s := range got.Sets {
			if s.Instance != i+1 || s.Seal.Status != dkim.Pass || s.Seal.KeyBits == 0 || s.Domain == "" || s.AuthResults.ServID != s.Domain {
				t.Errorf("%s: set %d is %+v", row.name, i+1, s)
			}
		}
	}
}

// forge signs a set with tags of the test's own: changed ones as "name=value", dropped
// ones as "-name".
func forge(t testing.TB, message string, messageTags, sealTags []string) string {
	t.Helper()
	aar := arc.FieldResults + ": i=1; lists.example.org; dmarc=pass\r\n"
	message = aar + message
	m, err := dkim.Read(strings.NewReader(message), int64(len(message)), dkim.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	tags := change(dkim.Tags{{Name: "i", Value: "1"}, {Name: "a", Value: "ed25519-sha256"}, {Name: "c", Value: "relaxed/relaxed"},
		{Name: "d", Value: listDomain}, {Name: "s", Value: "ed"}, {Name: "h", Value: "From:To:Subject"}, {Name: "bh"}}, messageTags)
	want := &dkim.Signature{Length: -1, BodyCanon: dkim.Relaxed}
	if l, ok := tags.Lookup("l"); ok {
		fmt.Sscan(l, &want.Length)
	}
	sums, err := m.HashBody([]*dkim.Signature{want})
	if err != nil {
		t.Fatal(err)
	}
	for i := range tags {
		if tags[i].Name == "bh" && tags[i].Value == "" {
			tags[i].Value = base64Of(sums[0].Digest)
		}
	}
	h, _ := tags.Lookup("h")
	fields, _ := m.Select(strings.Split(strings.ToLower(h), ":"), -1)
	ams := signField(t, arc.FieldMessage, tags, fields)
	tags = change(dkim.Tags{{Name: "i", Value: "1"}, {Name: "a", Value: "ed25519-sha256"}, {Name: "cv", Value: "none"},
		{Name: "d", Value: listDomain}, {Name: "s", Value: "ed"}}, sealTags)
	return string(signField(t, arc.FieldSeal, tags, [][]byte{[]byte(aar), ams})) + string(ams) + message
}

func signField(t testing.TB, name string, tags dkim.Tags, fields [][]byte) []byte {
	t.Helper()
	field, err := dkim.SignField(name, tags, testKey().ed, fields)
	if err != nil {
		t.Fatal(err)
	}
	return field
}

func change(tags dkim.Tags, changes []string) dkim.Tags {
	for _, c := range changes {
		name, value, _ := strings.Cut(strings.TrimPrefix(c, "-"), "=")
		at := len(tags)
		for i := range tags {
			if tags[i].Name == name {
				at = i
			}
		}
		switch {
		case c[0] == '-':
			tags = append(tags[:at:at], tags[at+1:]...)
		case at == len(tags):
			tags = append(tags, dkim.Tag{Name: name, Value: value})
		default:
			tags[at].Value = value
		}
	}
	return tags
}

// TestTags: what the signature fields may say, all rightly signed.
func TestTags(t *testing.T) {
	at := func(d time.Duration) string { return fmt.Sprint(clock().Add(d).Unix()) }
	type tags []string
	for _, row := range []struct {
		name          string
		message, seal tags
		cv            arc.CV
		why           dkim.Reason
	}{
		{"as usual", nil, nil, arc.Pass, ""},
		{"unknown tags", tags{"v=2", "zz=1"}, tags{"zz=1"}, arc.Pass, ""},
		{"message: rsa-sha1", tags{"a=rsa-sha1"}, nil, arc.Fail, dkim.AlgorithmRefused},
		{"seal: rsa-sha1", nil, tags{"a=rsa-sha1"}, arc.Fail, dkim.AlgorithmRefused},
		{"message: other algorithm than the key", tags{"a=rsa-sha256"}, nil, arc.Fail, dkim.KeyType},
		{"seal: other algorithm than the key", nil, tags{"a=rsa-sha256"}, arc.Fail, dkim.KeyType},
		{"message: From unsigned", tags{"h=To:Subject"}, nil, arc.Fail, dkim.FromUnsigned},
		{"message: covers seals", tags{"h=From:ARC-Seal"}, nil, arc.Fail, dkim.Syntax},
		{"message: covers results", tags{"h=From:ARC-Authentication-Results"}, nil, arc.Pass, ""},
		{"message: h in capitals, folded", tags{"h=FROM :\r\n to"}, nil, arc.Fail, dkim.SignatureMismatch}, // the forger does not trim
		{"message: empty names", tags{"h=From::To:"}, nil, arc.Pass, ""},
		{"message: empty names only", tags{"h=::"}, nil, arc.Fail, dkim.Syntax},
		{"message: no h", tags{"-h"}, nil, arc.Fail, dkim.Syntax},
		{"seal: h", nil, tags{"h=From"}, arc.Fail, dkim.Syntax},
		{"seal: empty h", nil, tags{"h="}, arc.Fail, dkim.Syntax},
		{"seal: bh", nil, tags{"bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}, arc.Fail, dkim.Syntax},
		{"message: no c, relaxed", tags{"-c"}, nil, arc.Pass, ""},
		{"message: no c, other body", tags{"-c", "bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}, nil, arc.Fail, dkim.BodyMismatch},
		{"message: no bh", tags{"-bh"}, nil, arc.Fail, dkim.Syntax},
		{"message: all of the body by l", tags{"l=26"}, nil, arc.Pass, ""},
		{"message: part of the body by l", tags{"l=7"}, nil, arc.Fail, dkim.LengthRefused},
		{"message: more than the body by l", tags{"l=27", "bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}, nil, arc.Fail, dkim.BodyTruncated},
		{"message: expired", tags{"t=1", "x=" + at(-time.Hour)}, nil, arc.Fail, dkim.Expired},
		{"message: expires", tags{"t=1", "x=" + at(time.Hour)}, nil, arc.Pass, ""},
		{"message: expired a little ago", tags{"t=1", "x=" + at(-time.Minute)}, nil, arc.Pass, ""},
		{"message: from the future", tags{"t=" + at(time.Hour)}, nil, arc.Fail, dkim.FromFuture},
		{"seal: from the future", nil, tags{"t=" + at(time.Hour)}, arc.Fail, dkim.FromFuture},
		{"seal: from a little later", nil, tags{"t=" + at(time.Minute)}, arc.Pass, ""},
		{"seal: x is no tag of it", nil, tags{"x=1"}, arc.Pass, ""},
		{"seal: t is no number", nil, tags{"t=now"}, arc.Fail, dkim.Syntax},
		{"message: unknown selector", tags{"s=none"}, nil, arc.Fail, dkim.KeyMissing},
		{"seal: unknown selector", nil, tags{"s=none"}, arc.Fail, dkim.KeyMissing},
		{"seal: of another domain", nil, tags{"d=" + evilDomain}, arc.Pass, ""},
		{"seal: no domain", nil, tags{"d=.."}, arc.Fail, dkim.Syntax},
		{"message: key too short", tags{"a=rsa-sha256", "s=short"}, nil, arc.Fail, dkim.KeyTooShort},
		{"seal: key too long", nil, tags{"a=rsa-sha256", "s=long"}, arc.Fail, dkim.KeyTooLong},
		{"seal: key revoked", nil, tags{"s=revoked"}, arc.Fail, dkim.KeyRevoked},
		{"seal: key not for mail", nil, tags{"s=web"}, arc.Fail, dkim.KeyService},
		{"message: key with t=s", tags{"s=strict"}, nil, arc.Pass, ""},
	} {
		names := records(t)
		ed := names[dkim.KeyName(listDomain, "ed")]
		names[dkim.KeyName(listDomain, "revoked")] = "v=DKIM1; p="
		names[dkim.KeyName(listDomain, "web")] = ed + "; s=web"
		names[dkim.KeyName(listDomain, "strict")] = ed + "; t=s"
		names[dkim.KeyName(listDomain, "short")] = rsaRecord(t, 1000)
		names[dkim.KeyName(listDomain, "long")] = rsaRecord(t, 8192)
		message := forge(t, plain, row.message, row.seal)
		got := verify(message, zone(names))
		if got.CV != row.cv || len(got.Sets) != 1 {
			t.Errorf("%s: got %s %s (%s), want %s of\n%s", row.name, got.CV, got.Reason, got.Text, row.cv, message)
			continue
		}
		why, reason := got.Sets[0].Message.Reason, arc.MessageFailed
		if row.seal != nil {
			why, reason = got.Sets[0].Seal.Reason, arc.SealFailed
		}
		if why != row.why || row.cv == arc.Fail && got.Reason != reason {
			t.Errorf("%s: got %s because of %q (%s), want %q", row.name, got.Reason, why, got.Text, row.why)
		}
	}
}
