package imapd

import (
	"slices"

	"github.com/wafermail/wafer/core/maildir"
)

// resync is what a client knows of a mailbox that it selects (RFC 7162 §3.2.5).
// What it says of message numbers is read and not needed: our memory of what has
// gone is exact, or the answer names every UID that is not there.
type resync struct {
	validity uint32
	modseq   uint64
	known    *numSet // UIDs; nil: all
}

// resyncParams reads QRESYNC's arguments.
func (p *parser) resyncParams() (*resync, error) {
	r := &resync{}
	if err := p.space(); err != nil {
		return nil, err
	}
	if err := p.expect('('); err != nil {
		return nil, err
	}
	var err error
	if r.validity, err = p.number(); err != nil {
		return nil, err
	}
	if r.validity == 0 {
		return nil, bad("UIDVALIDITY begins at 1")
	}
	if err := p.space(); err != nil {
		return nil, err
	}
	if r.modseq, err = p.number64(); err != nil {
		return nil, err
	}
	if p.eat(')') {
		return r, nil
	}
	if err := p.space(); err != nil {
		return nil, err
	}
	if p.peek() != '(' {
		set, err := p.numSet()
		if err != nil {
			return nil, err
		}
		if !set.plain() {
			return nil, bad("Known UIDs are named by number")
		}
		r.known = &set
		if p.eat(')') {
			return r, nil
		}
		if err := p.space(); err != nil {
			return nil, err
		}
	}
	if err := p.expect('('); err != nil {
		return nil, err
	}
	seqs, err := p.numSet()
	if err == nil {
		err = p.space()
	}
	if err != nil {
		return nil, err
	}
	uids, err := p.numSet()
	if err == nil {
		err = p.expect(')')
	}
	if err != nil {
		return nil, err
	}
	if !seqs.plain() || !uids.plain() {
		return nil, bad("Known messages are named by number")
	}
	return r, p.expect(')')
}

// plain reports whether a set has numbers only, neither "*" nor "$".
func (s numSet) plain() bool {
	return !s.saved && !slices.ContainsFunc(s.spans, func(sp span) bool { return sp.lo == star || sp.hi == star })
}

// resync tells of everything that has happened since the client looked.
func (s *session) resync(r *resync) {
	st := s.view.folder.Status()
	if r.validity != st.UIDValidity {
		return // it knows another mailbox
	}
	known := ranges{{1, uint64(st.UIDNext)}}
	if r.known != nil {
		known = r.known.resolve(0)
	}
	changed, expunged, _ := s.view.folder.Since(r.modseq)
	s.vanished(expunged, known, true)
	for i := range changed {
		j := s.view.index(uint64(changed[i].UID))
		if j < len(s.view.msgs) && s.view.msgs[j].UID == changed[i].UID && known.contains(uint64(changed[i].UID)) {
			s.view.clean(changed[i].UID)
			s.sendFlags(j, true)
		}
	}
}

// vanished sends VANISHED (RFC 7162 §3.2.10) for UIDs that are among those given.
func (s *session) vanished(uids []uint32, among ranges, earlier bool) {
	uids = slices.Clone(uids)
	slices.Sort(uids)
	var rs ranges
	for _, uid := range slices.Compact(uids) {
		if among == nil || among.contains(uint64(uid)) {
			rs = rs.add(uint64(uid))
		}
	}
	if len(rs) == 0 {
		return
	}
	s.out.str("* VANISHED ")
	if earlier {
		s.out.str("(EARLIER) ")
	}
	rs.write(&s.out)
	s.out.crlf()
}

// vanishedSince is the answer to UID FETCH (CHANGEDSINCE … VANISHED) (RFC 7162 §3.2.6).
func (s *session) vanishedSince(set numSet, modseq uint64) {
	v := s.view
	among := v.saved
	if !set.saved {
		largest := uint64(0)
		if next := v.folder.Status().UIDNext; next > 1 {
			largest = uint64(next - 1)
		}
		among = set.resolve(largest)
	}
	if among == nil {
		among = ranges{}
	}
	_, expunged, _ := v.folder.Since(modseq)
	// What the client still counts is not gone for it yet: it hears of it by itself.
	expunged = slices.DeleteFunc(expunged, func(uid uint32) bool {
		_, counted := findUID(v.msgs, uid)
		return counted
	})
	s.vanished(expunged, among, true)
}

// tellVanished is tellExpunged for a client that has enabled QRESYNC.
func (s *session) tellVanished() {
	v := s.view
	kept := make([]maildir.Message, 0, len(v.base))
	var gone []uint32
	for i := range v.msgs {
		if !v.isGone(i) {
			kept = append(kept, v.msgs[i])
			continue
		}
		delete(v.dirty, v.msgs[i].UID)
		if i < v.told {
			gone = append(gone, v.msgs[i].UID)
		}
	}
	v.told -= len(gone)
	v.msgs, v.gone = kept, false
	if len(kept) == len(v.base) {
		v.msgs = v.base // shared again
	}
	s.vanished(gone, nil, false)
}
