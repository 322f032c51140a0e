package imapd

import "time"

// cmdUnauthenticate is RFC 8437: the connection is as it was before the login, but
// for TLS and compression.
func (s *session) cmdUnauthenticate(p *parser) (done, error) {
	if err := p.end(); err != nil {
		return done{}, err
	}
	s.unselect()
	s.stopNotify()
	s.store.Close()
	s.srv.releaseUser(s.user)
	s.store, s.user, s.state = nil, "", notAuthenticated
	s.judged()
	s.rev2, s.condstore, s.qresync, s.utf8 = false, false, false, false
	s.loginBy = time.Now().Add(s.srv.c.Limits.Greeting)
	return done{code: "CAPABILITY " + s.capabilities()}, nil
}
