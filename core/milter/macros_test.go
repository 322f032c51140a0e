package milter

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// directory knows d.example.
type directory struct{}

func (directory) Owners(mail.Path) []string { return nil }

func (directory) Class(p mail.Path) string {
	if p.Domain() == "d.example" {
		return policy.ClassLocal
	}
	return policy.ClassRelay
}

func TestMacros(t *testing.T) {
	const list = "\x00\x00\x00\x00j {client_ptr}\x00" + "\x00\x00\x00\x02{auth_authen},i\x00" + "\x00\x00\x00\x05\x00" + "\x00\x00\x00\x06{mail_addr} j\x00" + "\x00\x00\x00\x63x\x00"
	for _, row := range []struct {
		name  string
		lists string
		fixed map[string]string
		set   func(ev *policy.Event)
		want  string
	}{
		{"a stranger", "", nil, nil, `C j|mx.example|{daemon_name}|mx.example|{daemon_addr}|192.0.2.25|{daemon_port}|25|v|wafer|_|c.example[192.0.2.7]|{client_addr}|192.0.2.7|{client_name}|c.example|{client_port}|4711|{client_ptr}|c.example
M i|Q1|{mail_addr}|a@b.example|{mail_host}|b.example
R i|Q1|{rcpt_addr}|r@d.example|{rcpt_host}|d.example
T i|Q1
N i|Q1
E i|Q1`},
		{"a user over TLS", "", nil, func(ev *policy.Event) {
			ev.User, ev.Mechanism, ev.Directory = "u@d.example", "PLAIN", directory{}
			ev.TLS = mail.TLS{Version: "TLSv1.3", Cipher: "TLS_AES_256_GCM_SHA384"}
			ev.ClientName, ev.ReverseName = "", "liar.example"
		}, `C j|mx.example|{daemon_name}|mx.example|{daemon_addr}|192.0.2.25|{daemon_port}|25|v|wafer|_|unknown[192.0.2.7]|{client_addr}|192.0.2.7|{client_name}|unknown|{client_port}|4711|{client_ptr}|liar.example
H {tls_version}|TLSv1.3|{cipher}|TLS_AES_256_GCM_SHA384|{cipher_bits}|256
M i|Q1|{auth_type}|PLAIN|{auth_authen}|u@d.example|{mail_addr}|a@b.example|{mail_host}|b.example|{mail_mailer}|smtp
R i|Q1|{rcpt_addr}|r@d.example|{rcpt_host}|d.example|{rcpt_mailer}|local
T i|Q1
N i|Q1
E i|Q1`},
		{"the null path of nowhere", "", nil, func(ev *policy.Event) {
			ev.Sender, ev.Client, ev.Server, ev.ClientName, ev.ReverseName = mail.Path{}, netip.AddrPort{}, netip.AddrPort{}, "", ""
		}, `C j|mx.example|{daemon_name}|mx.example|v|wafer|_|unknown[unknown]|{client_addr}|unknown|{client_name}|unknown|{client_ptr}|unknown
M i|Q1|{mail_addr}||{mail_host}||{mail_mailer}|local
R i|Q1|{rcpt_addr}|r@d.example|{rcpt_host}|d.example
T i|Q1
N i|Q1
E i|Q1`},
		{"the milter's lists", list, nil, nil, `C j|mx.example|{client_ptr}|c.example
M i|Q1
R i|Q1|{rcpt_addr}|r@d.example|{rcpt_host}|d.example
T i|Q1
N {mail_addr}|a@b.example|j|mx.example`},
		{"fixed values", list, map[string]string{"{j}": "other", "client_ptr": "x", "extra": "y"}, nil, `C j|other|{client_ptr}|x
M i|Q1
R i|Q1|{rcpt_addr}|r@d.example|{rcpt_host}|d.example
T i|Q1
N {mail_addr}|a@b.example|j|other`},
		{"fixed values besides", "", map[string]string{"daemon_name": "ORIGINATING", "b": "2", "{extra}": "y"}, func(ev *policy.Event) { ev.Server = netip.AddrPort{} }, `C j|mx.example|{daemon_name}|ORIGINATING|v|wafer|_|c.example[192.0.2.7]|{client_addr}|192.0.2.7|{client_name}|c.example|{client_port}|4711|{client_ptr}|c.example|b|2|{extra}|y
M i|Q1|{mail_addr}|a@b.example|{mail_host}|b.example
R i|Q1|{rcpt_addr}|r@d.example|{rcpt_host}|d.example
T i|Q1
N i|Q1
E i|Q1`},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := (&fake{lists: row.lists}).start(t)
			if row.lists != "" {
				f.actions = setMacros
			}
			w := newWalk(t, open(t, Options{Address: f.address, Macros: row.fixed})).envelope("Q1", "a@b.example", "r@d.example")
			if row.set != nil {
				row.set(&w.ev)
			}
			if got := w.message(simpleMessage); got != "next" {
				t.Error(got)
			}
			var got []string
			for line := range strings.Lines(f.takeMacros()) {
				got = append(got, line[:1]+" "+line[1:])
			}
			if all := strings.TrimSpace(strings.Join(got, "")); all != row.want {
				t.Errorf("got\n%s\nwant\n%s", all, row.want)
			}
		})
	}
}

func TestKeySize(t *testing.T) {
	for cipher, want := range map[string]string{"": "", "TLS_CHACHA20_POLY1305_SHA256": "256", "TLS_RSA_WITH_3DES_EDE_CBC_SHA": "168", "TLS_AES_128_GCM_SHA256": "128"} {
		if got := keySize(cipher); got != want {
			t.Errorf("%s: %s", cipher, got)
		}
	}
}
