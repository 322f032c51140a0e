package imapd

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"github.com/wafermail/wafer/core/auth"
)

// TestSCRAM: the server's last message is a continuation, answered by an empty line.
func TestSCRAM(t *testing.T) {
	ts := startServer(t, func(c *Config) {
		c.TLS, c.Implicit, c.AuthLoopback = testCertificate(t), true, false
		c.Auth = auth.NewService(auth.Config{Users: users{testUser: "{SCRAM-SHA-256}4096,ezsuRM66hOr9qPHtAGG6lA==,jGQX/n8X46ZI0IQyibn7fd0IG00keJ7h3WQykpMMBwc=,/SprfGaJvCA5R38UlO230fWgxyxlGO0Vg+9AeGgR7OQ="}})
	})
	for _, row := range []struct{ name, mechanism, binding, want string }{
		{"plain", "SCRAM-SHA-256", "", "OK [CAPABILITY"},
		{"exporter", "SCRAM-SHA-256-PLUS", "tls-exporter", "OK [CAPABILITY"},
		{"end point", "SCRAM-SHA-256-PLUS", "tls-server-end-point", "OK [CAPABILITY"},
		{"wrong binding", "SCRAM-SHA-256-PLUS", "wrong", "NO [AUTHENTICATIONFAILED]"},
	} {
		for _, initial := range []bool{true, false} {
			t.Run(fmt.Sprint(row.name, " initial ", initial), func(t *testing.T) {
				conn, err := tls.Dial("tcp", ts.addr, &tls.Config{InsecureSkipVerify: true})
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				c := newClient(t, conn)
				if got := c.reply(); !strings.Contains(got, " AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-256 AUTH=PLAIN") {
					t.Errorf("greeting %q", got)
				}
				user, err := scram.SHA256.NewClient(testUser, "wonderland", "")
				if err != nil {
					t.Fatal(err)
				}
				talk := user.NewConversation()
				st := conn.ConnectionState()
				var b scram.ChannelBinding
				switch row.binding {
				case "tls-exporter":
					b, err = scram.NewTLSExporterBinding(&st)
				case "tls-server-end-point":
					b, err = scram.NewTLSServerEndpointBinding(&st)
				case "wrong":
					b = scram.ChannelBinding{Type: scram.ChannelBindingTLSExporter, Data: make([]byte, 32)}
				}
				if err != nil {
					t.Fatal(err)
				}
				if b.IsSupported() {
					talk = user.NewConversationWithChannelBinding(b)
				}
				first, err := talk.Step("")
				if err != nil {
					t.Fatal(err)
				}
				encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
				if initial {
					c.send("a AUTHENTICATE " + row.mechanism + " " + encode(first) + "\r\n")
				} else {
					c.send("a AUTHENTICATE " + row.mechanism + "\r\n")
					if got := c.reply(); got != "+ " {
						t.Fatalf("%q", got)
					}
					c.send(encode(first) + "\r\n")
				}
				got := c.reply()
				for strings.HasPrefix(got, "+ ") {
					challenge, err := base64.StdEncoding.DecodeString(got[2:])
					if err != nil {
						t.Fatal(err)
					}
					response, err := talk.Step(string(challenge))
					if err != nil {
						t.Fatal(err)
					}
					c.send(encode(response) + "\r\n")
					got = c.reply()
				}
				if !strings.HasPrefix(got, "a "+row.want) {
					t.Errorf("%q, want %q", got, row.want)
				}
			})
		}
	}
}
