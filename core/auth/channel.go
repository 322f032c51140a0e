package auth

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"net"
)

// Channel is what ties a SASL exchange to the TLS connection that it runs on,
// so that nobody in between can pass it on (RFC 5056). The zero value is a
// connection that has nothing of the kind.
type Channel struct {
	Exporter []byte // tls-exporter (RFC 9266), 32 octets; nil if the connection cannot have it
	EndPoint []byte // tls-server-end-point (RFC 5929 §4): digest of the certificate that we showed; nil if unknown
}

// Bindable reports whether an exchange can be tied to the connection.
func (c Channel) Bindable() bool { return len(c.Exporter) > 0 || len(c.EndPoint) > 0 }

// of returns the data of a channel binding type, nil if there is none.
func (c Channel) of(kind string) []byte {
	switch kind {
	case "tls-exporter":
		return c.Exporter
	case "tls-server-end-point":
		return c.EndPoint
	}
	return nil
}

// ChannelOf is the Channel of a connection: of one that TLSServer made all of
// it, of another *tls.Conn the exporter alone, else nothing. The handshake must
// be over.
func ChannelOf(conn net.Conn) Channel {
	tc, ok := conn.(*tls.Conn)
	if !ok {
		return Channel{}
	}
	var c Channel
	st := tc.ConnectionState()
	// Without TLS 1.3 or an extended master secret this fails, and must.
	if b, err := st.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32); err == nil {
		c.Exporter = b
	}
	if w, ok := tc.NetConn().(*witness); ok {
		c.EndPoint = endPoint(w.shown)
	}
	return c
}

// endPoint digests a certificate with the hash of its signature, but SHA-256
// for the broken ones (RFC 5929 §4.1). The rule has no answer for signatures
// without a hash of their own, such as Ed25519's: then it is nil.
func endPoint(cert *tls.Certificate) []byte {
	if cert == nil || len(cert.Certificate) == 0 {
		return nil
	}
	leaf := cert.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil
		}
	}
	switch leaf.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		sum := sha512.Sum384(cert.Certificate[0])
		return sum[:]
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		sum := sha512.Sum512(cert.Certificate[0])
		return sum[:]
	case x509.PureEd25519, x509.UnknownSignatureAlgorithm:
		return nil
	}
	sum := sha256.Sum256(cert.Certificate[0])
	return sum[:]
}

// witness is the socket under a TLS connection. It remembers which certificate
// the handshake showed, which crypto/tls does not tell its server.
type witness struct {
	net.Conn
	shown *tls.Certificate // written by the handshake, read after it
}

// CloseWrite passes on to sockets that have it.
func (w *witness) CloseWrite() error {
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return w.Conn.Close()
}

// TLSServer is tls.Server for connections on which SASL can be bound to the
// certificate, if c comes from TLSConfig.
func TLSServer(conn net.Conn, c *tls.Config) *tls.Conn {
	return tls.Server(&witness{Conn: conn}, c)
}

// TLSConfig returns a copy of c for TLSServer, or nil for nil. Certificates are
// chosen as c would choose them.
func TLSConfig(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	if each := c.GetConfigForClient; each != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			own, err := each(hello)
			if own == nil || err != nil {
				return own, err
			}
			return TLSConfig(own), nil
		}
	}
	certs, get := c.Certificates, c.GetCertificate
	if len(certs) == 0 && get == nil {
		return c // the handshake will say what is missing
	}
	// With no list of its own, crypto/tls asks for every handshake.
	c.Certificates = nil
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := choose(certs, get, hello)
		if w, ok := hello.Conn.(*witness); ok && err == nil {
			w.shown = cert
		}
		return cert, err
	}
	return c
}

// choose picks a certificate in crypto/tls's order.
func choose(certs []tls.Certificate, get func(*tls.ClientHelloInfo) (*tls.Certificate, error), hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if get != nil && (len(certs) == 0 || hello.ServerName != "") {
		if cert, err := get(hello); cert != nil || err != nil || len(certs) == 0 {
			return cert, err
		}
	}
	for i := range certs {
		if len(certs) == 1 || hello.SupportsCertificate(&certs[i]) == nil {
			return &certs[i], nil
		}
	}
	return &certs[0], nil
}
