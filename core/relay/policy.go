package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/dane"
	"github.com/wafermail/wafer/core/mtasts"
)

// Level is how much encryption towards a host is asked for.
type Level uint8

// The levels. DANE is May where a host has no TLSA records, and DANE where it has.
const (
	None     Level = iota + 1
	May            // if the host offers it; certificates are not looked at
	Encrypt        // always
	Verify         // always, with a certificate of a known authority for the right name
	DANE           // RFC 7672
	DANEOnly       // DANE, and only to hosts that have TLSA records
)

// ParseLevel reads "none", "may", "encrypt", "verify", "dane" or "dane-only"; "" is
// Level 0.
func ParseLevel(s string) (Level, error) {
	for i, name := range []string{"", "none", "may", "encrypt", "verify", "dane", "dane-only"} {
		if s == name {
			return Level(i), nil
		}
	}
	return 0, fmt.Errorf("no TLS level %q", s)
}

// TLSPolicy is what a destination is asked for.
type TLSPolicy struct {
	Level Level
	Names []string // for Verify: accepted names of hosts; nil: the host's name and the next hop's domain
	Fixed bool     // MTA-STS does not make it stricter

	hostOnly bool           // the name must be that of the mail exchanger (RFC 8461 §4.1)
	sts      *mtasts.Policy // of Level DANE: what holds for hosts without records
}

// policy is the TLS policy of the attempt's destination before MTA-STS.
func (a *attempt) policy() TLSPolicy {
	p := a.t.TLS
	if p.Level == 0 && a.c.TLS != nil {
		p = a.c.TLS(a.hop.name)
	}
	if p.Level == 0 {
		p.Level = May
	}
	return p
}

// strict lets MTA-STS have its say (RFC 8461): hosts that the policy does not name
// are left out, and the others must show a valid certificate. A policy of the
// configuration's own, and DANE, come first (RFC 8461 §2).
func (a *attempt) strict(ctx context.Context, hosts []exchanger, p TLSPolicy) ([]exchanger, TLSPolicy, *failure) {
	if a.c.STS == nil || p.Fixed || p.Level == None || p.Level >= Verify && p.Level != DANE {
		return hosts, p, nil
	}
	sts, known := a.c.STS.Policy(ctx, a.hop.name)
	if !known || sts.Mode == "none" || sts.Mode == "" {
		return hosts, p, nil
	}
	if p.Level == DANE { // which comes first, host by host
		if sts.Mode == "enforce" {
			p.sts = &sts
		}
		return hosts, p, nil
	}
	var named []exchanger
	for _, h := range hosts {
		if sts.Match(h.host) {
			named = append(named, h)
		}
	}
	if sts.Mode == "testing" {
		if len(named) < len(hosts) {
			a.tally.tls("validation-failure")
			a.c.Logger.Info("MTA-STS policy in testing does not name every mail exchanger", "domain", a.hop.name)
		}
		return hosts, p, nil
	}
	if len(named) == 0 {
		a.tally.tls("validation-failure")
		return nil, p, ours(451, "4.7.5", "no mail exchanger of %s is named by its MTA-STS policy", a.hop.name)
	}
	return named, TLSPolicy{Level: Verify, hostOnly: true}, nil
}

// demand is what one host is asked for.
type demand struct {
	level   Level
	names   []string    // of Verify and DANE
	records []dane.TLSA // of DANE
}

// demand finds out what to ask a host for: with DANE that depends on its records.
func (a *attempt) demand(ctx context.Context, t target, p TLSPolicy) (demand, *failure) {
	need := demand{level: p.Level}
	switch p.Level {
	case Verify:
		switch need.names = p.Names; {
		case p.hostOnly && t.host != "":
			need.names = []string{t.host}
		case len(need.names) > 0:
		case t.host == "":
			need.names = []string{t.addr.String()}
		default:
			need.names = []string{t.host}
			if a.hop.name != t.host {
				need.names = append(need.names, a.hop.name)
			}
		}
	case DANE, DANEOnly:
		return a.daneDemand(ctx, t, p)
	}
	return need, nil
}

func (a *attempt) daneDemand(ctx context.Context, t target, p TLSPolicy) (demand, *failure) {
	insecure := func(why string) (demand, *failure) {
		if p.Level == DANEOnly {
			a.tally.tls("dane-required")
			return demand{}, &failure{outcome: ours(451, "4.7.5", "DANE is required, but host %s %s", t.remote, why).outcome}
		}
		switch {
		case p.sts == nil:
			return demand{level: May}, nil
		case p.sts.Match(t.host):
			return demand{level: Verify, names: []string{t.host}}, nil
		}
		a.tally.tls("validation-failure")
		return demand{}, ours(451, "4.7.5", "host %s is not named by the MTA-STS policy of %s", t.remote, a.hop.name)
	}
	if t.host == "" || !t.secure {
		return insecure("is not in a signed zone")
	}
	records, secure, status := dane.Lookup(ctx, a.c.Resolver, t.host, a.hop.port)
	switch {
	case status == dane.Temporary: // it may be there and be kept from us
		a.tally.tls("tlsa-invalid")
		return demand{}, ours(451, "4.7.5", "TLSA records of %s cannot be looked up now", t.host)
	case status == dane.Absent || !secure:
		return insecure("has no TLSA records")
	case status == dane.Unusable:
		if p.Level == DANEOnly {
			return insecure("has no TLSA records that can be used")
		}
		return demand{level: Encrypt}, nil // RFC 7672 §2.2
	}
	return demand{level: DANE, names: []string{t.host, a.hop.name}, records: records}, nil
}

// tlsConfig is for one handshake.
func (a *attempt) tlsConfig(t target, need demand) *tls.Config {
	c := a.sessions.Clone()
	c.MinVersion = tls.VersionTLS12
	c.ServerName = t.host
	if need.level <= May && need.level != 0 {
		c.MinVersion = tls.VersionTLS10 // better than nothing, which is the alternative
	}
	if c.ServerName == "" && t.addr.IsValid() {
		c.ServerName = t.addr.String()
	}
	if t.network == "unix" {
		c.ServerName = "localhost"
	}
	c.InsecureSkipVerify = true // VerifyConnection does what the level asks for
	switch need.level {
	case Verify:
		c.VerifyConnection = func(s tls.ConnectionState) error { return verify(s, need.names, a.c.Roots) }
	case DANE, DANEOnly:
		c.VerifyConnection = func(s tls.ConnectionState) error {
			return dane.Verify(need.records, s, need.names, time.Now())
		}
	}
	return c
}

// verify checks a certificate as a browser would, for any of the names.
func verify(s tls.ConnectionState, names []string, roots *x509.CertPool) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the host has shown no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	if _, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
		return err
	}
	var last error
	for _, name := range names {
		if last = s.PeerCertificates[0].VerifyHostname(name); last == nil {
			return nil
		}
	}
	return last
}

// failureType is the result type of RFC 8460 §4.3.
func failureType(err error) string {
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &host):
		return "certificate-host-mismatch"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "certificate-expired"
	case errors.As(err, &authority), errors.As(err, &invalid):
		return "certificate-not-trusted"
	case strings.Contains(err.Error(), "TLSA"):
		return "validation-failure"
	}
	return "starttls-failure"
}
