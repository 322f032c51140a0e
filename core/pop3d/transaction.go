package pop3d

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/maildir"
)

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// transaction carries out the commands of the TRANSACTION state (RFC 1939 §5).
func (s *session) transaction(c command) {
	d := s.drop
	switch c.verb {
	case "NOOP":
		s.say(replyNothing)
	case "STAT":
		s.say(fmt.Sprintf("+OK %d %d", d.count, d.size))
	case "RSET":
		d.reset()
		s.say(replyReset)
	case "LIST":
		s.list(c.arg, func(m maildir.Message) string { return strconv.FormatInt(max(m.Size, 0), 10) })
	case "UIDL":
		s.list(c.arg, d.uidl)
	case "DELE":
		if n, _, ok := s.message(c.arg); ok {
			d.delete(n)
			s.say(replyDeleted)
		}
	case "RETR":
		s.retr(c.arg)
	case "TOP":
		number, lines, ok := strings.Cut(c.arg, " ")
		s.top(number, strings.TrimLeft(lines, " "), ok)
	}
}

// message finds the message that an argument names, or says why there is none.
func (s *session) message(arg string) (int, maildir.Message, bool) {
	n, ok := number(arg, 1)
	if !ok {
		s.fault(replyNumber)
		return 0, maildir.Message{}, false
	}
	m, ok := s.drop.message(n)
	if !ok {
		s.fault(replyNoMessage)
	}
	return n, m, ok
}

// list is LIST and UIDL: value for one message or for all.
func (s *session) list(arg string, value func(m maildir.Message) string) {
	if arg != "" {
		if n, m, ok := s.message(arg); ok {
			s.say(fmt.Sprintf("+OK %d %s", n, value(m)))
		}
		return
	}
	s.say("+OK " + plural(s.drop.count, "message"))
	for i, m := range s.drop.msgs {
		if s.ending {
			return // the client has gone away
		}
		if !s.drop.deleted[i] {
			s.say(strconv.Itoa(i+1) + " " + value(m))
		}
	}
	s.say(".")
}

func (s *session) retr(arg string) {
	n, m, ok := s.message(arg)
	if !ok || !s.send(m, -1) {
		return
	}
	s.drop.markSeen(n)
	s.retrieved++
	s.srv.retrieved.Add(1)
}

func (s *session) top(arg, count string, ok bool) {
	lines, valid := number(count, 0)
	if !ok || !valid {
		s.fault(replyTop)
		return
	}
	if _, m, ok := s.message(arg); ok {
		s.send(m, lines)
	}
}

// send writes a message, or its beginning if lines ≥ 0. A message that turns
// out to be unreadable half-way ends the session without the final dot, so that
// the client cannot take it for whole.
func (s *session) send(m maildir.Message, lines int) bool {
	content, err := s.drop.folder.Open(m.UID)
	switch {
	case errors.Is(err, maildir.ErrExpunged):
		s.say(replyGone)
		return false
	case err != nil:
		s.srv.log.Error("message cannot be opened", "session", string(s.id), "user", s.user, "uid", m.UID, "err", err)
		s.say(replyRead)
		return false
	}
	defer content.Close() // only read
	s.say("+OK " + strconv.FormatInt(content.Size(), 10) + " octets")
	err = s.sendMessage(content, lines, &s.srv.chunks)
	if errors.Is(err, errMessage) {
		s.srv.log.Error("message cannot be read to its end", "session", string(s.id), "user", s.user, "uid", m.UID, "err", err)
		s.ending, s.reason = true, "message cannot be read"
		return false
	}
	if err != nil {
		s.lost(err)
		return false
	}
	s.octets += content.Size()
	return true
}

// quit ends the session. After a login it is the UPDATE state (RFC 1939 §6). The
// mailbox is free for the next session before the reply leaves, since a client
// may come back at once.
func (s *session) quit() {
	s.ending, s.reason = true, "quit"
	if s.drop == nil {
		s.say(replyBye)
		return
	}
	n, err := s.drop.update(s.srv.ctx)
	s.deleted = n
	s.srv.deleted.Add(uint64(n))
	s.leave()
	switch {
	case err != nil:
		s.srv.log.Error("deleted messages not removed", "session", string(s.id), "user", s.user, "removed", n, "err", err)
		s.say(replyNotDeleted)
	case n > 0:
		s.say("+OK Bye, " + plural(n, "message") + " removed")
	default:
		s.say(replyBye)
	}
}

// leave gives the mailbox back, if there is one.
func (s *session) leave() {
	d := s.drop
	if d == nil {
		return
	}
	s.drop = nil
	if err := d.close(); err != nil {
		s.srv.log.Warn("mailbox not closed well", "session", string(s.id), "user", s.user, "err", err)
	}
}
