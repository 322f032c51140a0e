package smtpd

import (
	"strconv"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// greet looks out for early talkers, asks the policy and greets; false means
// close.
func (s *session) greet() bool {
	if s.srv.c.Profile == MX && !s.listenFirst() {
		return false
	}
	if names := s.srv.c.Names; names != nil && s.client.Addr.IsValid() {
		s.client.Name, s.reverse = names(s.srv.ctx, s.client.Addr.Addr())
	}
	return s.welcome()
}

// welcome asks the policy and greets; false means close.
func (s *session) welcome() bool {
	d := s.ask(policy.Connect)
	if !d.Refused() && s.srv.c.Profile == Submissions {
		d = s.ask(policy.StartTLS) // the handshake was before
	}
	if d.Refused() {
		s.refuse(d) // in place of the greeting (RFC 5321 §3.1)
		s.hangup = true
		return false
	}
	s.out = append(s.out, "220 "...)
	s.out = append(s.out, s.srv.c.Hostname...)
	if s.srv.c.Profile == LMTP {
		s.out = append(s.out, " LMTP\r\n"...)
	} else {
		s.out = append(s.out, " ESMTP\r\n"...)
	}
	s.afterReply()
	return true
}

// listenFirst flags a client that speaks before the greeting, for which it
// waits if Limits.GreetDelay says so; false means that it is gone.
func (s *session) listenFirst() bool {
	if s.limits.GreetDelay <= 0 {
		s.early = s.early || unread(s.raw)
		return true
	}
	if !s.await(time.Now().Add(s.limits.GreetDelay)) {
		s.readFailed(errClosing)
		return false
	}
	err := s.fill()
	s.idle.Store(false)
	switch {
	case err == nil:
		s.early = true
	case isTimeout(err) && !s.closing(): // it waited, as it should
	default:
		s.readFailed(err)
		return false
	}
	return true
}

// hello is HELO, EHLO and LHLO.
func (s *session) hello(name, arg []byte) {
	lmtp := s.srv.c.Profile == LMTP
	s.idled()
	switch {
	case lmtp && name[0] != 'L':
		s.say(replySayLHLO)
		return
	case !lmtp && name[0] == 'L':
		s.say(replyUnknown)
		return
	case len(arg) == 0:
		s.say(replyHeloName)
		return
	}
	s.resetHelo()
	s.client.Helo = string(arg)
	s.extended = name[0] != 'H'
	if d := s.ask(policy.Helo); d.Refused() {
		s.refuse(d)
		return
	}
	s.helo = true
	if s.extended {
		s.sayExtensions()
		return
	}
	s.out = append(append(s.out, "250 "...), s.srv.c.Hostname...)
	s.out = append(s.out, '\r', '\n')
	s.afterReply()
}

// resetHelo forgets the transaction and the last HELO.
func (s *session) resetHelo() {
	s.reset()
	s.judge.Reset()
	s.forget(policy.Helo)
	s.client.Helo, s.helo, s.extended = "", false, false
}

// sayExtensions is the reply to EHLO (RFC 5321 §4.1.1.1).
func (s *session) sayExtensions() {
	b := append(append(s.out, "250-"...), s.srv.c.Hostname...)
	without := s.srv.without
	b = without.appendOffer(b, "PIPELINING")
	if !without.has("SIZE") {
		b = append(b, "\r\n250-SIZE "...)
		b = strconv.AppendInt(b, s.limits.MessageSize, 10)
	}
	if s.srv.tls != nil && !s.client.TLS.On() {
		b = append(b, "\r\n250-STARTTLS"...)
	}
	if s.offersAuth() {
		b = append(b, "\r\n250-AUTH "...)
		b = append(b, strings.Join(s.rules.Auth.Mechanisms(s.peer()), " ")...)
	}
	if within(s.origin, s.srv.c.XClientFrom) {
		b = append(b, "\r\n250-XCLIENT NAME REVERSE_NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"...)
	}
	for _, keyword := range [...]string{"8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING", "BINARYMIME"} {
		b = without.appendOffer(b, keyword)
	}
	b = append(b, "\r\n250 LIMITS RCPTMAX="...)
	b = strconv.AppendInt(b, int64(s.limits.Recipients), 10)
	if s.limits.Messages > 0 {
		b = append(b, " MAILMAX="...)
		b = strconv.AppendInt(b, int64(s.limits.Messages), 10)
	}
	s.out = append(b, '\r', '\n')
	s.afterReply()
}
