package delegate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// peer is a connection of a Postfix's. One smtpd process of its keeps it for
// many SMTP sessions.
type peer struct {
	srv    *Server
	conn   net.Conn
	r      *bufio.Reader
	number uint64
}

func newPeer(srv *Server, conn net.Conn, number uint64) *peer {
	return &peer{srv: srv, conn: conn, r: bufio.NewReaderSize(conn, 2<<10), number: number}
}

// wake ends the wait for a request. Shutdown calls it, from its own goroutine.
func (p *peer) wake() { _ = p.conn.SetReadDeadline(time.Unix(1, 0)) }

// serve answers requests until the connection ends.
func (p *peer) serve() {
	defer p.conn.Close()
	defer func() {
		if r := recover(); r != nil {
			if p.srv.panics.Add(1) == 1 { // the first says it all
				p.srv.log.Error("policy connection panicked", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			}
		}
	}()
	for {
		err := p.one()
		if err == nil {
			continue
		}
		switch {
		case errors.Is(err, io.EOF), isTimeout(err), p.srv.gentle.Err() != nil: // that is how they end
		case errors.Is(err, errTooLong), errors.Is(err, errGarbage):
			p.srv.malformed.Add(1)
			p.srv.log.Warn("policy request not understood", "peer", p.conn.RemoteAddr().String(), "err", err)
		default:
			p.srv.log.Debug("policy connection lost", "peer", p.conn.RemoteAddr().String(), "err", err)
		}
		return
	}
}

// one reads a request and answers it. With an error the connection is to be
// closed without a word.
func (p *peer) one() error {
	if err := p.conn.SetReadDeadline(time.Now().Add(p.srv.c.Limits.Idle)); err != nil {
		return err
	}
	// In this order: either Shutdown has begun, or its wake comes after this deadline.
	if err := p.srv.gentle.Err(); err != nil {
		return err
	}
	lines, err := readAttributes(p.r, maxBlock)
	if err != nil {
		return err
	}
	rq, err := parseRequest(lines)
	if err != nil {
		return err
	}
	action, tarpit := p.srv.answer(rq, p.number)
	if tarpit > 0 {
		_ = wait(p.srv.gentle, min(tarpit, p.srv.c.Limits.Tarpit)) // a shutdown cuts it short
	}
	p.srv.requests.Add(1)
	if err := p.conn.SetWriteDeadline(time.Now().Add(p.srv.c.Limits.Write)); err != nil {
		return err
	}
	_, err = io.WriteString(p.conn, "action="+action+"\n\n")
	return err
}

// answer is what the policies say about rq, as an action of access(5), and how
// long to wait before it is said.
func (s *Server) answer(rq *request, connection uint64) (action string, tarpit time.Duration) {
	if rq.fault != nil {
		s.malformed.Add(1)
		s.log.Warn("policy request with a bad value", "state", rq.state, "instance", rq.instance, "err", rq.fault)
		return configurationProblem, 0
	}
	set, release := s.c.Policies()
	defer release()
	w := s.memory.find(rq, connection, set, s.newWalk)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answer(s.ctx, rq)
}

// newWalk begins to remember an SMTP session.
func (s *Server) newWalk(set *policy.Set) *walk {
	return &walk{srv: s, set: set, judge: set.Session(s.c.Door), id: newSessionID()}
}
