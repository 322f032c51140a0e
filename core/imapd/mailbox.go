package imapd

import (
	"errors"
	"fmt"
	"strings"

	"github.com/wafermail/wafer/core/maildir"
)

func isNoFolder(err error) bool { return errors.Is(err, maildir.ErrNoFolder) }

// storeError is the reply to an error of the mail store (RFC 5530, RFC 9051 §7.1).
func (s *session) storeError(attempt, name string, err error) error {
	switch {
	case isNoFolder(err):
		return no("NONEXISTENT", textNoSuchMailbox)
	case errors.Is(err, maildir.ErrExists):
		return no("ALREADYEXISTS", "Mailbox exists already")
	case errors.Is(err, maildir.ErrBadName):
		return no("CANNOT", oneLine(err.Error()))
	case errors.Is(err, maildir.ErrOverQuota):
		return no("OVERQUOTA", "Mailbox is full")
	case errors.Is(err, maildir.ErrCompressed):
		return no("CANNOT", "Message begins like a compressed file")
	}
	if s.ctx.Err() == nil {
		s.log.Error(attempt, "user", s.user, "mailbox", name, "err", err)
	}
	return no("UNAVAILABLE", textUnavailable)
}

// selectCommand is SELECT or EXAMINE (RFC 9051 §6.3.2, §6.3.3).
func selectCommand(readOnly bool) command {
	return func(s *session, p *parser) (done, error) {
		if err := p.space(); err != nil {
			return done{}, err
		}
		name, err := p.mailbox()
		if err != nil {
			return done{}, err
		}
		condstore := false
		var since *resync
		if !p.atEnd() {
			if err := p.space(); err != nil {
				return done{}, err
			}
			err := p.list(func() error {
				word, err := p.keyword()
				switch {
				case err != nil:
				case word == "CONDSTORE":
					condstore = true
				case word == "QRESYNC" && !s.qresync:
					err = bad("Use ENABLE QRESYNC first")
				case word == "QRESYNC" && since == nil:
					since, err = p.resyncParams()
				default:
					err = bad("Unknown parameter")
				}
				return err
			})
			if err != nil {
				return done{}, err
			}
		}
		if err := p.end(); err != nil {
			return done{}, err
		}
		if s.unselect() && (s.rev2 || s.condstore) {
			s.out.line("* OK [CLOSED] Previous mailbox is closed")
		}
		if condstore {
			s.useCondstore()
		}
		d, err := s.open(name, readOnly)
		if err == nil && since != nil {
			s.resync(since)
		}
		return d, err
	}
}

// unselect leaves the selected mailbox, if any.
func (s *session) unselect() bool {
	if s.view == nil {
		return false
	}
	s.notifyUnselected()
	s.view.close()
	s.view = nil
	s.state = authenticated
	return true
}

func (s *session) open(name string, readOnly bool) (done, error) {
	f, err := s.store.Folder(s.ctx, name)
	if err != nil {
		return done{}, s.storeError("open mailbox", name, err)
	}
	if err := f.Refresh(s.ctx); err != nil {
		f.Close()
		return done{}, s.storeError("read mailbox", name, err)
	}
	msgs := f.Messages()
	st := f.Status()
	v := &view{folder: f, name: f.Name(), readOnly: readOnly, base: msgs, msgs: msgs, told: len(msgs), names: f.Keywords()}
	for _, k := range v.names {
		if k != "" {
			v.keywords++
		}
	}
	v.recent = s.srv.recent.claim(recentKey{s.user, v.name, st.UIDValidity}, msgs, st.UIDNext, !readOnly)
	s.view, s.state = v, selected
	s.notifySelected()

	s.sendFlagNames()
	s.out.line(fmt.Sprintf("* %d EXISTS", len(msgs)))
	if s.rev2 {
		s.out.str(`* LIST () "." `)
		s.out.mailbox(v.name, true)
		s.out.crlf()
	} else {
		s.tellRecent()
		for i := range msgs {
			if msgs[i].Flags&maildir.Seen == 0 {
				s.out.line(fmt.Sprintf("* OK [UNSEEN %d] First unseen", i+1))
				break
			}
		}
	}
	s.out.line(fmt.Sprintf("* OK [UIDVALIDITY %d] UIDs are valid", st.UIDValidity))
	s.out.line(fmt.Sprintf("* OK [UIDNEXT %d] Next UID", st.UIDNext))
	s.out.line(fmt.Sprintf("* OK [HIGHESTMODSEQ %d] Highest", st.HighestModSeq))
	s.out.line("* OK [MAILBOXID (", mailboxID(st.UIDValidity), ")] Identity")
	if readOnly {
		return done{code: "READ-ONLY"}, nil
	}
	return done{code: "READ-WRITE"}, nil
}

// cmdClose is RFC 9051 §6.4.1: it expunges without a word, but nothing in a
// mailbox that was examined.
func (s *session) cmdClose(p *parser) (done, error) {
	if err := p.end(); err != nil {
		return done{}, err
	}
	if !s.view.readOnly {
		s.view.merge()
		if _, err := s.view.folder.Expunge(s.ctx, s.deleted(nil)); err != nil {
			return done{}, s.storeError("expunge", s.view.name, err)
		}
	}
	s.unselect()
	return done{}, nil
}

func (s *session) cmdUnselect(p *parser) (done, error) {
	if err := p.end(); err != nil {
		return done{}, err
	}
	s.unselect()
	return done{}, nil
}

// oneMailbox reads the single argument of a command.
func (p *parser) oneMailbox() (string, error) {
	if err := p.space(); err != nil {
		return "", err
	}
	name, err := p.mailbox()
	if err != nil {
		return "", err
	}
	return name, p.end()
}

// createArgs reads a mailbox and what it is for (RFC 6154 §3).
func (p *parser) createArgs() (name, use string, err error) {
	if err = p.space(); err != nil {
		return "", "", err
	}
	if name, err = p.mailbox(); err != nil || p.atEnd() {
		return name, "", err
	}
	if err = p.space(); err != nil || p.atEnd() {
		return name, "", err
	}
	err = p.list(func() error {
		word, err := p.keyword()
		if err != nil {
			return err
		}
		if word != "USE" || use != "" {
			return bad("Unknown parameter")
		}
		if err := p.space(); err != nil {
			return err
		}
		return p.list(func() error {
			flag, err := p.flag()
			if err != nil {
				return err
			}
			if use != "" {
				return no("USEATTR", "A mailbox has one special use")
			}
			if use = maildir.SpecialUse(flag); use == "" {
				return no("USEATTR", "There is no such special use")
			}
			return nil
		})
	})
	if err == nil {
		err = p.end()
	}
	return name, use, err
}

// cmdCreate is RFC 9051 §6.3.4. A separator at the end announces children,
// which need no announcement here.
func (s *session) cmdCreate(p *parser) (done, error) {
	name, use, err := p.createArgs()
	if err != nil {
		return done{}, err
	}
	if len(name) > 1 {
		name = strings.TrimSuffix(name, ".")
	}
	if strings.EqualFold(name, "INBOX") {
		return done{}, no("ALREADYEXISTS", "INBOX is always there")
	}
	make := s.store.Create
	if use != "" {
		make = func(name string) error { return s.store.CreateFor(name, use) }
	}
	if err := make(name); err != nil {
		return done{}, s.storeError("create mailbox", name, err)
	}
	f, err := s.store.Folder(s.ctx, name)
	if err != nil {
		return done{}, s.storeError("open mailbox", name, err)
	}
	defer f.Close()
	s.did(f.Name())
	return done{code: "MAILBOXID (" + mailboxID(f.Status().UIDValidity) + ")"}, nil
}

func (s *session) cmdDelete(p *parser) (done, error) {
	name, err := p.oneMailbox()
	if err != nil {
		return done{}, err
	}
	if name == "INBOX" {
		return done{}, no("CANNOT", "INBOX cannot be deleted")
	}
	if s.view != nil && s.view.name == name {
		s.unselect()
	}
	if err := s.store.Delete(name); err != nil {
		return done{}, s.storeError("delete mailbox", name, err)
	}
	s.did(name)
	return done{}, nil
}

// cmdRename is RFC 9051 §6.3.6. Of INBOX only the messages move.
func (s *session) cmdRename(p *parser) (done, error) {
	if err := p.space(); err != nil {
		return done{}, err
	}
	from, err := p.mailbox()
	if err != nil {
		return done{}, err
	}
	to, err := p.oneMailbox()
	if err != nil {
		return done{}, err
	}
	to = strings.TrimSuffix(to, ".")
	if err := s.store.Rename(from, to); err != nil {
		return done{}, s.storeError("rename mailbox", from, err)
	}
	if s.view != nil && s.view.name == from && from != "INBOX" {
		s.unselect() // its directory has another name now
		s.out.line("* OK [CLOSED] The selected mailbox has been renamed")
	}
	s.did(from, to)
	return done{}, nil
}

func (s *session) cmdSubscribe(p *parser) (done, error) {
	name, err := p.oneMailbox()
	if err != nil {
		return done{}, err
	}
	if err := s.store.Subscribe(strings.TrimSuffix(name, ".")); err != nil {
		return done{}, s.storeError("subscribe", name, err)
	}
	s.did(strings.TrimSuffix(name, "."))
	return done{}, nil
}

func (s *session) cmdUnsubscribe(p *parser) (done, error) {
	name, err := p.oneMailbox()
	if err != nil {
		return done{}, err
	}
	if err := s.store.Unsubscribe(strings.TrimSuffix(name, ".")); err != nil {
		return done{}, s.storeError("unsubscribe", name, err)
	}
	s.did(strings.TrimSuffix(name, "."))
	return done{}, nil
}

// cmdNamespace is RFC 9051 §6.3.10: everything is in one personal namespace.
func (s *session) cmdNamespace(p *parser) (done, error) {
	if err := p.end(); err != nil {
		return done{}, err
	}
	s.out.line(`* NAMESPACE (("" ".")) NIL NIL`)
	return done{}, nil
}
