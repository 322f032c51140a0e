package smtpd

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// scriptConn is a peer that sends one step at each read and then hangs up. The
// replies are kept by the step that they answer.
type scriptConn struct {
	steps   [][]byte
	replies []bytes.Buffer // [0] is before the first step
	closed  bool
}

func newScript(steps ...[]byte) *scriptConn {
	return &scriptConn{steps: steps, replies: make([]bytes.Buffer, 1, len(steps)+2)}
}

func (c *scriptConn) Read(p []byte) (int, error) {
	for len(c.steps) > 0 && len(c.steps[0]) == 0 {
		c.steps = c.steps[1:]
	}
	if len(c.steps) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.steps[0])
	if c.steps[0] = c.steps[0][n:]; len(c.steps[0]) == 0 {
		c.steps = c.steps[1:]
		c.replies = append(c.replies, bytes.Buffer{})
	}
	return n, nil
}

func (c *scriptConn) Write(p []byte) (int, error) { return c.replies[len(c.replies)-1].Write(p) }

func (c *scriptConn) Close() error        { c.closed = true; return nil }
func (c *scriptConn) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 25), Port: 25} }
func (c *scriptConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 4321}
}
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

// all is everything that was replied.
func (c *scriptConn) all() string {
	var b strings.Builder
	for i := range c.replies {
		b.Write(c.replies[i].Bytes())
	}
	return b.String()
}

// theatre is a server without a listener, for sessions on scripts.
func theatre(t testing.TB, profile Profile, change func(*Config, *courier)) (*Server, *courier) {
	c := &courier{}
	config := Config{
		Profile: profile, Hostname: "mx.local.example", Limits: quick(),
		Registry: NewRegistry(RegistryOptions{PerClient: 1 << 30, Rate: 1 << 30}),
		Logger:   slog.New(slog.DiscardHandler),
		Begin:    func(netip.Addr) Rules { return Rules{Courier: c} },
	}
	if change != nil {
		change(&config, c)
	}
	srv, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	srv.newJudge = func(Rules) judge { return &script{} }
	return srv, c
}

// play runs one session to its end.
func (s *Server) play(nc net.Conn) { newSession(s, nc).serve() }

// pieces cuts b into pieces of n octets.
func pieces(b []byte, n int) [][]byte {
	var out [][]byte
	for len(b) > 0 {
		k := min(n, len(b))
		out = append(out, bytes.Clone(b[:k]))
		b = b[k:]
	}
	return out
}

var replyLine = regexp.MustCompile(`^[2-5][0-9][0-9][ -][^\r\n]*$`)

// wellReplied fails if out is not made of reply lines.
func wellReplied(t *testing.T, out string) {
	t.Helper()
	for _, line := range strings.Split(strings.TrimSuffix(out, "\r\n"), "\r\n") {
		if !replyLine.MatchString(line) || len(line) > maxReply {
			t.Fatalf("reply line %q", line)
		}
	}
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		"FROM:<a@b.example> SIZE=1 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=a+2Bb AUTH=<>",
		"FROM:<@a,@b:\"x y\\\"z\"@[192.0.2.1]>", "TO:<postmaster>", "FROM:<>",
		"TO:<\"a>b\"@c.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+40b", "TO:<\u00e4@\u00f6.example> ORCPT=utf-8;\u00e4@x",
		"FROM:<a@b@c>", "TO:<a\x00@b>", "FROM:<a@b>\tSIZE=99999999999999999999",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, arg []byte) {
		if m, st, _ := parseMail(arg, nil); st.Code == 0 {
			reparse(t, m.from, m.utf8)
			printable(t, m.envid)
			if m.size < 0 {
				t.Fatalf("size %d", m.size)
			}
		} else if st.Code < 500 || st.Code > 599 {
			t.Fatalf("%+v", st)
		}
		for _, utf8ok := range []bool{false, true} {
			if r, st, _ := parseRcpt(arg, utf8ok, nil); st.Code == 0 {
				reparse(t, r.To, utf8ok)
				if utf8ok {
					continue
				}
				printable(t, r.ORcpt)
			}
		}
		verb, rest := splitVerb(arg)
		if len(verb)+len(rest) > len(arg) {
			t.Fatalf("%q %q from %q", verb, rest, arg)
		}
	})
}

// reparse wants p to survive being written to a protocol line.
func reparse(t *testing.T, p mail.Path, utf8ok bool) {
	t.Helper()
	again, err := mail.ParsePath(p.String(), utf8ok)
	if err != nil || again.Key() != p.Key() {
		t.Fatalf("%q reads back as %q, %v", p, again, err)
	}
}

func printable(t *testing.T, s string) {
	t.Helper()
	if hasControl([]byte(s)) {
		t.Fatalf("control character in %q", s)
	}
}

// FuzzSession throws octets at a whole session.
func FuzzSession(f *testing.F) {
	f.Add([]byte("EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@local.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"), 7)
	f.Add([]byte("EHLO x\r\nMAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<postmaster>\r\nBDAT 3\r\nabcBDAT 2 LAST\r\nde"), 100)
	f.Add([]byte("EHLO x\r\nAUTH PLAIN\r\n*\r\nXCLIENT ADDR=1.2.3.4\r\nVRFY a\r\n\x16\x03\x01"), 1)
	f.Add([]byte("BDAT 99999999999999999999\r\n"+strings.Repeat("x", 5000)), 500)
	srv, _ := theatre(f, MX, func(c *Config, _ *courier) { c.Limits.Drain = 1000; c.Limits.MessageSize = 1000 })
	f.Fuzz(func(t *testing.T, in []byte, n int) {
		nc := newScript(pieces(in, max(1, n%4096))...)
		srv.play(nc)
		wellReplied(t, nc.all())
		if p := srv.Stats().Panics; p != 0 {
			t.Fatal("a panic")
		}
		if !nc.closed {
			t.Fatal("not closed")
		}
	})
}

// FuzzBDAT: two chunks with any octets arrive as they are, or, if the
// connection ends early, not at all.
func FuzzBDAT(f *testing.F) {
	f.Add([]byte("a\r\n.\r\n"), []byte("QUIT\r\n"), 1000, 3)
	f.Add([]byte{}, []byte{0}, 90, 1)
	f.Add([]byte("\n\r"), []byte{}, 95, 50)
	f.Fuzz(func(t *testing.T, a, b []byte, cut, n int) {
		srv, c := theatre(t, MX, nil)
		in := fmt.Appendf(nil, "EHLO x\r\nMAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<postmaster>\r\nBDAT %d\r\n%sBDAT %d LAST\r\n%s", len(a), a, len(b), b)
		cut = min(max(0, cut), len(in))
		nc := newScript(pieces(in[:cut], max(1, n%4096))...)
		srv.play(nc)
		wellReplied(t, nc.all())
		got := c.taken()
		switch {
		case cut < len(in):
			if len(got) != 0 {
				t.Fatalf("accepted %q of %q", got[0].text, in[:cut])
			}
		case len(got) != 1 || got[0].text != string(a)+string(b):
			t.Fatalf("%q: got %+v, replies %q", in, got, nc.all())
		}
	})
}

func FuzzXClient(f *testing.F) {
	f.Add([]byte("NAME=a.example ADDR=192.0.2.1 PORT=1 PROTO=ESMTP HELO=x LOGIN=a+40b DESTADDR=IPV6:::1 DESTPORT=2"))
	f.Add([]byte("ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL]"))
	f.Add([]byte("NAME=a+0A"))
	f.Fuzz(func(t *testing.T, arg []byte) {
		a, ok := parseXClient(arg)
		if !ok {
			return
		}
		for _, s := range []*string{a.name, a.reverse, a.helo, a.login, a.proto} {
			if s != nil {
				printable(t, *s)
			}
		}
		if a.addr != nil && a.addr.Is4In6() {
			t.Fatalf("%v", a.addr)
		}
	})
}
