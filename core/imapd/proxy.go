package imapd

import (
	"time"

	"github.com/wafermail/wafer/core/proxy"
)

// proxyPatience is how long a proxy may take for its header.
const proxyPatience = 5 * time.Second

// readProxy reads the header of a connection from a proxy. A proxy that sends
// none is misconfigured; to take its address for the client's would be wrong.
func (s *session) readProxy() bool {
	trusted := false
	for _, p := range s.srv.c.ProxyFrom {
		trusted = trusted || p.Contains(s.client.Addr())
	}
	if !trusted {
		return true
	}
	if err := s.wake.arm(proxyPatience); err != nil {
		return false
	}
	h, err := proxy.Read(s.raw)
	if err != nil {
		s.srv.refused.Add(1)
		s.log.Warn("no PROXY header from a proxy", "client", s.client.String(), "err", err)
		return false
	}
	if h.Client.IsValid() {
		s.client, s.local = h.Client, h.Server
	}
	return true
}
