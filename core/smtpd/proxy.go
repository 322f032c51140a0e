package smtpd

import (
	"time"

	"github.com/wafermail/wafer/core/proxy"
)

// readProxy reads the header that a peer in ProxyFrom has to send; false means
// close. A proxy that does not send one is misconfigured, and its own address
// must not be taken for the client's.
func (s *session) readProxy() bool {
	if !s.await(time.Now().Add(s.limits.Proxy)) {
		return false
	}
	p, err := proxy.Read(s.raw)
	s.idle.Store(false)
	if err != nil {
		s.srv.log.Warn("no PROXY header from a proxy", "session", string(s.id), "client", s.client.Addr.String(), "err", err)
		return false
	}
	if p.Client.IsValid() {
		s.client.Addr, s.server = p.Client, p.Server
	}
	return true
}
