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

func (s *session) peer() auth.Peer {
	return auth.Peer{
		Addr: s.client.Addr.Addr(), Protocol: "smtp", TLS: s.client.TLS.On(), Channel: auth.ChannelOf(s.nc),
	}
}

// authLine reports whether what is buffered is the beginning of an AUTH command,
// whose line may be longer than others (RFC 4954 §4).
func (s *session) authLine() bool {
	p := s.buf[s.r:s.w]
	return len(p) >= 5 && bytes.EqualFold(p[:4], []byte("AUTH")) && (p[4] == ' ' || p[4] == '\t') && s.offersAuth()
}

// commandFollows reports whether the client did not wait for the reply to AUTH
// and has sent a command, not the response. AUTH must be the last command of a
// group (RFC 4954 §3): then nothing was meant for the exchange.
func (s *session) commandFollows() bool {
	p := s.buf[s.r:s.w]
	i := bytes.IndexByte(p, '\n')
	return i >= 0 && isCommand(bytes.TrimSuffix(p[:i], []byte("\r")))
}

// isCommand reports whether a line is a command. As base64, the verbs alone would
// be three octets that are no text, so no response is mistaken for one.
func isCommand(line []byte) bool {
	verb, _ := splitVerb(line)
	switch strings.ToUpper(string(verb[:min(len(verb), 8)])) {
	case "MAIL", "RCPT", "DATA", "BDAT", "RSET", "QUIT", "NOOP", "HELP", "VRFY", "EXPN",
		"HELO", "EHLO", "AUTH", "STARTTLS":
		return len(verb) <= 8
	}
	return false
}

// authenticate runs one exchange. initial is the initial response as sent, nil
// if there was none.
func (s *session) authenticate(mechanism string, initial []byte) {
	ex, err := s.rules.Auth.Start(mechanism, s.peer())
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
		if s.commandFollows() {
			s.say(replyAuthLast)
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
		case isCommand(line):
			s.say(replyAuthBase64)
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
