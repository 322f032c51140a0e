package smtpd

import (
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// bdat is the BDAT command (RFC 3030). Whatever is wrong, its octets are read
// before the next command, or else the connection ends.
func (s *session) bdat(arg []byte) {
	n, last, ok := parseBdat(arg)
	tx := s.tx
	switch {
	case !ok: // nobody knows where the next command begins
		s.say(replyBdatSyntax)
		s.hangup = true
		return
	case tx == nil:
		s.swallow(n)
		s.say(replyNeedMail)
		return
	case len(tx.env.Rcpts) == 0:
		s.swallow(n)
		s.say(s.noRcpt())
		return
	}
	if !tx.chunked {
		tx.chunked = true
		tx.text = text{limit: s.limits.TextLine}
		if d := s.openDraft(); d.Refused() {
			tx.refusal = d.Status
			s.hangup = s.hangup || d.Hangup
		}
	}
	tx.startPiece()
	if tx.refusal.Code == 0 && n > s.limits.MessageSize-tx.size {
		s.fail(replyTooBig)
	}
	switch {
	case tx.refusal.Code == 0 && !s.receiveChunk(n):
		return // the transaction goes with the connection
	case tx.refusal.Code == 0 && last:
		s.store(tx.text.finish())
		if tx.text.bare && !s.trusted && tx.env.Body != mail.BodyBinary {
			s.fail(replyBare)
		}
		s.finish()
		return
	case tx.refusal.Code == 0:
		s.reply(statusChunk(n))
		return
	}
	// Chunks that are already on their way get the same answer, until the last
	// one or RSET ends the transaction.
	if n -= tx.received; n > 0 {
		s.swallow(n)
	}
	if last {
		s.refuseMessage(policy.Decision{Status: tx.refusal})
		return
	}
	s.reply(tx.refusal)
}

// receiveChunk reads up to n octets of the message, fewer if it has to be
// refused; false means that the session is over.
func (s *session) receiveChunk(n int64) bool {
	tx := s.tx
	s.grow()
	for tx.received < n && tx.refusal.Code == 0 {
		if s.buffered() == 0 && !s.fillMessage() {
			return false
		}
		p := s.buf[s.r:s.w]
		p = p[:min(int64(len(p)), n-tx.received)]
		if tx.env.Body == mail.BodyBinary {
			s.store(p)
		} else {
			used, _ := s.scan(p)
			p = p[:used]
		}
		s.r += len(p)
		tx.received += int64(len(p))
	}
	return true
}

// swallow drops n octets. If they are too many to be worth it, or do not come,
// the session is over.
func (s *session) swallow(n int64) {
	if n > s.limits.Drain {
		s.hangup = true
		return
	}
	if s.tx == nil { // the clock of fillMessage
		s.tx = &transaction{}
		defer func() { s.tx = nil }()
	}
	if s.tx.begun.IsZero() {
		s.tx.startPiece()
		s.tx.begun = s.tx.piece
	}
	s.grow()
	for n > 0 && !s.hangup {
		if s.buffered() == 0 && !s.fillMessage() {
			return
		}
		k := min(int64(s.buffered()), n)
		s.r += int(k)
		s.tx.received += k
		n -= k
	}
}
