package core

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/maildir"
)

// quotas says what users may store, and tells them when they near it. Who has a
// mailbox is known by its directory, which is all that a delivery sees.
type quotas struct {
	byDir sync.Map // directory to *maildir.Quota
	warn  chan warning
}

// warning is mail that a user is to get about the quota.
type warning struct {
	user, dir string
	percent   int
}

// maxWarnings bounds what waits to be told.
const maxWarnings = 1000

// quotaOf makes a user's quota of the domain's and of the user's own line in the
// users file, where Dovecot's userdb_quota_rule stands. It is nil without limits.
func quotaOf(q config.Quota, own map[string]string) (*maildir.Quota, error) {
	m := &maildir.Quota{Storage: q.Storage, Messages: q.Messages, Grace: q.Grace, GracePercent: q.GracePercent, Warn: q.Warn}
	rules := q.Rules
	for _, name := range []string{"userdb_quota_rule", "quota_rule"} {
		rule, ok := own[name]
		if !ok {
			continue
		}
		rest, ok := strings.CutPrefix(rule, "*:")
		if !ok {
			rules = append(rules[:len(rules):len(rules)], rule)
			continue
		}
		storage, messages, err := maildir.ParseLimits(rest)
		if err != nil {
			return nil, err
		}
		m.Storage, m.Messages = storage, messages
	}
	for _, text := range rules {
		r, err := maildir.ParseQuotaRule(text)
		if err != nil {
			return nil, err
		}
		m.Rules = append(m.Rules, r)
	}
	if m.Storage == 0 && m.Messages == 0 {
		return nil, nil
	}
	return m, nil
}

// quotaFor is the quota of a user, nil if there is none.
func (s *Server) quotaFor(ds *domains, user, dir string) *maildir.Quota {
	d, local := ds.of(user)
	if d == nil {
		return nil
	}
	q, err := quotaOf(d.quota, d.users.Fields(local))
	if err != nil {
		s.log.Error("the user's own quota is ignored", "user", user, "err", err)
		if q, err = quotaOf(d.quota, nil); err != nil {
			return nil // the configuration was checked
		}
	}
	if q == nil {
		s.quotas.byDir.Delete(dir)
		return nil
	}
	q.Warned = func(percent int) {
		select {
		case s.quotas.warn <- warning{user, dir, percent}:
		default:
			s.log.Warn("a quota warning was left out: too many wait", "user", user, "percent", percent)
		}
	}
	s.quotas.byDir.Store(dir, q)
	return q
}

// quotaAt is the quota of a Maildir that mail is delivered to.
func (s *Server) quotaAt(dir string) *maildir.Quota {
	if q, ok := s.quotas.byDir.Load(dir); ok {
		return q.(*maildir.Quota)
	}
	return nil
}

// startWarnings begins to deliver mail about quotas, until stop is called.
func (s *Server) startWarnings() (stop func() error) {
	s.quotas.warn = make(chan warning, maxWarnings)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.tellWarnings(ctx)
	}()
	return func() error {
		cancel()
		<-done
		return nil
	}
}

// tellWarnings delivers the mail about quotas until ctx ends.
func (s *Server) tellWarnings(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-s.quotas.warn:
			if err := s.tellWarning(ctx, w); err != nil && ctx.Err() == nil {
				s.log.Error("quota warning", "user", w.user, "err", err)
			}
		}
	}
}

func (s *Server) tellWarning(ctx context.Context, w warning) error {
	t := maildir.Target{Maildir: w.dir, Header: []byte("Return-Path: <>\r\n")}
	d, err := s.deliver.Begin([]maildir.Target{t})
	if err != nil {
		return err
	}
	defer d.Close()
	now := time.Now()
	_, err = fmt.Fprintf(d, "From: Mail Delivery System <postmaster@%s>\r\nTo: <%s>\r\nSubject: Your mailbox is %d%% full\r\nDate: %s\r\nMessage-ID: <%s@%s>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"+
		"This is the mail system at host %s.\r\n\r\nYour mailbox %s uses %d%% of the room that it may use.\r\nWhen it is full, new mail will not be accepted. Please delete\r\nmessages that you no longer need, and empty the trash.\r\n",
		s.config.Hostname, w.user, w.percent, now.Format(time.RFC1123Z), mail.NewID(now), s.config.Hostname, s.config.Hostname, w.user, w.percent)
	if err != nil {
		return err
	}
	s.log.Info("quota warning", "user", w.user, "percent", w.percent)
	return d.Deliver(ctx, []maildir.Target{t}, nil)
}
