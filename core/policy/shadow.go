package policy

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// Bounds of what waits for Shadow.
const (
	maxShadows    = 1024    // calls
	maxShadowBody = 1 << 20 // octets of a message that a check sees that only observes
)

// errShadowBody says that a check which only observes does not see the rest.
var errShadowBody = errors.New("a check that only observes sees the first 1048576 octets of a body")

// Shadow asks the checks that only observe, off the clock of the clients: each is asked
// once the peer has its answer. When too many wait, some are left out and counted.
type Shadow struct {
	queue   chan interface{ ask() }
	dropped atomic.Uint64
	group   sync.WaitGroup
}

// postponed is one call of a check that only observes.
type postponed struct {
	session Session // a copy, to be asked with
	check   *Check
	ev      Event
}

// NewShadow starts the workers, half as many as there are cores. Close ends them.
func NewShadow() *Shadow {
	s := &Shadow{queue: make(chan interface{ ask() }, maxShadows)}
	for range max(1, runtime.GOMAXPROCS(0)/2) {
		s.group.Go(func() {
			for p := range s.queue {
				p.ask()
			}
		})
	}
	return s
}

// Dropped counts calls that were left out.
func (s *Shadow) Dropped() uint64 { return s.dropped.Load() }

// Close asks what waits, and ends. No session may be left.
func (s *Shadow) Close() error {
	close(s.queue)
	s.group.Wait()
	return nil
}

func (p *postponed) ask() {
	defer p.session.set.shadows.Done()
	_, _ = p.session.call(context.Background(), p.check, &p.ev) // it is counted and recorded there
}

// postpone notes that c, which only observes, is to be asked about ev later.
func (s *Session) postpone(c *Check, ev *Event) {
	p := &postponed{check: c, ev: *ev}
	p.ev.Rcpts = slices.Clone(ev.Rcpts)
	if ev.Content != nil {
		p.ev.Content = keep(ev.Content)
	}
	s.decision(ev) // the records of the moment share its id
	p.session = Session{set: s.set, plan: s.plan, id: s.id, noted: s.noted}
	s.later = append(s.later, p)
}

// Answered is called when the peer has the answer to what was asked last. Checks that only
// observe are asked then.
func (s *Session) Answered() {
	for _, p := range s.later {
		s.set.shadows.Add(1)
		select {
		case s.set.o.Shadow.queue <- p:
		default:
			s.set.shadows.Done()
			s.set.o.Shadow.dropped.Add(1)
		}
	}
	clear(s.later)
	s.later = s.later[:0]
	if len(s.moments) > 0 {
		s.company.tell(s.moments, s.set.o.Shadow)
		clear(s.moments)
		s.moments = s.moments[:0]
	}
}

// kept is the beginning of a message that is gone when it is read.
type kept struct {
	content
	cut bool
}

// keep copies what a check may want to see of a message.
func keep(c Content) Content {
	var b []byte
	if r, ok := c.(interface{ RawHeader() []byte }); ok {
		b = slices.Clone(r.RawHeader())
	}
	head := len(b)
	chunk := make([]byte, 32<<10)
	var err error
	for len(b)-head < maxShadowBody && err == nil {
		var n int
		n, err = c.Body(chunk, int64(len(b)-head))
		b = append(b, chunk[:n]...)
	}
	return &kept{content{r: bytes.NewReader(b), size: int64(len(b)), header: b[:head:head]}, err == nil}
}

// Body is the message's, as far as it was copied.
func (k *kept) Body(p []byte, off int64) (int, error) {
	n, err := k.content.Body(p, off)
	if k.cut && err != nil {
		err = errShadowBody
	}
	return n, err
}
