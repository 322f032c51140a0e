package imapd

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/wafermail/wafer/core/maildir"
)

// view is a session's numbered list of the messages of the selected mailbox
// (RFC 9051 §2.3.1.2). merge takes over what is new in the folder; what the
// client may be told at that moment is sent by session.tell.
type view struct {
	folder   *maildir.Folder
	name     string
	readOnly bool

	base []maildir.Message // the folder's list at the last merge
	msgs []maildir.Message // by sequence number; base itself unless messages are gone that the client still counts
	gone bool              // some of msgs are not in base
	told int               // EXISTS as the client knows it

	dirty    map[uint32]struct{} // UIDs whose flags the client does not know yet
	names    []string            // of keywords, by bit
	keywords int                 // keywords that FLAGS has named
	recent   uint32              // the first UID that is \Recent here
	saved    ranges              // UIDs of the last SEARCH RETURN (SAVE) (RFC 5182)
	facts    *maildir.Facts      // nil until they are asked for
	limit    uint32              // the highest UID that is taken up while held
	held     bool                // nothing is told of the mailbox, and new messages are not taken up
}

func (v *view) close() { v.folder.Close() }

func sameList(a, b []maildir.Message) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// merge brings the view up to date. Messages that are gone keep their numbers
// until the client has been told.
func (v *view) merge() {
	now := v.folder.Messages()
	if v.held {
		n := sort.Search(len(now), func(i int) bool { return now[i].UID > v.limit })
		now = now[:n:n]
	}
	if sameList(now, v.base) {
		return
	}
	v.base = now
	v.names = v.folder.Keywords()
	old := v.msgs
	i, j, lost, odd := 0, 0, 0, false
	for i < len(old) && j < len(now) {
		switch a, b := &old[i], &now[j]; {
		case a.UID == b.UID:
			if a.ModSeq != b.ModSeq || a.Flags != b.Flags {
				v.mark(a.UID)
			}
			i++
			j++
		case a.UID < b.UID:
			lost++
			i++
		default: // a UID that was gone is back; it has no number here
			odd = true
			j++
		}
	}
	lost += len(old) - i
	if lost == 0 && !odd {
		v.msgs, v.gone = now, false
		return
	}
	merged := make([]maildir.Message, 0, len(now)+lost)
	i, j = 0, 0
	for i < len(old) {
		for j < len(now) && now[j].UID < old[i].UID {
			j++
		}
		if j < len(now) && now[j].UID == old[i].UID {
			merged = append(merged, now[j])
			j++
		} else {
			merged = append(merged, old[i])
		}
		i++
	}
	v.msgs, v.gone = append(merged, now[j:]...), lost > 0
}

func (v *view) mark(uid uint32) {
	if v.dirty == nil {
		v.dirty = map[uint32]struct{}{}
	}
	v.dirty[uid] = struct{}{}
}

// clean says that the client knows the flags of a message.
func (v *view) clean(uid uint32) {
	delete(v.dirty, uid)
	if len(v.dirty) == 0 {
		v.dirty = nil
	}
}

// index returns the place in msgs of the first UID that is not below uid.
func (v *view) index(uid uint64) int {
	return sort.Search(len(v.msgs), func(i int) bool { return uint64(v.msgs[i].UID) >= uid })
}

// isGone reports whether message i has been expunged.
func (v *view) isGone(i int) bool {
	if !v.gone {
		return false
	}
	_, found := findUID(v.base, v.msgs[i].UID)
	return !found
}

func findUID(msgs []maildir.Message, uid uint32) (int, bool) {
	return slices.BinarySearchFunc(msgs, uid, func(m maildir.Message, uid uint32) int {
		switch {
		case m.UID < uid:
			return -1
		case m.UID > uid:
			return 1
		}
		return 0
	})
}

// pick returns the sequence numbers that set stands for. A message number that
// does not exist is an error (RFC 9051 §9, seq-number); a UID is not.
func (v *view) pick(set numSet, byUID bool) (ranges, error) {
	if set.saved {
		return v.seqs(v.saved), nil
	}
	if byUID {
		largest := uint64(0)
		if n := len(v.msgs); n > 0 {
			largest = uint64(v.msgs[n-1].UID)
		}
		return v.seqs(set.resolve(largest)), nil
	}
	n := uint64(len(v.msgs))
	if n == 0 {
		for _, sp := range set.spans {
			if sp.lo != star && sp.hi != star {
				return nil, bad("Message number is out of range: the mailbox is empty")
			}
		}
		return nil, nil // "1:*" asks for all there are
	}
	rs := set.resolve(n)
	if len(rs) > 0 && rs[len(rs)-1].hi > n {
		return nil, bad("Message number is out of range: there are %d messages", n)
	}
	return rs, nil
}

// seqs turns ranges of UIDs into ranges of sequence numbers.
func (v *view) seqs(uids ranges) ranges {
	var rs ranges
	for _, sp := range uids {
		lo := v.index(sp.lo)
		hi := v.index(sp.hi + 1)
		if lo < hi {
			if n := len(rs); n > 0 && rs[n-1].hi == uint64(lo) {
				rs[n-1].hi = uint64(hi)
				continue
			}
			rs = append(rs, span{uint64(lo + 1), uint64(hi)})
		}
	}
	return rs
}

// uids lists the UIDs of the messages with numbers in rs.
func (v *view) uids(rs ranges) []uint32 {
	var all []uint32
	for _, sp := range rs {
		for n := sp.lo; n <= sp.hi; n++ {
			all = append(all, v.msgs[n-1].UID)
		}
	}
	return all
}

// refresh looks for changes by other programs.
func (s *session) refresh() error {
	if s.view == nil {
		return nil
	}
	err := s.view.folder.Refresh(s.ctx)
	switch {
	case err == nil:
	case isNoFolder(err):
		s.bye("", textDeleted)
	default:
		s.log.Error("look at mailbox", "user", s.user, "mailbox", s.view.name, "err", err)
		return no("UNAVAILABLE", textUnavailable)
	}
	return nil
}

// arrivals brings the view up to date before a command that works on messages,
// and tells of new ones, so that every number the command yields is known.
func (s *session) arrivals() {
	s.view.merge()
	s.tellExists()
	s.tellKeywords()
}

func (s *session) tellExists() {
	v := s.view
	if len(v.msgs) == v.told {
		return
	}
	known := v.told
	v.told = len(v.msgs)
	s.out.str("* ")
	s.out.num(uint64(v.told))
	s.out.line(" EXISTS")
	s.tellRecent()
	s.fetchNew(known)
}

// tellRecent sends RECENT, which IMAP4rev2 has no more.
func (s *session) tellRecent() {
	if s.rev2 {
		return
	}
	s.out.str("* ")
	s.out.num(uint64(len(s.view.msgs) - s.view.index(uint64(s.view.recent))))
	s.out.line(" RECENT")
}

// tell sends what the client does not know of its mailbox.
func (s *session) tell(expunge bool) {
	v := s.view
	messages, flags := s.hears()
	if expunge && v.gone && (messages || s.notify.expunging) {
		s.tellExpunged()
	}
	s.tellExists()
	s.tellKeywords()
	if len(v.dirty) == 0 || !flags {
		return
	}
	dirty := make([]uint32, 0, len(v.dirty))
	for uid := range v.dirty {
		dirty = append(dirty, uid)
	}
	slices.Sort(dirty)
	v.dirty = nil
	for _, uid := range dirty {
		if i := v.index(uint64(uid)); i < len(v.msgs) && v.msgs[i].UID == uid && !v.isGone(i) {
			s.sendFlags(i, true)
		}
	}
}

// tellExpunged sends EXPUNGE for every message that is gone, with the numbers
// as they are after those before it (RFC 9051 §7.5.1).
func (s *session) tellExpunged() {
	if s.qresync {
		s.tellVanished()
		return
	}
	v := s.view
	kept := make([]maildir.Message, 0, len(v.base))
	untold := 0
	for i := range v.msgs {
		if !v.isGone(i) {
			kept = append(kept, v.msgs[i])
			continue
		}
		delete(v.dirty, v.msgs[i].UID)
		if i < v.told {
			untold++
			s.out.str("* ")
			s.out.num(uint64(len(kept) + 1))
			s.out.line(" EXPUNGE")
		}
	}
	v.told -= untold
	v.msgs, v.gone = kept, false
	if len(kept) == len(v.base) {
		v.msgs = v.base // shared again
	}
}

// sendFlags sends the flags of message i without being asked, with its UID
// unless the client asked by number.
func (s *session) sendFlags(i int, uid bool) {
	m := &s.view.msgs[i]
	s.out.str("* ")
	s.out.num(uint64(i + 1))
	s.out.str(" FETCH (")
	if uid {
		s.out.str("UID ")
		s.out.num(uint64(m.UID))
		s.out.byte(' ')
	}
	s.writeFlags(m)
	if s.condstore {
		s.out.str(" MODSEQ (")
		s.out.num(m.ModSeq)
		s.out.byte(')')
	}
	s.out.line(")")
}

// The system flags by their names (RFC 9051 §2.3.2).
var systemFlags = [...]struct { // never changed
	name string
	flag maildir.Flags
}{
	{`\Answered`, maildir.Answered}, {`\Flagged`, maildir.Flagged}, {`\Deleted`, maildir.Deleted},
	{`\Seen`, maildir.Seen}, {`\Draft`, maildir.DraftFlag},
}

// writeFlags writes "FLAGS (…)".
func (s *session) writeFlags(m *maildir.Message) {
	s.out.str("FLAGS (")
	sep := ""
	put := func(name string) {
		s.out.str(sep)
		s.out.str(name)
		sep = " "
	}
	for _, f := range systemFlags {
		if m.Flags&f.flag != 0 {
			put(f.name)
		}
	}
	if m.Flags>>8 != 0 {
		for i, name := range s.view.names {
			if name != "" && m.Flags&maildir.KeywordBit(i) != 0 {
				put(name)
			}
		}
	}
	if !s.rev2 && m.UID >= s.view.recent {
		put(`\Recent`)
	}
	s.out.byte(')')
}

// tellKeywords sends FLAGS when there are keywords that the client has not heard of.
func (s *session) tellKeywords() {
	v := s.view
	n := 0
	for _, name := range v.names {
		if name != "" {
			n++
		}
	}
	if n == v.keywords {
		return
	}
	v.keywords = n
	s.sendFlagNames()
}

func (s *session) sendFlagNames() {
	names := s.view.names
	var b strings.Builder
	for i, f := range systemFlags {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(f.name)
	}
	for _, name := range names {
		if name != "" {
			b.WriteByte(' ')
			b.WriteString(name)
		}
	}
	s.out.line("* FLAGS (", b.String(), ")")
	if s.view.readOnly {
		s.out.line("* OK [PERMANENTFLAGS ()] Nothing can be changed")
		return
	}
	more := ""
	if len(names) < maildir.MaxKeywords {
		more = ` \*`
	}
	s.out.line(fmt.Sprintf("* OK [PERMANENTFLAGS (%s%s)] Flags that are kept", b.String(), more))
}
