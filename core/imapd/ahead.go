package imapd

import (
	"runtime"
	"sync"

	"github.com/wafermail/wafer/core/maildir"
)

// aheadBatch is how many messages are looked at side by side before a reply needs
// them: the disk and the cores work while the client would wait for one after another.
const aheadBatch = 128

// ahead notes facts about messages before they are asked for.
type ahead struct {
	v         *view
	headers   bool
	structure bool
	rev2      bool
}

// note finds out about those of the messages of which the facts are not known. What
// goes wrong shows again, to whoever needs the message.
func (a *ahead) note(uids []uint32) {
	if !a.headers && !a.structure {
		return
	}
	f := a.v.getFacts()
	var missing []uint32
	for _, uid := range uids {
		_, have := f.Get(uid, headerFact)
		if _, ok := f.Get(uid, structureKind(a.rev2)); a.headers && !have || a.structure && !ok {
			missing = append(missing, uid)
		}
	}
	if len(missing) < 2 {
		return
	}
	type found struct{ header, structure []byte }
	all := make([]found, len(missing))
	workers := min(4*runtime.GOMAXPROCS(0), 16, len(missing))
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for i := w; i < len(missing); i += workers {
				m := a.v.message(missing[i])
				if a.headers {
					all[i].header, _ = m.describeHeader()
				}
				if a.structure {
					var err error
					if all[i].structure, err = m.describeStructure(a.rev2); err != nil {
						all[i].structure = nil
					}
				}
				m.close()
			}
		})
	}
	group.Wait()
	for i, uid := range missing {
		for kind, fact := range map[maildir.FactKind][]byte{headerFact: all[i].header, structureKind(a.rev2): all[i].structure} {
			if fact != nil {
				f.Note(uid, kind, fact)
			}
		}
	}
}
