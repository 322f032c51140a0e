package imapd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/maildir"
)

func equalFold(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// storeArgs is what STORE is asked to do.
type storeArgs struct {
	set       numSet
	op        maildir.FlagOp
	silent    bool
	flags     []string
	unchanged uint64 // UNCHANGEDSINCE + 1, 0 if not given
}

// storeArgs reads STORE's arguments (RFC 9051 §6.4.6, RFC 7162 §3.1.3).
func (p *parser) storeArgs() (a storeArgs, err error) {
	if err = p.space(); err != nil {
		return a, err
	}
	if a.set, err = p.numSet(); err != nil {
		return a, err
	}
	if err = p.space(); err != nil {
		return a, err
	}
	if p.peek() == '(' {
		err = p.list(func() error {
			word, err := p.keyword()
			if err != nil {
				return err
			}
			if word != "UNCHANGEDSINCE" {
				return bad("Unknown modifier")
			}
			if err := p.space(); err != nil {
				return err
			}
			n, err := p.number64()
			a.unchanged = n + 1
			return err
		})
		if err != nil {
			return a, err
		}
		if err = p.space(); err != nil {
			return a, err
		}
	}
	word, err := p.keyword()
	if err != nil {
		return a, err
	}
	a.op = maildir.FlagSet
	switch word[0] {
	case '+':
		a.op, word = maildir.FlagAdd, word[1:]
	case '-':
		a.op, word = maildir.FlagRemove, word[1:]
	}
	if word, a.silent = strings.CutSuffix(word, ".SILENT"); word != "FLAGS" {
		return a, bad("Expected FLAGS, +FLAGS or -FLAGS")
	}
	if err = p.space(); err != nil {
		return a, err
	}
	if a.flags, err = p.flags(true); err != nil {
		return a, err
	}
	return a, p.end()
}

func (s *session) cmdStore(p *parser, byUID bool) (done, error) {
	a, err := p.storeArgs()
	if err != nil {
		return done{}, err
	}
	v := s.view
	if v.readOnly {
		return done{}, no("READ-ONLY", textReadOnly)
	}
	if a.unchanged > 0 {
		s.useCondstore()
	}
	s.arrivals()
	seqs, err := v.pick(a.set, byUID)
	if err != nil {
		return done{}, err
	}
	flags, err := flagSet(v.folder, a.flags, a.op != maildir.FlagRemove)
	if err != nil {
		return done{}, err
	}
	uids := v.uids(seqs)
	var failed []uint32
	if a.unchanged == 1 { // UNCHANGEDSINCE 0: no message can be that old (RFC 7162 §3.1.3)
		failed, uids = uids, nil
	}
	changed, modified, err := v.folder.SetFlags(s.ctx, uids, a.op, flags, max(a.unchanged, 1)-1)
	if err != nil {
		return done{}, s.storeError("store flags", v.name, err)
	}
	failed = append(failed, modified...)
	v.merge()
	v.names = v.folder.Keywords()
	s.tellKeywords()
	s.storeReplies(a, changed, uids, failed, byUID)
	if len(failed) == 0 {
		return done{}, nil
	}
	slices.Sort(failed)
	var rs ranges
	for _, uid := range failed {
		switch i := v.index(uint64(uid)); {
		case byUID:
			rs = rs.add(uint64(uid))
		case i < len(v.msgs) && v.msgs[i].UID == uid:
			rs = rs.add(uint64(i + 1))
		}
	}
	return done{code: "MODIFIED " + rs.String(), text: "Some messages had been changed"}, nil
}

// storeReplies tells the new flags, or for .SILENT only the new MODSEQ.
func (s *session) storeReplies(a storeArgs, changed []maildir.Message, uids, failed []uint32, byUID bool) {
	v := s.view
	if a.silent {
		for i := range changed {
			j := v.index(uint64(changed[i].UID))
			if j == len(v.msgs) || v.msgs[j].UID != changed[i].UID || v.msgs[j].ModSeq != changed[i].ModSeq {
				continue // changed again by somebody else: that is news
			}
			v.clean(changed[i].UID)
			if s.condstore {
				s.out.line(fmt.Sprintf("* %d FETCH (UID %d MODSEQ (%d))", j+1, v.msgs[j].UID, v.msgs[j].ModSeq))
			}
		}
		return
	}
	skip := make(map[uint32]bool, len(failed))
	for _, uid := range failed {
		skip[uid] = true
	}
	for _, uid := range uids {
		j := v.index(uint64(uid))
		if skip[uid] || j == len(v.msgs) || v.msgs[j].UID != uid || v.isGone(j) {
			continue
		}
		v.clean(uid)
		s.sendFlags(j, byUID || s.condstore)
	}
}

// deleted lists the UIDs of messages with \Deleted, of those in only if that is not nil.
func (s *session) deleted(only ranges) []uint32 {
	var uids []uint32
	for i := range s.view.msgs {
		m := &s.view.msgs[i]
		if m.Flags&maildir.Deleted != 0 && (only == nil || only.contains(uint64(m.UID))) {
			uids = append(uids, m.UID)
		}
	}
	return uids
}

func (s *session) cmdExpunge(p *parser) (done, error) {
	if err := p.end(); err != nil {
		return done{}, err
	}
	return s.expunge(nil)
}

// cmdUIDExpunge is RFC 4315 §2.1.
func (s *session) cmdUIDExpunge(p *parser) (done, error) {
	if err := p.space(); err != nil {
		return done{}, err
	}
	set, err := p.numSet()
	if err != nil {
		return done{}, err
	}
	if err := p.end(); err != nil {
		return done{}, err
	}
	s.view.merge()
	seqs, err := s.view.pick(set, true)
	if err != nil {
		return done{}, err
	}
	only := ranges{}
	for _, uid := range s.view.uids(seqs) {
		only = only.add(uint64(uid))
	}
	return s.expunge(only)
}

func (s *session) expunge(only ranges) (done, error) {
	v := s.view
	if v.readOnly {
		return done{}, no("READ-ONLY", textReadOnly)
	}
	v.merge()
	if _, err := v.folder.Expunge(s.ctx, s.deleted(only)); err != nil {
		return done{}, s.storeError("expunge", v.name, err)
	}
	s.news(true)
	if s.condstore {
		return done{code: fmt.Sprintf("HIGHESTMODSEQ %d", v.folder.Status().HighestModSeq)}, nil
	}
	return done{}, nil
}

// transfer reads the arguments of COPY and MOVE and opens the destination.
func (s *session) transfer(p *parser, byUID bool) (uids []uint32, dst *maildir.Folder, err error) {
	if err = p.space(); err != nil {
		return nil, nil, err
	}
	set, err := p.numSet()
	if err != nil {
		return nil, nil, err
	}
	name, err := p.oneMailbox()
	if err != nil {
		return nil, nil, err
	}
	s.arrivals()
	seqs, err := s.view.pick(set, byUID)
	if err != nil {
		return nil, nil, err
	}
	if dst, err = s.destination(name); err != nil {
		return nil, nil, err
	}
	return s.view.uids(seqs), dst, nil
}

// destination opens a mailbox that messages go to. One that every client expects is
// made and subscribed to when it is first used (RFC 6154 §2).
func (s *session) destination(name string) (*maildir.Folder, error) {
	f, err := s.store.Folder(s.ctx, name)
	if isNoFolder(err) {
		switch name {
		case "Drafts", "Sent", "Junk", "Trash", "Archive":
		default:
			return nil, no("TRYCREATE", textNoSuchMailbox)
		}
		if err = s.store.Create(name); err == nil || errors.Is(err, maildir.ErrExists) {
			if err = s.store.Subscribe(name); err == nil {
				f, err = s.store.Folder(s.ctx, name)
			}
		}
	}
	if err != nil {
		return nil, s.storeError("open mailbox", name, err)
	}
	return f, nil
}

// copyUID is the COPYUID response code (RFC 4315 §3), "" if nothing was copied.
func copyUID(dst *maildir.Folder, pairs []maildir.CopyPair) string {
	if len(pairs) == 0 {
		return ""
	}
	var from, to ranges
	for _, p := range pairs { // both ascend, so the sets pair up in order
		from, to = from.add(uint64(p.From)), to.add(uint64(p.To))
	}
	return fmt.Sprintf("COPYUID %d %s %s", dst.Status().UIDValidity, from, to)
}

func (s *session) cmdCopy(p *parser, byUID bool) (done, error) {
	uids, dst, err := s.transfer(p, byUID)
	if err != nil {
		return done{}, err
	}
	defer dst.Close()
	pairs, err := s.view.folder.Copy(s.ctx, uids, dst)
	if err != nil {
		return done{}, s.storeError("copy messages", dst.Name(), err)
	}
	if len(pairs) < len(uids) && !byUID {
		return done{}, no("EXPUNGEISSUED", textExpunged)
	}
	return done{code: copyUID(dst, pairs)}, nil
}

// cmdMove is RFC 6851: COPYUID comes before the EXPUNGEs.
func (s *session) cmdMove(p *parser, byUID bool) (done, error) {
	if s.view.readOnly {
		return done{}, no("READ-ONLY", textReadOnly)
	}
	uids, dst, err := s.transfer(p, byUID)
	if err != nil {
		return done{}, err
	}
	defer dst.Close()
	pairs, err := s.view.folder.Move(s.ctx, uids, dst)
	if len(pairs) > 0 {
		s.out.line("* OK [", copyUID(dst, pairs), "] Moved")
		s.added(copyUID(dst, pairs))
	}
	if err != nil {
		return done{}, s.storeError("move messages", dst.Name(), err)
	}
	return done{}, nil
}
