package pop3d

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/maildir"
)

// house is a server with one user, ann@x.test, whose password is "secret".
type house struct {
	*Server
	t    *testing.T
	addr string
	mail string // path of her Maildir
	pool *maildir.Pool
	cert string // path of the certificate, PEM
	log  *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// users has one record, which costs nothing to check.
type users map[string]string

func (u users) Lookup(user string) (auth.Record, error) {
	if h, ok := u[strings.ToLower(user)]; ok {
		return auth.Record{User: strings.ToLower(user), Hash: h}, nil
	}
	return auth.Record{}, auth.ErrNoUser
}

func (u users) Decoy(string) string { return "{PLAIN}nobody's" }

func open(t *testing.T, change func(c *Config)) *house {
	t.Helper()
	h := &house{t: t, mail: filepath.Join(t.TempDir(), "ann"), log: new(syncBuffer)}
	h.pool = maildir.NewPool(maildir.Options{UID: -1, GID: -1, Sync: func(string) error { return nil }})
	config, cert := certificate(t)
	h.cert = cert
	c := Config{
		Hostname: "mail.x.test",
		TLS:      config,
		Auth: auth.NewService(auth.Config{
			Users:    users{"ann@x.test": "{PLAIN}secret", "spacy@x.test": "{PLAIN} a  b ", "jürgen@x.test": "{PLAIN}schlüssel"},
			Throttle: auth.NewThrottle(auth.ThrottleOptions{Wait: func(context.Context, time.Duration) error { return nil }}),
		}),
		AuthLoopback: true,
		Mailbox:      func(context.Context, string) (*maildir.Store, error) { return h.pool.Open(h.mail) },
		Logger:       slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&c)
	}
	srv, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	h.Server = srv
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if n := srv.Stats().Open; n != 0 {
			t.Errorf("%d sessions are left", n)
		}
		if srv.Stats().Panics > 0 && !strings.Contains(t.Name(), "Panic") {
			t.Errorf("a session panicked:\n%s", h.log)
		}
		if err := h.pool.Close(); err != nil {
			t.Error(err)
		}
		if strings.Contains(h.log.String(), "secret") {
			t.Errorf("the log has the password:\n%s", h.log)
		}
	})
	return h
}

func certificate(t *testing.T) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, path
}

// deliver puts a message into new/, with the line ends that it has.
func (h *house) deliver(name, text string) {
	h.t.Helper()
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(h.mail, sub), 0o700); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(h.mail, "new", name), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// files counts what is in cur and new.
func (h *house) files() int {
	h.t.Helper()
	n := 0
	for _, sub := range []string{"cur", "new"} {
		names, err := os.ReadDir(filepath.Join(h.mail, sub))
		if err != nil && !os.IsNotExist(err) {
			h.t.Fatal(err)
		}
		n += len(names)
	}
	return n
}

// client is the other end of a session.
type client struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// dial connects and reads the greeting.
func (h *house) dial() *client {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = conn.Close() })
	c := &client{t: h.t, conn: conn, r: bufio.NewReader(conn)}
	c.expect("+OK mail.x.test")
	return c
}

// login is dial and a login as ann.
func (h *house) login() *client {
	h.t.Helper()
	c := h.dial()
	c.do("USER ann@x.test", "+OK")
	c.do("PASS secret", "+OK")
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) line() string {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("read reply: %v after %q", err, line)
	}
	return strings.TrimSuffix(line, "\r\n")
}

func (c *client) expect(prefix string) string {
	c.t.Helper()
	line := c.line()
	if !strings.HasPrefix(line, prefix) {
		c.t.Fatalf("reply %q, want %q", line, prefix)
	}
	return line
}

func (c *client) do(command, prefix string) string {
	c.t.Helper()
	c.send(command + "\r\n")
	line := c.line()
	if !strings.HasPrefix(line, prefix) {
		c.t.Fatalf("%s: reply %q, want %q", command, line, prefix)
	}
	return line
}

// multi sends a command and returns the lines of its reply, with dots removed.
func (c *client) multi(command string) []string {
	c.t.Helper()
	c.do(command, "+OK")
	return c.rest()
}

func (c *client) rest() []string {
	c.t.Helper()
	var lines []string
	for {
		line := c.line()
		if line == "." {
			return lines
		}
		lines = append(lines, strings.TrimPrefix(line, "."))
	}
}

// closed checks that the server has closed the connection.
func (c *client) closed() {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if line, err := c.r.ReadString('\n'); err == nil || os.IsTimeout(err) {
		c.t.Errorf("the connection is open: %q, %v", line, err)
	}
}

func (c *client) startTLS() {
	c.t.Helper()
	c.do("STLS", "+OK")
	tc := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.conn, c.r = tc, bufio.NewReader(tc)
}

// crlf turns LF into CRLF.
func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func message(n int) string {
	return crlf(fmt.Sprintf("From: a@x.test\nSubject: message %d\n\nline 1\n.line 2\n..\nline 4\n", n))
}
