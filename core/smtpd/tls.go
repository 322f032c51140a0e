package smtpd

import (
	"crypto/tls"
	"time"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// hardened is c without old versions and, if told so, without session tickets:
// Go sends them in a way that makes Microsoft's senders drop the connection.
func hardened(c *tls.Config, noTickets bool) *tls.Config {
	c = c.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	c.SessionTicketsDisabled = c.SessionTicketsDisabled || noTickets
	if each := c.GetConfigForClient; each != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			own, err := each(hello)
			if own == nil || err != nil {
				return own, err
			}
			return hardened(own, noTickets), nil
		}
	}
	return c
}

// startTLS is the STARTTLS command (RFC 3207).
func (s *session) startTLS(arg []byte) {
	switch {
	case s.srv.tls == nil:
		s.say(replyNoTLS)
	case len(arg) > 0:
		s.say(replyNoArgument)
	case s.client.TLS.On():
		s.say(replyTLSTwice)
	case s.buffered() > 0:
		// Commands that an attacker put in front of the encrypted ones. They
		// are neither obeyed nor skipped over.
		s.say(replyTLSSync)
		s.hangup = true
	default:
		s.say(replyTLS)
		if s.flush() != nil || !s.handshake() {
			s.lost("tls handshake")
			return
		}
		// RFC 3207 §4.2: forget what the client said before.
		s.resetHelo()
		s.user = ""
		if d := s.ask(policy.StartTLS); d.Refused() {
			// The client speaks next: its command gets the answer.
			s.held = d
		}
	}
}

// handshake puts TLS on the connection; false means that it is unusable.
func (s *session) handshake() bool {
	s.release()
	deadline := time.Now().Add(s.limits.Handshake)
	if !s.await(deadline) || s.raw.SetWriteDeadline(deadline) != nil {
		return false
	}
	tc := auth.TLSServer(s.raw, s.srv.tls)
	err := tc.HandshakeContext(s.srv.ctx)
	s.idle.Store(false)
	if err != nil {
		s.debug("tls handshake failed", "err", err)
		return false
	}
	s.nc = tc
	st := tc.ConnectionState()
	s.client.TLS = mail.TLS{
		Version: versionName(st.Version),
		Cipher:  tls.CipherSuiteName(st.CipherSuite),
		SNI:     st.ServerName,
	}
	return true
}

func versionName(v uint16) string {
	if v == tls.VersionTLS12 {
		return "TLSv1.2"
	}
	return "TLSv1.3"
}
