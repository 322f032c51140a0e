package main

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// folders are where TestKillIMAP moves messages about.
var killFolders = []string{"INBOX", "Other"} // never changed

// copyOf is one message in a folder.
type copyOf struct {
	folder string
	uid    uint32
}

// stored is what is known of one message number: how many copies there are at least
// and at most, and whether they are flagged if that is known.
type stored struct {
	least, most   int
	flagged       bool
	flagKnown     bool
	interruptedBy string
}

// shelf is what one client of TestKillIMAP knows of its own messages.
type shelf struct {
	rng    *rand.Rand
	first  int // the numbers of its messages are first, first+1, …
	next   int
	known  map[int]*stored
	copies map[copyOf]int // to numbers
}

var (
	appended = regexp.MustCompile(`APPENDUID (\d+) (\d+)`)
	copied   = regexp.MustCompile(`COPYUID (\d+) (\d+) (\d+)`)
)

// work does random things until the connection is lost.
func (s *shelf) work(p *peer) {
	for {
		if s.step(p) != nil {
			return
		}
	}
}

func (s *shelf) step(p *peer) error {
	if len(s.copies) < 5 || len(s.copies) < 40 && s.rng.IntN(3) == 0 {
		return s.append(p)
	}
	var at copyOf
	k := s.rng.IntN(len(s.copies))
	for at = range s.copies {
		if k--; k < 0 {
			break
		}
	}
	n := s.copies[at]
	other := killFolders[1-index(at.folder)]
	if _, err := p.imapOK("SELECT " + at.folder); err != nil {
		return err
	}
	m := s.known[n]
	switch s.rng.IntN(5) {
	case 0, 1:
		on := s.rng.IntN(2) == 0
		m.flagKnown = false
		m.interruptedBy = "STORE"
		sign := map[bool]string{true: "+", false: "-"}[on]
		if _, err := p.imapOK(fmt.Sprintf(`UID STORE %d %sFLAGS (\Flagged)`, at.uid, sign)); err != nil {
			return err
		}
		if m.least == 1 && m.most == 1 {
			m.flagged, m.flagKnown = on, true
		}
	case 2:
		m.interruptedBy = "MOVE"
		a, err := p.imapOK(fmt.Sprintf("UID MOVE %d %s", at.uid, other))
		if err != nil {
			return err
		}
		delete(s.copies, at)
		s.add(copied, string(a.raw), other, n)
	case 3:
		m.interruptedBy = "COPY"
		m.most++
		a, err := p.imapOK(fmt.Sprintf("UID COPY %d %s", at.uid, other))
		if err != nil {
			return err
		}
		m.least++
		m.flagKnown = false
		s.add(copied, a.status, other, n)
	default:
		m.interruptedBy = "EXPUNGE"
		m.flagKnown = false
		if _, err := p.imapOK(fmt.Sprintf(`UID STORE %d +FLAGS.SILENT (\Deleted)`, at.uid)); err != nil {
			return err
		}
		m.least--
		if _, err := p.imapOK(fmt.Sprintf("UID EXPUNGE %d", at.uid)); err != nil {
			return err
		}
		m.most--
		delete(s.copies, at)
	}
	m.interruptedBy = ""
	return nil
}

func (s *shelf) append(p *peer) error {
	n := s.first + s.next
	s.next++
	s.known[n] = &stored{most: 1, interruptedBy: "APPEND"}
	folder := killFolders[s.rng.IntN(2)]
	body := fmt.Sprintf("Subject: kill\r\nX-Number: %d\r\n\r\n%s", n, strings.Repeat("text of the message\r\n", s.rng.IntN(200)))
	a, err := p.imapOK(fmt.Sprintf("APPEND %s {%d+}\r\n%s", folder, len(body), body))
	if err != nil {
		return err
	}
	s.known[n].least, s.known[n].interruptedBy = 1, ""
	s.known[n].flagKnown = true
	s.add(appended, a.status, folder, n)
	return nil
}

func index(folder string) int {
	if folder == killFolders[0] {
		return 0
	}
	return 1
}

// add notes a copy whose UID a response code tells.
func (s *shelf) add(code *regexp.Regexp, text, folder string, n int) {
	if m := code.FindStringSubmatch(text); m != nil {
		uid, _ := strconv.ParseUint(m[len(m)-1], 10, 32)
		s.copies[copyOf{folder, uint32(uid)}] = n
	}
}

var numberLine = regexp.MustCompile(`(?s)UID (\d+) FLAGS \(([^)]*)\).{1,80}?X-Number: (\d+)`)

// TestKillIMAP kills the server at random moments while clients append, flag, copy,
// move and expunge. Nothing that was acknowledged is lost, MOVE doubles nothing, no
// UID means another message later, and modification sequences never go back.
func TestKillIMAP(t *testing.T) {
	rounds := number(t, "WAFER_KILLS", 15)
	seed := uint64(number(t, "WAFER_SEED", int(time.Now().UnixNano()&0xffffff)))
	rng := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t, setup{})
	shelves := make([]*shelf, 3)
	for i := range shelves {
		shelves[i] = &shelf{rng: rand.New(rand.NewPCG(seed, uint64(i+1))), first: 1_000_000 * (i + 1), known: map[int]*stored{}, copies: map[copyOf]int{}}
	}
	meant := map[string]int{} // folder, UIDVALIDITY and UID to the number
	modseqs := map[string]uint64{}
	ops := 0
	check := func(s *server, round int) {
		p := s.open("imaps", 0)
		must(t, p.imapLogin("ann"))
		if _, err := p.imap("CREATE Other"); err != nil {
			t.Fatal(err)
		}
		counts, flags := map[int]int{}, map[int]bool{}
		for _, sh := range shelves {
			clear(sh.copies)
		}
		for _, folder := range killFolders {
			a, err := p.imapOK("SELECT " + folder)
			must(t, err)
			validity := regexp.MustCompile(`UIDVALIDITY (\d+)`).FindStringSubmatch(string(a.raw))[1]
			modseq, _ := strconv.ParseUint(regexp.MustCompile(`HIGHESTMODSEQ (\d+)`).FindStringSubmatch(string(a.raw))[1], 10, 64)
			key := folder + "/" + validity
			if modseq < modseqs[key] {
				t.Errorf("round %d: HIGHESTMODSEQ of %s was %d and is %d", round, folder, modseqs[key], modseq)
			}
			modseqs[key] = modseq
			if strings.Contains(string(a.raw), "* 0 EXISTS") {
				continue
			}
			a, err = p.imapOK("UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (X-Number)])")
			must(t, err)
			for _, m := range numberLine.FindAllStringSubmatch(string(a.raw), -1) {
				uid, _ := strconv.ParseUint(m[1], 10, 32)
				n, _ := strconv.Atoi(m[3])
				counts[n]++
				flags[n] = strings.Contains(m[2], `\Flagged`)
				id := key + "/" + m[1]
				if was, ok := meant[id]; ok && was != n {
					t.Errorf("round %d: UID %s of %s was message %d and is %d", round, m[1], folder, was, n)
				}
				meant[id] = n
				shelves[n/1_000_000-1].copies[copyOf{folder, uint32(uid)}] = n
			}
		}
		for _, sh := range shelves {
			for n, m := range sh.known {
				if c := counts[n]; c < m.least || c > m.most {
					t.Errorf("round %d: message %d is there %d times, want %d to %d (interrupted: %q)", round, n, c, m.least, m.most, m.interruptedBy)
				}
				if m.flagKnown && counts[n] == 1 && flags[n] != m.flagged {
					t.Errorf("round %d: message %d flagged: %v, want %v", round, n, flags[n], m.flagged)
				}
				m.least, m.most = counts[n], counts[n]
				m.flagged, m.flagKnown = flags[n], counts[n] == 1
				ops++
			}
		}
		p.close()
	}
	for round := range rounds {
		s := w.start()
		check(s, round)
		var clients sync.WaitGroup
		for _, sh := range shelves {
			clients.Go(func() {
				p, err := s.reach("imaps", 0)
				if err != nil {
					return
				}
				defer p.close()
				if p.imapLogin("ann") == nil {
					sh.work(p)
				}
			})
		}
		wait(time.Duration(20+rng.IntN(200))*time.Millisecond, s.done)
		s.kill()
		clients.Wait()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	s := w.start()
	check(s, rounds)
	s.stop()
	t.Logf("seed %d, %d kills, %d messages made, %d looked at", seed, rounds, shelves[0].next+shelves[1].next+shelves[2].next, ops)
}
