package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"syscall"
	"time"

	"github.com/wafermail/wafer/core/bounce"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/queue"
	"github.com/wafermail/wafer/core/smtpd"
	"github.com/wafermail/wafer/core/srs"
)

// courier takes messages from the SMTP doors to the mailboxes and to the queue. It
// holds the rules that no policy can switch off: no open relay, no mail for unknown
// recipients.
type courier struct {
	domains *domains
	deliver *maildir.Deliverer
	queue   *queue.Queue
	srs     *srs.Rewriter          // nil: senders of forwarded mail stay as they are
	trusted func(mail.Client) bool // may relay without AUTH
	quota   func(ds *domains, user, dir string) *maildir.Quota
	limit   int64 // octets of a message
	log     *slog.Logger
}

// Recipient judges one RCPT TO (see smtpd.Courier).
func (c *courier) Recipient(_ context.Context, env *mail.Envelope, to mail.Recipient) mail.Status {
	e, err := c.resolve(to.To)
	switch {
	case errors.Is(err, errNotOurs):
		if env.User == "" && !c.trusted(env.Client) {
			return policy.RelayDenied(to.To)
		}
	case errors.Is(err, errNoMailbox):
		return policy.UserUnknown(to.To)
	case errors.Is(err, errAliasLoop):
		c.log.Error("alias cannot be followed", "rcpt", to.To.String(), "err", err)
		return mail.Status{Code: 451, Enhanced: "4.3.5", Text: "<" + to.To.String() + ">: Server configuration error"}
	case err != nil:
		c.log.Error("recipient lookup", "rcpt", to.To.String(), "err", err)
		return mail.Status{Code: 451, Enhanced: "4.3.0", Text: "<" + to.To.String() + ">: Temporary lookup failure"}
	}
	if len(e.boxes) == 0 || len(e.forwards) > 0 {
		if err := c.queue.Room(max(env.Size, c.limit)); err != nil {
			c.log.Error("no room in the queue", "err", err)
			return statusFull()
		}
	}
	for _, b := range e.boxes {
		if err := c.deliver.Ensure(maildir.Target{Maildir: b.dir}); err != nil {
			c.log.Error("mailbox cannot be used", "rcpt", to.To.String(), "maildir", b.dir, "err", err)
			return mail.Status{Code: 450, Enhanced: "4.2.0", Text: "<" + to.To.String() + ">: mailbox is not available now"}
		}
	}
	if len(e.forwards) == 0 {
		return c.room(e.boxes, to.To, env.Size)
	}
	return mail.Status{}
}

// room refuses mail for a mailbox that is full, and for an alias if all of them are.
func (c *courier) room(boxes []mailbox, to mail.Path, size int64) mail.Status {
	var st mail.Status
	for _, b := range boxes {
		if c.quota(c.domains, b.user, b.dir) == nil {
			return mail.Status{}
		}
		err := c.deliver.Room(maildir.Target{Maildir: b.dir}, size)
		if !errors.Is(err, maildir.ErrOverQuota) {
			if err != nil { // mail is not refused for what cannot be counted
				c.log.Error("quota cannot be read", "user", b.user, "err", err)
			}
			return mail.Status{}
		}
		if d, _ := c.domains.of(b.user); d.quota.Permanent {
			st = mail.Status{Code: 552, Enhanced: "5.2.2", Text: "<" + to.String() + ">: mailbox is full"}
		} else {
			st = mail.Status{Code: 452, Enhanced: "4.2.2", Text: "<" + to.String() + ">: mailbox is full"}
		}
	}
	return st
}

func statusFull() mail.Status {
	return mail.Status{Code: 452, Enhanced: "4.3.1", Text: "Insufficient system storage"}
}

// resolve finds out where an address leads. One that we made ourselves, so that
// notices about forwarded mail find back, leads to the sender of that mail.
func (c *courier) resolve(p mail.Path) (ends, error) {
	e, err := c.domains.resolve(p)
	if !errors.Is(err, errNoMailbox) || c.srs == nil {
		return e, err
	}
	back, rerr := c.srs.Reverse(p, time.Now())
	if rerr != nil {
		return e, err
	}
	if e, err = c.domains.resolve(back); errors.Is(err, errNotOurs) {
		return ends{forwards: []forward{{to: back}}}, nil
	}
	return e, err
}

// Begin opens a draft for a message to the envelope's recipients: in the first one's
// mailbox if all are here and nobody wants to hear of its delivery, else in the queue.
func (c *courier) Begin(_ context.Context, env *mail.Envelope) (smtpd.Draft, error) {
	d := &draft{courier: c, env: env}
	var targets []maildir.Target
	for i := range env.Rcpts {
		e, err := c.resolve(env.Rcpts[i].To)
		if err != nil && !errors.Is(err, errNotOurs) {
			return nil, fmt.Errorf("resolve <%s>: %w", env.Rcpts[i].To, err)
		}
		if err != nil || len(e.forwards) > 0 || bounce.Wanted(env.Rcpts[i], bounce.Delivered) {
			d.away = c.queue.Begin(env.ID)
			d.store = d.away
			return d, nil
		}
		targets = append(targets, maildir.Target{Maildir: e.boxes[0].dir})
	}
	var err error
	if d.here, err = c.deliver.Begin(targets); err != nil {
		return nil, err
	}
	d.store = d.here
	return d, nil
}

// draft is a message on its way in. One of here and away holds it.
type draft struct {
	store
	courier *courier
	env     *mail.Envelope
	here    *maildir.Draft
	away    *queue.Draft
}

// store is what a message is kept in while it is received.
type store interface {
	io.Writer
	io.ReaderAt
	Size() int64
	Close()
}

// Commit delivers (see smtpd.Draft).
func (d *draft) Commit(ctx context.Context, trace []byte, how smtpd.Disposition) ([]mail.Status, error) {
	legs, err := d.courier.legs(d.env, how, policy.NewContent(d.store, d.Size()))
	var st mail.Status
	switch {
	case err != nil:
		return nil, err
	case len(legs) == 0: // all of it is discarded
	case d.here != nil && allHere(legs):
		st, err = d.courier.toMailboxes(ctx, d, legs, trace)
	default:
		st, err = d.courier.toQueue(d, legs, trace, how)
	}
	if err != nil {
		return nil, err
	}
	all := make([]mail.Status, len(d.env.Rcpts))
	for i := range all {
		all[i] = st
	}
	return all, nil
}

// toMailboxes delivers at once.
func (c *courier) toMailboxes(ctx context.Context, d *draft, legs []leg, trace []byte) (mail.Status, error) {
	targets := mailboxTargets(d.env, legs)
	for _, t := range targets {
		if err := c.deliver.Ensure(t); err != nil {
			return mail.Status{}, err
		}
	}
	if err := d.here.Deliver(ctx, targets, trace); err != nil {
		c.log.Error("delivery failed", "id", d.env.ID, "err", err)
		return notStored(err), nil
	}
	for _, l := range legs {
		c.log.Info("delivered", "id", d.env.ID, "rcpt", l.box.user, "folder", l.folder)
	}
	return mail.Status{}, nil
}

// notStored is the reply where a message could not be made durable.
func notStored(err error) mail.Status {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, queue.ErrFull) {
		return statusFull()
	}
	return mail.Status{Code: 451, Enhanced: "4.3.0", Text: "mail cannot be stored now"}
}

// mailboxTargets are the places of legs with the trace fields of the final delivery
// (RFC 5321 §4.4). Delivered-To would make every copy differ, and would tell
// recipients of each other if they shared one, so it is only there when a message
// goes to one mailbox. Nothing is lost for loop detection: a mailbox is an end.
func mailboxTargets(env *mail.Envelope, legs []leg) (targets []maildir.Target) {
	head := "Return-Path: <" + env.From.String() + ">\r\n"
	if len(legs) == 1 {
		head += "Delivered-To: " + legs[0].box.addr.String() + "\r\n"
	}
	for _, l := range legs {
		targets = append(targets, maildir.Target{Maildir: l.box.dir, Folder: l.folder, Header: []byte(head), Binary: env.Body == mail.BodyBinary})
	}
	return targets
}

// toQueue puts a message for others, or one that is held, into the queue, with all
// its recipients: so one commit makes it durable for everybody.
func (c *courier) toQueue(d *draft, legs []leg, trace []byte, how smtpd.Disposition) (mail.Status, error) {
	away := d.away
	if away == nil {
		away = c.queue.Begin(d.env.ID)
		defer away.Close()
		if _, err := io.Copy(away, io.NewSectionReader(d.store, 0, d.Size())); err != nil {
			return notStored(err), nil
		}
	}
	m := &queue.Message{Envelope: *d.env, Head: trace}
	for _, l := range legs {
		m.Rcpts = append(m.Rcpts, c.recipient(&l, d.env))
		if l.hold {
			m.Hold = "held by a policy"
		}
	}
	if err := away.Commit(m); err != nil {
		c.log.Error("message could not be queued", "id", d.env.ID, "err", err)
		return notStored(err), nil
	}
	c.log.Info("queued", "id", d.env.ID, "recipients", len(m.Rcpts), "hold", m.Hold)
	return mail.Status{}, nil
}

// Abort forgets the message.
func (d *draft) Abort() { d.Close() }

// Content is the message for checks at stage message.
func (d *draft) Content() policy.Content { return policy.NewContent(d.store, d.Size()) }
