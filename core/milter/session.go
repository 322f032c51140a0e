package milter

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// session is what the milter has been told of an SMTP session, and what it has
// said. One question at a time has it.
type session struct {
	id     string
	plugin *Plugin
	link   *link     // nil: not connected
	slot   bool      // it holds one of the table's slots
	rested time.Time // when it was put aside

	client  client
	settled *answer // about the connection: nothing more is told
	helo    greeting
	refused *answer      // of helo
	tx      *transaction // nil: none
	open    bool         // the milter is within a transaction
}

// client is who a connection to the milter is about.
type client struct {
	addr netip.AddrPort
	name string
}

func clientOf(ev *policy.Event) client { return client{ev.Client, ev.ClientName} }

// greeting is what HELO is told about. A new one follows a handshake.
type greeting struct {
	name     string
	extended bool
	tls      mail.TLS
}

func greetingOf(ev *policy.Event) greeting { return greeting{ev.Helo, ev.Extended, ev.TLS} }

// transaction is what the milter knows of a message.
type transaction struct {
	key     key
	settled *answer            // about the message: nothing more is told of it
	told    map[mail.Path]bool // recipients; false: the milter refuses it
	last    answer             // refusal of a recipient
	late    int                // recipients that were refused too late for a reply
	data    bool               // it knows that the message comes
}

// key tells transactions of a session apart.
type key struct {
	id     mail.ID
	sender mail.Path
	user   string
}

func keyOf(ev *policy.Event) key { return key{ev.QueueID, ev.Sender, ev.User} }

// drop forgets the connection, and with it all that the milter has been told.
func (s *session) drop() {
	if s.link != nil {
		_ = s.link.conn.Close() // it is of no use any more
	}
	s.forget()
}

// leave ends the connection in good order.
func (s *session) leave() {
	if s.link != nil {
		s.link.unwatch()
		s.link.quit()
	}
	s.forget()
}

func (s *session) forget() {
	s.link, s.settled, s.refused, s.tx, s.open = nil, nil, nil, nil, false
	s.client, s.helo = client{}, greeting{}
	s.plugin.table.release(s)
}

// settle keeps what was said about the whole connection, which is then not needed
// any more.
func (s *session) settle(a answer, about client) *answer {
	s.leave()
	s.settled, s.client = &a, about
	return &a
}

// ask tells the milter everything up to ev.Stage.
func (s *session) ask(ctx context.Context, ev *policy.Event) (outcome, error) {
	for _, step := range []struct {
		at policy.Stage
		do func(context.Context, *policy.Event) (*answer, error)
	}{
		{policy.Connect, s.connect},
		{policy.Helo, s.greet},
		{policy.Mail, s.begin},
		{policy.Rcpt, s.recipients},
		{policy.Data, s.data},
	} {
		a, err := step.do(ctx, ev)
		if err != nil {
			return outcome{}, fmt.Errorf("%s: %w", step.at, err)
		}
		if a != nil {
			if a.whole {
				s.settle(*a, s.client)
			}
			return outcome{answer: *a, late: s.takeLate()}, nil
		}
		if step.at == ev.Stage {
			if err := s.link.w.Flush(); err != nil {
				return outcome{}, fmt.Errorf("%s: send: %w", step.at, lost(err))
			}
			return outcome{answer: answer{kind: ansContinue}, late: s.takeLate()}, nil
		}
	}
	late := s.takeLate()
	out, err := s.message(ctx, ev)
	out.late = late
	if err == nil && out.answer.whole {
		s.settle(out.answer, s.client)
	}
	return out, err
}

// takeLate is how many recipients have been refused too late since it was asked.
func (s *session) takeLate() int {
	if s.tx == nil {
		return 0
	}
	n := s.tx.late
	s.tx.late = 0
	return n
}

// connect makes sure that the milter knows the client.
func (s *session) connect(ctx context.Context, ev *policy.Event) (*answer, error) {
	who := clientOf(ev)
	if (s.link != nil || s.settled != nil) && (ev.Stage == policy.Connect || s.client != who) {
		s.leave()
	}
	if s.settled != nil {
		return s.settled, nil
	}
	if s.link != nil {
		return nil, nil
	}
	if err := s.plugin.table.slot(ctx, s); err != nil {
		return nil, err
	}
	l, err := dial(ctx, s.plugin.network, s.plugin.address, s.plugin.o.ConnectTimeout)
	if err != nil {
		return nil, err
	}
	s.link, s.client = l, who
	data := appendString(nil, orUnknown(ev.ClientName))
	switch addr := ev.Client.Addr().Unmap(); {
	case !addr.IsValid():
		data = append(data, 'U')
	case addr.Is4():
		data = appendString(append(data, '4', byte(ev.Client.Port()>>8), byte(ev.Client.Port())), address(ev.Client))
	default:
		data = appendString(append(data, '6', byte(ev.Client.Port()>>8), byte(ev.Client.Port())), address(ev.Client))
	}
	a, err := s.tell(ctx, ev, cmdConnect, data, mail.Path{})
	switch {
	case err != nil || a.goesOn():
		return nil, err
	case a.kind == ansDiscard:
		return nil, errDiscard
	}
	return s.settle(a, who), nil
}

// errDiscard: there is nothing yet that could be dropped.
var errDiscard = fmt.Errorf("discard before there is a message: %w", errGarbage)

// greet makes sure that the milter knows the greeting.
func (s *session) greet(ctx context.Context, ev *policy.Event) (*answer, error) {
	g := greetingOf(ev)
	if ev.Helo == "" {
		return nil, nil
	}
	if ev.Stage != policy.Helo && s.helo == g {
		return s.refused, nil
	}
	if err := s.abort(ctx); err != nil {
		return nil, err
	}
	s.helo, s.refused = g, nil
	a, err := s.tell(ctx, ev, cmdHelo, appendString(nil, ev.Helo), mail.Path{})
	switch {
	case err != nil || a.goesOn():
		return nil, err
	case a.kind == ansDiscard:
		return nil, errDiscard
	case a.kind == ansAccept: // of the connection, as at connect
		return s.settle(a, s.client), nil
	}
	s.refused = &a
	return &a, nil
}

// begin makes sure that the milter knows the sender of this transaction.
func (s *session) begin(ctx context.Context, ev *policy.Event) (*answer, error) {
	k := keyOf(ev)
	// Without an id, the first recipient of a transaction is one for whom none was accepted before.
	anew := k.id == "" && ev.Stage == policy.Rcpt && len(ev.Rcpts) == 0 && s.tx != nil && len(s.tx.told) > 0
	if ev.Stage != policy.Mail && s.tx != nil && s.tx.key == k && !anew {
		return s.tx.settled, nil
	}
	return s.restart(ctx, ev, map[mail.Path]bool{})
}

// restart begins a transaction of which the milter has been told recipients.
func (s *session) restart(ctx context.Context, ev *policy.Event, told map[mail.Path]bool) (*answer, error) {
	if err := s.abort(ctx); err != nil {
		return nil, err
	}
	tx := &transaction{key: keyOf(ev), told: told}
	s.tx, s.open = tx, true
	data := appendString(nil, "<"+ev.Sender.String()+">")
	if ev.Size > 0 && ev.Stage < policy.Message { // then it is what has come, not what was announced
		data = appendString(data, "SIZE="+strconv.FormatInt(ev.Size, 10))
	}
	a, err := s.tell(ctx, ev, cmdMail, data, mail.Path{})
	if err != nil || a.goesOn() {
		return nil, err
	}
	tx.settled = &a
	return &a, nil
}

// maxTold bounds the recipients of a transaction that are remembered.
const maxTold = 50000

// recipients makes sure that the milter knows those who have been accepted and,
// at Rcpt, the one in question.
func (s *session) recipients(ctx context.Context, ev *policy.Event) (*answer, error) {
	if ev.Stage > policy.Rcpt {
		if a, err := s.withdraw(ctx, ev); a != nil || err != nil {
			return a, err
		}
	}
	refused := 0
	for _, p := range ev.Rcpts {
		welcome, told := s.tx.told[p]
		if !told {
			a, err := s.recipient(ctx, ev, p)
			if err != nil || s.tx.settled != nil || a.whole {
				return &a, err
			}
			if welcome = !a.refuses(); !welcome {
				s.tx.late++
			}
		}
		if !welcome {
			refused++
		}
	}
	if ev.Stage == policy.Rcpt {
		a, err := s.recipient(ctx, ev, ev.Recipient)
		if err != nil || a.goesOn() {
			return nil, err
		}
		return &a, nil
	}
	if refused > 0 && refused == len(ev.Rcpts) && s.tx.last.refuses() {
		s.tx.late = 0
		a := s.tx.last
		return &a, nil
	}
	return nil, nil
}

// withdraw begins the transaction anew if the milter has been told of recipients
// that the message does not have.
func (s *session) withdraw(ctx context.Context, ev *policy.Event) (*answer, error) {
	has := make(map[mail.Path]bool, len(ev.Rcpts))
	for _, p := range ev.Rcpts {
		has[p] = true
	}
	refused, extra := map[mail.Path]bool{}, false
	for p, welcome := range s.tx.told {
		if !welcome {
			refused[p] = false // it knows, and has said no
		} else if !has[p] {
			extra = true
		}
	}
	if !extra {
		return nil, nil
	}
	last := s.tx.last
	a, err := s.restart(ctx, ev, refused)
	s.tx.last = last
	return a, err
}

// recipient tells the milter of one.
func (s *session) recipient(ctx context.Context, ev *policy.Event, p mail.Path) (answer, error) {
	tx := s.tx
	a, err := s.tell(ctx, ev, cmdRcpt, appendString(nil, "<"+p.String()+">"), p)
	switch {
	case err != nil:
	case a.kind == ansAccept || a.kind == ansDiscard: // of the message
		tx.settled = &a
	default:
		if len(tx.told) < maxTold {
			tx.told[p] = a.goesOn()
		}
		if a.refuses() {
			tx.last = a
		}
	}
	return a, err
}

// data makes sure that the milter knows that the message comes.
func (s *session) data(ctx context.Context, ev *policy.Event) (*answer, error) {
	if s.tx.data {
		return nil, nil
	}
	s.tx.data = true
	a, err := s.tell(ctx, ev, cmdData, nil, mail.Path{})
	if err != nil || a.goesOn() {
		return nil, err
	}
	s.tx.settled = &a
	return &a, nil
}

// abort ends the transaction that the milter is in, if there is one.
func (s *session) abort(ctx context.Context) error {
	s.tx = nil
	if !s.open {
		return nil
	}
	s.open = false
	return s.link.send(ctx, s.plugin.o.CommandTimeout, cmdAbort, nil)
}

// tell sends a command with its macros, unless the milter does not want it, and
// reads the answer, if there is one.
func (s *session) tell(ctx context.Context, ev *policy.Event, cmd byte, data []byte, rcpt mail.Path) (answer, error) {
	l, patience := s.link, s.plugin.o.CommandTimeout
	if cmd == cmdHeader || cmd == cmdEOH || cmd == cmdBody || cmd == cmdEOB {
		patience = s.plugin.o.ContentTimeout
	}
	if !l.t.wants(cmd) {
		return answer{kind: ansContinue}, nil
	}
	if m := s.plugin.macros.packet(l.t, cmd, ev, rcpt); m != nil {
		if err := l.send(ctx, patience, cmdMacro, m); err != nil {
			return answer{}, err
		}
	}
	if !l.t.answers(cmd) {
		return answer{kind: ansContinue}, l.send(ctx, patience, cmd, data)
	}
	code, said, err := l.exchange(ctx, patience, cmd, data)
	if err != nil {
		return answer{}, err
	}
	a, err := parseAnswer(code, said)
	if err == nil && a.kind == ansSkip && (cmd != cmdBody && cmd != cmdHeader || l.t.steps&maySkip == 0) {
		err = fmt.Errorf("skip: %w", errGarbage)
	}
	return a, err
}
