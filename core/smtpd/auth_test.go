package smtpd

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// keyed are users whose hashes serve SCRAM, made by Dovecot's doveadm pw of "wonderland".
type keyed struct{}

// Decoy keeps tests with unknown users short.
func (keyed) Decoy(string) string { return "{PLAIN}nobody's" }

const keyedHash = "{SCRAM-SHA-256}4096,ezsuRM66hOr9qPHtAGG6lA==,jGQX/n8X46ZI0IQyibn7fd0IG00keJ7h3WQykpMMBwc=,/SprfGaJvCA5R38UlO230fWgxyxlGO0Vg+9AeGgR7OQ="

func (keyed) Lookup(user string) (auth.Record, error) {
	if user == "alice@local.example" {
		return auth.Record{User: user, Hash: keyedHash}, nil
	}
	return auth.Record{}, auth.ErrNoUser
}

func withKeys(c *Config, h *house) {
	c.Begin = func(netip.Addr) Rules {
		return Rules{Courier: h.courier, Auth: impatient(keyed{})}
	}
}

// scramLogin speaks SCRAM over c and returns the last reply.
func (c *client) scramLogin(mechanism, password string, binding scram.ChannelBinding, initial bool) string {
	c.t.Helper()
	user, err := scram.SHA256.NewClient("alice@local.example", password, "")
	if err != nil {
		c.t.Fatal(err)
	}
	talk := user.NewConversation()
	if binding.IsSupported() {
		talk = user.NewConversationWithChannelBinding(binding)
	}
	first, err := talk.Step("")
	if err != nil {
		c.t.Fatal(err)
	}
	if initial {
		c.send("AUTH " + mechanism + " " + b64(first) + "\r\n")
	} else {
		c.do("AUTH "+mechanism, "334 ")
		c.send(b64(first) + "\r\n")
	}
	for {
		reply, err := c.read()
		if err != nil || !strings.HasPrefix(reply, "334 ") {
			return reply
		}
		challenge, err := base64.StdEncoding.DecodeString(reply[4:])
		if err != nil {
			c.t.Fatal(err)
		}
		response := ""
		if !talk.Done() {
			if response, err = talk.Step(string(challenge)); err != nil {
				c.t.Fatalf("client: %v", err)
			}
		}
		if talk.Valid() {
			response = ""
		}
		c.send(b64(response) + "\r\n")
	}
}

func TestSCRAM(t *testing.T) {
	h := open(t, Submission, func(c *Config, h *house) { withTLS(c, h); withKeys(c, h) })
	start := func(version uint16) (*client, tls.ConnectionState) {
		c := h.hello()
		c.do("STARTTLS", "220")
		tc := tls.Client(c.nc, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		c = newClient(t, tc)
		c.do("EHLO client.example", "250")
		return c, tc.ConnectionState()
	}
	exporter := func(st *tls.ConnectionState) scram.ChannelBinding {
		b, err := scram.NewTLSExporterBinding(st)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	endPoint := func(st *tls.ConnectionState) scram.ChannelBinding {
		b, err := scram.NewTLSServerEndpointBinding(st)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	none := func(*tls.ConnectionState) scram.ChannelBinding { return scram.ChannelBinding{} }
	another := func(*tls.ConnectionState) scram.ChannelBinding {
		_, st := start(tls.VersionTLS13)
		return exporter(&st)
	}
	for _, row := range []struct {
		name, mechanism, password string
		version                   uint16
		binding                   func(*tls.ConnectionState) scram.ChannelBinding
		want                      string
	}{
		{"plain", "SCRAM-SHA-256", "wonderland", tls.VersionTLS13, none, "235 2.7.0"},
		{"wrong password", "SCRAM-SHA-256", "looking-glass", tls.VersionTLS13, none, "535 5.7.8"},
		{"exporter", "SCRAM-SHA-256-PLUS", "wonderland", tls.VersionTLS13, exporter, "235 2.7.0"},
		{"exporter, TLS 1.2", "SCRAM-SHA-256-PLUS", "wonderland", tls.VersionTLS12, exporter, "235 2.7.0"},
		{"end point", "scram-sha-256-plus", "wonderland", tls.VersionTLS13, endPoint, "235 2.7.0"},
		{"end point, TLS 1.2", "SCRAM-SHA-256-PLUS", "wonderland", tls.VersionTLS12, endPoint, "235 2.7.0"},
		{"bound to another connection", "SCRAM-SHA-256-PLUS", "wonderland", tls.VersionTLS13, another, "535 5.7.8"},
		{"not bound", "SCRAM-SHA-256-PLUS", "wonderland", tls.VersionTLS13, none, "535 5.7.8"},
		{"bound without plus", "SCRAM-SHA-256", "wonderland", tls.VersionTLS13, exporter, "535 5.7.8"},
	} {
		for _, initial := range []bool{true, false} {
			t.Run(fmt.Sprint(row.name, " initial ", initial), func(t *testing.T) {
				c, st := start(row.version)
				if got := c.scramLogin(row.mechanism, row.password, row.binding(&st), initial); !strings.HasPrefix(got, row.want) {
					t.Errorf("got %q, want %q", got, row.want)
				}
				want := "250"
				if row.want[0] != '2' {
					want = "530"
				}
				c.do("MAIL FROM:<alice@local.example>", want)
			})
		}
	}
	heard := map[bool]int{}
	for _, ev := range h.policy.heard() {
		if ev.Stage == policy.Auth && strings.HasPrefix(ev.Mechanism, "SCRAM-SHA-256") && ev.User == "alice@local.example" {
			heard[ev.AuthOK]++
		}
	}
	// Two refusals come before the name is read.
	if heard[true] != 10 || heard[false] < 4 {
		t.Errorf("the policy heard of %v", heard)
	}
}

// TestSCRAMCancelled: whoever does not believe our last message says so, and is
// not logged in.
func TestSCRAMCancelled(t *testing.T) {
	h := open(t, Submission, withKeys)
	c := h.hello()
	user, _ := scram.SHA256.NewClient("alice@local.example", "wonderland", "")
	talk := user.NewConversation()
	first, _ := talk.Step("")
	c.send("AUTH SCRAM-SHA-256 " + b64(first) + "\r\n")
	challenge, _ := base64.StdEncoding.DecodeString(c.want("334 ")[4:])
	final, err := talk.Step(string(challenge))
	if err != nil {
		t.Fatal(err)
	}
	c.do(b64(final), "334 ", "*", "501 5.7.0", "MAIL FROM:<>", "530 5.7.0")
	if got := c.scramLogin("SCRAM-SHA-256", "wonderland", scram.ChannelBinding{}, true); !strings.HasPrefix(got, "235") {
		t.Error(got)
	}
}

// TestAuthInput is what clients get wrong about AUTH. Steps are sent as one
// piece; a reply is wanted for each line of the second column.
func TestAuthInput(t *testing.T) {
	good := b64("\x00alice@local.example\x00wonderland")
	for _, row := range []struct{ name, send, want string }{
		{"command behind the initial response", "AUTH PLAIN " + good + "\r\nMAIL FROM:<>\r\n", "235|250"},
		{"command behind a wrong one", "AUTH PLAIN " + b64("\x00a\x00b") + "\r\nMAIL FROM:<>\r\n", "535|530"},
		{"response that did not wait", "AUTH PLAIN\r\n" + good + "\r\n", "334|235"},
		{"both responses that did not wait", "AUTH LOGIN\r\n" + b64("alice@local.example") + "\r\n" + b64("wonderland") + "\r\nNOOP\r\n", "334|334|235|250"},
		{"command in place of the response", "AUTH LOGIN\r\nMAIL FROM:<>\r\nNOOP\r\n", "503 5.5.1|530|250"},
		{"command that looks like base64", "AUTH LOGIN\r\nRSET\r\nDATA\r\n", "503 5.5.1|250|503"},
		{"small command", "AUTH PLAIN\r\nnoop\r\n", "503 5.5.1|250"},
		{"command in place of the second response", "AUTH LOGIN " + b64("alice@local.example") + "\r\nQUIT\r\n", "503 5.5.1|221"},
		{"AUTH in place of the response", "AUTH LOGIN\r\nAUTH PLAIN " + good + "\r\n", "503 5.5.1|235"},
		{"bad base64, then commands", "AUTH PLAIN\r\n!\r\nNOOP\r\n", "334|501 5.5.2|250"},
		{"cut base64", "AUTH PLAIN QUJ\r\nNOOP\r\n", "501 5.5.2|250"},
		{"base64 with more behind", "AUTH PLAIN QUI=QUI=\r\n", "501 5.5.2"},
		{"base64 with bits set", "AUTH PLAIN QUJ=\r\n", "501 5.5.2"},
		{"empty initial response to LOGIN", "AUTH LOGIN =\r\n" + b64("x") + "\r\n", "334|501 5.5.2"},
		{"empty initial response to SCRAM", "AUTH SCRAM-SHA-256 =\r\nNOOP\r\n", "501 5.5.2|250"},
		{"no SCRAM", "AUTH SCRAM-SHA-256 " + b64("no scram") + "\r\n", "501 5.5.2"},
		{"plus in the clear", "AUTH SCRAM-SHA-256-PLUS\r\n", "504 5.5.4"},
		{"cancel", "AUTH LOGIN\r\n*\r\nNOOP\r\n", "334|501 5.7.0|250"},
		{"cancel the second response", "AUTH LOGIN " + b64("a") + "\r\n*\r\n", "334|501 5.7.0"},
		{"cancel in the command", "AUTH PLAIN *\r\nNOOP\r\n", "501|250"},
		{"long line", "AUTH PLAIN " + strings.Repeat("A", 12300) + "\r\nNOOP\r\n", "500 5.5.6|250"},
		{"line of 12288 octets", "AUTH PLAIN " + strings.Repeat("A", 12276-1) + "\r\nNOOP\r\n", "501 5.5.2|250"},
		{"long line of another command", "NOOP " + strings.Repeat("A", 5000) + "\r\nNOOP\r\n", "500 5.5.6|250"},
		{"long response", "AUTH PLAIN\r\n" + strings.Repeat("A", 12300) + "\r\nNOOP\r\n", "334|500 5.5.6|250"},
		{"huge line", "AUTH PLAIN " + strings.Repeat("A", 60000) + "\r\nNOOP\r\n", "500 5.5.6|250"},
		{"twice", "AUTH PLAIN " + good + "\r\nAUTH PLAIN " + good + "\r\n", "235|503 5.5.1"},
		{"in a transaction", "AUTH PLAIN " + good + "\r\nMAIL FROM:<>\r\nAUTH PLAIN " + good + "\r\nRCPT TO:<x@example.net>\r\n", "235|250|503 5.5.1|250"},
		{"before EHLO", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := open(t, Submission, nil)
			if row.send == "" {
				c := h.dial()
				c.want("220")
				c.do("AUTH PLAIN "+good, "503 5.5.1")
				return
			}
			for _, slow := range []bool{false, true} {
				if slow && strings.Contains(row.want, "503 5.5.1|") && !strings.HasPrefix(row.want, "235") {
					continue // whoever waits does not send a command there
				}
				c := h.hello()
				sent := []string{row.send}
				if slow {
					sent = strings.SplitAfter(row.send, "\r\n")
				}
				wants := strings.Split(row.want, "|")
				for i, s := range sent {
					if s == "" {
						continue
					}
					c.send(s)
					if slow {
						c.want(wants[i])
					}
				}
				for _, want := range wants {
					if !slow {
						c.want(want)
					}
				}
			}
		})
	}
}

// TestAuthCommandForResponse: a client that was asked for a response and sends a
// command is told so; the octets are no password.
func TestAuthCommandForResponse(t *testing.T) {
	h := open(t, Submission, nil)
	c := h.hello()
	c.do("AUTH LOGIN", "334", "RSET", "501 5.5.2", "AUTH LOGIN", "334", b64("alice@local.example"), "334", "QUIT", "501 5.5.2", "NOOP", "250")
	for _, stage := range h.policy.stages() {
		if stage == policy.Auth {
			t.Error("the policy heard of a login")
		}
	}
}

// TestManyFailedLogins: 5,000 failures from one network end in refusals, at once
// and without a look at the password, and nobody elsewhere notices.
func TestManyFailedLogins(t *testing.T) {
	var waits int
	service := auth.NewService(auth.Config{
		Users: users{},
		Throttle: auth.NewThrottle(auth.ThrottleOptions{Wait: func(context.Context, time.Duration) error {
			waits++
			return nil
		}}),
	})
	srv, _ := theatre(t, Submission, func(c *Config, k *courier) {
		c.TLS = testTLS(t)
		c.Limits.AuthFailures = 10
		c.Begin = func(netip.Addr) Rules { return Rules{Courier: k, Auth: service} }
	})
	session := func(last byte, lines ...string) string {
		nc := newScript([]byte("EHLO x\r\n"), []byte(strings.Join(lines, "\r\n")+"\r\n"))
		s := newSession(srv, nc)
		s.client.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, last}), 1)
		if last == 0 {
			s.client.Addr = netip.MustParseAddrPort("[2001:db8::1]:1")
		}
		s.client.TLS = mail.TLS{Version: "TLSv1.3", Cipher: "TLS_X"}
		s.serve()
		return nc.all()
	}
	replies := map[string]int{}
	for i := range 1250 {
		var lines []string
		for j := range 4 {
			lines = append(lines, "AUTH PLAIN "+b64(fmt.Sprintf("\x00guess%d-%d\x00pw%d", i, j, i)))
		}
		for _, line := range strings.Split(session(byte(1+i%60), lines...), "\r\n") {
			if len(line) > 3 && line[3] == ' ' {
				replies[line[:3]]++
			}
		}
	}
	if replies["535"] != 1000 || replies["454"] != 4000 || waits == 0 {
		t.Errorf("replies %v, %d waits", replies, waits)
	}
	waits = 0
	if got := session(0, "AUTH PLAIN "+b64("\x00alice@local.example\x00wonderland")); !strings.Contains(got, "\r\n235 ") || waits > 0 {
		t.Errorf("from elsewhere, after %d waits: %q", waits, got)
	}
}

// FuzzAuth: whatever follows AUTH, nobody is let in, and the session stays in step.
func FuzzAuth(f *testing.F) {
	f.Add([]byte("PLAIN AAAA\r\n"))
	f.Add([]byte("SCRAM-SHA-256 " + b64("n,,n=alice@local.example,r=x") + "\r\n" + b64("c=biws,r=x,p=AAAA") + "\r\n\r\n"))
	f.Add([]byte("LOGIN =\r\nRSET\r\n*\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		service := impatient(keyed{})
		srv, _ := theatre(t, Submission, func(c *Config, k *courier) {
			c.TLS = testTLS(t)
			c.Begin = func(netip.Addr) Rules { return Rules{Courier: k, Auth: service} }
		})
		nc := newScript([]byte("EHLO x\r\nAUTH "), in, []byte("\r\nQUIT\r\n"))
		s := newSession(srv, nc)
		s.client.TLS = mail.TLS{Version: "TLSv1.3", Cipher: "TLS_X"}
		s.serve()
		wellReplied(t, nc.all())
		if strings.Contains(nc.all(), "\r\n235") {
			t.Fatalf("%q logs in", in)
		}
	})
}
