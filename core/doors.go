package core

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/config"
)

// door is one address of a listener block with the protocol engine behind it. A door
// that a reload does not concern goes on over generations.
type door struct {
	name    string // of the listener block
	profile string
	block   config.Listener
	socket  string // see socketKey
	key     string // of everything that its engine is made of: a door with another key is another door
	ln      net.Listener
	tap     *tap
	engine  engine
	stats   func() admin.Listener // without name, profile and address
	served  chan struct{}         // closed when the engine takes no new connections any more
}

// engine is what every protocol package's Server is.
type engine interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// socketKey tells sockets apart over reloads: by their addresses, and where the system
// chooses the port, by the listener's name.
func socketKey(l config.Listener, address string) string {
	if strings.HasSuffix(address, ":0") {
		return l.Name + " " + address
	}
	return address
}

// doorKey is a digest of what a door's engine takes from a configuration. What an engine
// asks of the current generation is not part of it: users, policies, certificates.
func doorKey(c *config.Config, l config.Listener) string {
	l.Where, l.Addresses = "", nil
	limits := c.Limits
	limits.PerClient, limits.Rate, limits.RatePer, limits.ReloadGrace, limits.ShutdownPatience = 0, 0, 0, 0, 0 // the registry's, and ours
	version := ""
	if c.TLS != nil {
		version = c.TLS.MinVersion
	}
	b, err := json.Marshal([]any{c.Hostname, l, limits, version, c.Proxy, c.XClient, c.Trusted, c.Sending.Submission})
	if err != nil { // plain data
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// tap lets an engine accept connections of a socket until it is closed, and leaves the
// socket open for the next engine.
type tap struct {
	net.Listener
	closed atomic.Bool
	last   atomic.Bool // nobody accepts after this one: closing it closes the socket
}

// deadliner is a socket whose Accept can be woken up.
type deadliner interface{ SetDeadline(time.Time) error }

// Accept is the socket's.
func (t *tap) Accept() (net.Conn, error) {
	if t.closed.Load() {
		return nil, net.ErrClosed
	}
	conn, err := t.Listener.Accept()
	if err != nil && t.closed.Load() {
		return nil, net.ErrClosed
	}
	return conn, err
}

// Close ends Accept.
func (t *tap) Close() error {
	t.closed.Store(true)
	d, ok := t.Listener.(deadliner)
	if !ok || t.last.Load() {
		return t.Listener.Close()
	}
	return d.SetDeadline(time.Unix(1, 0))
}

// plan finds the doors of g: those that serve already and fit, and new ones, which get
// engines and sockets here but do not serve yet. The sockets that it has opened are
// returned too, for the case that g is not to be.
func (s *Server) plan(g *generation, from *listeners) (opened []net.Listener, err error) {
	have := map[string]*door{}
	if old := s.current.Load(); old != nil {
		for _, d := range old.doors {
			have[d.socket] = d
		}
	}
	var faults []error
	for _, l := range g.config.Listeners {
		for _, address := range l.Addresses {
			d := &door{name: l.Name, profile: l.Profile, block: l, socket: socketKey(l, address), key: doorKey(g.config, l)}
			old := have[d.socket]
			if old != nil && old.key == d.key {
				g.doors = append(g.doors, old)
				continue
			}
			if old != nil {
				d.ln = old.ln
			} else if d.ln, err = from.open(l.Name, address); err != nil {
				faults = append(faults, err)
				continue
			} else {
				opened = append(opened, d.ln)
			}
			if err := s.engine(d, g.config); err != nil {
				faults = append(faults, fmt.Errorf("%s: listener %q: %w", l.Where, d.name, err))
				continue
			}
			g.doors = append(g.doors, d)
		}
	}
	return opened, errors.Join(faults...)
}

// open lets a door's engine take connections.
func (s *Server) open(d *door) {
	d.tap, d.served = &tap{Listener: d.ln}, make(chan struct{})
	if dl, ok := d.ln.(deadliner); ok {
		_ = dl.SetDeadline(time.Time{}) // the door before it has set one
	}
	go func() { // ends with the tap, for which rest and drain wait
		defer close(d.served)
		if err := d.engine.Serve(d.tap); err != nil && !d.tap.closed.Load() {
			s.failed <- fmt.Errorf("listener %q: %w", d.name, err)
		}
	}()
	s.log.Info("listening", "listener", d.name, "profile", d.profile, "address", d.ln.Addr().String())
}

// rest keeps a door from taking further connections. With last its socket is closed.
func (d *door) rest(last bool) {
	d.tap.last.Store(last)
	_ = d.tap.Close() // the socket is ours
	<-d.served
}

// shut ends the sessions of a door; see engine.Shutdown.
func (d *door) shut(ctx context.Context) error {
	d.tap.last.Store(true)
	err := d.engine.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// doors are those that serve now.
func (s *Server) doors() []*door {
	if g := s.current.Load(); g != nil {
		return g.doors
	}
	return nil
}

// drain ends every door at once and waits for all of them.
func (s *Server) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.conf().Limits.ShutdownPatience)
	defer cancel()
	doors := s.doors()
	errs := make([]error, len(doors))
	var group sync.WaitGroup
	for i, d := range doors {
		group.Go(func() {
			errs[i] = d.shut(ctx)
			<-d.served
		})
	}
	group.Wait()
	s.retiring.Wait()
	return errors.Join(append(errs, s.admin.Close(ctx))...)
}
