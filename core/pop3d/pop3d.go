// Package pop3d serves mailboxes over POP3 (RFC 1939) from Maildirs.
//
// A Server speaks on any number of listeners, with STLS (RFC 2595) or inside
// TLS. A session takes its INBOX for itself among POP3 sessions, numbers the
// messages that are there at login, and shows exactly these to its end.
// Extensions: CAPA with EXPIRE and IMPLEMENTATION (RFC 2449), AUTH (RFC 5034),
// response codes (RFC 2449, RFC 3206), pipelining with batched replies, UTF8
// (RFC 6856).
//
// What it guarantees: nothing is deleted before QUIT, and QUIT says +OK only
// when all deletions are durable. A session that ends in any other way deletes
// nothing. A unique id never changes: it is the one that Dovecot wrote down for
// the message, else the one that Dovecot would make, from the UID and the
// UIDVALIDITY. Messages are numbered as Dovecot would number them. A password
// is asked for only under TLS, or from this host where the configuration says so.
// An idle session holds about a kilobyte of buffers; each goroutine that serves
// a peer survives its own panics.
//
// # BUGS
//
// APOP is not offered: it needs the password in clear text on the server. LANG
// (RFC 6856 §3) is not offered: all replies are in English. A client that has
// not said UTF8 is given internationalised headers as they are, not downgraded
// (RFC 6857): a refusal would make the mailbox unreadable for clients that
// cope. There is no delay between two logins. A mailbox stays locked until a
// dead peer's timeout.
package pop3d

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/policy"
)

// Config is what a Server is made of.
type Config struct {
	Hostname string      // said in the greeting
	TLS      *tls.Config // nil: no TLS; older than 1.2 is never spoken
	Implicit bool        // TLS from the first octet (pop3s, RFC 8314)
	// AuthLoopback lets clients on this host log in without TLS.
	AuthLoopback bool
	// ProxyFrom are the proxies that must send a PROXY header. Empty: nobody may.
	ProxyFrom []netip.Prefix
	// Trusted clients are not bound by Limits.PerClient, such as a webmail.
	Trusted []netip.Prefix
	Limits  Limits
	Auth    Authenticator
	// Policies is called once for each connection. It returns the policies that
	// the session keeps to its end, and what to call then. nil: no policies.
	Policies func() (*policy.Set, func())
	// Mailbox opens the mailbox of a user who has logged in.
	Mailbox func(ctx context.Context, user string) (*maildir.Store, error)
	Logger  *slog.Logger // nil: no log
}

// Authenticator checks logins; *auth.Service is one.
type Authenticator interface {
	Mechanisms(p auth.Peer) []string
	Login(ctx context.Context, user, password string, p auth.Peer) (auth.Identity, error)
	Start(mechanism string, p auth.Peer) (*auth.Exchange, error)
}

// Limits bound what peers can take. The zero value of each field is its default.
type Limits struct {
	Connections int           // open at once; 10000
	PerClient   int           // of these from one IPv4 address or IPv6 /64; 20
	Line        int           // octets of a command with CRLF; 1024, more than RFC 2449 §4's 255 so that long names and passwords fit
	AuthLine    int           // octets of AUTH and of a SASL response with CRLF (RFC 5034 §4); 12288
	Errors      int           // bad commands before the session is ended; 20
	Logins      int           // failed logins before the session is ended; 5
	Login       time.Duration // to send a command before login; 60 s
	BeforeLogin time.Duration // from the connection to the login; 3 min
	Idle        time.Duration // to send a command after login (RFC 1939 §3 demands at least 10 min); 10 min
	Write       time.Duration // for the peer to take some octets; 2 min
	Tarpit      time.Duration // longest delay that a policy can ask for; 30 s
}

func (l Limits) withDefaults() Limits {
	orElse(&l.Connections, 10000)
	orElse(&l.PerClient, 20)
	orElse(&l.Line, 1024)
	orElse(&l.AuthLine, 12288)
	orElse(&l.Errors, 20)
	orElse(&l.Logins, 5)
	orElse(&l.Login, 60*time.Second)
	orElse(&l.BeforeLogin, 3*time.Minute)
	orElse(&l.Idle, 10*time.Minute)
	orElse(&l.Write, 2*time.Minute)
	orElse(&l.Tarpit, 30*time.Second)
	return l
}

func orElse[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// New checks c and returns a Server that listens nowhere yet.
func New(c Config) (*Server, error) {
	switch {
	case c.Auth == nil || c.Mailbox == nil:
		return nil, errors.New("pop3 server: no users or no mailboxes")
	case c.Implicit && c.TLS == nil:
		return nil, errors.New("pop3 server: implicit TLS without a certificate")
	case c.Hostname == "":
		return nil, errors.New("pop3 server: no host name")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.TLS != nil {
		c.TLS = auth.TLSConfig(hardened(c.TLS))
	}
	c.Limits = c.Limits.withDefaults()
	s := &Server{c: c, log: c.Logger, sessions: make(map[*session]struct{}), listeners: make(map[net.Listener]struct{}), clients: make(map[netip.Addr]int)}
	s.ctx, s.cut = context.WithCancel(context.Background())
	s.gentle, s.hurry = context.WithCancel(s.ctx)
	return s, nil
}

// hardened is c without old versions of TLS.
func hardened(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	if each := c.GetConfigForClient; each != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			own, err := each(hello)
			if own == nil || err != nil {
				return own, err
			}
			return hardened(own), nil
		}
	}
	return c
}
