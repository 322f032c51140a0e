package smtpd

import (
	"bytes"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// Ownership says where a user of a submission door must write an address of
// his own (RFC 6409 §6.1). Whose an address is, Rules.Directory knows.
type Ownership string

// The zero value is OwnBoth. The null reverse-path belongs to everybody.
const (
	OwnBoth     Ownership = ""         // reverse-path, and each address of From and Sender
	OwnEnvelope Ownership = "envelope" // reverse-path
	OwnOff      Ownership = "off"      // nowhere
)

// maxAuthors is how many addresses From or Sender may have where each must be
// looked up.
const maxAuthors = 100

// submission is what a submission door does to a message (RFC 6409 §8): it
// completes addresses that have no domain, adds the fields that every message
// must have, and takes Bcc out. For that the header section is held back, up to
// Limits.HeaderSize octets, until it is whole; the body streams as ever.
type submission struct {
	head                  []byte
	date, messageID, from bool // fields that are there
}

// homeDomain completes addresses: the user's own domain, or our name.
func (s *session) homeDomain() string {
	if _, domain, ok := strings.Cut(s.user, "@"); ok && mail.ValidDomain(domain) {
		return domain
	}
	return s.srv.c.Hostname
}

// complete gives p our domain if it has none. The bare postmaster stays: he is
// known everywhere.
func (s *session) complete(p mail.Path) mail.Path {
	if !s.srv.c.Profile.submits() || p.IsNull() || p.Domain() != "" || strings.EqualFold(p.Local(), "postmaster") {
		return p
	}
	return p.WithDomain(s.homeDomain())
}

// owns reports whether the user may write as p.
func (s *session) owns(p mail.Path) bool {
	if s.rules.Directory == nil {
		return true // nobody can say
	}
	return slices.Contains(s.rules.Directory.Owners(p), s.user)
}

// mayBe judges the reverse-path.
func (s *session) mayBe(from mail.Path) mail.Status {
	if !s.srv.c.Profile.submits() || s.srv.c.OwnSender == OwnOff || from.IsNull() || s.owns(from) {
		return mail.Status{}
	}
	return statusNotOwned(553, "Sender", from.String(), s.user)
}

// overruled is how the rules that no policy can switch off refuse.
func (s *session) overruled(st mail.Status) policy.Decision {
	if d, ok := s.judge.Overruled(&s.ev, st); ok {
		return d
	}
	return policy.Decision{Status: st}
}

// submitHead sends the header section on its way to the draft.
func (s *session) submitHead() {
	head := s.tx.submitted.head
	s.tx.submitted.head = nil
	out, st := s.completeHead(head)
	if st.Code != 0 {
		s.failWith(st)
		return
	}
	s.write(out)
}

// completeHead returns a header section as it shall be, or why the message is
// refused.
func (s *session) completeHead(head []byte) ([]byte, mail.Status) {
	sub := &s.tx.submitted
	out := make([]byte, 0, len(head)+128)
	done := 0
	for f := range mail.HeaderFields(head) {
		if f.Name() == "" && done == 0 && (bytes.HasPrefix(f.Raw, []byte("From ")) || bytes.HasPrefix(f.Raw, []byte(">From "))) {
			done = len(f.Raw) // how messages begin in a mailbox file
			continue
		}
		if f.Name() == "" {
			// The body begins, and somebody has forgotten the blank line.
			out = append(out, "\r\n"...)
			break
		}
		done += len(f.Raw)
		var st mail.Status
		switch strings.ToLower(f.Name()) {
		case "bcc", "resent-bcc": // nobody shall see it (RFC 5322 §3.6.3)
			continue
		case "from":
			if sub.from && s.srv.c.OwnSender == OwnBoth {
				return nil, statusTwoAuthors
			}
			sub.from = true
			out, st = s.completeField(out, f, true)
		case "sender":
			out, st = s.completeField(out, f, true)
		case "reply-to", "to", "cc", "resent-from", "resent-sender", "resent-reply-to", "resent-to", "resent-cc":
			out, st = s.completeField(out, f, false)
		default:
			sub.date = sub.date || f.Is("Date")
			sub.messageID = sub.messageID || f.Is("Message-ID")
			out = append(out, f.Raw...)
		}
		if st.Code != 0 {
			return nil, st
		}
	}
	return append(out, head[done:]...), mail.Status{}
}

// completeField appends a field of addresses, each with a domain. Addresses of
// an author's field must be the user's.
func (s *session) completeField(out []byte, f mail.HeaderField, author bool) ([]byte, mail.Status) {
	colon := bytes.IndexByte(f.Raw, ':') + 1
	body := f.Raw[colon:]
	author = author && s.srv.c.OwnSender == OwnBoth && s.rules.Directory != nil
	out = append(out, f.Raw[:colon]...)
	done, n := 0, 0
	for b := range mailboxes(body) {
		switch n++; {
		case author && n > maxAuthors:
			return nil, statusAuthors(f.Name())
		case len(out) > s.limits.HeaderSize: // one letter can become an address
			return nil, status(replyHeaderBig)
		}
		p, err := mail.ReadPath(b.address, true)
		if err == nil && !b.at && p.Domain() == "" && !p.IsNull() {
			p = p.WithDomain(s.homeDomain())
			out = append(append(append(out, body[done:b.end]...), '@'), s.homeDomain()...)
			done = b.end
		}
		if author && (err != nil || p.IsNull() || !s.owns(p)) {
			return nil, statusNotOwned(550, f.Name(), b.address, s.user)
		}
	}
	if author && n == 0 {
		return nil, statusAuthors(f.Name())
	}
	return append(out, body[done:]...), mail.Status{}
}

// addFields appends the fields that the message lacks (RFC 6409 §8.2, §8.3;
// RFC 5322 §3.6).
func (s *session) addFields(b []byte) []byte {
	tx := s.tx
	if !tx.submitted.messageID {
		b = append(b, "Message-ID: <"+string(tx.env.ID)+"@"+s.srv.c.Hostname+">\r\n"...)
	}
	if !tx.submitted.date {
		b = append(b, "Date: "+tx.env.Received.Format(dateForm)+"\r\n"...)
	}
	if tx.submitted.from {
		return b
	}
	author := tx.env.From
	if author.IsNull() {
		var err error
		if author, err = mail.ParsePath(s.user, tx.env.UTF8); err != nil {
			return b
		}
	}
	return append(b, "From: "+s.complete(author).String()+"\r\n"...)
}
