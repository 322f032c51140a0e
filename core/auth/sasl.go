package auth

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"
)

// MaxResponse is the longest decoded SASL response in octets. A line of AUTH
// has at most 12288 octets of base64 (RFC 4954 §4.3).
const MaxResponse = 12288 / 4 * 3

// The mechanisms that go-sasl has no names for.
const (
	scramName     = "SCRAM-SHA-256"
	scramPlusName = "SCRAM-SHA-256-PLUS"
)

// Mechanisms are all SASL mechanisms that there are, the best one first.
func Mechanisms() []string { return []string{scramPlusName, scramName, sasl.Plain, sasl.Login} }

// Mechanisms returns the SASL mechanisms that Start knows for p, the best one
// first. Only a connection that can be bound to has SCRAM-SHA-256-PLUS, and there
// is no SCRAM where nobody has keys for it.
func (s *Service) Mechanisms(p Peer) []string {
	d, ok := s.users.(KeyDecoyer)
	keys := !ok || d.HasKeys()
	if keys && p.Channel.Bindable() {
		return s.offers
	}
	return slices.DeleteFunc(slices.Clone(s.offers), func(m string) bool {
		return m == scramPlusName || m == scramName && !keys
	})
}

// Exchange is the server's side of one SASL exchange (RFC 4422 §3). It belongs
// to one goroutine and one attempt.
type Exchange struct {
	service  *Service
	peer     Peer
	server   sasl.Server
	scram    *scramServer // in place of server
	authzid  string
	user     string
	password string
	who      Identity
	over     bool
}

// Start begins an exchange. The mechanism's name is compared without case.
// Error: ErrMechanism.
func (s *Service) Start(mechanism string, p Peer) (*Exchange, error) {
	e := &Exchange{service: s, peer: p}
	mechanism = strings.ToUpper(mechanism)
	offers := s.Mechanisms(p)
	if !slices.Contains(offers, mechanism) {
		return nil, ErrMechanism
	}
	switch mechanism {
	case sasl.Plain:
		e.server = sasl.NewPlainServer(func(authzid, user, password string) error {
			e.authzid, e.user, e.password = authzid, user, password
			return nil // Next checks, with its context
		})
	case sasl.Login:
		e.server = &loginServer{exchange: e}
	case scramName, scramPlusName:
		e.scram = &scramServer{exchange: e, bound: mechanism == scramPlusName, couldBind: slices.Contains(offers, scramPlusName)}
	default:
		return nil, ErrMechanism
	}
	return e, nil
}

// Next takes the client's response, decoded from base64, and returns the next
// challenge, or done. A nil response says that there was no initial response;
// an empty one is empty, not nil. When done is true or err is not nil the
// exchange is over. Errors: those of Login, and ErrMalformed.
func (e *Exchange) Next(ctx context.Context, response []byte) (challenge []byte, done bool, err error) {
	if e.over {
		return nil, true, fmt.Errorf("%w: the exchange is over", ErrMalformed)
	}
	if len(response) > MaxResponse {
		e.over = true
		return nil, true, fmt.Errorf("%w: longer than %d octets", ErrMalformed, MaxResponse)
	}
	if e.scram != nil {
		challenge, done, err = e.scram.next(ctx, response)
		e.over = done || err != nil
		return challenge, e.over, err
	}
	challenge, done, err = e.server.Next(response)
	if err != nil {
		e.over = true
		return nil, true, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !done {
		return challenge, false, nil
	}
	e.over = true
	password := e.password
	e.password = ""
	if e.user == "" || password == "" {
		return nil, true, fmt.Errorf("%w: empty user name or password", ErrMalformed)
	}
	if err := e.mayAct(); err != nil {
		return nil, true, err
	}
	e.who, err = e.service.Login(ctx, e.user, password, e.peer)
	return nil, true, err
}

// mayAct refuses whoever wants to act as somebody else (RFC 4616 §2).
func (e *Exchange) mayAct() error {
	if e.authzid != "" && canonicalName(e.authzid) != canonicalName(e.user) {
		return fmt.Errorf("%w: acting as another user is not allowed", ErrCredentials)
	}
	return nil
}

// Identity says who was authenticated; it is empty unless Next returned done
// without an error.
func (e *Exchange) Identity() Identity { return e.who }

// User is the name that the client gave, also after a failure. It may hold
// anything that a client can send; quote it in logs.
func (e *Exchange) User() string { return e.user }

// loginServer speaks LOGIN (draft-murchison-sasl-login), which has no
// standard and which old clients insist on. The name may come with AUTH.
type loginServer struct {
	exchange *Exchange
	asked    bool // for the name
	named    bool
}

// Next implements sasl.Server.
func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case !l.asked && response == nil:
		l.asked = true
		return []byte("Username:"), false, nil
	case !l.named:
		l.asked, l.named = true, true
		l.exchange.user = string(response)
		return []byte("Password:"), false, nil
	}
	l.exchange.password = string(response)
	return nil, true, nil
}
