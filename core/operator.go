package core

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/admin"
)

// Status is what the server says of itself.
func (s *Server) Status() admin.Status {
	g := s.current.Load()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	st := admin.Status{
		Hostname: s.config.Hostname, Version: s.version, PID: os.Getpid(), Started: s.started,
		Generation: admin.Generation{Number: g.number, Digest: g.config.Digest, Loaded: g.loaded, Origin: g.origin},
		Owed:       s.deliver.Owed(), Memory: m.HeapInuse, Goroutines: runtime.NumGoroutine(),
		Checks: map[string]admin.Tally{},
	}
	s.reloads.mu.Lock()
	st.Reloads = admin.Reloads{Good: s.reloads.good, Bad: s.reloads.bad, Last: s.reloads.last}
	s.reloads.mu.Unlock()
	if g.rollout != nil {
		st.Rollout = g.rollout.status()
	}
	for name, t := range g.policy.Tallies() {
		st.Checks[name] = admin.Tally{Asked: t.Asked, Next: t.Next, Refuse: t.Refused, Errors: t.Errors}
	}
	for _, d := range s.doors() {
		l := d.stats()
		l.Name, l.Profile, l.Address = d.name, d.profile, d.ln.Addr().String()
		st.Listeners = append(st.Listeners, l)
	}
	return st
}

// Remembered lists what checks remember (admin.Memory).
func (s *Server) Remembered(kind, check string, limit int) (items []admin.Item, err error) {
	switch kind {
	case admin.Counters:
		for _, c := range s.counters.List(check, time.Now(), limit) {
			items = append(items, admin.Item{Check: c.Check, Key: c.Key, Sum: c.Sum, Window: c.Window.String()})
		}
	case admin.State:
		if s.state == nil {
			return nil, nil
		}
		prefix := ""
		if check != "" {
			prefix = check + "\x00"
		}
		entries, err := s.state.List(prefix, limit)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			owner, key, _ := strings.Cut(e.Key, "\x00")
			item := admin.Item{Check: owner, Key: key, Value: string(e.Value), Until: e.Until}
			if e.Value == nil {
				item.Seen, item.First, item.Last = e.Sighting.Count, e.Sighting.First, e.Sighting.Last
			}
			items = append(items, item)
		}
	default:
		return nil, fmt.Errorf("nothing is remembered under %q", kind)
	}
	return items, nil
}

// Forget forgets a key of a check, or with key "" all of them (admin.Memory).
func (s *Server) Forget(kind, check, key string) (int, error) {
	if check == "" {
		return 0, errors.New("which check is to forget is not said")
	}
	switch kind {
	case admin.Counters:
		return s.counters.Reset(check, key), nil
	case admin.State:
		if s.state == nil {
			return 0, nil
		}
		return s.state.Delete(check+"\x00"+key, key != "")
	}
	return 0, fmt.Errorf("nothing is remembered under %q", kind)
}
