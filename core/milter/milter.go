// Package milter is the MTA's side of the Sendmail mail filter protocol: it makes
// a milter (rspamd, ClamAV's, OpenDKIM) a policy.Plugin.
//
//	p, err := milter.New(milter.Options{Address: "unix:/run/rspamd/milter.sock"})
//	…
//	check := &policy.Check{Name: "rspamd", Plugin: p, At: milter.Stages()}
//
// # Stages
//
// A policy asks its plugins stage by stage; a milter has one connection for each
// SMTP session and is told everything in order. So the plugin keeps a connection
// for each session that it was asked about lately, with what the milter has been
// told. What belongs to earlier stages and has not been said is said late, from
// what the event knows: a check that is asked at "message" alone makes the milter
// hear of the client, its greeting, the sender and the recipients then. It is the
// same after a connection was lost or had to make room: a new one is told all
// again. Recipients that the milter was told of, and that did not become
// recipients after all, are taken back by beginning the transaction anew.
//
// Versions 2 to 6 of the protocol are spoken; steps that the milter does not want
// are not sent, and answers that it does not give are not waited for. Macros are
// Postfix's, with the lists of milter_connect_macros and its siblings, or those
// that the milter asks for.
//
// # Answers
//
// "continue" and "accept" are Next: accept ends the milter's interest in the
// session (at connect and helo) or the message, and it is told no more of it.
// It is never policy.Accept, which would end the list of checks, and with it the
// next milter. "reject", "tempfail", a reply of its own and "discard" are what
// they say. What was refused stays refused: who asks again about the same
// connection, greeting or message is told the same. "quarantine" is Hold: the
// milter means that a person has to look before anybody gets the message, and
// Junk is looked into by the recipient himself.
//
// Added and inserted header fields are Effects.Prepend, added recipients BCC. What
// Effects has no word for is not done, counted in the check's metrics as
// "not-applied-…" and logged.
//
// No connection, no answer in time, and whatever is against the protocol is an
// error, so the check's on_error decides. A milter that is down is warned of once,
// and once when it is back.
//
// # Why not a library
//
// go-milter of emersion has no DATA, no macro lists, no contexts and no bounds on
// what it reads. That of d--j has the first two, but takes packets of half a
// gigabyte and gathers a replaced body in memory. Both want a session to be walked
// through once, in order; telling things late, taking recipients back and
// replaying would have to be built around them, and that is most of this package.
//
// # BUGS
//
// Not applied: changing and deleting header fields, replacing the body, changing
// the sender, deleting recipients, parameters of added recipients. A field that is
// to be appended, or inserted below the first, is put on top; the server folds
// fields anew, so a DKIM signature that a milter makes has to be of the relaxed
// header canonicalization. A recipient who is refused when it is too late for a
// reply to RCPT is a recipient still, unless all are refused.
//
// Unless the message's Content has a RawHeader method, fields are sent without
// their line ends, and a milter cannot verify signatures of the simple header
// canonicalization. Of a field only the first 60,000 octets are sent, and lines of
// the header that are no fields are left out. A header section that is longer than
// Content shows is an error.
//
// What Event does not know, a milter is not told: parameters of MAIL and RCPT
// other than SIZE, {auth_author}, client certificates, {client_connections}.
// {mail_mailer} and {rcpt_mailer} are "local" or "smtp", and the hosts beside them
// the domain. Ciphers have their IANA names. Commands that are unknown, and
// recipients that were refused elsewhere, are not reported.
//
// When an SMTP session ends is known only if End is called; without that a
// connection is closed when it has not been used for Options.MaxIdle.
package milter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// Options say which milter is asked and how patiently. The zero value of each
// field but Address is its default.
type Options struct {
	// Address is "unix:PATH" (relative to the working directory if it does not
	// begin with "/"), or "inet:HOST:PORT", also written "tcp:HOST:PORT".
	Address string

	Timeout        time.Duration // of one question, with all that is said late; 300 s
	ConnectTimeout time.Duration // of connecting and negotiating; 30 s, as milter_connect_timeout
	CommandTimeout time.Duration // of an answer up to DATA; 30 s, as milter_command_timeout
	ContentTimeout time.Duration // of an answer to a piece of the message; 300 s, as milter_content_timeout
	MaxIdle        time.Duration // that a connection is kept unused; 300 s
	Connections    int           // open at once; the longest unused makes room, else further questions wait; 100

	// Macros have fixed values, by their names with or without braces:
	// {"daemon_name": "ORIGINATING"}. Those that are in no list are sent at connect.
	Macros map[string]string

	Logger *slog.Logger // nil: no log
}

// Plugin is a check's milter. It is safe for concurrent use.
type Plugin struct {
	o                Options
	network, address string
	macros           macros
	table            *table
	down             atomic.Bool // it was warned of
}

// Stages are those at which a milter can be asked. It has no word for starttls
// and auth: what came of them are macros of later stages.
func Stages() []policy.Stage {
	return []policy.Stage{policy.Connect, policy.Helo, policy.Mail, policy.Rcpt, policy.Data, policy.Message}
}

// New returns a plugin that asks the milter at o.Address. It does not connect
// before the first question. The error is about o.
func New(o Options) (*Plugin, error) {
	network, address, err := parseAddress(o.Address)
	if err != nil {
		return nil, err
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&o.Timeout, 300 * time.Second}, {&o.ConnectTimeout, 30 * time.Second}, {&o.CommandTimeout, 30 * time.Second},
		{&o.ContentTimeout, 300 * time.Second}, {&o.MaxIdle, 300 * time.Second},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
		if *d.v < 0 {
			return nil, fmt.Errorf("milter %s: a duration is negative", o.Address)
		}
	}
	if o.Connections == 0 {
		o.Connections = 100
	}
	if o.Connections < 0 {
		return nil, fmt.Errorf("milter %s: connections are negative", o.Address)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMacros(o.Macros)
	if err != nil {
		return nil, fmt.Errorf("milter %s: %w", o.Address, err)
	}
	return &Plugin{o: o, network: network, address: address, macros: m, table: newTable(o.Connections, o.MaxIdle)}, nil
}

// maxSocketPath is what a Unix socket's address has room for on Linux.
const maxSocketPath = 107

// parseAddress reads Options.Address for net.Dial.
func parseAddress(s string) (network, address string, err error) {
	kind, rest, _ := strings.Cut(s, ":")
	switch kind {
	case "unix":
		if rest == "" || len(rest) > maxSocketPath || strings.ContainsRune(rest, 0) {
			return "", "", fmt.Errorf("milter %q: a path of 1 to %d octets must follow", s, maxSocketPath)
		}
		return "unix", rest, nil
	case "inet", "tcp":
		h, p, err := net.SplitHostPort(rest)
		if err == nil && (h == "" || p == "") {
			err = errors.New("host or port is empty")
		}
		if err != nil {
			return "", "", fmt.Errorf("milter %q: %w", s, err)
		}
		return "tcp", rest, nil
	}
	return "", "", fmt.Errorf(`milter %q: write "unix:/path" or "inet:host:port"`, s)
}

// ID is "milter:" and the milter's address.
func (p *Plugin) ID() string { return "milter:" + p.o.Address }

// Digest is empty: what a milter is made of is not known.
func (p *Plugin) Digest() string { return "" }

// Foreign says that a replay cannot ask again (policy.Foreign).
func (p *Plugin) Foreign() {}

// Close waits for the questions that are under way and closes the connections.
func (p *Plugin) Close() error {
	p.table.close()
	return nil
}

// End closes the connection that is kept for the SMTP session of that id
// (Event.Session), if there is one. A question about the session may follow.
func (p *Plugin) End(session string) { p.table.end(session) }

// Call tells the milter what it does not know yet of ev, up to ev.Stage, and
// returns what it says. It returns when ctx or Options.Timeout ends, at the latest.
func (p *Plugin) Call(ctx context.Context, ev *policy.Event, h policy.Host) (policy.Verdict, error) {
	if !isStage(ev.Stage) {
		return policy.Verdict{}, fmt.Errorf("a milter has no stage %s", ev.Stage)
	}
	ctx, cancel := context.WithTimeout(ctx, p.o.Timeout)
	defer cancel()
	v, missed, err := p.ask(ctx, ev, h)
	if err != nil {
		p.warn(ctx, err)
		return policy.Verdict{}, fmt.Errorf("ask milter %s: %w", p.o.Address, err)
	}
	if p.down.CompareAndSwap(true, false) {
		p.o.Logger.Info("milter answers again", "milter", p.o.Address)
	}
	missed.report(h)
	if !policy.Legal(ev.Stage, v.Action) {
		return policy.Verdict{}, fmt.Errorf("milter %s: %s cannot be done at stage %s", p.o.Address, v.Action, ev.Stage)
	}
	return v, nil
}

func isStage(s policy.Stage) bool {
	switch s {
	case policy.Connect, policy.Helo, policy.Mail, policy.Rcpt, policy.Data, policy.Message:
		return true
	}
	return false
}

// ask puts the question on the session's connection. If that was used before and
// turns out to be lost, a new one is told everything, once.
func (p *Plugin) ask(ctx context.Context, ev *policy.Event, h policy.Host) (policy.Verdict, misses, error) {
	s, err := p.table.take(ev.Session)
	if err != nil {
		return policy.Verdict{}, nil, err
	}
	var out outcome
	for again := false; ; again = true {
		used := s.link != nil
		out, err = p.turn(ctx, s, ev)
		if err == nil || again || !used || ctx.Err() != nil || !errors.Is(err, errLost) {
			break
		}
	}
	p.table.put(s)
	note(h, ev, out, err)
	if err != nil {
		return policy.Verdict{}, nil, err
	}
	v, missed := out.verdict(ev)
	return v, missed, nil
}

// turn is one try of ask. After an error the session has no connection.
func (p *Plugin) turn(ctx context.Context, s *session, ev *policy.Event) (out outcome, err error) {
	s.plugin = p
	if s.link != nil {
		s.link.watch(ctx)
	}
	defer func() {
		if s.link != nil && !s.link.unwatch() && err == nil {
			s.drop() // a deadline in the past may yet be set
		}
		if err != nil {
			s.drop()
		}
	}()
	return s.ask(ctx, ev)
}

// warn says once that the milter is down. A caller that has gone away and a message
// that cannot be read say nothing about it.
func (p *Plugin) warn(ctx context.Context, err error) {
	if errors.Is(ctx.Err(), context.Canceled) || errors.Is(err, errClosed) || errors.Is(err, errContent) {
		return
	}
	if p.down.CompareAndSwap(false, true) {
		p.o.Logger.Warn("milter does not answer", "milter", p.o.Address, "err", err)
	}
}
