package delegate

import (
	"container/list"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// memory finds the SMTP session that a request is about. Postfix names the
// transaction only (instance), and that from RCPT on; before, a session is known
// by the policy connection that its smtpd asks on and by its two end points. It
// is bounded: what was asked about longest ago is forgotten first.
type memory struct {
	limit int
	ttl   time.Duration

	mu    sync.Mutex
	byKey map[string]*list.Element // of *remembered
	order *list.List               // the latest in front
}

// remembered is a walk and what it can be found by.
type remembered struct {
	walk       *walk
	connection string // "" if its end points are not known
	instance   string // "" before RCPT
	used       time.Time
}

func newMemory(limit int, ttl time.Duration) *memory {
	return &memory{limit: limit, ttl: ttl, byKey: map[string]*list.Element{}, order: list.New()}
}

// find returns the walk that rq belongs to, made by begin if there is none of set.
func (m *memory) find(rq *request, connection uint64, set *policy.Set, begin func(*policy.Set) *walk) *walk {
	byInstance, byConnection := "", ""
	if rq.instance != "" {
		byInstance = "i" + rq.instance + " " + rq.client.String()
	}
	if rq.client.Port() != 0 && rq.client.Addr() != (netip.Addr{}) {
		byConnection = "c" + strconv.FormatUint(connection, 10) + " " + rq.client.String() + " " + rq.server.String()
	}
	if byInstance == "" && byConnection == "" {
		return begin(set) // nothing would find it again
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for e := m.order.Back(); e != nil && now.Sub(e.Value.(*remembered).used) >= m.ttl; e = m.order.Back() {
		m.forget(e)
	}
	e := m.byKey[byInstance]
	if e == nil {
		e = m.byKey[byConnection]
	}
	if e != nil && e.Value.(*remembered).walk.set != set {
		m.forget(e)
		e = nil
	}
	if e == nil {
		e = m.order.PushFront(&remembered{walk: begin(set)})
	}
	r := e.Value.(*remembered)
	r.used = now
	m.order.MoveToFront(e)
	m.key(e, &r.instance, byInstance)
	m.key(e, &r.connection, byConnection)
	for m.order.Len() > m.limit {
		m.forget(m.order.Back())
	}
	return r.walk
}

// key makes e be found by key from now on, in place of what have says.
func (m *memory) key(e *list.Element, have *string, key string) {
	if key == "" || *have == key {
		return
	}
	if m.byKey[*have] == e {
		delete(m.byKey, *have)
	}
	*have, m.byKey[key] = key, e
}

func (m *memory) forget(e *list.Element) {
	r := m.order.Remove(e).(*remembered)
	for _, key := range []string{r.instance, r.connection} {
		if m.byKey[key] == e {
			delete(m.byKey, key)
		}
	}
}
