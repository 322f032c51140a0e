package imapd

import (
	"fmt"
	"strings"
)

// command runs a command whose name has been read and says how it ended. Errors
// that are no *refusal end the session.
type command func(s *session, p *parser) (done, error)

// commandNamed finds a command and the states in which it is allowed. An
// extension adds its line here and in extensions.
func commandNamed(name string) (command, states) {
	switch name {
	case "CAPABILITY":
		return (*session).cmdCapability, anyState
	case "NOOP":
		return (*session).cmdNoop, anyState
	case "LOGOUT":
		return (*session).cmdLogout, anyState
	case "ID":
		return (*session).cmdID, anyState

	case "STARTTLS":
		return (*session).cmdStartTLS, notAuthenticated
	case "AUTHENTICATE":
		return (*session).cmdAuthenticate, notAuthenticated
	case "LOGIN":
		return (*session).cmdLogin, notAuthenticated

	case "ENABLE":
		return (*session).cmdEnable, loggedIn
	case "SELECT":
		return selectCommand(false), loggedIn
	case "EXAMINE":
		return selectCommand(true), loggedIn
	case "CREATE":
		return (*session).cmdCreate, loggedIn
	case "DELETE":
		return (*session).cmdDelete, loggedIn
	case "RENAME":
		return (*session).cmdRename, loggedIn
	case "SUBSCRIBE":
		return (*session).cmdSubscribe, loggedIn
	case "UNSUBSCRIBE":
		return (*session).cmdUnsubscribe, loggedIn
	case "LIST":
		return (*session).cmdList, loggedIn
	case "LSUB":
		return (*session).cmdLsub, loggedIn
	case "GETQUOTA":
		return (*session).cmdGetQuota, loggedIn
	case "GETQUOTAROOT":
		return (*session).cmdGetQuotaRoot, loggedIn
	case "SETQUOTA":
		return (*session).cmdSetQuota, loggedIn
	case "GETMETADATA":
		return (*session).cmdGetMetadata, loggedIn
	case "SETMETADATA":
		return (*session).cmdSetMetadata, loggedIn
	case "COMPRESS":
		return (*session).cmdCompress, anyState
	case "UNAUTHENTICATE":
		return (*session).cmdUnauthenticate, loggedIn
	case "NAMESPACE":
		return (*session).cmdNamespace, loggedIn
	case "STATUS":
		return (*session).cmdStatus, loggedIn
	case "APPEND":
		return (*session).cmdAppend, loggedIn
	case "REPLACE":
		return byNumber((*session).cmdReplace), selected
	case "UID REPLACE":
		return byUID((*session).cmdReplace), selected
	case "IDLE":
		return (*session).cmdIdle, loggedIn
	case "NOTIFY":
		return (*session).cmdNotify, loggedIn

	case "CHECK":
		return (*session).cmdNoop, selected
	case "CLOSE":
		return (*session).cmdClose, selected
	case "UNSELECT":
		return (*session).cmdUnselect, selected
	case "EXPUNGE":
		return (*session).cmdExpunge, selected
	case "UID EXPUNGE":
		return (*session).cmdUIDExpunge, selected
	case "SEARCH":
		return byNumber((*session).cmdSearch), selected
	case "UID SEARCH":
		return byUID((*session).cmdSearch), selected
	case "SORT":
		return byNumber((*session).cmdSort), selected
	case "UID SORT":
		return byUID((*session).cmdSort), selected
	case "THREAD":
		return byNumber((*session).cmdThread), selected
	case "UID THREAD":
		return byUID((*session).cmdThread), selected
	case "FETCH":
		return byNumber((*session).cmdFetch), selected
	case "UID FETCH":
		return byUID((*session).cmdFetch), selected
	case "STORE":
		return byNumber((*session).cmdStore), selected
	case "UID STORE":
		return byUID((*session).cmdStore), selected
	case "COPY":
		return byNumber((*session).cmdCopy), selected
	case "UID COPY":
		return byUID((*session).cmdCopy), selected
	case "MOVE":
		return byNumber((*session).cmdMove), selected
	case "UID MOVE":
		return byUID((*session).cmdMove), selected
	}
	return nil, 0
}

// The commands that come in two forms are told which.
func byNumber(f func(*session, *parser, bool) (done, error)) command {
	return func(s *session, p *parser) (done, error) { return f(s, p, false) }
}

func byUID(f func(*session, *parser, bool) (done, error)) command {
	return func(s *session, p *parser) (done, error) { return f(s, p, true) }
}

// capabilities is the list for the session's state: only what works now.
func (s *session) capabilities() string {
	var b strings.Builder
	b.WriteString("IMAP4rev1 IMAP4rev2 SASL-IR LITERAL+ ID ENABLE")
	if s.state == notAuthenticated {
		if s.mayStartTLS() {
			b.WriteString(" STARTTLS")
		}
		if !s.mayLogin() {
			b.WriteString(" LOGINDISABLED")
			return b.String()
		}
		for _, m := range s.srv.c.Auth.Mechanisms(s.peer()) {
			b.WriteString(" AUTH=")
			b.WriteString(m)
		}
		return b.String()
	}
	for _, word := range s.srv.offered() {
		if word != "COMPRESS=DEFLATE" || s.deflated == nil {
			b.WriteByte(' ')
			b.WriteString(word)
		}
	}
	fmt.Fprintf(&b, " APPENDLIMIT=%d", s.srv.c.Limits.Message)
	return b.String()
}

func (s *session) cmdCapability(p *parser) (done, error) {
	if err := p.end(); err != nil {
		return done{}, err
	}
	s.out.line("* CAPABILITY ", s.capabilities())
	return done{}, nil
}

// cmdNoop is NOOP and CHECK: it looks for changes that other programs made.
func (s *session) cmdNoop(p *parser) (done, error) {
	if err := p.end(); err != nil {
		return done{}, err
	}
	return done{}, s.refresh()
}

func (s *session) cmdLogout(p *parser) (done, error) {
	if err := p.end(); err != nil {
		return done{}, err
	}
	s.out.line("* BYE ", textBye)
	s.out.line(s.tag, " OK LOGOUT completed")
	s.out.flush()
	s.over = true
	return done{sent: true}, nil
}

// cmdID is RFC 2971. What the client says of itself goes to the log.
func (s *session) cmdID(p *parser) (done, error) {
	if err := p.space(); err != nil {
		return done{}, err
	}
	var said []string
	if p.peek() == '(' {
		err := p.list(func() error {
			v, err := p.nstring()
			if len(said) < 60 {
				said = append(said, clip(v, 200))
			}
			return err
		})
		if err != nil {
			return done{}, err
		}
	} else if _, err := p.nstring(); err != nil {
		return done{}, err
	}
	if err := p.end(); err != nil {
		return done{}, err
	}
	s.log.Debug("client names itself", "id", fmt.Sprintf("%q", said))
	s.out.line(`* ID ("name" "wafer")`)
	return done{}, nil
}

// nstring reads a string or NIL; an atom is forgiven.
func (p *parser) nstring() (string, error) {
	s, err := p.astring()
	if strings.EqualFold(s, "NIL") {
		s = ""
	}
	return s, err
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// cmdEnable is RFC 9051 §6.3.1.
func (s *session) cmdEnable(p *parser) (done, error) {
	var on []string
	for !p.atEnd() {
		if err := p.space(); err != nil {
			return done{}, err
		}
		if p.atEnd() {
			break
		}
		word, err := p.keyword()
		if err != nil {
			return done{}, err
		}
		switch {
		case s.srv.missing(word):
		case word == "IMAP4REV2" && !s.rev2:
			s.rev2 = true
			on = append(on, " IMAP4rev2")
		case word == "CONDSTORE" && !s.condstore:
			s.useCondstore()
			on = append(on, " CONDSTORE")
		case word == "UTF8=ACCEPT" && !s.utf8:
			s.utf8 = true
			on = append(on, " UTF8=ACCEPT")
		case word == "QRESYNC" && !s.qresync:
			s.qresync = true
			s.useCondstore()
			on = append(on, " QRESYNC")
		}
	}
	s.out.line(append([]string{"* ENABLED"}, on...)...)
	return done{}, nil
}

// useCondstore begins to report MODSEQ (RFC 7162 §3.1). The client is told
// where the selected mailbox stands.
func (s *session) useCondstore() {
	if s.condstore {
		return
	}
	s.condstore = true
	if s.view != nil {
		s.out.line(fmt.Sprintf("* OK [HIGHESTMODSEQ %d] Highest", s.view.folder.Status().HighestModSeq))
	}
}
