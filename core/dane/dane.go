// Package dane authenticates mail hosts by their TLSA records (RFC 6698, RFC 7671,
// RFC 7672): a domain whose zone is signed says itself which certificate its host
// has, and that it has TLS at all.
//
//	records, secure, status := dane.Lookup(ctx, resolver, "mx.example.net", 25)
//	err := dane.Verify(records, state, names, now) // in tls.Config.VerifyConnection
//
// # BUGS
//
// Whether an answer was signed is the resolver's word (dns.Answer.Authentic): without
// a validating resolver on this host nothing is ever secure, and DANE is never used.
package dane

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/dns"
)

// TLSA is one record (RFC 6698 §2.1).
type TLSA struct {
	Usage    uint8 // 2 DANE-TA, 3 DANE-EE; 0 and 1 are of no use to mail (RFC 7672 §3.1.3)
	Selector uint8 // 0 the certificate, 1 its public key
	Matching uint8 // 0 whole, 1 SHA-256, 2 SHA-512
	Data     []byte
}

// Status is what a lookup came to.
type Status uint8

// The outcomes. The zero value is Temporary, so that nothing is taken for a fact by
// mistake.
const (
	Temporary Status = iota // the mail must wait: somebody may keep the records from us
	Absent                  // the host does not use DANE
	Unusable                // it does, in ways that we cannot check: TLS is a must all the same
	Usable
)

// maxRecords bounds what is looked at of an answer.
const maxRecords = 64

// Lookup asks for the records of host's port. secure says that the answer was signed;
// records are those that can be used.
func Lookup(ctx context.Context, r dns.Resolver, host string, port uint16) (records []TLSA, secure bool, status Status) {
	a := r.Lookup(ctx, dns.Question{Type: "TLSA", Name: "_" + strconv.Itoa(int(port)) + "._tcp." + host})
	switch {
	case a.Status == dns.Temporary:
		return nil, false, Temporary
	case a.Status != dns.Found || !a.Authentic:
		return nil, a.Authentic, Absent
	}
	for _, text := range a.Records[:min(len(a.Records), maxRecords)] {
		if t, err := ParseTLSA(text); err == nil {
			records = append(records, t)
		}
	}
	if records = Select(records); len(records) == 0 {
		return nil, true, Unusable
	}
	return records, true, Usable
}

// ParseTLSA reads a record as a zone file has it: "3 1 1 0123…".
func ParseTLSA(s string) (t TLSA, err error) {
	words := strings.Fields(s)
	if len(words) < 4 {
		return t, errors.New("a TLSA record has four fields")
	}
	for i, to := range []*uint8{&t.Usage, &t.Selector, &t.Matching} {
		n, err := strconv.ParseUint(words[i], 10, 8)
		if err != nil {
			return t, fmt.Errorf("TLSA record: %q is no number", words[i])
		}
		*to = uint8(n)
	}
	if t.Data, err = hex.DecodeString(strings.Join(words[3:], "")); err != nil {
		return t, fmt.Errorf("TLSA record: %w", err)
	}
	return t, nil
}

// Select returns the records that can be used, and of those that say the same in
// several digests only the strongest (RFC 7671 §9).
func Select(records []TLSA) (usable []TLSA) {
	type place struct{ usage, selector uint8 }
	best := map[place]uint8{}
	fits := func(t TLSA) bool {
		switch {
		case t.Usage != 2 && t.Usage != 3, t.Selector > 1:
			return false
		case t.Matching == 0:
			return len(t.Data) > 0
		case t.Matching == 1:
			return len(t.Data) == sha256.Size
		}
		return t.Matching == 2 && len(t.Data) == sha512.Size
	}
	for _, t := range records {
		if p := (place{t.Usage, t.Selector}); fits(t) && t.Matching > best[p] {
			best[p] = t.Matching
		}
	}
	for _, t := range records {
		if fits(t) && (t.Matching == 0 || t.Matching == best[place{t.Usage, t.Selector}]) {
			usable = append(usable, t)
		}
	}
	return usable
}

// Verify reports whether the certificate that the host has shown is one that the
// records stand for. names are those that a certificate below a DANE-TA authority
// may be for. A DANE-EE match asks for neither name nor date (RFC 7672 §3.1.1).
func Verify(records []TLSA, state tls.ConnectionState, names []string, now time.Time) error {
	chain := state.PeerCertificates
	if len(chain) == 0 {
		return errors.New("TLSA: the host has shown no certificate")
	}
	var last error
	for _, t := range records {
		switch t.Usage {
		case 3:
			if t.matches(chain[0]) {
				return nil
			}
		case 2:
			err := t.trust(chain, names, now)
			if err == nil {
				return nil
			}
			last = err
		}
	}
	if last != nil {
		return fmt.Errorf("TLSA: no record matches the host's certificate: %w", last)
	}
	return errors.New("TLSA: no record matches the host's certificate")
}

// matches reports whether the record stands for the certificate.
func (t TLSA) matches(c *x509.Certificate) bool {
	of := c.Raw
	if t.Selector == 1 {
		of = c.RawSubjectPublicKeyInfo
	}
	switch t.Matching {
	case 0:
		return bytes.Equal(of, t.Data)
	case 1:
		sum := sha256.Sum256(of)
		return bytes.Equal(sum[:], t.Data)
	case 2:
		sum := sha512.Sum512(of)
		return bytes.Equal(sum[:], t.Data)
	}
	return false
}

// trust checks the chain against a DANE-TA record (RFC 7672 §3.1.2): it must lead from
// the host's certificate to one that the record stands for, which the host shows too,
// or which the record holds whole.
func (t TLSA) trust(chain []*x509.Certificate, names []string, now time.Time) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for i, c := range chain {
		if t.matches(c) && (i > 0 || c.IsCA) {
			roots.AddCert(c)
			found = true
		}
		if i > 0 {
			between.AddCert(c)
		}
	}
	if t.Selector == 0 && t.Matching == 0 {
		if c, err := x509.ParseCertificate(t.Data); err == nil {
			roots.AddCert(c)
			found = true
		}
	}
	if !found {
		return errors.New("the authority is not in the host's chain")
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err = chain[0].VerifyHostname(name); err == nil {
			return nil
		}
	}
	return err
}
