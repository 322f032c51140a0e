package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/policies"
)

// demoCmd serves a demo from one folder. What is there is kept: a second start
// finds its mail, its user and its password again.
type demoCmd struct {
	Dir string `arg:"" optional:"" default:".demo" help:"Folder of the demo; made if missing."`
}

const (
	demoDomain = "example.test"
	demoUser   = "demo@" + demoDomain
)

// demoConfig uses ports above 1024, so that nobody needs to be root.
var demoConfig = `# The demo of wafer: everything on loopback, everything in this folder.
# The file is yours to change; delete it and the next start writes it anew.

hostname = "mail.example.test"
state    = "state"
policies = "policies"

# Who may skip connection limits and use XCLIENT, to play another client.
trusted_networks = ["127.0.0.0/8", "::1/128"]
xclient_networks = ["127.0.0.0/8", "::1/128"]

tls {
  cert = "cert.pem"
  key  = "key.pem"
}

domain "example.test" {
  maildir   = "mail/%d/%n"
  users     = "users"
  separator = "+"
  aliases = {
    postmaster = ["demo"]
  }
}

# The demo sends nothing away: what is not ours is held. wafer queue list shows it.
transport "kept" {
  protocol = "hold"
}

route "*" {
  transport = "kept"
}

# What checks were asked is kept, so that wafer policy replay can ask others.
tape {
  size = "64MiB"
}

run_as {
  allow_root = true
}

listener "mx" {
  profile = "mx"
  address = "127.0.0.1:2525"
}

listener "submission" {
  profile = "submission"
  address = "127.0.0.1:2587"
}

listener "submissions" {
  profile = "submissions"
  address = "127.0.0.1:2465"
}

listener "imap" {
  profile = "imap"
  address = "127.0.0.1:2143"
}

listener "imaps" {
  profile = "imaps"
  address = "127.0.0.1:2993"
}

listener "pop3" {
  profile = "pop3"
  address = "127.0.0.1:2110"
}

listener "pop3s" {
  profile = "pop3s"
  address = "127.0.0.1:2995"
}
`

// demoHelp is printed when the demo serves.
var demoHelp = template.Must(template.New("demo").Parse(`
wafer serves a demo from {{.Dir}}. Ctrl-C stops it; the next start keeps its mail.

    user      {{.User}}
    password  {{.Password}}

Send a first mail to the MX port, with STARTTLS:

    swaks --server 127.0.0.1:2525 --tls --ehlo client.example.net --from you@example.net --to {{.User}} --header "Subject: first mail"

or through submission, logged in, with curl alone:

    printf 'From: {{.User}}\r\nTo: {{.User}}\r\nSubject: second mail\r\n\r\nhello\r\n' | curl -sS --cacert {{.Dir}}/cert.pem --url smtps://127.0.0.1:2465 -u '{{.User}}:{{.Password}}' --mail-from {{.User}} --mail-rcpt {{.User}} -T -

Read it over IMAP and over POP3:

    curl -sS --cacert {{.Dir}}/cert.pem -u '{{.User}}:{{.Password}}' 'imaps://127.0.0.1:2993/INBOX;MAILINDEX=1'
    curl -sS --cacert {{.Dir}}/cert.pem -u '{{.User}}:{{.Password}}' pop3s://127.0.0.1:2995/1

Watch a policy refuse a client from elsewhere that does not give its full name:

    swaks --server 127.0.0.1:2525 --xclient-addr 192.0.2.1 --xclient-helo laptop --ehlo laptop --from you@example.net --to {{.User}}

Look at the certificate, and at the server:

    openssl s_client -connect 127.0.0.1:2993 -CAfile {{.Dir}}/cert.pem -brief </dev/null
    .build/wafer status -c {{.Dir}}/config.hcl

`))

// Run makes what is missing and serves.
func (c *demoCmd) Run(std streams) error {
	password, err := prepareDemo(c.Dir)
	if err != nil {
		return fmt.Errorf("prepare the demo in %s: %w", c.Dir, err)
	}
	cfg, err := loadConfig(std, filepath.Join(c.Dir, "config.hcl"))
	if err != nil {
		return err
	}
	return serve(std, cfg, false, func(*core.Server) {
		dir := strings.TrimSuffix(c.Dir, "/")
		if err := demoHelp.Execute(std.out, map[string]string{"Dir": dir, "User": demoUser, "Password": password}); err != nil {
			fmt.Fprintln(std.err, "wafer:", err)
		}
	})
}

// prepareDemo makes each file of the demo that is not there yet, and returns
// the user's password.
func prepareDemo(dir string) (password string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := writeNew(filepath.Join(dir, "config.hcl"), []byte(demoConfig)); err != nil {
		return "", err
	}
	if err := copyPolicies(filepath.Join(dir, "policies")); err != nil {
		return "", err
	}
	if err := makeCertificate(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")); err != nil {
		return "", err
	}
	return makeDemoUser(dir)
}

// writeNew writes a file unless it exists.
func writeNew(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

func copyPolicies(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	names, err := fs.Glob(policies.Files, "*.hcl")
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := policies.Files.ReadFile(name)
		if err != nil {
			return err
		}
		if err := writeNew(filepath.Join(dir, name), b); err != nil {
			return err
		}
	}
	return nil
}

// makeCertificate writes a self-signed certificate for the demo's names.
func makeCertificate(certFile, keyFile string) error {
	if _, err := os.Stat(certFile); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	cert := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "mail." + demoDomain},
		DNSNames:              []string{"mail." + demoDomain, "localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(2, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:                  true, // so that clients can be told to trust it
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	_ = os.Remove(keyFile) // without its certificate it is of no use
	if err := writeNew(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})); err != nil {
		return err
	}
	return writeNew(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// makeDemoUser adds the user with a random password, which is kept in
// password.txt so that a second start can print it again.
func makeDemoUser(dir string) (password string, err error) {
	name := filepath.Join(dir, "password.txt")
	if b, err := os.ReadFile(name); err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	password = strings.ToLower(rand.Text()[:16])
	hash, err := auth.Hash("ARGON2ID", password)
	if err != nil {
		return "", err
	}
	users, err := auth.Create(filepath.Join(dir, "users"), auth.Options{Domains: []string{demoDomain}})
	if err != nil {
		return "", err
	}
	set := users.Add
	if users.Has(demoUser) {
		set = users.SetPassword
	}
	if err := set(demoUser, hash); err != nil {
		return "", err
	}
	return password, writeNew(name, []byte(password+"\n"))
}
