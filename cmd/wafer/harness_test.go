package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/admin"
)

// binary is the server under test, built once by TestMain.
var binary string

// TestMain builds the plugins and the binary. WAFER_RACE=1 builds it with the
// race detector, which makes the memory figures meaningless.
func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "end-to-end tests:", err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "wafer-e2e")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if make, err := exec.LookPath("make"); err == nil {
		if out, err := exec.Command(make, "-C", "../..", "plugins").CombinedOutput(); err != nil {
			return 0, fmt.Errorf("make plugins: %w\n%s", err, out)
		}
	}
	// What commands compile is kept for the next one.
	if err := os.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache")); err != nil {
		return 0, err
	}
	binary = filepath.Join(dir, "wafer")
	args := []string{"build", "-o", binary}
	if os.Getenv("WAFER_RACE") != "" {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build wafer: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// The name of each world's server and domain, and the password of its users.
const (
	testHost     = "mx.example.test"
	testDomain   = "example.test"
	testPassword = "correct horse"
)

// patience bounds every wait of these tests for something that must happen.
const patience = 60 * time.Second

// world is a folder with everything that a server needs. Its users are ann and bob.
type world struct {
	t     testing.TB
	dir   string
	trust *x509.CertPool // holds the server's certificate
}

// setup is what the worlds differ in.
type setup struct {
	trusted  string            // trusted_networks, an HCL list; "" is nobody
	top      string            // more of config.hcl
	policies map[string]string // file name to HCL; none means no policies folder
	users    []string          // besides ann and bob
	plain    bool              // passwords are taken without TLS
}

// newWorld writes the folder.
func newWorld(t testing.TB, s setup) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	cert, key, pool, err := makePair(testHost)
	if err != nil {
		t.Fatal(err)
	}
	w.trust = pool
	w.write("cert.pem", string(cert))
	w.write("key.pem", string(key))
	var users strings.Builder
	for _, name := range append([]string{"ann", "bob"}, s.users...) {
		fmt.Fprintf(&users, "%s:{PLAIN}%s\n", name, testPassword)
	}
	w.write("users", users.String())
	for name, text := range s.policies {
		w.write("policies/"+name, text)
	}
	w.write("config.hcl", worldConfig(s))
	return w
}

// worldConfig is a configuration with every door on a free port of loopback.
func worldConfig(s setup) string {
	var b strings.Builder
	fmt.Fprintf(&b, "hostname = %q\nstate = \"state\"\n", testHost)
	if s.policies != nil {
		b.WriteString("policies = \"policies\"\n")
	}
	if s.trusted != "" {
		fmt.Fprintf(&b, "trusted_networks = %s\n", s.trusted)
	}
	b.WriteString(s.top)
	b.WriteString(`
tls {
  cert = "cert.pem"
  key  = "key.pem"
}
domain "example.test" {
  maildir   = "mail/%d/%n"
  users     = "users"
  separator = "+"
  aliases   = { postmaster = ["ann"] }
}
run_as {
  allow_root = true
}
`)
	for _, profile := range []string{"mx", "submission", "submissions", "imap", "imaps", "pop3", "pop3s"} {
		fmt.Fprintf(&b, "listener %q {\n  profile = %q\n  address = \"127.0.0.1:0\"\n", profile, profile)
		if s.plain && (profile == "submission" || profile == "imap" || profile == "pop3") {
			b.WriteString("  allow_plaintext_auth_on_loopback = true\n")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// makePair makes a self-signed certificate, its key, and a pool that trusts it.
func makePair(host string) (cert, key []byte, pool *x509.CertPool, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	c := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: host},
		DNSNames:              []string{host, "localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &private.PublicKey, private)
	if err != nil {
		return nil, nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, nil, err
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return cert, key, pool, nil
}

// path is the path of a file of the world.
func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// write makes or replaces a file of the world.
func (w *world) write(name, text string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(w.path(name)), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.path(name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// maildir is the Maildir of a user.
func (w *world) maildir(user string) string { return w.path("mail/" + testDomain + "/" + user) }

// tls is the configuration of a client that believes in the world's certificate.
func (w *world) tls() *tls.Config {
	return &tls.Config{ServerName: testHost, RootCAs: w.trust}
}

// run executes wafer with args in the world's folder, giving it stdin.
func (w *world) run(stdin string, args ...string) (out string, code int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = w.dir
	cmd.Stdin = strings.NewReader(stdin)
	b, err := cmd.CombinedOutput()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		w.t.Fatalf("wafer %s: %v", strings.Join(args, " "), err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// server is a running wafer process.
type server struct {
	t    testing.TB
	w    *world
	cmd  *exec.Cmd
	log  *buffer
	done chan struct{} // closed when the process has ended
	shot bool          // by the test itself, so that its log explains nothing
	addr map[string]string
}

// buffer is a bytes.Buffer for two goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// launch starts the process without waiting for it to be ready. It is killed
// at the end of the test, if it still runs.
func (w *world) launch(args ...string) *server {
	w.t.Helper()
	s := &server{t: w.t, w: w, log: &buffer{}, done: make(chan struct{})}
	s.cmd = exec.Command(binary, append([]string{"run", "-c", "config.hcl"}, args...)...)
	s.cmd.Dir = w.dir
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(s.done)
		_ = s.cmd.Wait() // the state is asked for where it matters
	}()
	w.t.Cleanup(func() {
		shot := s.shot
		s.kill()
		if log := s.log.String(); strings.Contains(log, "DATA RACE") { // with WAFER_RACE
			w.t.Errorf("the server has a race:\n%.8000s", log[strings.Index(log, "WARNING: DATA RACE"):])
		}
		if w.t.Failed() && !shot {
			w.t.Logf("log of the server (its end):\n%s", tail(s.log.String(), 6000))
		}
	})
	return s
}

// start launches the server and waits until it is ready.
func (w *world) start(args ...string) *server {
	w.t.Helper()
	s := w.launch(args...)
	s.await()
	return s
}

// await waits until the control socket answers for this process, and learns
// the addresses.
func (s *server) await() {
	s.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for {
		if st, err := s.ask(); err == nil && st.PID == s.cmd.Process.Pid {
			s.addr = map[string]string{}
			for _, l := range st.Listeners {
				s.addr[l.Name] = l.Address
			}
			return
		}
		select {
		case <-s.done:
			s.t.Fatalf("the server ended at its start: %s\n%s", s.cmd.ProcessState, s.log)
		case <-limit:
			s.t.Fatalf("the server is not ready after %s\n%s", patience, s.log)
		case <-tick.C:
		}
	}
}

// ask asks the server for its status.
func (s *server) ask() (admin.Status, error) {
	var st admin.Status
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b, err := admin.Ask(ctx, s.w.path("state"), "/status")
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(b, &st)
}

// status is ask for a server that must answer.
func (s *server) status() admin.Status {
	s.t.Helper()
	st, err := s.ask()
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// until polls the status until it satisfies ok, and fails the test with what
// after a while.
func (s *server) until(what string, ok func(admin.Status) bool) admin.Status {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for {
		st := s.status()
		if ok(st) {
			return st
		}
		select {
		case <-limit:
			b, _ := json.MarshalIndent(st, "", "  ") // of a struct without surprises
			s.t.Errorf("%s: not within %s:\n%s", what, patience, b)
			return st
		case <-tick.C:
		}
	}
}

// kill ends the process as a power cut would, but for the page cache.
func (s *server) kill() {
	s.shot = true
	_ = s.cmd.Process.Signal(syscall.SIGKILL) // it may have ended
	<-s.done
}

// term sends SIGTERM.
func (s *server) term() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
}

// ended waits for the end of the process, which must be a good one.
func (s *server) ended() {
	s.t.Helper()
	select {
	case <-s.done:
		if !s.cmd.ProcessState.Success() {
			s.t.Errorf("the server ended with %s", s.cmd.ProcessState)
		}
	case <-time.After(patience):
		s.t.Errorf("the server has not ended %s after SIGTERM", patience)
		s.kill()
	}
}

// stop ends the server in good order.
func (s *server) stop() {
	s.t.Helper()
	s.term()
	s.ended()
}

// memory is the resident set of the process in octets.
func (s *server) memory() int64 {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return n << 10
		}
	}
	s.t.Fatalf("no VmRSS in /proc/%d/status", s.cmd.Process.Pid)
	return 0
}

// tail is the end of text, at most n octets.
func tail(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return "…" + text[len(text)-n:]
}
