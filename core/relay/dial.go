package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// session is a connection that has been greeted.
type session struct {
	conn   net.Conn
	br     *bufio.Reader
	out    []byte // commands that were not sent yet
	remote string
	lmtp   bool
	caps   capabilities
	tls    *tls.ConnectionState // nil: plain text
	r      *Client

	born   time.Time
	used   int  // messages
	broken bool // not to be used again

	// of the transaction under way
	answered bool // MAIL was
	bodySent bool // the message may have arrived
}

// outcome is a reply, as said by this host.
func (s *session) outcome(st mail.Status) mail.Outcome {
	return mail.Outcome{Status: st, Remote: s.remote}
}

// lost is the end of a connection while doing something.
func (s *session) lost(err error, while string) *failure {
	s.broken = true
	what := "lost connection with"
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		what = "timeout with"
	case errors.Is(err, errReplyLong), errors.Is(err, errReplySyntax):
		return &failure{outcome: mail.Outcome{Status: mail.Status{Code: 451, Enhanced: "4.5.0", Text: fmt.Sprintf("protocol error with %s while %s: %v", s.remote, while, err)}}}
	}
	text := fmt.Sprintf("%s %s while %s", what, s.remote, while)
	if s.bodySent {
		text += " -- message may be sent more than once"
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
		text += ": " + err.Error()
	}
	return &failure{outcome: mail.Outcome{Status: mail.Status{Code: 451, Enhanced: "4.4.2", Text: text}}, stale: s.used > 0 && !s.answered && !s.bodySent}
}

// flush sends what is there and allows the peer d for the next reply.
func (s *session) flush(d time.Duration) error {
	if err := s.conn.SetDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	if len(s.out) == 0 {
		return nil
	}
	_, err := s.conn.Write(s.out)
	s.out = s.out[:0]
	return err
}

// command adds a line to what is sent next.
func (s *session) command(parts ...string) {
	for _, p := range parts {
		s.out = append(s.out, p...)
	}
	s.out = append(s.out, '\r', '\n')
}

// ask sends a command and reads its reply.
func (s *session) ask(d time.Duration, parts ...string) (mail.Status, error) {
	s.command(parts...)
	if err := s.flush(d); err != nil {
		return mail.Status{}, err
	}
	return readReply(s.br)
}

// quit ends the connection politely, without waiting.
func (s *session) quit() {
	if !s.broken {
		s.command("QUIT")
		_ = s.flush(time.Second) // it is the end either way
	}
	_ = s.conn.Close()
	s.r.tally.closed.Add(1)
}

// reachHost connects, greets, encrypts and logs in.
func (a *attempt) reachHost(ctx context.Context, t target, policy TLSPolicy) (s *session, f *failure) {
	conn, err := a.connect(ctx, t)
	if err != nil {
		return nil, &failure{outcome: mail.Outcome{Status: mail.Status{Code: 451, Enhanced: "4.4.1", Text: fmt.Sprintf("connect to %s: %v", t.remote, short(err))}}}
	}
	s = &session{conn: conn, br: bufio.NewReaderSize(conn, maxReplyLine), remote: t.remote, lmtp: a.t.LMTP, r: a.Client, born: time.Now()}
	a.tally.opened.Add(1)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && f == nil {
			f = s.lost(ctx.Err(), "greeting")
		}
		if f != nil {
			s.quit()
			s = nil
		}
	}()
	need, f := a.demand(ctx, t, policy)
	if f != nil {
		return s, f
	}
	if a.t.Implicit {
		if f := s.encrypt(ctx, a, t, need); f != nil {
			return s, f
		}
	}
	if f := s.greeted(a); f != nil {
		return s, f
	}
	if f := s.hello(a); f != nil {
		return s, f
	}
	if s.tls == nil && need.level > None {
		if f := s.startTLS(ctx, a, t, need); f != nil {
			return s, f
		}
	}
	if a.t.Username != "" {
		return s, s.login(a)
	}
	return s, nil
}

// connect dials from the right source address.
func (a *attempt) connect(ctx context.Context, t target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, a.c.Timeouts.Connect)
	defer cancel()
	sources := a.t.Source
	if sources == nil {
		sources = a.c.Source
	}
	var from netip.Addr
	for _, src := range sources {
		if t.addr.IsValid() && src.Is4() == t.addr.Is4() {
			from = src
		}
	}
	return a.c.Dial(ctx, t.network, t.address, from)
}

// short leaves out of an error what the text says already.
func short(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	return err
}

// greeted reads the greeting. A host that does not greet is not the last word
// about anybody, so its 5xx is temporary too.
func (s *session) greeted(a *attempt) *failure {
	if err := s.flush(a.c.Timeouts.Greeting); err != nil {
		return s.lost(err, "receiving the initial server greeting")
	}
	st, err := readReply(s.br)
	switch {
	case err != nil:
		return s.lost(err, "receiving the initial server greeting")
	case st.Code/100 != 2:
		return s.refused(st, "greeting")
	}
	if name, _, _ := strings.Cut(st.Text, " "); strings.EqualFold(name, a.c.Hostname) && !s.lmtp && a.hop.mx {
		return ours(554, "5.4.6", "mail for %s loops back to myself: %s greeted me with my own name", a.hop, s.remote)
	}
	return nil
}

// refused is a refusal that is about us or the host, and so always temporary.
func (s *session) refused(st mail.Status, at string) *failure {
	st.Text = fmt.Sprintf("refused to talk to me at %s: %d %s", at, st.Code, st.Text)
	st.Code, st.Enhanced = 450, "4.7.0"
	return &failure{outcome: s.outcome(st)}
}

// hello says EHLO, or HELO to a host that does not know that.
func (s *session) hello(a *attempt) *failure {
	verb := "EHLO "
	if s.lmtp {
		verb = "LHLO "
	}
	st, err := s.ask(a.c.Timeouts.Greeting, verb, a.c.Hostname)
	if err == nil && st.Code/100 == 5 && !s.lmtp && s.tls == nil {
		s.caps = capabilities{}
		st, err = s.ask(a.c.Timeouts.Greeting, "HELO ", a.c.Hostname)
	} else if err == nil {
		s.caps = parseCapabilities(st.Text)
	}
	switch {
	case err != nil:
		return s.lost(err, "performing the "+strings.TrimSpace(verb)+" handshake")
	case st.Code/100 != 2:
		return s.refused(st, strings.TrimSpace(verb))
	}
	return nil
}

// startTLS encrypts the connection (RFC 3207).
func (s *session) startTLS(ctx context.Context, a *attempt, t target, need demand) *failure {
	if !s.caps.has("STARTTLS") {
		if need.level <= May {
			return nil
		}
		a.tally.tls("starttls-not-supported")
		return ours(451, "4.7.4", "TLS is required, but was not offered by host %s", s.remote)
	}
	st, err := s.ask(a.c.Timeouts.Greeting, "STARTTLS")
	switch {
	case err != nil:
		f := s.lost(err, "performing the STARTTLS handshake")
		f.plain = need.level <= May
		return f
	case st.Code != 220 && need.level <= May:
		return nil
	case st.Code != 220:
		return ours(451, "4.7.5", "TLS is required, but host %s refused to start it: %d %s", s.remote, st.Code, st.Text)
	case s.br.Buffered() > 0: // somebody has written into the plain connection
		s.broken = true
		return &failure{outcome: mail.Outcome{Status: mail.Status{Code: 451, Enhanced: "4.7.5", Text: "host " + s.remote + " sent data before the TLS handshake"}}}
	}
	if f := s.encrypt(ctx, a, t, need); f != nil {
		return f
	}
	return s.hello(a)
}

// encrypt makes the handshake. Where encryption is only a wish, failing means to go
// on without it, on a new connection.
func (s *session) encrypt(ctx context.Context, a *attempt, t target, need demand) *failure {
	ctx, cancel := context.WithTimeout(ctx, a.c.Timeouts.Connect)
	defer cancel()
	c := tls.Client(s.conn, a.tlsConfig(t, need))
	err := s.conn.SetDeadline(time.Now().Add(a.c.Timeouts.Connect))
	if err == nil {
		err = c.HandshakeContext(ctx)
	}
	if err != nil {
		s.broken = true
		a.tally.tls(failureType(err))
		return &failure{plain: need.level <= May && !a.t.Implicit, outcome: mail.Outcome{Status: mail.Status{
			Code: 451, Enhanced: "4.7.5", Text: fmt.Sprintf("TLS with %s failed: %v", s.remote, err),
		}}}
	}
	state := c.ConnectionState()
	s.conn, s.tls = c, &state
	s.br.Reset(c)
	a.tally.tls("success")
	return nil
}

// login authenticates at a smarthost (RFC 4954).
func (s *session) login(a *attempt) *failure {
	if s.tls == nil && !loopback(s.conn) {
		return ours(451, "4.7.0", "no password is sent to %s without TLS", s.remote)
	}
	mechanisms := strings.Fields(strings.ToUpper(s.caps["AUTH"]))
	has := func(m string) bool {
		for _, x := range mechanisms {
			if x == m {
				return true
			}
		}
		return false
	}
	b64 := base64.StdEncoding.EncodeToString
	var st mail.Status
	var err error
	switch {
	case has("PLAIN"):
		st, err = s.ask(a.c.Timeouts.Command, "AUTH PLAIN ", b64([]byte("\x00"+a.t.Username+"\x00"+a.t.Password)))
	case has("LOGIN"):
		for _, line := range []string{"AUTH LOGIN", b64([]byte(a.t.Username)), b64([]byte(a.t.Password))} {
			if st, err = s.ask(a.c.Timeouts.Command, line); err != nil || st.Code/100 != 3 {
				break
			}
		}
	default:
		return ours(451, "4.7.0", "host %s offers no way to log in that is known here: %s", s.remote, s.caps["AUTH"])
	}
	switch {
	case err != nil:
		return s.lost(err, "logging in")
	case st.Code != 235:
		return &failure{outcome: s.outcome(mail.Status{Code: 451, Enhanced: "4.7.8", Text: fmt.Sprintf("login failed: %d %s", st.Code, st.Text)})}
	}
	return nil
}

func loopback(c net.Conn) bool {
	switch a := c.RemoteAddr().(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}
