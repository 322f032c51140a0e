package imapd

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/maildir"
)

// maxAppended bounds the messages of one APPEND.
const maxAppended = 1000

// cmdAppend is RFC 9051 §6.3.12 with several messages (RFC 3502), LITERAL+,
// literal8, UTF8 (RFC 6855 §4) and APPENDLIMIT. A message goes from the socket to
// the store as it comes; one that does not come whole is never stored, and none
// stays of a command that fails.
func (s *session) cmdAppend(p *parser) (done, error) {
	if err := p.space(); err != nil {
		return done{}, err
	}
	name, err := p.mailbox()
	if err != nil {
		return done{}, err
	}
	if err := p.space(); err != nil {
		return done{}, err
	}
	a := &appending{s: s, p: p, name: name}
	defer a.close()
	for {
		err := a.message()
		if err == nil && !p.atEnd() && len(a.uids) < maxAppended {
			if err = p.space(); err == nil {
				continue
			}
		}
		if err == nil && !p.atEnd() {
			err = bad("Expected another message, or the end of the command")
		}
		if err != nil {
			return done{}, a.undo(err)
		}
		return done{code: a.code()}, nil
	}
}

// cmdReplace is REPLACE and UID REPLACE (RFC 8508): a message takes the place of
// another, which goes only when the new one is stored.
func (s *session) cmdReplace(p *parser, byUID bool) (done, error) {
	if err := p.space(); err != nil {
		return done{}, err
	}
	n, err := p.number()
	if err != nil || n == 0 {
		return done{}, bad("Expected the number of one message")
	}
	if err := p.space(); err != nil {
		return done{}, err
	}
	name, err := p.mailbox()
	if err != nil {
		return done{}, err
	}
	if err := p.space(); err != nil {
		return done{}, err
	}
	if s.view.readOnly {
		return done{}, no("READ-ONLY", textReadOnly)
	}
	s.arrivals()
	seqs, err := s.view.pick(numSet{spans: []span{{uint64(n), uint64(n)}}}, byUID)
	if err != nil {
		return done{}, err
	}
	old := s.view.uids(seqs)
	if len(old) == 0 || s.view.isGone(int(seqs[0].lo-1)) {
		return done{}, no("EXPUNGEISSUED", "There is no such message")
	}
	a := &appending{s: s, p: p, name: name}
	defer a.close()
	if err = a.message(); err == nil && !p.atEnd() {
		err = bad("Unexpected text after the message")
	}
	if err != nil {
		return done{}, a.undo(err)
	}
	s.out.line("* OK [", a.code(), "] Replacement is stored")
	if _, err := s.view.folder.Expunge(s.ctx, old); err != nil {
		return done{}, s.storeError("expunge", s.view.name, err) // both are there: nothing is lost
	}
	return done{}, nil
}

// appending is an APPEND under way.
type appending struct {
	s      *session
	p      *parser
	name   string
	folder *maildir.Folder
	uids   []uint32
}

func (a *appending) close() {
	if a.folder != nil {
		a.folder.Close()
	}
}

// code is the response code of success (RFC 4315 §3).
func (a *appending) code() string {
	var rs ranges
	for _, uid := range a.uids {
		rs = rs.add(uint64(uid))
	}
	return fmt.Sprintf("APPENDUID %d %s", a.folder.Status().UIDValidity, rs)
}

// undo takes away what was stored of a command that has failed with err.
func (a *appending) undo(err error) error {
	if len(a.uids) == 0 {
		return err
	}
	if _, uerr := a.folder.Expunge(a.s.ctx, a.uids); uerr != nil {
		a.s.log.Error("take back appended messages", "user", a.s.user, "mailbox", a.name, "err", uerr)
	}
	return err
}

// message reads flags, date and text of one message and stores it. Everything that
// can be refused is refused before the octets are asked for.
func (a *appending) message() error {
	s, p := a.s, a.p
	var flags []string
	var err error
	if p.peek() == '(' {
		if flags, err = p.flags(false); err != nil {
			return err
		}
		if err := p.space(); err != nil {
			return err
		}
	}
	date := time.Now()
	if p.peek() == '"' {
		if date, err = p.dateTime(); err != nil {
			return err
		}
		if err := p.space(); err != nil {
			return err
		}
	}
	utf8 := false
	if rest := p.rest(); len(rest) > 6 && strings.EqualFold(string(rest[:6]), "UTF8 (") {
		if !s.utf8Names() {
			return bad("Use ENABLE UTF8=ACCEPT first")
		}
		utf8 = true
		p.pos += 6
	}
	h, ok := parseLiteralHeader(p.rest())
	if !ok {
		return bad("Expected the message as a literal")
	}
	if h.size > s.srv.c.Limits.Message {
		return no("TOOBIG", fmt.Sprintf("Message is larger than %d octets", s.srv.c.Limits.Message))
	}
	if h.size == 0 {
		return no("CANNOT", "Message is empty")
	}
	if a.folder == nil {
		if a.folder, err = s.destination(a.name); err != nil {
			return err
		}
	}
	set, err := flagSet(a.folder, flags, true)
	if err != nil {
		return err
	}
	if err := p.accept(h); err != nil {
		return err
	}
	if err := a.store(h.size, set, date); err != nil {
		return err
	}
	if utf8 {
		return p.expect(')')
	}
	return nil
}

// store takes the octets of a literal. If they cannot be kept they are read all the same.
func (a *appending) store(size int64, flags maildir.Flags, date time.Time) error {
	body := &literal{r: &a.s.in, left: size}
	m, err := a.folder.Append(a.s.ctx, body, maildir.AppendOptions{Size: size, Flags: flags, Date: date})
	if body.err != nil {
		return body.err // the peer is gone
	}
	if err != nil {
		err = a.s.storeError("append", a.name, err)
		if _, lost := io.Copy(io.Discard, body); lost != nil {
			return lost
		}
		return errors.Join(err, a.p.nextLine())
	}
	a.uids = append(a.uids, m.UID)
	return a.p.nextLine()
}

// flagSet turns names into flags. Keywords are made if create is true;
// otherwise unknown ones stand for nothing.
func flagSet(f *maildir.Folder, names []string, create bool) (maildir.Flags, error) {
	var set maildir.Flags
next:
	for _, name := range names {
		if name[0] == '\\' {
			for _, sys := range systemFlags {
				if equalFold(name, sys.name) {
					set |= sys.flag
					continue next
				}
			}
			if equalFold(name, `\Recent`) { // cannot be set (RFC 3501 §2.3.2), and clients copy it
				continue
			}
			return 0, bad("Unknown system flag %s", clip(name, 40))
		}
		flag, ok := f.Keyword(name, create)
		if !ok && create {
			return 0, no("LIMIT", "Mailbox has no room for another keyword")
		}
		set |= flag
	}
	return set, nil
}
