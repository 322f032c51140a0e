// Package core is the server: it joins the parts that config.hcl names and runs
// them.
//
//	c, err := config.Load("config.hcl")
//	s, err := core.Open(ctx, c, core.Options{Logger: log})
//	err = s.Run(ctx) // until ctx ends; then sessions are drained
//
// Open binds every listener, reads the certificates, gives up the superuser's
// rights, opens the state and builds the generation; a failure at any step leaves nothing behind. Check
// builds only, and starts nothing. The four rules that no policy can switch off
// are in courier.go (no open relay, no mail for unknown recipients) and in the
// doors (no AUTH without TLS, size limits).
//
// # BUGS
//
// What lies on disk is opened once: state, sync, run_as, resolvers, metrics, log and
// how the queue works (Reload names the key) need a restart.
package core

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/decisions"
	"github.com/wafermail/wafer/core/dns"
	"github.com/wafermail/wafer/core/durable"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/queue"
	"github.com/wafermail/wafer/core/relay"
	"github.com/wafermail/wafer/core/replay"
	"github.com/wafermail/wafer/core/smtpd"
	"github.com/wafermail/wafer/core/srs"
	"github.com/wafermail/wafer/core/state"
	"github.com/wafermail/wafer/core/wasm"
)

// Options says how a Server runs, besides its configuration.
type Options struct {
	Logger   *slog.Logger // nil: no log
	Version  string       // for status
	Resolver dns.Resolver // nil: the resolver of this machine, behind a cache

	// Test runs the tests of a configuration's policies; an error keeps it from
	// being used by a reload. nil: there are none.
	Test func(context.Context, *config.Config) error
}

// Server is a running mail server.
type Server struct {
	config  *config.Config
	version string
	log     *slog.Logger
	started time.Time

	current  atomic.Pointer[generation]
	host     *wasm.Host
	dns      dns.Resolver // nil: no resolver on this machine
	auth     *auth.Service
	barrier  *durable.Barrier
	deliver  *maildir.Deliverer
	pool     *maildir.Pool
	relay    *relay.Client
	queue    *queue.Queue
	quotas   quotas
	srs      *srs.Rewriter // nil: senders of forwarded mail stay as they are
	limits   wishes        // of policies
	registry *smtpd.Registry
	admin    *admin.Server
	history  *history

	reloading sync.Mutex     // held while a generation is made and put in place
	serving   bool           // between the opening of the doors and the stop
	failed    chan error     // a door that cannot accept any more
	stopping  chan struct{}  // closed when the server stops
	retiring  sync.WaitGroup // of goroutines that wait for the sessions of earlier generations
	reloads   reloads
	test      func(context.Context, *config.Config) error // nil: policies have no tests

	metricsAt net.Listener      // nil: none
	set       policy.SetOptions // of every generation
	counters  *policy.Counters
	state     *state.Store     // nil: no check remembers anything
	decisions *decisions.Log   // nil: they are not recorded
	tape      *replay.Recorder // nil: nothing is recorded for a replay

	closers []func() error // in the order of opening
}

// Check builds everything that a server would need of c and starts nothing. It
// returns the error that would keep it from starting.
func Check(ctx context.Context, c *config.Config, o Options) error {
	host, err := toolHost(o.Logger)
	if err != nil {
		return err
	}
	certs, err := readCertificates(c)
	g, berr := build(ctx, c, world{host: host, certs: certs, log: o.Logger})
	if berr == nil {
		berr = g.close()
	}
	err = errors.Join(err, berr)
	if c.RunAs.User != "" {
		_, uerr := lookupAccount(c.RunAs.User, c.RunAs.Group)
		err = errors.Join(err, uerr)
	}
	return errors.Join(err, host.Close())
}

// Open makes a server of c. The caller must Run it.
func Open(ctx context.Context, c *config.Config, o Options) (s *Server, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s = &Server{
		config: c, version: o.Version, log: o.Logger, dns: o.Resolver, started: time.Now(), test: o.Test,
		failed: make(chan error, 1), stopping: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
			s = nil
		}
	}()
	who, drop, err := s.account()
	if err != nil {
		return s, err
	}
	sockets, err := s.bind()
	if err != nil {
		return s, err
	}
	defer sockets.close()
	certs, err := readCertificates(c)
	if err != nil {
		return s, err
	}
	if drop {
		if err := giveState(c.State, who); err != nil {
			return s, err
		}
		if err := who.become(); err != nil {
			return s, fmt.Errorf("run_as %s: %w", c.RunAs.User, err)
		}
		s.log.Info("gave up the superuser's rights", "user", c.RunAs.User, "uid", who.uid, "gid", who.gid)
	}
	if err := s.openState(ctx); err != nil {
		return s, err
	}
	g, err := s.first(ctx, certs)
	if err != nil {
		return s, err
	}
	if err := s.openQueue(ctx); err != nil {
		return s, err
	}
	if _, err = s.plan(g, sockets); err != nil {
		return s, err
	}
	s.takeUp(g)
	if err := s.history.keep(g); err != nil { // a full disk must not keep mail from being read
		s.log.Warn("this generation cannot be gone back to", "err", err)
	}
	return s, nil
}

// bind opens every socket that the configuration names, while the rights to do so are
// there.
func (s *Server) bind() (*listeners, error) {
	from, err := inherit()
	if err != nil {
		return nil, err
	}
	for _, l := range s.config.Listeners {
		for _, address := range l.Addresses {
			if err := from.bind(l.Name, address); err != nil {
				from.close()
				return nil, err
			}
		}
	}
	if err := s.listenMetrics(); err != nil {
		from.close()
		return nil, err
	}
	return from, nil
}

// account is who the server will be, and whether that means giving up rights.
func (s *Server) account() (who account, drop bool, err error) {
	c := s.config.RunAs
	if c.User == "" || c.User == "root" {
		if isRoot() && !c.AllowRoot {
			return who, false, errors.New(`the server should not serve as root: write run_as { user = "wafer" } for the account that owns the mail, or run_as { allow_root = true } if you must`)
		}
		return who, false, nil
	}
	if who, err = lookupAccount(c.User, c.Group); err != nil {
		return who, false, err
	}
	if !isRoot() {
		if os.Geteuid() == who.uid {
			return who, false, nil
		}
		return who, false, fmt.Errorf("run_as %s needs the superuser's rights at start, or start as %s", c.User, c.User)
	}
	return who, true, nil
}

// giveState makes the state directory and hands it to the account. Of a state
// that another account owns it hands over nothing: that may be a mistake.
func giveState(state string, who account) error {
	err := os.MkdirAll(filepath.Dir(state), 0o755)
	if err == nil {
		err = os.Mkdir(state, 0o700)
	}
	if err == nil {
		err = os.Chown(state, who.uid, who.gid)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make state directory: %w", err)
	}
	return nil
}

// opened remembers how to close what was opened.
func (s *Server) opened(close func() error) { s.closers = append(s.closers, close) }

// openState opens what lies on disk and what outlives generations.
func (s *Server) openState(ctx context.Context) error {
	c := s.config
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := s.lock(filepath.Join(c.State, "lock")); err != nil {
		return err
	}
	var err error
	if s.barrier, err = durable.NewBarrier(durable.SyncMode(c.Sync)); err != nil {
		return err
	}
	s.opened(s.barrier.Close)
	s.pool = maildir.NewPool(maildir.Options{Logger: s.log, Barrier: s.barrier, Hostname: c.Hostname, UID: -1, GID: -1, Watch: true, Owed: s.owes})
	s.opened(s.pool.Close)
	s.deliver, err = maildir.NewDeliverer(ctx, maildir.DelivererOptions{
		State: c.State, Hostname: c.Hostname, Barrier: s.barrier, UID: -1, GID: -1, Notify: s.pool.Delivered, Logger: s.log,
		Quota: s.quotaAt,
	})
	if err != nil {
		return fmt.Errorf("open the commit log: %w", err)
	}
	s.opened(s.deliver.Close)
	s.opened(s.startWarnings())
	if err := s.openDNS(); err != nil {
		s.log.Warn("no DNS: every lookup will fail for now", "err", err)
	}
	if s.host, err = wasm.New(wasm.Options{CacheDir: filepath.Join(c.State, "cache"), Logger: s.log}); err != nil {
		return err
	}
	s.opened(s.host.Close)
	s.registry = smtpd.NewRegistry(smtpd.RegistryOptions{
		PerClient: c.Limits.PerClient, Rate: c.Limits.Rate, Window: c.Limits.RatePer, Total: c.Limits.Connections,
	})
	return nil
}

// openDNS puts a cache before this machine's resolver, unless there is a resolver already.
func (s *Server) openDNS() error {
	if s.dns != nil {
		return nil
	}
	live, err := dns.NewLive(dns.LiveOptions{Servers: s.config.Resolvers, TrustAD: s.config.DNSSEC})
	if err != nil {
		return err
	}
	cache := dns.NewCache(live, dns.CacheOptions{})
	s.dns = cache
	s.opened(cache.Close)
	return nil
}

// owes reports whether a file is an accepted message that waits for a mailbox.
func (s *Server) owes(file string) bool { return s.deliver.Owes(file) }

// lock keeps a second server away from the same state.
func (s *Server) lock(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close() // nothing was written
		return fmt.Errorf("another wafer uses the state directory %s", filepath.Dir(name))
	}
	s.opened(f.Close)
	return nil
}

// first builds the first generation.
func (s *Server) first(ctx context.Context, certs *certificates) (*generation, error) {
	s.set = policy.SetOptions{Counters: policy.NewCounters(policy.CounterOptions{}), Logger: s.log}
	if s.dns != nil {
		s.set.Resolver = resolver{s.dns}
	}
	if err := s.remember(s.config); err != nil {
		return nil, err
	}
	if l := s.config.Log; l.Decisions {
		log, err := decisions.Open(DecisionsDir(s.config), decisions.Options{
			Mask: decisions.Mask(l.DecisionsMask), Keep: l.DecisionsKeep, Total: l.DecisionsSize, File: l.DecisionsSize / 16, Logger: s.log,
		})
		if err != nil {
			return nil, fmt.Errorf("open the decision log: %w", err)
		}
		s.opened(log.Close)
		s.set.Log, s.decisions = log, log
	}
	s.counters = s.set.Counters
	s.set.Shadow = policy.NewShadow()
	s.opened(s.set.Shadow.Close)
	if err := s.record(s.config); err != nil {
		return nil, err
	}
	var err error
	if s.history, err = openHistory(filepath.Join(s.config.State, "generations")); err != nil {
		return nil, err
	}
	set := s.set
	set.Generation = s.history.next
	g, err := build(ctx, s.config, world{host: s.host, set: set, certs: certs, log: s.log, files: s.config.Files})
	if err != nil {
		return nil, err
	}
	g.number, g.origin = set.Generation, "start"
	s.current.Store(g)
	s.opened(func() error { return s.current.Load().close() })
	secret, err := ownSecret(filepath.Join(s.config.State, "auth.secret"))
	if err != nil {
		return nil, err
	}
	s.auth = auth.NewService(auth.Config{Users: currentUsers{s}, Secret: secret, Logger: s.log})
	return g, nil
}

// record opens the tape, if c wants one.
func (s *Server) record(c *config.Config) error {
	if c.Tape == nil {
		return nil
	}
	o := replay.RecordOptions{Total: c.Tape.Size, Keep: c.Tape.Keep, Logger: s.log}
	if c.Tape.Key != "" {
		o.Secret = []byte(c.Tape.Key)
	}
	err := os.MkdirAll(DecisionsDir(c), 0o700) // where the key of masks is
	if err == nil {
		o.Mask, err = decisions.MaskAsked(DecisionsDir(c), decisions.Mask(c.Tape.Mask))
	}
	if err != nil {
		return fmt.Errorf("open the tape: %w", err)
	}
	if s.tape, err = replay.Record(TapeDir(c), o); err != nil {
		return err
	}
	s.opened(s.tape.Close)
	s.set.Tape, s.set.Bodies = s.tape, c.Tape.Bodies
	return nil
}

// TapeDir is the folder of the tape.
func TapeDir(c *config.Config) string { return filepath.Join(c.State, "tape") }

// remember opens the database if any check of c remembers things.
func (s *Server) remember(c *config.Config) error {
	if s.state != nil || !needsState(c) {
		return nil
	}
	st, err := state.Open(filepath.Join(s.config.State, "policy.db"), state.Options{Logger: s.log})
	if err != nil {
		return err
	}
	s.opened(st.Close)
	s.set.State, s.state = st, st
	return nil
}

// DecisionsDir is the folder of the decision log.
func DecisionsDir(c *config.Config) string { return filepath.Join(c.State, "decisions") }

// needsState reports whether any check remembers things, which is what the
// database is for.
func needsState(c *config.Config) bool {
	all := c.Policy
	for _, x := range []*config.Rollout{c.Rollout, c.Shadow} {
		if x != nil {
			all = append(slices.Clip(all), x.Policy...)
		}
	}
	for _, p := range all {
		for _, check := range p.Checks {
			if slices.Contains(check.Allow, "state") {
				return true
			}
		}
	}
	return false
}

// Resolver gives plugins the answers of r.
func Resolver(r dns.Resolver) policy.Resolver { return resolver{r} }

type resolver struct{ dns.Resolver }

func (r resolver) LookupDNS(ctx context.Context, q policy.Question) policy.Answer {
	return answer(r.Lookup(ctx, dns.Question(q)))
}

// KnownDNS answers from a cache (policy.KnownResolver).
func (r resolver) KnownDNS(q policy.Question) (policy.Answer, bool) {
	known, ok := r.Resolver.(interface {
		Known(dns.Question) (dns.Answer, bool)
	})
	if !ok {
		return policy.Answer{}, false
	}
	a, ok := known.Known(dns.Question(q))
	return answer(a), ok
}

func answer(a dns.Answer) policy.Answer {
	status := policy.DNSTemp
	switch a.Status {
	case dns.Found, dns.NoData:
		status = policy.DNSOK
	case dns.NXDomain:
		status = policy.DNSNotFound
	}
	return policy.Answer{Records: a.Records, Status: status}
}

// tls is the configuration of a listener, or nil if it has none.
func (s *Server) tls(c *config.Config, l config.Listener) *tls.Config {
	if c.TLS == nil || l.TLS == "none" {
		return nil
	}
	version := uint16(tls.VersionTLS12)
	if c.TLS.MinVersion == "1.3" {
		version = tls.VersionTLS13
	}
	return &tls.Config{MinVersion: version, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		certs := s.current.Load().certs
		if certs == nil { // of a session that is older than the generation
			return nil, errors.New("there is no certificate any more")
		}
		return certs.pick(h)
	}}
}

// mailbox opens the mail of a user who has logged in.
func (s *Server) mailbox(_ context.Context, user string) (*maildir.Store, error) {
	ds := s.current.Load().domains
	dir, err := ds.mailboxOf(user)
	if err != nil {
		return nil, err
	}
	store, err := s.pool.Open(dir)
	if err != nil {
		return nil, err
	}
	if q := s.quotaFor(ds, user, dir); q != nil {
		store.SetQuota(*q)
	}
	return store, nil
}

// trusted reports whether a client may relay without logging in.
func (g *generation) trusted(c mail.Client) bool {
	addr := c.Addr.Addr().Unmap()
	for _, n := range g.config.Trusted {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
