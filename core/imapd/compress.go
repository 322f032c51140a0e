package imapd

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/klauspost/compress/flate"
)

// cmdCompress is COMPRESS DEFLATE (RFC 4978).
func (s *session) cmdCompress(p *parser) (done, error) {
	if err := p.space(); err != nil {
		return done{}, err
	}
	name, err := p.keyword()
	if err != nil {
		return done{}, err
	}
	if err := p.end(); err != nil {
		return done{}, err
	}
	switch {
	case name != "DEFLATE":
		return done{}, no("CANNOT", "DEFLATE is the only compression")
	case s.deflated != nil:
		return done{}, no("COMPRESSIONACTIVE", "Compression is on already")
	}
	p.line, p.pos = nil, 0
	s.out.line(s.tag, " OK Compression begins")
	s.out.release()
	if s.out.err != nil {
		s.over = true
		return done{sent: true}, nil
	}
	s.deflated = newDeflated(s.conn)
	s.in.reset(s.deflated.near)
	s.out.dst = s.deflated
	s.wake.moveTo(s.deflated.near)
	return done{sent: true}, nil
}

// deflated is a connection under compression. A goroutine inflates what comes, so
// that a read can be woken and the stream stays whole.
type deflated struct {
	near, far net.Conn
	conn      net.Conn
	w         io.WriteCloser
	group     sync.WaitGroup
}

func newDeflated(conn net.Conn) *deflated {
	// The writer keeps nothing between two writes: a session that waits costs no
	// memory for what it has sent.
	d := &deflated{conn: conn, w: flate.NewStatelessWriter(conn)}
	d.near, d.far = net.Pipe()
	_ = conn.SetReadDeadline(time.Time{}) // deadlines are near's now; a closed connection shows itself
	d.group.Go(func() {
		in := &inflater{src: conn, give: func(p []byte) error { _, err := d.far.Write(p); return err }}
		_ = in.run() // whatever it ends with is the end
		_ = d.far.Close()
	})
	return d
}

// Write compresses p and sends it.
func (d *deflated) Write(p []byte) (int, error) { return d.w.Write(p) }

// close ends the goroutine; the connection has been closed.
func (d *deflated) close() {
	_ = d.near.Close()
	d.group.Wait()
}
