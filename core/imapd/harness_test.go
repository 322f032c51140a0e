package imapd

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/maildir"
)

const (
	testUser     = "ann@example.org"
	testPassword = "secret word"
)

type users map[string]string

func (u users) Lookup(user string) (auth.Record, error) {
	hash, ok := u[strings.ToLower(user)]
	if !ok {
		return auth.Record{}, auth.ErrNoUser
	}
	return auth.Record{User: user, Hash: hash}, nil
}

// testServer is a server over a real store in a temporary directory.
type testServer struct {
	*Server
	addr string
	dir  string
	pool *maildir.Pool
}

func startServer(t testing.TB, change func(*Config)) *testServer {
	t.Helper()
	ts := &testServer{dir: t.TempDir()}
	ts.pool = maildir.NewPool(maildir.Options{Sync: func(string) error { return nil }, UID: -1, GID: -1, Watch: true})
	c := Config{
		Hostname: "mail.example.org", AuthLoopback: true,
		Auth: auth.NewService(auth.Config{Users: users{testUser: "{PLAIN}" + testPassword, "bob@example.org": "{PLAIN}x"}}),
		Mailbox: func(_ context.Context, user string) (*maildir.Store, error) {
			return ts.pool.Open(filepath.Join(ts.dir, user))
		},
	}
	if change != nil {
		change(&c)
	}
	srv, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ts.Server = srv
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ts.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != ErrClosed {
			t.Errorf("Serve returned %v", err)
		}
		if n := srv.Stats().Panics; n > 0 {
			t.Errorf("%d panics", n)
		}
		if err := ts.pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return ts
}

// client speaks IMAP octet by octet.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	w    io.Writer
	tag  int
}

func (ts *testServer) dial(t testing.TB) *client {
	t.Helper()
	conn, err := net.Dial("tcp", ts.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return newClient(t, conn)
}

func newClient(t testing.TB, conn net.Conn) *client {
	if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &client{t: t, conn: conn, r: bufio.NewReader(conn), w: conn}
}

// login dials, reads the greeting and logs in.
func (ts *testServer) login(t testing.TB) *client {
	t.Helper()
	c := ts.dial(t)
	c.reply()
	c.ok(fmt.Sprintf("LOGIN %s %q", testUser, testPassword))
	return c
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.w, s); err != nil {
		c.t.Fatalf("send %.60q: %v", s, err)
	}
}

var literalEnd = regexp.MustCompile(`\{(\d+)\}\r\n$`)

// next reads one response with its literals, as it came; "" at the end.
func (c *client) next() string {
	c.t.Helper()
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err == io.EOF && b.Len() == 0 && line == "" {
			return ""
		}
		if err != nil {
			c.t.Fatalf("read after %.200q: %v", b.String()+line, err)
		}
		b.WriteString(line)
		m := literalEnd.FindStringSubmatch(line)
		if m == nil {
			return b.String()
		}
		var n int64
		fmt.Sscan(m[1], &n)
		if _, err := io.CopyN(&b, c.r, n); err != nil {
			c.t.Fatalf("read literal of %d octets: %v", n, err)
		}
	}
}

// reply is next without the line end.
func (c *client) reply() string {
	c.t.Helper()
	return strings.TrimSuffix(c.next(), "\r\n")
}

// cmd runs a command and returns its untagged replies and the tagged one
// without the tag.
func (c *client) cmd(line string) (untagged []string, tagged string) {
	c.t.Helper()
	c.tag++
	tag := fmt.Sprintf("t%d", c.tag)
	c.send(tag + " " + line + "\r\n")
	return c.until(tag)
}

func (c *client) until(tag string) (untagged []string, tagged string) {
	c.t.Helper()
	for {
		r := c.reply()
		if rest, ok := strings.CutPrefix(r, tag+" "); ok {
			return untagged, rest
		}
		if r == "" {
			return untagged, ""
		}
		untagged = append(untagged, r)
	}
}

// ok runs a command that must succeed.
func (c *client) ok(line string) []string {
	c.t.Helper()
	untagged, tagged := c.cmd(line)
	if !strings.HasPrefix(tagged, "OK") {
		c.t.Fatalf("%s: %q %s", line, untagged, tagged)
	}
	return untagged
}

// appendMessage stores a message with a synchronising literal.
func (c *client) appendMessage(mailbox, args, msg string) string {
	c.t.Helper()
	c.tag++
	tag := fmt.Sprintf("t%d", c.tag)
	if args != "" {
		args += " "
	}
	c.send(fmt.Sprintf("%s APPEND %s %s{%d}\r\n", tag, mailbox, args, len(msg)))
	for {
		r := c.reply()
		if strings.HasPrefix(r, "+") {
			break
		}
		if strings.HasPrefix(r, tag) {
			return strings.TrimPrefix(r, tag+" ")
		}
	}
	c.send(msg + "\r\n")
	_, tagged := c.until(tag)
	return tagged
}

// literalOf returns the first literal in a response.
func literalOf(t testing.TB, response string) string {
	t.Helper()
	m := regexp.MustCompile(`\{(\d+)\}\r\n`).FindStringSubmatchIndex(response)
	if m == nil {
		t.Fatalf("no literal in %.200q", response)
	}
	var n int
	fmt.Sscan(response[m[2]:m[3]], &n)
	return response[m[1] : m[1]+n]
}

// matchLine compares a reply with a pattern in which "…" stands for anything.
func matchLine(pattern, line string) bool {
	first, rest, more := strings.Cut(pattern, "…")
	if !more {
		return pattern == line
	}
	line, ok := strings.CutPrefix(line, first)
	for ok {
		part, next, more := strings.Cut(rest, "…")
		if !more {
			return strings.HasSuffix(line, part)
		}
		_, line, ok = strings.Cut(line, part)
		rest = next
	}
	return false
}

func testCertificate(t testing.TB) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.example.org"}, DNSNames: []string{"mail.example.org", "localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// outside is a path below the shared test data; the test is skipped without it.
func outside(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join("../../../shared/testdata", name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no test data: %v", err)
	}
	return path
}

// crlf gives a file CRLF line ends.
func crlf(b []byte) string {
	return strings.ReplaceAll(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n", "\r\n")
}
