package policy

import (
	"container/list"
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

// Bounds of a Memory.
const (
	memoryKeys   = 50_000
	memoryOctets = 32 << 20 // of all keys and values
)

// maxStateTTL is the longest time that state is kept.
const maxStateTTL = 90 * 24 * time.Hour

// Memory is a State that forgets at restart, and the longest unused first when
// it is full.
type Memory struct {
	mu     sync.Mutex
	octets int
	byKey  map[string]*list.Element
	used   *list.List // of *memory, the last used in front
}

type memory struct {
	key      string // with its kind in front
	value    []byte
	sighting Sighting
	until    time.Time
}

func NewMemory() *Memory {
	return &Memory{byKey: map[string]*list.Element{}, used: list.New()}
}

// at returns what key holds at now, nil if nothing. The caller holds mu.
func (s *Memory) at(key string, now time.Time) *memory {
	e := s.byKey[key]
	if e == nil {
		return nil
	}
	m := e.Value.(*memory)
	if !now.Before(m.until) {
		s.remove(e)
		return nil
	}
	s.used.MoveToFront(e)
	return m
}

func (s *Memory) remove(e *list.Element) {
	m := e.Value.(*memory)
	s.octets -= len(m.key) + len(m.value)
	delete(s.byKey, m.key)
	s.used.Remove(e)
}

// keep puts m in front and makes room. The caller holds mu.
func (s *Memory) keep(m *memory) {
	if e := s.byKey[m.key]; e != nil {
		s.remove(e)
	}
	s.byKey[m.key] = s.used.PushFront(m)
	s.octets += len(m.key) + len(m.value)
	for s.used.Len() > memoryKeys || s.octets > memoryOctets && s.used.Len() > 1 {
		s.remove(s.used.Back())
	}
}

// Get returns the value of key.
func (s *Memory) Get(_ context.Context, key string, now time.Time) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.at("v"+key, now)
	if m == nil {
		return nil, false, nil
	}
	return append([]byte{}, m.value...), true, nil
}

// Put keeps a copy of value.
func (s *Memory) Put(_ context.Context, key string, value []byte, ttl time.Duration, now time.Time) error {
	if ttl > maxStateTTL {
		return errors.New("put state: ttl is more than 90 days")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ttl <= 0 {
		if e := s.byKey["v"+key]; e != nil {
			s.remove(e)
		}
		return nil
	}
	s.keep(&memory{key: "v" + key, value: append([]byte{}, value...), until: now.Add(ttl)})
	return nil
}

// Seen records a sighting and returns the earlier ones.
func (s *Memory) Seen(_ context.Context, key string, ttl time.Duration, now time.Time) (Sighting, error) {
	if ttl <= 0 || ttl > maxStateTTL {
		return Sighting{}, errors.New("see state: ttl must be positive and at most 90 days")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var before Sighting
	if m := s.at("s"+key, now); m != nil {
		before = m.sighting
	}
	after := Sighting{First: before.First, Last: now, Count: before.Count + 1}
	if before.Count == 0 {
		after.First = now
	}
	s.keep(&memory{key: "s" + key, sighting: after, until: now.Add(ttl)})
	return before, nil
}

// List returns the values of check's keys, by the check's own key, that are there
// at now.
func (s *Memory) List(check string, now time.Time) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	values := map[string]string{}
	for full, e := range s.byKey {
		m := e.Value.(*memory)
		if key, ok := strings.CutPrefix(full, "v"+check+"\x00"); ok && now.Before(m.until) {
			values[key] = string(m.value)
		}
	}
	return values
}
