package relay

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// oneFlight is up to what size, in octets, a message goes out together with its
// envelope where the host can take that.
const oneFlight = 64 << 10

// transact hands the message over to everybody who is open. It returns a failure
// that concerns all of them; each one's own outcome is in a.out.
func (a *attempt) transact(s *session) *failure {
	m, f := a.prepare(s)
	if f != nil {
		return f
	}
	defer m.cleanup()
	a.begun++
	s.answered, s.bodySent = false, false
	rcpts := slices.Clone(a.open)
	pipelining := s.caps.has("PIPELINING")
	chunking := s.caps.has("CHUNKING")

	s.command("MAIL FROM:<", a.path(a.d.Envelope.From), ">", m.params)
	if !pipelining {
		if f := a.mailReply(s); f != nil {
			return a.reset(s, f)
		}
	}
	accepted, f := a.recipients(s, m, rcpts, pipelining, chunking)
	if f != nil {
		return f
	}
	if len(accepted) == 0 && !m.begun {
		return a.reset(s, nil)
	}
	return a.message(s, m, accepted, chunking)
}

// mailReply reads the reply to MAIL.
func (a *attempt) mailReply(s *session) *failure {
	if err := s.flush(a.c.Timeouts.Command); err != nil {
		return s.lost(err, "sending MAIL FROM")
	}
	st, err := readReply(s.br)
	switch {
	case err != nil:
		return s.lost(err, "sending MAIL FROM")
	case st.Code == 421 && s.used > 0: // it had enough of us
		s.broken = true
		return &failure{outcome: s.outcome(st), stale: true}
	}
	s.answered, a.reach = true, true
	if st.Code/100 == 2 {
		return nil
	}
	return &failure{outcome: s.outcome(a.verdict(s, st))}
}

// verdict is a reply as the queue should take it: what is neither yes nor a refusal
// is a fault of the host.
func (a *attempt) verdict(s *session, st mail.Status) mail.Status {
	switch {
	case st.Code == 421:
		s.broken = true
	case st.Code/100 == 3 || st.Code/100 == 2 && st.Code != 250 && st.Code != 251 && st.Code != 252:
		s.broken = true
		st.Text = fmt.Sprintf("unexpected reply: %d %s", st.Code, st.Text)
		st.Code, st.Enhanced = 451, "4.5.0"
	}
	return st
}

// recipients sends RCPT for each, and with pipelining also what comes after, and
// reads the replies. It returns the indices that the host has accepted.
func (a *attempt) recipients(s *session, m *message, rcpts []int, pipelining, chunking bool) (accepted []int, f *failure) {
	for _, i := range rcpts {
		r := &a.d.Envelope.Rcpts[i]
		s.command("RCPT TO:<", a.path(r.To), ">", a.rcptParams(s, r))
		if pipelining {
			continue
		}
		if err := s.flush(a.c.Timeouts.Command); err != nil {
			return nil, s.lost(err, "sending RCPT TO")
		}
		if ok, f := a.rcptReply(s, i); f != nil {
			return nil, f
		} else if ok {
			accepted = append(accepted, i)
		}
	}
	if !pipelining {
		return accepted, nil
	}
	switch {
	case chunking && m.total <= oneFlight:
		m.begun = true
		s.command("BDAT ", strconv.FormatInt(m.total, 10), " LAST")
		s.bodySent = true
		if err := s.body(m); err != nil {
			return nil, s.lost(err, "sending the message")
		}
	case !chunking:
		m.begun = true
		s.command("DATA")
	}
	mailFailed := a.mailReply(s)
	if mailFailed != nil && !s.answered {
		return nil, mailFailed
	}
	for _, i := range rcpts {
		st, err := readReply(s.br)
		switch {
		case err != nil:
			return nil, s.lost(err, "sending RCPT TO")
		case mailFailed != nil:
		case a.rcptOutcome(s, i, st):
			accepted = append(accepted, i)
		}
	}
	if mailFailed != nil {
		if m.begun { // the reply to DATA or BDAT, which can only be no
			if st, err := readReply(s.br); err != nil || st.Code/100 < 4 {
				s.broken = true
			}
		}
		return nil, a.reset(s, mailFailed)
	}
	return accepted, nil
}

func (a *attempt) rcptReply(s *session, i int) (ok bool, f *failure) {
	st, err := readReply(s.br)
	if err != nil {
		return false, s.lost(err, "sending RCPT TO")
	}
	return a.rcptOutcome(s, i, st), nil
}

// rcptOutcome notes a refusal.
func (a *attempt) rcptOutcome(s *session, i int, st mail.Status) (accepted bool) {
	if st = a.verdict(s, st); st.Code/100 == 2 {
		return true
	}
	if st.Code == 552 { // too many recipients, for hosts of old (RFC 5321 §4.5.3.1.10)
		st.Code = 452
		st.Enhanced = "4.5.3"
	}
	a.conclude(s, i, st)
	return false
}

// conclude notes what a recipient came to. Who was told to come later stays open
// for the next host.
func (a *attempt) conclude(s *session, i int, st mail.Status) {
	a.out[i] = s.outcome(st)
	a.out[i].Notifies = s.caps.has("DSN")
	if !st.Temporary() {
		a.open = slices.DeleteFunc(a.open, func(k int) bool { return k == i })
	}
}

// message sends the message, if it was not sent yet, and reads what becomes of it.
func (a *attempt) message(s *session, m *message, accepted []int, chunking bool) *failure {
	switch {
	case m.begun && chunking: // it is on its way
	case chunking:
		s.command("BDAT ", strconv.FormatInt(m.total, 10), " LAST")
		s.bodySent = true
		if err := s.body(m); err != nil {
			return s.lost(err, "sending the message")
		}
	default:
		if !m.begun {
			s.command("DATA")
			if err := s.flush(a.c.Timeouts.Command); err != nil {
				return s.lost(err, "sending DATA")
			}
		}
		st, err := readReply(s.br)
		switch {
		case err != nil:
			return s.lost(err, "sending DATA")
		case st.Code == 354 && len(accepted) == 0: // an empty message that nobody gets (RFC 2920 §3.1)
			s.command(".")
			if st, err := s.ask(a.c.Timeouts.Command); err != nil || st.Code/100 < 4 {
				s.broken = true
			}
			return a.reset(s, nil)
		case st.Code != 354:
			return a.reset(s, a.noData(s, st, accepted))
		}
		s.bodySent = true
		if err := s.stuffed(m); err != nil {
			return s.lost(err, "sending the message")
		}
	}
	return a.final(s, accepted)
}

// noData is a refusal of DATA.
func (a *attempt) noData(s *session, st mail.Status, accepted []int) *failure {
	if st = a.verdict(s, st); st.Code/100 == 2 {
		st.Code = 451
	}
	for _, i := range accepted {
		a.conclude(s, i, st)
	}
	return nil
}

// final reads the reply to the message: one, or with LMTP one for each recipient
// (RFC 2033 §4.2).
func (a *attempt) final(s *session, accepted []int) *failure {
	if err := s.flush(a.c.Timeouts.Final); err != nil {
		return s.lost(err, "sending end of data")
	}
	if len(accepted) == 0 { // it was on its way before anybody was refused
		if st, err := readReply(s.br); err != nil || st.Code/100 < 4 {
			s.broken = true
		}
		return a.reset(s, nil)
	}
	n := 1
	if s.lmtp {
		n = len(accepted)
	}
	for k := range n {
		st, err := readReply(s.br)
		if err != nil {
			return s.lost(err, "sending end of data")
		}
		st = a.verdict(s, st)
		if s.lmtp {
			a.conclude(s, accepted[k], st)
			continue
		}
		for _, i := range accepted {
			a.conclude(s, i, st)
		}
	}
	s.used++
	a.tally.messages.Add(1)
	return nil
}

// reset makes the session fit for another message. It passes f on.
func (a *attempt) reset(s *session, f *failure) *failure {
	if s.broken {
		return f
	}
	s.used++
	if st, err := s.ask(a.c.Timeouts.Command, "RSET"); err != nil || st.Code != 250 {
		s.broken = true
	}
	return f
}

// path is an address for the wire. A domain in U-labels needs no SMTPUTF8, because
// it has A-labels too.
func (a *attempt) path(p mail.Path) string {
	if p.IsNull() {
		return ""
	}
	if d := p.Domain(); d != "" && d[0] != '[' {
		p = p.WithDomain(mail.DomainKey(d))
	}
	return p.String()
}

// rcptParams are the parameters of RCPT (RFC 3461 §4).
func (a *attempt) rcptParams(s *session, r *mail.Recipient) string {
	if !s.caps.has("DSN") {
		return ""
	}
	var b strings.Builder
	if len(r.Notify) > 0 {
		b.WriteString(" NOTIFY=" + strings.Join(r.Notify, ","))
	}
	typ, addr, ok := strings.Cut(r.ORcpt, ";")
	if !ok && !r.To.NeedsUTF8() {
		typ, addr, ok = "rfc822", r.To.String(), true
	}
	if ok && ascii(addr) {
		b.WriteString(" ORCPT=" + typ + ";" + xtext(addr))
	}
	return b.String()
}

// xtext is the encoding of RFC 3461 §4.
func xtext(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func ascii(s string) bool {
	for _, c := range []byte(s) {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
