// Package rehearse walks a session through a set of policies without a peer: who
// comes, with which greeting, login, envelope and message is a Scenario, and the
// Outcome is what the peer would have been told, by whom and when. Policy tests
// and explanations are rehearsals.
//
//	s := rehearse.Begin(set, scenario)
//	outcome := s.Walk(ctx, scenario)
//
// It asks the same stages in the same order as the doors do, and after the
// checks at RCPT it applies the rules that no policy can switch off, as far as a
// policy.Directory can tell: no relay for strangers, no mail for unknown
// recipients, no submission without a login.
//
// # BUGS
//
// It is a walk through the policies, not through the protocol engines: limits,
// syntax of commands and what becomes of the mail are not part of it. A session
// goes on after a refused RCPT as a patient client would.
package rehearse

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/dns"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// Core is By of an outcome that none of the checks but the server itself decided.
const Core = "core"

// Scenario is who comes, and what for. Its zero value lacks a Client.
type Scenario struct {
	Door     string // profile: "mx"
	Hostname string // our own name
	Now      func() time.Time

	Client                  netip.AddrPort
	ClientName, ReverseName *string // nil: what Resolver says, "" without one
	Trusted, EarlyTalker    bool
	TLS                     string // "" or "TLSv1.3"
	Helo                    string // "": none is sent
	Extended                bool   // EHLO
	User, Mechanism         string // User "": no login
	AuthOK                  bool

	Sender  mail.Path
	Rcpts   []mail.Path
	Size    int64
	Message []byte // with CRLF; nil: the session ends before it
	NoMail  bool   // the session ends before MAIL

	Directory policy.Directory // nil: every address is local
	Resolver  dns.Resolver     // of the client's names; nil: it has none
}

// Reply is what one command was answered.
type Reply struct {
	Stage  policy.Stage
	Rcpt   mail.Path   // at Rcpt
	Status mail.Status // Code 0: nothing against it
	By     string      // "policy/check" or Core; "" if nothing was refused
	Action policy.Action
	Reason string
	ID     mail.ID
}

// Outcome is how a walk ended.
type Outcome struct {
	Verdict string // "accept", "reject", "defer", "disconnect", "discard", "hold" or "quarantine"
	// Decisive is the reply that decided: of a walk that was not refused the last,
	// of one that lost all its recipients the first refusal of one.
	Decisive Reply
	Replies  []Reply
	Effects  policy.Effects // of all stages
}

// Session is one connection.
type Session struct {
	judge    *policy.Session
	ev       policy.Event
	began    bool
	over     bool
	effects  [policy.Mail]policy.Effects // of the connection, by stage: a new HELO replaces what the last one added
	replies  []Reply
	message  policy.Effects // of the message
	fate     policy.Action  // of the message: Next, Quarantine, Hold or Discard
	fates    []policy.Action
	scenario *Scenario
}

// Begin makes a session at sc's door.
func Begin(set *policy.Set, sc *Scenario) *Session {
	return &Session{judge: set.Session(sc.Door)}
}

// Walk goes through sc: the whole way in a new session, from MAIL in one that
// has gone it before.
func (s *Session) Walk(ctx context.Context, sc *Scenario) Outcome {
	s.scenario, s.replies, s.message, s.fates, s.fate = sc, nil, policy.Effects{}, nil, policy.Next
	if s.over {
		return s.outcome(Reply{Stage: policy.Connect, Action: policy.Disconnect, Status: mail.Status{Code: 421, Enhanced: "4.4.2", Text: "the session is over"}, By: Core})
	}
	if !s.began {
		s.began = true
		if r := s.approach(ctx); r.Status.Code != 0 {
			s.over = true
			return s.outcome(r)
		}
	}
	if isReader(sc.Door) || sc.NoMail {
		return s.outcome(s.last())
	}
	return s.outcome(s.mail(ctx))
}

func isReader(door string) bool {
	switch door {
	case "imap", "imaps", "pop3", "pop3s":
		return true
	}
	return false
}

// approach is everything before MAIL.
func (s *Session) approach(ctx context.Context) Reply {
	sc, ev := s.scenario, &s.ev
	ev.Session, ev.Door, ev.Protocol, ev.Hostname = string(mail.NewID(sc.Now())), sc.Door, "smtp", sc.Hostname
	switch {
	case sc.Door == "lmtp":
		ev.Protocol = "lmtp"
	case isReader(sc.Door):
		ev.Protocol = strings.TrimSuffix(sc.Door, "s")
	}
	ev.Client, ev.Trusted, ev.EarlyTalker, ev.Directory = sc.Client, sc.Trusted, sc.EarlyTalker, sc.Directory
	s.names(ctx)
	implicit := sc.Door == "submissions" || sc.Door == "imaps" || sc.Door == "pop3s"
	if implicit {
		s.encrypt()
	}
	if r := s.ask(ctx, policy.Connect); r.Status.Code != 0 {
		return r
	}
	if isReader(sc.Door) {
		s.encrypt()
		return s.login(ctx)
	}
	if implicit {
		if r := s.ask(ctx, policy.StartTLS); r.Status.Code != 0 {
			return r
		}
	}
	if r := s.greet(ctx); r.Status.Code != 0 {
		return r
	}
	if sc.TLS != "" && !implicit {
		ev.Helo, ev.Extended = "", false
		s.encrypt()
		if r := s.ask(ctx, policy.StartTLS); r.Status.Code != 0 {
			return r
		}
		if r := s.greet(ctx); r.Status.Code != 0 {
			return r
		}
	}
	return s.login(ctx)
}

// encrypt is the TLS handshake.
func (s *Session) encrypt() {
	if s.scenario.TLS != "" {
		s.ev.TLS = mail.TLS{Version: s.scenario.TLS, Cipher: "TLS_AES_128_GCM_SHA256"}
	}
}

// names finds out what the client is called.
func (s *Session) names(ctx context.Context) {
	sc := s.scenario
	if sc.Resolver != nil && (sc.ClientName == nil || sc.ReverseName == nil) && !sc.Client.Addr().IsLoopback() {
		n := dns.Reverse(ctx, sc.Resolver, sc.Client.Addr())
		s.ev.ClientName, s.ev.ReverseName = n.Verified, n.Reverse
	}
	if sc.ClientName != nil {
		s.ev.ClientName = *sc.ClientName
		if sc.ReverseName == nil {
			s.ev.ReverseName = *sc.ClientName // a verified name is the reverse one too
		}
	}
	if sc.ReverseName != nil {
		s.ev.ReverseName = *sc.ReverseName
	}
}

func (s *Session) greet(ctx context.Context) Reply {
	if s.scenario.Helo == "" {
		return Reply{}
	}
	s.ev.Helo, s.ev.Extended = s.scenario.Helo, s.scenario.Extended
	return s.ask(ctx, policy.Helo)
}

// login is AUTH or its like.
func (s *Session) login(ctx context.Context) Reply {
	sc, ev := s.scenario, &s.ev
	if sc.User == "" {
		return Reply{}
	}
	ev.User, ev.Mechanism, ev.AuthOK = sc.User, sc.Mechanism, sc.AuthOK
	r := s.ask(ctx, policy.Auth)
	if r.Status.Code == 0 && !sc.AuthOK {
		r = s.own(policy.Auth, mail.Status{Code: 535, Enhanced: "5.7.8", Text: "User or password is wrong"})
	}
	return r
}

// mail is a transaction.
func (s *Session) mail(ctx context.Context) Reply {
	sc, ev := s.scenario, &s.ev
	s.judge.Reset()
	ev.Recipient, ev.Rcpts, ev.Content, ev.HasSender = mail.Path{}, nil, nil, false
	switch {
	case sc.Helo == "":
		return s.own(policy.Mail, mail.Status{Code: 503, Enhanced: "5.5.1", Text: "Say EHLO first"})
	case strings.HasPrefix(sc.Door, "submission") && sc.User == "":
		return s.own(policy.Mail, mail.Status{Code: 530, Enhanced: "5.7.0", Text: "Authentication required"})
	}
	ev.QueueID, ev.Sender, ev.HasSender, ev.Size = mail.NewID(sc.Now()), sc.Sender, true, sc.Size
	if r := s.ask(ctx, policy.Mail); r.Status.Code != 0 {
		return r
	}
	var refused Reply
	for _, to := range sc.Rcpts {
		r := s.rcpt(ctx, to)
		if r.Status.Code == 0 {
			ev.Rcpts = append(ev.Rcpts, to)
			s.fates = append(s.fates, r.Action)
		} else if refused.Status.Code == 0 {
			refused = r
		}
		if s.over {
			return r
		}
	}
	if len(sc.Rcpts) == 0 {
		return s.last()
	}
	if len(ev.Rcpts) == 0 {
		return refused
	}
	if len(ev.Rcpts) > 1 {
		ev.Recipient = mail.Path{}
	} else {
		ev.Recipient = ev.Rcpts[0]
	}
	r := s.ask(ctx, policy.Data)
	if r.Status.Code == 0 && sc.Message != nil {
		ev.Size, ev.Content = int64(len(sc.Message)), policy.NewContent(bytes.NewReader(sc.Message), int64(len(sc.Message)))
		r = s.ask(ctx, policy.Message)
	}
	return r
}

func (s *Session) rcpt(ctx context.Context, to mail.Path) Reply {
	ev := &s.ev
	ev.Recipient = to
	var r Reply
	if to.Domain() != "" || !strings.EqualFold(to.Local(), "postmaster") { // who is always reachable (RFC 5321 §4.5.1)
		if r = s.ask(ctx, policy.Rcpt); r.Status.Code != 0 {
			return r
		}
	}
	if ev.Directory == nil {
		return r
	}
	var own mail.Status
	switch ev.Directory.Class(to) {
	case policy.ClassRelay:
		if ev.User == "" && !ev.Trusted {
			own = policy.RelayDenied(to)
		}
	case policy.ClassUnknown:
		own = policy.UserUnknown(to)
	}
	if own.Code == 0 {
		return r
	}
	if d, ok := s.judge.Overruled(ev, own); ok {
		return s.reply(policy.Rcpt, d)
	}
	return s.own(policy.Rcpt, own)
}

// ask asks the checks of a stage.
func (s *Session) ask(ctx context.Context, stage policy.Stage) Reply {
	s.ev.Stage, s.ev.Time = stage, s.scenario.Now()
	d := s.judge.Ask(ctx, &s.ev)
	r := s.reply(stage, d)
	if r.Status.Code != 0 {
		return r
	}
	if stage < policy.Mail {
		s.effects[stage] = d.Effects
	} else {
		join(&s.message, d.Effects)
	}
	if stage != policy.Rcpt {
		s.fate = graver(s.fate, d.Action)
	}
	return r
}

// reply notes what was decided.
func (s *Session) reply(stage policy.Stage, d policy.Decision) Reply {
	r := Reply{Stage: stage, By: d.Check, Reason: d.Reason, Action: d.Action, ID: d.ID}
	if stage == policy.Rcpt {
		r.Rcpt = s.ev.Recipient
	}
	if d.Refused() {
		r.Status = d.Status
		s.over = s.over || d.Hangup
	}
	s.replies = append(s.replies, r)
	return r
}

// own notes a refusal of the server's own. It takes the place of what the
// policies said to the same command.
func (s *Session) own(stage policy.Stage, st mail.Status) Reply {
	st.Text = strings.Map(func(c rune) rune { // as the doors write it
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return ' '
		}
		return c
	}, st.Text)
	r := Reply{Stage: stage, Status: st, By: Core, Action: policy.Reject}
	if st.Code < 500 {
		r.Action = policy.Defer
	}
	if stage == policy.Rcpt {
		r.Rcpt = s.ev.Recipient
	}
	if n := len(s.replies); n > 0 && s.replies[n-1].Stage == stage && s.replies[n-1].Rcpt.String() == r.Rcpt.String() {
		s.replies = s.replies[:n-1]
	}
	s.replies = append(s.replies, r)
	return r
}

func (s *Session) last() Reply {
	if n := len(s.replies); n > 0 {
		return s.replies[n-1]
	}
	return Reply{}
}

// outcome sums up what happened; r is the reply that ended it.
func (s *Session) outcome(r Reply) Outcome {
	o := Outcome{Decisive: r, Replies: s.replies}
	for _, e := range s.effects {
		join(&o.Effects, e)
	}
	join(&o.Effects, s.message)
	if len(o.Replies) == 0 {
		o.Replies = []Reply{r}
	}
	if r.Status.Code != 0 {
		o.Verdict = r.Action.String()
		if r.Action != policy.Disconnect && r.Status.Code < 500 {
			o.Verdict = policy.Defer.String()
		}
		return o
	}
	// What a message comes to is what the best of its copies does.
	fate := policy.Next
	for i, f := range s.fates {
		if f = graver(f, s.fate); i == 0 || f != graver(f, fate) {
			fate = f
		}
	}
	if len(s.fates) == 0 {
		fate = s.fate
	}
	o.Verdict = policy.Accept.String()
	if fate != policy.Next {
		o.Verdict = fate.String()
		for _, one := range s.replies {
			if one.Action == fate {
				o.Decisive = one
			}
		}
	}
	return o
}

// graver is the graver of two fates.
func graver(a, b policy.Action) policy.Action {
	rank := func(a policy.Action) int {
		switch a {
		case policy.Quarantine:
			return 1
		case policy.Hold:
			return 2
		case policy.Discard:
			return 3
		}
		return 0
	}
	if rank(b) > rank(a) {
		return b
	}
	if rank(a) == 0 {
		return policy.Next
	}
	return a
}

func join(to *policy.Effects, more policy.Effects) {
	to.Prepend = append(to.Prepend, more.Prepend...)
	to.Tags = append(to.Tags, more.Tags...)
	to.Score += more.Score
	to.Redirect = append(to.Redirect, more.Redirect...)
	to.BCC = append(to.BCC, more.BCC...)
	to.Tarpit += more.Tarpit
}

// Records is a policy.DecisionLog that keeps what it is told. One walk at a time
// uses it.
type Records struct{ List []policy.Record }

// Decided keeps r.
func (l *Records) Decided(r policy.Record) { l.List = append(l.List, r) }
