package pop3d

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/wafermail/wafer/core/maildir"
)

// maildrop is an INBOX as one session sees it: the messages of the moment of
// login, numbered from 1 (RFC 1939 §4).
type maildrop struct {
	store    *maildir.Store
	folder   *maildir.Folder
	unlock   func()
	msgs     []maildir.Message
	validity uint32

	deleted map[int]bool // by index
	seen    map[int]bool // retrieved
	count   int          // not deleted
	size    int64        // of these, in octets
}

// openMaildrop takes the mailbox. It owns the store, also if it fails.
// Error: maildir.ErrLocked.
func openMaildrop(ctx context.Context, store *maildir.Store) (*maildrop, error) {
	unlock, err := store.LockPOP3()
	if err != nil {
		store.Close()
		return nil, err
	}
	folder, err := store.Folder(ctx, "INBOX")
	if err != nil {
		unlock()
		store.Close()
		return nil, fmt.Errorf("open inbox: %w", err)
	}
	d := &maildrop{store: store, folder: folder, unlock: unlock}
	err = folder.Refresh(ctx)
	if err == nil {
		err = folder.Measure(ctx)
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("read inbox: %w", err)
	}
	d.msgs = inOrder(folder.Messages())
	d.validity = folder.Status().UIDValidity
	d.reset()
	return d, nil
}

// inOrder sorts messages as Dovecot's POP3 server does: those with an order
// first, by it, then the others by UID. The slice given is not changed; it is
// returned if no message has an order, as almost always.
func inOrder(msgs []maildir.Message) []maildir.Message {
	if !slices.ContainsFunc(msgs, func(m maildir.Message) bool { return m.Order != 0 }) {
		return msgs
	}
	key := func(m maildir.Message) uint32 {
		if m.Order == 0 {
			return math.MaxUint32
		}
		return m.Order
	}
	msgs = slices.Clone(msgs)
	slices.SortStableFunc(msgs, func(a, b maildir.Message) int {
		return cmp.Or(cmp.Compare(key(a), key(b)), cmp.Compare(a.UID, b.UID))
	})
	return msgs
}

// uidl is the unique id of a message (RFC 1939 §7): the one that Dovecot or an
// import wrote down, else Dovecot's default, %08Xu%08Xv.
func (d *maildrop) uidl(m maildir.Message) string {
	if validUIDL(m.UIDL) {
		return m.UIDL
	}
	return fmt.Sprintf("%08x%08x", m.UID, d.validity)
}

// validUIDL reports whether s is 1 to 70 characters from 0x21 to 0x7E.
func validUIDL(s string) bool {
	if s == "" || len(s) > 70 {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// message returns the message with a number, unless it is marked as deleted.
func (d *maildrop) message(n int) (maildir.Message, bool) {
	if n < 1 || n > len(d.msgs) || d.deleted[n-1] {
		return maildir.Message{}, false
	}
	return d.msgs[n-1], true
}

func (d *maildrop) delete(n int) {
	if d.deleted == nil {
		d.deleted = make(map[int]bool)
	}
	d.deleted[n-1] = true
	d.count--
	d.size -= max(d.msgs[n-1].Size, 0)
}

func (d *maildrop) markSeen(n int) {
	if d.msgs[n-1].Flags&maildir.Seen != 0 {
		return
	}
	if d.seen == nil {
		d.seen = make(map[int]bool)
	}
	d.seen[n-1] = true
}

// reset unmarks all messages.
func (d *maildrop) reset() {
	d.deleted = nil
	d.count, d.size = len(d.msgs), 0
	for i := range d.msgs {
		d.size += max(d.msgs[i].Size, 0) // less than 0: it is gone, or cannot be read
	}
}

// update is the UPDATE state: it removes what is marked (RFC 1939 §6). It
// returns how many are gone now; an error says that some are not.
func (d *maildrop) update(ctx context.Context) (int, error) {
	if len(d.deleted) == 0 {
		return 0, nil
	}
	uids := make([]uint32, 0, len(d.deleted))
	for i := range d.deleted {
		uids = append(uids, d.msgs[i].UID)
		delete(d.seen, i)
	}
	slices.Sort(uids)
	gone, err := d.folder.Expunge(ctx, uids)
	if err != nil {
		return len(gone), fmt.Errorf("remove %d messages: %w", len(uids), err)
	}
	return len(gone), nil
}

// close gives the mailbox back. What was retrieved and kept is marked as seen,
// as Dovecot does, so that a second client over IMAP shows it as read.
func (d *maildrop) close() error {
	defer d.store.Close()
	defer d.folder.Close()
	defer d.unlock()
	if len(d.seen) == 0 {
		return nil
	}
	uids := make([]uint32, 0, len(d.seen))
	for i := range d.seen {
		uids = append(uids, d.msgs[i].UID)
	}
	slices.Sort(uids)
	// Not the session's context: it may have ended with the session.
	if _, _, err := d.folder.SetFlags(context.Background(), uids, maildir.FlagAdd, maildir.Seen, 0); err != nil {
		return fmt.Errorf("mark retrieved messages as seen: %w", err)
	}
	return nil
}
