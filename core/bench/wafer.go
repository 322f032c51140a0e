package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const password = "benchmark"

// policyFile is the policy that is measured, relative to the repository.
const policyFile = "policies/inbound.hcl"

// waferServer is a running wafer.
type waferServer struct {
	server
	binary, config string
	pid            int
	doors          map[string]string // listener to address
	names          *nameServer
}

// status is what `wafer status -json` says, as far as we need it.
type status struct {
	Listeners []struct {
		Name    string `json:"name"`
		Address string `json:"address"`
		Panics  uint64 `json:"panics"`
	} `json:"listeners"`
	Checks map[string]struct {
		Asked  uint64 `json:"asked"`
		Refuse uint64 `json:"refuse"`
		Errors uint64 `json:"errors"`
	} `json:"checks"`
}

// waferConfig is the configuration: limits that one load generator would meet
// are lifted, nothing else differs from the defaults but the ports.
const waferConfig = `hostname = "mx.example.test"
state    = "state"
resolvers = ["%s"]
%s
tls {
  cert = "cert.pem"
  key  = "key.pem"
}
domain "example.test" {
  maildir   = "mail/%%d/%%n"
  users     = "users"
  separator = "+"
}
limits {
  connections_per_client = 100000
  connection_rate        = 1000000
  connections_per_user   = 100000
  connections            = 100000
  idle                   = "1h"
}
run_as {
  allow_root = true
}
listener "mx" {
  profile = "mx"
  address = "127.0.0.1:0"
}
listener "imap" {
  profile = "imap"
  address = "127.0.0.1:0"
  allow_plaintext_auth_on_loopback = true
}
listener "imaps" {
  profile = "imaps"
  address = "127.0.0.1:0"
}
listener "pop3" {
  profile = "pop3"
  address = "127.0.0.1:0"
  allow_plaintext_auth_on_loopback = true
}
`

// startWafer starts the binary in dir, with the policies or without, and with more
// of the configuration if there is more to say.
func startWafer(ctx context.Context, binary, dir, name string, policies bool, more ...string) (*waferServer, error) {
	w := &waferServer{binary: binary, config: filepath.Join(dir, "config.hcl")}
	w.name, w.mail, w.log = name, filepath.Join(dir, "mail", domain), filepath.Join(dir, "log")
	var err error
	if w.names, err = startNames(); err != nil {
		return nil, err
	}
	if err := w.prepare(dir, policies, strings.Join(more, "")); err != nil {
		return nil, err
	}
	w.meter = newMeter(name)
	cmd := w.meter.command(binary, "run", "-c", w.config)
	detach(cmd)
	log, err := os.Create(w.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.pid, w.meter.root = cmd.Process.Pid, cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	w.idle = func() bool { return true }
	w.sound = func() error { return w.check(policies) }
	w.stop = func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case err := <-ended:
			return errors.Join(err, w.names.stop(), w.meter.close(context.Background()))
		case <-time.After(40 * time.Second):
			return errors.Join(errors.New("wafer did not stop within 40 seconds"), cmd.Process.Kill(), <-ended)
		}
	}
	if err := w.ready(ctx, ended); err != nil {
		return nil, err
	}
	return w, nil
}

// prepare writes everything that the server reads.
func (w *waferServer) prepare(dir string, policies bool, more string) error {
	if err := os.MkdirAll(w.mail, 0o755); err != nil {
		return err
	}
	line := ""
	if policies {
		line = `policies = "policies"`
		b, err := os.ReadFile(policyFile)
		if err != nil {
			return fmt.Errorf("%w (run this from the top of the repository)", err)
		}
		if b, err = strict(b); err != nil {
			return err
		}
		if err := os.Mkdir(filepath.Join(dir, "policies"), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "policies", "inbound.hcl"), b, 0o644); err != nil {
			return err
		}
	}
	var users bytes.Buffer
	for n := range boxes {
		fmt.Fprintf(&users, "u%d@%s:{PLAIN}%s\n", n, domain, password)
	}
	cert, key, err := certificate()
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{
		"config.hcl": fmt.Appendf(nil, waferConfig, w.names.address, line+more),
		"users":      users.Bytes(),
		"cert.pem":   cert,
		"key.pem":    key,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

var (
	exemptNetworks = regexp.MustCompile(`(?m)^\s*networks\s*=.*\n`)
	rateLimit      = regexp.MustCompile(`\blimit\s*=\s*\d+`)
	spfConfig      = regexp.MustCompile(`(?m)^(\s*with\s*=\s*\{ )(identities\s*=)`)
)

// strict changes a policy so that it judges loopback clients too, and lets
// through as many as come.
func strict(b []byte) ([]byte, error) {
	if !exemptNetworks.Match(b) || !rateLimit.Match(b) || !spfConfig.Match(b) {
		return nil, fmt.Errorf("%s has no exempt networks, rate limit or SPF any more; the benchmark must be told how to arrange it", policyFile)
	}
	b = exemptNetworks.ReplaceAll(b, nil)
	b = spfConfig.ReplaceAll(b, []byte("${1}skip = [], ${2}")) // loopback is not looked up otherwise
	return rateLimit.ReplaceAll(b, []byte("limit = 1000000")), nil
}

// ready waits until the server tells its addresses.
func (w *waferServer) ready(ctx context.Context, ended chan error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		st, err := w.status(ctx)
		if err == nil && len(st.Listeners) >= 3 {
			w.doors = map[string]string{}
			for _, l := range st.Listeners {
				w.doors[l.Name] = l.Address
			}
			w.smtp = w.doors["mx"]
			return answers(ctx, w.smtp)
		}
		select {
		case err := <-ended:
			return fmt.Errorf("wafer ended at once: %w%s", err, tail(w.log))
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wafer does not serve: %w%s", err, tail(w.log)), w.stop())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// status asks the server.
func (w *waferServer) status(ctx context.Context) (*status, error) {
	b, err := exec.CommandContext(ctx, w.binary, "status", "--json", "-c", w.config).Output()
	if err != nil {
		return nil, err
	}
	st := &status{}
	return st, json.Unmarshal(b, st)
}

// check makes sure that what was measured is what the report says.
func (w *waferServer) check(policies bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	st, err := w.status(ctx)
	if err != nil {
		return err
	}
	for _, l := range st.Listeners {
		if l.Panics > 0 {
			return fmt.Errorf("%s: %d panics on %s%s", w.name, l.Panics, l.Name, tail(w.log))
		}
	}
	if policies && len(st.Checks) == 0 {
		return fmt.Errorf("%s: no check is known", w.name)
	}
	for name, c := range st.Checks {
		if c.Refuse > 0 || c.Errors > 0 || c.Asked == 0 && !strings.HasSuffix(name, "/recipient") { // whose when spares local ones
			return fmt.Errorf("%s: check %s was asked %d times, refused %d, failed %d", w.name, name, c.Asked, c.Refuse, c.Errors)
		}
	}
	return nil
}

// certificate makes a self-signed one, as PEM.
func certificate() (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"mx.example.test"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(48 * time.Hour),
	}
	c, err := x509.CreateCertificate(rand.Reader, t, t, &k.PublicKey, k)
	if err != nil {
		return nil, nil, err
	}
	d, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: d}), nil
}
