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
// The caller must know besides that the host's own name and addresses were signed (RFC
// 7672 §2.2). Only names of the extension subjectAltName count, a common name never: an
// authority does not check it. Of a chain the first 16 certificates are looked at.
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

// maxText is the most characters of a record: more octets than these digits stand for
// do not fit into an answer.
const maxText = 2*65535 + 16

// ParseTLSA reads a record as a zone file has it (RFC 6698 §2.2): "3 1 1 0123…". The
// digits may have spaces between them.
func ParseTLSA(s string) (t TLSA, err error) {
	if len(s) > maxText {
		return t, errors.New("TLSA record: too long")
	}
	words := strings.Fields(s)
	if len(words) < 4 {
		return t, errors.New("a TLSA record has four fields")
	}
	for i, to := range []*uint8{&t.Usage, &t.Selector, &t.Matching} {
		n, err := strconv.ParseUint(words[i], 10, 8)
		if err != nil {
			return t, fmt.Errorf("TLSA record: %.20q is no number of one octet", words[i])
		}
		*to = uint8(n)
	}
	if t.Data, err = hex.DecodeString(strings.Join(words[3:], "")); err != nil {
		return t, fmt.Errorf("TLSA record: %w", err)
	}
	return t, nil
}

// Select returns the records that can be used (RFC 7672 §3.1), and of those that say the
// same in several digests only the strongest (RFC 7671 §9). Records that hold the whole
// thing stay beside digests.
func Select(records []TLSA) (usable []TLSA) {
	type place struct{ usage, selector uint8 }
	best := map[place]uint8{}
	for _, t := range records {
		if p := (place{t.Usage, t.Selector}); t.fits() && t.Matching > best[p] {
			best[p] = t.Matching
		}
	}
	for _, t := range records {
		if t.fits() && (t.Matching == 0 || t.Matching == best[place{t.Usage, t.Selector}]) {
			usable = append(usable, t)
		}
	}
	return usable
}

// fits reports whether the record is one that Verify can do something with.
func (t TLSA) fits() bool {
	switch {
	case t.Usage != 2 && t.Usage != 3, t.Selector > 1:
		return false
	case t.Matching == 1:
		return len(t.Data) == sha256.Size
	case t.Matching == 2:
		return len(t.Data) == sha512.Size
	case t.Matching != 0:
		return false
	case t.Usage == 3:
		return len(t.Data) > 0
	}
	if t.Selector == 0 {
		_, err := x509.ParseCertificate(t.Data)
		return err == nil
	}
	_, err := x509.ParsePKIXPublicKey(t.Data)
	return err == nil
}

// maxChain is how many certificates of a host are looked at.
const maxChain = 16

// Verify reports whether the certificate that the host has shown is one that the
// records stand for. A DANE-EE match asks for neither name nor date (RFC 7672 §3.1.1).
// names are those of which a certificate below a DANE-TA authority must be for one; it
// may have a wildcard for the leftmost label, and it and its authorities must be valid
// at now.
func Verify(records []TLSA, state tls.ConnectionState, names []string, now time.Time) error {
	chain := state.PeerCertificates
	if len(chain) == 0 {
		return errors.New("TLSA: the host has shown no certificate")
	}
	chain = chain[:min(len(chain), maxChain)]
	var authorities []TLSA
	for _, t := range records[:min(len(records), maxRecords)] {
		switch {
		case t.Usage == 3 && t.matches(chain[0]):
			return nil
		case t.Usage == 2:
			authorities = append(authorities, t)
		}
	}
	if len(authorities) == 0 {
		return errors.New("TLSA: no record matches the host's certificate")
	}
	if err := trust(authorities, chain, names, now); err != nil {
		return fmt.Errorf("TLSA: no record matches the host's certificate: %w", err)
	}
	return nil
}

// matches reports whether the record stands for the certificate.
func (t TLSA) matches(c *x509.Certificate) bool {
	of := c.Raw
	switch t.Selector {
	case 0:
	case 1:
		of = c.RawSubjectPublicKeyInfo
	default:
		return false
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

// trust checks the chain against DANE-TA records (RFC 7672 §3.1.2): it must lead from
// the host's certificate to an authority that a record stands for.
func trust(records []TLSA, chain []*x509.Certificate, names []string, now time.Time) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, t := range records {
		for _, c := range t.anchors(chain) {
			roots.AddCert(c)
			found = true
		}
	}
	if !found {
		return errors.New("the authority is not in the host's chain")
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	// A certificate that the authority has made for mail or for clients names what
	// nobody checked against a host: it must be one for servers.
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return err
	}
	err = errors.New("no name is asked for")
	for _, name := range names {
		if err = chain[0].VerifyHostname(name); err == nil {
			return nil
		}
	}
	return err
}

// anchors returns the certificates that may end a chain for this record's sake: those
// of the host's chain that it stands for, the one that it holds whole, and those that
// the key that it holds whole has signed (RFC 7671 §5.2.2, §5.2.3). The host's own
// certificate is none, unless it is an authority's too.
func (t TLSA) anchors(chain []*x509.Certificate) (found []*x509.Certificate) {
	for _, c := range chain {
		if t.matches(c) && (c.IsCA || !c.Equal(chain[0])) {
			found = append(found, c)
		}
	}
	switch {
	case t.Matching != 0 || len(found) > 0:
	case t.Selector == 0:
		if c, err := x509.ParseCertificate(t.Data); err == nil && !c.Equal(chain[0]) {
			found = append(found, c)
		}
	case t.Selector == 1:
		key, err := x509.ParsePKIXPublicKey(t.Data)
		if err != nil {
			return nil
		}
		authority := &x509.Certificate{PublicKey: key}
		for _, c := range chain {
			if authority.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
				found = append(found, c)
			}
		}
	}
	return found
}
