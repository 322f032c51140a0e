package smtpd

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/xdg-go/scram"

	"github.com/wafermail/wafer/core/policy"
)

// program runs somebody else's client, or skips the test where it is missing.
func program(t *testing.T, input, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// arrived wants the last message to be alice's, brought with mechanism.
func (h *house) arrived(t *testing.T, mechanism string) message {
	t.Helper()
	taken := h.courier.taken()
	if len(taken) == 0 {
		t.Fatal("no message arrived")
	}
	m := taken[len(taken)-1]
	if m.env.User != "alice@local.example" || m.env.From.String() != "alice@local.example" || m.env.Rcpts[0].To.String() != "bob@example.net" || !strings.HasSuffix(m.env.Protocol, "ESMTPSA") {
		t.Errorf("envelope %+v", m.env)
	}
	used := ""
	for _, ev := range h.policy.heard() {
		if ev.Stage == policy.Auth {
			used = ev.Mechanism
		}
	}
	if used != mechanism {
		t.Errorf("mechanism %s, want %s", used, mechanism)
	}
	for _, field := range []string{"Date", "Message-ID", "From"} {
		if n := strings.Count("\r\n"+strings.ToLower(m.trace+m.text), "\r\n"+strings.ToLower(field)+":"); n != 1 {
			t.Errorf("%d %s fields in %q", n, field, m.trace+m.text)
		}
	}
	return m
}

// submissionDoor is one with STARTTLS, and one with TLS at once.
func submissionDoors(t *testing.T, run func(t *testing.T, h *house, port string, implicit bool)) {
	for _, profile := range []Profile{Submission, Submissions} {
		t.Run(string(profile), func(t *testing.T) {
			h := open(t, profile, func(c *Config, h *house) {
				withTLS(c, h)
				c.AuthLoopback = false
				withKeys(c, h)
			})
			_, port, _ := strings.Cut(h.addr, ":")
			run(t, h, port, profile == Submissions)
		})
	}
}

func TestMsmtp(t *testing.T) {
	submissionDoors(t, func(t *testing.T, h *house, port string, implicit bool) {
		for _, mechanism := range []string{"plain", "login", "scram-sha-256", "scram-sha-256-plus"} {
			t.Run(mechanism, func(t *testing.T) {
				starttls := "on"
				if implicit {
					starttls = "off"
				}
				if mechanism == "scram-sha-256-plus" && !strings.Contains(program(t, "", "msmtp", "--version"), " "+mechanism+" ") {
					t.Skip("this msmtp has no " + mechanism)
				}
				program(t, "Subject: x\n\nhello\n", "msmtp", "--file=/dev/null", "--host=127.0.0.1", "--port="+port, "--tls=on", "--tls-starttls="+starttls,
					"--tls-certcheck=off", "--auth="+mechanism, "--user=alice@local.example", "--passwordeval=echo wonderland",
					"--from=alice@local.example", "bob@example.net")
				h.arrived(t, strings.ToUpper(mechanism))
			})
		}
	})
}

func TestSwaksSubmits(t *testing.T) {
	submissionDoors(t, func(t *testing.T, h *house, port string, implicit bool) {
		for _, mechanism := range []string{"PLAIN", "LOGIN"} {
			t.Run(mechanism, func(t *testing.T) {
				how := "--tls"
				if implicit {
					how = "--tls-on-connect"
				}
				program(t, "", "swaks", "--server", "127.0.0.1", "--port", port, how, "--auth", mechanism, "--auth-user", "alice@local.example",
					"--auth-password", "wonderland", "--from", "alice@local.example", "--to", "bob@example.net", "--pipeline")
				h.arrived(t, mechanism)
			})
		}
	})
}

func TestSmtplib(t *testing.T) {
	submissionDoors(t, func(t *testing.T, h *house, port string, implicit bool) {
		script := `
import smtplib, ssl, sys
ctx = ssl._create_unverified_context()
port = int(sys.argv[1])
if sys.argv[2] == "true":
    s = smtplib.SMTP_SSL("127.0.0.1", port, context=ctx)
else:
    s = smtplib.SMTP("127.0.0.1", port)
    s.starttls(context=ctx)
try:
    s.login("alice@local.example", "wrong")
    sys.exit("logged in with a wrong password")
except smtplib.SMTPAuthenticationError as e:
    if e.smtp_code != 535: raise
s.user, s.password = "alice@local.example", "wonderland"
s.auth(sys.argv[3], getattr(s, "auth_" + sys.argv[3].lower()), initial_response_ok=sys.argv[4] == "true")
s.sendmail("alice@local.example", ["bob@example.net"], "From: alice\r\nTo: bob@example.net\r\nSubject: x\r\n\r\n.dots\r\n..\r\n", ["BODY=8BITMIME"], ["NOTIFY=FAILURE"])
s.quit()
`
		for _, mechanism := range []string{"PLAIN", "LOGIN"} {
			for _, initial := range []bool{true, false} {
				t.Run(fmt.Sprint(mechanism, initial), func(t *testing.T) {
					program(t, "", "python3", "-c", script, port, fmt.Sprint(implicit), mechanism, fmt.Sprint(initial))
					if m := h.arrived(t, mechanism); m.text != "From: alice@local.example\r\nTo: bob@example.net\r\nSubject: x\r\n\r\n.dots\r\n..\r\n" {
						t.Errorf("%q", m.text)
					}
				})
			}
		}
	})
}

// TestNodemailer needs the module where node finds it, such as by NODE_PATH.
func TestNodemailer(t *testing.T) {
	if exec.Command("node", "-e", "require('nodemailer')").Run() != nil {
		t.Skip("nodemailer is not installed")
	}
	submissionDoors(t, func(t *testing.T, h *house, port string, implicit bool) {
		for _, mechanism := range []string{"PLAIN", "LOGIN"} {
			t.Run(mechanism, func(t *testing.T) {
				program(t, "", "node", "-e", `
const [port, secure, method] = process.argv.slice(1);
require('nodemailer').createTransport({
  host: '127.0.0.1', port: +port, secure: secure === 'true', requireTLS: secure !== 'true', authMethod: method,
  tls: { rejectUnauthorized: false }, auth: { user: 'alice@local.example', pass: 'wonderland' },
}).sendMail({ from: 'alice@local.example', to: 'bob@example.net', bcc: 'eve@example.net', subject: 'x', text: 'hello' },
  (err, info) => { if (err) { console.error(err); process.exit(1); } });
`, port, fmt.Sprint(implicit), mechanism)
				if m := h.arrived(t, mechanism); len(m.env.Rcpts) != 2 || strings.Contains(m.text, "eve@") {
					t.Errorf("%+v", m)
				}
			})
		}
	})
}

// scramClient is SCRAM for go-smtp's client.
type scramClient struct {
	name string
	talk *scram.ClientConversation
}

func (c *scramClient) Start() (string, []byte, error) {
	first, err := c.talk.Step("")
	return c.name, []byte(first), err
}

func (c *scramClient) Next(challenge []byte) ([]byte, error) {
	s, err := c.talk.Step(string(challenge))
	return []byte(s), err
}

func TestGoSMTPSubmits(t *testing.T) {
	submissionDoors(t, func(t *testing.T, h *house, _ string, implicit bool) {
		for _, plus := range []bool{false, true} {
			t.Run(fmt.Sprint("plus ", plus), func(t *testing.T) {
				dial := smtp.DialStartTLS
				if implicit {
					dial = smtp.DialTLS
				}
				cl, err := dial(h.addr, &tls.Config{InsecureSkipVerify: true})
				if err != nil {
					t.Fatal(err)
				}
				defer cl.Close()
				user, err := scram.SHA256.NewClient("alice@local.example", "wonderland", "")
				if err != nil {
					t.Fatal(err)
				}
				a := &scramClient{"SCRAM-SHA-256", user.NewConversation()}
				if !cl.SupportsAuth("SCRAM-SHA-256-PLUS") || !cl.SupportsAuth(a.name) { // after the handshake
					t.Fatal("not offered")
				}
				if plus {
					st, ok := cl.TLSConnectionState()
					if !ok {
						t.Fatal("no TLS")
					}
					b, err := scram.NewTLSExporterBinding(&st)
					if err != nil {
						t.Fatal(err)
					}
					a = &scramClient{"SCRAM-SHA-256-PLUS", user.NewConversationWithChannelBinding(b)}
				}
				if err := cl.Auth(a); err != nil {
					t.Fatal(err)
				}
				if !a.talk.Valid() {
					t.Error("the client does not believe the server")
				}
				if err := cl.SendMail("alice@local.example", []string{"bob@example.net"}, strings.NewReader("Subject: x\r\n\r\nhello\r\n")); err != nil {
					t.Fatal(err)
				}
				if err := cl.Quit(); err != nil {
					t.Fatal(err)
				}
				h.arrived(t, a.name)
			})
		}
	})
}

// TestGsasl is a client that binds to the connection by itself.
func TestGsasl(t *testing.T) {
	submissionDoors(t, func(t *testing.T, h *house, port string, implicit bool) {
		if implicit {
			t.Skip("gsasl speaks STARTTLS only")
		}
		cert, err := testCert()
		if err != nil {
			t.Fatal(err)
		}
		ca := filepath.Join(t.TempDir(), "ca.pem")
		var b bytes.Buffer
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(ca, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, row := range []struct {
			mechanism string
			more      []string
		}{{"SCRAM-SHA-256", []string{"--no-cb"}}, {"SCRAM-SHA-256-PLUS", nil}, {"PLAIN", nil}, {"LOGIN", nil}} {
			t.Run(row.mechanism, func(t *testing.T) {
				out := program(t, "", "gsasl", append([]string{"--client", "--smtp", "--connect=localhost:" + port, "--starttls", "--x509-ca-file=" + ca,
					"--hostname=mx.local.example", "--mechanism=" + row.mechanism, "--authentication-id=alice@local.example", "--password=wonderland"}, row.more...)...)
				if !strings.Contains(out, "235 2.7.0") {
					t.Errorf("%s", out)
				}
			})
		}
	})
}
