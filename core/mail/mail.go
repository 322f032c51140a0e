// Package mail holds the nouns of mail that every part of the server shares:
// paths, envelopes, statuses and identifiers. It does no input or output and
// imports nothing of the project.
//
// A Path is the only form in which an address travels. It is split at the
// last "@", every octet of it has been validated, and String re-quotes it, so
// that whatever a peer sent cannot break out of the protocol line that it is
// later written to.
package mail

import (
	"net/netip"
	"time"
)

// Envelope is what an SMTP transaction says about a message (RFC 5321 §2.3.1):
// who speaks, on whose behalf, and to whom. The message itself is not in it.
type Envelope struct {
	ID       ID        // queue id, unique for ever on this host
	Session  string    // id of the session that brought the message
	Received time.Time // when MAIL FROM was accepted

	Client   Client
	From     Path   // reverse-path; the null path for bounces
	User     string // authenticated user, "" if none
	Size     int64  // SIZE parameter in octets, 0 if absent (RFC 1870)
	Body     Body   // BODY parameter (RFC 6152, RFC 3030)
	UTF8     bool   // SMTPUTF8 parameter (RFC 6531)
	Return   string // RET parameter: "", "FULL" or "HDRS" (RFC 3461 §4.3)
	EnvID    string // ENVID parameter, xtext decoded (RFC 3461 §4.4)
	Protocol string // "SMTP", "ESMTP", "ESMTPSA", "LMTP", … (RFC 3848, RFC 6531)

	Rcpts []Recipient
}

// Client says who is at the other end of the connection.
type Client struct {
	Addr netip.AddrPort // of the client, after PROXY and XCLIENT
	Name string         // verified name (the name that the address maps to and that maps back), "" if none
	Helo string         // argument of HELO, EHLO or LHLO
	TLS  TLS
}

// TLS describes the connection's encryption; the zero value is plain text.
type TLS struct {
	Version string // "TLSv1.3", "" if the connection is not encrypted
	Cipher  string // "TLS_AES_128_GCM_SHA256"
	SNI     string // name that the client asked for
}

// On reports whether the connection is encrypted.
func (t TLS) On() bool { return t.Version != "" }

// Body is the value of MAIL's BODY parameter.
type Body string

// The values of BODY (RFC 6152 §3, RFC 3030 §3). The zero value means absent.
const (
	Body7Bit   Body = "7BIT"
	Body8Bit   Body = "8BITMIME"
	BodyBinary Body = "BINARYMIME"
)

// Recipient is one RCPT TO with its parameters (RFC 3461 §4.1, §4.2).
type Recipient struct {
	To     Path     // forward-path as given
	Notify []string // NOTIFY: upper-case keywords, empty if absent
	ORcpt  string   // ORCPT as "addr-type;address", xtext decoded; "" if absent
}

// Status is a reply of an SMTP server: what it would say in a session, and
// what a delivery ends in (RFC 5321 §4.2, RFC 3463).
type Status struct {
	Code     int    // 250, 451, 550; 0 means "no objection"
	Enhanced string // "5.7.1"; "" if there is none
	Text     string // one or more lines separated by "\n", no CR
}

// OK reports whether the status is no refusal.
func (s Status) OK() bool { return s.Code < 400 }

// Temporary reports whether a later attempt may succeed (4xx).
func (s Status) Temporary() bool { return s.Code >= 400 && s.Code < 500 }

// Permanent reports whether another attempt is useless (5xx).
func (s Status) Permanent() bool { return s.Code >= 500 }
