package smtpd

import (
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// transaction is what stands between MAIL and the reply to the message.
type transaction struct {
	env     mail.Envelope
	fates   []Fate // by recipient
	kept    []outcome
	refused bool // some RCPT was

	// the message, from DATA or the first BDAT on
	draft     Draft
	chunked   bool // by BDAT
	text      text
	header    header
	submitted submission
	size      int64       // octets of the message so far
	dropped   int64       // octets read after it was refused
	refusal   mail.Status // why it is not accepted
	begun     time.Time
	piece     time.Time // when this DATA or BDAT began
	received  int64     // octets since then
}

// mail is the MAIL command (RFC 5321 §4.1.1.2).
func (s *session) mail(arg []byte) {
	switch {
	case !s.helo:
		s.say(replyNeedHelo)
		return
	case s.tx != nil:
		s.say(replyNested)
		return
	case s.limits.Messages > 0 && s.begunTx >= s.limits.Messages:
		s.say(replyMessages)
		return
	case s.srv.c.Profile.submits() && s.user == "": // RFC 6409 §4.3
		if s.srv.tls != nil && !s.client.TLS.On() {
			s.say(replyNeedTLS)
		} else {
			s.say(replyNeedAuth)
		}
		return
	}
	m, st, err := parseMail(arg, s.srv.without)
	if st.Code == 0 && m.size > s.limits.MessageSize {
		st = statusTooBig()
	}
	if st.Code != 0 {
		s.malformed("MAIL", arg, st, err)
		return
	}
	m.from = s.complete(m.from)
	now := time.Now()
	s.begunTx++
	s.tx = &transaction{env: mail.Envelope{
		ID:       mail.NewID(now),
		Session:  string(s.id),
		Received: now,
		Client:   s.client,
		From:     m.from,
		User:     s.user,
		Size:     m.size,
		Body:     m.body,
		UTF8:     m.utf8,
		Return:   m.ret,
		EnvID:    m.envid,
	}}
	s.tx.env.Protocol = s.protocol()
	s.ev.QueueID, s.ev.Sender, s.ev.HasSender, s.ev.Size = s.tx.env.ID, m.from, true, m.size
	if d := s.ask(policy.Mail); d.Refused() {
		s.refuseAbout(d, mail.Path{})
		s.reset()
		return
	}
	if st := s.mayBe(m.from); st.Code != 0 {
		s.refuseAbout(s.overruled(st), mail.Path{})
		s.reset()
		return
	}
	s.say(replyMailOK)
}

// malformed refuses a command that cannot be read, and tells the log why.
func (s *session) malformed(verb string, arg []byte, st mail.Status, why error) {
	if why != nil {
		s.srv.log.Info("address cannot be read", "session", string(s.id), "command", verb, "argument", string(arg[:min(len(arg), 512)]), "err", why)
	}
	s.reply(st)
}

// protocol is the "with" keyword (RFC 3848, RFC 6531 §4.3).
func (s *session) protocol() string {
	p := "SMTP"
	switch {
	case s.srv.c.Profile == LMTP:
		p = "LMTP"
	case s.tx.env.UTF8:
	case !s.extended:
		return p
	default:
		p = "ESMTP"
	}
	if s.tx.env.UTF8 {
		p = "UTF8" + p
	}
	if s.client.TLS.On() {
		p += "S"
	}
	if s.user != "" {
		p += "A"
	}
	return p
}

// rcpt is the RCPT command (RFC 5321 §4.1.1.3).
func (s *session) rcpt(arg []byte) {
	tx := s.tx
	switch {
	case tx == nil:
		s.say(replyNeedMail)
		return
	case tx.chunked:
		s.say(replyAfterBdat)
		return
	case len(tx.env.Rcpts) >= s.limits.Recipients:
		// A sender with more than that comes back for the rest. It is no fault
		// until it goes on far beyond.
		s.say(replyRcptLimit)
		if s.overshoot++; s.overshoot <= s.limits.Overshoot {
			s.faults--
		}
		return
	}
	r, st, err := parseRcpt(arg, tx.env.UTF8, s.srv.without)
	if st.Code != 0 {
		tx.refused = true
		s.malformed("RCPT", arg, st, err)
		return
	}
	r.To = s.complete(r.To)
	// As in Postfix, the policy's order decides which refusal a client is given:
	// what was held since earlier stages comes before anything about the recipient.
	var fate Fate
	if r.To.Domain() != "" || !strings.EqualFold(r.To.Local(), "postmaster") { // who is always reachable (RFC 5321 §4.5.1)
		s.ev.Recipient = r.To
		d := s.ask(policy.Rcpt)
		if d.Refused() {
			tx.refused = true
			s.refuseAbout(d, r.To)
			return
		}
		fate = fateOf(d)
	}
	// The rules that no policy can switch off have the last word.
	if st := s.rules.Courier.Recipient(s.srv.ctx, &tx.env, r); st.Code >= 400 {
		tx.refused = true
		s.refuseAbout(s.overruled(st), r.To)
		return
	}
	tx.env.Rcpts = append(tx.env.Rcpts, r)
	tx.fates = append(tx.fates, fate)
	s.ev.Rcpts = append(s.ev.Rcpts, r.To)
	s.say(replyRcptOK)
}

// refuseAbout refuses and remembers what the first refusal was about.
func (s *session) refuseAbout(d policy.Decision, rcpt mail.Path) {
	if s.refusal == "" {
		s.refusedFrom, s.refusedRcpt = s.tx.env.From.String(), rcpt.String()
	}
	s.refuse(d)
}

// disposition gathers what the policy said at all stages.
func (s *session) disposition() Disposition {
	d := Disposition{Rcpts: s.tx.fates}
	for _, list := range [2][]outcome{s.kept, s.tx.kept} {
		for _, o := range list {
			d.Message = d.Message.and(o.fate)
			d.Redirect = append(d.Redirect, o.effects.Redirect...)
			d.BCC = append(d.BCC, o.effects.BCC...)
			d.Tags = append(d.Tags, o.effects.Tags...)
			d.Score += o.effects.Score
		}
	}
	return d
}

// dropped reports whether nobody gets the message.
func (d Disposition) dropped() bool {
	for _, f := range d.Rcpts {
		if !f.Discard && !d.Message.Discard {
			return false
		}
	}
	return true
}
