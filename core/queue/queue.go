// Package queue keeps messages until they are delivered, returned, or dropped by
// a person.
//
//	q, err := queue.Open(ctx, queue.Config{Dir: dir, Barrier: b, Transports: t, Route: route, …})
//	d := q.Begin(id)          // an io.Writer for the message
//	err = d.Commit(&queue.Message{Envelope: env, Rcpts: rcpts, Head: trace})
//	d.Close()
//	err = q.Close(ctx)        // stops; everything is on disk
//
// A message is two files (spool.go): its body, never changed, and its envelope, to
// which what happens is appended (record.go). In memory a waiting message is an
// item of some 150 octets; envelope and recipients are read when its turn comes.
//
// A round of attempts takes all recipients that still wait, sorts them by route,
// and hands each route its share, at most Limits.Recipients at a time
// (schedule.go). Whose turn it is follows fair queueing by recipients, so a
// message to five people overtakes one to fifty thousand. How much a destination
// is burdened with is in destination.go, when a message is tried again in
// backoff.go. When a round ends, failures are returned to the sender (notice.go).
//
// # Guarantees
//
// After Commit has returned nil the message is delivered, or returned to its
// sender, or in the queue, or in the folder "aside" with a line in the log;
// neither a kill nor a power cut changes that. It is delivered twice only if the
// next host took it and the connection, this process or the machine ended before
// that was noted. An attempt is on record before anything is dialled: a message
// that ends the process comes up again with the delay of a failure. A message whose
// handling panics is set aside and does no more harm.
//
// # BUGS
//
// A message is tried for all its waiting recipients in the same rounds: one slow
// destination delays the next round, and the notice of failures, for the others
// of the same message. After a power cut, what was sent in the seconds before it
// may be sent again.
package queue

import (
	"container/heap"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wafermail/wafer/core/durable"
	"github.com/wafermail/wafer/core/mail"
)

// Transport brings messages to the next host, or to their mailboxes.
type Transport interface {
	// Deliver makes one attempt. It returns when ctx ends at the latest; the
	// report has an outcome for each recipient.
	Deliver(ctx context.Context, d *mail.Delivery) mail.Report
}

// Config is what Open needs: Dir, Barrier, Transports and Route.
type Config struct {
	Dir      string
	Hostname string // in notices
	Barrier  *durable.Barrier

	Transports map[string]Transport
	// Route says where a recipient's mail goes, or settles what becomes of it
	// without an attempt if the outcome is not nil. It is called for every
	// recipient in every round, by several goroutines.
	Route func(ctx context.Context, m *Message, r *Recipient) (mail.Route, *mail.Outcome)
	// Queued may hold, delay or route a message that is being taken, before it is
	// written; nil: nothing is changed.
	Queued func(ctx context.Context, m *Message)
	// Limits of a route; nil: the defaults.
	Limits func(mail.Route) Limits
	// Most is how many deliveries a transport may make at once, by its name;
	// 0 or absent: 100.
	Most map[string]int

	Schedule Schedule
	Notices  Notices

	Concurrent int // deliveries at once, 0: 500
	Messages   int // in memory at once, 0: 20,000
	Recipients int // in memory at once, 0: 100,000

	Logger *slog.Logger
}

// Queue is a durable queue of messages. It is safe for concurrent use.
type Queue struct {
	o     Config
	spool *spool
	log   *slog.Logger

	ctx    context.Context // of attempts
	cancel context.CancelFunc
	group  sync.WaitGroup // goroutines
	wake   chan struct{}
	tally  tally

	mu         sync.Mutex
	closing    bool
	items      map[mail.ID]*item
	due        due
	lanes      map[string]*lane
	places     map[mail.Route]*destination
	running    int    // deliveries
	messages   int    // in memory
	recipients int    // of them, that wait
	turn       uint64 // of the delivery that began last
}

// item is a message as memory knows it while it waits.
type item struct {
	id      mail.ID
	arrived int64 // Unix ns
	next    int64 // Unix ns
	size    int64
	at      int32 // in the due heap, -1: not in it
	state   itemState
	live    *live // while it is being handled
}

type itemState uint8

const (
	deferred itemState = iota // in the due heap
	active                    // in memory
	held
	parked // at a destination that has enough to do
)

// due is a heap of items, the next one first.
type due []*item

func (d due) Len() int           { return len(d) }
func (d due) Less(a, b int) bool { return d[a].next < d[b].next }
func (d due) Swap(a, b int) {
	d[a], d[b] = d[b], d[a]
	d[a].at, d[b].at = int32(a), int32(b)
}

// Push implements heap.Interface.
func (d *due) Push(x any) {
	it := x.(*item)
	it.at = int32(len(*d))
	*d = append(*d, it)
}

// Pop implements heap.Interface.
func (d *due) Pop() any {
	old := *d
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	it.at = -1
	return it
}

// lane is a transport's share of the work.
type lane struct {
	transport Transport
	most      int
	running   int
	ready     ready
}

const defaultMost = 100

// Open reads the spool and begins to deliver. Messages that cannot be read are set
// aside and logged; ctx ends the reading.
func Open(ctx context.Context, c Config) (*Queue, error) {
	return open(ctx, c, osDisk())
}

func open(ctx context.Context, c Config, dk disk) (*Queue, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Schedule = c.Schedule.withDefaults()
	or := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	or(&c.Concurrent, 500)
	or(&c.Messages, 20_000)
	or(&c.Recipients, 100_000)
	q := &Queue{
		o: c, log: c.Logger, spool: &spool{dir: c.Dir, barrier: c.Barrier, disk: dk, log: c.Logger},
		wake: make(chan struct{}, 1), items: map[mail.ID]*item{}, lanes: map[string]*lane{}, places: map[mail.Route]*destination{},
	}
	for name, t := range c.Transports {
		most := c.Most[name]
		or(&most, defaultMost)
		q.lanes[name] = &lane{transport: t, most: most}
	}
	if err := openSpool(q.spool); err != nil {
		return nil, err
	}
	began := time.Now()
	err := q.spool.scan(ctx, func(f scanned) {
		if f.err != nil {
			q.tally.aside.Add(1)
			return
		}
		q.restore(f.m)
	})
	if err != nil {
		return nil, err
	}
	if n := len(q.items); n > 0 {
		q.log.Info("queue read", "messages", n, "dur", time.Since(began))
	}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	q.group.Go(q.run)
	return q, nil
}

// soon is the delay of a message that was being tried when the process ended.
const soon = 10 * time.Second

// crashes is how many rounds in a row may end with the process before the
// message waits as after a failure.
const crashes = 1

// restore takes in a message that the scan has found.
func (q *Queue) restore(m *Message) {
	it := &item{id: m.Envelope.ID, arrived: m.Envelope.Received.UnixNano(), size: m.Size, at: -1}
	q.items[it.id] = it
	if m.Hold != "" {
		it.state = held
		return
	}
	switch now := time.Now(); {
	case m.Tried.IsZero(): // the first round was under way, or had not begun
		it.next = now.UnixNano()
	case m.open && m.Tries <= crashes+1:
		it.next = now.Add(soon).UnixNano()
	default:
		it.next = q.nextAfter(m, m.Tried).UnixNano()
	}
	it.next = max(it.next, m.delay.UnixNano())
	heap.Push(&q.due, it)
}

// nextAfter is when m is tried again after a round at t.
func (q *Queue) nextAfter(m *Message, t time.Time) time.Time {
	next := t.Add(q.o.Schedule.wait(m.Tries, rand.Float64()))
	if end := m.Envelope.Received.Add(q.o.Schedule.lifetime(m)); next.After(end) && t.Before(end) {
		return end // for the last time
	}
	return next
}

// admit makes a message durable and begins to deliver it.
func (q *Queue) admit(m *Message, body func(io.Writer) error, filed string) error {
	m.Envelope.Rcpts = nil
	if m.Envelope.Received.IsZero() {
		m.Envelope.Received = time.Now()
	}
	m.Tries = 1
	for i := range m.Rcpts {
		if r := &m.Rcpts[i]; r.From.IsNull() && !r.Rewritten {
			r.From = m.Envelope.From
		}
	}
	if q.o.Queued != nil {
		q.o.Queued(q.ctx, m)
	}
	q.mu.Lock()
	closing := q.closing
	if !closing {
		q.group.Add(1)
	}
	q.mu.Unlock()
	if closing {
		return errClosed
	}
	defer q.group.Done()
	if err := q.spool.write(m, body, filed); err != nil {
		return err
	}
	q.tally.accepted.Add(1)
	it := &item{id: m.Envelope.ID, arrived: m.Envelope.Received.UnixNano(), size: m.Size, at: -1}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items[it.id] = it
	now := time.Now()
	switch {
	case m.Hold != "":
		it.state = held
	case m.delay.After(now) || !q.roomFor(len(m.Rcpts)):
		q.later(it, max(now.UnixNano(), m.delay.UnixNano()))
	default:
		q.begin(q.lift(it), m)
	}
	return nil
}

var errClosed = errors.New("the queue is closing")

// later puts it into the due heap.
func (q *Queue) later(it *item, next int64) {
	it.state, it.next = deferred, next
	if it.at >= 0 {
		heap.Fix(&q.due, int(it.at))
	} else {
		heap.Push(&q.due, it)
	}
	if q.due[0] == it {
		q.rouse()
	}
}

// rouse makes run look at the due heap.
func (q *Queue) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Room is ErrFull, or another error, if a message of size octets would not find
// room on the disk.
func (q *Queue) Room(size int64) error { return full(q.spool.room(size)) }

// Close lets deliveries under way end until ctx does, then cuts them off, and
// returns when everything has stopped. Nothing is lost.
func (q *Queue) Close(ctx context.Context) error {
	q.mu.Lock()
	if q.closing {
		q.mu.Unlock()
		return nil
	}
	q.closing = true
	q.mu.Unlock()
	q.rouse()
	stop := context.AfterFunc(ctx, q.cancel)
	q.group.Wait()
	stop()
	q.cancel()
	return q.spool.barrier.Sync(q.spool.dir)
}

// tally counts since the start.
type tally struct {
	accepted, sent, deferred, failed, expired, notices, aside, panics atomic.Int64
}
