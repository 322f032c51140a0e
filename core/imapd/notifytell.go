package imapd

import (
	"hash/maphash"
	"maps"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/maildir"
)

// notifyPlaces tells of the mailboxes that may have changed, or looks at all.
func (s *session) notifyPlaces(everything bool) {
	places := s.notify.places
	var changed []string
	for name, at := range places {
		if at.watch != nil && (at.watch.Changed() || everything) {
			changed = append(changed, name)
		}
	}
	slices.Sort(changed)
	for _, name := range changed {
		if err := s.notifyPlace(name, places[name]); err != nil && !isNoFolder(err) {
			s.log.Error("look at mailbox", "user", s.user, "mailbox", name, "err", err)
		}
	}
}

// stateOf is what a mailbox is like now.
func (s *session) stateOf(name string) (maildir.Status, error) {
	f, err := s.store.Folder(s.ctx, name)
	if err != nil {
		return maildir.Status{}, err
	}
	defer f.Close()
	return f.Status(), nil
}

// notifyPlace sends STATUS of a mailbox if it has changed in a way that matters
// (RFC 5465 §5.1 to §5.3).
func (s *session) notifyPlace(name string, at *place) error {
	now, err := s.stateOf(name)
	if err != nil {
		return err
	}
	was := at.state
	mine := at.mine
	at.state, at.mine = now, 0
	if s.view != nil && s.view.name == name {
		return nil // the selected mailbox has events of its own
	}
	messages := now.UIDValidity != was.UIDValidity || now.Messages != was.Messages+mine || now.UIDNext != was.UIDNext+uint32(mine)
	flags := mine == 0 && now.HighestModSeq != was.HighestModSeq
	if messages || flags && at.events&flagChange != 0 {
		s.notifyStatus(name, at)
	}
	return nil
}

func (s *session) notifyStatus(name string, at *place) {
	s.out.str("* STATUS ")
	s.out.mailbox(name, s.utf8Names())
	s.out.str(" (MESSAGES ")
	s.out.num(uint64(at.state.Messages))
	s.out.str(" UIDNEXT ")
	s.out.num(uint64(at.state.UIDNext))
	s.out.str(" UIDVALIDITY ")
	s.out.num(uint64(at.state.UIDValidity))
	s.out.str(" UNSEEN ") // not demanded, but what people look at
	s.out.num(uint64(at.state.Unseen))
	if s.condstore || at.events&flagChange != 0 {
		s.out.str(" HIGHESTMODSEQ ")
		s.out.num(at.state.HighestModSeq)
	}
	s.out.line(")")
}

// notifyList sends LIST (RFC 5465 §5.4, §5.5). f is nil if nothing is left of the
// name; old is its former name, "" if it was not renamed.
func (s *session) notifyList(name string, f *maildir.FolderInfo, subscribed bool, old string) {
	var attrs []string
	switch {
	case f == nil:
		attrs = append(attrs, `\NonExistent`)
	case f.NoSelect:
		attrs = append(attrs, `\NonExistent`, `\HasChildren`)
	case f.Children:
		attrs = append(attrs, `\HasChildren`)
	default:
		attrs = append(attrs, `\HasNoChildren`)
	}
	if subscribed {
		attrs = append(attrs, `\Subscribed`)
	}
	if f != nil && f.SpecialUse != "" {
		attrs = append(attrs, f.SpecialUse)
	}
	s.out.str("* LIST (" + strings.Join(attrs, " ") + `) "." `)
	s.out.mailbox(name, s.utf8Names())
	if old != "" {
		s.out.str(` ("OLDNAME" (`)
		s.out.mailbox(old, s.utf8Names())
		s.out.str("))")
	}
	s.out.crlf()
}

// notes sums up annotations.
func (n *notify) notes(all map[string]string) map[string]uint64 {
	sums := make(map[string]uint64, len(all))
	for entry, value := range all {
		sums[entry] = maphash.String(n.seed, value)
	}
	return sums
}

// notifyNotes names the annotations that have changed (RFC 5465 §5.6, §5.7).
func (s *session) notifyNotes(name string, was, now map[string]uint64) {
	var changed []string
	for entry, sum := range now {
		if old, ok := was[entry]; !ok || old != sum {
			changed = append(changed, entry)
		}
	}
	for entry := range was {
		if _, ok := now[entry]; !ok {
			changed = append(changed, entry)
		}
	}
	if len(changed) == 0 {
		return
	}
	slices.Sort(changed)
	s.out.str("* METADATA ")
	s.out.mailbox(name, s.utf8Names())
	for _, entry := range changed {
		s.out.str(" " + entry)
	}
	s.out.crlf()
}

// fetchNew sends what NOTIFY asks for of messages that are new in the selected
// mailbox: those from index i on, but for those that the client has added itself.
func (s *session) fetchNew(i int) {
	n := s.notify
	if n == nil || i >= len(s.view.msgs) {
		return
	}
	g := n.query.selected()
	if g == nil || g.fetch == nil {
		return
	}
	mine := n.mine
	n.mine = nil
	run := fetchRun{s: s, q: g.fetch, opens: g.fetch.opens(), flags: g.fetch.wants(fetchFlags), byUID: true}
	if run.opens {
		defer s.view.noted()
	}
	for ; i < len(s.view.msgs) && s.out.err == nil; i++ {
		if uid := uint64(s.view.msgs[i].UID); mine.contains(uid) || s.view.isGone(i) {
			continue
		}
		if err := run.message(i); err != nil {
			return // the writer keeps it
		}
	}
}

// sortedNames are the names of a set.
func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
