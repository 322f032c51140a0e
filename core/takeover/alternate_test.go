package takeover

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// seed is WAFER_SEED, or another one each time.
func seed(t testing.TB) uint64 {
	t.Helper()
	s := os.Getenv("WAFER_SEED")
	if s == "" {
		n := uint64(time.Now().UnixNano()) % 1_000_000
		t.Logf("WAFER_SEED=%d repeats this run", n)
		return n
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("WAFER_SEED is %q, want a number", s)
	}
	return n
}

// noListIndex makes Dovecot look at the directories for its list of folders. With its
// index of them it misses, for a second or a session, what any other program changes.
const noListIndex = "mailbox_list_index = no\n"

// TestAlternate lets both programs change the same mailbox in turns, in sessions that
// stay open, and looks at everything through both after every 20 changes.
func TestAlternate(t *testing.T) {
	h := newHouse(t)
	h.configure(noListIndex)
	h.maildir(h.mail("ann"))
	h.own(h.dir + "/ann")
	d, w := h.dovecot("ann"), h.wafer("ann")
	defer d.close()
	defer w.close()
	r := rand.New(rand.NewPCG(seed(t), 3))
	m := newModel(t, r, d, w)
	for n := range 1000 {
		c := d
		if r.IntN(2) == 0 {
			c = w
		}
		m.step(c)
		if n%20 == 19 {
			m.check(w)
			m.check(d)
		}
	}
	for _, name := range m.names() {
		same(t, name, w.look(name, allItems), d.look(name, allItems), allItems)
	}
	samePOP3(t, h.waferPOP3("ann"), h.dovecotPOP3("ann"))
}
