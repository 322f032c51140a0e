package core

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/delegate"
	"github.com/wafermail/wafer/core/dns"
	"github.com/wafermail/wafer/core/imapd"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/pop3d"
	"github.com/wafermail/wafer/core/smtpd"
)

// engine puts a protocol engine behind a door. What it is told here of c is in doorKey.
func (s *Server) engine(d *door, c *config.Config) error {
	log := s.log.With("listener", d.name)
	policies := func() (*policy.Set, func()) {
		g, release := s.pin()
		return g.policy, release
	}
	secure := s.tls(c, d.block)
	switch d.profile {
	case "imap", "imaps":
		e, err := imapd.New(imapd.Config{
			Hostname: c.Hostname, TLS: secure, Implicit: config.Implicit(d.profile), AuthLoopback: d.block.Loopback,
			ProxyFrom: c.Proxy, Trusted: c.Trusted, Without: d.block.Without,
			Limits: imapd.Limits{Connections: c.Limits.Connections, PerUser: c.Limits.PerUser, Message: c.Limits.MessageSize},
			Auth:   s.auth, Policies: policies, Mailbox: s.mailbox, Logger: log,
		})
		if err != nil {
			return err
		}
		d.engine = e
		d.stats = func() admin.Listener {
			st := e.Stats()
			return admin.Listener{Open: st.Open, Total: st.Total, Panics: st.Panics}
		}
	case "pop3", "pop3s":
		e, err := pop3d.New(pop3d.Config{
			Hostname: c.Hostname, TLS: secure, Implicit: config.Implicit(d.profile), AuthLoopback: d.block.Loopback,
			ProxyFrom: c.Proxy, Trusted: c.Trusted,
			Limits: pop3d.Limits{Connections: c.Limits.Connections},
			Auth:   s.auth, Policies: policies, Mailbox: s.mailbox, Logger: log,
		})
		if err != nil {
			return err
		}
		d.engine = e
		d.stats = func() admin.Listener {
			st := e.Stats()
			return admin.Listener{Open: st.Open, Total: st.Total, Panics: st.Panics}
		}
	case "policy":
		e, err := delegate.NewServer(delegate.ServerConfig{
			Hostname: c.Hostname, Door: d.profile, Policies: policies, Trusted: c.Trusted, Logger: log,
			Directory: func() policy.Directory { return s.current.Load().domains },
			Limits:    delegate.Limits{Connections: c.Limits.Connections},
		})
		if err != nil {
			return err
		}
		d.engine = e
		d.stats = func() admin.Listener {
			st := e.Stats()
			return admin.Listener{Open: st.Open, Total: st.Total, Panics: st.Panics}
		}
	default:
		e, err := smtpd.New(smtpd.Config{
			Profile: smtpd.Profile(d.profile), Hostname: c.Hostname, TLS: secure,
			Trusted: c.Trusted, ProxyFrom: c.Proxy, XClientFrom: c.XClient, AuthLoopback: d.block.Loopback, Without: d.block.Without,
			OwnSender: smtpd.Ownership(c.Sending.Submission.OwnSender), HideClient: c.Sending.Submission.HideClient,
			Limits: smtpd.Limits{
				MessageSize: c.Limits.MessageSize, Recipients: c.Limits.Recipients,
				SoftErrors: c.Limits.SoftErrors, HardErrors: c.Limits.HardErrors,
				Idle: c.Limits.Idle, Data: c.Limits.Data, MinRate: c.Limits.MinRate,
				Session: c.Limits.Session, GreetDelay: c.Limits.GreetDelay,
			},
			Registry: s.registry, Names: s.names, Logger: log,
			Begin: func(client netip.Addr) smtpd.Rules {
				g, release := s.pin()
				return smtpd.Rules{
					Policy: g.policyFor(client), Shadow: g.shadow, Auth: s.auth, Directory: g.domains, Release: release,
					Courier: &courier{domains: g.domains, deliver: s.deliver, queue: s.queue, srs: s.srs, trusted: g.trusted, quota: s.quotaFor, limit: g.config.Limits.MessageSize, log: log},
				}
			},
		})
		if err != nil {
			return err
		}
		d.engine = e
		d.stats = func() admin.Listener {
			st := e.Stats()
			return admin.Listener{Open: st.Open, Total: st.Total, Panics: st.Panics}
		}
	}
	return nil
}

// namePatience is how long a session waits for its client's name.
const namePatience = 3 * time.Second

// names looks up what a client is called. Loopback is not asked for: no zone
// knows it.
func (s *Server) names(ctx context.Context, addr netip.Addr) (verified, reverse string) {
	if s.dns == nil || addr.IsLoopback() {
		return "", ""
	}
	ctx, cancel := context.WithTimeout(ctx, namePatience)
	defer cancel()
	n := dns.Reverse(ctx, s.dns, addr)
	return n.Verified, n.Reverse
}

// Run serves until ctx ends, or until a listener fails. Then it drains: sessions
// that are receiving a message finish it, all others are told 421 or BYE, for at
// most limits { shutdown }. ready is called when every door is open.
func (s *Server) Run(ctx context.Context, ready func(*Server)) error {
	shown, err := s.metricsHandler()
	if err == nil {
		s.admin, err = admin.Listen(admin.Config{State: s.config.State, Status: s.Status, Memory: s, Queue: s.queue, Submit: s.submit, Generations: s, Metrics: shown, Logger: s.log})
	}
	if err != nil {
		return errors.Join(err, s.close())
	}
	stopMetrics := s.serveMetrics(shown)
	s.reloading.Lock()
	for _, d := range s.doors() {
		s.open(d)
	}
	s.serving = true
	s.reloading.Unlock()
	notify := func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			s.log.Warn("systemd was not told", "state", state, "err", err)
		}
	}
	notify(daemon.SdNotifyReady)
	if ready != nil {
		ready(s)
	}
	select {
	case <-ctx.Done():
		s.log.Info("stopping", "cause", context.Cause(ctx).Error())
	case err = <-s.failed:
		s.log.Error("stopping", "err", err)
	}
	notify(daemon.SdNotifyStopping)
	s.reloading.Lock() // one that is under way ends; another is refused
	s.serving = false
	close(s.stopping)
	s.reloading.Unlock()
	err = errors.Join(err, s.drain())
	stopMetrics()
	return errors.Join(err, s.close())
}

// close closes what was opened, the last first.
func (s *Server) close() error {
	var errs []error
	for _, d := range s.doors() {
		d.ln.Close() // usually closed by its engine
	}
	if s.metricsAt != nil {
		s.metricsAt.Close() // usually closed by its server
	}
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}
