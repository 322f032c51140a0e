package maildir

import (
	"container/list"
	"context"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// Message is one message of a folder as it was when the snapshot was taken.
type Message struct {
	UID    uint32
	Order  uint32 // position in POP3 listings if not 0 (the O field of dovecot-uidlist)
	Flags  Flags
	ModSeq uint64    // RFC 7162
	Size   int64     // RFC822.SIZE: octets with CRLF line ends; below 0 if nobody has asked yet (see Folder.Measure)
	Date   time.Time // INTERNALDATE: when the file was last written
	Key    string    // base name of the file: stable as long as the message stays in its folder
	UIDL   string    // POP3 UIDL that was saved for it (the P field of dovecot-uidlist), "" if none
}

// goneMax is how many expunged messages a folder remembers.
const goneMax = 4096

// gone is a message that was expunged.
type gone struct {
	uid    uint32
	modseq uint64
}

// box is a folder as all sessions of the process share it.
//
// Who reads or changes the directory holds turn. Only the holder of turn
// writes what mu guards (apart from watchers, waiting, events, shared
// and err), holding mu too, so it may read it without. Everybody else reads it
// under mu, which is never held during input or output.
type box struct {
	p    *Pool
	dir  string
	root string // the Maildir that the folder belongs to

	// guarded by p.mu
	refs     int
	idle     *list.Element
	idleMsgs int

	turn chan struct{} // holds one token when it is free

	// guarded by turn
	cur, fresh dirState // the directories cur and new
	listStamp  stamp    // dovecot-uidlist when it was last read or written
	kwStamp    stamp
	dead       map[string]struct{} // base names in dovecot-uidlist that have no file; nil: unknown
	saved      uint64              // modseq that wafer.index has
	changes    int                 // messages changed since then
	obsolete   bool                // wafer.index is of another UIDVALIDITY

	mu       sync.RWMutex
	loaded   bool
	err      error // not nil: the folder has gone
	validity uint32
	next     uint32
	modseq   uint64
	msgs     []Message
	shared   bool              // somebody has a snapshot of msgs
	odd      map[uint32]string // files that do not have the name that pathOf makes: relative to dir
	kw       keywords
	gone     []gone // ascending modseq, at most goneMax
	floor    uint64 // gone is complete above this modseq
	watchers map[chan struct{}]struct{}
	waiting  []*arrival
	events   eventList

	facts facts
	post  atomic.Pointer[post] // of those who watch the folder without having it open; may be nil
}

// dirState is what is known of a directory.
type dirState struct {
	mtime   time.Time
	looked  time.Time // when the last listing began
	suspect time.Time // since when mtime is due to changes of our own; zero if a listing came after them
}

// suspectTime bounds how long a change by another program that fell between
// two of ours stays unseen.
const suspectTime = time.Second

// stale reports whether a directory that has mtime must be listed again.
func (d *dirState) stale(mtime, now time.Time) bool {
	switch {
	case !mtime.Equal(d.mtime):
		return true
	case !d.suspect.IsZero():
		return now.Sub(d.suspect) > suspectTime
	}
	return d.looked.Sub(d.mtime) < racyWindow(d.mtime)
}

// settled reports whether the mtime alone will tell of any later change.
func (d *dirState) settled() bool {
	return d.suspect.IsZero() && d.looked.Sub(d.mtime) >= racyWindow(d.mtime)
}

func newBox(p *Pool, root, dir string) *box {
	b := &box{p: p, dir: dir, root: root, turn: make(chan struct{}, 1), watchers: map[chan struct{}]struct{}{}}
	b.turn <- struct{}{}
	return b
}

// take waits for the turn.
func (b *box) take(ctx context.Context) error {
	select {
	case <-b.turn:
		return nil
	default:
	}
	select {
	case <-b.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *box) give() { b.turn <- struct{}{} }

// begin takes the turn and brings the box up to date. Who gets nil must give.
func (b *box) begin(ctx context.Context) error {
	if err := b.take(ctx); err != nil {
		return err
	}
	if err := b.look(ctx, false); err != nil {
		b.give()
		return err
	}
	return nil
}

// count is the number of messages.
func (b *box) count() int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.msgs)
}

// find returns the index of uid in msgs.
func find(msgs []Message, uid uint32) (int, bool) {
	i := sort.Search(len(msgs), func(i int) bool { return msgs[i].UID >= uid })
	return i, i < len(msgs) && msgs[i].UID == uid
}

// path is the file of m, relative to dir. mu or turn is held.
func (b *box) path(m *Message) string {
	if p, ok := b.odd[m.UID]; ok {
		return p
	}
	return "cur/" + makeName(m.Key, m.Flags, "", "")
}

// place notes the file of m. mu and turn are held.
func (b *box) place(m *Message, path string) {
	if path == "cur/"+makeName(m.Key, m.Flags, "", "") {
		delete(b.odd, m.UID)
		return
	}
	if b.odd == nil {
		b.odd = map[uint32]string{}
	}
	b.odd[m.UID] = path
}

// edit returns msgs for changing in place. mu and turn are held.
func (b *box) edit() []Message {
	if b.shared {
		b.msgs, b.shared = slices.Clone(b.msgs), false
	}
	return b.msgs
}

// tick is the modification sequence of the next change. mu and turn are held.
func (b *box) tick() uint64 {
	b.modseq++
	return b.modseq
}

// expunged forgets the messages whose UIDs are in uids. mu and turn are held.
func (b *box) expunged(uids map[uint32]bool) {
	if len(uids) == 0 {
		return
	}
	seq := b.tick()
	kept := make([]Message, 0, len(b.msgs)-len(uids))
	for i := range b.msgs {
		m := &b.msgs[i]
		if !uids[m.UID] {
			kept = append(kept, *m)
			continue
		}
		delete(b.odd, m.UID)
		if b.dead != nil {
			b.dead[m.Key] = struct{}{}
		}
		b.gone = append(b.gone, gone{m.UID, seq})
	}
	b.msgs, b.shared = kept, false
	if over := len(b.gone) - goneMax; over > 0 {
		b.floor = b.gone[over-1].modseq
		b.gone = slices.Clone(b.gone[over:])
	}
	b.changes += len(uids)
}

// vanish makes the box unusable.
func (b *box) vanish(err error) {
	b.mu.Lock()
	b.err = err
	b.mu.Unlock()
	b.restFacts()
	b.wake()
}

// broken is the error of a box that has vanished.
func (b *box) broken() error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.err
}

// wake signals every watcher.
func (b *box) wake() {
	if at := b.post.Load(); at != nil {
		at.wake()
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for c := range b.watchers {
		select {
		case c <- struct{}{}:
		default: // one signal is already under way
		}
	}
}

// poke makes the next look list new/ and wakes the watchers.
func (b *box) poke() {
	b.mu.Lock()
	b.events.poked = true
	b.mu.Unlock()
	b.wake()
}

// retire saves the box and ends it.
func (b *box) retire() {
	b.save()
	b.vanish(ErrClosed)
}

func (b *box) file(rel string) string { return filepath.Join(b.dir, rel) }
