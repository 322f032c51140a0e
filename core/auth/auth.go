// Package auth says who somebody is: it holds users and their password hashes,
// speaks the server's side of SASL, and slows down those who guess.
//
// A Service answers every door. Login checks a name and a password; Start opens
// a SASL exchange: PLAIN (RFC 4616) and LOGIN, which end in the same check, and
// SCRAM-SHA-256 (RFC 5802, RFC 7677), in which the password stays at home. Over
// TLS there is SCRAM-SHA-256-PLUS too, which is bound to the connection.
// Users come from anything that looks a name up: a File in Dovecot's
// passwd-file syntax, or Domains, which holds one File for each mail domain.
//
// What it guarantees: a name that does not exist takes the same time as a wrong
// password, because a decoy of the same cost is hashed for it. The number of
// concurrent hashings and the cost of each are bounded, so that neither many
// logins nor a strange users file exhaust the machine. Clients that open many
// connections cost one hashing, because a success is remembered for some
// minutes under a keyed digest; the password itself is never kept. Passwords
// and SASL responses never reach an error or a log. To SCRAM every name has a
// salt: those who do not exist, or have no keys, have one that is always the
// same, and fail at the end like a wrong password.
//
// # BUGS
//
// SCRAM needs keys, which {SCRAM-SHA-256} hashes have and {PLAIN} passwords give:
// a client that insists on SCRAM does not get in with a bcrypt hash once somebody
// else has keys; Config.Mechanisms can leave SCRAM out. SASLprep (RFC 4013) is
// applied to passwords with SCRAM hashes, to others nothing, as in Dovecot, so
// there two ways of typing "é" are two passwords. A program that tries one old
// password again and again by SCRAM is counted each time, since its responses
// are never the same. On a resumed TLS connection, -PLUS can be bound by
// tls-exporter only. SCRAM tells everybody the rounds of a user's keys: where a
// file has several numbers, the rare ones belong to users who exist. Of a passwd-file's extra fields only nologin and allow_nets
// are obeyed; fields that would weaken a login are refused. The time of a login
// shows which hash a users file uses most, and a file that mixes schemes lets
// an observer tell users with a rare scheme from unknown ones.
package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"time"
)

// The outcomes of a login that is not a success. Wrapped errors say more, but
// never more than a peer may know unless it is ErrTemporary.
var (
	ErrCredentials = errors.New("unknown user or wrong password")
	ErrTemporary   = errors.New("authentication is not possible at the moment")
	ErrThrottled   = errors.New("too many failed logins, try again later")
	ErrMechanism   = errors.New("unknown authentication mechanism")
	ErrMalformed   = errors.New("malformed authentication response")
	ErrNoUser      = errors.New("no such user")
)

// Peer is who wants to log in, and over what.
type Peer struct {
	Addr     netip.Addr
	Protocol string // "smtp", "imap", "pop3"
	TLS      bool
	Channel  Channel // see ChannelOf
}

// Identity is who somebody turned out to be.
type Identity struct {
	User string // canonical: "local@domain" in lower case, the domain in A-labels
}

// Users looks users up. Name is what the client sent. Implementations return
// ErrNoUser, or another error if they cannot tell, which becomes ErrTemporary.
type Users interface {
	Lookup(user string) (Record, error)
}

// Decoyer is implemented by Users that know what their hashes cost. Decoy
// returns a hash that no password matches and that costs what most hashes of
// user's domain cost.
type Decoyer interface {
	Decoy(user string) string
}

// KeyDecoyer is implemented by Users that know the SCRAM keys of their users.
type KeyDecoyer interface {
	// DecoyKeys says what most keys look like where user would be: his canonical
	// name, though he need not exist, the rounds, and the octets of the salt.
	DecoyKeys(user string) (name string, rounds, salt int)
	// HasKeys reports whether anybody can use SCRAM. Where nobody can, it is not
	// offered, since clients that prefer it could not log in at all.
	HasKeys() bool
}

// Config is what a Service is made of.
type Config struct {
	Users         Users
	Throttle      *Throttle        // nil: a new one with the defaults
	Now           func() time.Time // nil: time.Now
	Logger        *slog.Logger     // nil: no log
	MaxConcurrent int              // hashings at once, 0: one for each processor
	// Mechanisms are offered, the best one first. nil: all, see Mechanisms.
	Mechanisms []string
	// Secret is what the salts of users who do not exist are made of. With the
	// same one after a restart, a restart does not tell them from others. nil: a
	// new one.
	Secret []byte
}

// Service checks logins. It is safe for concurrent use.
type Service struct {
	users    Users
	throttle *Throttle
	log      *slog.Logger
	slots    chan struct{}
	recent   *recent
	decoy    string // for Users that have none
	offers   []string
	secret   []byte
}

// NewService returns a Service. Its throttle and memory of recent successes
// live as long as it does; see With for a reload.
func NewService(c Config) *Service {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Throttle == nil {
		c.Throttle = NewThrottle(ThrottleOptions{Now: c.Now})
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MaxConcurrent <= 0 {
		c.MaxConcurrent = runtime.GOMAXPROCS(0)
	}
	if c.Mechanisms == nil {
		c.Mechanisms = Mechanisms()
	}
	if len(c.Secret) == 0 {
		c.Secret = random(32)
	}
	return &Service{
		users:    c.Users,
		throttle: c.Throttle,
		log:      c.Logger,
		slots:    make(chan struct{}, c.MaxConcurrent),
		recent:   newRecent(c.Now),
		decoy:    newDecoy(),
		offers:   c.Mechanisms,
		secret:   c.Secret,
	}
}

// With returns a Service over other users that shares everything else with s:
// counters, recent successes and the limit on hashings. A reload uses it, so
// that nobody who guesses gets a fresh start.
func (s *Service) With(users Users) *Service {
	t := *s
	t.users = users
	return &t
}

// Login checks user's password. First it waits the delay that earlier failures
// of this peer and this user have earned, up to 15 seconds, or until ctx ends.
// Errors: ErrCredentials, ErrThrottled (at once, without a look at the
// password), ErrTemporary (users cannot be read, ctx ended).
func (s *Service) Login(ctx context.Context, user, password string, p Peer) (Identity, error) {
	name := canonicalName(user)
	attempt := s.throttle.begin(p.Addr, name, s.recent.mac("attempt", name, password))
	if err := attempt.wait(ctx); err != nil {
		if errors.Is(err, ErrThrottled) {
			return Identity{}, err
		}
		return Identity{}, fmt.Errorf("%w: %w", ErrTemporary, err)
	}
	rec, err := s.lookup(user)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: look up user: %w", ErrTemporary, err)
	}
	ok, err := s.verify(ctx, rec, password)
	if err != nil {
		s.log.Warn("password check not possible", "user", rec.User, "err", err)
		return Identity{}, fmt.Errorf("%w: check password: %w", ErrTemporary, err)
	}
	if !ok || !rec.permits(p) {
		if attempt.failed() {
			s.log.Warn("logins are being guessed", "client", p.Addr, "user", name, "protocol", p.Protocol)
		}
		return Identity{}, ErrCredentials
	}
	attempt.succeeded()
	return Identity{User: rec.User}, nil
}

// lookup finds the record of user, or for a user who does not exist one that
// costs as much to verify and never matches.
func (s *Service) lookup(user string) (Record, error) {
	rec, err := s.users.Lookup(user)
	if err == nil && !isLocked(rec.Hash) {
		return rec, nil
	}
	if err != nil && !errors.Is(err, ErrNoUser) {
		return Record{}, err
	}
	rec = Record{Hash: s.decoy}
	if d, ok := s.users.(Decoyer); ok {
		rec.Hash = d.Decoy(user)
	}
	return rec, nil
}

// verify compares the password with the hash in one of the bounded slots.
func (s *Service) verify(ctx context.Context, rec Record, password string) (bool, error) {
	if checkPassword(password) != nil {
		return false, nil // says nothing about the user
	}
	key := s.recent.mac("success", rec.User, rec.Hash, password)
	if s.recent.has(key) {
		return true, nil
	}
	h, err := parseHash(rec.Hash)
	if err != nil {
		return false, err
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-s.slots }()
	if !h.match(password) || rec.User == "" {
		return false, nil
	}
	s.recent.add(key)
	return true, nil
}

// Record is one user.
type Record struct {
	User   string            // canonical name
	Hash   string            // with {SCHEME}; "", "!…" or "*" for a user who cannot log in
	UID    string            // as in the file, usually empty
	GID    string            //
	Home   string            //
	Fields map[string]string // extra fields by name
}

// permits reports whether the extra fields let p log in.
func (r Record) permits(p Peer) bool {
	if _, ok := r.Fields["nologin"]; ok {
		return false
	}
	nets, ok := r.Fields["allow_nets"]
	if !ok {
		return true
	}
	addr := p.Addr.Unmap()
	for _, s := range strings.Split(nets, ",") {
		if prefix, err := parseNet(s); err == nil && prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// parseNet reads one element of allow_nets: an address or a network.
func parseNet(s string) (netip.Prefix, error) {
	s = strings.TrimSpace(s)
	if strings.Contains(s, "/") {
		return netip.ParsePrefix(s)
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return a.Prefix(a.BitLen())
}
