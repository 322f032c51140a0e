package smtpd

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
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// TestMain fails when a goroutine of a server outlives the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	deadline := time.Now().Add(5 * time.Second)
	left := leaked()
	for ; left != "" && time.Now().Before(deadline); left = leaked() {
		runtime.Gosched()
	}
	if code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s", left)
		code = 1
	}
	os.Exit(code)
}

// leaked returns the stacks of goroutines that run this package's methods.
func leaked() string {
	buf := make([]byte, 4<<20)
	var left []string
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "smtpd.(*") {
			left = append(left, stack)
		}
	}
	return strings.Join(left, "\n\n")
}

// message is what a test courier took.
type message struct {
	env   mail.Envelope
	text  string
	trace string
	d     Disposition
}

// courier keeps messages in memory. The functions override what it does.
type courier struct {
	recipient func(env *mail.Envelope, to mail.Recipient) mail.Status
	begin     func() error
	write     func(p []byte) error
	commit    func(env *mail.Envelope) ([]mail.Status, error)
	blackhole bool // count octets only

	mu       sync.Mutex
	messages []message
	aborted  int
	octets   int64
	largest  int
}

func (c *courier) Recipient(_ context.Context, env *mail.Envelope, to mail.Recipient) mail.Status {
	if c.recipient != nil {
		return c.recipient(env, to)
	}
	return mail.Status{}
}

func (c *courier) Begin(_ context.Context, env *mail.Envelope) (Draft, error) {
	if c.begin != nil {
		if err := c.begin(); err != nil {
			return nil, err
		}
	}
	return &draft{c: c, env: env}, nil
}

func (c *courier) taken() []message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.messages
}

type draft struct {
	c    *courier
	env  *mail.Envelope
	b    bytes.Buffer
	done bool
}

func (d *draft) Write(p []byte) (int, error) {
	if d.c.write != nil {
		if err := d.c.write(p); err != nil {
			return 0, err
		}
	}
	if d.c.blackhole {
		return len(p), nil
	}
	d.c.mu.Lock()
	d.c.largest = max(d.c.largest, len(p))
	d.c.octets += int64(len(p))
	d.c.mu.Unlock()
	return d.b.Write(p)
}

func (d *draft) Content() policy.Content { return nil }

func (d *draft) Commit(_ context.Context, trace []byte, disp Disposition) ([]mail.Status, error) {
	if d.done {
		return nil, errors.New("commit after abort")
	}
	d.done = true
	if d.c.commit != nil {
		if st, err := d.c.commit(d.env); st != nil || err != nil {
			return st, err
		}
	}
	if d.c.blackhole {
		return make([]mail.Status, len(d.env.Rcpts)), nil
	}
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	d.c.messages = append(d.c.messages, message{*d.env, d.b.String(), string(trace), disp})
	return make([]mail.Status, len(d.env.Rcpts)), nil
}

func (d *draft) Abort() {
	if d.done {
		return
	}
	d.done = true
	d.c.mu.Lock()
	d.c.aborted++
	d.c.mu.Unlock()
}

// script is a policy that answers with ask, and remembers what it was asked.
type script struct {
	ask func(ev *policy.Event) policy.Decision

	mu     sync.Mutex
	events []policy.Event
	resets int
}

func (p *script) Ask(_ context.Context, ev *policy.Event) policy.Decision {
	p.mu.Lock()
	p.events = append(p.events, *ev)
	p.mu.Unlock()
	if p.ask == nil {
		return policy.Decision{}
	}
	return p.ask(ev)
}

func (p *script) Overruled(*policy.Event, mail.Status) (policy.Decision, bool) {
	return policy.Decision{}, false
}

func (p *script) Reset() {
	p.mu.Lock()
	p.resets++
	p.mu.Unlock()
}

func (p *script) Active(policy.Stage) bool { return true }
func (p *script) Answered()                {}

func (p *script) stages() []policy.Stage {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []policy.Stage
	for _, ev := range p.events {
		out = append(out, ev.Stage)
	}
	return out
}

// users is a password file with one password for everybody.
type users struct{}

func (users) Lookup(user string) (auth.Record, error) {
	if user == "alice@local.example" || user == "bob@local.example" {
		return auth.Record{User: user, Hash: "{PLAIN}wonderland"}, nil
	}
	return auth.Record{}, auth.ErrNoUser
}

// Decoy keeps tests with unknown users short.
func (users) Decoy(string) string { return "{PLAIN}nobody's" }

// heard are copies of the events so far.
func (p *script) heard() []policy.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]policy.Event(nil), p.events...)
}

// impatient is a service whose throttle counts and does not wait.
func impatient(u auth.Users) *auth.Service {
	return auth.NewService(auth.Config{Users: u, Throttle: auth.NewThrottle(auth.ThrottleOptions{
		Wait: func(context.Context, time.Duration) error { return nil },
	})})
}

// house is a server with everything a test may look at.
type house struct {
	t       testing.TB
	srv     *Server
	addr    string
	courier *courier
	policy  *script
	judge   func(Rules) judge // nil: policy
	log     *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// quick are limits that do not keep a test waiting.
func quick() Limits {
	return Limits{ErrorDelay: time.Nanosecond, Linger: 50 * time.Millisecond}
}

// open starts a server on loopback. change may be nil.
func open(t testing.TB, profile Profile, change func(*Config, *house)) *house {
	t.Helper()
	h := &house{t: t, courier: &courier{}, policy: &script{}, log: &logBuffer{}}
	c := Config{
		Profile:  profile,
		Hostname: "mx.local.example",
		Limits:   quick(),
		Registry: NewRegistry(RegistryOptions{PerClient: 1 << 20, Rate: 1 << 20, Total: 1 << 20}),
		Logger:   slog.New(slog.NewTextHandler(h.log, nil)),
	}
	if profile == Submissions {
		c.TLS = testTLS(t)
	}
	if profile.submits() {
		c.AuthLoopback = true
	}
	if change != nil {
		change(&c, h)
	}
	if c.Begin == nil {
		c.Begin = func(netip.Addr) Rules {
			r := Rules{Courier: h.courier}
			if profile.submits() {
				r.Auth = impatient(users{})
			}
			return r
		}
	}
	srv, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	srv.newJudge = h.judge
	if h.judge == nil {
		srv.newJudge = func(Rules) judge { return h.policy }
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.srv, h.addr = srv, ln.Addr().String()
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return h
}

// client is one end of a dialogue.
type client struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
}

const testPatience = 10 * time.Second

func (h *house) dial() *client {
	h.t.Helper()
	nc, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	return newClient(h.t, nc)
}

func newClient(t testing.TB, nc net.Conn) *client {
	c := &client{t, nc, bufio.NewReader(nc)}
	_ = nc.SetDeadline(time.Now().Add(testPatience))
	t.Cleanup(func() { _ = nc.Close() })
	return c
}

// hello dials and gets past EHLO (LHLO).
func (h *house) hello() *client {
	c := h.dial()
	c.want("220 ")
	if h.srv.c.Profile == LMTP {
		c.send("LHLO client.example\r\n")
	} else {
		c.send("EHLO client.example\r\n")
	}
	c.want("250")
	return c
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := c.nc.Write([]byte(s)); err != nil {
		c.t.Fatalf("send %.60q: %v", s, err)
	}
}

// read returns one reply, its lines joined by "\n".
func (c *client) read() (string, error) {
	var lines []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return strings.Join(lines, "\n"), err
		}
		line = strings.TrimSuffix(line, "\r\n")
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// want reads a reply that begins with prefix.
func (c *client) want(prefix string) string {
	c.t.Helper()
	got, err := c.read()
	if err != nil || !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("reply %q (%v), want %q", got, err, prefix)
	}
	return got
}

// do sends lines and wants a reply to each.
func (c *client) do(pairs ...string) {
	c.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		c.send(pairs[i] + "\r\n")
		got, err := c.read()
		if err != nil || !strings.HasPrefix(got, pairs[i+1]) {
			c.t.Fatalf("%.80q: reply %q (%v), want %q", pairs[i], got, err, pairs[i+1])
		}
	}
}

// closed wants the end of the connection.
func (c *client) closed() {
	c.t.Helper()
	if line, err := c.r.ReadString('\n'); err == nil || isTimeout(err) {
		c.t.Fatalf("connection is open: %q, %v", line, err)
	}
}

// startTLS says STARTTLS and does the handshake.
func (c *client) startTLS() {
	c.t.Helper()
	c.do("STARTTLS", "220 ")
	*c = *tlsClient(c.t, c.nc)
}

// tlsClient does a handshake on nc.
func tlsClient(t testing.TB, nc net.Conn) *client {
	t.Helper()
	tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	return &client{t, tc, bufio.NewReader(tc)}
}

var testCert = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "mx.local.example"},
		DNSNames:     []string{"mx.local.example", "localhost"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

func testTLS(t testing.TB) *tls.Config {
	cert, err := testCert()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// until waits for a condition that another goroutine brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testPatience); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
