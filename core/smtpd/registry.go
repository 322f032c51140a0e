package smtpd

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// RegistryOptions are connection caps. A zero field means its default.
type RegistryOptions struct {
	PerClient int           // connections open at once from one client; 10
	Rate      int           // connections begun per Window by one client; 30
	Window    time.Duration // 60 s
	Total     int           // connections open at once on all listeners; 10000
	Clients   int           // clients remembered; 65536
	Now       func() time.Time
}

// Registry counts connections by client for all listeners that share it. A
// client is one IPv4 address or one IPv6 /64. The table is bounded: the client
// that was idle longest is forgotten first, and never one that is connected.
type Registry struct {
	o RegistryOptions

	mu      sync.Mutex
	clients map[netip.Addr]*list.Element // of *visits
	order   list.List                    // most recent first
	total   int
}

// visits is what is remembered of one client.
type visits struct {
	key   netip.Addr
	open  int
	begun []time.Time // oldest first, at most Rate
}

// NewRegistry returns an empty registry.
func NewRegistry(o RegistryOptions) *Registry {
	return &Registry{o: o.withDefaults(), clients: make(map[netip.Addr]*list.Element)}
}

func (o RegistryOptions) withDefaults() RegistryOptions {
	number(&o.PerClient, 10)
	number(&o.Rate, 30)
	number(&o.Window, time.Minute)
	number(&o.Total, 10000)
	number(&o.Clients, 65536)
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Adjust changes the limits. What is known of clients stays, and so does the clock if o
// has none.
func (r *Registry) Adjust(o RegistryOptions) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.Now == nil {
		o.Now = r.o.Now
	}
	r.o = o.withDefaults()
}

// reserve counts a connection against Total; false means no.
func (r *Registry) reserve() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.total >= r.o.Total {
		return false
	}
	r.total++
	return true
}

// unreserve undoes reserve.
func (r *Registry) unreserve() {
	r.mu.Lock()
	r.total--
	r.mu.Unlock()
}

// enter counts a connection of addr. When it returns true, leave must follow.
// An address that is not valid (a socket without one) is never limited.
func (r *Registry) enter(addr netip.Addr) bool {
	key := clientKey(addr)
	if !key.IsValid() {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	el := r.clients[key]
	if el == nil {
		r.evict()
		el = r.order.PushFront(&visits{key: key})
		r.clients[key] = el
	} else {
		r.order.MoveToFront(el)
	}
	v := el.Value.(*visits)
	now := r.o.Now()
	for len(v.begun) > 0 && now.Sub(v.begun[0]) >= r.o.Window {
		v.begun = v.begun[1:]
	}
	// A refused connection is not counted: a client that comes back at once
	// gets in again as soon as its oldest visits are past.
	if v.open >= r.o.PerClient || len(v.begun) >= r.o.Rate {
		return false
	}
	v.open++
	v.begun = append(v.begun, now)
	return true
}

// leave undoes the open connection of a successful enter.
func (r *Registry) leave(addr netip.Addr) {
	key := clientKey(addr)
	r.mu.Lock()
	defer r.mu.Unlock()
	if el := r.clients[key]; el != nil {
		el.Value.(*visits).open--
	}
}

// evict makes room for one more client. Connected clients are stepped over;
// there are at most Total of them.
func (r *Registry) evict() {
	for el := r.order.Back(); el != nil && len(r.clients) >= r.o.Clients; {
		prev := el.Prev()
		if v := el.Value.(*visits); v.open == 0 {
			delete(r.clients, v.key)
			r.order.Remove(el)
		} else {
			r.order.MoveToFront(el)
		}
		if prev == nil {
			return
		}
		el = prev
	}
}

// clientKey is the address that stands for a client.
func clientKey(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		p, _ := addr.Prefix(64) // 64 is in range
		return p.Addr()
	}
	return addr
}

// within reports whether addr is in one of nets.
func within(addr netip.Addr, nets []netip.Prefix) bool {
	addr = addr.Unmap().WithZone("")
	for _, n := range nets {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
