package maildir

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// notes gives n messages a fact of each of two kinds, of changing size.
func notes(f *Facts, uids []uint32) {
	for _, uid := range uids {
		f.Note(uid, 1, fact(uid, 1))
		f.Note(uid, 2, fact(uid, 2))
	}
	f.Flush()
}

func fact(uid uint32, kind int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("%d/%d ", uid, kind)), int(uid)%700)
}

func holds(f *Facts, uid uint32) int {
	n := 0
	for kind := 1; kind <= 2; kind++ {
		got, ok := f.Get(uid, FactKind(kind))
		if ok && bytes.Equal(got, fact(uid, kind)) {
			n++
		} else if ok {
			return -1
		}
	}
	return n
}

func factsFolder(t *testing.T, n int) (*Folder, []uint32) {
	t.Helper()
	p := NewPool(Options{UID: -1, GID: -1})
	s := openStore(t, p, t.TempDir())
	f := openFolder(t, s, "INBOX")
	var uids []uint32
	for range n {
		uids = append(uids, appendText(t, f, "Subject: x\r\n\r\nbody\r\n", 0).UID)
	}
	return f, uids
}

func TestFacts(t *testing.T) {
	f, uids := factsFolder(t, 300)
	x := f.Facts(1)
	notes(x, uids)
	again := f.Facts(1)
	for _, uid := range uids {
		if holds(x, uid) != 2 || holds(again, uid) != 2 {
			t.Fatalf("facts about %d are not there", uid)
		}
	}
	if _, ok := x.Get(uids[0], 3); ok {
		t.Error("there is a fact that nobody has noted")
	}
	x.Note(uids[0], 1, []byte("another"))
	if holds(x, uids[0]) != 2 {
		t.Error("a fact has changed")
	}
	x.Note(uids[0], 3, make([]byte, maxFact+1))
	if _, ok := x.Get(uids[0], 3); ok {
		t.Error("a fact without bounds is kept")
	}
	f.b.restFacts()
	x = f.Facts(1)
	for _, i := range rand.Perm(len(uids)) {
		if holds(x, uids[i]) != 2 {
			t.Fatalf("facts about %d are not there when the file is opened again", uids[i])
		}
	}
	if y := f.Facts(2); holds(y, uids[0]) != 0 {
		t.Error("facts of another version are believed")
	}
}

// TestFactsDamage: whatever happens to the file, no wrong fact comes out of it, and
// new ones can be noted.
func TestFactsDamage(t *testing.T) {
	f, uids := factsFolder(t, 60)
	notes(f.Facts(1), uids)
	f.b.restFacts()
	name := filepath.Join(f.b.dir, factsName)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		b := bytes.Clone(whole)
		switch round % 4 {
		case 0:
			b = b[:rng.IntN(len(b))]
		case 1:
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		case 2:
			at := rng.IntN(len(b))
			clear(b[at:])
		case 3:
			at := rng.IntN(len(b))
			b = append(b[:at:at], b[min(len(b), at+rng.IntN(100)):]...)
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		x := f.Facts(1)
		for _, uid := range uids {
			if holds(x, uid) < 0 {
				t.Fatalf("round %d: a wrong fact about %d", round, uid)
			}
		}
		notes(x, uids)
		f.b.restFacts()
		x = f.Facts(1)
		there := 0
		for _, uid := range uids {
			there += holds(x, uid)
		}
		if there < 2*len(uids)-2 { // a record whose contents are damaged keeps its place
			t.Fatalf("round %d: %d facts after noting %d", round, there, 2*len(uids))
		}
		f.b.restFacts()
	}
}

// TestFactsCompact: what is about messages that have gone is left out in the end.
func TestFactsCompact(t *testing.T) {
	f, uids := factsFolder(t, 100)
	big := make([]byte, 60<<10)
	x := f.Facts(1)
	for _, uid := range uids {
		x.Note(uid, 1, big)
	}
	x.Flush()
	if _, err := f.Expunge(t.Context(), uids[:80]); err != nil {
		t.Fatal(err)
	}
	f.b.restFacts()
	x = f.Facts(1)
	for i, uid := range uids {
		if _, ok := x.Get(uid, 1); ok != (i >= 80) {
			t.Errorf("message %d of 100: fact there: %v", i, ok)
		}
	}
	if fi, err := os.Stat(filepath.Join(f.b.dir, factsName)); err != nil || fi.Size() > 21*(60<<10)+1000 {
		t.Errorf("the file has %d octets (%v)", fi.Size(), err)
	}
}

// TestFactsNoRoom: where nothing can be written, mail is read all the same.
func TestFactsNoRoom(t *testing.T) {
	f, uids := factsFolder(t, 1)
	if err := os.Mkdir(filepath.Join(f.b.dir, factsName), 0o700); err != nil {
		t.Fatal(err)
	}
	x := f.Facts(1)
	x.Note(uids[0], 1, []byte("x"))
	x.Flush()
	if _, ok := x.Get(uids[0], 1); ok {
		t.Error("a fact is kept nowhere")
	}
}
