package imapd

import (
	"errors"
	"hash/maphash"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wafermail/wafer/core/maildir"
)

const (
	maxWatched  = 1000 // mailboxes that one session is told of
	maxSurveyed = 10 * maxWatched

	notifyPause = 100 * time.Millisecond // between two wakes of a session, so that a burst is told of at once
	notifyLook  = 5 * time.Second        // between two looks where the system does not tell of changes
	notifyAgain = time.Second            // from a change of the tree to a second look: another program makes a folder in steps
)

// notify is what a session that has used NOTIFY (RFC 5465) is told of. Mailboxes
// are watched without being open. All watches share one signal, for which one
// goroutine waits that wakes the session; the session alone looks and writes.
type notify struct {
	query     notifyQuery
	signal    chan struct{}
	waiter    sync.WaitGroup
	stop      chan struct{}  // nil: no goroutine runs
	unsure    chan struct{}  // asks the goroutine for a second look
	again     atomic.Bool    // it is time for that
	tree      *maildir.Watch // nil: the selected mailbox alone is of interest, if any
	places    map[string]*place
	subs      map[string]bool   // names that are subscribed to
	server    map[string]uint64 // annotations of the server
	seed      maphash.Seed
	unselect  func() // ends the watch of the selected mailbox; nil: there is none
	mine      ranges // UIDs of the selected mailbox that the client itself has just added
	expunging bool   // the command that runs expunges
}

// place is a mailbox as the client knows it.
type place struct {
	events notifyEvents
	id     string         // see maildir.Store.Identity
	watch  *maildir.Watch // nil: what is in it does not matter
	state  maildir.Status
	mine   int               // messages that the client itself has added since
	notes  map[string]uint64 // sums of annotations by name
}

var errTooMany = errors.New("too many mailboxes to be told of")

// cmdNotify is RFC 5465 §3.1.
func (s *session) cmdNotify(p *parser) (done, error) {
	q, err := p.notifyQuery()
	if err != nil {
		return done{}, err
	}
	if err := s.refresh(); err != nil || s.over {
		return done{}, err
	}
	before := s.notify
	s.notify = nil // for a moment: the client is told everything, as by NOOP
	if s.view != nil {
		s.view.held = false
	}
	s.news(true)
	n := &notify{query: q, signal: make(chan struct{}, 1), unsure: make(chan struct{}, 1), seed: maphash.MakeSeed()}
	if g := q.selected(); g != nil && g.fetch != nil {
		if !g.fetch.wants(fetchUID) {
			g.fetch.items = append([]fetchItem{{kind: fetchUID}}, g.fetch.items...)
		}
		if g.fetch.wants(fetchModSeq) {
			s.useCondstore()
		}
	}
	s.notify = n
	if err := s.startNotify(); err != nil {
		s.stopNotify()
		s.notify = before
		if s.view != nil {
			s.notifySelected()
		}
		if errors.Is(err, errTooMany) {
			return done{}, no("NOTIFICATIONOVERFLOW", "Too many mailboxes to be told of")
		}
		return done{}, s.storeError("watch mailboxes", "", err)
	}
	if before != nil {
		before.end()
	}
	return done{}, nil
}

// startNotify begins to watch what s.notify asks for.
func (s *session) startNotify() error {
	n := s.notify
	if s.view != nil {
		s.notifySelected()
	}
	others := false
	for i := range n.query.groups {
		others = others || !n.query.groups[i].ofSelected()
	}
	if others {
		n.tree = s.store.Watch(n.signal)
		if err := s.survey(nil, true); err != nil {
			return err
		}
	}
	if n.tree != nil || n.query.selected() != nil {
		n.run(s.store.Watched, s.srv.notifyLook, s.wake.kick)
	}
	return nil
}

// run starts the goroutine that calls kick after signals and, where the system does
// not tell of all changes, every so often.
func (n *notify) run(watched func() bool, every time.Duration, kick func()) {
	stop := make(chan struct{})
	n.stop = stop
	n.waiter.Go(func() {
		look := time.NewTicker(every)
		defer look.Stop()
		pause, again := time.NewTimer(0), time.NewTimer(notifyAgain)
		defer pause.Stop()
		defer again.Stop()
		for {
			select {
			case <-stop:
				return
			case <-n.unsure:
				again.Reset(notifyAgain)
				continue
			case <-again.C:
				n.again.Store(true)
			case <-n.signal:
			case <-look.C:
				if watched() {
					continue
				}
			}
			kick()
			pause.Reset(notifyPause)
			select {
			case <-stop:
				return
			case <-pause.C:
			}
		}
	})
}

// stopNotify ends what startNotify began.
func (s *session) stopNotify() {
	if s.notify != nil {
		s.notify.end()
		s.notify = nil
	}
}

func (n *notify) end() {
	if n.stop != nil {
		close(n.stop)
		n.waiter.Wait()
		n.stop = nil
	}
	if n.unselect != nil {
		n.unselect()
		n.unselect = nil
	}
	for _, at := range n.places {
		at.close()
	}
	if n.tree != nil {
		n.tree.Close()
	}
	n.places, n.tree = nil, nil
}

func (at *place) close() {
	if at.watch != nil {
		at.watch.Close()
		at.watch = nil
	}
}

// notifySelected begins to watch the selected mailbox, or holds it as it is if the
// client does not want to hear of it.
func (s *session) notifySelected() {
	n, v := s.notify, s.view
	v.held = false
	if n == nil {
		return
	}
	if n.unselect != nil {
		n.unselect()
		n.unselect = nil
	}
	n.mine = nil
	if n.query.selected() != nil {
		n.unselect = v.folder.WatchInto(n.signal)
		return
	}
	v.held, v.limit = true, v.last()
}

// notifyUnselected ends what notifySelected began. Of the mailbox the client knows
// what it has been told, and what it has done itself.
func (s *session) notifyUnselected() {
	n, v := s.notify, s.view
	if n == nil {
		return
	}
	if n.unselect != nil {
		n.unselect()
		n.unselect = nil
	}
	at := n.places[v.name]
	if at == nil || at.watch == nil || v.held {
		return
	}
	msgs, st := v.folder.Messages(), v.folder.Status()
	if len(msgs) == 0 || msgs[len(msgs)-1].UID <= v.last() {
		at.state = st
	}
}

// last is the highest UID of the view, 0 if it is empty.
func (v *view) last() uint32 {
	if n := len(v.msgs); n > 0 {
		return v.msgs[n-1].UID
	}
	return 0
}

// hears reports what the client wants to hear of the selected mailbox.
func (s *session) hears() (messages, flags bool) {
	if s.notify == nil {
		return true, true
	}
	g := s.notify.query.selected()
	return g != nil, g != nil && g.events&flagChange != 0
}

// nextCommand waits for the next command and sends, meanwhile, what NOTIFY asks for.
func (s *session) nextCommand() ([]byte, error) {
	began := time.Now()
	for {
		line, err := s.in.line()
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return line, err
		}
		if kicked, closing := s.wake.taken(); closing || !kicked {
			return nil, err
		}
		if s.notify != nil { // else NOTIFY has ended just now
			if s.notified(false); s.over || s.out.err != nil {
				return nil, errOver
			}
		}
		s.in.shrink()
		s.patience = s.srv.c.Limits.Idle - time.Since(began)
	}
}

// errOver says that the session has ended and all has been said.
var errOver = errors.New("session is over")

// notified looks for what NOTIFY asks for and tells it. idle says that the client
// waits in IDLE, where it may be told of everything (RFC 5465 §4).
func (s *session) notified(idle bool) {
	n := s.notify
	if n.tree != nil {
		everything := !s.store.Watched()
		switch {
		case n.tree.Changed():
			s.resurvey()
			select {
			case n.unsure <- struct{}{}:
			default: // it knows already
			}
		case everything, n.again.Swap(false):
			s.resurvey()
		}
		s.notifyPlaces(everything)
	}
	if g := n.query.selected(); g != nil && s.view != nil {
		if err := s.refresh(); err != nil || s.over {
			return // it has been logged, and is tried again
		}
		s.news(idle || g.filter == forSelected)
	}
}

// resurvey is survey after NOTIFY has succeeded. names are those that the client
// itself has just changed.
func (s *session) resurvey(names ...string) {
	err := s.survey(names, false)
	switch {
	case err == nil:
	case errors.Is(err, errTooMany): // RFC 5465 §5.8
		s.news(false)
		s.out.line("* OK [NOTIFICATIONOVERFLOW] Too many mailboxes to be told of")
		s.notify.end()
		s.notify.query = notifyQuery{none: true}
		if s.view != nil {
			s.notifySelected()
		}
	default:
		s.log.Error("look for changed mailboxes", "user", s.user, "err", err)
	}
}

// did says that the client itself has changed mailboxes, of which it is not told
// (RFC 5465 §5). "" is the server, for annotations.
func (s *session) did(names ...string) {
	if s.notify != nil && s.notify.tree != nil {
		s.resurvey(names...)
	}
}

// running prepares for a command.
func (n *notify) running(command string) {
	n.expunging = slices.Contains([]string{"EXPUNGE", "UID EXPUNGE", "MOVE", "UID MOVE", "REPLACE", "UID REPLACE"}, command)
}

// added takes note of messages that the client itself has added, by the response
// code that says so (RFC 4315 §3).
func (s *session) added(code string) {
	words := strings.Fields(code)
	if s.notify == nil || len(words) < 3 || words[0] != "APPENDUID" && words[0] != "COPYUID" {
		return
	}
	p := &parser{line: []byte(words[1])}
	validity, err := p.number()
	if err != nil {
		return
	}
	p = &parser{line: []byte(words[len(words)-1])}
	set, err := p.numSet()
	if err != nil {
		return
	}
	uids := set.resolve(0)
	if s.view != nil && s.view.folder.Status().UIDValidity == validity {
		if g := s.notify.query.selected(); g != nil && g.fetch != nil {
			s.notify.mine = append(s.notify.mine, uids...)
		}
		return
	}
	for _, at := range s.notify.places {
		if at.watch != nil && at.state.UIDValidity == validity {
			for _, sp := range uids {
				at.mine += int(sp.hi - sp.lo + 1)
			}
		}
	}
}
