package core

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/smtpd"
)

// reloads counts what became of attempts, for status and metrics.
type reloads struct {
	mu   sync.Mutex
	good uint64
	bad  uint64
	last admin.Attempt // zero: there was none
}

// Reload makes a generation of what is on disk now and puts it in place of the current
// one, or says what is wrong and leaves everything as it is (admin.Generations).
// Sessions go on with the generation that they began with.
func (s *Server) Reload(ctx context.Context, o admin.ReloadOptions) (*admin.Reloaded, error) {
	return s.change(ctx, "reload", o, func() (*config.Config, config.Files, error) {
		c, err := config.Load(s.config.File)
		return c, nil, err
	})
}

// Rollback puts a generation that is kept in place again, under a new number. With n 0 it
// is the one before the current one.
func (s *Server) Rollback(ctx context.Context, n int, o admin.ReloadOptions) (*admin.Reloaded, error) {
	if n == 0 {
		numbers, err := s.history.numbers()
		if err != nil {
			return nil, err
		}
		for _, m := range numbers {
			if m < s.current.Load().number {
				n = m
			}
		}
		if n == 0 {
			return nil, errors.New("there is no earlier generation")
		}
	}
	o.SkipTests = true // it has served
	return s.change(ctx, fmt.Sprintf("rollback to %d", n), o, func() (*config.Config, config.Files, error) {
		m, files, err := s.history.read(n)
		if err != nil {
			return nil, nil, err
		}
		c, err := config.LoadFiles(m.Config, files)
		return c, files, err
	})
}

// Kept lists the generations that a rollback can go to (admin.Generations).
func (s *Server) Kept() ([]admin.Kept, error) { return s.history.list() }

// change makes a generation and puts it in place, and keeps the books about it.
func (s *Server) change(ctx context.Context, origin string, o admin.ReloadOptions, load func() (*config.Config, config.Files, error)) (*admin.Reloaded, error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	began := time.Now()
	r, err := s.attempt(ctx, origin, o, load)
	if o.DryRun {
		return r, err
	}
	last := admin.Attempt{Time: began, Origin: origin, Took: time.Since(began).Milliseconds()}
	s.reloads.mu.Lock()
	if err != nil {
		s.reloads.bad++
		last.Error = err.Error()
	} else {
		s.reloads.good++
	}
	s.reloads.last = last
	s.reloads.mu.Unlock()
	if err != nil {
		s.log.Error("the configuration stays as it is", "origin", origin, "generation", s.current.Load().number, "err", err)
		return nil, err
	}
	if o.SkipTests && origin == "reload" {
		s.log.Warn("the tests of policies were skipped", "generation", r.Generation)
	}
	s.log.Info("a new generation serves", "origin", origin, "generation", r.Generation, "digest", r.Digest, "changes", len(r.Changes), "took", time.Since(began), "swap", time.Duration(r.SwapMicros)*time.Microsecond)
	return r, nil
}

// attempt is change without the books. reloading is held.
func (s *Server) attempt(ctx context.Context, origin string, o admin.ReloadOptions, load func() (*config.Config, config.Files, error)) (_ *admin.Reloaded, err error) {
	if !s.serving {
		return nil, errors.New("the server is starting or stopping")
	}
	old := s.current.Load()
	c, files, err := load()
	if err != nil {
		return nil, err
	}
	if err := frozen(old.config, c); err != nil {
		return nil, err
	}
	if s.test != nil && !o.SkipTests {
		if err := s.test(ctx, c); err != nil {
			return nil, err
		}
	}
	certs, cerr := readCertificates(c)
	if errors.Is(cerr, os.ErrPermission) && old.certs.isOf(c) {
		certs, cerr = old.certs, nil // the key is the superuser's, whose rights have been given up; nothing has changed
	}
	if err := s.remember(c); err != nil {
		return nil, errors.Join(err, cerr)
	}
	set := s.set
	set.Generation = s.history.next
	g, berr := build(ctx, c, world{host: s.host, set: set, certs: certs, log: s.log, files: files})
	if err := errors.Join(cerr, berr); err != nil {
		if g != nil {
			err = errors.Join(err, g.close())
		}
		return nil, err
	}
	g.number, g.origin = set.Generation, origin
	r := &admin.Reloaded{Generation: g.number, Digest: c.Digest, Before: old.number, Changes: difference(old, g)}
	if o.DryRun {
		return r, g.close()
	}
	opened, err := s.plan(g, &listeners{})
	if err == nil {
		err = s.history.keep(g)
	}
	if err != nil {
		for _, ln := range opened {
			ln.Close() // nobody was told of it
		}
		return nil, errors.Join(err, g.close())
	}
	s.takeUp(g)
	r.SwapMicros = s.swap(old, g).Microseconds()
	return r, nil
}

// swap puts g in place of old: from here on every new session is g's. Connections that
// arrive meanwhile wait in the sockets.
func (s *Server) swap(old, g *generation) time.Duration {
	began := time.Now()
	s.current.Store(g)
	l := g.config.Limits
	s.registry.Adjust(smtpd.RegistryOptions{PerClient: l.PerClient, Rate: l.Rate, Window: l.RatePer, Total: l.Connections})
	stays, sockets := map[*door]bool{}, map[net.Listener]bool{}
	for _, d := range g.doors {
		stays[d], sockets[d.ln] = true, true
	}
	var left []*door
	for _, d := range old.doors {
		if !stays[d] {
			d.rest(!sockets[d.ln])
			left = append(left, d)
			s.log.Info("no longer listening", "listener", d.name, "address", d.ln.Addr().String())
		}
		delete(stays, d)
	}
	for _, d := range g.doors {
		if stays[d] {
			s.open(d)
		}
	}
	took := time.Since(began)
	s.retiring.Go(func() { s.retire(old, left) })
	return took
}

// retire waits until the sessions of an earlier generation have ended, and tells those
// that have not done so within limits { reload_grace } to come again.
func (s *Server) retire(g *generation, left []*door) {
	g.retire()
	grace := time.NewTimer(g.config.Limits.ReloadGrace)
	defer grace.Stop()
	look := time.NewTicker(200 * time.Millisecond) // engines tell nobody when they are empty
	defer look.Stop()
	free := g.free
	for waiting := true; waiting; {
		select {
		case <-free:
			free = nil
			if err := g.closePolicies(); err != nil {
				s.log.Warn("could not close policies", "generation", g.number, "err", err)
			}
		case <-look.C:
		case <-grace.C:
			s.log.Info("sessions of an earlier generation are ended", "generation", g.number)
			s.hurry(g)
			waiting = false
		case <-s.stopping:
			waiting = false
		}
		if free == nil && idle(left) {
			break
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.config.Limits.ShutdownPatience)
	defer cancel()
	var group sync.WaitGroup
	for _, d := range left {
		group.Go(func() {
			if err := d.shut(ctx); err != nil {
				s.log.Warn("could not end a listener", "listener", d.name, "err", err)
			}
		})
	}
	group.Wait()
	if free != nil {
		<-free
		if err := g.closePolicies(); err != nil {
			s.log.Warn("could not close policies", "generation", g.number, "err", err)
		}
	}
	s.log.Info("an earlier generation has ended", "generation", g.number)
}

// idle reports whether no sessions are left at doors.
func idle(doors []*door) bool {
	for _, d := range doors {
		if d.stats().Open > 0 {
			return false
		}
	}
	return true
}

// hurry ends the sessions that a generation judges, politely, at the doors that go on.
func (s *Server) hurry(g *generation) {
	for _, d := range s.doors() {
		if e, ok := d.engine.(*smtpd.Server); ok {
			e.Retire(g.policy)
			if g.rollout != nil {
				e.Retire(g.rollout.set)
			}
		}
	}
}

// Files are what the current generation was made of, for who wants to watch them.
func (s *Server) Files() []string {
	return slices.Sorted(maps.Keys(s.current.Load().files))
}
