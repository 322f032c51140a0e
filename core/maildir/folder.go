package maildir

import (
	"context"
	"strings"
	"sync"
)

// Folder is one session's view of a folder. All Folders of the same directory
// in a process share what is known of it. The methods are safe for concurrent use.
type Folder struct {
	name string
	b    *box
	once sync.Once
}

// Status is what a folder looks like at one moment.
type Status struct {
	UIDValidity   uint32
	UIDNext       uint32
	HighestModSeq uint64
	Messages      int
	Unseen        int   // messages without Seen
	Deleted       int   // messages with Deleted
	Size          int64 // sum of Message.Size in octets, without those that are not known (see Folder.Measure)
}

// Name is the folder's name in UTF-8.
func (f *Folder) Name() string { return f.name }

// Close ends the use of f. It may be called more than once.
func (f *Folder) Close() { f.once.Do(func() { f.b.p.release(f.b) }) }

// Status counts the messages of the last Refresh.
func (f *Folder) Status() Status {
	f.b.mu.RLock()
	defer f.b.mu.RUnlock()
	s := Status{UIDValidity: f.b.validity, UIDNext: max(f.b.next, 1), HighestModSeq: f.b.modseq, Messages: len(f.b.msgs)}
	for i := range f.b.msgs {
		m := &f.b.msgs[i]
		if m.Flags&Seen == 0 {
			s.Unseen++
		}
		if m.Flags&Deleted != 0 {
			s.Deleted++
		}
		s.Size += max(m.Size, 0)
	}
	return s
}

// Messages returns the folder's messages by ascending UID, as of the last
// change by this process or the last Refresh. The slice must not be changed;
// it never changes by itself.
func (f *Folder) Messages() []Message {
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	f.b.shared = true
	n := len(f.b.msgs)
	return f.b.msgs[:n:n]
}

// Since returns what has changed after modseq: messages that are new or have
// other flags, by ascending UID, the UIDs that are gone, and the modification
// sequence up to which the answer holds, for the next call.
//
// The last 4096 expunged messages are remembered, across restarts too. When
// modseq is older than that, expunged holds every UID below UIDNext that no
// message has, at most the highest million of them (RFC 7162 §3.2.5.2 allows
// UIDs that the client did not know).
func (f *Folder) Since(modseq uint64) (changed []Message, expunged []uint32, now uint64) {
	b := f.b
	b.mu.RLock()
	defer b.mu.RUnlock()
	if modseq >= b.modseq {
		return nil, nil, b.modseq
	}
	for i := range b.msgs {
		if b.msgs[i].ModSeq > modseq {
			changed = append(changed, b.msgs[i])
		}
	}
	if modseq < b.floor {
		return changed, b.gaps(1 << 20), b.modseq
	}
	for i := len(b.gone) - 1; i >= 0 && b.gone[i].modseq > modseq; i-- {
		expunged = append(expunged, b.gone[i].uid)
	}
	return changed, expunged, b.modseq
}

// gaps lists the UIDs that no message has, the highest n of them. mu is held.
func (b *box) gaps(n int) (uids []uint32) {
	i := len(b.msgs) - 1
	for uid := b.next - 1; uid > 0 && uid < b.next && len(uids) < n; uid-- {
		if i >= 0 && b.msgs[i].UID == uid {
			i--
			continue
		}
		uids = append(uids, uid)
	}
	return uids
}

// Watch returns a channel that gets at least one signal after any change of
// the folder, by this process or, where the system tells (see Options.Watch),
// by another one. Several changes may share a signal, and a signal may come
// without a change. After a signal call Refresh. cancel must be called in the end.
func (f *Folder) Watch() (signal <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	return c, f.WatchInto(c)
}

// WatchInto is Watch with a channel that serves other watches too. It should have
// room for one signal.
func (f *Folder) WatchInto(c chan struct{}) (cancel func()) {
	b := f.b
	b.mu.Lock()
	b.watchers[c] = struct{}{}
	b.mu.Unlock()
	var once sync.Once
	b.p.eyes.watch(b, b.dir, "cur/", "new/")
	return func() {
		once.Do(func() {
			b.mu.Lock()
			delete(b.watchers, c)
			b.mu.Unlock()
			b.p.eyes.unwatch(b)
		})
	}
}

// Refresh looks for changes by others, which costs next to nothing if the
// directories have not changed. It returns ErrNoFolder if the folder is gone.
func (f *Folder) Refresh(ctx context.Context) error {
	if err := f.b.begin(ctx); err != nil {
		return err
	}
	f.b.give()
	return nil
}

// Keywords returns the names of the keywords: that of KeywordBit(i) at i. Where a
// bit is in use that nobody has named, the name is "unknown-<i>"; "" stands
// between names for a bit that is not in use.
func (f *Folder) Keywords() []string {
	b := f.b
	b.mu.RLock()
	defer b.mu.RUnlock()
	used := b.used()
	names := make([]string, 0, MaxKeywords)
	last := 0
	for i, name := range b.kw {
		if name == "" && used&KeywordBit(i) != 0 {
			name = b.kw.name(i)
		}
		if names = append(names, name); name != "" {
			last = i + 1
		}
	}
	return names[:last]
}

// used is every flag that some message has. mu or turn is held.
func (b *box) used() (f Flags) {
	for i := range b.msgs {
		f |= b.msgs[i].Flags
	}
	return f
}

// Keyword returns the flag of the keyword name, which is compared without
// regard to case. If the folder has no such keyword, it is made durably if
// create is true. It reports false if there is none: because it was not to be
// made, is no atom, or the folder has MaxKeywords already.
func (f *Folder) Keyword(name string, create bool) (Flags, bool) {
	b := f.b
	for i, have := range f.Keywords() {
		if have != "" && strings.EqualFold(have, name) {
			return KeywordBit(i), true
		}
	}
	if !create || !validKeyword(name) {
		return 0, false
	}
	ctx := context.Background()
	if err := b.begin(ctx); err != nil {
		return 0, false
	}
	defer b.give()
	i, kw, st, err := b.p.addKeyword(ctx, b.dir, name, b.used())
	if err != nil {
		b.p.log.Error("could not store a keyword", "folder", b.dir, "keyword", name, "err", err)
		return 0, false
	}
	if i < 0 {
		return 0, false
	}
	b.kwStamp = st
	b.mu.Lock()
	b.kw = kw
	b.mu.Unlock()
	b.wake()
	return KeywordBit(i), true
}
