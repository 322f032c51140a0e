package milter

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// errLost says that the connection has ended. One that was used before may have
// been closed for being idle, or by a restart.
var errLost = errors.New("it closed the connection")

// link is a connection to a milter, negotiated.
type link struct {
	conn    net.Conn
	r       *bufio.Reader
	w       *bufio.Writer
	t       *terms
	scratch []byte
	stop    func() bool // ends the watch
}

// dial connects and negotiates within patience. The link is watched by ctx.
func dial(ctx context.Context, network, address string, patience time.Duration) (*link, error) {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(within, network, address)
	if err != nil {
		return nil, err
	}
	l := &link{conn: conn, r: bufio.NewReaderSize(conn, 4<<10), w: bufio.NewWriterSize(conn, 8<<10)}
	l.watch(ctx)
	if err := l.negotiate(within); err != nil {
		l.unwatch()
		_ = conn.Close() // nothing more is expected of it
		return nil, fmt.Errorf("negotiate: %w", err)
	}
	return l, nil
}

func (l *link) negotiate(ctx context.Context) error {
	patience := time.Minute
	if at, ok := ctx.Deadline(); ok {
		patience = time.Until(at)
	}
	code, data, err := l.exchange(ctx, patience, cmdOptNeg, offer())
	if err != nil {
		return err
	}
	if code != cmdOptNeg {
		return fmt.Errorf("answer %q: %w", code, errGarbage)
	}
	l.t, err = parseTerms(data)
	return err
}

// watch makes the end of ctx end what waits on the link.
func (l *link) watch(ctx context.Context) {
	conn := l.conn
	l.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // it fails at once
}

// unwatch reports whether the link can be used further.
func (l *link) unwatch() bool {
	if l.stop == nil {
		return true
	}
	ok := l.stop()
	l.stop = nil
	return ok
}

// limit gives what follows patience, and no longer than ctx has. If ctx has ended
// its watch may have run before, so it is looked at after.
func (l *link) limit(ctx context.Context, patience time.Duration) error {
	at := time.Now().Add(patience)
	if end, ok := ctx.Deadline(); ok && end.Before(at) {
		at = end
	}
	if err := l.conn.SetDeadline(at); err != nil {
		return lost(err)
	}
	return ctx.Err()
}

// send writes a packet. It may wait in the buffer until something is read.
func (l *link) send(ctx context.Context, patience time.Duration, cmd byte, data []byte) error {
	if err := l.limit(ctx, patience); err != nil {
		return err
	}
	l.scratch = appendPacket(l.scratch[:0], cmd, data)
	if _, err := l.w.Write(l.scratch); err != nil {
		return fmt.Errorf("send: %w", lost(err))
	}
	return nil
}

// receive reads the next packet that does not merely ask for patience.
func (l *link) receive(ctx context.Context, patience time.Duration) (code byte, data []byte, err error) {
	if err := l.w.Flush(); err != nil {
		return 0, nil, fmt.Errorf("send: %w", lost(err))
	}
	for range maxProgress {
		if code, data, err = readPacket(l.r); err != nil {
			return 0, nil, fmt.Errorf("read the answer: %w", lost(err))
		}
		if code != ansProgress {
			return code, data, nil
		}
		if err := l.limit(ctx, patience); err != nil {
			return 0, nil, err
		}
	}
	return 0, nil, fmt.Errorf("it asks for patience without end: %w", errGarbage)
}

// exchange sends a packet and reads the one that answers it.
func (l *link) exchange(ctx context.Context, patience time.Duration, cmd byte, data []byte) (byte, []byte, error) {
	if err := l.send(ctx, patience, cmd, data); err != nil {
		return 0, nil, err
	}
	code, answer, err := l.receive(ctx, patience)
	if err == nil && l.r.Buffered() > 0 {
		err = fmt.Errorf("two answers to one command: %w", errGarbage)
	}
	return code, answer, err
}

// farewell is how long a milter that does not listen is waited for at the end.
const farewell = time.Second

// quit says goodbye and closes.
func (l *link) quit() {
	_ = l.conn.SetDeadline(time.Now().Add(farewell))
	if _, err := l.w.Write(appendPacket(nil, cmdQuit, nil)); err == nil {
		_ = l.w.Flush() // it sees the end of the connection in any case
	}
	_ = l.conn.Close()
}

// lost makes errLost of an error that says that the other side is gone.
func lost(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return errLost
	}
	return err
}
