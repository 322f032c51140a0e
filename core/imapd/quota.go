package imapd

import "fmt"

// quotaRoot is the name of the one quota root, Dovecot's default.
const quotaRoot = "User quota"

// cmdGetQuota is RFC 9208 §4.1.2.
func (s *session) cmdGetQuota(p *parser) (done, error) {
	if err := p.space(); err != nil {
		return done{}, err
	}
	root, err := p.astring()
	if err != nil {
		return done{}, err
	}
	if err := p.end(); err != nil {
		return done{}, err
	}
	if root != quotaRoot || !s.store.HasQuota() {
		return done{}, no("NONEXISTENT", "There is no such quota root")
	}
	return done{}, s.sendQuota()
}

// cmdGetQuotaRoot is RFC 9208 §4.1.3. A mailbox that is not there yet has the root
// that it would have.
func (s *session) cmdGetQuotaRoot(p *parser) (done, error) {
	name, err := p.oneMailbox()
	if err != nil {
		return done{}, err
	}
	s.out.str("* QUOTAROOT ")
	s.out.mailbox(name, s.utf8Names())
	if !s.store.HasQuota() {
		s.out.crlf()
		return done{}, nil
	}
	s.out.byte(' ')
	s.out.text(quotaRoot)
	s.out.crlf()
	return done{}, s.sendQuota()
}

// sendQuota sends use and limits, storage in units of 1024 octets.
func (s *session) sendQuota() error {
	used, limit, err := s.store.Quota(s.ctx)
	if err != nil {
		return s.storeError("count the quota", "", err)
	}
	s.out.str("* QUOTA ")
	s.out.text(quotaRoot)
	s.out.str(" (")
	sep := ""
	if limit.Storage > 0 {
		s.out.str(fmt.Sprintf("STORAGE %d %d", (used.Storage+1023)/1024, (limit.Storage+1023)/1024))
		sep = " "
	}
	if limit.Messages > 0 {
		s.out.str(fmt.Sprintf("%sMESSAGE %d %d", sep, used.Messages, limit.Messages))
	}
	s.out.line(")")
	return nil
}

// cmdSetQuota is RFC 9208 §4.1.4: only the postmaster changes limits.
func (s *session) cmdSetQuota(p *parser) (done, error) {
	p.pos = len(p.line)
	return done{}, no("NOPERM", "Limits are set by the administrator")
}
