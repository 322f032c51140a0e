package core

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/queue"
	"github.com/wafermail/wafer/core/smtpd"
)

// leg is one way that a message takes: into a mailbox here, or to an address
// elsewhere.
type leg struct {
	rcpt   mail.Recipient // as given in RCPT, or by the policy
	box    *mailbox       // nil: elsewhere
	folder string         // of box, "" is the INBOX
	to     mail.Path      // elsewhere
	via    mail.Path      // the alias that led there; null: the sender has named to
	sent   bool           // on by us: the sender has not named to
	hold   bool
	loop   bool // it has been forwarded by via before
}

// allHere reports whether every leg ends in a mailbox now.
func allHere(legs []leg) bool {
	for i := range legs {
		if legs[i].box == nil || legs[i].hold {
			return false
		}
	}
	return true
}

// legs follows every recipient to its ends, after the policy has had its say. What
// several recipients lead to is one leg.
func (c *courier) legs(env *mail.Envelope, how smtpd.Disposition, content policy.Content) (legs []leg, err error) {
	boxes, aways := map[string]bool{}, map[string]bool{}
	add := func(r mail.Recipient, f smtpd.Fate, others bool) error {
		if f.Discard {
			return nil
		}
		e, err := c.resolve(r.To)
		if errors.Is(err, errNotOurs) { // RCPT has seen whether that may be
			e, err = ends{forwards: []forward{{to: r.To}}}, nil
		}
		if err != nil {
			return fmt.Errorf("resolve <%s>: %w", r.To, err)
		}
		for i := range e.boxes {
			folder := ""
			switch b := e.boxes[i]; {
			case f.Quarantine:
				folder = "Junk"
			case b.detail != "":
				folder, _ = maildir.FolderFor(b.dir, b.detail)
			}
			if dir := e.boxes[i].dir; !boxes[dir] {
				boxes[dir] = true
				legs = append(legs, leg{rcpt: r, box: &e.boxes[i], folder: folder, hold: f.Hold})
			}
		}
		for _, x := range e.forwards {
			if key := x.to.Key(); !aways[key] {
				aways[key] = true
				legs = append(legs, leg{rcpt: r, to: x.to, via: x.via, sent: others || !x.via.IsNull(), hold: f.Hold, loop: !x.via.IsNull() && deliveredTo(content, x.via)})
			}
		}
		return nil
	}
	if len(how.Redirect) > 0 {
		for _, to := range how.Redirect {
			err = errors.Join(err, add(mail.Recipient{To: to}, how.Message, true))
		}
	} else {
		for i, r := range env.Rcpts {
			err = errors.Join(err, add(r, how.For(i), false))
		}
	}
	for _, to := range how.BCC {
		err = errors.Join(err, add(mail.Recipient{To: to, Notify: []string{"NEVER"}}, smtpd.Fate{Hold: how.Message.Hold}, true))
	}
	return legs, err
}

// deliveredTo reports whether a message says that it went through p before.
func deliveredTo(content policy.Content, p mail.Path) bool {
	for i := range maxDeliveredTo {
		field, ok := content.Header("Delivered-To", i)
		if !ok {
			return false
		}
		if strings.EqualFold(strings.TrimSpace(field), p.String()) {
			return true
		}
	}
	return false
}

const maxDeliveredTo = 100

// recipient is the leg as the queue keeps it.
func (c *courier) recipient(l *leg, env *mail.Envelope) queue.Recipient {
	r := queue.Recipient{Recipient: l.rcpt, Original: l.rcpt.To, From: env.From}
	switch {
	case l.box != nil:
		r.To = l.box.addr
		r.Route = &mail.Route{Transport: local, Hop: l.folder}
		return r
	case l.loop:
		r.To = l.to
		r.Route = &mail.Route{Transport: failing, Hop: "554 5.4.6 mail forwarding loop for " + l.via.String()}
		return r
	}
	r.To = l.to
	if !l.via.IsNull() {
		r.Head = "Delivered-To: " + l.via.String() + "\r\n"
	}
	if l.sent {
		r.From = c.sender(env.From)
	}
	return r
}

// sender is the envelope sender of mail that is sent on: one of ours, or its next
// host would find that we are not allowed to send for the real one (SPF).
func (c *courier) sender(from mail.Path) mail.Path {
	if c.srs == nil || from.IsNull() || c.domains.byName[mail.DomainKey(from.Domain())] != nil {
		return from
	}
	ours, err := c.srs.Forward(from, time.Now())
	if err != nil { // it would be too long
		return from
	}
	return ours
}

// failing is the transport whose hop is what every recipient is told.
const failing = "error"

// parseStatus reads "554 5.4.6 text".
func parseStatus(s string) mail.Status {
	code, rest, _ := strings.Cut(s, " ")
	enhanced, text, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(code)
	if err != nil {
		return mail.Status{Code: 554, Enhanced: "5.3.0", Text: s}
	}
	return mail.Status{Code: n, Enhanced: enhanced, Text: text}
}
