package maildir

// event is something that happened to a name in cur or new.
type event struct {
	path   string // relative to the folder
	appear bool   // the name is new; else it is gone
}

// eventList collects events until the next look.
type eventList struct {
	poked    bool // list new/ at least
	overflow bool // events were lost
	list     []event
}

const maxEvents = 256

// note adds an event and wakes the watchers.
func (b *box) note(e event) {
	b.mu.Lock()
	if len(b.events.list) < maxEvents {
		b.events.list = append(b.events.list, e)
	} else {
		b.events.overflow = true
	}
	b.mu.Unlock()
	b.wake()
}

// lostEvents notes that something unknown may have happened.
func (b *box) lostEvents() {
	b.mu.Lock()
	b.events.overflow = true
	b.mu.Unlock()
	b.wake()
}

// takeEvents empties the list. The turn is held.
func (b *box) takeEvents() (l eventList, poked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, b.events = b.events, eventList{}
	return l, l.poked
}

// unexplained reports whether some event in cur is not what the box knows
// already: its own changes cause events too. The turn is held.
func (b *box) unexplained(l eventList) bool {
	if l.overflow {
		return true
	}
	if len(l.list) == 0 {
		return false
	}
	last := map[string]bool{} // by path: is it there
	bases := map[string]bool{}
	for _, e := range l.list {
		if len(e.path) < 4 || e.path[:4] != "cur/" {
			continue // new is listed whenever its mtime says so
		}
		last[e.path] = e.appear
		base, _ := splitName(e.path[4:])
		bases[base] = true
	}
	at := make(map[string]bool, len(bases))
	for i := range b.msgs {
		if bases[b.msgs[i].Key] {
			at[b.path(&b.msgs[i])] = true
		}
	}
	for path, there := range last {
		if at[path] != there {
			return true
		}
	}
	return false
}
