// Package replay judges recorded mail again: what was known at each moment, and every
// answer that checks got, comes from a tape; what they say now is compared with what they
// said then.
//
//	log := replay.Record(tape)                 // a policy.Tape that writes entries
//	…
//	p := replay.New(replay.Options{Difference: print})
//	set := policy.NewSet(policies, p.World())  // of the version to be tried
//	p.Start(set)
//	for each entry in its order { p.Play(entry) }
//	totals := p.Finish()
//
// Encode and Decode are the form of an entry. Sessions are played side by side, each in
// its order, so that what an earlier moment has left (held refusals, tags) counts as it
// does on the server.
//
// What a check asks that it did not ask then is unknown, and so is a moment in which it
// happens: it is counted apart, never as a difference. DNS can be asked live. What came
// after a refusal is not on the tape: where the new version lets a client go on that was
// sent away, the rest is a guess, and is marked as approximate.
//
// # BUGS
//
// How much fuel a call uses depends a little on what its instance did before (a guest's
// garbage collector); fuel is compared and counted, and no difference of its own.
// Contents of bodies are on the tape only where the configuration says so.
package replay

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// Options of a Player.
type Options struct {
	Parallel int               // sessions at once; 0: one for each core
	Live     policy.Resolver   // asked for what the tape does not tell; nil: nobody
	Differs  func(*Difference) // called for each, one at a time; nil: they are only counted
	Logger   *slog.Logger      // nil: silent
}

// Difference is a moment at which the new version decides otherwise, or cannot be sure.
type Difference struct {
	Time        time.Time `json:"time"`
	Session     string    `json:"session"`
	ID          mail.ID   `json:"id,omitempty"` // of the decision then, "" if it had none
	Door        string    `json:"door"`
	Stage       string    `json:"stage"`
	Client      string    `json:"client"`
	Helo        string    `json:"helo,omitempty"`
	Sender      string    `json:"sender,omitempty"`
	Recipient   string    `json:"rcpt,omitempty"`
	Before      Outcome   `json:"before"`
	After       Outcome   `json:"after"`
	Checks      []Change  `json:"checks,omitempty"`
	Unknown     []string  `json:"unknown,omitempty"`     // what the tape does not tell
	Approximate bool      `json:"approximate,omitempty"` // an earlier moment of the session differs
	Live        int       `json:"live,omitempty"`        // DNS questions that were asked now

	Asked *policy.Asked `json:"-"` // as it was recorded
}

// Outcome is a decision in words.
type Outcome struct {
	Action   string `json:"action"`
	Code     int    `json:"code,omitempty"`
	Enhanced string `json:"enhanced,omitempty"`
	Text     string `json:"text,omitempty"` // without the decision's id
	Check    string `json:"check,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Effects  string `json:"effects,omitempty"`
}

// Change is a check that says something else.
type Change struct {
	Check  string `json:"check"`
	Before string `json:"before"` // "" : it was not asked
	After  string `json:"after"`  // "" : it is not asked
}

// Totals sum up a replay.
type Totals struct {
	Sessions    int            `json:"sessions"`
	Moments     int            `json:"moments"`
	Calls       int            `json:"calls"` // of checks
	Differences int            `json:"differences"`
	Rejects     int            `json:"would_refuse"` // moments that were let through and are refused now
	Accepts     int            `json:"would_accept"` // the other way round
	Unknown     int            `json:"unknown"`
	Approximate int            `json:"approximate"` // of the differences
	Live        int            `json:"live"`        // DNS questions that were asked now
	ByCheck     map[string]int `json:"by_check"`    // differences by the check that decides now, or did
	BySender    map[string]int `json:"by_sender"`   // by the domain of the sender; at most 1,000, then ""
	Fuel        Fuel           `json:"fuel"`
	First       time.Time      `json:"first,omitzero"`
	Last        time.Time      `json:"last,omitzero"`
}

// Fuel compares what calls of unchanged modules have used.
type Fuel struct {
	Same    int     `json:"same"`
	Differs int     `json:"differs"`
	Most    float64 `json:"most"` // the largest difference, as a part of what was used then
}

// Player plays entries.
type Player struct {
	o     Options
	set   *policy.Set
	lanes []*lane
	group sync.WaitGroup
	seed  maphash.Seed

	mu sync.Mutex // of Differs
}

// lane plays the sessions that fall to one goroutine.
type lane struct {
	p        *Player
	in       chan *policy.Asked
	sessions map[string]*session
	totals   Totals
}

// maxOpen bounds the sessions that one lane keeps open. The one that has been quiet for
// longest is forgotten first.
const maxOpen = 5_000

// session is one that is being played.
type session struct {
	walk    *policy.Session
	differs bool // at an earlier moment
	last    int  // entry of the lane
	heard   *policy.Asked
	dns     map[string]*policy.HostAnswer // of all checks so far
	facts   []policy.Fact                 // the newest last
}

// maxFacts bounds what a session remembers of the directory.
const maxFacts = 1000

// New returns a Player that has no policies yet.
func New(o Options) *Player {
	if o.Parallel <= 0 {
		o.Parallel = runtime.GOMAXPROCS(0)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Player{o: o, seed: maphash.MakeSeed()}
	for range o.Parallel {
		p.lanes = append(p.lanes, &lane{p: p, in: make(chan *policy.Asked, 256), sessions: map[string]*session{}})
	}
	return p
}

// World is what the policies of a replay may touch: nothing.
func (p *Player) World() policy.SetOptions {
	return policy.SetOptions{Tape: p, Bodies: true, Logger: p.o.Logger}
}

// Start begins with the policies in set, which was made with World.
func (p *Player) Start(set *policy.Set) {
	p.set = set
	for _, l := range p.lanes {
		p.group.Go(func() {
			n := 0
			for a := range l.in {
				n++
				l.play(a, n)
			}
		})
	}
}

// lane is the one that plays a session.
func (p *Player) lane(session string) *lane {
	return p.lanes[maphash.String(p.seed, session)%uint64(len(p.lanes))]
}

// Play plays one entry. Those of a session must come in their order.
func (p *Player) Play(a *policy.Asked) { p.lane(key(&a.Event)).in <- a }

// key tells sessions apart; the queue judges mail under the id of the session that brought it.
func key(e *policy.Event) string { return e.Door + " " + e.Session }

// Asked hears what the policies say now (policy.Tape). It is called by the lane that
// plays the session.
func (p *Player) Asked(a *policy.Asked) {
	s := p.lane(key(&a.Event)).sessions[key(&a.Event)]
	copied := *a
	copied.Calls = slices.Clone(a.Calls)
	s.heard = &copied
}

// Finish waits until all has been played, and sums up.
func (p *Player) Finish() Totals {
	for _, l := range p.lanes {
		close(l.in)
	}
	p.group.Wait()
	t := Totals{ByCheck: map[string]int{}, BySender: map[string]int{}}
	for _, l := range p.lanes {
		t.add(&l.totals)
	}
	return t
}

func (t *Totals) add(o *Totals) {
	t.Sessions += o.Sessions
	t.Moments += o.Moments
	t.Calls += o.Calls
	t.Differences += o.Differences
	t.Rejects += o.Rejects
	t.Accepts += o.Accepts
	t.Unknown += o.Unknown
	t.Approximate += o.Approximate
	t.Live += o.Live
	t.Fuel.Same += o.Fuel.Same
	t.Fuel.Differs += o.Fuel.Differs
	t.Fuel.Most = max(t.Fuel.Most, o.Fuel.Most)
	for k, n := range o.ByCheck {
		t.ByCheck[k] += n
	}
	for k, n := range o.BySender {
		t.sender(k, n)
	}
	if t.First.IsZero() || !o.First.IsZero() && o.First.Before(t.First) {
		t.First = o.First
	}
	if o.Last.After(t.Last) {
		t.Last = o.Last
	}
}

const maxSenders = 1000

func (t *Totals) sender(domain string, n int) {
	if t.BySender == nil {
		t.BySender = map[string]int{}
	}
	if _, there := t.BySender[domain]; !there && len(t.BySender) >= maxSenders {
		domain = ""
	}
	t.BySender[domain] += n
}

// session finds or begins the session of a.
func (l *lane) session(a *policy.Asked, n int) *session {
	s := l.sessions[key(&a.Event)]
	if s == nil {
		if len(l.sessions) >= maxOpen {
			l.forget()
		}
		s = &session{walk: l.p.set.Session(a.Event.Door), dns: map[string]*policy.HostAnswer{}}
		l.sessions[key(&a.Event)] = s
		l.totals.Sessions++
	}
	s.last = n
	return s
}

// forget closes the half of the sessions that has been quiet for longest.
func (l *lane) forget() {
	ids := slices.SortedFunc(maps.Keys(l.sessions), func(a, b string) int { return l.sessions[a].last - l.sessions[b].last })
	for _, id := range ids[:len(ids)/2] {
		delete(l.sessions, id)
	}
}

// play judges one moment again and compares.
func (l *lane) play(a *policy.Asked, n int) {
	s := l.session(a, n)
	t := &l.totals
	t.Moments++
	if t.First.IsZero() || a.Event.Time.Before(t.First) {
		t.First = a.Event.Time
	}
	if a.Event.Time.After(t.Last) {
		t.Last = a.Event.Time
	}
	for i := range a.Calls {
		for k := range a.Calls[i].Answers {
			if x := &a.Calls[i].Answers[k]; x.Kind == policy.AskedDNS && len(s.dns) < 1000 {
				s.dns[x.Key] = x
			}
		}
	}
	if len(s.facts) > maxFacts {
		s.facts = nil
	}
	s.facts = append(s.facts, a.Facts...)
	seen := &notes{}
	ev := a.Event
	if a.Directory {
		ev.Directory = directory{s.facts, seen}
	}
	if a.Content {
		ev.Content = content{a.Fields, a.Reads, seen}
	}
	s.walk.Replay(func(check string) policy.Witness {
		var call *policy.Called
		for i := range a.Calls {
			if a.Calls[i].Check == check {
				call = &a.Calls[i]
			}
		}
		h := newHost(call, a.Event.Time, l.p.o.Live, seen)
		h.others = s.dns
		return h
	})
	s.heard = nil
	s.walk.Ask(context.Background(), &ev)
	now := s.heard
	if now == nil { // no policy guards the door
		now = &policy.Asked{Event: a.Event}
	}
	t.Calls += len(now.Calls)
	t.Live += seen.asked
	d := l.compare(a, now)
	d.Unknown, d.Live, d.Approximate = seen.unknown, seen.asked, s.differs
	switch {
	case len(seen.unknown) > 0:
		t.Unknown++
	case len(d.Checks) == 0 && d.Before == d.After:
		return
	default:
		l.count(a, now, d)
	}
	s.differs = true
	if l.p.o.Differs != nil {
		l.p.mu.Lock()
		defer l.p.mu.Unlock()
		l.p.o.Differs(d)
	}
}

func (l *lane) count(a, now *policy.Asked, d *Difference) {
	t := &l.totals
	t.Differences++
	if d.Approximate {
		t.Approximate++
	}
	was, is := a.Decision.Refused(), now.Decision.Refused()
	switch {
	case is && !was:
		t.Rejects++
	case was && !is:
		t.Accepts++
	}
	check := d.After.Check
	if check == "" {
		check = d.Before.Check
	}
	if check == "" && len(d.Checks) > 0 {
		check = d.Checks[0].Check
	}
	if t.ByCheck == nil {
		t.ByCheck = map[string]int{}
	}
	t.ByCheck[check]++
	if a.Event.HasSender {
		t.sender(mail.DomainKey(a.Event.Sender.Domain()), 1)
	}
}

// compare says what differs between then and now.
func (l *lane) compare(then, now *policy.Asked) *Difference {
	e := &then.Event
	d := &Difference{
		Time: e.Time, Session: e.Session, ID: then.Decision.ID, Door: e.Door, Stage: e.Stage.String(), Client: e.Client.Addr().String(), Helo: e.Helo,
		Recipient: e.Recipient.String(), Before: outcome(&then.Decision), After: outcome(&now.Decision), Asked: then,
	}
	if e.HasSender {
		d.Sender = "<" + e.Sender.String() + ">"
	}
	for i := range then.Calls {
		was := &then.Calls[i]
		is := find(now.Calls, was.Check)
		before, after := said(was), ""
		if is != nil {
			after = said(is)
		}
		if before != after {
			d.Checks = append(d.Checks, Change{was.Check, before, after})
		} else if was.Digest == is.Digest && was.Err == "" {
			l.totals.Fuel.compare(was.Fuel, is.Fuel)
		}
	}
	for i := range now.Calls {
		if is := &now.Calls[i]; find(then.Calls, is.Check) == nil {
			d.Checks = append(d.Checks, Change{is.Check, "", said(is)})
		}
	}
	return d
}

func (f *Fuel) compare(was, is int64) {
	if was == is {
		f.Same++
		return
	}
	f.Differs++
	if was > 0 {
		f.Most = max(f.Most, float64(max(was-is, is-was))/float64(was))
	}
}

func find(calls []policy.Called, check string) *policy.Called {
	for i := range calls {
		if calls[i].Check == check {
			return &calls[i]
		}
	}
	return nil
}

// said is what a check said, on one line.
func said(c *policy.Called) string {
	if c.Err != "" {
		return "error: " + c.Err
	}
	v := &c.Verdict
	words := []string{v.Action.String()}
	if v.Status.Code != 0 {
		words = append(words, fmt.Sprint(v.Status.Code))
	}
	for _, w := range []string{v.Status.Enhanced, v.Status.Text, v.Reason, effects(&v.Effects)} {
		if w != "" {
			words = append(words, w)
		}
	}
	return strings.Join(words, " ")
}

func outcome(d *policy.Decision) Outcome {
	text := d.Status.Text
	if d.ID != "" {
		text = strings.TrimSpace(strings.ReplaceAll(text, "("+string(d.ID)+")", ""))
	}
	return Outcome{Action: d.Action.String(), Code: d.Status.Code, Enhanced: d.Status.Enhanced, Text: text, Check: d.Check, Reason: d.Reason, Effects: effects(&d.Effects)}
}

// effects are e in words.
func effects(e *policy.Effects) string {
	var b []string
	for _, f := range e.Prepend {
		b = append(b, "prepend "+f.Name+": "+f.Value)
	}
	for _, t := range e.Tags {
		b = append(b, "tag "+t)
	}
	if e.Score != 0 {
		b = append(b, fmt.Sprintf("score %+g", e.Score))
	}
	for _, p := range e.Redirect {
		b = append(b, "redirect "+p.String())
	}
	for _, p := range e.BCC {
		b = append(b, "bcc "+p.String())
	}
	if e.Tarpit > 0 {
		b = append(b, "tarpit "+e.Tarpit.String())
	}
	if e.Transport != "" {
		b = append(b, "route "+e.Transport+" "+e.Hop)
	}
	if e.Delay > 0 {
		b = append(b, "delay "+e.Delay.String())
	}
	if e.Limit > 0 {
		b = append(b, fmt.Sprint("limit ", e.Limit))
	}
	return strings.Join(b, ", ")
}
