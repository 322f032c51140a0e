package imapd

import (
	"runtime"
	"sync"
)

// aheadBatch is how many messages are looked at side by side before a reply needs
// them: the disk and the cores work while the client would wait for one after another.
const aheadBatch = 128

// ahead notes facts about messages before they are asked for, batch by batch: while the
// facts of one batch are used, those of the next are found out.
type ahead struct {
	v         *view
	headers   bool
	structure bool
	rev2      bool

	uids []uint32 // of the messages, in the order in which they will be needed
	next *batch   // nil: none is under way
}

// reach is called before the n-th message is used, for each n from 0 on.
func (a *ahead) reach(n int) {
	if n%aheadBatch != 0 || !a.headers && !a.structure {
		return
	}
	from := func(n int) []uint32 { return a.uids[min(n, len(a.uids)):min(n+aheadBatch, len(a.uids))] }
	if n == 0 {
		a.begin(from(0))
	}
	a.end()
	a.begin(from(n + aheadBatch))
}

// batch is messages that are being looked at.
type batch struct {
	uids  []uint32
	facts []facts
	group sync.WaitGroup
}

// facts is what was found out about one message; nil: nothing, and whoever needs it
// will see why.
type facts struct{ header, structure []byte }

// begin starts to find out about those of the messages of which the facts are not known.
func (a *ahead) begin(uids []uint32) {
	f := a.v.getFacts()
	b := &batch{}
	for _, uid := range uids {
		_, have := f.Get(uid, headerFact)
		if _, ok := f.Get(uid, structureKind(a.rev2)); a.headers && !have || a.structure && !ok {
			b.uids = append(b.uids, uid)
		}
	}
	if len(b.uids) < 2 {
		return
	}
	b.facts = make([]facts, len(b.uids))
	workers := min(4*runtime.GOMAXPROCS(0), 16, len(b.uids))
	for w := range workers {
		b.group.Go(func() {
			for i := w; i < len(b.uids); i += workers {
				b.facts[i] = a.look(b.uids[i])
			}
		})
	}
	a.next = b
}

// look finds out about one message.
func (a *ahead) look(uid uint32) (x facts) {
	m := a.v.message(uid)
	defer m.close()
	if a.headers {
		x.header, _ = m.describeHeader()
	}
	if a.structure {
		var err error
		if x.structure, err = m.describeStructure(a.rev2); err != nil {
			x.structure = nil
		}
	}
	return x
}

// end waits for the batch that has begun, and notes what was found. Who has called
// reach must call it, whatever happens.
func (a *ahead) end() {
	b := a.next
	if b == nil {
		return
	}
	a.next = nil
	b.group.Wait()
	f := a.v.getFacts()
	for i, uid := range b.uids {
		if x := &b.facts[i]; x.header != nil {
			f.Note(uid, headerFact, x.header)
		}
		if x := &b.facts[i]; x.structure != nil {
			f.Note(uid, structureKind(a.rev2), x.structure)
		}
	}
}
