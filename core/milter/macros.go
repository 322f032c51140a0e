package milter

import (
	"fmt"
	"net/netip"
	"sort"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// macros are those whose values the configuration gives, by their names without
// braces.
type macros struct {
	fixed map[string]string
	more  []string // those of them that are in no list, sorted
}

// Bounds of the configured macros.
const (
	maxFixed      = 100
	maxFixedValue = 1 << 10 // octets
)

func newMacros(given map[string]string) (macros, error) {
	m := macros{fixed: map[string]string{}}
	if len(given) > maxFixed {
		return m, fmt.Errorf("more than %d macros", maxFixed)
	}
	for name, value := range given {
		n := bare(name)
		if n == "" || len(n) > maxMacroName || strings.ContainsAny(n, "\x00 \t\r\n,{}") {
			return m, fmt.Errorf("macro %.64q: no name of a macro", name)
		}
		if len(value) > maxFixedValue || strings.ContainsAny(value, "\x00\r\n") {
			return m, fmt.Errorf("macro %s: a value is one line of at most %d octets", name, maxFixedValue)
		}
		if _, twice := m.fixed[n]; twice {
			return m, fmt.Errorf("macro %s is given twice", name)
		}
		m.fixed[n] = value
		if !listed(n) {
			m.more = append(m.more, n)
		}
	}
	sort.Strings(m.more)
	return m, nil
}

// bare is a macro's name without its braces.
func bare(name string) string {
	if strings.HasPrefix(name, "{") && strings.HasSuffix(name, "}") && len(name) > 2 {
		return name[1 : len(name)-1]
	}
	return name
}

// braced is a macro's name on the wire: only one character does without braces.
func braced(name string) string {
	if len(name) == 1 {
		return name
	}
	return "{" + name + "}"
}

// defaults are the macros of Postfix's milter_connect_macros and its siblings,
// with what else Postfix knows of the client at connect.
func defaults(cmd byte) []string {
	switch cmd {
	case cmdConnect:
		return []string{"j", "daemon_name", "daemon_addr", "daemon_port", "v", "_", "client_addr", "client_name", "client_port", "client_ptr"}
	case cmdHelo:
		return []string{"tls_version", "cipher", "cipher_bits", "cert_subject", "cert_issuer"}
	case cmdMail:
		return []string{"i", "auth_type", "auth_authen", "auth_author", "mail_addr", "mail_host", "mail_mailer"}
	case cmdRcpt:
		return []string{"i", "rcpt_addr", "rcpt_host", "rcpt_mailer"}
	case cmdData, cmdEOH, cmdEOB:
		return []string{"i"}
	}
	return nil
}

func listed(name string) bool {
	for _, cmd := range []byte{cmdConnect, cmdHelo, cmdMail, cmdRcpt, cmdData} {
		for _, n := range defaults(cmd) {
			if n == name {
				return true
			}
		}
	}
	return false
}

// packet is the data of the packet that goes before cmd, nil if no macro has a
// value. rcpt is the recipient that RCPT is about.
func (m *macros) packet(t *terms, cmd byte, ev *policy.Event, rcpt mail.Path) []byte {
	names, asked := t.macros[cmd]
	if !asked {
		names = defaults(cmd)
		if cmd == cmdConnect {
			names = append(names, m.more...)
		}
	}
	b := []byte{cmd}
	for _, name := range names {
		value, ok := m.fixed[name]
		if !ok {
			value, ok = known(name, ev, rcpt)
		}
		if ok {
			b = appendString(appendString(b, braced(name)), value)
		}
	}
	if len(b) == 1 {
		return nil
	}
	return b
}

// known is the value of a macro in Postfix's form; ok is false for one that has
// none, which Postfix does not send.
func known(name string, ev *policy.Event, rcpt mail.Path) (value string, ok bool) {
	switch name {
	case "j", "daemon_name":
		value = ev.Hostname
	case "v":
		value = "wafer"
	case "_":
		return orUnknown(ev.ClientName) + "[" + address(ev.Client) + "]", true
	case "i":
		value = string(ev.QueueID)
	case "daemon_addr":
		return address(ev.Server), ev.Server.Addr().IsValid()
	case "daemon_port":
		return strconv.Itoa(int(ev.Server.Port())), ev.Server.Addr().IsValid()
	case "client_addr":
		return address(ev.Client), true
	case "client_port":
		return strconv.Itoa(int(ev.Client.Port())), ev.Client.Addr().IsValid()
	case "client_name":
		return orUnknown(ev.ClientName), true
	case "client_ptr":
		return orUnknown(ev.ReverseName), true
	case "tls_version":
		value = strings.Replace(ev.TLS.Version, "TLS ", "TLSv", 1)
	case "cipher":
		value = ev.TLS.Cipher
	case "cipher_bits":
		if ev.TLS.On() {
			value = keySize(ev.TLS.Cipher)
		}
	case "auth_type":
		if ev.User != "" {
			value = ev.Mechanism
		}
	case "auth_authen":
		value = ev.User
	case "mail_addr":
		return ev.Sender.String(), ev.HasSender
	case "mail_host":
		return ev.Sender.Domain(), ev.HasSender
	case "mail_mailer":
		if ev.HasSender {
			value = mailer(ev, ev.Sender)
		}
	case "rcpt_addr":
		value = rcpt.String()
	case "rcpt_host":
		value = rcpt.Domain()
	case "rcpt_mailer":
		if !rcpt.IsNull() {
			value = mailer(ev, rcpt)
		}
	}
	return value, value != ""
}

// mailer is how mail to p leaves: "local" or "smtp", "" if nobody can say. The
// null path is our own.
func mailer(ev *policy.Event, p mail.Path) string {
	switch {
	case p.IsNull():
		return "local"
	case ev.Directory == nil:
		return ""
	case ev.Directory.Class(p) == policy.ClassRelay:
		return "smtp"
	}
	return "local"
}

// unknown is Postfix's word for a name or an address that it does not know.
const unknown = "unknown"

func orUnknown(name string) string {
	if name == "" {
		return unknown
	}
	return name
}

func address(a netip.AddrPort) string {
	if !a.Addr().IsValid() {
		return unknown
	}
	return a.Addr().Unmap().WithZone("").String()
}

// keySize is the bits of a cipher's key, "" if it is not known.
func keySize(cipher string) string {
	switch {
	case cipher == "":
		return ""
	case strings.Contains(cipher, "AES_256"), strings.Contains(cipher, "CHACHA20"):
		return "256"
	case strings.Contains(cipher, "3DES"):
		return "168"
	}
	return "128"
}
