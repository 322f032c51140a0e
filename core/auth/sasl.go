package auth

import (
	"context"
	"fmt"
	"strings"

	"github.com/emersion/go-sasl"
)

// MaxResponse is the longest decoded SASL response in octets. A line of AUTH
// has at most 12288 octets of base64 (RFC 4954 §4.3).
const MaxResponse = 12288 / 4 * 3

// Exchange is the server's side of one SASL exchange (RFC 4422 §3). It belongs
// to one goroutine and one attempt.
type Exchange struct {
	service  *Service
	peer     Peer
	server   sasl.Server
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
	switch strings.ToUpper(mechanism) {
	case sasl.Plain:
		e.server = sasl.NewPlainServer(func(authzid, user, password string) error {
			e.authzid, e.user, e.password = authzid, user, password
			return nil // Next checks, with its context
		})
	case sasl.Login:
		e.server = &loginServer{exchange: e}
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
	// Nobody may act as somebody else (RFC 4616 §2).
	if e.authzid != "" && canonicalName(e.authzid) != canonicalName(e.user) {
		return nil, true, fmt.Errorf("%w: acting as another user is not allowed", ErrCredentials)
	}
	e.who, err = e.service.Login(ctx, e.user, password, e.peer)
	return nil, true, err
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
