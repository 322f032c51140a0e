package pop3d

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"github.com/wafermail/wafer/core/auth"
)

// TestSCRAM: the server's last message is a challenge, answered by an empty line
// (RFC 5034 §4).
func TestSCRAM(t *testing.T) {
	h := open(t, func(c *Config) {
		c.Auth = auth.NewService(auth.Config{Users: users{"ann@x.test": "{SCRAM-SHA-256}4096,ezsuRM66hOr9qPHtAGG6lA==,jGQX/n8X46ZI0IQyibn7fd0IG00keJ7h3WQykpMMBwc=,/SprfGaJvCA5R38UlO230fWgxyxlGO0Vg+9AeGgR7OQ="}})
	})
	for _, row := range []struct{ name, mechanism, binding, want string }{
		{"plain", "SCRAM-SHA-256", "", "+OK"},
		{"exporter", "SCRAM-SHA-256-PLUS", "tls-exporter", "+OK"},
		{"end point", "scram-sha-256-plus", "tls-server-end-point", "+OK"},
		{"wrong binding", "SCRAM-SHA-256-PLUS", "wrong", "-ERR [AUTH]"},
	} {
		for _, initial := range []bool{true, false} {
			t.Run(fmt.Sprint(row.name, " initial ", initial), func(t *testing.T) {
				c := h.dial()
				c.startTLS()
				user, err := scram.SHA256.NewClient("ann@x.test", "wonderland", "")
				if err != nil {
					t.Fatal(err)
				}
				talk := user.NewConversation()
				st := c.conn.(*tls.Conn).ConnectionState()
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
				got := ""
				if initial {
					got = c.do("AUTH "+row.mechanism+" "+encode(first), "")
				} else {
					c.do("AUTH "+row.mechanism, "+ ")
					got = c.do(encode(first), "")
				}
				for strings.HasPrefix(got, "+ ") {
					challenge, err := base64.StdEncoding.DecodeString(got[2:])
					if err != nil {
						t.Fatal(err)
					}
					response, err := talk.Step(string(challenge))
					if err != nil {
						t.Fatal(err)
					}
					got = c.do(encode(response), "")
				}
				if !strings.HasPrefix(got, row.want) {
					t.Errorf("%q, want %q", got, row.want)
				}
				c.do("QUIT", "+OK")
			})
		}
	}
}
