package dane

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/dns"
)

var now = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// chain makes a certificate for names, and its authority.
func chain(t *testing.T, ends time.Time, names ...string) []*x509.Certificate {
	t.Helper()
	return chainFor(t, x509.ExtKeyUsageServerAuth, ends, names...)
}

func chainFor(t *testing.T, use x509.ExtKeyUsage, ends time.Time, names ...string) []*x509.Certificate {
	t.Helper()
	keys := [2]*ecdsa.PrivateKey{}
	for i := range keys {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = k
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(5, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "host"}, DNSNames: names, NotBefore: now.AddDate(-1, 0, 0), NotAfter: ends, ExtKeyUsage: []x509.ExtKeyUsage{use}}
	var cs []*x509.Certificate
	for _, c := range [2]struct {
		c   *x509.Certificate
		pub any
	}{{leaf, keys[0].Public()}, {ca, keys[1].Public()}} {
		der, err := x509.CreateCertificate(rand.Reader, c.c, ca, c.pub, keys[1])
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		cs = append(cs, parsed)
	}
	return cs
}

func record(usage, selector, matching uint8, c *x509.Certificate) TLSA {
	of := c.Raw
	if selector == 1 {
		of = c.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		sum := sha256.Sum256(of)
		of = sum[:]
	case 2:
		sum := sha512.Sum512(of)
		of = sum[:]
	}
	return TLSA{usage, selector, matching, of}
}

// TestVerify: RFC 7672 §3.1.
func TestVerify(t *testing.T) {
	good := chain(t, now.AddDate(1, 0, 0), "mx.example.net", "*.wild.example")
	expired := chain(t, now.AddDate(0, 0, -1), "mx.example.net")
	other := chain(t, now.AddDate(1, 0, 0), "mx.example.net")
	client := chainFor(t, x509.ExtKeyUsageClientAuth, now.AddDate(1, 0, 0), "mx.example.net")
	rows := []struct {
		name    string
		records []TLSA
		chain   []*x509.Certificate
		host    string
		ok      bool
	}{
		{"EE, key, SHA-256", []TLSA{record(3, 1, 1, good[0])}, good, "mx.example.net", true},
		{"EE, whole certificate", []TLSA{record(3, 0, 0, good[0])}, good, "mx.example.net", true},
		{"EE, SHA-512", []TLSA{record(3, 0, 2, good[0])}, good, "mx.example.net", true},
		{"EE, another name", []TLSA{record(3, 1, 1, good[0])}, good, "other.example", true},
		{"EE, expired", []TLSA{record(3, 1, 1, expired[0])}, expired, "mx.example.net", true},
		{"EE, another key", []TLSA{record(3, 1, 1, other[0])}, good, "mx.example.net", false},
		{"EE, second record", []TLSA{record(3, 1, 1, other[0]), record(3, 1, 1, good[0])}, good, "mx.example.net", true},
		{"TA", []TLSA{record(2, 0, 1, good[1])}, good, "mx.example.net", true},
		{"TA, key", []TLSA{record(2, 1, 1, good[1])}, good, "mx.example.net", true},
		{"TA, wildcard", []TLSA{record(2, 0, 1, good[1])}, good, "a.wild.example", true},
		{"TA, another name", []TLSA{record(2, 0, 1, good[1])}, good, "other.example", false},
		{"TA, expired", []TLSA{record(2, 0, 1, expired[1])}, expired, "mx.example.net", false},
		{"TA, not shown", []TLSA{record(2, 0, 1, good[1])}, good[:1], "mx.example.net", false},
		{"TA, not shown but in the record", []TLSA{record(2, 0, 0, good[1])}, good[:1], "mx.example.net", true},
		{"TA, another authority", []TLSA{record(2, 0, 1, other[1])}, good, "mx.example.net", false},
		{"TA, that is the host's", []TLSA{record(2, 0, 1, good[0])}, good, "mx.example.net", false},
		{"TA, only its key in the record", []TLSA{record(2, 1, 0, good[1])}, good[:1], "mx.example.net", true},
		{"TA, only its key, another name", []TLSA{record(2, 1, 0, good[1])}, good[:1], "other.example", false},
		{"TA, only its key, expired", []TLSA{record(2, 1, 0, expired[1])}, expired[:1], "mx.example.net", false},
		{"TA, only another's key", []TLSA{record(2, 1, 0, other[1])}, good, "mx.example.net", false},
		{"TA, whole, that is the host's", []TLSA{record(2, 0, 0, good[0])}, good, "mx.example.net", false},
		{"TA, the host's certificate twice", []TLSA{record(2, 1, 1, good[0])}, []*x509.Certificate{good[0], good[0]}, "mx.example.net", false},
		{"TA, in the chain without having signed", []TLSA{record(2, 0, 1, other[1])}, []*x509.Certificate{good[0], other[1]}, "mx.example.net", false},
		{"TA, wildcard for two labels", []TLSA{record(2, 0, 1, good[1])}, good, "a.b.wild.example", false},
		{"TA, no name asked for", []TLSA{record(2, 0, 1, good[1])}, good, "", false},
		{"TA after an EE that fails", []TLSA{record(3, 1, 1, other[0]), record(2, 0, 2, good[1])}, good, "MX.example.net.", true},
		{"TA, certificate for clients", []TLSA{record(2, 0, 1, client[1])}, client, "mx.example.net", false},
		{"EE that names the authority", []TLSA{record(3, 0, 1, good[1])}, good, "mx.example.net", false},
		{"usage 1", []TLSA{record(1, 1, 1, good[0])}, good, "mx.example.net", false},
		{"selector 2", []TLSA{record(3, 2, 0, good[0])}, good, "mx.example.net", false},
		{"no certificate", []TLSA{record(3, 1, 1, good[0])}, nil, "mx.example.net", false},
		{"no record", nil, good, "mx.example.net", false},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			err := Verify(r.records, tls.ConnectionState{PeerCertificates: r.chain}, strings.Fields(r.host), now)
			if (err == nil) != r.ok {
				t.Errorf("%v, want ok %v", err, r.ok)
			}
		})
	}
}

// TestLookup: what is known of a host.
func TestLookup(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	zone := dns.NewZone(map[string]map[string][]string{
		"_25._tcp.good.test":     {"TLSA": {"3 1 1 " + sum, "0 0 1 " + sum}, "AD": {"1"}},
		"_25._tcp.unsigned.test": {"TLSA": {"3 1 1 " + sum}},
		"_25._tcp.useless.test":  {"TLSA": {"0 0 1 " + sum, "3 1 1 abcd"}, "AD": {"1"}},
		"_25._tcp.broken.test":   {"RCODE": {"SERVFAIL"}},
		"_25._tcp.silent.test":   {"RCODE": {"DROP"}},
		"_25._tcp.garbled.test":  {"TLSA": {"3 1 1 zz"}, "AD": {"1"}},
		"_25._tcp.empty.test":    {"TXT": {"x"}, "AD": {"1"}},
		"_25._tcp.alias.test":    {"CNAME": {"_25._tcp.good.test"}, "AD": {"1"}},
		"_25._tcp.loose.test":    {"CNAME": {"_25._tcp.good.test"}},
	})
	for host, want := range map[string]string{
		"good.test": "1 true 3", "unsigned.test": "0 false 1", "useless.test": "0 true 2", "broken.test": "0 false 0", "none.test": "0 false 1",
		"silent.test": "0 false 0", "garbled.test": "0 true 2", "empty.test": "0 true 1", "alias.test": "1 true 3", "loose.test": "0 false 1",
	} {
		rs, secure, status := Lookup(context.Background(), zone, host, 25)
		if got := fmt.Sprint(len(rs), secure, status); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}

// TestSelect: the strongest digest counts, each usage and selector for itself.
func TestSelect(t *testing.T) {
	c := chain(t, now.AddDate(1, 0, 0), "x.test")[0]
	got := Select([]TLSA{record(3, 1, 1, c), record(3, 1, 2, c), record(3, 0, 1, c), record(3, 1, 0, c), {3, 2, 1, make([]byte, 32)}, {3, 1, 3, make([]byte, 32)}, {1, 1, 1, make([]byte, 32)}, {2, 0, 0, []byte("no certificate")}, {2, 1, 0, []byte("no key")}, {3, 0, 0, nil}, record(2, 1, 0, c), record(2, 0, 0, c)})
	var s []string
	for _, t := range got {
		s = append(s, fmt.Sprint(t.Usage, t.Selector, t.Matching))
	}
	if strings.Join(s, ", ") != "3 1 2, 3 0 1, 3 1 0, 2 1 0, 2 0 0" {
		t.Errorf("%v", s)
	}
}

// TestLongChain: the authority is looked for as far as the bound and no further.
func TestLongChain(t *testing.T) {
	good, other := chain(t, now.AddDate(1, 0, 0), "mx.example.net"), chain(t, now.AddDate(1, 0, 0), "x.test")
	for n, ok := range map[int]bool{maxChain - 2: true, maxChain - 1: false} {
		long := []*x509.Certificate{good[0]}
		for range n {
			long = append(long, other[0])
		}
		err := Verify([]TLSA{record(2, 0, 1, good[1])}, tls.ConnectionState{PeerCertificates: append(long, good[1])}, []string{"mx.example.net"}, now)
		if (err == nil) != ok {
			t.Errorf("%d certificates between: %v", n, err)
		}
	}
}

// TestParseTLSA: RFC 6698 §2.2.
func TestParseTLSA(t *testing.T) {
	for _, r := range []struct{ name, in, want string }{
		{"plain", "3 1 1 abCD", "{3 1 1 [171 205]}"},
		{"spaces between the digits", "2 0 2 ab cd", "{2 0 2 [171 205]}"},
		{"usage of no octet", "256 1 1 ab", ""},
		{"negative", "-1 1 1 ab", ""},
		{"three fields", "3 1 1", ""},
		{"half an octet", "3 1 1 abc", ""},
		{"no digits", "3 1 1 zz", ""},
		{"nothing", "", ""},
		{"too long", "3 1 0 " + strings.Repeat("ab", 1<<17), ""},
	} {
		got, err := ParseTLSA(r.in)
		if s := fmt.Sprint(got); (err == nil) != (r.want != "") || err == nil && s != r.want {
			t.Errorf("%s: %.80s (%v), want %s", r.name, s, err, r.want)
		}
	}
}

// FuzzParseTLSA: no record is taken for another.
func FuzzParseTLSA(f *testing.F) {
	f.Add("3 1 1 abcd") // more in testdata
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseTLSA(s)
		if err != nil {
			return
		}
		again, err := ParseTLSA(fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.Matching, hex.EncodeToString(r.Data)))
		if len(r.Data) > 0 && (err != nil || string(again.Data) != string(r.Data)) {
			t.Errorf("%q: %v (%v)", s, again, err)
		}
	})
}
