package core

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/smtpd"
)

// courier takes messages from the SMTP doors to the mailboxes. It holds the
// rules that no policy can switch off: no open relay, no mail for unknown
// recipients.
type courier struct {
	domains *domains
	deliver *maildir.Deliverer
	trusted func(mail.Client) bool // may relay without AUTH
	log     *slog.Logger
}

// Recipient judges one RCPT TO (see smtpd.Courier).
func (c *courier) Recipient(_ context.Context, env *mail.Envelope, to mail.Recipient) mail.Status {
	boxes, err := c.domains.resolve(to.To)
	switch {
	case errors.Is(err, errNotOurs):
		if env.User == "" && !c.trusted(env.Client) {
			return policy.RelayDenied(to.To)
		}
		return mail.Status{Code: 451, Enhanced: "4.3.2", Text: "<" + to.To.String() + ">: this server does not send mail to other hosts yet"}
	case errors.Is(err, errNoMailbox):
		return policy.UserUnknown(to.To)
	case errors.Is(err, errRemote), errors.Is(err, errAliasLoop):
		c.log.Error("alias cannot be followed", "rcpt", to.To.String(), "err", err)
		return mail.Status{Code: 451, Enhanced: "4.3.5", Text: "<" + to.To.String() + ">: Server configuration error"}
	case err != nil:
		c.log.Error("recipient lookup", "rcpt", to.To.String(), "err", err)
		return mail.Status{Code: 451, Enhanced: "4.3.0", Text: "<" + to.To.String() + ">: Temporary lookup failure"}
	}
	for _, b := range boxes {
		if err := c.deliver.Ensure(maildir.Target{Maildir: b.dir}); err != nil {
			c.log.Error("mailbox cannot be used", "rcpt", to.To.String(), "maildir", b.dir, "err", err)
			return mail.Status{Code: 450, Enhanced: "4.2.0", Text: "<" + to.To.String() + ">: mailbox is not available now"}
		}
	}
	return mail.Status{}
}

// Begin opens a draft for a message to the envelope's recipients.
func (c *courier) Begin(_ context.Context, env *mail.Envelope) (smtpd.Draft, error) {
	var stops []stop
	for _, r := range env.Rcpts {
		stops = append(stops, stop{to: r.To})
	}
	targets, _, err := c.targets(env, stops)
	if err != nil {
		return nil, err
	}
	d, err := c.deliver.Begin(targets)
	if err != nil {
		return nil, err
	}
	return &draft{courier: c, env: env, Draft: d}, nil
}

// stop is an address that a message goes to, and into which folder there.
type stop struct {
	to     mail.Path
	folder string // "" is the INBOX
}

// targets resolves stops to mailboxes, each once, and adds the trace fields of
// the final delivery (RFC 5321 §4.4). Delivered-To would make every copy
// differ, and would tell recipients of each other if they shared one, so it is
// only there when a message goes to one mailbox. Nothing is lost for loop
// detection: a mailbox is an end.
func (c *courier) targets(env *mail.Envelope, stops []stop) (targets []maildir.Target, boxes []mailbox, err error) {
	seen := map[string]bool{}
	for _, s := range stops {
		found, err := c.domains.resolve(s.to)
		if err != nil {
			return nil, nil, fmt.Errorf("resolve <%s>: %w", s.to, err)
		}
		for _, b := range found {
			if !seen[b.dir] {
				seen[b.dir] = true
				boxes = append(boxes, b)
				targets = append(targets, maildir.Target{Maildir: b.dir, Folder: s.folder})
			}
		}
	}
	head := "Return-Path: <" + env.From.String() + ">\r\n"
	if len(boxes) == 1 {
		head += "Delivered-To: " + boxes[0].addr.String() + "\r\n"
	}
	for i := range targets {
		targets[i].Header = []byte(head)
	}
	return targets, boxes, nil
}

// stops is where d.env's message goes after the policy has had its say. held
// is true if some recipient's copy is to wait in the queue.
func stops(env *mail.Envelope, how smtpd.Disposition) (list []stop, held bool) {
	add := func(to mail.Path, f smtpd.Fate) {
		held = held || f.Hold
		switch {
		case f.Discard || f.Hold:
		case f.Quarantine:
			list = append(list, stop{to, "Junk"})
		default:
			list = append(list, stop{to, ""})
		}
	}
	if len(how.Redirect) > 0 {
		for _, to := range how.Redirect {
			add(to, how.Message)
		}
	} else {
		for i, r := range env.Rcpts {
			add(r.To, how.For(i))
		}
	}
	for _, to := range how.BCC {
		add(to, smtpd.Fate{Hold: how.Message.Hold})
	}
	return list, held
}

// draft is a message on its way in.
type draft struct {
	*maildir.Draft
	courier *courier
	env     *mail.Envelope
}

// Commit delivers (see smtpd.Draft).
func (d *draft) Commit(ctx context.Context, trace []byte, how smtpd.Disposition) ([]mail.Status, error) {
	c := d.courier
	same := func(s mail.Status) []mail.Status {
		all := make([]mail.Status, len(d.env.Rcpts))
		for i := range all {
			all[i] = s
		}
		return all
	}
	list, held := stops(d.env, how)
	if held { // nobody could release it
		c.log.Error("a policy holds mail, which needs the queue", "id", d.env.ID)
		return same(mail.Status{Code: 451, Enhanced: "4.3.5", Text: "Server configuration error"}), nil
	}
	if len(list) == 0 {
		return same(mail.Status{}), nil
	}
	targets, boxes, err := c.targets(d.env, list)
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		if t.Folder == "" && len(how.Redirect)+len(how.BCC) == 0 {
			continue // RCPT has seen to it
		}
		if err := c.deliver.Ensure(t); err != nil {
			return nil, err
		}
	}
	if err := d.Deliver(ctx, targets, trace); err != nil {
		c.log.Error("delivery failed", "id", d.env.ID, "err", err)
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return same(mail.Status{Code: 452, Enhanced: "4.3.1", Text: "Insufficient system storage"}), nil
		}
		return same(mail.Status{Code: 451, Enhanced: "4.3.0", Text: "mail cannot be stored now"}), nil
	}
	for i, b := range boxes {
		c.log.Info("delivered", "id", d.env.ID, "rcpt", b.user, "folder", targets[i].Folder)
	}
	return same(mail.Status{}), nil
}

// Abort forgets the message.
func (d *draft) Abort() { d.Close() }

// Content is the message for checks at stage message.
func (d *draft) Content() policy.Content { return policy.NewContent(d.Draft, d.Size()) }
