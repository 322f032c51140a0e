package imapd

import (
	"sync"

	"github.com/wafermail/wafer/core/maildir"
)

const maxRecents = 50000

type recentKey struct {
	user, folder string
	validity     uint32
}

// recents remembers the first UID of each folder that no session has been told
// of as \Recent (RFC 3501 §2.3.2).
type recents struct {
	mu   sync.Mutex
	from map[recentKey]uint32
}

// claim returns the first recent UID for a session that selects a folder. If it
// may change the folder, later sessions do not get the same again. Where
// nothing is known, the unseen messages at the end are taken for recent.
func (r *recents) claim(key recentKey, msgs []maildir.Message, next uint32, take bool) uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	from, known := r.from[key]
	if !known {
		from = next
		for i := len(msgs) - 1; i >= 0 && msgs[i].Flags&maildir.Seen == 0; i-- {
			from = msgs[i].UID
		}
	}
	if !known || take {
		if len(r.from) >= maxRecents {
			for k := range r.from { // any: it is only a hint to people
				delete(r.from, k)
				break
			}
		}
		r.from[key] = from
		if take {
			r.from[key] = max(next, from)
		}
	}
	return from
}
