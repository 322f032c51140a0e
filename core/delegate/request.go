package delegate

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// request is what Postfix asks. It is comparable but for fault: two that are
// equal ask for the same.
type request struct {
	state    string
	stage    policy.Stage // the last stage that is to be asked
	instance string
	last     bool // END-OF-MESSAGE: too late for header fields

	caller
	greeting
	login
	transaction
	recipient mail.Path
	count     int // recipients of the message, from DATA on
	queueID   mail.ID

	fault error // a value that is none; nothing can be asked
}

// caller is who has connected.
type caller struct {
	client, server    netip.AddrPort
	name, reverseName string
	lmtp              bool
	tls               mail.TLS
}

// greeting is how it introduced itself.
type greeting struct {
	helo     string
	extended bool
}

// login is as whom it has authenticated.
type login struct{ user, mechanism string }

// transaction is what MAIL said.
type transaction struct {
	sender mail.Path
	size   int64
}

// parseRequest reads the attributes that matter here and skips others. The
// error means that this is no request of the protocol; a bad value is the
// request's fault.
func parseRequest(lines []attribute) (*request, error) {
	by := make(map[string]string, len(lines))
	for _, l := range lines {
		if _, twice := by[l.name]; twice {
			return nil, fmt.Errorf("%.64q twice: %w", l.name, errGarbage)
		}
		by[l.name] = l.value
	}
	if kind := by["request"]; kind != requestTag {
		return nil, fmt.Errorf("request %.64q: %w", kind, errGarbage)
	}
	rq := &request{state: by["protocol_state"], instance: by["instance"]}
	switch rq.state {
	case "CONNECT", "XCLIENT":
		rq.stage = policy.Connect
	case "HELO", "EHLO", "LHLO", "VRFY", "ETRN":
		rq.stage = policy.Helo
	case "MAIL":
		rq.stage = policy.Mail
	case "RCPT":
		rq.stage = policy.Rcpt
	case "DATA", "BDAT":
		rq.stage = policy.Data
	case "END-OF-MESSAGE":
		rq.stage, rq.last = policy.Data, true
	default:
		return nil, fmt.Errorf("protocol_state %.64q: %w", rq.state, errGarbage)
	}
	rq.fill(by)
	return rq, nil
}

// aside reports whether rq is about a command that is no part of a transaction
// but may come within one. It brings no mail: who asks is all there is to judge.
func (rq *request) aside() bool { return rq.state == "VRFY" || rq.state == "ETRN" }

// fill reads the values.
func (rq *request) fill(by map[string]string) {
	protocol := by["protocol_name"]
	rq.lmtp = protocol == "LMTP"
	rq.client = rq.endpoint("client", by["client_address"], by["client_port"])
	rq.server = rq.endpoint("server", by["server_address"], by["server_port"])
	rq.name, rq.reverseName = known(by["client_name"]), known(by["reverse_client_name"])
	rq.tls = mail.TLS{Version: by["encryption_protocol"], Cipher: by["encryption_cipher"]}
	if rq.helo = by["helo_name"]; rq.stage < policy.Helo {
		rq.helo = ""
	}
	rq.extended = protocol == "ESMTP" || rq.state == "EHLO"
	if rq.user = by["sasl_username"]; rq.user != "" {
		rq.mechanism = by["sasl_method"]
	}
	if id := by["queue_id"]; len(id) <= 64 && strings.Trim(id, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == "" {
		rq.queueID = mail.ID(id)
	}
	if rq.stage < policy.Mail {
		return
	}
	rq.sender = rq.path("sender", by["sender"])
	rq.size = rq.number("size", by["size"])
	if rq.stage < policy.Rcpt {
		return
	}
	rq.recipient = rq.path("recipient", by["recipient"])
	if rq.stage == policy.Rcpt && rq.recipient.IsNull() {
		rq.bad("recipient", "", "there is none")
	}
	if rq.stage == policy.Data {
		rq.count = int(rq.number("recipient_count", by["recipient_count"]))
	}
}

// bad notes the first value that is none.
func (rq *request) bad(name, value, why string) {
	if rq.fault == nil {
		rq.fault = fmt.Errorf("%s %.64q: %s", name, value, why)
	}
}

// endpoint reads an address; the port may be missing. A client without an
// address came over a Unix socket.
func (rq *request) endpoint(name, address, port string) netip.AddrPort {
	if known(address) == "" {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		rq.bad(name+"_address", address, "no IP address")
		return netip.AddrPort{}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		n = 0
	}
	return netip.AddrPortFrom(a.Unmap().WithZone(""), uint16(n))
}

// known is name unless it is Postfix's word for none.
func known(name string) string {
	if name == unknown {
		return ""
	}
	return name
}

// path reads an address as Postfix sends it: the local part without its quotes.
func (rq *request) path(name, value string) mail.Path {
	local, domain := value, ""
	if i := strings.LastIndexByte(value, '@'); i >= 0 {
		local, domain = value[:i], value[i:]
	}
	p, err := mail.ParsePath(value, true)
	if err != nil || strings.HasPrefix(local, `"`) {
		p, err = mail.ParsePath(quoted(local)+domain, true)
	}
	if err != nil {
		rq.bad(name, value, err.Error())
	}
	return p
}

// quoted is a local part as a Quoted-string (RFC 5321 §4.1.2).
func quoted(local string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
}

func (rq *request) number(name, value string) int64 {
	if value == "" {
		return 0
	}
	n, err := strconv.ParseUint(value, 10, 62)
	if err != nil {
		rq.bad(name, value, "no number")
	}
	return int64(n)
}
