package smtpd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// Errors of readLine besides the socket's and the line's.
var (
	errClosing  = errors.New("server is shutting down")
	errTLSFirst = errors.New("peer speaks TLS")
)

const tlsHandshake = 0x16 // first octet of a TLS handshake record; no command begins so

// session is one connection. Its goroutine alone touches it, except raw,
// which never changes, and idle.
type session struct {
	wire
	srv    *Server
	limits *Limits
	raw    net.Conn    // below TLS
	idle   atomic.Bool // waits for the peer, so Shutdown may end the wait
	id     mail.ID
	begun  time.Time

	set     atomic.Pointer[policy.Set] // of rules, for Retire
	retired atomic.Bool                // it is to end at its next wait

	rules   Rules
	judge   judge
	origin  netip.Addr // who connected, after PROXY and before XCLIENT
	entered bool       // counted in the registry
	trusted bool
	early   bool // spoke before its turn

	client   mail.Client
	reverse  string
	server   netip.AddrPort
	helo     bool // HELO, EHLO or LHLO was accepted
	extended bool // it was EHLO or LHLO
	user     string

	kept []outcome // what the stages before MAIL added
	held policy.Decision
	tx   *transaction
	ev   policy.Event

	hangup    bool // close after the replies
	settled   bool // nothing that we have not read can be on its way
	talks     bool // debug log is on
	faults    int  // refused commands since the last message
	junk      int  // idle commands since the last message
	overshoot int  // RCPTs beyond the limit in the whole session
	authFails int
	begunTx   int    // transactions begun
	accepted  int    // messages
	refusals  int    // refused commands of the whole session
	refusal   string // the first one, with what it was about

	refusedFrom, refusedRcpt string
}

// outcome is what a decision that did not refuse leaves behind.
type outcome struct {
	stage   policy.Stage
	effects policy.Effects
	fate    Fate
}

func newSession(srv *Server, nc net.Conn) *session {
	s := &session{srv: srv, limits: &srv.c.Limits, raw: nc, begun: time.Now()}
	s.wire.start(nc, &srv.buffers, srv.c.Limits.Write)
	s.sent = func() {
		if s.judge != nil {
			s.judge.Answered()
		}
	}
	s.id = mail.NewID(s.begun)
	s.talks = srv.log.Enabled(context.Background(), slog.LevelDebug)
	s.client.Addr = addrPort(nc.RemoteAddr())
	s.server = addrPort(nc.LocalAddr())
	return s
}

// addrPort is the address of a TCP peer, the zero value for other sockets.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// serve runs the session to its end.
func (s *session) serve() {
	defer s.close()
	defer s.recovered()
	defer s.reset()
	if s.begin() && s.greet() {
		s.run()
	}
}

// begin learns who the client is and lets it in; false means close.
func (s *session) begin() bool {
	if within(s.client.Addr.Addr(), s.srv.c.ProxyFrom) && !s.readProxy() {
		return false
	}
	s.origin = s.client.Addr.Addr()
	s.trusted = within(s.origin, s.srv.c.Trusted)
	if !s.trusted {
		if s.entered = s.srv.registry.enter(s.origin); !s.entered {
			s.srv.turnedAway.Add(1)
			if s.srv.c.Profile != Submissions {
				s.say(replyClientBusy)
			}
			return false
		}
	}
	s.judged()
	if s.srv.c.Profile == Submissions {
		return s.handshake()
	}
	return true
}

// judged takes what judges the client, and lets go what has judged it so far.
func (s *session) judged() {
	if s.rules.Release != nil {
		s.rules.Release()
	}
	s.rules = s.srv.c.Begin(s.client.Addr.Addr())
	s.set.Store(s.rules.Policy)
	s.judge = s.srv.newJudge(s.rules)
}

// run obeys commands until one of them, the peer or the server ends it.
func (s *session) run() {
	for !s.hangup {
		line, err := s.readLine(s.limits.CommandLine)
		if err == errLineLong && s.authLine() {
			line, err = s.readLine(s.limits.AuthLine)
		}
		if err != nil && !(err == errBareLF && s.trusted) {
			s.readFailed(err)
			continue
		}
		if s.faults >= s.limits.HardErrors {
			s.say(replyErrors)
			return
		}
		s.command(line)
	}
}

// await arms the read deadline for a wait that Shutdown may end; false means
// that it has begun already.
func (s *session) await(deadline time.Time) bool {
	s.idle.Store(true)
	err := s.raw.SetReadDeadline(deadline)
	// Shutdown sets closing first and then looks at idle, so one of the two
	// sees the other.
	if err != nil || s.closing() {
		s.idle.Store(false)
		return false
	}
	return true
}

// hurry is Shutdown's word to a session: stop waiting.
func (s *session) hurry() {
	if s.idle.Load() {
		_ = s.raw.SetReadDeadline(time.Unix(1, 0)) // a dead connection needs no hurry
	}
}

// closing reports whether the session is to end at its next wait.
func (s *session) closing() bool { return s.retired.Load() || s.srv.closing.Load() }

// cut ends the session from outside, whatever it does.
func (s *session) cut() { _ = s.raw.Close() }

// readLine returns the next line of at most limit octets without its line end.
// The time limit is for the whole line, so sending it octet by octet wins nothing.
func (s *session) readLine(limit int) ([]byte, error) {
	armed := false
	for {
		if s.buffered() > 0 && s.buf[s.r] == tlsHandshake {
			return nil, errTLSFirst // it may have no line end for ever
		}
		line, ok, err := s.line(limit)
		if ok || err != nil {
			s.idle.Store(false)
			return line, err
		}
		if s.buffered() == len(s.buf) {
			s.grow()
		}
		if !armed {
			armed = true
			s.shrink()
			idle, session := time.Now().Add(s.limits.Idle), s.begun.Add(s.limits.Session)
			if session.Before(idle) {
				idle = session
			}
			if !s.await(idle) {
				return nil, errClosing
			}
		}
		if err := s.fill(); err != nil {
			return nil, err
		}
	}
}

// readFailed answers an error of readLine.
func (s *session) readFailed(err error) {
	s.idle.Store(false)
	s.settled = err == errClosing || isTimeout(err)
	switch {
	case err == errLineLong:
		s.say(replyTooLong)
		s.skipLong()
	case err == errTLSFirst:
		s.say(replyTLSFirst)
	case err == errBareLF:
		// Some other server may take this for the end of a message: whoever
		// sends it is confused or wants to confuse.
		s.say(replyBareLF)
		s.hangup = true
	case err == errClosing, isTimeout(err) && s.closing():
		s.say(replyShutdown)
	case isTimeout(err) && time.Since(s.begun) >= s.limits.Session:
		s.say(replySessionLong)
	case isTimeout(err):
		s.say(replyIdle)
	default:
		s.lost("command")
	}
}

// skipLong drops the rest of a line that was too long, up to a bound.
func (s *session) skipLong() {
	for dropped := 0; dropped < 2*largeBuffer; {
		n, done := s.skipLine()
		if done {
			return
		}
		dropped += n
		if err := s.fill(); err != nil {
			s.lost("command")
			return
		}
	}
	s.hangup = true
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// lost notes that the peer is gone.
func (s *session) lost(during string) {
	s.debug("connection lost", "during", during)
	s.hangup = true
	s.out = s.out[:0]
}

// command obeys one line.
func (s *session) command(line []byte) {
	verb, arg := splitVerb(line)
	if s.talks {
		s.logCommand(verb, line)
	}
	var up [12]byte
	name := up[:copy(up[:], verb)]
	for i, c := range name {
		if 'a' <= c && c <= 'z' {
			name[i] = c - 'a' + 'A'
		}
	}
	if len(verb) > len(up) {
		name = nil
	}
	s.notePipelining(name)
	switch {
	case notSMTP(verb, name):
		s.say(replyNotSMTP)
		s.hangup, s.refusal = true, replyNotSMTP
		return
	case bytes.IndexByte(line, 0) >= 0:
		s.say(replyControl)
		return
	case isGreeting(name): // whatever it is, the policy judges it
	case hasControl(line) && string(name) != "MAIL" && string(name) != "RCPT": // whose addresses are judged as such
		s.say(replyControl)
		return
	case !isASCII(line) && !utf8.Valid(line) && !s.srv.without.has("SMTPUTF8"):
		s.say(replyBadUTF8)
		return
	}
	if s.held.Refused() && string(name) != "QUIT" {
		s.refuse(s.held)
		s.hangup = true
		return
	}
	s.dispatch(name, arg)
}

func isGreeting(name []byte) bool {
	switch string(name) {
	case "HELO", "EHLO", "LHLO":
		return true
	}
	return false
}

func (s *session) dispatch(name, arg []byte) {
	switch string(name) {
	case "MAIL":
		s.mail(arg)
		return
	case "RCPT":
		s.rcpt(arg)
		return
	case "HELO", "EHLO", "LHLO":
		s.hello(name, arg)
		return
	}
	if !isASCII(arg) && string(name) != "VRFY" && string(name) != "EXPN" {
		s.say(replyNotASCII)
		return
	}
	switch string(name) {
	case "DATA":
		s.data(arg)
	case "BDAT":
		if s.srv.without.has("CHUNKING") { // nobody knows where the next command begins
			s.say(replyNoChunking)
			s.hangup = true
			return
		}
		s.bdat(arg)
	case "RSET":
		s.rset(arg)
	case "QUIT":
		if len(arg) > 0 {
			s.say(replyNoArgument)
			return
		}
		s.say(replyBye)
		s.hangup, s.settled = true, true
	case "NOOP":
		s.idled()
		s.say(replyOK)
	case "HELP":
		s.idled()
		s.say(replyHelp)
	case "VRFY":
		s.idled()
		if len(arg) == 0 {
			s.say(replyVrfyName)
			return
		}
		s.say(replyVrfy)
	case "EXPN":
		s.say(replyNoExpn)
	case "STARTTLS":
		s.startTLS(arg)
	case "AUTH":
		s.auth(arg)
	case "XCLIENT":
		s.xclient(arg)
	default:
		s.say(replyUnknown)
	}
}

// idled counts a command that moves nothing.
func (s *session) idled() {
	if s.junk++; s.junk > s.limits.JunkCommands {
		s.faults++
	}
}

// notePipelining flags a client that did not wait where it has to: after EHLO
// and DATA, and after every command if we did not offer PIPELINING (RFC 2920
// §3.1), which is the case after HELO.
func (s *session) notePipelining(name []byte) {
	if s.buffered() == 0 || s.early {
		return
	}
	switch string(name) {
	case "EHLO", "LHLO", "HELO", "DATA":
		s.early = true
	case "QUIT", "BDAT":
	default:
		s.early = !s.extended
	}
}

// notSMTP recognises what browsers, proxies and header lines begin with.
func notSMTP(verb, name []byte) bool {
	switch string(name) {
	case "GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT":
		return true
	}
	return bytes.IndexByte(verb, ':') > 0
}

// rset is the RSET command.
func (s *session) rset(arg []byte) {
	if len(arg) > 0 {
		s.say(replyNoArgument)
		return
	}
	s.idled()
	s.reset()
	s.say(replyOK)
}

// reset forgets the transaction.
func (s *session) reset() {
	if s.tx == nil {
		return
	}
	if s.tx.draft != nil {
		s.tx.draft.Abort()
	}
	s.tx = nil
	s.clearEvent()
	s.judge.Reset()
}

// recovered turns a panic into 421. The draft is gone already: reset ran first.
func (s *session) recovered() {
	r := recover()
	if r == nil {
		return
	}
	s.srv.panics.Add(1)
	s.srv.log.Error("session panicked", "session", string(s.id), "client", s.client.Addr.String(), "panic", r, "stack", string(debug.Stack()))
	s.say(replyPanic)
}

// close says what is left to say and gives everything back.
func (s *session) close() {
	if s.flush() == nil && (!s.settled || s.buffered() > 0) {
		s.linger()
	}
	s.sent()
	_ = s.nc.Close() // the session is over either way
	s.release()
	if s.entered {
		s.srv.registry.leave(s.origin)
	}
	if s.rules.Release != nil {
		s.rules.Release()
	}
	s.logEnd()
}

// linger lets the peer read our last words: closing a socket with unread
// octets in it would reset the connection and destroy them.
func (s *session) linger() {
	half, ok := s.nc.(interface{ CloseWrite() error })
	if !ok || s.refusal == "" || half.CloseWrite() != nil {
		return
	}
	if s.raw.SetReadDeadline(time.Now().Add(s.limits.Linger)) != nil {
		return
	}
	// The small buffer will do: there may be thousands of us.
	for range 256 {
		s.r, s.w = 0, 0
		if s.fill() != nil {
			return
		}
	}
}
