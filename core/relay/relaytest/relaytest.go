// Package relaytest is an SMTP and LMTP server for tests that does what it is told:
// it refuses, stalls, breaks off and lies at any step, and keeps what it accepted.
//
//	s := relaytest.Start(t, relaytest.Behaviour{Extensions: []string{"PIPELINING"}, Reply: …})
//	… s.Addr() …
//	s.Messages()
//
// # BUGS
//
// It trusts its client to be one under test: lines are not bounded.
package relaytest

import (
	"bufio"
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
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Message is one that the server accepted.
type Message struct {
	From  string // with parameters: "<a@b> SIZE=3"
	Rcpts []string
	Data  string // dots removed, as it came otherwise
	TLS   bool
	Conn  int // number of the connection, from 1
	Helo  string
	BDAT  bool
}

// Behaviour says what a server does. The zero value is a plain server that takes
// everything.
type Behaviour struct {
	Greeting   string   // "220 mx.test ESMTP"
	Extensions []string // of EHLO; STARTTLS is added where TLS is set
	NoEHLO     bool     // EHLO is refused
	LMTP       bool
	TLS        *tls.Config
	// Reply overrides the reply to a command: line is "MAIL FROM:<…>", "RCPT TO:<…>",
	// "DATA", "." for the message, "EHLO …", "STARTTLS", "RSET", … "" keeps the usual
	// reply, "drop" ends the connection, "stall" never answers.
	Reply func(conn int, line string) string
	// After is called with the octets of the message that have come so far; true ends
	// the connection in the middle of it.
	After func(n int) bool
}

// Server is a server that runs until the test ends.
type Server struct {
	t  testing.TB
	ln net.Listener
	b  Behaviour

	mu       sync.Mutex
	conns    int
	open     map[net.Conn]bool
	messages []Message
	lines    []string
	group    sync.WaitGroup
	stop     chan struct{}
}

// Start starts a server on a loopback port, or on the address given.
func Start(t testing.TB, b Behaviour, address ...string) *Server {
	t.Helper()
	network, at := "tcp", "127.0.0.1:0"
	if len(address) > 0 {
		if at = address[0]; strings.HasPrefix(at, "/") {
			network = "unix"
		}
	}
	ln, err := net.Listen(network, at)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, ln: ln, b: b, open: map[net.Conn]bool{}, stop: make(chan struct{})}
	if s.b.Greeting == "" {
		s.b.Greeting = "220 mx.test ESMTP"
	}
	s.group.Go(s.accept)
	t.Cleanup(s.Close)
	return s
}

// Addr is where it listens, the zero value for a Unix socket.
func (s *Server) Addr() netip.AddrPort {
	if a, ok := s.ln.Addr().(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// Messages are those that were accepted so far.
func (s *Server) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Message(nil), s.messages...)
}

// Lines are the commands that came so far, of all connections.
func (s *Server) Lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.lines...)
}

// Conns is how many connections there were.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// Close ends the server and its connections. It may be called again.
func (s *Server) Close() {
	s.mu.Lock()
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	for c := range s.open {
		c.Close() // it is over
	}
	s.mu.Unlock()
	s.ln.Close() // it is over
	s.group.Wait()
}

// Hangup closes all connections, as a server does whose patience ends.
func (s *Server) Hangup() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.Close() // that is what is asked for
	}
}

func (s *Server) accept() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns++
		n := s.conns
		s.open[c] = true
		s.mu.Unlock()
		s.group.Go(func() {
			(&conn{s: s, c: c, n: n, r: bufio.NewReader(c)}).serve()
			c.Close() // it is over
			s.mu.Lock()
			delete(s.open, c)
			s.mu.Unlock()
		})
	}
}

type conn struct {
	s *Server
	c net.Conn
	r *bufio.Reader
	n int
	m Message
}

// answer is what is said to line: the usual, or what the behaviour wants.
func (c *conn) answer(usual, line string) (reply string, good bool) {
	if c.s.b.Reply != nil {
		if r := c.s.b.Reply(c.n, line); r != "" {
			usual = r
		}
	}
	return usual, usual != "" && (usual[0] == '2' || usual[0] == '3')
}

// send writes a reply, or does what it says instead; false ends the connection.
func (c *conn) send(reply string) bool {
	switch reply {
	case "drop":
		return false
	case "stall":
		<-c.s.stop
		return false
	}
	_, err := io.WriteString(c.c, strings.ReplaceAll(reply, "\n", "\r\n")+"\r\n")
	return err == nil
}

func (c *conn) say(usual, line string) bool {
	r, _ := c.answer(usual, line)
	return c.send(r)
}

func (c *conn) serve() {
	if !c.say(c.s.b.Greeting, "") {
		return
	}
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		c.s.mu.Lock()
		c.s.lines = append(c.s.lines, line)
		c.s.mu.Unlock()
		if !c.command(line) {
			return
		}
	}
}

func (c *conn) command(line string) bool {
	verb, arg, _ := strings.Cut(line, " ")
	b := &c.s.b
	switch verb = strings.ToUpper(verb); verb {
	case "EHLO", "LHLO":
		if b.NoEHLO || (verb == "LHLO") != b.LMTP {
			return c.say("502 5.5.1 no "+verb, line)
		}
		c.m.Helo = arg
		lines := append([]string{"mx.test"}, b.Extensions...)
		if b.TLS != nil && !c.m.TLS {
			lines = append(lines, "STARTTLS")
		}
		for i := range lines {
			lines[i] = "250" + map[bool]string{true: " ", false: "-"}[i == len(lines)-1] + lines[i]
		}
		return c.say(strings.Join(lines, "\n"), line)
	case "HELO":
		c.m.Helo = arg
		return c.say("250 mx.test", line)
	case "STARTTLS":
		r, good := c.answer("220 go", line)
		if !c.send(r) {
			return false
		}
		if !good {
			return true
		}
		t := tls.Server(c.c, b.TLS)
		if t.Handshake() != nil {
			return false
		}
		c.c, c.r, c.m.TLS = t, bufio.NewReader(t), true
		return true
	case "AUTH":
		return c.say("235 2.7.0 ok", line)
	case "MAIL":
		c.m.Rcpts, c.m.From = nil, ""
		r, good := c.answer("250 2.1.0 ok", line)
		if good {
			c.m.From = strings.TrimPrefix(line, "MAIL FROM:")
		}
		return c.send(r)
	case "RCPT":
		if c.m.From == "" {
			return c.send("503 5.5.1 MAIL first")
		}
		r, good := c.answer("250 2.1.5 ok", line)
		if good {
			c.m.Rcpts = append(c.m.Rcpts, strings.TrimPrefix(line, "RCPT TO:"))
		}
		return c.send(r)
	case "RSET":
		c.m.From, c.m.Rcpts = "", nil
		return c.say("250 2.0.0 ok", line)
	case "QUIT":
		c.say("221 2.0.0 bye", line)
		return false
	case "DATA":
		if len(c.m.Rcpts) == 0 {
			return c.send("554 5.5.1 no valid recipients")
		}
		r, good := c.answer("354 go", line)
		return c.send(r) && (!good || c.data())
	case "BDAT":
		return c.bdat(arg)
	}
	return c.say("500 5.5.2 what?", line)
}

func (c *conn) data() bool {
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			return c.end(b.String(), false)
		}
		b.WriteString(strings.TrimPrefix(line, "."))
		if c.s.b.After != nil && c.s.b.After(b.Len()) {
			return false
		}
	}
}

func (c *conn) bdat(arg string) bool {
	n, _, _ := strings.Cut(arg, " ")
	size, err := strconv.Atoi(n)
	if err != nil {
		return c.send("501 5.5.4 size?")
	}
	b := make([]byte, size)
	for got := 0; got < size; {
		k, err := c.r.Read(b[got:])
		if err != nil {
			return false
		}
		got += k
		if c.s.b.After != nil && c.s.b.After(got) {
			return false
		}
	}
	if len(c.m.Rcpts) == 0 {
		return c.send("554 5.5.1 no valid recipients")
	}
	return c.end(string(b), true)
}

// end answers a message, and keeps it if the answer is yes.
func (c *conn) end(data string, bdat bool) bool {
	n := 1
	if c.s.b.LMTP {
		n = len(c.m.Rcpts)
	}
	m := c.m
	m.Data, m.Conn, m.BDAT = data, c.n, bdat
	if c.s.b.LMTP {
		m.Rcpts = nil
	}
	for i := range n {
		line := "."
		if c.s.b.LMTP {
			line = ". " + c.m.Rcpts[i]
		}
		r, good := c.answer(fmt.Sprintf("250 2.0.0 queued as %d", c.n), line)
		if good && c.s.b.LMTP {
			m.Rcpts = append(m.Rcpts, c.m.Rcpts[i])
		}
		// What is kept must be there before the client can know.
		if i == n-1 && (c.s.b.LMTP && len(m.Rcpts) > 0 || !c.s.b.LMTP && (good || r == "drop")) {
			c.s.mu.Lock()
			c.s.messages = append(c.s.messages, m)
			c.s.mu.Unlock()
		}
		if !c.send(r) {
			return false
		}
	}
	c.m.From, c.m.Rcpts = "", nil
	return true
}

// Certificate makes a certificate for names and the authority that signed it.
func Certificate(t testing.TB, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	now := time.Now()
	caKey, leafKey := key(), key()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der, caDER}, PrivateKey: leafKey}, pool
}
