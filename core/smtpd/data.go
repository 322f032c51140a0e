package smtpd

import (
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// data is the DATA command (RFC 5321 §4.1.1.4).
func (s *session) data(arg []byte) {
	tx := s.tx
	switch {
	case len(arg) > 0:
		s.say(replyNoArgument)
		return
	case tx == nil:
		s.say(replyNeedMail)
		return
	case tx.chunked:
		s.say(replyAfterBdat)
		return
	case len(tx.env.Rcpts) == 0:
		s.say(s.noRcpt())
		return
	case tx.env.Body == mail.BodyBinary:
		s.say(replyUseBdat)
		return
	}
	if d := s.openDraft(); d.Refused() {
		s.refuse(d)
		return
	}
	s.say(replyGo)
	tx.text = text{dots: true, limit: s.limits.TextLine}
	if s.receive() {
		s.finish()
	}
}

// noRcpt is the reply when there is nobody to send to; RFC 2033 §4.2 wants 503.
func (s *session) noRcpt() string {
	if s.tx.refused && s.srv.c.Profile != LMTP {
		return replyNoRcpt
	}
	return replyNeedRcpt
}

// openDraft asks the policy and opens the draft.
func (s *session) openDraft() policy.Decision {
	tx := s.tx
	s.ev.Recipient = mail.Path{}
	if len(tx.env.Rcpts) == 1 {
		s.ev.Recipient = tx.env.Rcpts[0].To
	}
	d := s.ask(policy.Data)
	if d.Refused() {
		return d
	}
	draft, err := s.rules.Courier.Begin(s.srv.ctx, &tx.env)
	if err != nil {
		s.srv.log.Error("open draft", "id", string(tx.env.ID), "session", string(s.id), "err", err)
		return policy.Decision{Action: policy.Defer, Status: status(replyNoStore)}
	}
	tx.draft = draft
	tx.begun = time.Now()
	tx.startPiece()
	return d
}

// startPiece restarts the clock of the minimum rate.
func (tx *transaction) startPiece() { tx.piece, tx.received = time.Now(), 0 }

// receive reads the message up to its end; false means that the session is over.
func (s *session) receive() bool {
	tx := s.tx
	s.grow()
	for {
		for s.buffered() > 0 {
			used, end := s.scan(s.buf[s.r:s.w])
			s.r += used
			tx.received += int64(used)
			if end {
				return true
			}
		}
		if tx.dropped > s.limits.Drain {
			s.refuseMessage(policy.Decision{Status: tx.refusal})
			s.hangup = true
			return false
		}
		if !s.fillMessage() {
			return false
		}
	}
}

// scan passes octets from the wire through the line layer into the draft.
func (s *session) scan(in []byte) (used int, end bool) {
	tx := s.tx
	var out []byte
	if s.trusted {
		// Repairing can double the octets.
		in = in[:min(len(in), largeBuffer/2)]
		repaired := s.pool.take()
		defer s.pool.Put(repaired)
		out, used, end = tx.text.repair(repaired[:0], in)
	} else {
		out, used, end = tx.text.strict(in)
		if tx.text.bare {
			s.fail(replyBare)
		}
	}
	if tx.text.long {
		s.fail(replyLineLong)
	}
	s.store(out)
	return used, end
}

// store takes octets of the message.
func (s *session) store(p []byte) {
	tx := s.tx
	if tx.refusal.Code == 0 {
		tx.size += int64(len(p))
		head := 0
		if !tx.header.done {
			head = tx.header.watch(p)
		}
		switch {
		case tx.size > s.limits.MessageSize:
			s.fail(replyTooBig)
		case tx.header.size > s.limits.HeaderSize:
			s.fail(replyHeaderBig)
		case tx.header.received > s.limits.Hops: // RFC 5321 §6.3
			s.fail(replyHops)
		case head > 0 && s.srv.c.Profile.submits():
			tx.submitted.head = append(tx.submitted.head, p[:head]...)
			if tx.header.done {
				s.submitHead()
				s.write(p[head:])
			}
		default:
			s.write(p)
		}
	}
	if tx.refusal.Code != 0 {
		tx.dropped += int64(len(p))
	}
}

// write gives octets to the draft.
func (s *session) write(p []byte) {
	tx := s.tx
	if len(p) == 0 || tx.refusal.Code != 0 {
		return
	}
	if _, err := tx.draft.Write(p); err != nil {
		s.srv.log.Error("write draft", "id", string(tx.env.ID), "session", string(s.id), "err", err)
		s.fail(replyFor(err))
	}
}

// replyFor is the reply where a message could not be written down.
func replyFor(err error) string {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return replyFull
	}
	return replyNoStore
}

// fail decides that the message is refused. What is left of it is still read.
func (s *session) fail(reply string) { s.failWith(status(reply)) }

func (s *session) failWith(st mail.Status) {
	if s.tx.refusal.Code != 0 {
		return
	}
	s.tx.refusal = st
	s.tx.submitted.head = nil
	s.tx.draft.Abort()
}

// fillMessage reads more of a message; false means that the session is over.
// The deadline is that of the silence, of the whole message or of the minimum
// rate, whichever comes first.
func (s *session) fillMessage() bool {
	tx := s.tx
	for {
		deadline := time.Now().Add(s.limits.DataIdle)
		earned := time.Duration(tx.received/s.limits.MinRate) * time.Second
		for _, d := range [2]time.Time{
			tx.begun.Add(s.limits.Data),
			tx.piece.Add(s.limits.DataGrace + earned),
		} {
			if d.Before(deadline) {
				deadline = d
			}
		}
		err := s.raw.SetReadDeadline(deadline)
		if err == nil {
			err = s.fill()
		}
		switch {
		case err == nil:
			return true
		case isTimeout(err) && time.Now().Before(deadline):
			// Shutdown took us for idle a moment ago; the message goes on.
		case isTimeout(err):
			s.say(replyDataSlow)
			return false
		default:
			s.lost("message")
			return false
		}
	}
}

// finish decides about the whole message and replies.
func (s *session) finish() {
	tx := s.tx
	if s.srv.c.Profile.submits() && tx.refusal.Code == 0 && !tx.header.done { // there is no body
		tx.header.done = true
		s.submitHead()
	}
	if tx.refusal.Code != 0 {
		s.refuseMessage(policy.Decision{Status: tx.refusal})
		return
	}
	s.ev.Size = tx.size
	if s.judge.Active(policy.Message) {
		s.ev.Content = tx.draft.Content()
	}
	if d := s.ask(policy.Message); d.Refused() {
		s.refuseMessage(d)
		return
	}
	disposition := s.disposition()
	if disposition.dropped() {
		s.logMessage(slog.LevelInfo, "message discarded", tx)
		s.answer(statusAccepted(tx.env.ID))
		s.accept()
		return
	}
	statuses, err := tx.draft.Commit(s.srv.ctx, s.trace(disposition), disposition)
	if err != nil {
		s.srv.log.Error("commit message", "id", string(tx.env.ID), "session", string(s.id), "err", err)
		s.refuseMessage(policy.Decision{Status: status(replyNoStore)})
		return
	}
	s.concluded(statuses)
}

// concluded answers what Commit returned: for LMTP each recipient's status
// (RFC 2033 §4.2), for SMTP one for all, which is a success if anybody got the
// message.
func (s *session) concluded(statuses []mail.Status) {
	tx := s.tx
	good := len(statuses) == 0
	worst := mail.Status{}
	for _, st := range statuses {
		good = good || st.OK()
		if worst.Code == 0 || st.Temporary() && !worst.Temporary() {
			worst = st
		}
	}
	if !good && s.srv.c.Profile != LMTP {
		s.refuseMessage(policy.Decision{Status: worst})
		return
	}
	if good {
		s.logMessage(slog.LevelInfo, "message accepted", tx)
	} else {
		s.logMessage(slog.LevelInfo, "message refused", tx, slog.String("reply", worst.Text))
	}
	if s.srv.c.Profile != LMTP {
		s.reply(statusAccepted(tx.env.ID))
		s.accept()
		return
	}
	for i := range tx.env.Rcpts {
		st := statusAccepted(tx.env.ID)
		if i < len(statuses) && statuses[i].Code != 0 {
			st = statuses[i]
		}
		s.reply(st)
	}
	if good {
		s.accept()
		return
	}
	s.reset()
}

// accept ends a transaction that went well.
func (s *session) accept() {
	s.accepted++
	s.srv.messages.Add(1)
	s.faults, s.junk = 0, 0
	s.reset()
}

// refuseMessage ends a transaction whose message is refused.
func (s *session) refuseMessage(d policy.Decision) {
	s.logMessage(slog.LevelInfo, "message refused", s.tx,
		slog.Int("code", d.Status.Code),
		slog.String("reply", strings.TrimSpace(d.Status.Enhanced+" "+d.Status.Text)))
	s.answer(d.Status)
	if d.Hangup {
		s.hangup = true
	}
	s.reset()
}

// answer replies to a message: with LMTP once for each recipient.
func (s *session) answer(st mail.Status) {
	faults := s.faults
	n := 1
	if s.srv.c.Profile == LMTP {
		n = len(s.tx.env.Rcpts)
	}
	for range n {
		s.faults = faults // they all stand for one
		s.reply(st)
	}
}
