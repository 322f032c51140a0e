package delegate

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// unknown is Postfix's word for a name or an address that it does not know.
const unknown = "unknown"

// question is the request about ev, in the order of Postfix 3.7.
func question(ev *policy.Event) ([]byte, error) {
	state, protocol, err := state(ev)
	if err != nil {
		return nil, err
	}
	user, method := ev.User, ev.Mechanism
	if user == "" {
		method = ""
	}
	count := 0
	if ev.Stage >= policy.Data {
		count = len(ev.Rcpts)
	}
	lines := [...]attribute{
		{"request", requestTag},
		{"protocol_state", state},
		{"protocol_name", protocol},
		{"client_address", host(ev.Client)},
		{"client_name", orUnknown(ev.ClientName)},
		{"client_port", port(ev.Client)},
		{"reverse_client_name", orUnknown(ev.ReverseName)},
		{"server_address", host(ev.Server)},
		{"server_port", port(ev.Server)},
		{"helo_name", ev.Helo},
		{"sender", internal(ev.Sender)},
		{"recipient", internal(ev.Recipient)},
		{"recipient_count", strconv.Itoa(count)},
		{"queue_id", string(ev.QueueID)},
		{"instance", instance(ev)},
		{"size", strconv.FormatInt(ev.Size, 10)},
		{"etrn_domain", ""},
		{"stress", ""},
		{"sasl_method", method},
		{"sasl_username", user},
		{"sasl_sender", ""},
		{"ccert_subject", ""},
		{"ccert_issuer", ""},
		{"ccert_fingerprint", ""},
		{"ccert_pubkey_fingerprint", ""},
		{"encryption_protocol", strings.Replace(ev.TLS.Version, "TLS ", "TLSv", 1)},
		{"encryption_cipher", ev.TLS.Cipher},
		{"encryption_keysize", strconv.Itoa(keySize(ev.TLS.Cipher))},
		{"policy_context", ""},
	}
	b := make([]byte, 0, 1024)
	for _, l := range lines {
		if len(l.value) > maxValue {
			return nil, fmt.Errorf("%s is longer than %d octets", l.name, maxValue)
		}
		b = appendAttribute(b, l.name, l.value)
	}
	return append(b, '\n'), nil
}

// state is ev's protocol_state and protocol_name. Until EHLO has been accepted
// Postfix says SMTP.
func state(ev *policy.Event) (state, protocol string, err error) {
	protocol = "SMTP"
	if ev.Extended && ev.Stage > policy.Helo {
		protocol = "ESMTP"
	}
	if ev.Protocol == "lmtp" {
		protocol = "LMTP"
	}
	switch ev.Stage {
	case policy.Connect:
		state = "CONNECT"
	case policy.Helo:
		state = "HELO"
		if ev.Extended {
			state = "EHLO"
		}
	case policy.Mail:
		state = "MAIL"
	case policy.Rcpt:
		state = "RCPT"
	case policy.Data:
		state = "DATA"
	case policy.Message:
		state = "END-OF-MESSAGE"
	default:
		return "", "", fmt.Errorf("policy delegation has no stage %s", ev.Stage)
	}
	return state, protocol, nil
}

// instance names the transaction, and before MAIL the session, so that a daemon
// that answers once for each instance (policyd-spf's header field) does.
func instance(ev *policy.Event) string {
	if ev.QueueID == "" {
		return ev.Session
	}
	return ev.Session + "." + string(ev.QueueID)
}

// internal is p as Postfix sends it: without the quotes of its local part.
func internal(p mail.Path) string {
	if p.Domain() == "" {
		return p.Local()
	}
	return p.Local() + "@" + p.Domain()
}

func host(a netip.AddrPort) string {
	if !a.Addr().IsValid() {
		return unknown
	}
	return a.Addr().Unmap().WithZone("").String()
}

func port(a netip.AddrPort) string {
	if !a.Addr().IsValid() {
		return unknown
	}
	return strconv.Itoa(int(a.Port()))
}

func orUnknown(name string) string {
	if name == "" {
		return unknown
	}
	return name
}

// keySize is the bits of a cipher's key, 0 if there is none.
func keySize(cipher string) int {
	switch {
	case cipher == "":
		return 0
	case strings.Contains(cipher, "AES_256"), strings.Contains(cipher, "CHACHA20"):
		return 256
	case strings.Contains(cipher, "3DES"):
		return 168
	}
	return 128
}
