package pop3d

import (
	"encoding/base64"
	"errors"
	"strings"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/policy"
)

// private reports whether a password may be sent now: under TLS, or from this
// host where the configuration says so. The host is the one that connected and
// the one that a proxy says it speaks for.
func (s *session) private() bool {
	return s.tls.On() || s.srv.c.AuthLoopback && s.client.Addr().IsLoopback() && addrPort(s.raw.RemoteAddr()).Addr().IsLoopback()
}

// do carries a command out.
func (s *session) do(c command) {
	switch c.verb {
	case "QUIT", "CAPA", "STLS", "NOOP", "STAT", "RSET", "UTF8":
		if c.arg != "" {
			s.fault(replyArgument)
			return
		}
	}
	switch c.verb {
	case "QUIT":
		s.quit()
	case "CAPA":
		s.capa()
	case "USER", "PASS", "AUTH", "STLS", "UTF8":
		if s.drop != nil {
			s.fault(replyNow)
			return
		}
		s.authorization(c)
	case "STAT", "LIST", "RETR", "DELE", "NOOP", "RSET", "TOP", "UIDL":
		if s.drop == nil {
			s.fault(replyNow)
			return
		}
		s.transaction(c)
	default:
		s.fault(replyUnknown)
	}
}

// capa lists the capabilities (RFC 2449 §5). SASL and USER are shown only where
// they may be used (RFC 2595 §2.2), before and after login alike.
func (s *session) capa() {
	s.say("+OK Capabilities follow")
	for _, line := range []string{"TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER", "UTF8 USER"} {
		s.say(line)
	}
	if s.srv.c.TLS != nil && !s.tls.On() {
		s.say("STLS")
	}
	if s.private() {
		s.say("USER")
		s.say("SASL " + strings.Join(s.srv.c.Auth.Mechanisms(s.peer()), " "))
	}
	s.say("IMPLEMENTATION wafer")
	s.say(".")
}

// authorization carries out the commands of the AUTHORIZATION state.
func (s *session) authorization(c command) {
	switch c.verb {
	case "STLS":
		s.startTLS()
	case "UTF8": // RFC 6856 §2.1
		s.utf8 = true
		s.say(replyUTF8)
	case "USER":
		switch {
		case !s.private():
			s.fault(replyNeedTLS)
		case c.arg == "":
			s.fault(replySyntax)
		default:
			s.name = c.arg // whether it exists is nobody's business yet (RFC 1939 §13)
			s.say(replyUser)
		}
	case "PASS":
		name := s.name
		s.name = ""
		switch {
		case !s.private():
			s.fault(replyNeedTLS)
		case name == "":
			s.fault(replyNoUser)
		default:
			who, err := s.srv.c.Auth.Login(s.srv.gentle, name, c.arg, s.peer())
			s.judged(name, "USER", who, err)
		}
	case "AUTH":
		s.name = ""
		s.auth(c.arg)
	}
}

func (s *session) peer() auth.Peer {
	return auth.Peer{Addr: s.client.Addr(), Protocol: "pop3", TLS: s.tls.On(), Channel: auth.ChannelOf(s.conn)}
}

// startTLS is STLS (RFC 2595 §4). What came in the clear after it, perhaps from
// somebody in between, is dropped, and what was said before is forgotten.
func (s *session) startTLS() {
	switch {
	case s.srv.c.TLS == nil:
		s.fault(replyNoTLS)
	case s.tls.On():
		s.fault(replyTLSTwice)
	default:
		s.discard()
		s.say(replyStartTLS)
		if err := s.flush(); err != nil {
			s.lost(err)
			return
		}
		s.name, s.utf8 = "", false
		if !s.handshake() {
			s.ending, s.out = true, nil
		}
	}
}

// auth is AUTH (RFC 5034). Without an argument it lists the mechanisms, as old
// clients expect.
func (s *session) auth(arg string) {
	if !s.private() {
		s.fault(replyNeedTLS)
		return
	}
	if arg == "" {
		s.say("+OK Mechanisms follow")
		for _, m := range s.srv.c.Auth.Mechanisms(s.peer()) {
			s.say(m)
		}
		s.say(".")
		return
	}
	mechanism, initial, given := strings.Cut(arg, " ")
	e, err := s.srv.c.Auth.Start(mechanism, s.peer())
	if err != nil {
		s.fault(replyMechanism)
		return
	}
	var response []byte // nil: there was none
	if given {
		if response, err = decodeResponse(initial); err != nil {
			s.fault(replyBase64)
			return
		}
	}
	for {
		challenge, done, err := e.Next(s.srv.gentle, response)
		clear(response)
		if done || err != nil {
			s.judged(e.User(), strings.ToUpper(mechanism), e.Identity(), err)
			return
		}
		s.say("+ " + base64.StdEncoding.EncodeToString(challenge))
		line, err := s.readLine(s.srv.c.Limits.AuthLine, func([]byte) bool { return false }, s.await)
		switch {
		case errors.Is(err, errLineLong):
			s.fault(replyLong)
			return
		case err != nil:
			s.lost(err)
			return
		case string(line) == "*":
			s.fault(replyCancelled)
			return
		}
		text := string(line)
		clear(line)
		if response, err = decodeResponse(text); err != nil {
			s.fault(replyBase64)
			return
		}
	}
}

// decodeResponse decodes a SASL response; "=" is the empty one (RFC 5034 §4).
// The result is never nil without an error.
func decodeResponse(s string) ([]byte, error) {
	if s == "=" {
		return []byte{}, nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if b == nil {
		b = []byte{}
	}
	return b, err
}

// judged ends a login. The policies hear of it whether it succeeded or not.
func (s *session) judged(name, mechanism string, who auth.Identity, err error) {
	if errors.Is(err, auth.ErrMalformed) {
		s.failed(name, mechanism, replyMalformed, err)
		return
	}
	d := s.ask(policy.Auth, name, mechanism, err == nil)
	switch {
	case d.Refused():
		s.failed(name, mechanism, refusal(d.Status), errors.New("refused by policy"))
		s.ending = s.ending || d.Hangup
	case err == nil:
		if s.unjudge != nil {
			s.unjudge()
		}
		s.enter(who.User)
	case errors.Is(err, auth.ErrTemporary):
		s.srv.log.Warn("login not possible", "session", string(s.id), "user", name, "err", err)
		s.say(replyAuthTemp)
	case errors.Is(err, auth.ErrThrottled):
		// Not [LOGIN-DELAY], which is about the last success, nor [AUTH], after
		// which clients throw their user's password away.
		s.failed(name, mechanism, replyThrottled, err)
	default:
		s.failed(name, mechanism, replyCredentials, err)
	}
}

func (s *session) failed(name, mechanism, reply string, err error) {
	s.srv.failures.Add(1)
	s.srv.log.Info("login failed", "session", string(s.id), "client", s.client.String(), "user", name, "mechanism", mechanism, "err", err)
	s.say(reply)
	if s.failures++; s.failures >= s.srv.c.Limits.Logins {
		s.say(replyLogins)
		s.ending, s.reason = true, "too many failed logins"
	}
}

// enter opens the mailbox of user and begins the TRANSACTION state.
func (s *session) enter(user string) {
	store, err := s.srv.c.Mailbox(s.srv.ctx, user)
	if err == nil {
		s.drop, err = openMaildrop(s.srv.ctx, store)
	}
	switch {
	case errors.Is(err, maildir.ErrLocked):
		s.say(replyInUse)
	case err != nil:
		s.srv.log.Error("mailbox not available", "session", string(s.id), "user", user, "err", err)
		s.say(replyNoMailbox)
	default:
		s.user = user
		s.errors = 0
		s.srv.logins.Add(1)
		s.say("+OK " + plural(s.drop.count, "message"))
	}
}
