package core

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/smtpd"
)

// submit takes a message from a program on this machine (see admin.Submit). Who may
// open the control socket may send: no policy is asked.
func (s *Server) submit(ctx context.Context, sub admin.Submission, message io.Reader) (mail.ID, error) {
	g, release := s.pin()
	defer release()
	c := &courier{
		domains: g.domains, deliver: s.deliver, queue: s.queue, srs: s.srs, limit: s.conf().Limits.MessageSize, log: s.log,
		trusted: func(mail.Client) bool { return true }, quota: s.quotaFor,
	}
	now := time.Now()
	env := &mail.Envelope{
		ID: mail.NewID(now), Received: now, From: sub.From, Return: sub.Return, EnvID: sub.EnvID, Protocol: "local",
		Client: mail.Client{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0), Helo: "localhost"},
	}
	for _, r := range sub.Rcpts {
		if st := c.Recipient(ctx, env, r); st.Code >= 400 {
			return "", &admin.Refused{Status: st}
		}
		env.Rcpts = append(env.Rcpts, r)
	}
	if len(env.Rcpts) == 0 {
		return "", &admin.Refused{Status: mail.Status{Code: 503, Enhanced: "5.5.1", Text: "no recipient"}}
	}
	d, err := c.Begin(ctx, env)
	if err != nil {
		return "", err
	}
	defer d.Abort()
	w := &lineEnds{w: d}
	n, err := io.Copy(w, io.LimitReader(message, s.conf().Limits.MessageSize+1))
	switch {
	case err != nil:
		return "", err
	case n > s.conf().Limits.MessageSize:
		return "", &admin.Refused{Status: mail.Status{Code: 552, Enhanced: "5.3.4", Text: fmt.Sprintf("the message is larger than %d octets", s.conf().Limits.MessageSize)}}
	}
	if err := w.end(); err != nil {
		return "", err
	}
	trace := fmt.Sprintf("Received: by %s (wafer)\r\n\tid %s; %s\r\n", s.config.Hostname, env.ID, now.Format(time.RFC1123Z))
	statuses, err := d.Commit(ctx, []byte(trace), smtpd.Disposition{})
	if err != nil {
		return "", err
	}
	for _, st := range statuses {
		if st.Code >= 400 {
			return "", &admin.Refused{Status: st}
		}
	}
	s.log.Info("message accepted", "id", env.ID, "from", sub.From.String(), "rcpts", len(env.Rcpts), "size", n, "protocol", "local", "login", sub.Login)
	return env.ID, nil
}

// lineEnds gives every line a CR LF, whatever it ended with.
type lineEnds struct {
	w   io.Writer
	cr  bool // a CR that is not written yet
	buf []byte
}

// Write implements io.Writer.
func (l *lineEnds) Write(p []byte) (int, error) {
	b := l.buf[:0]
	for _, c := range p {
		switch {
		case c == '\n':
			b, l.cr = append(b, '\r', '\n'), false
			continue
		case l.cr:
			b, l.cr = append(b, '\r', '\n'), false
		}
		if c == '\r' {
			l.cr = true
			continue
		}
		b = append(b, c)
	}
	l.buf = b
	if _, err := l.w.Write(b); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (l *lineEnds) end() error {
	if !l.cr {
		return nil
	}
	_, err := l.w.Write([]byte("\r\n"))
	return err
}
