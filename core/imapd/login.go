package imapd

import (
	"encoding/base64"
	"errors"
	"time"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/policy"
)

// maxSASLLine is the longest line of a SASL exchange: 12288 octets (RFC 4954
// §4.3 gives SMTP's measure; RFC 9051 none).
const maxSASLLine = 12288

func (s *session) mayStartTLS() bool {
	return s.srv.c.TLS != nil && !s.tls.On() && s.state == notAuthenticated
}

// mayLogin reports whether a password may be sent on this connection.
func (s *session) mayLogin() bool {
	return s.tls.On() || s.srv.c.AuthLoopback && s.client.Addr().IsLoopback()
}

// cmdStartTLS is RFC 9051 §6.2.1. What the client has sent before the
// handshake is thrown away.
func (s *session) cmdStartTLS(p *parser) (done, error) {
	if err := p.end(); err != nil {
		return done{}, err
	}
	if s.tls.On() {
		return done{}, bad("TLS is on already")
	}
	if !s.mayStartTLS() {
		return done{}, no("", "TLS is not available")
	}
	p.line, p.pos = nil, 0
	s.out.line(s.tag, " OK Begin TLS negotiation now")
	s.out.release()
	s.in.reset(s.in.src)
	if s.out.err != nil || !s.handshake() {
		s.over = true
	}
	return done{sent: true}, nil
}

func (s *session) peer() auth.Peer {
	return auth.Peer{Addr: s.client.Addr(), Protocol: "imap", TLS: s.tls.On(), Channel: auth.ChannelOf(s.conn)}
}

// cmdLogin is RFC 9051 §6.2.3.
func (s *session) cmdLogin(p *parser) (done, error) {
	if err := p.space(); err != nil {
		return done{}, err
	}
	user, err := p.astring()
	if err != nil {
		return done{}, err
	}
	if err := p.space(); err != nil {
		return done{}, err
	}
	password, err := p.astring()
	if err != nil {
		return done{}, err
	}
	if err := p.end(); err != nil {
		return done{}, err
	}
	if !s.mayLogin() {
		return done{}, no("PRIVACYREQUIRED", "Use STARTTLS before a password is sent")
	}
	who, err := s.srv.c.Auth.Login(s.ctx, user, password, s.peer())
	return s.loggedIn("LOGIN", user, who, err)
}

// cmdAuthenticate is RFC 9051 §6.2.2 with an optional initial response.
func (s *session) cmdAuthenticate(p *parser) (done, error) {
	if err := p.space(); err != nil {
		return done{}, err
	}
	mechanism, err := p.keyword()
	if err != nil {
		return done{}, err
	}
	var response []byte
	if !p.atEnd() {
		if err := p.space(); err != nil {
			return done{}, err
		}
		word := string(p.rest())
		p.pos = len(p.line)
		if response, err = decodeSASL(word); err != nil {
			return done{}, err
		}
	}
	if !s.mayLogin() {
		return done{}, no("PRIVACYREQUIRED", "Use STARTTLS before a password is sent")
	}
	exchange, err := s.srv.c.Auth.Start(mechanism, s.peer())
	if err != nil {
		return done{}, no("CANNOT", "Mechanism is not supported")
	}
	for {
		challenge, over, err := exchange.Next(s.ctx, response)
		if err != nil || over {
			return s.loggedIn(mechanism, exchange.User(), exchange.Identity(), err)
		}
		s.out.line("+ ", base64.StdEncoding.EncodeToString(challenge))
		s.out.flush()
		line, err := s.in.line()
		if errors.Is(err, errLineTooLong) {
			return done{}, bad("SASL response is too long")
		}
		if err != nil {
			return done{}, err
		}
		if string(line) == "*" {
			return done{}, bad("Authentication is cancelled")
		}
		if response, err = decodeSASL(string(line)); err != nil {
			return done{}, err
		}
		if response == nil {
			response = []byte{}
		}
	}
}

// decodeSASL decodes a response; "=" is an empty one (RFC 4959 §3).
func decodeSASL(s string) ([]byte, error) {
	if len(s) > maxSASLLine {
		return nil, bad("SASL response is too long")
	}
	if s == "=" {
		return []byte{}, nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, bad("SASL response is not base64")
	}
	return b, nil
}

// loggedIn ends a login: it asks the policies, opens the mail store and counts.
func (s *session) loggedIn(mechanism, tried string, who auth.Identity, err error) (done, error) {
	tried = clip(tried, 256)
	s.loginBy = time.Now().Add(s.srv.c.Limits.Greeting) // for the next attempt: waiting out a penalty must not cost it
	var refused policy.Decision
	if s.rules.Active(policy.Auth) {
		ev := s.event(policy.Auth)
		ev.User, ev.Mechanism, ev.AuthOK = tried, mechanism, err == nil
		if err == nil {
			ev.User = who.User
		}
		refused = s.ask(ev)
	}
	switch {
	case err != nil:
		return s.loginFailed(mechanism, tried, err, refused)
	case refused.Refused():
		s.log.Info("login refused", "client", s.client.String(), "user", who.User, "check", refused.Check, "reason", refused.Reason)
		text := oneLine(refused.Status.Text)
		if refused.Hangup {
			s.bye("", text)
			return done{}, nil
		}
		if refused.Status.Temporary() {
			return done{}, no("UNAVAILABLE", text)
		}
		return done{}, no("AUTHORIZATIONFAILED", text)
	}
	if !s.srv.admitUser(who.User, s.client.Addr()) {
		s.log.Info("login refused", "client", s.client.String(), "user", who.User, "reason", "too many connections")
		return done{}, no("LIMIT", textTooManyUser)
	}
	store, err := s.srv.c.Mailbox(s.ctx, who.User)
	if err != nil {
		s.srv.releaseUser(who.User)
		s.log.Error("open mailbox", "user", who.User, "err", err)
		return done{}, no("UNAVAILABLE", textUnavailable)
	}
	s.store, s.user, s.state = store, who.User, authenticated
	s.unjudge()
	s.srv.logins.Add(1)
	s.log.Info("login", "client", s.client.String(), "user", who.User, "mechanism", mechanism, "tls", s.tls.Version)
	return done{code: "CAPABILITY " + s.capabilities(), text: "Logged in"}, nil
}

func (s *session) loginFailed(mechanism, tried string, err error, d policy.Decision) (done, error) {
	s.failures++
	s.log.Info("login refused", "client", s.client.String(), "user", tried, "mechanism", mechanism, "reason", err.Error())
	if d.Refused() && d.Hangup {
		s.bye("", oneLine(d.Status.Text))
		return done{}, nil
	}
	if s.failures >= s.srv.c.Limits.LoginFailures {
		s.bye("", "Too many logins that failed")
		return done{}, nil
	}
	switch {
	case errors.Is(err, auth.ErrCredentials):
		return done{}, no("AUTHENTICATIONFAILED", "User name or password is wrong")
	case errors.Is(err, auth.ErrThrottled):
		return done{}, no("UNAVAILABLE", "Too many logins that failed; try again later")
	case errors.Is(err, auth.ErrMalformed):
		return done{}, bad("SASL response is malformed")
	}
	return done{}, no("UNAVAILABLE", textUnavailable)
}
