//go:build unix

package relay

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/postfixtest"
	"github.com/wafermail/wafer/core/relay/relaytest"
)

// TestPostfix: Debian's Postfix as the next host, with everything that it offers,
// and with less of it.
func TestPostfix(t *testing.T) {
	box := relaytest.Start(t, relaytest.Behaviour{LMTP: true, Extensions: []string{"PIPELINING", "8BITMIME", "SMTPUTF8"}})
	cert, pool := relaytest.Certificate(t, "mx.far.test")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	chain := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})...)
	address := postfixtest.Start(t, fmt.Sprintf(`virtual_mailbox_domains = far.test
virtual_mailbox_maps = static:any
virtual_transport = lmtp:inet:%s
smtpd_recipient_restrictions = check_recipient_access inline:{{later@far.test = 450 4.2.0 greylisted}, {never@far.test = 550 5.1.1 no such user}}
smtpd_tls_chain_files = %%DIR%%/chain.pem
smtpd_tls_security_level = may
message_size_limit = 1000000
smtputf8_enable = yes
`, box.Addr()), map[string][]byte{"chain.pem": chain})
	for _, level := range []Level{None, May, Verify} {
		t.Run(fmt.Sprintf("TLS level %d", level), func(t *testing.T) {
			l := newLab(t)
			l.zone["mx.far.test"] = map[string][]string{"A": {"192.0.2.1"}}
			l.at["192.0.2.1"] = address
			l.mx("far.test", "10 mx.far.test")
			l.c.Roots = pool
			l.c.TLS = func(string) TLSPolicy { return TLSPolicy{Level: level} }
			had := len(box.Messages())
			large := text + strings.Repeat("a line of a large message, é\r\n", 20_000)
			got := l.deliver(l.delivery(text, "bob@far.test", "later@far.test", "never@far.test"))
			if said(got) != "250 2.0.0, 450 4.2.0, 550 5.1.1" || !strings.Contains(got.Outcomes[2].Status.Text, "no such user") || !got.Outcomes[0].Notifies {
				t.Errorf("%+v", got)
			}
			if got := l.deliver(l.delivery(text, "never@far.test")); said(got) != "550 5.1.1" {
				t.Errorf("nobody wants it: %+v", got)
			}
			if got := l.deliver(l.delivery(large, "large@far.test")); said(got) != "250 2.0.0" {
				t.Errorf("a large one: %+v", got)
			}
			if got := l.deliver(l.delivery(large+large, "larger@far.test")); said(got) != "552 5.3.4" {
				t.Errorf("too large: %+v", got)
			}
			d := l.delivery("Subject: é\r\n\r\né\r\n", "bób@far.test")
			d.Envelope.UTF8 = true
			if got := l.deliver(d); said(got) != "250 2.0.0" {
				t.Errorf("UTF-8: %+v", got)
			}
			await(t, box, had+3)
			found := map[string]string{}
			for _, m := range box.Messages()[had:] {
				found[m.Rcpts[0]] = m.Data
			}
			for to, body := range map[string]string{"<bob@far.test>": text, "<large@far.test>": large} {
				if !strings.HasSuffix(found[to], body[strings.Index(body, "\r\n\r\n"):]) { // Postfix adds to the header
					t.Errorf("%s got %.200q", to, found[to])
				}
			}
		})
	}
}

// TestPostfixPlain: Postfix as a smarthost that offers next to nothing.
func TestPostfixPlain(t *testing.T) {
	box := relaytest.Start(t, relaytest.Behaviour{LMTP: true})
	address := postfixtest.Start(t, fmt.Sprintf(`virtual_mailbox_domains = far.test
virtual_mailbox_maps = static:any
virtual_transport = lmtp:inet:%s
smtpd_discard_ehlo_keywords = pipelining, chunking, dsn, 8bitmime, smtputf8, size
`, box.Addr()), nil)
	l := newLab(t)
	l.c.Transports = map[string]Transport{"hub": {Host: "[hub.test]"}}
	l.zone["hub.test"] = map[string][]string{"A": {"192.0.2.1"}}
	l.at["192.0.2.1"] = address
	d := l.delivery(text, "bob@far.test", "eve@far.test")
	d.Route = mail.Route{Transport: "hub"}
	if got := l.deliver(d); said(got) != "250 2.0.0, 250 2.0.0" || got.Outcomes[0].Notifies {
		t.Errorf("%+v", got)
	}
	await(t, box, 1)
	if m := box.Messages()[0]; !strings.HasSuffix(m.Data, text[strings.Index(text, "\r\n\r\n"):]) {
		t.Errorf("arrived: %q", m.Data)
	}
}

// await waits until a server has n messages.
func await(t *testing.T, s *relaytest.Server, n int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(30 * time.Second); len(s.Messages()) < n; {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%d of %d messages have arrived", len(s.Messages()), n)
		}
	}
}
