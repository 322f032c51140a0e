package core

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/bounce"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/queue"
)

// queueDoor is the door by which policies judge mail that waits.
const queueDoor = "queue"

// judge asks the checks of the queue's door. fill completes the event.
func (s *Server) judge(ctx context.Context, stage policy.Stage, m *queue.Message, fill func(*policy.Event)) policy.Decision {
	g, release := s.pin()
	defer release()
	session := g.policy.Session(queueDoor)
	if !session.Active(stage) {
		return policy.Decision{}
	}
	e := &m.Envelope
	ev := policy.Event{
		Stage: stage, Time: time.Now(), Session: e.Session, Door: queueDoor, Protocol: queueDoor, Hostname: s.config.Hostname,
		Client: e.Client.Addr, ClientName: e.Client.Name, Helo: e.Client.Helo, User: e.User, QueueID: e.ID,
		Sender: e.From, HasSender: true, Size: m.Size, Directory: g.domains,
	}
	for i := range m.Rcpts {
		if m.Rcpts[i].State == queue.Waiting {
			ev.Rcpts = append(ev.Rcpts, m.Rcpts[i].To)
		}
	}
	fill(&ev)
	return session.Ask(ctx, &ev)
}

// queued lets policies judge a message that the queue is taking (see queue.Config).
func (s *Server) queued(ctx context.Context, m *queue.Message) {
	d := s.judge(ctx, policy.Queued, m, func(*policy.Event) {})
	all := func(r mail.Route) {
		for i := range m.Rcpts {
			m.Rcpts[i].Route = &r
		}
	}
	switch {
	case d.Refused():
		all(refusing(d))
	case d.Action == policy.Discard:
		all(mail.Route{Transport: dropping})
	case d.Action == policy.Hold:
		m.Hold = heldBy(d)
	}
	if d.Effects.Delay > 0 {
		m.Delay(m.Envelope.Received.Add(d.Effects.Delay))
	}
}

func heldBy(d policy.Decision) string {
	if d.Reason != "" {
		return fmt.Sprintf("held by check %s: %s", d.Check, d.Reason)
	}
	return "held by check " + d.Check
}

// refusing is the way to the sender with the policy's words.
func refusing(d policy.Decision) mail.Route {
	st := d.Status
	if st.Enhanced == "" {
		st.Enhanced = fmt.Sprintf("%d.7.1", st.Code/100)
	}
	return mail.Route{Transport: failing, Hop: fmt.Sprintf("%d %s %s", st.Code, st.Enhanced, st.Text)}
}

// routed is where a recipient's mail goes, after the policies have had their say (see
// queue.Config).
func (s *Server) routed(ctx context.Context, m *queue.Message, r *queue.Recipient) (mail.Route, *mail.Outcome) {
	way := s.route(r)
	d := s.judge(ctx, policy.Route, m, func(ev *policy.Event) {
		ev.Recipient, ev.Attempts = r.To, m.Tries-1
		if !r.At.IsZero() {
			ev.Reply = replyOf(r.Outcome.Status)
		}
	})
	e := &d.Effects
	own := func(code int, enhanced, text string) *mail.Outcome {
		return &mail.Outcome{Status: mail.Status{Code: code, Enhanced: enhanced, Text: text}}
	}
	switch {
	case d.Refused():
		return way, &mail.Outcome{Status: d.Status}
	case d.Action == policy.Discard:
		return mail.Route{Transport: dropping}, nil
	case d.Action == policy.Hold:
		return mail.Route{Transport: queue.Held, Hop: heldBy(d)}, nil
	case e.Delay > 0 && time.Since(m.Envelope.Received) < e.Delay:
		return way, own(450, "4.7.0", "delayed by a policy until "+m.Envelope.Received.Add(e.Delay).Format(time.RFC1123Z))
	case e.Transport != "" && !s.hasTransport(e.Transport):
		s.log.Error("a policy wants a transport that there is not", "id", m.Envelope.ID, "transport", e.Transport)
		return way, own(451, "4.3.5", "Server configuration error")
	case e.Transport != "":
		if way = (mail.Route{Transport: e.Transport, Hop: e.Hop}); way.Hop == "" {
			way.Hop = s.hopOf(e.Transport, r)
		}
	}
	if e.Limit > 0 {
		s.limits.add(way, e.Limit)
	}
	return way, nil
}

// wishes are the deliveries at once that policies want for a route.
type wishes struct {
	mu sync.Mutex
	by map[mail.Route]int
}

// maxWishes bounds them: routes have the names of domains that anybody can make up.
const maxWishes = 10_000

func (w *wishes) add(r mail.Route, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by == nil || len(w.by) >= maxWishes { // they come again with the next recipient
		w.by = map[mail.Route]int{}
	}
	w.by[r] = n
}

// of is 0 where no policy has said anything.
func (w *wishes) of(r mail.Route) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.by[r]
}

func replyOf(st mail.Status) string {
	text, _, _ := strings.Cut(st.Text, "\n")
	if st.Enhanced == "" || strings.HasPrefix(text, st.Enhanced) {
		return fmt.Sprintf("%d %s", st.Code, text)
	}
	return fmt.Sprintf("%d %s %s", st.Code, st.Enhanced, text)
}

// hasTransport reports whether a policy may choose name.
func (s *Server) hasTransport(name string) bool {
	if name == queue.ByDomain || name == dropping {
		return true
	}
	for _, t := range s.config.Sending.Transports {
		if t.Name == name {
			return t.Protocol != "hold"
		}
	}
	return false
}

// hopOf is a transport's own next hop for a recipient.
func (s *Server) hopOf(transport string, r *queue.Recipient) string {
	for _, t := range s.config.Sending.Transports {
		if t.Name == transport && t.Host != "" {
			return t.Host
		}
	}
	return mail.DomainKey(r.To.Domain())
}

// review lets policies keep a notice back (see queue.Notices).
func (s *Server) review(m *queue.Message, kind bounce.Kind, about []queue.Recipient) bool {
	d := s.judge(context.Background(), policy.Bounce, m, func(ev *policy.Event) {
		ev.Notice, ev.Attempts, ev.Rcpts = kind.String(), m.Tries, nil
		for i := range about {
			ev.Rcpts = append(ev.Rcpts, about[i].To)
		}
		ev.Recipient, ev.Reply = about[0].To, replyOf(about[0].Outcome.Status)
	})
	return d.Action != policy.Discard
}
