package pop3d

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/proxy"
)

// session is one connection. Only its goroutine touches it, but for raw.
type session struct {
	wire
	srv   *Server
	raw   net.Conn // below TLS
	id    mail.ID
	begun time.Time

	client  netip.AddrPort
	server  netip.AddrPort
	tls     mail.TLS
	judge   *policy.Session
	release []func() // what to call in the end
	unjudge func()   // lets the policies go: once somebody has logged in they are asked nothing

	name   string // of USER, waiting for PASS
	user   string // who is logged in
	drop   *maildrop
	utf8   bool
	ending bool // close after the replies

	errors, failures   int
	retrieved, deleted int
	octets             int64
	reason             string // why it ended
}

func newSession(srv *Server, conn net.Conn) *session {
	s := &session{srv: srv, raw: conn, begun: time.Now()}
	s.id = mail.NewID(s.begun)
	s.conn, s.writeTimeout = conn, srv.c.Limits.Write
	s.buf = s.small[:]
	s.client, s.server = addrPort(conn.RemoteAddr()), addrPort(conn.LocalAddr())
	return s
}

// addrPort is the address of a TCP peer, the zero value for other sockets.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

func (s *session) door() string {
	if s.srv.c.Implicit {
		return "pop3s"
	}
	return "pop3"
}

// wake ends the wait for a command. Shutdown calls it, from its own goroutine.
func (s *session) wake() { _ = s.raw.SetReadDeadline(time.Unix(1, 0)) }

// serve runs the session to its end.
func (s *session) serve() {
	defer s.end()
	defer s.recovered()
	if !s.open() {
		return
	}
	for !s.ending {
		line, err := s.readLine(s.srv.c.Limits.Line, s.mayBeLong, s.await)
		if errors.Is(err, errLineLong) {
			s.fault(replyLong)
			continue
		}
		if err != nil {
			s.lost(err)
			return
		}
		c, ok := parseCommand(line)
		clear(line) // it may have been a password
		if !ok {
			s.fault(replySyntax)
			continue
		}
		s.do(c)
	}
	_ = s.flush() // the session ends in any case
}

// mayBeLong reports whether a line may be longer than a command may.
func (s *session) mayBeLong(start []byte) bool { return s.drop == nil && isAuth(start) }

// await prepares a wait for the client: it sets the deadline.
func (s *session) await() error {
	l := &s.srv.c.Limits
	deadline := time.Now().Add(l.Idle)
	if s.drop == nil {
		deadline = time.Now().Add(l.Login)
		if end := s.begun.Add(l.BeforeLogin); end.Before(deadline) {
			deadline = end
		}
	}
	if err := s.raw.SetReadDeadline(deadline); err != nil {
		return err
	}
	// In this order: either Shutdown has begun, or its wake comes after this deadline.
	if s.srv.gentle.Err() != nil {
		return errClosing
	}
	return nil
}

// open learns who the client is, lets it in and greets it; false means close.
func (s *session) open() bool {
	if within(s.client.Addr(), s.srv.c.ProxyFrom) && !s.readProxy() {
		return false
	}
	if addr := s.client.Addr(); addr.IsValid() && !within(addr, s.srv.c.Trusted) {
		if !s.srv.enter(addr) {
			s.srv.turnedAway.Add(1)
			s.reason = "too many connections"
			if !s.srv.c.Implicit {
				s.say(replyBusy)
				_ = s.flush() // it is closed in any case
			}
			return false
		}
		s.release = append(s.release, func() { s.srv.leave(addr) })
	}
	var set *policy.Set
	if s.srv.c.Policies != nil {
		var done func()
		set, done = s.srv.c.Policies()
		if done != nil {
			s.unjudge = sync.OnceFunc(done)
			s.release = append(s.release, s.unjudge)
		}
	}
	s.judge = set.Session(s.door())
	if s.srv.c.Implicit && !s.handshake() {
		return false
	}
	if d := s.ask(policy.Connect, "", "", false); d.Refused() {
		s.say(refusal(d.Status))
		s.reason = "refused by policy"
		_ = s.flush() // it is closed in any case
		return false
	}
	s.say("+OK " + s.srv.c.Hostname + " POP3 server ready")
	return true
}

// proxyPatience is how long a proxy may take for its header.
const proxyPatience = 5 * time.Second

// readProxy reads the header that a proxy has to send. One that speaks for
// itself (a health check) keeps its own address.
func (s *session) readProxy() bool {
	err := s.raw.SetReadDeadline(time.Now().Add(proxyPatience))
	if err == nil && s.srv.gentle.Err() != nil {
		err = errClosing
	}
	var h proxy.Header
	if err == nil {
		h, err = proxy.Read(s.raw)
	}
	if err != nil {
		s.srv.log.Warn("no PROXY header from a proxy", "session", string(s.id), "client", s.client.String(), "err", err)
		s.reason = "no PROXY header"
		return false
	}
	if h.Client.IsValid() {
		s.client, s.server = h.Client, h.Server
	}
	return true
}

// handshake puts TLS on the connection; false means that it is unusable.
func (s *session) handshake() bool {
	if err := s.await(); err != nil {
		s.lost(err)
		return false
	}
	tc := auth.TLSServer(s.conn, s.srv.c.TLS)
	ctx, cancel := context.WithTimeout(s.srv.gentle, s.srv.c.Limits.Login)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		s.reason = "tls handshake failed"
		s.srv.log.Debug("tls handshake failed", "session", string(s.id), "client", s.client.String(), "err", err)
		return false
	}
	s.conn = tc
	st := tc.ConnectionState()
	s.tls = mail.TLS{Version: tls.VersionName(st.Version), Cipher: tls.CipherSuiteName(st.CipherSuite), SNI: st.ServerName}
	return true
}

// ask asks the policies and waits if they say so.
func (s *session) ask(stage policy.Stage, user, mechanism string, ok bool) policy.Decision {
	if !s.judge.Active(stage) {
		return policy.Decision{}
	}
	d := s.judge.Ask(s.srv.gentle, &policy.Event{
		Stage: stage, Time: time.Now(), Session: string(s.id),
		Door: s.door(), Protocol: "pop3", Hostname: s.srv.c.Hostname,
		Server: s.server, Client: s.client, Trusted: within(s.client.Addr(), s.srv.c.Trusted),
		TLS: s.tls, User: user, Mechanism: mechanism, AuthOK: ok,
	})
	if wait := min(d.Effects.Tarpit, s.srv.c.Limits.Tarpit); wait > 0 {
		_ = sleep(s.srv.gentle, wait) // the next read finds out why it was cut short
	}
	return d
}

// say adds a one-line reply.
func (s *session) say(line string) {
	s.out = append(s.out, line...)
	s.out = append(s.out, '\r', '\n')
	if len(s.out) > outLimit {
		if err := s.flush(); err != nil {
			s.lost(err)
		}
	}
}

// fault answers a bad command, and ends a session that has had too many.
func (s *session) fault(line string) {
	if s.errors++; s.errors >= s.srv.c.Limits.Errors {
		line, s.ending, s.reason = replyErrors, true, "too many bad commands"
	}
	s.say(line)
}

// lost ends the session because of err, with a last word where the client can
// still be listening.
func (s *session) lost(err error) {
	if s.ending {
		return
	}
	s.ending = true
	switch {
	case s.srv.gentle.Err() != nil:
		s.reason = "shutdown"
		s.say(replyClosing)
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.reason = "timeout"
		s.say(replyTimeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		s.reason = "client left"
	default:
		s.reason = err.Error()
	}
	_ = s.flush() // the first error counts
}

// recovered keeps a bug in one session from ending the server.
func (s *session) recovered() {
	p := recover()
	if p == nil {
		return
	}
	s.srv.panics.Add(1)
	s.reason = "panic"
	s.srv.log.Error("session panicked", "session", string(s.id), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	s.out = append(s.out[:0], replyPanic+"\r\n"...)
	_ = s.flush()
}

// end gives everything back. It says in one line what the session did.
func (s *session) end() {
	s.leave()
	_ = s.conn.Close() // all that was promised has been written
	_ = s.raw.Close()
	for _, release := range s.release {
		release()
	}
	s.srv.log.Info("pop3 session", "session", string(s.id), "client", s.client.String(), "user", s.user, "tls", s.tls.Version,
		"retrieved", s.retrieved, "deleted", s.deleted, "octets", s.octets, "end", s.reason, "dur", time.Since(s.begun))
}
