package imapd

import (
	"fmt"
	"io"
	"time"

	"github.com/wafermail/wafer/core/maildir"
)

// cmdAppend is RFC 9051 §6.3.12 with LITERAL+, literal8 and APPENDLIMIT. The
// message goes from the socket to the store as it comes; one that does not
// come whole is never stored.
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
	var flags []string
	if p.peek() == '(' {
		if flags, err = p.flags(false); err != nil {
			return done{}, err
		}
		if err := p.space(); err != nil {
			return done{}, err
		}
	}
	date := time.Now()
	if p.peek() == '"' {
		if date, err = p.dateTime(); err != nil {
			return done{}, err
		}
		if err := p.space(); err != nil {
			return done{}, err
		}
	}
	h, ok := parseLiteralHeader(p.rest())
	if !ok {
		return done{}, bad("Expected the message as a literal")
	}
	// Everything that can be refused is refused before the octets are asked for.
	if h.size > s.srv.c.Limits.Message {
		return done{}, no("TOOBIG", fmt.Sprintf("Message is larger than %d octets", s.srv.c.Limits.Message))
	}
	if h.size == 0 {
		return done{}, no("CANNOT", "Message is empty")
	}
	f, err := s.store.Folder(s.ctx, name)
	if isNoFolder(err) {
		return done{}, no("TRYCREATE", textNoSuchMailbox)
	}
	if err != nil {
		return done{}, s.storeError("open mailbox", name, err)
	}
	defer f.Close()
	set, err := flagSet(f, flags, true)
	if err != nil {
		return done{}, err
	}
	if err := p.accept(h); err != nil {
		return done{}, err
	}
	body := &literal{r: &s.in, left: h.size}
	m, err := f.Append(s.ctx, body, maildir.AppendOptions{Size: h.size, Flags: set, Date: date})
	if body.err != nil {
		return done{}, body.err // the peer is gone
	}
	if err != nil {
		err = s.storeError("append", name, err)
		if _, lost := io.Copy(io.Discard, body); lost != nil {
			return done{}, lost
		}
		if lost := p.nextLine(); lost != nil {
			return done{}, lost
		}
		return done{}, err
	}
	if err := p.nextLine(); err != nil {
		return done{}, err
	}
	if !p.atEnd() {
		// MULTIAPPEND is not offered. The message is stored: to say so is better
		// than to have the client send it again.
		s.log.Debug("text after an appended message", "user", s.user)
	}
	return done{code: fmt.Sprintf("APPENDUID %d %d", f.Status().UIDValidity, m.UID)}, nil
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
