package imapd

import (
	"slices"

	"github.com/wafermail/wafer/core/maildir"
)

// statusItems reads "(MESSAGES UIDNEXT …)".
func (p *parser) statusItems() ([]string, error) {
	var items []string
	err := p.list(func() error {
		word, err := p.keyword()
		if err != nil {
			return err
		}
		switch word {
		case "MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "DELETED", "SIZE", "HIGHESTMODSEQ", "APPENDLIMIT", "MAILBOXID", "DELETED-STORAGE":
			if len(items) < 20 {
				items = append(items, word)
			}
			return nil
		}
		return bad("Unknown status item %s", clip(word, 40))
	})
	if err == nil && len(items) == 0 {
		return nil, bad("No status item is named")
	}
	return items, err
}

// cmdStatus is RFC 9051 §6.3.11.
func (s *session) cmdStatus(p *parser) (done, error) {
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
	items, err := p.statusItems()
	if err != nil {
		return done{}, err
	}
	if err := p.end(); err != nil {
		return done{}, err
	}
	for _, item := range items {
		if item == "HIGHESTMODSEQ" {
			s.useCondstore()
		}
	}
	if err := s.sendStatus(name, items); err != nil {
		return done{}, s.storeError("read mailbox", name, err)
	}
	return done{}, nil
}

// sendStatus sends a STATUS response (RFC 9051 §7.3.4).
func (s *session) sendStatus(name string, items []string) error {
	f, err := s.store.Folder(s.ctx, name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Refresh(s.ctx); err != nil {
		return err
	}
	if slices.Contains(items, "SIZE") || slices.Contains(items, "DELETED-STORAGE") {
		if err := f.Measure(s.ctx); err != nil {
			return err
		}
	}
	st := f.Status()
	s.out.str("* STATUS ")
	s.out.mailbox(f.Name(), s.utf8Names())
	s.out.str(" (")
	for i, item := range items {
		if i > 0 {
			s.out.byte(' ')
		}
		s.out.str(item)
		s.out.byte(' ')
		if item == "MAILBOXID" {
			s.out.str("(" + mailboxID(st.UIDValidity) + ")")
			continue
		}
		s.out.num(s.statusValue(f, st, item))
	}
	s.out.line(")")
	return nil
}

func (s *session) statusValue(f *maildir.Folder, st maildir.Status, item string) uint64 {
	switch item {
	case "MESSAGES":
		return uint64(st.Messages)
	case "UIDNEXT":
		return uint64(st.UIDNext)
	case "UIDVALIDITY":
		return uint64(st.UIDValidity)
	case "UNSEEN":
		return uint64(st.Unseen)
	case "DELETED":
		return uint64(st.Deleted)
	case "SIZE":
		return uint64(st.Size)
	case "HIGHESTMODSEQ":
		return st.HighestModSeq
	case "DELETED-STORAGE": // RFC 9208 §4.1.5, octets
		n := uint64(0)
		for _, m := range f.Messages() {
			if m.Flags&maildir.Deleted != 0 {
				n += uint64(max(m.Size, 0))
			}
		}
		return n
	case "APPENDLIMIT":
		return uint64(s.srv.c.Limits.Message)
	}
	msgs := f.Messages() // RECENT
	from := s.srv.recent.claim(recentKey{s.user, f.Name(), st.UIDValidity}, msgs, st.UIDNext, false)
	i, _ := findUID(msgs, from)
	return uint64(len(msgs) - i)
}
