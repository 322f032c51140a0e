package imapd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/policy"
)

// states are the states of RFC 9051 §3, as a set.
type states uint8

const (
	notAuthenticated states = 1 << iota
	authenticated
	selected

	anyState = notAuthenticated | authenticated | selected
	loggedIn = authenticated | selected
)

// session is one connection.
type session struct {
	srv  *Server
	log  *slog.Logger
	id   mail.ID
	raw  net.Conn // the socket
	conn net.Conn // raw, or TLS over it
	in   reader
	out  writer
	wake wakeup

	ctx     context.Context
	client  netip.AddrPort
	local   netip.AddrPort
	tls     mail.TLS
	rules   *policy.Session
	release func()

	state     states
	user      string
	store     *maildir.Store
	view      *view     // nil unless state is selected
	rev2      bool      // after ENABLE IMAP4rev2
	condstore bool      // CONDSTORE is in use (RFC 7162 §3.1)
	qresync   bool      // after ENABLE QRESYNC
	utf8      bool      // after ENABLE UTF8=ACCEPT
	deflated  *deflated // after COMPRESS
	patience  time.Duration
	loginBy   time.Time
	notify    *notify // nil before NOTIFY
	tag       string  // of the command that runs

	failures int // of logins
	refused  int // commands in a row
	over     bool
}

func newSession(srv *Server, conn net.Conn) *session {
	s := &session{srv: srv, raw: conn, conn: conn, id: mail.NewID(time.Now()), state: notAuthenticated, ctx: srv.ctx}
	s.log = srv.log.With("session", string(s.id))
	s.wake.conn = conn
	s.loginBy = time.Now().Add(srv.c.Limits.Greeting)
	s.in.src, s.in.inputs, s.in.before = conn, &srv.inputs, s.beforeRead
	s.out.dst, s.out.outputs, s.out.timeout = conn, &srv.outputs, srv.c.Limits.Write
	s.out.deadline = func(d time.Duration) { _ = s.raw.SetWriteDeadline(time.Now().Add(d)) } // the write will fail too
	return s
}

// beforeRead writes what is ready and arms the deadline.
func (s *session) beforeRead() error {
	s.out.release()
	if s.out.err != nil {
		return s.out.err
	}
	if s.state == notAuthenticated {
		return s.wake.arm(time.Until(s.loginBy))
	}
	return s.wake.arm(s.patience)
}

// serve runs the session from the first octet to the last.
func (s *session) serve() {
	defer func() {
		if r := recover(); r != nil {
			s.srv.panics.Add(1)
			s.log.Error("panic in an imap session", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			s.out.buf = s.out.buf[:0]
			if s.out.partial {
				s.out.crlf()
			}
			s.out.line("* BYE ", textInternal)
			s.out.release()
		}
		s.close()
	}()
	s.client, s.local = addrPort(s.raw.RemoteAddr()), addrPort(s.raw.LocalAddr())
	if !s.readProxy() {
		return
	}
	key := clientKey(s.client.Addr())
	if !s.srv.admitClient(key) {
		s.srv.refused.Add(1)
		s.log.Info("connection refused", "client", s.client.String(), "reason", "too many connections")
		if !s.srv.c.Implicit {
			s.bye("[UNAVAILABLE] ", textTooManyClient)
		}
		return
	}
	defer s.srv.releaseClient(key)
	if s.srv.c.Implicit && !s.handshake() {
		return
	}
	if !s.greet() {
		return
	}
	s.loop()
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	return ap
}

// close gives everything back.
func (s *session) close() {
	s.stopNotify()
	if s.view != nil {
		s.view.close()
		s.view = nil
	}
	if s.store != nil {
		s.store.Close()
		s.srv.releaseUser(s.user)
	}
	s.unjudge()
	s.out.release()
	_ = s.conn.Close() // nothing is left to be lost
	if s.deflated != nil {
		s.deflated.close()
	}
	if s.conn != s.raw {
		_ = s.raw.Close()
	}
}

// judged takes the policies that judge the session until somebody has logged in.
func (s *session) judged() {
	var set *policy.Set
	if s.srv.c.Policies != nil {
		set, s.release = s.srv.c.Policies()
	}
	s.rules = set.Session(s.door())
}

// unjudge lets the policies go: nothing is left that they are asked about.
func (s *session) unjudge() {
	if s.release != nil {
		s.release()
	}
	s.release, s.rules = nil, (*policy.Set)(nil).Session("")
}

// greet asks the policies of connect and sends the greeting.
func (s *session) greet() bool {
	s.judged()
	if s.rules.Active(policy.Connect) {
		if d := s.ask(s.event(policy.Connect)); d.Refused() {
			s.srv.refused.Add(1)
			s.log.Info("connection refused", "client", s.client.String(), "check", d.Check, "reason", d.Reason)
			s.bye("", oneLine(d.Status.Text))
			return false
		}
	}
	s.out.line("* OK [CAPABILITY ", s.capabilities(), "] ", s.srv.c.Hostname, " IMAP ready")
	return true
}

func (s *session) door() string {
	if s.srv.c.Implicit {
		return "imaps"
	}
	return "imap"
}

// event is what policies are told of the session.
func (s *session) event(stage policy.Stage) *policy.Event {
	return &policy.Event{
		Stage: stage, Time: time.Now(), Session: string(s.id),
		Door: s.door(), Protocol: "imap", Server: s.local, Hostname: s.srv.c.Hostname,
		Client: s.client, Trusted: s.srv.trusts(s.client.Addr()), TLS: s.tls, User: s.user,
	}
}

// maxTarpit bounds how long a policy can make a client wait.
const maxTarpit = 30 * time.Second

// ask asks the policies and waits if they say so.
func (s *session) ask(ev *policy.Event) policy.Decision {
	d := s.rules.Ask(s.ctx, ev)
	if wait := min(d.Effects.Tarpit, maxTarpit); wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-s.ctx.Done(): // the next read or write finds out
		}
	}
	return d
}

// loop reads and runs commands.
func (s *session) loop() {
	for {
		line, err := s.nextCommand()
		if err != nil && !errors.Is(err, errLineTooLong) {
			s.lost(err)
			return
		}
		s.wake.setBusy(true)
		s.patience = s.srv.c.Limits.Literal
		if err != nil {
			s.out.line("* BAD ", textLineTooLong)
			s.refused++
		} else {
			s.command(line)
		}
		if s.over || s.out.err != nil {
			return
		}
		if s.refused >= s.srv.c.Limits.BadCommands {
			s.bye("", textTooManyErrors)
			return
		}
		s.in.shrink()
		s.patience = s.srv.c.Limits.Idle
		if s.wake.setBusy(false) {
			s.bye("", textShutdown)
			return
		}
	}
}

// lost says what there is to say when the peer cannot be read from any more.
func (s *session) lost(err error) {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		if _, closing := s.wake.taken(); closing {
			s.bye("", textShutdown)
			return
		}
		s.bye("", textIdle)
	case errors.Is(err, errGiveUp):
		s.bye("", textGiveUp)
	case errors.Is(err, io.EOF), errors.Is(err, errOver):
	default:
		s.log.Debug("connection lost", "err", err)
	}
}

// bye ends the session.
func (s *session) bye(code, text string) {
	s.out.line("* BYE ", code, text)
	s.out.flush()
	s.over = true
}

// done is what a command ends in if it succeeds: a response code without its
// brackets, and a text where the usual one does not do.
type done struct {
	code, text string
	sent       bool // the tagged reply has been sent
}

// command runs one command and sends its tagged reply.
func (s *session) command(line []byte) {
	p := &parser{in: &s.in, proceed: s.proceed, line: line, literals: s.literalBudget(), utf8: s.utf8Names()}
	tag := p.run(func(c byte) bool { return isAstringChar(c) && c != '+' && c < 0x80 })
	if tag == "" || len(tag) > 128 || !p.eat(' ') {
		s.refused++
		s.out.line("* BAD ", textBadTag)
		s.finish(p)
		return
	}
	s.tag = tag
	p.blanks()
	name, err := p.keyword()
	if err == nil && name == "UID" {
		if err = p.space(); err == nil {
			name, err = p.keyword()
			name = "UID " + name
		}
	}
	if err != nil {
		s.refused++
		s.out.line(tag, " BAD ", textNoCommand)
		s.finish(p)
		return
	}
	if s.notify != nil {
		s.notify.running(name)
	}
	run, in := commandNamed(name)
	var d done
	switch {
	case run == nil || s.srv.missing(name):
		err = bad("Unknown command")
	case in&s.state == 0:
		err = s.wrongState(in)
	default:
		d, err = run(s, p)
	}
	if s.over {
		return
	}
	if err == nil && !p.atEnd() {
		err = bad("Unexpected text after the arguments")
	}
	s.reply(tag, name, d, err)
	if !s.over {
		s.finish(p)
	}
}

// utf8Names reports whether mailbox names go over the wire in UTF-8.
func (s *session) utf8Names() bool { return s.rev2 || s.utf8 }

// finish reads what is left of a command.
func (s *session) finish(p *parser) {
	if p.atEnd() {
		return
	}
	limit := int64(64 << 10)
	if s.state != notAuthenticated {
		limit = 2*s.srv.c.Limits.Message + 1<<20
	}
	if err := p.skipRest(limit); err != nil {
		s.lost(err)
		s.over = true
	}
}

// reply sends the tagged reply after what the folder has news of.
func (s *session) reply(tag, name string, d done, err error) {
	var r *refusal
	s.added(d.code)
	switch {
	case err == nil:
		s.refused = 0
		if d.sent {
			return
		}
		s.news(mayExpunge(name))
		s.out.str(tag)
		s.out.str(" OK ")
		if d.code != "" {
			s.out.str("[")
			s.out.str(d.code)
			s.out.str("] ")
		}
		if d.text == "" {
			d.text = name + " completed"
		}
		s.out.line(d.text)
	case errors.As(err, &r):
		s.news(mayExpunge(name))
		if r.status == "BAD" {
			s.refused++
		}
		code := ""
		if r.code != "" {
			code = "[" + r.code + "] "
		}
		s.out.line(tag, " ", r.status, " ", code, r.text)
	default:
		s.lost(err) // the command could not be read
		s.over = true
	}
}

func (s *session) wrongState(in states) error {
	switch {
	case s.state == notAuthenticated:
		return bad("Log in first")
	case in&authenticated == 0 && in&selected != 0:
		return bad("No mailbox is selected")
	}
	return bad("Not possible in this state")
}

// mayExpunge reports whether EXPUNGE may be sent with the reply to a command
// (RFC 9051 §7.5.1).
func mayExpunge(name string) bool {
	return !slices.Contains([]string{"FETCH", "STORE", "SEARCH", "SORT", "THREAD"}, name)
}

// literalBudget is what the literals of one command may take of the memory.
func (s *session) literalBudget() int64 {
	if s.state == notAuthenticated {
		return 1 << 10
	}
	return maxLine
}

// proceed asks for a literal or a SASL response.
func (s *session) proceed() error {
	s.out.line("+ OK")
	s.out.flush()
	return s.out.err
}

// news sends what has happened in the selected mailbox.
func (s *session) news(expunge bool) {
	if s.view != nil {
		s.view.merge()
		s.tell(expunge)
	}
}

// handshake starts TLS on the socket. A failure ends the connection: to go on
// in plain text would be what an attacker wants.
func (s *session) handshake() bool {
	conn := auth.TLSServer(s.raw, s.srv.c.TLS)
	ctx, cancel := context.WithTimeout(s.ctx, s.srv.c.Limits.Greeting)
	defer cancel()
	if err := s.raw.SetDeadline(time.Time{}); err != nil {
		return false
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		s.log.Debug("tls handshake", "client", s.client.String(), "err", err)
		_ = s.raw.Close() // there is nobody to talk to
		return false
	}
	cs := conn.ConnectionState()
	s.tls = mail.TLS{Version: strings.Replace(tls.VersionName(cs.Version), "TLS 1", "TLSv1", 1), Cipher: tls.CipherSuiteName(cs.CipherSuite), SNI: cs.ServerName}
	s.conn = conn
	s.in.reset(conn)
	s.out.dst = conn
	return true
}
