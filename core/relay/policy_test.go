package relay

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/wafermail/wafer/core/mtasts"
	"github.com/wafermail/wafer/core/relay/relaytest"
)

// TestTLS: what each level makes of what a host offers.
func TestTLS(t *testing.T) {
	cert, pool := relaytest.Certificate(t, "mx.example.net")
	good := &tls.Config{Certificates: []tls.Certificate{cert}}
	broken := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, fmt.Errorf("no") }}
	other, otherPool := relaytest.Certificate(t, "other.example")
	_ = otherPool
	wrong := &tls.Config{Certificates: []tls.Certificate{other}}
	refuse := func(_ int, line string) string {
		if line == "STARTTLS" {
			return "454 4.7.0 not now"
		}
		return ""
	}
	rows := []struct {
		name  string
		level Level
		tls   *tls.Config
		reply func(int, string) string
		want  string
		on    bool // encrypted
	}{
		{"may, offered", May, good, nil, "250 2.0.0", true},
		{"may, wrong name", May, wrong, nil, "250 2.0.0", true},
		{"may, not offered", May, nil, nil, "250 2.0.0", false},
		{"may, broken", May, broken, nil, "250 2.0.0", false},
		{"may, refused", May, good, refuse, "250 2.0.0", false},
		{"none, offered", None, good, nil, "250 2.0.0", false},
		{"encrypt, offered", Encrypt, wrong, nil, "250 2.0.0", true},
		{"encrypt, not offered", Encrypt, nil, nil, "451 4.7.4", false},
		{"encrypt, broken", Encrypt, broken, nil, "451 4.7.5", false},
		{"encrypt, refused", Encrypt, good, refuse, "451 4.7.5", false},
		{"verify", Verify, good, nil, "250 2.0.0", true},
		{"verify, wrong name", Verify, wrong, nil, "451 4.7.5", false},
		{"verify, not offered", Verify, nil, nil, "451 4.7.4", false},
		{"dane without records", DANE, wrong, nil, "250 2.0.0", true},
		{"dane-only without records", DANEOnly, good, nil, "451 4.7.5", false},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			s := relaytest.Start(t, relaytest.Behaviour{Extensions: everything, TLS: r.tls, Reply: r.reply})
			l.host("mx.example.net", "192.0.2.1", s)
			l.mx("example.net", "10 mx.example.net")
			l.c.Roots = pool
			l.c.TLS = func(string) TLSPolicy { return TLSPolicy{Level: r.level} }
			got := l.deliver(l.delivery(text, "bob@example.net"))
			if said(got) != r.want {
				t.Errorf("%+v, want %s", got, r.want)
			}
			if ms := s.Messages(); len(ms) == 1 && ms[0].TLS != r.on {
				t.Errorf("encrypted: %v", ms[0].TLS)
			}
		})
	}
}

// policies are MTA-STS policies of a test.
type policies map[string]mtasts.Policy

func (p policies) Policy(_ context.Context, domain string) (mtasts.Policy, bool) {
	policy, ok := p[domain]
	return policy, ok
}

// TestStrict: MTA-STS and DANE, and which of them counts.
func TestStrict(t *testing.T) {
	cert, pool := relaytest.Certificate(t, "mx.example.net")
	other, _ := relaytest.Certificate(t, "other.example")
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	tlsa := "3 1 1 " + hex.EncodeToString(sum[:])
	enforce := mtasts.Policy{Mode: "enforce", MX: []string{"mx.example.net"}}
	rows := []struct {
		name  string
		level Level
		sts   mtasts.Policy
		tlsa  []string // of the host, signed
		code  string   // or an RCODE of the records
		cert  *tls.Certificate
		want  string
	}{
		{"enforce, good", May, enforce, nil, "", &cert, "250 2.0.0"},
		{"enforce, wrong name", May, enforce, nil, "", &other, "451 4.7.5"},
		{"enforce, no TLS", May, enforce, nil, "", nil, "451 4.7.4"},
		{"enforce, another host", May, mtasts.Policy{Mode: "enforce", MX: []string{"mx.other.example"}}, nil, "", &cert, "451 4.7.5"},
		{"testing, wrong name", May, mtasts.Policy{Mode: "testing", MX: []string{"mx.other.example"}}, nil, "", &other, "250 2.0.0"},
		{"none", May, mtasts.Policy{Mode: "none"}, nil, "", nil, "250 2.0.0"},
		{"no TLS is asked for", None, enforce, nil, "", nil, "250 2.0.0"},
		{"dane, match", DANE, mtasts.Policy{}, []string{tlsa}, "", &cert, "250 2.0.0"},
		{"dane, another key", DANE, mtasts.Policy{}, []string{tlsa}, "", &other, "451 4.7.5"},
		{"dane, no TLS", DANE, mtasts.Policy{}, []string{tlsa}, "", nil, "451 4.7.4"},
		{"dane-only, match", DANEOnly, mtasts.Policy{}, []string{tlsa}, "", &cert, "250 2.0.0"},
		{"dane, useless records", DANE, mtasts.Policy{}, []string{"1 1 1 " + hex.EncodeToString(sum[:])}, "", &other, "250 2.0.0"},
		{"dane, useless records, no TLS", DANE, mtasts.Policy{}, []string{"1 1 1 " + hex.EncodeToString(sum[:])}, "", nil, "451 4.7.4"},
		{"dane-only, useless records", DANEOnly, mtasts.Policy{}, []string{"1 1 1 " + hex.EncodeToString(sum[:])}, "", &cert, "451 4.7.5"},
		{"dane, records cannot be had", DANE, mtasts.Policy{}, nil, "SERVFAIL", &cert, "451 4.7.5"},
		{"dane before MTA-STS", DANE, mtasts.Policy{Mode: "enforce", MX: []string{"mx.other.example"}}, []string{tlsa}, "", &cert, "250 2.0.0"},
		{"MTA-STS where there is no DANE", DANE, enforce, nil, "", &other, "451 4.7.5"},
		{"MTA-STS where there is no DANE, good", DANE, enforce, nil, "", &cert, "250 2.0.0"},
		{"MTA-STS names another host, no DANE", DANE, mtasts.Policy{Mode: "enforce", MX: []string{"mx.other.example"}}, nil, "", &cert, "451 4.7.5"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			b := relaytest.Behaviour{Extensions: everything}
			if r.cert != nil {
				b.TLS = &tls.Config{Certificates: []tls.Certificate{*r.cert}}
			}
			l.host("mx.example.net", "192.0.2.1", relaytest.Start(t, b))
			l.zone["mx.example.net"]["AD"] = []string{"1"}
			l.mx("example.net", "10 mx.example.net")
			l.zone["example.net"]["AD"] = []string{"1"}
			switch {
			case r.code != "":
				l.zone["_25._tcp.mx.example.net"] = map[string][]string{"RCODE": {r.code}}
			case r.tlsa != nil:
				l.zone["_25._tcp.mx.example.net"] = map[string][]string{"TLSA": r.tlsa, "AD": {"1"}}
			}
			l.c.Roots = pool
			l.c.TLS = func(string) TLSPolicy { return TLSPolicy{Level: r.level} }
			if r.sts.Mode != "" {
				l.c.STS = policies{"example.net": r.sts}
			}
			if got := l.deliver(l.delivery(text, "bob@example.net")); said(got) != r.want {
				t.Errorf("%+v, want %s", got, r.want)
			}
		})
	}
}

// TestInjection: what comes before the handshake is not used after it.
func TestInjection(t *testing.T) {
	l := newLab(t)
	cert, _ := relaytest.Certificate(t, "mx.example.net")
	s := relaytest.Start(t, relaytest.Behaviour{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Reply: func(_ int, line string) string {
		if line == "STARTTLS" {
			return "220 go\n250 injected"
		}
		return ""
	}})
	l.host("example.net", "192.0.2.1", s)
	if r := l.deliver(l.delivery(text, "bob@example.net")); said(r) != "451 4.7.5" || len(s.Messages()) != 0 {
		t.Errorf("%+v", r)
	}
}
