package pop3d

import (
	"bufio"
	"crypto/tls"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTLS(t *testing.T) {
	h := open(t, func(c *Config) { c.AuthLoopback = false })
	h.deliver("1.a.x", message(1))
	c := h.dial()
	capa := c.multi("CAPA")
	if slices.Contains(capa, "USER") || strings.Contains(strings.Join(capa, ","), "SASL") || !slices.Contains(capa, "STLS") {
		t.Errorf("CAPA in the clear = %q", capa)
	}
	for _, cmd := range []string{"USER ann@x.test", "PASS secret", "AUTH PLAIN", "AUTH"} {
		c.do(cmd, "-ERR Say STLS")
	}
	c.startTLS()
	capa = c.multi("CAPA")
	want := []string{"TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER", "UTF8 USER", "USER", "SASL SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN", "IMPLEMENTATION wafer"}
	if !slices.Equal(capa, want) {
		t.Errorf("CAPA under TLS = %q, want %q", capa, want)
	}
	c.do("STLS", "-ERR")
	c.do("USER ann@x.test", "+OK")
	c.do("PASS secret", "+OK")
	if got := strings.Join(c.multi("RETR 1"), "\r\n") + "\r\n"; got != message(1) {
		t.Errorf("RETR 1 = %q", got)
	}
	c.do("QUIT", "+OK")
}

// What somebody in between put behind STLS must not be taken as said under TLS.
func TestSTLSInjection(t *testing.T) {
	h := open(t, nil)
	c := h.dial()
	c.send("USER ann@x.test\r\nSTLS\r\nXEVIL\r\n")
	c.expect("+OK")
	c.expect("+OK Begin TLS")
	tc := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		// The injected octets may also have come after the flush; then the
		// handshake fails, which is as good.
		return
	}
	c.conn, c.r = tc, bufio.NewReader(tc)
	c.do("PASS secret", "-ERR Say USER") // neither the name nor XEVIL is remembered
}

func TestImplicitTLS(t *testing.T) {
	h := open(t, func(c *Config) { c.Implicit, c.AuthLoopback = true, false })
	conn, err := tls.Dial("tcp", h.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &client{t: t, conn: conn, r: bufio.NewReader(conn)}
	c.expect("+OK")
	if slices.Contains(c.multi("CAPA"), "STLS") {
		t.Error("STLS is offered inside TLS")
	}
	c.do("USER ann@x.test", "+OK")
	c.do("PASS secret", "+OK")
	if _, err := tls.Dial("tcp", h.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	plain, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	p := &client{t: t, conn: plain, r: bufio.NewReader(plain)}
	p.send("CAPA\r\nQUIT\r\n")
	p.closedAfterAlert()
}

// closedAfterAlert reads whatever TLS says to a plain peer, up to the end.
func (c *client) closedAfterAlert() {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		if _, err := c.r.ReadByte(); err != nil {
			if os.IsTimeout(err) {
				c.t.Error("the connection stays open")
			}
			return
		}
	}
}
