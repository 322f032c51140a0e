package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/xdg-go/scram"
)

// certificate makes one for name, signed by key itself.
func certificate(t *testing.T, name string, key crypto.Signer) tls.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func elliptical(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// shake does a handshake between TLSServer and a client on loopback.
func shake(t *testing.T, server, client *tls.Config) (ours Channel, theirs tls.ConnectionState) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	got := make(chan Channel, 1)
	go func() {
		defer close(got)
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		tc := TLSServer(nc, server)
		if tc.Handshake() == nil {
			_, _ = tc.Write([]byte("x")) // brings the session ticket
			got <- ChannelOf(tc)
			_, _ = tc.Read(make([]byte, 1)) // until the client has what it wants
		}
	}()
	nc, err := tls.Dial("tcp", ln.Addr().String(), client)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = nc.Read(make([]byte, 1))
	ours = <-got
	theirs = nc.ConnectionState()
	_ = nc.Close()
	<-got
	return ours, theirs
}

// TestChannelOf compares our end with the client's, which the library computes.
func TestChannelOf(t *testing.T) {
	a, b := certificate(t, "a.test", elliptical(t, elliptic.P256())), certificate(t, "b.test", elliptical(t, elliptic.P384()))
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ed := certificate(t, "a.test", edKey)
	for _, row := range []struct {
		name     string
		server   *tls.Config
		sni      string
		version  uint16
		shown    []byte // certificate
		endPoint bool
	}{
		{"1.3", &tls.Config{Certificates: []tls.Certificate{a}}, "a.test", tls.VersionTLS13, a.Certificate[0], true},
		{"1.2", &tls.Config{Certificates: []tls.Certificate{a}}, "a.test", tls.VersionTLS12, a.Certificate[0], true},
		{"by name", &tls.Config{Certificates: []tls.Certificate{a, b}}, "b.test", tls.VersionTLS13, b.Certificate[0], true},
		{"no such name", &tls.Config{Certificates: []tls.Certificate{a, b}}, "c.test", tls.VersionTLS13, a.Certificate[0], true},
		{"GetCertificate", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &b, nil }}, "", tls.VersionTLS13, b.Certificate[0], true},
		{"GetCertificate without a name", &tls.Config{Certificates: []tls.Certificate{a}, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &b, nil }}, "", tls.VersionTLS13, a.Certificate[0], true},
		{"GetCertificate that does not know", &tls.Config{Certificates: []tls.Certificate{a}, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}, "x.test", tls.VersionTLS13, a.Certificate[0], true},
		{"GetConfigForClient", &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{Certificates: []tls.Certificate{b}}, nil
		}}, "a.test", tls.VersionTLS13, b.Certificate[0], true},
		{"Ed25519", &tls.Config{Certificates: []tls.Certificate{ed}}, "a.test", tls.VersionTLS13, ed.Certificate[0], false},
	} {
		t.Run(row.name, func(t *testing.T) {
			ours, theirs := shake(t, TLSConfig(row.server), &tls.Config{InsecureSkipVerify: true, ServerName: row.sni, MaxVersion: row.version})
			if !bytes.Equal(theirs.PeerCertificates[0].Raw, row.shown) {
				t.Error("another certificate was shown")
			}
			if want, err := scram.NewTLSExporterBinding(&theirs); err != nil || !bytes.Equal(ours.Exporter, want.Data) {
				t.Errorf("exporter %x, the client's %x, %v", ours.Exporter, want.Data, err)
			}
			if !row.endPoint {
				if ours.EndPoint != nil {
					t.Errorf("end point %x", ours.EndPoint)
				}
				return
			}
			if want, err := scram.NewTLSServerEndpointBinding(&theirs); err != nil || !bytes.Equal(ours.EndPoint, want.Data) {
				t.Errorf("end point %x, the client's %x, %v", ours.EndPoint, want.Data, err)
			}
		})
	}
}

// TestChannelResumed: a resumed connection shows no certificate, and still has
// its exporter; the copy of the configuration keeps its ticket keys.
func TestChannelResumed(t *testing.T) {
	server := TLSConfig(&tls.Config{Certificates: []tls.Certificate{certificate(t, "a.test", elliptical(t, elliptic.P256()))}})
	client := &tls.Config{InsecureSkipVerify: true, ServerName: "a.test", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	_, _ = shake(t, server, client)
	ours, theirs := shake(t, server, client)
	if !theirs.DidResume {
		t.Fatal("the session was not resumed")
	}
	want, err := scram.NewTLSExporterBinding(&theirs)
	if err != nil || !bytes.Equal(ours.Exporter, want.Data) || ours.EndPoint != nil {
		t.Errorf("%+v, want %x, %v", ours, want.Data, err)
	}
}

func TestChannelOfOthers(t *testing.T) {
	if c := ChannelOf(nil); c.Bindable() {
		t.Errorf("%+v", c)
	}
	if c := ChannelOf(&net.TCPConn{}); c.Bindable() {
		t.Errorf("%+v", c)
	}
	if TLSConfig(nil) != nil {
		t.Error("a configuration from nothing")
	}
}
