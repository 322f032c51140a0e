package delegate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// errClosed is what a question gets after Close.
var errClosed = errors.New("the connections are closed")

// pool is the connections to one daemon.
type pool struct {
	network, address string
	maxIdle          time.Duration
	slots            chan struct{} // one taken by each question
	busy             sync.WaitGroup

	mu     sync.Mutex
	closed bool
	idle   []*line     // the latest used last
	sweep  *time.Timer // closes what has been idle for long; nil: not set
}

// line is a connection to a daemon. One question at a time uses it.
type line struct {
	conn   net.Conn
	r      *bufio.Reader
	rested time.Time // when it became idle
}

func newPool(network, address string, connections int, maxIdle time.Duration) *pool {
	return &pool{network: network, address: address, maxIdle: maxIdle, slots: make(chan struct{}, connections)}
}

// exchange puts one question and returns the answer's action. If a connection
// that was used before turns out to be closed with nothing answered, the daemon
// has merely tired of it, and a new one is tried at once.
func (p *pool) exchange(ctx context.Context, ask []byte) (string, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return "", fmt.Errorf("wait for a connection: %w", ctx.Err())
	}
	defer func() { <-p.slots }()
	for {
		l, used, err := p.take(ctx)
		if err != nil {
			return "", err
		}
		action, silent, err := l.exchange(ctx, ask)
		p.put(l, err == nil)
		if err != nil && used && silent && ctx.Err() == nil {
			continue
		}
		return action, err
	}
}

// take returns a connection; used says that it has served before. put must follow.
func (p *pool) take(ctx context.Context) (l *line, used bool, err error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, false, errClosed
	}
	p.busy.Add(1)
	var stale []*line
	for len(p.idle) > 0 && l == nil {
		l = p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if time.Since(l.rested) >= p.maxIdle || l.r.Buffered() > 0 || !quiet(l.conn) {
			stale, l = append(stale, l), nil
		}
	}
	p.mu.Unlock()
	for _, s := range stale {
		_ = s.conn.Close() // it was of no use any more
	}
	if l != nil {
		return l, true, nil
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, p.network, p.address)
	if err != nil {
		p.busy.Done()
		return nil, false, err
	}
	return &line{conn: conn, r: bufio.NewReaderSize(conn, 1<<10)}, false, nil
}

// put gives a connection back; one that is not sound is closed, so that a late
// answer can never be taken for that to another question.
func (p *pool) put(l *line, sound bool) {
	defer p.busy.Done()
	p.mu.Lock()
	if !sound || p.closed || l.r.Buffered() > 0 || l.conn.SetDeadline(time.Time{}) != nil {
		p.mu.Unlock()
		_ = l.conn.Close() // nothing more is expected of it
		return
	}
	l.rested = time.Now()
	p.idle = append(p.idle, l)
	if p.sweep == nil {
		p.sweep = time.AfterFunc(p.maxIdle, p.tidy)
	}
	p.mu.Unlock()
}

// tidy closes what has been idle for maxIdle. It runs again while there is any.
func (p *pool) tidy() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep = nil
	n := 0
	for n < len(p.idle) && time.Since(p.idle[n].rested) >= p.maxIdle {
		_ = p.idle[n].conn.Close() // it was of no use any more
		n++
	}
	p.idle = append(p.idle[:0], p.idle[n:]...)
	if len(p.idle) > 0 && !p.closed {
		p.sweep = time.AfterFunc(p.maxIdle-time.Since(p.idle[0].rested), p.tidy)
	}
}

// close refuses further questions, waits for those under way and closes every
// connection.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	if p.sweep != nil {
		p.sweep.Stop()
	}
	for _, l := range p.idle {
		_ = l.conn.Close() // nothing more is expected of it
	}
	p.idle = nil
	p.mu.Unlock()
	p.busy.Wait()
}

// exchange puts one question. silent says that the daemon closed without an octet
// of an answer.
func (l *line) exchange(ctx context.Context, ask []byte) (action string, silent bool, err error) {
	deadline, _ := ctx.Deadline() // Call has set one
	if err := l.conn.SetDeadline(deadline); err != nil {
		return "", true, err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) }) // the read fails at once
	defer func() {
		if !stop() && err == nil { // the deadline may yet be set under the next question
			err = ctx.Err()
		}
	}()
	if _, err := l.conn.Write(ask); err != nil {
		return "", !isTimeout(err), fmt.Errorf("send the question: %w", err)
	}
	if _, err := l.r.Peek(1); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it closed the connection without an answer")
		}
		return "", !isTimeout(err), fmt.Errorf("read the answer: %w", err)
	}
	answer, err := readAttributes(l.r, maxBlock)
	if err != nil {
		return "", false, fmt.Errorf("read the answer: %w", err)
	}
	action, err = actionOf(answer)
	return action, false, err
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
