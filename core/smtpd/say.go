package smtpd

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// say queues one of the replies in reply.go.
func (s *session) say(line string) {
	s.beforeReply(int(line[0]-'0')*100+int(line[1]-'0')*10+int(line[2]-'0'), line)
	s.out = append(append(s.out, line...), '\r', '\n')
	s.afterReply()
}

// reply queues a composed reply.
func (s *session) reply(st mail.Status) {
	s.beforeReply(st.Code, "")
	start := len(s.out)
	s.out = appendReply(s.out, st, s.tx != nil && s.tx.env.UTF8)
	if st.Code >= 400 && s.refusal == "" {
		s.refusal = strings.TrimRight(string(s.out[start:]), "\r\n")
	}
	s.afterReply()
}

// beforeReply counts a refusal and slows down a client that has had many.
func (s *session) beforeReply(code int, line string) {
	if code == 421 {
		s.hangup = true // RFC 5321 §3.8
	}
	if code < 400 {
		return
	}
	// What a recipient is refused for is not the fault of the server that brings
	// mail to an LMTP door, which must not wait for it.
	if s.srv.c.Profile != LMTP || s.tx == nil {
		s.faults++
	}
	s.refusals++
	if s.refusal == "" {
		s.refusal = line
	}
	if s.faults > s.limits.SoftErrors && !s.hangup {
		s.pause(s.limits.ErrorDelay)
	}
}

func (s *session) afterReply() {
	if s.talks {
		s.logReply()
	}
	if len(s.out) > outLimit && s.flush() != nil {
		s.lost("reply")
	}
}

// pause lets d go by, after the replies so far have left.
func (s *session) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	if s.flush() != nil {
		s.lost("reply")
		return
	}
	s.srv.wait(d)
}

// refuse answers with what the policy said.
func (s *session) refuse(d policy.Decision) {
	s.reply(d.Status)
	if d.Hangup {
		s.hangup = true
	}
}

// ask asks the policy at stage and keeps what it adds.
func (s *session) ask(stage policy.Stage) policy.Decision {
	ev := &s.ev
	ev.Stage, ev.Time = stage, time.Now()
	ev.Session = string(s.id)
	ev.Door = string(s.srv.c.Profile)
	ev.Protocol = "smtp"
	if s.srv.c.Profile == LMTP {
		ev.Protocol = "lmtp"
	}
	ev.Server, ev.Hostname = s.server, s.srv.c.Hostname
	ev.Client, ev.ClientName, ev.ReverseName = s.client.Addr, s.client.Name, s.reverse
	ev.Trusted, ev.EarlyTalker, ev.Directory = s.trusted, s.early, s.rules.Directory
	ev.Helo, ev.Extended, ev.TLS = s.client.Helo, s.extended, s.client.TLS
	if stage != policy.Auth {
		ev.User = s.user
	}
	d := s.judge.Ask(s.srv.ctx, ev)
	s.pause(min(d.Effects.Tarpit, s.limits.Tarpit))
	if d.Refused() {
		return d
	}
	o := outcome{stage, d.Effects, fateOf(d)}
	if stage == policy.Rcpt {
		o.fate = Fate{} // that recipient's only; the caller keeps it
	}
	if o.empty() {
		return d
	}
	if s.tx != nil {
		s.tx.kept = append(s.tx.kept, o)
	} else {
		s.kept = append(s.kept, o)
	}
	return d
}

func (o outcome) empty() bool {
	e := o.effects
	return o.fate == Fate{} && len(e.Prepend)+len(e.Tags)+len(e.Redirect)+len(e.BCC) == 0 && e.Score == 0
}

// forget drops what stage added, because it will be asked again.
func (s *session) forget(stage policy.Stage) {
	left := s.kept[:0]
	for _, o := range s.kept {
		if o.stage != stage {
			left = append(left, o)
		}
	}
	clear(s.kept[len(left):])
	s.kept = left
}

// clearEvent forgets the transaction's facts.
func (s *session) clearEvent() {
	ev := &s.ev
	ev.QueueID, ev.Sender, ev.HasSender = "", mail.Path{}, false
	ev.Recipient, ev.Rcpts, ev.Size, ev.Content = mail.Path{}, nil, 0, nil
}

func (s *session) debug(message string, args ...any) {
	if s.talks {
		s.srv.log.Debug(message, append(args, "session", string(s.id))...)
	}
}

// logCommand logs a line of the client's. What follows AUTH is a secret.
func (s *session) logCommand(verb, line []byte) {
	if len(verb) >= 4 && strings.EqualFold(string(verb[:4]), "AUTH") {
		line = verb
	}
	s.debug("command", "line", string(line))
}

// logReply logs the reply that was queued last.
func (s *session) logReply() {
	text := strings.TrimRight(string(s.out), "\r\n")
	s.debug("reply", "line", text[strings.LastIndexByte(text, '\n')+1:])
}

// logMessage is the one line about a message.
func (s *session) logMessage(level slog.Level, message string, tx *transaction, extra ...slog.Attr) {
	if !s.srv.log.Enabled(context.Background(), level) {
		return
	}
	attrs := append(make([]slog.Attr, 0, 16),
		slog.String("id", string(tx.env.ID)),
		slog.String("session", string(s.id)),
		slog.String("client", s.client.Addr.Addr().String()),
		slog.String("helo", s.client.Helo),
		slog.String("from", tx.env.From.String()),
		slog.Int("rcpts", len(tx.env.Rcpts)),
		slog.Int64("size", tx.size),
		slog.String("protocol", tx.env.Protocol),
		slog.Duration("dur", time.Since(tx.env.Received)),
	)
	if len(tx.env.Rcpts) > 0 {
		attrs = append(attrs, slog.String("rcpt", tx.env.Rcpts[0].To.String()))
	}
	if s.user != "" {
		attrs = append(attrs, slog.String("user", s.user))
	}
	s.srv.log.LogAttrs(context.Background(), level, message, append(attrs, extra...)...)
}

// logEnd is the one line about a session that was refused.
func (s *session) logEnd() {
	if s.accepted > 0 || s.refusal == "" {
		s.debug("session ended", "messages", s.accepted)
		return
	}
	s.srv.refused.Add(1)
	s.srv.log.Info("session refused",
		"session", string(s.id),
		"client", s.client.Addr.Addr().String(),
		"helo", s.client.Helo,
		"from", s.refusedFrom,
		"rcpt", s.refusedRcpt,
		"reply", s.refusal,
		"refusals", s.refusals,
		"dur", time.Since(s.begun))
}
