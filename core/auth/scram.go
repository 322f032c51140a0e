package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"strings"

	"github.com/xdg-go/scram"
)

// maxSCRAM is the longest message of a SCRAM client in octets. With our part
// of the nonce and the salt, the answer then fits any client's line.
const maxSCRAM = 2048

// scramServer speaks SCRAM-SHA-256 (RFC 5802, RFC 7677), with -PLUS or without.
// It gives the messages to the library and adds what that leaves to its user:
// several types of channel binding, users who do not exist, the throttle, and
// errors that quote nothing.
type scramServer struct {
	exchange  *Exchange
	bound     bool // the mechanism is -PLUS
	couldBind bool // -PLUS was offered
	talk      *scram.ServerConversation
	turn      int // of the client's messages
	user      Record
}

// next takes the client's next message: nothing yet, client-first-message,
// client-final-message, and the empty response to the server's last message,
// which SMTP, IMAP and POP3 cannot carry in the reply that says yes (RFC 4954
// §4, RFC 5034 §4).
func (s *scramServer) next(ctx context.Context, response []byte) (challenge []byte, done bool, err error) {
	if s.turn == 0 && response == nil {
		return []byte{}, false, nil
	}
	if len(response) > maxSCRAM {
		return nil, true, fmt.Errorf("%w: longer than %d octets", ErrMalformed, maxSCRAM)
	}
	s.turn++
	switch s.turn {
	case 1:
		challenge, err = s.first(ctx, string(response))
		return challenge, false, err
	case 2:
		challenge, err = s.final(ctx, string(response))
		return challenge, false, err
	}
	if len(response) > 0 {
		return nil, true, fmt.Errorf("%w: something after the last message", ErrMalformed)
	}
	s.exchange.who = Identity{User: s.user.User}
	return nil, true, nil
}

// first takes client-first-message. All that is wrong with it is wrong whoever
// the user is.
func (s *scramServer) first(ctx context.Context, message string) ([]byte, error) {
	e := s.exchange
	binding, err := s.binding(message)
	if err != nil {
		return nil, err
	}
	var lookup error
	server, err := scram.SHA256.NewServer(func(name string) (scram.StoredCredentials, error) {
		e.user = name
		var keys scramKeys
		keys, lookup = s.keys(ctx, name)
		return scram.StoredCredentials{
			KeyFactors: scram.KeyFactors{Salt: string(keys.salt), Iters: keys.rounds},
			StoredKey:  keys.stored,
			ServerKey:  keys.server,
		}, lookup
	})
	if err != nil {
		return nil, fmt.Errorf("%w: begin scram: %w", ErrTemporary, err)
	}
	switch {
	case s.bound:
		s.talk = server.NewConversationWithChannelBindingRequired(binding)
	case s.couldBind: // a client that has not seen our -PLUS was deceived by somebody
		s.talk = server.NewConversationWithChannelBinding(binding)
	default:
		s.talk = server.NewConversation()
	}
	challenge, err := s.talk.Step(message)
	switch {
	case lookup != nil:
		return nil, lookup
	case err != nil && challenge != "" && !strings.Contains(challenge, "encoding"):
		return nil, fmt.Errorf("%w: %s", ErrCredentials, strings.TrimPrefix(challenge, "e="))
	case err != nil:
		return nil, fmt.Errorf("%w: client-first-message", ErrMalformed)
	}
	e.authzid = s.talk.AuthzID()
	return []byte(challenge), e.mayAct()
}

// binding finds the channel binding that message asks for. A wish of -PLUS and
// its name must come together (RFC 5802 §6): the library would take one without
// the other.
func (s *scramServer) binding(message string) (scram.ChannelBinding, error) {
	flag, rest, ok := strings.Cut(message, ",")
	if !ok || strings.Contains(rest, ",r=,") || strings.HasSuffix(rest, ",r=") {
		return scram.ChannelBinding{}, fmt.Errorf("%w: client-first-message", ErrMalformed)
	}
	channel := s.exchange.peer.Channel
	kind, asked := strings.CutPrefix(flag, "p=")
	switch {
	case asked && !s.bound:
		return scram.ChannelBinding{}, fmt.Errorf("%w: channel binding without -PLUS", ErrCredentials)
	case asked && len(channel.of(kind)) == 0:
		return scram.ChannelBinding{}, fmt.Errorf("%w: no such channel binding here", ErrCredentials)
	case asked:
		return scram.ChannelBinding{Type: scram.ChannelBindingType(kind), Data: channel.of(kind)}, nil
	}
	// Not asked for: any will do to tell the library that we have one.
	return scram.ChannelBinding{Type: scram.ChannelBindingTLSExporter, Data: []byte{1}}, nil
}

// keys finds name's keys. Who has none, for whatever reason, gets the decoys. They
// are computed in any case, and so are keys for a password in the clear, so that
// it takes as long whoever name is.
func (s *scramServer) keys(ctx context.Context, name string) (scramKeys, error) {
	service := s.exchange.service
	decoy := service.decoyKeys(name)
	if name == "" {
		return decoy, fmt.Errorf("%w: empty user name", ErrMalformed)
	}
	rec, err := service.users.Lookup(name)
	if err != nil && !errors.Is(err, ErrNoUser) {
		return decoy, fmt.Errorf("%w: look up user: %w", ErrTemporary, err)
	}
	var h stored = locked{}
	if err == nil && !isLocked(rec.Hash) {
		if h, err = parseHash(rec.Hash); err != nil {
			service.log.Warn("password check not possible", "user", rec.User, "err", err)
			return decoy, fmt.Errorf("%w: check password: %w", ErrTemporary, err)
		}
	}
	password, clear := h.(plain)
	made, err := service.makeKeys(ctx, string(password), service.plainSalt(name))
	if err != nil {
		return decoy, fmt.Errorf("%w: make keys: %w", ErrTemporary, err)
	}
	keys, ok := h.(scramKeys)
	switch {
	case clear:
		keys = made
	case !ok:
		return decoy, nil
	}
	s.user = rec
	return keys, nil
}

// makeKeys computes keys for a password in one of the bounded slots, with the
// fewest rounds that clients take.
func (s *Service) makeKeys(ctx context.Context, password string, salt []byte) (scramKeys, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return scramKeys{}, ctx.Err()
	}
	defer func() { <-s.slots }()
	return deriveSCRAM(prepared(password), salt, minSCRAMRounds)
}

// final takes client-final-message and checks its proof, after the delay that
// Login would have waited.
func (s *scramServer) final(ctx context.Context, message string) ([]byte, error) {
	e := s.exchange
	var once digest // no two proofs are the same
	copy(once[:], random(len(once)))
	name := canonicalName(e.user)
	attempt := e.service.throttle.begin(e.peer.Addr, name, once)
	if err := attempt.wait(ctx); err != nil {
		if errors.Is(err, ErrThrottled) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrTemporary, err)
	}
	challenge, err := s.talk.Step(message)
	if err != nil && challenge == "" {
		return nil, fmt.Errorf("%w: client-final-message", ErrMalformed)
	}
	if err != nil || s.user.User == "" || !s.user.permits(e.peer) {
		if attempt.failed() {
			e.service.log.Warn("logins are being guessed", "client", e.peer.Addr, "user", name, "protocol", e.peer.Protocol)
		}
		return nil, ErrCredentials
	}
	attempt.succeeded()
	return []byte(challenge), nil
}

// plainSalt is the salt of keys that are made of a password in the clear.
func (s *Service) plainSalt(user string) []byte {
	name, _, _ := s.keyShape(user)
	return s.part("salt", name)[:newSCRAMSalt]
}

// decoyKeys are keys for a name that has none: its salt is the same each time,
// and nobody can compute it or knows a password for it.
func (s *Service) decoyKeys(user string) scramKeys {
	name, rounds, salt := s.keyShape(user)
	return scramKeys{
		rounds: rounds,
		salt:   s.part("salt", name)[:min(salt, sha512.Size)],
		stored: s.part("stored", name)[:sha256.Size],
		server: s.part("server", name)[:sha256.Size],
	}
}

func (s *Service) keyShape(user string) (name string, rounds, salt int) {
	if d, ok := s.users.(KeyDecoyer); ok {
		return d.DecoyKeys(user)
	}
	return canonicalName(user), newSCRAMRounds, newSCRAMSalt
}

// part is 64 octets that only this service can compute.
func (s *Service) part(what, name string) []byte {
	h := hmac.New(sha512.New, s.secret)
	h.Write([]byte(what + "\x00" + name))
	return h.Sum(nil)
}
