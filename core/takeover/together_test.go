package takeover

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// worker changes a mailbox through one program while others do the same.
type worker struct {
	c       *conn
	id      string
	r       *rand.Rand
	kept    map[string]bool // marks that must be there in the end, once
	removed map[string]bool // marks that must not
	given   []string        // folder, UIDVALIDITY and UID of all that it was told
	done    int
}

var shared = []string{"INBOX", "B", "C.d"}

// work goes on until the deadline. Only what a worker has put there itself does it
// move or remove: of two programs that move a message at the same time, Dovecot copies
// and then removes.
func (w *worker) work(until time.Time) {
	for ; time.Now().Before(until); w.done++ {
		i, j := w.r.IntN(3), w.r.IntN(3)
		from, to := shared[i], shared[j]
		switch n := w.r.IntN(10); {
		case n < 4:
			w.append(from)
		case n < 6:
			w.c.try("SELECT " + quote(from))
			a := 1 + w.r.IntN(30)
			w.c.try(fmt.Sprintf("STORE %d:%d %sFLAGS.SILENT (%s)", a, a+w.r.IntN(5), []string{"+", "-"}[w.r.IntN(2)], []string{`\Seen`, `\Flagged`, "k1", "$Junk"}[w.r.IntN(4)]))
		case n < 8 && i < j: // onwards: what comes back while others look may get another UID
			if uid, _ := w.own(from); uid != 0 {
				untagged, tagged := w.c.try(fmt.Sprintf("UID MOVE %d %s", uid, quote(to)))
				if code := copyUID.FindStringSubmatch(strings.Join(untagged, "\n") + tagged); code != nil {
					w.given = append(w.given, to+" "+code[1]+" "+code[3])
				}
			}
		case n == 8:
			if uid, mark := w.own(from); uid != 0 {
				w.c.ok(fmt.Sprintf(`UID STORE %d +FLAGS.SILENT (\Deleted)`, uid))
				w.c.ok(fmt.Sprintf("UID EXPUNGE %d", uid))
				if untagged := w.c.ok(fmt.Sprintf("UID SEARCH SUBJECT %s", mark)); len(strings.Fields(strings.Join(kept(untagged, "* SEARCH"), " "))) > 2 {
					continue // another set its flags at the same moment, without \Deleted
				}
				delete(w.kept, mark)
				w.removed[mark] = true
			}
		default:
			w.c.try("NOOP")
		}
	}
}

func (w *worker) append(folder string) {
	mark := fmt.Sprintf("mark-%sx%dz", w.id, len(w.kept)+len(w.removed))
	tagged := w.c.save(folder, "", "Subject: "+mark+"\r\n\r\nx\r\n")
	code := appendUID.FindStringSubmatch(tagged)
	if code == nil {
		w.c.t.Errorf("%s: APPEND: %s", w.c.name, tagged)
		return
	}
	w.kept[mark] = true
	w.given = append(w.given, folder+" "+code[1]+" "+code[2])
}

// own selects a folder and picks a message that the worker has put there.
func (w *worker) own(folder string) (uid int, mark string) {
	w.c.ok("SELECT " + quote(folder))
	found := strings.Fields(strings.Join(kept(w.c.ok("UID SEARCH SUBJECT mark-"+w.id+"x"), "* SEARCH"), " "))
	if len(found) < 3 {
		return 0, ""
	}
	uid, _ = strconv.Atoi(found[2+w.r.IntN(len(found)-2)])
	mark = markOf.FindString(strings.Join(w.c.ok(fmt.Sprintf("UID FETCH %d (ENVELOPE)", uid)), " "))
	if mark == "" {
		return 0, ""
	}
	return uid, mark
}

// settled waits until wafer has seen what Dovecot did between two changes of wafer's
// own: such a change it may find some seconds later only.
func settled(h *house) {
	h.t.Helper()
	d, w := h.dovecot("ann"), h.wafer("ann")
	defer d.close()
	defer w.close()
	for until := time.Now().Add(15 * time.Second); time.Now().Before(until); {
		equal := true
		for _, folder := range shared {
			mine, his := w.look(folder, "FLAGS"), d.look(folder, "FLAGS")
			equal = equal && slices.Equal(facts(mine.messages, "FLAGS"), facts(his.messages, "FLAGS"))
		}
		if equal {
			return
		}
	}
}

// TestTogether lets two sessions of each program change the same folders at the same
// time: nothing is lost, nothing doubled, and no UID is given twice.
func TestTogether(t *testing.T) {
	h := newHouse(t)
	h.configure(noListIndex)
	h.maildir(h.mail("ann"))
	h.own(h.dir + "/ann")
	n := seed(t)
	var workers []*worker
	for i := range 4 {
		c := h.wafer("ann")
		if i%2 == 0 {
			c.close()
			c = h.dovecot("ann")
		}
		if i == 0 {
			c.ok("CREATE B")
			c.ok("CREATE C.d")
		}
		workers = append(workers, &worker{c: c, id: string(rune('a' + i)), r: rand.New(rand.NewPCG(n, uint64(i))), kept: map[string]bool{}, removed: map[string]bool{}})
	}
	var group sync.WaitGroup
	until := time.Now().Add(5 * time.Second)
	for _, w := range workers {
		group.Go(func() { w.work(until) })
	}
	group.Wait()
	want, gone, given := map[string]bool{}, map[string]bool{}, map[string]string{}
	for _, w := range workers {
		w.c.close()
		t.Logf("%s %s: %d changes, %d messages left", w.c.name, w.id, w.done, len(w.kept))
		maps.Copy(want, w.kept)
		maps.Copy(gone, w.removed)
		for _, g := range w.given {
			if other := given[g]; other != "" {
				t.Errorf("the UID %s was given by %s and by %s", g, other, w.c.name+" "+w.id)
			}
			given[g] = w.c.name + " " + w.id
		}
	}
	settled(h)
	for _, c := range []*conn{h.wafer("ann"), h.dovecot("ann")} {
		seen := map[string]string{}
		for _, folder := range shared {
			for uid, items := range c.look(folder, "ENVELOPE").messages {
				mark, at := markOf.FindString(items["ENVELOPE"]), fmt.Sprint(folder, " ", uid)
				switch {
				case seen[mark] != "":
					t.Errorf("%s: %s is at %s and at %s", c.name, mark, seen[mark], at)
				case gone[mark]:
					t.Errorf("%s: %s was removed and is at %s", c.name, mark, at)
				}
				seen[mark] = at
			}
		}
		for _, mark := range slices.Sorted(maps.Keys(want)) {
			if seen[mark] == "" {
				t.Errorf("%s: %s is lost", c.name, mark)
			}
		}
		c.close()
	}
	d, w := h.dovecot("ann"), h.wafer("ann")
	for _, folder := range shared {
		same(t, folder, w.look(folder, allItems), d.look(folder, allItems), allItems)
	}
	d.close()
	w.close()
	samePOP3(t, h.waferPOP3("ann"), h.dovecotPOP3("ann"))
}
