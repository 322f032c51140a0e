package imapd

import (
	"slices"

	"github.com/wafermail/wafer/core/maildir"
)

// landscape is the tree of mailboxes at one moment.
type landscape struct {
	folders map[string]*maildir.FolderInfo
	order   []string // names of folders that can be selected, parents first
	subs    map[string]bool
	ids     map[string]string
}

// landscape looks at the tree.
func (s *session) landscape(identities bool) (*landscape, error) {
	folders, err := s.store.Folders(s.ctx)
	if err != nil {
		return nil, err
	}
	subs, err := s.store.Subscriptions()
	if err != nil {
		return nil, err
	}
	l := &landscape{folders: make(map[string]*maildir.FolderInfo, len(folders)), subs: make(map[string]bool, len(subs)), ids: map[string]string{}}
	for i := range folders {
		f := &folders[i]
		l.folders[f.Name] = f
		if f.NoSelect {
			continue
		}
		l.order = append(l.order, f.Name)
		if identities {
			l.ids[f.Name] = s.store.Identity(f.Name)
		}
	}
	for _, name := range subs {
		l.subs[name] = true
	}
	return l, nil
}

// survey compares the tree of mailboxes with what the client knows, tells of what
// has changed but for the names in own, and watches what is to be watched. The
// first time nothing is news, but STATUS is sent where it was asked for. It returns
// errTooMany.
func (s *session) survey(own []string, first bool) error {
	n := s.notify
	n.tree.Changed()
	all := n.query.all()
	l, err := s.landscape(all&(mailboxName|messageEvents) != 0)
	if err != nil {
		return err
	}
	if len(l.order) > maxSurveyed {
		return errTooMany
	}
	// Others matter if they can be renamed or subscribed to, and so come in.
	mayMatter := all&mailboxName != 0 || slices.ContainsFunc(n.query.groups, func(g notifyGroup) bool { return g.filter == forSubscribed })
	places := map[string]*place{}
	watched := 0
	for _, name := range l.order {
		events := n.query.events(name, l.subs[name])
		if events != 0 {
			watched++
		}
		if events != 0 || mayMatter {
			places[name] = &place{events: events, id: l.ids[name]}
		}
	}
	if watched > maxWatched {
		return errTooMany
	}
	came, renamed := n.moved(l)
	if !first {
		s.tellNames(l, own, came, renamed)
	}
	old := n.places
	n.places, n.subs = places, l.subs
	for _, name := range l.order {
		at, was := places[name], old[name]
		if at == nil {
			continue
		}
		if came[name] {
			was = old[renamed[name]] // nil if it is new
		}
		if err := s.settle(name, at, was, came[name], own, first); err != nil && !isNoFolder(err) {
			s.log.Error("watch mailbox", "user", s.user, "mailbox", name, "err", err)
		}
	}
	for _, at := range old {
		at.close() // but for those that have been handed on
	}
	if all&serverMetadataChange != 0 {
		values, err := s.store.Metadata("")
		if err != nil {
			return err
		}
		now := n.notes(values)
		if !first && !slices.Contains(own, "") {
			s.notifyNotes("", n.server, now)
		}
		n.server = now
	}
	return nil
}

// moved finds the names that were not there before, or that are another mailbox now,
// and the former names of those that have been renamed.
func (n *notify) moved(l *landscape) (came map[string]bool, renamed map[string]string) {
	came, renamed = map[string]bool{}, map[string]string{}
	left := map[string]string{} // names by identity
	for name, at := range n.places {
		if id, there := l.ids[name]; at.id != "" && (!there || id != at.id) {
			left[at.id] = name
		}
	}
	for _, name := range l.order {
		was := n.places[name]
		if was != nil && (was.id == "" || was.id == l.ids[name]) {
			continue
		}
		came[name] = true
		if old, ok := left[l.ids[name]]; ok && old != name {
			renamed[name] = old
		}
	}
	return came, renamed
}

// withParent reports whether a rename is part of that of a mailbox above it, which
// alone is told of (RFC 5465 §5.4).
func withParent(name string, renamed map[string]string) bool {
	old := renamed[name]
	for i := len(name) - 1; i > 0; i-- {
		if name[i] != '.' {
			continue
		}
		if up, ok := renamed[name[:i]]; ok && old == up+name[i:] {
			return true
		}
	}
	return false
}

// tellNames sends LIST for names that have come, gone or been renamed, and where
// subscriptions have changed.
func (s *session) tellNames(l *landscape, own []string, came map[string]bool, renamed map[string]string) {
	n := s.notify
	told := map[string]bool{}
	for _, name := range own {
		told[name] = true
	}
	formerly := map[string]bool{}
	wants := func(name string, events notifyEvents) bool {
		return n.query.events(name, l.subs[name] || n.subs[name])&events != 0
	}
	for _, name := range l.order {
		if !came[name] {
			continue
		}
		old := renamed[name]
		formerly[old] = true
		if told[name] || old != "" && (slices.Contains(own, old) || withParent(name, renamed)) {
			continue
		}
		if wants(name, mailboxName) || old != "" && wants(old, mailboxName) {
			s.notifyList(name, l.folders[name], l.subs[name], old)
			told[name] = true
		}
	}
	for _, name := range sortedNames(n.places) {
		f := l.folders[name]
		if f != nil && !f.NoSelect || formerly[name] || told[name] || !wants(name, mailboxName) {
			continue
		}
		s.notifyList(name, f, l.subs[name], "")
		told[name] = true
	}
	changed := map[string]bool{}
	for name := range l.subs {
		changed[name] = !n.subs[name]
	}
	for name := range n.subs {
		changed[name] = !l.subs[name]
	}
	for _, name := range sortedNames(changed) {
		if changed[name] && !told[name] && n.query.events(name, true)&subscriptionChange != 0 {
			s.notifyList(name, l.folders[name], l.subs[name], "")
		}
	}
}

// settle makes at what the client is to know of a mailbox. was is what it has known
// before; nil: nothing.
func (s *session) settle(name string, at, was *place, came bool, own []string, first bool) error {
	n := s.notify
	if was != nil {
		at.state, at.mine = was.state, was.mine
	}
	if at.events&mailboxMetadataChange != 0 {
		values, err := s.store.Metadata(name)
		if err != nil {
			return err
		}
		at.notes = n.notes(values)
		if was != nil && was.notes != nil && !slices.Contains(own, name) {
			s.notifyNotes(name, was.notes, at.notes)
		}
	}
	if at.events&messageEvents == 0 {
		return nil
	}
	known := was != nil && was.watch != nil
	if known && !came {
		at.watch, was.watch = was.watch, nil
		return nil
	}
	w, err := s.store.WatchFolder(name, n.signal)
	if err != nil {
		return err
	}
	at.watch = w
	if known { // under another name
		return s.notifyPlace(name, at)
	}
	now, err := s.stateOf(name)
	if err != nil {
		return err
	}
	at.state = now
	here := s.view != nil && s.view.name == name
	switch {
	case here:
	case first && n.query.status, !first && came && now.Messages > 0:
		s.notifyStatus(name, at)
	}
	return nil
}
