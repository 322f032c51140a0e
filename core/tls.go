package core

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/mail"
)

// certificates answers TLS handshakes by the name that the client asks for.
type certificates struct {
	main   *tls.Certificate
	byName map[string]*tls.Certificate // lower case
}

// pair names the files of one certificate.
type pair struct{ cert, key string }

// readCertificates reads the certificates that a configuration names; nil means
// that it has none. Keys are often the superuser's alone, so this comes before
// his rights are given up.
func readCertificates(c *config.Config) (*certificates, error) {
	if c.TLS == nil {
		return nil, nil
	}
	names := map[string]pair{}
	for _, n := range c.TLS.Names {
		names[n.Name] = pair{n.Cert, n.Key}
	}
	certs, err := loadCertificates(pair{c.TLS.Cert, c.TLS.Key}, names)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.TLS.Where, err)
	}
	return certs, nil
}

// loadCertificates reads the main certificate and those for other names.
func loadCertificates(main pair, names map[string]pair) (*certificates, error) {
	c := &certificates{byName: map[string]*tls.Certificate{}}
	load := func(p pair) (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(p.cert, p.key)
		if err != nil {
			return nil, fmt.Errorf("load certificate %s with key %s: %w", p.cert, p.key, err)
		}
		return &cert, nil
	}
	var err error
	if c.main, err = load(main); err != nil {
		return nil, err
	}
	for name, p := range names {
		if c.byName[mail.DomainKey(name)], err = load(p); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// pick returns the certificate for a client hello: the named one, the wildcard
// one of the name's parent, else the main one. A client that names a host that
// we do not know gets the main certificate rather than an alert: an MX is often
// reached by names that its owner never thought of.
func (c *certificates) pick(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(hello.ServerName)
	if cert := c.byName[name]; cert != nil {
		return cert, nil
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		if cert := c.byName["*."+parent]; cert != nil {
			return cert, nil
		}
	}
	return c.main, nil
}

// isOf reports whether these are the certificates that c names, as far as that can be
// told without the keys.
func (c *certificates) isOf(now *config.Config) bool {
	if c == nil || now.TLS == nil || len(now.TLS.Names) != len(c.byName) {
		return false
	}
	same := func(cert *tls.Certificate, file string) bool {
		b, err := os.ReadFile(file)
		if err != nil || cert == nil {
			return false
		}
		block, _ := pem.Decode(b)
		return block != nil && len(cert.Certificate) > 0 && bytes.Equal(block.Bytes, cert.Certificate[0])
	}
	for _, n := range now.TLS.Names {
		if !same(c.byName[mail.DomainKey(n.Name)], n.Cert) {
			return false
		}
	}
	return same(c.main, now.TLS.Cert)
}

// serials are the serial numbers of all certificates, for people to tell them apart.
func (c *certificates) serials() string {
	if c == nil {
		return ""
	}
	all := []string{serial(c.main)}
	for _, cert := range c.byName {
		all = append(all, serial(cert))
	}
	slices.Sort(all[1:])
	return strings.Join(all, ",")
}

func serial(cert *tls.Certificate) string {
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return "unknown"
	}
	return leaf.SerialNumber.Text(16)
}
