package core

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/mtasts"
	"github.com/wafermail/wafer/core/queue"
	"github.com/wafermail/wafer/core/relay"
	"github.com/wafermail/wafer/core/srs"
)

// Names of transports that are always there, besides relay.SMTP and failing.
const (
	local    = "local"   // into mailboxes; the hop is the folder
	dropping = "discard" // nowhere
)

// openQueue makes the way out: relay, transports, queue.
func (s *Server) openQueue(ctx context.Context) error {
	c := s.config
	var err error
	if s.srs, err = openSRS(c); err != nil {
		return err
	}
	if s.relay, err = s.openRelay(); err != nil {
		return err
	}
	s.opened(s.relay.Close)
	ways := map[string]queue.Transport{
		relay.SMTP: s.relay, failing: failTransport{}, local: &localTransport{s}, dropping: discardTransport{},
	}
	most := map[string]int{relay.SMTP: c.Sending.Relay.Limits.Deliveries}
	for _, t := range c.Sending.Transports {
		most[t.Name] = t.Limits.Deliveries
		switch t.Protocol {
		case "discard":
			ways[t.Name] = discardTransport{}
		case "hold": // route sees to it
		default:
			ways[t.Name] = s.relay
		}
	}
	q := c.Sending.Queue
	delay := q.DelayNotice
	if delay == 0 {
		delay = -1
	}
	s.queue, err = queue.Open(ctx, queue.Config{
		Dir: filepath.Join(c.State, "queue"), Hostname: c.Hostname, Barrier: s.barrier, Transports: ways, Most: most,
		Queued: s.queued, Route: s.routed, Limits: s.routeLimits,
		Schedule: queue.Schedule{Min: q.RetryMin, Max: q.RetryMax, Lifetime: q.Lifetime, BounceLifetime: q.BounceLifetime, Delay: delay},
		Notices:  queue.Notices{Postmaster: s.postmaster(), Excerpt: q.BounceExcerpt, Review: s.review}, Concurrent: q.Deliveries, Logger: s.log,
	})
	if err != nil {
		return fmt.Errorf("open the queue: %w", err)
	}
	s.opened(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), c.Limits.ShutdownPatience)
		defer cancel()
		return s.queue.Close(ctx)
	})
	return nil
}

// postmaster is who hears of notices that cannot be delivered.
func (s *Server) postmaster() mail.Path {
	to := s.config.Sending.Queue.DoubleBounces
	if to == "" {
		return mail.Path{}
	}
	if !strings.Contains(to, "@") {
		to += "@" + s.config.Domains[0].Name
	}
	p, err := mail.ParsePath(to, true)
	if err != nil { // the configuration was checked
		return mail.Path{}
	}
	return p
}

// openSRS makes the rewriter of forwarded senders, with a secret of its own if the
// configuration has none.
func openSRS(c *config.Config) (*srs.Rewriter, error) {
	if !c.Sending.SRS.On {
		return nil, nil
	}
	secret := []byte(c.Sending.SRS.Secret)
	if len(secret) == 0 {
		var err error
		if secret, err = ownSecret(filepath.Join(c.State, "srs.secret")); err != nil {
			return nil, err
		}
	}
	return srs.New([][]byte{secret}, mail.DomainKey(c.Sending.SRS.Domain), srs.Options{})
}

// ownSecret is one that the server has made for itself, and keeps.
func ownSecret(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		b = []byte(rand.Text() + rand.Text())
		err = os.WriteFile(name, b, 0o600)
	}
	if err == nil && len(b) < 16 {
		err = fmt.Errorf("%s is damaged: remove it, and another is made", name)
	}
	return b, err
}

// openRelay makes the SMTP client.
func (s *Server) openRelay() (*relay.Client, error) {
	c := s.config.Sending.Relay
	o := relay.Config{
		Hostname: s.config.Hostname, Resolver: s.dns, Port: uint16(c.Port), Source: c.Source, TLS: s.tlsPolicy, Self: s.self, Logger: s.log,
		Downgrade:  sevenBit(s.config.State),
		Transports: map[string]relay.Transport{},
		Timeouts:   relay.Timeouts{Connect: c.Timeout.Connect, Greeting: c.Timeout.Command, Command: c.Timeout.Command, Final: c.Timeout.Data},
	}
	if s.dns == nil {
		return nil, errors.New("no DNS: mail for other hosts needs name servers; write resolvers = [\"127.0.0.1\"]")
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		o.Roots = x509.NewCertPool()
		if !o.Roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: ca %s has no certificate", c.Where, c.CAFile)
		}
	}
	if c.MTASTS {
		cache, err := mtasts.Open(mtasts.Options{Dir: filepath.Join(s.config.State, "mta-sts"), Resolver: s.dns, Logger: s.log})
		if err != nil {
			return nil, fmt.Errorf("open the MTA-STS cache: %w", err)
		}
		s.opened(cache.Close)
		o.STS = cache
	}
	for _, t := range s.config.Sending.Transports {
		if t.Protocol != "smtp" && t.Protocol != "lmtp" {
			continue
		}
		level, err := relay.ParseLevel(t.TLS)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Where, err)
		}
		o.Transports[t.Name] = relay.Transport{
			LMTP: t.Protocol == "lmtp", Host: t.Host, Username: t.Username, Password: t.Password,
			TLS: relay.TLSPolicy{Level: level, Fixed: level != 0}, Implicit: t.Implicit, Source: t.Source,
		}
	}
	return relay.New(o)
}

// self reports whether one of our own doors listens at an address.
func (s *Server) self(at netip.AddrPort) bool {
	for _, d := range s.doors() {
		a, ok := d.ln.Addr().(*net.TCPAddr)
		if !ok || a.AddrPort().Port() != at.Port() {
			continue
		}
		if own := a.AddrPort().Addr().Unmap(); own == at.Addr() {
			return true
		} else if !own.IsUnspecified() {
			continue
		}
		if at.Addr().IsLoopback() || isLocal(at.Addr()) {
			return true
		}
	}
	return false
}

// isLocal reports whether an address is one of this machine's.
func isLocal(addr netip.Addr) bool {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == addr {
			return true
		}
	}
	return false
}

// destination finds what is special about a domain.
func (s *Server) destination(domain string) *config.Destination {
	all := s.conf().Sending.Destinations
	i := match(domain, len(all), func(i int) string { return all[i].Domain })
	if i < 0 {
		return nil
	}
	return &all[i]
}

// match finds the pattern that fits a domain best: itself, then "*." above it, the
// longest first, then "*". It is -1 if none does.
func match(domain string, n int, pattern func(int) string) int {
	best, length := -1, -1
	for i := range n {
		p := pattern(i)
		under, wild := strings.CutPrefix(p, "*.")
		fits, l := false, 0
		switch key := mail.DomainKey(under); {
		case p == "*":
			fits = true
		case wild:
			fits, l = strings.HasSuffix(domain, "."+key), len(key)
		default:
			fits, l = domain == key, 1000
		}
		if fits && l > length {
			best, length = i, l
		}
	}
	return best
}

// tlsPolicy is what a destination is asked for (see relay.Config).
func (s *Server) tlsPolicy(domain string) relay.TLSPolicy {
	text, names := s.conf().Sending.Relay.TLS, []string(nil)
	fixed := false
	if d := s.destination(domain); d != nil && d.TLS != "" {
		text, names, fixed = d.TLS, d.Names, true
	}
	level, err := relay.ParseLevel(text)
	if err != nil { // the configuration was checked
		level = relay.Encrypt
	}
	return relay.TLSPolicy{Level: level, Names: names, Fixed: fixed}
}

// route is where a recipient's mail goes, as the configuration says.
func (s *Server) route(r *queue.Recipient) mail.Route {
	domain := mail.DomainKey(r.To.Domain())
	if s.current.Load().domains.byName[domain] != nil {
		return mail.Route{Transport: local}
	}
	ways := s.conf().Sending.Routes
	i := match(domain, len(ways), func(i int) string { return ways[i].Domain })
	if i < 0 {
		return mail.Route{Transport: relay.SMTP, Hop: domain}
	}
	w := mail.Route{Transport: ways[i].Transport, Hop: ways[i].Host}
	for _, t := range s.config.Sending.Transports {
		if t.Name != w.Transport {
			continue
		}
		if t.Protocol == "hold" {
			return mail.Route{Transport: queue.Held, Hop: "held by the route " + ways[i].Domain}
		}
		if w.Hop == "" {
			w.Hop = t.Host
		}
	}
	if w.Hop == "" {
		w.Hop = domain
	}
	return w
}

// routeLimits are the limits of a route (see queue.Config).
func (s *Server) routeLimits(r mail.Route) queue.Limits {
	l := s.conf().Sending.Relay.Limits
	for _, t := range s.conf().Sending.Transports {
		if t.Name == r.Transport {
			l = t.Limits
		}
	}
	if d := s.destination(r.Hop); d != nil {
		or := func(n *int, v int) {
			if v > 0 {
				*n = v
			}
		}
		or(&l.Concurrency, d.Limits.Concurrency)
		or(&l.Start, d.Limits.Start)
		or(&l.Recipients, d.Limits.Recipients)
		if d.Limits.Interval > 0 {
			l.Interval = d.Limits.Interval
		}
	}
	if n := s.limits.of(r); n > 0 {
		l.Concurrency = n
	}
	return queue.Limits{Start: l.Start, Concurrent: l.Concurrency, Recipients: l.Recipients, Interval: l.Interval}
}

// localTransport brings queued messages into mailboxes.
type localTransport struct{ s *Server }

// Deliver implements queue.Transport. The route's hop is the folder.
func (t *localTransport) Deliver(ctx context.Context, d *mail.Delivery) mail.Report {
	r := mail.Report{Outcomes: make([]mail.Outcome, len(d.Envelope.Rcpts))}
	var legs []leg
	var whose [][]int // recipients by leg
	place := map[string]int{}
	for i := range d.Envelope.Rcpts {
		to := d.Envelope.Rcpts[i].To
		e, err := t.s.current.Load().domains.resolve(to)
		switch {
		case errors.Is(err, errNoMailbox), errors.Is(err, errNotOurs), err == nil && len(e.boxes) == 0:
			r.Outcomes[i].Status = mail.Status{Code: 550, Enhanced: "5.1.1", Text: "<" + to.String() + ">: there is no such mailbox any more"}
			continue
		case err != nil:
			r.Outcomes[i].Status = mail.Status{Code: 451, Enhanced: "4.3.0", Text: "<" + to.String() + ">: " + err.Error()}
			continue
		}
		for k := range e.boxes {
			at, ok := place[e.boxes[k].dir]
			if !ok {
				at = len(legs)
				place[e.boxes[k].dir] = at
				legs, whose = append(legs, leg{box: &e.boxes[k], folder: d.Route.Hop}), append(whose, nil)
			}
			whose[at] = append(whose[at], i)
		}
	}
	if len(legs) == 0 {
		return r
	}
	st := t.deliver(ctx, d, legs)
	for _, list := range whose {
		for _, i := range list {
			r.Outcomes[i].Status = st
		}
	}
	return r
}

func (t *localTransport) deliver(ctx context.Context, d *mail.Delivery, legs []leg) mail.Status {
	failed := func(err error) mail.Status {
		t.s.log.Error("delivery failed", "id", d.Envelope.ID, "err", err)
		return notStored(err)
	}
	targets := mailboxTargets(d.Envelope, legs)
	for _, target := range targets {
		if err := t.s.deliver.Ensure(target); err != nil {
			return failed(err)
		}
	}
	draft, err := t.s.deliver.Begin(targets)
	if err != nil {
		return failed(err)
	}
	defer draft.Close()
	if _, err := io.Copy(draft, io.NewSectionReader(d.Body, 0, d.Size)); err != nil {
		return failed(err)
	}
	if err := draft.Deliver(ctx, targets, d.Head); err != nil {
		return failed(err)
	}
	return mail.Status{Code: 250, Enhanced: "2.0.0", Text: "delivered"}
}

// failTransport tells every recipient what the route's hop says.
type failTransport struct{}

// Deliver implements queue.Transport.
func (failTransport) Deliver(_ context.Context, d *mail.Delivery) mail.Report {
	return same(d, parseStatus(d.Route.Hop))
}

// discardTransport takes everything and keeps nothing.
type discardTransport struct{}

// Deliver implements queue.Transport.
func (discardTransport) Deliver(_ context.Context, d *mail.Delivery) mail.Report {
	return same(d, mail.Status{Code: 250, Enhanced: "2.0.0", Text: "discarded"})
}

func same(d *mail.Delivery, st mail.Status) mail.Report {
	r := mail.Report{Outcomes: make([]mail.Outcome, len(d.Envelope.Rcpts))}
	for i := range r.Outcomes {
		r.Outcomes[i].Status = st
	}
	return r
}
