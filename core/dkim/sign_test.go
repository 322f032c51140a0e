package dkim_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/dkim"
	"github.com/wafermail/wafer/core/dns"
)

func sign(t testing.TB, o dkim.SignerOptions, message string) string {
	t.Helper()
	if o.Now == nil {
		o.Now = clock
	}
	signer, err := dkim.NewSigner(o)
	if err != nil {
		t.Fatal(err)
	}
	fields, err := signer.Sign(strings.NewReader(message), int64(len(message)))
	if err != nil {
		t.Fatal(err)
	}
	return string(fields)
}

// TestSignedField: the form of the fields.
func TestSignedField(t *testing.T) {
	keys, records := bothKeys(t)
	for _, row := range []struct {
		name    string
		o       dkim.SignerOptions
		message string
		want    []string // in the unfolded first field
		not     []string
	}{
		{"defaults", dkim.SignerOptions{}, plain, []string{
			"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=rsa; t=1796126400; h=",
			"h=From:From:Reply-To:Subject:Subject:Date:Message-ID:To:To:Cc:MIME-Version:Content-Type:Content-Transfer-Encoding;",
		}, []string{" x=", " i=", " l="}},
		{"expiry and identity", dkim.SignerOptions{Expire: time.Hour, Identity: "a;b ü@Sub.Example.com"}, plain,
			[]string{"t=1796126400; x=1796130000;", "i=a=3Bb=20=C3=BC@sub.example.com;"}, nil},
		{"fields that are there twice, and trace", dkim.SignerOptions{}, "Received: x\r\nList-Id: a\r\nSubject: 1\r\nSubject: 2\r\nDKIM-Signature: x\r\nReturn-Path: <>\r\n" + plain,
			[]string{"Subject:Subject:Subject:Subject:", "List-Id;"}, []string{"Received", "Return-Path", "h=DKIM", ":DKIM"}},
		{"own fields", dkim.SignerOptions{Headers: []string{"from", "X-Mine"}, Oversign: []string{}}, "X-Mine: 1\r\n" + plain, []string{"h=from:X-Mine;"}, nil},
		{"oversigned besides", dkim.SignerOptions{Headers: []string{"From"}, Oversign: []string{"X-Not-There", "FROM"}}, plain, []string{"h=From:From:X-Not-There;"}, nil},
	} {
		row.o.Keys = keys
		fields := sign(t, row.o, row.message)
		unfolded := strings.ReplaceAll(fields, "\r\n ", " ")
		unfolded = strings.ReplaceAll(unfolded, ": ", ":")
		first, second, _ := strings.Cut(unfolded, "\r\n")
		first = strings.Replace(first, "DKIM-Signature:", "DKIM-Signature: ", 1)
		for _, want := range row.want {
			if !strings.Contains(first, want) {
				t.Errorf("%s: %q is not in %q", row.name, want, first)
			}
		}
		for _, not := range row.not {
			if strings.Contains(first, not) {
				t.Errorf("%s: %q is in %q", row.name, not, first)
			}
		}
		if !strings.Contains(second, "a=ed25519-sha256;") || !strings.Contains(second, "s=ed;") {
			t.Errorf("%s: the second field is %q", row.name, second)
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(fields, "\r\n"), "\r\n") {
			if len(line) > 77 || strings.TrimSpace(line) == "" || strings.ContainsAny(line, "\r\n") {
				t.Errorf("%s: line of %d octets: %q", row.name, len(line), line)
			}
		}
		got := verify(t, []byte(fields+row.message), zone(records))
		if len(got) < 2 || got[0].Status != dkim.Pass || got[1].Status != dkim.Pass {
			t.Errorf("%s: got %+v", row.name, got)
		}
	}
}

// TestOversigned: nothing can be added that people are shown.
func TestOversigned(t *testing.T) {
	keys, records := bothKeys(t)
	signed := sign(t, dkim.SignerOptions{Keys: keys}, plain) + plain
	for _, name := range dkim.DefaultOversign() {
		for _, message := range []string{name + ": x\r\n" + signed, strings.Replace(signed, "\r\n\r\n", "\r\n"+name+": x\r\n\r\n", 1)} {
			if passes(verify(t, []byte(message), zone(records))) {
				t.Errorf("another %s may be added", name)
			}
		}
	}
	if !passes(verify(t, []byte("Received: x\r\nList-Id: y\r\nX-Spam: z\r\n"+signed), zone(records))) {
		t.Error("trace fields may not be added")
	}
}

func TestSignerErrors(t *testing.T) {
	keys, _ := bothKeys(t)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	one := func(key dkim.Key) []dkim.Key { return []dkim.Key{key} }
	ed := keys[1].Private
	for _, row := range []struct {
		name string
		o    dkim.SignerOptions
		want string
	}{
		{"no keys", dkim.SignerOptions{}, "no keys"},
		{"no domain", dkim.SignerOptions{Keys: one(dkim.Key{Selector: "s", Private: ed})}, "no domain name"},
		{"no selector", dkim.SignerOptions{Keys: one(dkim.Key{Domain: "example.com", Private: ed})}, "no selector"},
		{"no private key", dkim.SignerOptions{Keys: one(dkim.Key{Domain: "example.com", Selector: "s"})}, "no private key"},
		{"another kind of key", dkim.SignerOptions{Keys: one(dkim.Key{Domain: "example.com", Selector: "s", Private: other})}, "cannot sign mail"},
		{"From left out", dkim.SignerOptions{Keys: keys, Headers: []string{"To"}, Oversign: []string{"To"}}, "From must be"},
		{"bad name", dkim.SignerOptions{Keys: keys, Headers: []string{"From", "a b"}}, "no field name"},
		{"identity elsewhere", dkim.SignerOptions{Keys: keys, Identity: "@example.org"}, "not of domain"},
		{"identity without a domain", dkim.SignerOptions{Keys: keys, Identity: "me"}, "no domain"},
		{"identity with a line end", dkim.SignerOptions{Keys: keys, Identity: "a\nb@example.com"}, "cannot have"},
	} {
		if _, err := dkim.NewSigner(row.o); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.want)
		}
	}
	signer, err := dkim.NewSigner(dkim.SignerOptions{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, message, want string }{
		{"no From", "Subject: x\r\n\r\nFrom: a\r\n", "no From"},
		{"too many fields", strings.Repeat("To: a\r\n", 600) + plain, "more than 500 fields"},
		{"too large", "To: " + strings.Repeat("a", 1<<20) + "\r\n" + plain, "too large"},
	} {
		if _, err := signer.Sign(strings.NewReader(row.message), int64(len(row.message))); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.want)
		}
	}
	if _, err := signer.Sign(broken{strings.NewReader(plain), 10}, int64(len(plain))); err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("broken disk: got %v", err)
	}
}

// TestARCSeal: a field of another name over a named set of fields.
func TestARCSeal(t *testing.T) {
	keys, records := bothKeys(t)
	covered := [][]byte{[]byte("ARC-Authentication-Results: i=1; x\r\n"), []byte("ARC-Message-Signature: i=1; y\r\n")}
	tags := dkim.Tags{{Name: "i", Value: "1"}, {Name: "a", Value: "ed25519-sha256"}, {Name: "cv", Value: "none"}, {Name: "d", Value: "example.com"}, {Name: "s", Value: "ed"}}
	field, err := dkim.SignField("ARC-Seal", tags, keys[1].Private, covered)
	if err != nil {
		t.Fatal(err)
	}
	s, fault := dkim.ParseSignature(field)
	if fault != nil {
		t.Fatalf("got %+v", fault)
	}
	if i, _ := s.Tags.Lookup("i"); i != "1" || s.Identity != "" {
		t.Errorf("got i=%s, identity %q", i, s.Identity)
	}
	found := dkim.LookupKeys(context.Background(), zone(records), []*dkim.Signature{s})
	digest := s.Digest(covered)
	if key, fault := dkim.CheckKeys(found[0], s, digest[:]); fault != nil || key.Bits != 256 {
		t.Errorf("got %+v, %+v", key, fault)
	}
	digest = s.Digest(covered[:1])
	if _, fault := dkim.CheckKeys(found[0], s, digest[:]); fault == nil || fault.Reason != dkim.SignatureMismatch {
		t.Errorf("got %+v", fault)
	}
	if _, fault := dkim.ParseSignature([]byte("ARC-Seal: i=1; a=rsa-sha256; b=AA; d=a; s=b; cv=none; h=from\r\n")); fault == nil {
		t.Error("an ARC-Seal with h= is read")
	}
	if _, fault := dkim.ParseSignature([]byte("ARC-Message-Signature: i=1; a=rsa-sha256; b=AA; d=a; s=b; h=from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\r\n")); fault != nil {
		t.Errorf("an ARC-Message-Signature is not read: %+v", fault)
	}
}

func TestKeys(t *testing.T) {
	for _, row := range []struct {
		algorithm string
		bits      int
		ok        bool
	}{
		{"rsa", 0, true}, {"ed25519", 0, true}, {"ed25519", 256, true},
		{"rsa", 1024, false}, {"rsa", 8192, false}, {"ed25519", 2048, false}, {"dsa", 0, false},
	} {
		key, err := dkim.GenerateKey(row.algorithm, row.bits)
		if (err == nil) != row.ok {
			t.Errorf("generate %s of %d bits: %v", row.algorithm, row.bits, err)
		}
		if err != nil {
			continue
		}
		data, err := dkim.MarshalKey(key)
		if err != nil {
			t.Fatal(err)
		}
		again, err := dkim.ParseKey(append([]byte("a comment\n"), data...))
		if err != nil || !again.(interface{ Equal(crypto.PrivateKey) bool }).Equal(key) {
			t.Errorf("%s was written and read: %v", row.algorithm, err)
		}
	}

	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(testKey().rsa)})
	if key, err := dkim.ParseKey(pkcs1); err != nil || !testKey().rsa.Equal(key) {
		t.Errorf("PKCS #1: %v", err)
	}
	for name, data := range map[string]string{
		"nothing":   "",
		"public":    "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
		"broken":    "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"encrypted": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
	} {
		if _, err := dkim.ParseKey([]byte(data)); err == nil {
			t.Errorf("%s: a key was read", name)
		}
	}
}

func TestReadKeyFile(t *testing.T) {
	data, err := dkim.MarshalKey(testKey().ed)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]string{0o600: "", 0o640: "", 0o400: "", 0o644: "chmod o=", 0o602: "chmod o="} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		key, err := dkim.ReadKeyFile(path)
		if want == "" && (err != nil || !testKey().ed.Equal(key)) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"too large": path, "a directory": filepath.Dir(path), "absent": path + "x"} {
		if _, err := dkim.ReadKeyFile(path); err == nil {
			t.Errorf("%s: a key was read", name)
		}
	}
}

func TestZoneLine(t *testing.T) {
	keys, records := bothKeys(t)
	for _, key := range keys {
		line, err := dkim.ZoneLine(key)
		if err != nil {
			t.Fatal(err)
		}
		z, err := dns.ReadZone(strings.NewReader("$TTL 60\n" + line + "\n"))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		name := dkim.KeyName(key.Domain, key.Selector)
		if got := z.Lookup(context.Background(), dns.Question{Type: "TXT", Name: name}); len(got.Records) != 1 || got.Records[0] != records[name][0] {
			t.Errorf("%s: got %+v", line, got)
		}
	}
}

func TestCheckRecord(t *testing.T) {
	keys, records := bothKeys(t)
	record := func(key dkim.Key) string { return records[dkim.KeyName(key.Domain, key.Selector)][0] }
	ed, other := record(keys[1]), "v=DKIM1; k=ed25519; p="+edKey
	for _, row := range []struct {
		name string
		txt  []string
		want string // "" for no error
	}{
		{"right", []string{ed}, ""},
		{"right with notes", []string{ed + "; n=ours; t=s"}, ""},
		{"another key", []string{other}, "another ed25519 key"},
		{"another type", []string{record(keys[0])}, "type rsa"},
		{"two records", []string{ed, other}, "2 records"},
		{"revoked", []string{"v=DKIM1; p="}, "revoked"},
		{"testing", []string{ed + "; t=y"}, "t=y"},
		{"not for mail", []string{ed + "; s=tlsrpt"}, "not for mail"},
		{"not for sha256", []string{ed + "; h=sha1"}, "sha256"},
		{"quotation marks", []string{`"` + ed + `"`}, "quotation marks"},
		{"backslashes", []string{strings.ReplaceAll(ed, ";", `\;`)}, "backslashes"},
		{"something else", []string{"v=spf1 -all"}, "looks like v=DKIM1"},
	} {
		r := zone(map[string][]string{"ed._domainkey.example.com": row.txt})
		err := dkim.CheckRecord(context.Background(), r, keys[1])
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.want)
		}
	}
	for want, names := range map[string]map[string]map[string][]string{
		"does not exist":            {"example.com": {"A": {"192.0.2.1"}}},
		"no TXT record":             {"ed._domainkey.example.com": {"A": {"192.0.2.1"}}},
		"cannot be looked up now":   {"ed._domainkey.example.com": {"RCODE": {"SERVFAIL"}}},
		"ed._domainkey.example.com": {},
	} {
		if err := dkim.CheckRecord(context.Background(), dns.NewZone(names), keys[1]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
