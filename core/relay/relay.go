// Package relay brings messages to other hosts over SMTP (RFC 5321) and LMTP (RFC
// 2033): it finds the mail exchangers of a domain, connects, encrypts as far as
// the policy of the destination asks for, and hands the message over.
//
//	c, err := relay.New(relay.Config{Hostname: "mail.example.org", Resolver: r, …})
//	report := c.Deliver(ctx, delivery)
//	err = c.Close()
//
// An attempt goes through hop.go (where to), dial.go (connect, greet, STARTTLS,
// AUTH), transaction.go (MAIL to the final dot) and pool.go (keep the connection
// for the next message). Every reply is kept word for word in the outcome.
//
// # Guarantees
//
// A recipient is reported as sent only after the other host's 2xx to the message,
// and as failed only after its 5xx, or where nothing can change the matter: no such
// domain, a null MX, a message that the host says it cannot take. Everything else is
// temporary. A message whose final dot was sent and not answered is never sent
// again in the same attempt. Only CR LF ends a line on the wire, whatever the
// message has. Replies are bounded, and so is every wait.
//
// # BUGS
//
// Long lines are sent as they are. SASL knows PLAIN and LOGIN. Message octets are
// not looked at before BDAT, so a message with bare line ends goes through it as
// it is; what the queue takes in has none.
package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"time"

	"github.com/wafermail/wafer/core/dns"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/mtasts"
)

// Config is what New needs: Hostname and Resolver.
type Config struct {
	Hostname string // in EHLO
	Resolver dns.Resolver
	Port     uint16       // of mail exchangers; 25
	Source   []netip.Addr // that connections come from: at most one of each family

	// TLS is the policy of a destination by its domain, nil or Level 0: May.
	TLS   func(domain string) TLSPolicy
	STS   STS            // MTA-STS policies; nil: they are not asked for
	Roots *x509.CertPool // nil: the system's

	Transports map[string]Transport // besides "smtp"

	// Self reports whether we listen there ourselves; nil: never.
	Self func(netip.AddrPort) bool
	// Downgrade turns a message into 7-bit for a host that takes no other; nil:
	// such a message fails.
	Downgrade func(*mail.Delivery) (head []byte, body io.ReaderAt, size int64, cleanup func(), err error)

	Timeouts Timeouts
	Reuse    Reuse

	// Dial connects; nil: a net.Dialer.
	Dial   func(ctx context.Context, network, address string, source netip.Addr) (net.Conn, error)
	Logger *slog.Logger
}

// STS is where MTA-STS policies come from (RFC 8461); *mtasts.Cache is one.
type STS interface {
	Policy(ctx context.Context, domain string) (p mtasts.Policy, known bool)
}

// Transport is a way with a name.
type Transport struct {
	LMTP     bool
	Host     string // next hop where the route names none: "host", "host:port", "[192.0.2.1]:25", "unix:/path"
	Username string // SASL; "": none
	Password string
	TLS      TLSPolicy // Level 0: Config.TLS
	Implicit bool      // TLS from the first octet (RFC 8314)
	Source   []netip.Addr
}

// Timeouts of one wait each; 0: the default (RFC 5321 §4.5.3.2).
type Timeouts struct {
	Connect  time.Duration // 30 s
	Greeting time.Duration // 5 min; also EHLO and STARTTLS
	Command  time.Duration // 5 min
	Block    time.Duration // 3 min, for a piece of the message
	Final    time.Duration // 10 min, for the reply to the message
}

// Reuse says how long a connection is kept for the next message; 0: the default.
type Reuse struct {
	Idle     time.Duration // 2 s; negative: connections are not kept
	Age      time.Duration // 300 s
	Messages int           // 100 on one connection
	Idles    int           // 200 connections
}

func (c *Config) defaults() {
	or := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	t := &c.Timeouts
	or(&t.Connect, 30*time.Second)
	or(&t.Greeting, 5*time.Minute)
	or(&t.Command, 5*time.Minute)
	or(&t.Block, 3*time.Minute)
	or(&t.Final, 10*time.Minute)
	or(&c.Reuse.Idle, 2*time.Second)
	or(&c.Reuse.Age, 300*time.Second)
	if c.Reuse.Messages == 0 {
		c.Reuse.Messages = 100
	}
	if c.Reuse.Idles == 0 {
		c.Reuse.Idles = 200
	}
	if c.Port == 0 {
		c.Port = 25
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Dial == nil {
		c.Dial = dial
	}
}

func dial(ctx context.Context, network, address string, source netip.Addr) (net.Conn, error) {
	var d net.Dialer
	if source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	return d.DialContext(ctx, network, address)
}

// Client delivers. It is safe for concurrent use.
type Client struct {
	c          Config
	transports map[string]Transport
	pool       *pool
	sessions   *tls.Config // base, with a session cache
	tally      tally
}

// SMTP is the name of the transport that is always there.
const SMTP = "smtp"

// New returns a Client. Errors: no Hostname or Resolver, a Transport's Host that
// cannot be read.
func New(c Config) (*Client, error) {
	if c.Hostname == "" || c.Resolver == nil {
		return nil, errors.New("a relay needs a host name and a resolver")
	}
	c.defaults()
	r := &Client{c: c, transports: map[string]Transport{SMTP: {}}, sessions: &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(256)}}
	maps.Copy(r.transports, c.Transports)
	for name, t := range r.transports {
		if t.Host == "" {
			continue
		}
		if _, err := parseHop(t.Host, c.Port); err != nil {
			return nil, fmt.Errorf("transport %s: %w", name, err)
		}
	}
	r.pool = newPool(c.Reuse)
	return r, nil
}

// Close ends idle connections and stops. Deliveries under way end with their
// contexts.
func (r *Client) Close() error {
	r.pool.close()
	return nil
}

// attempt is one Deliver under way.
type attempt struct {
	*Client
	d     *mail.Delivery
	t     Transport
	hop   hop
	key   poolKey
	open  []int // indices of recipients without a final outcome
	out   []mail.Outcome
	reach bool // some host let us come to MAIL
	begun int  // sessions
}

// Bounds of one attempt.
const (
	maxAddresses = 6 // that are dialled
	maxSessions  = 3 // that come to MAIL
)

// Deliver makes one attempt for all recipients of d (see queue.Transport). The
// route's transport is "smtp" or one of Config.Transports.
func (r *Client) Deliver(ctx context.Context, d *mail.Delivery) mail.Report {
	a := &attempt{Client: r, d: d, out: make([]mail.Outcome, len(d.Envelope.Rcpts))}
	for i := range a.out {
		a.open = append(a.open, i)
	}
	if f := a.run(ctx); f != nil {
		a.settle(f.outcome)
	}
	return mail.Report{Outcomes: a.out, Unreachable: !a.reach && a.anyTemporary()}
}

// settle gives everybody who is open an outcome.
func (a *attempt) settle(o mail.Outcome) {
	for _, i := range a.open {
		a.out[i] = o
	}
	if !o.Status.Temporary() {
		a.open = nil
	}
}

func (a *attempt) anyTemporary() bool {
	for _, o := range a.out {
		if o.Status.Temporary() {
			return true
		}
	}
	return false
}

// failure is why a step did not succeed: what it means for everybody who is open.
type failure struct {
	outcome mail.Outcome
	stale   bool // a connection that was kept had died: try with a new one
	plain   bool // the TLS handshake failed: try without
	next    bool // although it is permanent, another host may differ
}

// Error is for logs.
func (f *failure) Error() string { return f.outcome.Status.Text }

// ours is a finding of our own.
func ours(code int, enhanced, format string, args ...any) *failure {
	return &failure{outcome: mail.Outcome{Status: mail.Status{Code: code, Enhanced: enhanced, Text: fmt.Sprintf(format, args...)}}}
}

// run tries a kept connection, then host after host.
func (a *attempt) run(ctx context.Context) *failure {
	t, ok := a.transports[a.d.Route.Transport]
	if !ok {
		return ours(451, "4.3.5", "there is no transport %s", a.d.Route.Transport)
	}
	a.t = t
	name := a.d.Route.Hop
	if name == "" {
		name = t.Host
	}
	var err error
	if a.hop, err = parseHop(name, a.c.Port); err != nil {
		if name != mail.DomainKey(a.d.Envelope.Rcpts[0].To.Domain()) { // it was a person who wrote that
			return ours(451, "4.3.5", "%v", err)
		}
		return ours(550, "5.1.2", "%v", err)
	}
	if t.Implicit && a.hop.port == a.c.Port {
		a.hop.port = 465
	}
	a.key = poolKey{a.d.Route.Transport, a.hop}
	for s := a.pool.take(a.key); s != nil; s = a.pool.take(a.key) {
		if !alive(s.conn) {
			s.broken = true
			s.quit()
			continue
		}
		f := a.use(ctx, s)
		if f == nil || !f.stale {
			return a.partly(f)
		}
	}
	if a.hop.unix != "" {
		return a.partly(a.reachAndUse(ctx, target{remote: a.hop.unix, network: "unix", address: a.hop.unix}, TLSPolicy{Level: None}))
	}
	return a.hosts(ctx)
}

// partly is f, unless it says nothing about recipients that have an outcome.
func (a *attempt) partly(f *failure) *failure {
	if f == nil || len(a.open) == 0 {
		return nil
	}
	return f
}

// hosts tries the destination's hosts in turn, until nobody is open.
func (a *attempt) hosts(ctx context.Context) *failure {
	policy := a.policy()
	targets, policy, f := a.targets(ctx, policy)
	if f != nil {
		return f
	}
	var last *failure
	for i, t := range targets {
		if i >= maxAddresses || a.begun >= maxSessions || ctx.Err() != nil {
			break
		}
		f := a.reachAndUse(ctx, t, policy)
		if f == nil && len(a.open) == 0 {
			return nil
		}
		if f != nil {
			last = f
			a.c.Logger.Debug("host did not take the message", "id", a.d.Envelope.ID, "host", t.remote, "err", f)
			if f.outcome.Status.Permanent() && !f.next {
				return a.partly(f)
			}
		}
	}
	switch {
	case len(a.open) == 0:
		return nil
	case last == nil && a.begun > 0:
		return nil // each recipient has its own outcome
	case last == nil:
		return ours(451, "4.4.1", "no host could be tried")
	}
	for _, i := range a.open {
		if a.out[i].Status.Code != 0 && last.outcome.Remote == "" {
			return nil // what a host said to each is better than that the next was not reached
		}
	}
	return last
}

// reachAndUse connects to one address and makes the transaction.
func (a *attempt) reachAndUse(ctx context.Context, t target, policy TLSPolicy) *failure {
	s, f := a.reachHost(ctx, t, policy)
	if f != nil && f.plain {
		a.c.Logger.Info("TLS failed, going on without", "host", t.remote, "err", f)
		s, f = a.reachHost(ctx, t, TLSPolicy{Level: None})
	}
	if f != nil {
		return f
	}
	return a.use(ctx, s)
}

// use makes the transaction on a session and keeps or ends that.
func (a *attempt) use(ctx context.Context, s *session) *failure {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) })
	f := a.transact(s)
	if !stop() { // the deadline is, or will be, in the past
		s.broken = true
	}
	if f != nil && ctx.Err() != nil {
		f.stale = false
	}
	if s.broken || !a.pool.keep(a.key, s) {
		s.quit()
	}
	return f
}
