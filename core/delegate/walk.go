package delegate

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// walk is one SMTP session of Postfix's, as far as it was asked about.
type walk struct {
	srv *Server
	set *policy.Set
	id  mail.ID

	mu    sync.Mutex // two smtpd lists may ask over two connections
	judge *policy.Session

	last  request // the latest, with what was answered if it was a refusal
	said  string
	asked bool // there is a last

	done    [policy.LastStage + 1]bool   // stages that have been asked about what last says
	refused [policy.Rcpt]policy.Decision // what the stages before rcpt have refused with; Next: nothing
	rcpts   []mail.Path                  // that were not refused, in this transaction
	session [policy.Mail]effects         // what the stages before mail have added
	pending effects                      // what has not been said yet
	tarpit  time.Duration                // asked for by this request
}

// maxRcpts bounds what is remembered of a transaction's recipients.
const maxRcpts = 1000

func newSessionID() mail.ID { return mail.NewID(time.Now()) }

// answer asks the stages that rq brings something new for. w.mu is held.
func (w *walk) answer(ctx context.Context, rq *request) (action string, tarpit time.Duration) {
	now := *rq
	now.queueID = "" // it comes with the first recipient that is accepted
	if w.asked && w.last == now {
		if w.said != "" {
			w.srv.refused.Add(1)
			return w.said, 0
		}
		return w.pending.next(rq), 0
	}
	if rq.aside() && w.asked { // the transaction goes on behind it
		now = w.last
		now.state, now.caller, now.greeting, now.login = rq.state, rq.caller, rq.greeting, rq.login
	}
	w.begin(rq)
	w.last, w.said, w.asked, w.tarpit = now, "", true, 0
	d := w.ask(ctx, rq)
	if d.Refused() {
		w.said = refusalAction(d)
		w.srv.refused.Add(1)
		return w.said, w.tarpit
	}
	return w.pending.next(rq), w.tarpit
}

// begin forgets what rq shows to be over.
func (w *walk) begin(rq *request) {
	if !w.asked {
		return
	}
	before := &w.last
	var from policy.Stage
	switch {
	case before.caller.who() != rq.caller.who():
		from = policy.Connect
	case before.tls != rq.tls, // a new EHLO follows (RFC 3207 §4.2)
		rq.stage >= policy.Helo && before.stage >= policy.Helo && !before.greeting.same(rq.greeting),
		rq.state == "HELO" || rq.state == "EHLO" || rq.state == "LHLO":
		from = policy.Helo
	case before.login != rq.login:
		from = policy.Auth
	case w.over(before, rq):
		from = policy.Mail
	default:
		return
	}
	for s := from; s <= policy.LastStage; s++ {
		// A greeting is newer than a handshake, but takes nothing back that was said
		// about it; nor does it about a login.
		if from == policy.Helo && (s == policy.StartTLS && before.tls == rq.tls || s == policy.Auth && before.login == rq.login) {
			continue
		}
		w.done[s] = false
		if s < policy.Mail {
			w.session[s] = effects{}
		}
		if s < policy.Rcpt {
			w.refused[s] = policy.Decision{}
		}
	}
	w.rcpts = nil
	if n := w.pending.len(); n > 0 {
		w.srv.lost.Add(uint64(n))
		w.srv.log.Info("postfix did not ask for all that the policy wants", "session", string(w.id), "instance", before.instance, "effects", n)
	}
	w.pending = effects{}
}

// over reports whether rq belongs to another transaction than before.
func (w *walk) over(before, rq *request) bool {
	if rq.aside() {
		return false
	}
	if rq.stage < policy.Mail || before.stage < policy.Mail {
		return w.done[policy.Mail]
	}
	if before.instance != "" {
		return before.instance != rq.instance
	}
	return before.sender != rq.sender || rq.stage == policy.Mail && before.stage > policy.Mail
}

// who is a caller without what STARTTLS changes.
func (c caller) who() caller {
	c.tls = mail.TLS{}
	return c
}

// same ignores extended, which Postfix shows late.
func (g greeting) same(o greeting) bool { return g.helo == o.helo }

// ask asks every stage up to rq's that has not been, until one refuses.
func (w *walk) ask(ctx context.Context, rq *request) policy.Decision {
	for _, stage := range [...]policy.Stage{policy.Connect, policy.StartTLS, policy.Helo, policy.Auth, policy.Mail, policy.Rcpt, policy.Data} {
		if stage == policy.Rcpt && rq.stage == policy.Rcpt {
			w.done[stage] = false // another recipient, or the same once more
		}
		if !concerns(stage, rq) {
			continue
		}
		if stage < policy.Rcpt && w.refused[stage].Refused() {
			return w.refused[stage] // it stands as long as what it was said about
		}
		if w.done[stage] {
			continue
		}
		ev := w.event(stage, rq)
		if stage == policy.Mail {
			for _, e := range w.session {
				w.pending.join(e)
			}
		}
		d := w.judge.Ask(ctx, ev)
		w.done[stage] = true
		w.tarpit = max(w.tarpit, d.Effects.Tarpit)
		if d.Refused() {
			if stage < policy.Rcpt {
				w.refused[stage] = d
			}
			return d
		}
		added := effectsOf(d)
		if stage < policy.Mail {
			w.session[stage] = added
			continue
		}
		w.pending.join(added)
		if stage == policy.Rcpt && len(w.rcpts) < maxRcpts && !slices.Contains(w.rcpts, rq.recipient) {
			w.rcpts = append(w.rcpts, rq.recipient)
		}
	}
	// What is held back until RCPT is due now, unless RCPT has given it: Postfix
	// may not ask again.
	if rq.stage != policy.Rcpt && !w.done[policy.Rcpt] {
		ev := w.event(policy.Rcpt, rq)
		if d, ok := w.judge.Due(ev); ok {
			return d
		}
	}
	return policy.Decision{}
}

// concerns reports whether rq knows what stage is about.
func concerns(stage policy.Stage, rq *request) bool {
	switch stage {
	case policy.StartTLS:
		return rq.tls.On()
	case policy.Helo:
		return rq.stage >= stage && rq.helo != ""
	case policy.Auth:
		return rq.user != ""
	case policy.Rcpt:
		return rq.stage >= stage && !rq.recipient.IsNull()
	}
	return rq.stage >= stage
}

// event is what the checks of stage may know of rq.
func (w *walk) event(stage policy.Stage, rq *request) *policy.Event {
	c := &w.srv.c
	ev := &policy.Event{
		Stage: stage, Time: time.Now(), Session: string(w.id), Door: c.Door, Protocol: "smtp",
		Server: rq.server, Hostname: c.Hostname, Client: rq.client, ClientName: rq.name, ReverseName: rq.reverseName,
		Trusted: within(rq.client.Addr(), c.Trusted), Directory: c.Directory(),
	}
	if rq.lmtp {
		ev.Protocol = "lmtp"
	}
	if stage >= policy.Helo {
		ev.Helo, ev.Extended = rq.helo, rq.extended
	}
	if stage >= policy.StartTLS {
		ev.TLS = rq.tls
	}
	if stage >= policy.Auth && rq.user != "" {
		ev.User, ev.Mechanism, ev.AuthOK = rq.user, rq.mechanism, true
	}
	if stage >= policy.Mail {
		ev.Sender, ev.HasSender, ev.Size, ev.QueueID = rq.sender, true, rq.size, rq.queueID
	}
	if stage >= policy.Rcpt {
		ev.Recipient, ev.Rcpts = rq.recipient, slices.Clip(w.rcpts)
	}
	return ev
}

func within(addr netip.Addr, nets []netip.Prefix) bool {
	return slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(addr) })
}
