// Package imapd is the IMAP dialogue: IMAP4rev1 (RFC 3501) and IMAP4rev2
// (RFC 9051) over the mail store of package maildir.
//
// A Server serves listeners. Each connection has one goroutine that reads a
// command, runs it and writes the replies; IDLE and NOTIFY add one that waits
// for the signal of folders and wakes the first.
//
//	srv, err := imapd.New(imapd.Config{Hostname: "mail.example.org", TLS: conf, Auth: service, Mailbox: open, Logger: log})
//	go srv.Serve(listener)
//	…
//	err = srv.Shutdown(ctx)
//
// A session looks at its mailbox through a view, the numbered list of messages
// that the client knows. The view shares the folder's own list where the two
// are equal, so that it costs nothing, and is brought up to date only where
// RFC 9051 §7.5.1 allows: never does an EXPUNGE come while a client that counts
// messages could misunderstand it.
//
// Message data is streamed from the file into the output buffer. Replies are
// gathered until 16 KiB are ready or the session has to wait. What a session
// keeps while it waits is half a kilobyte of input buffer and its stack.
//
// Every input is bounded: lines, literals by state, nesting, numbers of
// elements, header octets that are looked at, and MIME parts. No mail can make
// a command fail; what is malformed is described as well as it can be.
//
// # BUGS
//
// \Recent is kept in the memory of the process, so after a restart the
// messages that nobody has read are taken for recent. SEARCH reads bodies of
// text parts only, without an index. The header of a message beyond 2 MiB is
// sent but not searched. Messages have no THREADID. While an APPEND of several
// messages runs, others can see the first of them, and a kill then leaves them.
// A mailbox that is renamed while it is selected is closed. Values of METADATA
// cannot hold NUL. NOTIFY takes every mailbox for an inbox, and is silent about
// names that only have mailboxes below them.
package imapd

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/policy"
)

// Authenticator checks who a client is; *auth.Service does. Its methods wait
// out the penalty of a client that guesses.
type Authenticator interface {
	Mechanisms(p auth.Peer) []string
	Login(ctx context.Context, user, password string, p auth.Peer) (auth.Identity, error)
	Start(mechanism string, p auth.Peer) (*auth.Exchange, error)
}

// Config says how a Server works.
type Config struct {
	Hostname     string
	TLS          *tls.Config    // nil: no TLS
	Implicit     bool           // TLS from the first octet (RFC 8314); else STARTTLS
	AuthLoopback bool           // clients on loopback addresses may log in without TLS
	ProxyFrom    []netip.Prefix // peers that begin with a PROXY header; empty: nobody
	Trusted      []netip.Prefix // clients that Limits.PerClient and PerUser do not bind, such as a webmail
	Without      []string       // words of CAPABILITY that are not offered, such as "COMPRESS=DEFLATE"
	Limits       Limits

	Auth Authenticator
	// Policies pins the policies of the current generation for a session;
	// release is called at its end. Nil: no policies.
	Policies func() (set *policy.Set, release func())
	// Mailbox opens the mail store of an authenticated user. The session closes it.
	Mailbox func(ctx context.Context, user string) (*maildir.Store, error)

	Logger *slog.Logger // nil: silent
}

// Limits bound what clients may use. Zero fields have the defaults given here.
type Limits struct {
	Connections   int           // at once, all clients; 10,000
	PerClient     int           // at once, per address (/64 of IPv6); 100
	PerUser       int           // at once, per user; 50
	Message       int64         // octets of a message in APPEND; 52,428,800
	BadCommands   int           // refused commands in a row before the session ends; 20
	LoginFailures int           // before the session ends; 5
	Greeting      time.Duration // from connect to login; 60 s
	Idle          time.Duration // without a command, and in IDLE; 30 min, at least 29 min (RFC 9051 §5.4)
	Literal       time.Duration // for the next octets in the midst of a command; 5 min
	Write         time.Duration // for the peer to take the next 32 KiB; 2 min
}

func (l Limits) withDefaults() Limits {
	num := func(p *int, n int) {
		if *p <= 0 {
			*p = n
		}
	}
	dur := func(p *time.Duration, d time.Duration) {
		if *p <= 0 {
			*p = d
		}
	}
	num(&l.Connections, 10000)
	num(&l.PerClient, 100)
	num(&l.PerUser, 50)
	num(&l.BadCommands, 20)
	num(&l.LoginFailures, 5)
	if l.Message <= 0 {
		l.Message = 52428800
	}
	dur(&l.Greeting, time.Minute)
	dur(&l.Idle, 30*time.Minute)
	dur(&l.Literal, 5*time.Minute)
	dur(&l.Write, 2*time.Minute)
	return l
}

// Stats is what a Server has done so far.
type Stats struct {
	Open    int    // connections
	Total   uint64 // connections accepted
	Refused uint64 // of them: over a limit, or by a policy
	Logins  uint64
	Panics  uint64
}

// Server serves IMAP on any number of listeners.
type Server struct {
	c       Config
	log     *slog.Logger
	ctx     context.Context
	cancel  context.CancelFunc
	inputs  inputs
	outputs outputs
	recent  recents

	progressEvery time.Duration
	notifyLook    time.Duration

	total, refused, logins, panics atomic.Uint64

	wg        sync.WaitGroup
	mu        sync.Mutex
	closing   bool
	listeners map[net.Listener]struct{}
	sessions  map[*session]struct{}
	clients   map[netip.Prefix]int
	users     map[string]int
}

// New checks c and returns a Server that serves nothing yet.
func New(c Config) (*Server, error) {
	switch {
	case c.Hostname == "":
		return nil, errors.New("imap server: no host name")
	case c.Auth == nil:
		return nil, errors.New("imap server: no authenticator")
	case c.Mailbox == nil:
		return nil, errors.New("imap server: no mail store")
	case c.Implicit && c.TLS == nil:
		return nil, errors.New("imap server: implicit TLS without a TLS configuration")
	}
	if err := checkWithout(c.Without); err != nil {
		return nil, err
	}
	c.Limits = c.Limits.withDefaults()
	c.TLS = auth.TLSConfig(c.TLS)
	s := &Server{
		c: c, log: c.Logger,
		listeners: map[net.Listener]struct{}{}, sessions: map[*session]struct{}{},
		clients: map[netip.Prefix]int{}, users: map[string]int{},
		recent: recents{from: map[recentKey]uint32{}}, progressEvery: progressEvery, notifyLook: notifyLook,
	}
	if s.log == nil {
		s.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.sessions)
	s.mu.Unlock()
	return Stats{Open: open, Total: s.total.Load(), Refused: s.refused.Load(), Logins: s.logins.Load(), Panics: s.panics.Load()}
}
