package smtpd

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// offersAuth reports whether AUTH may be used now: on submission, and never
// in the clear but for loopback where the configuration says so.
func (s *session) offersAuth() bool {
	return s.rules.Auth != nil && s.srv.c.Profile.submits() && s.authIsPrivate()
}

func (s *session) authIsPrivate() bool {
	return s.client.TLS.On() || s.srv.c.AuthLoopback && s.origin.IsLoopback() && s.client.Addr.Addr().IsLoopback()
}

// auth is the AUTH command (RFC 4954).
func (s *session) auth(arg []byte) {
	words := bytes.Fields(arg)
	switch {
	case s.rules.Auth == nil || !s.srv.c.Profile.submits():
		s.say(replyAuthOff)
	case !s.helo:
		s.say(replyNeedHelo)
	case s.user != "":
		s.say(replyAuthTwice)
	case s.tx != nil:
		s.say(replyAuthTx)
	case !s.authIsPrivate():
		s.say(replyAuthTLS)
	case len(words) == 0 || len(words) > 2:
		s.say(replyAuthSyntax)
	case len(words) == 1:
		s.authenticate(strings.ToUpper(string(words[0])), nil)
	default:
		s.authenticate(strings.ToUpper(string(words[0])), words[1])
	}
}

// authenticate runs one exchange. initial is the initial response as sent, nil
// if there was none.
func (s *session) authenticate(mechanism string, initial []byte) {
	ex, err := s.rules.Auth.Start(mechanism, auth.Peer{
		Addr: s.client.Addr.Addr(), Protocol: "smtp", TLS: s.client.TLS.On(),
	})
	if err != nil {
		s.say(replyAuthMech)
		return
	}
	var response []byte
	if initial != nil {
		var ok bool
		if response, ok = decodeResponse(initial); !ok {
			s.say(replyAuthBase64)
			return
		}
	}
	for {
		challenge, done, err := ex.Next(s.srv.ctx, response)
		clear(response)
		if err != nil || done {
			s.authenticated(ex, mechanism, err)
			return
		}
		s.out = append(s.out, "334 "...)
		s.out = base64.StdEncoding.AppendEncode(s.out, challenge)
		s.out = append(s.out, '\r', '\n')
		line, err := s.readLine(s.limits.AuthLine)
		switch {
		case err != nil && !(err == errBareLF && s.trusted):
			s.readFailed(err)
			return
		case string(line) == "*":
			s.say(replyAuthCancel)
			return
		}
		var ok bool
		response, ok = decodeResponse(line)
		clear(line) // it may be a password
		if !ok {
			s.say(replyAuthBase64)
			return
		}
	}
}

// decodeResponse decodes a response; "=" is the empty one (RFC 4954 §4). The
// result is never nil.
func decodeResponse(line []byte) ([]byte, bool) {
	if string(line) == "=" {
		return []byte{}, true
	}
	b := make([]byte, base64.StdEncoding.DecodedLen(len(line)))
	n, err := base64.StdEncoding.Strict().Decode(b, line)
	return b[:n], err == nil
}

// authenticated ends an exchange. The policy hears of failures too.
func (s *session) authenticated(ex *auth.Exchange, mechanism string, err error) {
	s.ev.User, s.ev.Mechanism, s.ev.AuthOK = ex.User(), mechanism, err == nil
	d := s.ask(policy.Auth)
	switch {
	case d.Refused():
		s.refuse(d)
		s.authFailed()
	case err == nil:
		s.user = ex.Identity().User
		s.say(replyAuthed)
	case errors.Is(err, auth.ErrThrottled):
		s.say(replyAuthSlow)
		s.authFailed()
	case errors.Is(err, auth.ErrTemporary):
		s.say(replyAuthTemp)
	case errors.Is(err, auth.ErrCredentials):
		s.say(replyAuthFailed)
		s.authFailed()
	default:
		s.reply(mail.Status{Code: 501, Enhanced: "5.5.2", Text: "Malformed authentication exchange"})
		s.authFailed()
	}
}

func (s *session) authFailed() {
	if s.authFails++; s.authFails >= s.limits.AuthFailures {
		s.say(replyAuthFails)
	}
}
