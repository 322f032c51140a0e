package imapd

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// stresser is a client that does random things and believes nothing: every number
// that the server names is held against what the client was told before.
type stresser struct {
	c       *client
	rng     *rand.Rand
	name    string
	qresync bool
	box     string   // selected, "" if none
	uids    []uint32 // by sequence number, 0: not told yet
	did     map[string]int
}

var (
	stressFetch = regexp.MustCompile(`^\* (\d+) FETCH \((.*)\)$`)
	stressUID   = regexp.MustCompile(`(?:^| )UID (\d+)`)
	stressCount = regexp.MustCompile(`^\* (\d+) (EXISTS|EXPUNGE|RECENT)$`)
)

// untagged looks at one reply that came with a command.
func (s *stresser) untagged(command, line string) error {
	if m := stressCount.FindStringSubmatch(line); m != nil {
		n, _ := strconv.Atoi(m[1])
		switch m[2] {
		case "EXISTS":
			if n < len(s.uids) {
				return fmt.Errorf("EXISTS goes down from %d to %d", len(s.uids), n)
			}
			for len(s.uids) < n {
				s.uids = append(s.uids, 0)
			}
		case "EXPUNGE":
			if s.qresync {
				return fmt.Errorf("EXPUNGE after ENABLE QRESYNC")
			}
			if verb, _, _ := strings.Cut(command, " "); verb == "FETCH" || verb == "STORE" || verb == "SEARCH" || verb == "SORT" || verb == "THREAD" {
				return fmt.Errorf("EXPUNGE during %s", verb)
			}
			if n < 1 || n > len(s.uids) {
				return fmt.Errorf("EXPUNGE %d of %d messages", n, len(s.uids))
			}
			s.uids = slices.Delete(s.uids, n-1, n)
		}
		return nil
	}
	if rest, ok := strings.CutPrefix(line, "* VANISHED "); ok && !strings.HasPrefix(rest, "(EARLIER)") {
		return s.vanished(rest)
	}
	m := stressFetch.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	n, _ := strconv.Atoi(m[1])
	if n < 1 || n > len(s.uids) {
		return fmt.Errorf("FETCH of message %d of %d", n, len(s.uids))
	}
	if u := stressUID.FindStringSubmatch(m[2]); u != nil {
		uid64, _ := strconv.ParseUint(u[1], 10, 32)
		uid := uint32(uid64)
		if was := s.uids[n-1]; was != 0 && was != uid {
			return fmt.Errorf("message %d had UID %d and has %d", n, was, uid)
		}
		s.uids[n-1] = uid
		for i := n - 2; i >= 0; i-- {
			if s.uids[i] != 0 {
				if s.uids[i] >= uid {
					return fmt.Errorf("message %d has UID %d, message %d has %d", i+1, s.uids[i], n, uid)
				}
				break
			}
		}
	}
	return nil
}

func (s *stresser) vanished(set string) error {
	if !s.qresync {
		return fmt.Errorf("VANISHED without QRESYNC")
	}
	for _, part := range strings.Split(set, ",") {
		a, b, span := strings.Cut(part, ":")
		lo, _ := strconv.Atoi(a)
		hi := lo
		if span {
			hi, _ = strconv.Atoi(b)
		}
		for uid := lo; uid <= hi; uid++ {
			i := slices.Index(s.uids, uint32(uid))
			if i < 0 {
				if i = slices.Index(s.uids, 0); i < 0 {
					return fmt.Errorf("VANISHED %d, which is not there", uid)
				}
			}
			s.uids = slices.Delete(s.uids, i, i+1)
		}
	}
	return nil
}

// run sends a command and judges all that comes back.
func (s *stresser) run(command string) error {
	verb, _, _ := strings.Cut(command, " ")
	s.did[verb]++
	replies, tagged := s.c.cmd(command)
	for _, line := range replies {
		if err := s.untagged(command, line); err != nil {
			return fmt.Errorf("%s: %.60s: %w\n%s", s.name, command, err, strings.Join(replies, "\n"))
		}
	}
	switch {
	case strings.HasPrefix(tagged, "OK"), strings.HasPrefix(tagged, "NO [EXPUNGEISSUED]"):
		return nil
	}
	return fmt.Errorf("%s: %.80s: %s", s.name, command, tagged)
}

// known picks a message whose UID the client has been told.
func (s *stresser) known() (n int, uid uint32) {
	if len(s.uids) == 0 {
		return 0, 0
	}
	n = 1 + s.rng.IntN(len(s.uids))
	return n, s.uids[n-1]
}

// enter selects a mailbox and learns all UIDs.
func (s *stresser) enter(box string) error {
	s.uids, s.box = nil, box
	if err := s.run("SELECT " + box); err != nil {
		return err
	}
	return s.learn()
}

func (s *stresser) learn() error {
	if len(s.uids) == 0 {
		return nil
	}
	return s.run("UID FETCH 1:* (UID FLAGS)")
}

func (s *stresser) step() error {
	boxes := []string{"INBOX", "Other"}
	if s.box == "" || s.rng.IntN(60) == 0 {
		return s.enter(boxes[s.rng.IntN(2)])
	}
	other := boxes[0]
	if s.box == other {
		other = boxes[1]
	}
	if slices.Contains(s.uids, 0) && (s.qresync || s.rng.IntN(3) == 0) {
		return s.learn()
	}
	n, uid := s.known()
	if n == 0 || len(s.uids) < 15 && s.rng.IntN(2) == 0 {
		return s.run(fmt.Sprintf("APPEND %s (\\Seen) {%d+}\r\n%s", boxes[s.rng.IntN(2)], len(simpleMessage), simpleMessage))
	}
	hi := min(len(s.uids), n+s.rng.IntN(5))
	flag := []string{`\Flagged`, `\Answered`, `\Deleted`, "$Work", `\Draft`}[s.rng.IntN(5)]
	sign := []string{"+FLAGS", "-FLAGS", "FLAGS", "+FLAGS.SILENT"}[s.rng.IntN(4)]
	if uid == 0 {
		return s.run(fmt.Sprintf("FETCH %d (UID)", n))
	}
	switch s.rng.IntN(22) {
	case 0, 1, 2:
		return s.run(fmt.Sprintf("FETCH %d:%d (UID FLAGS ENVELOPE)", n, hi))
	case 3:
		return s.run(fmt.Sprintf("UID FETCH %d:* (FLAGS BODYSTRUCTURE)", uid))
	case 4:
		return s.run(fmt.Sprintf("FETCH %d (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])", n))
	case 5, 6, 7:
		return s.run(fmt.Sprintf("STORE %d:%d %s (%s)", n, hi, sign, flag))
	case 8:
		return s.run(fmt.Sprintf("UID STORE %d %s (%s)", uid, sign, flag))
	case 9:
		return s.run(fmt.Sprintf("COPY %d:%d %s", n, hi, other))
	case 10:
		return s.run(fmt.Sprintf("MOVE %d %s", n, other))
	case 11:
		return s.run(fmt.Sprintf("UID MOVE %d %s", uid, other))
	case 12, 13:
		return s.run("EXPUNGE")
	case 14:
		return s.run(fmt.Sprintf("UID EXPUNGE %d:*", uid))
	case 15:
		return s.run("SEARCH OR UNDELETED SUBJECT hello")
	case 16:
		return s.run("SORT (REVERSE ARRIVAL SUBJECT) UTF-8 ALL")
	case 17:
		return s.run("THREAD REFERENCES UTF-8 ALL")
	case 18:
		return s.idle()
	case 19:
		return s.run("STATUS " + other + " (MESSAGES UIDNEXT UNSEEN HIGHESTMODSEQ)")
	case 20:
		if s.rng.IntN(4) > 0 {
			return s.run("NOOP")
		}
		s.box, s.uids = "", nil
		return s.run([]string{"CLOSE", "UNSELECT"}[s.rng.IntN(2)])
	}
	return s.run("CHECK")
}

// idle stays in IDLE for a moment.
func (s *stresser) idle() error {
	s.did["IDLE"]++
	s.c.send("i IDLE\r\n")
	sent := false
	for {
		line := s.c.reply()
		switch {
		case strings.HasPrefix(line, "+"):
			time.Sleep(time.Duration(s.rng.IntN(3)) * time.Millisecond) // others work meanwhile
			s.c.send("DONE\r\n")
			sent = true
		case strings.HasPrefix(line, "i OK") && sent:
			return nil
		case strings.HasPrefix(line, "i "):
			return fmt.Errorf("%s: IDLE: %s", s.name, line)
		default:
			if err := s.untagged("IDLE", line); err != nil {
				return fmt.Errorf("%s: IDLE: %w", s.name, err)
			}
		}
	}
}

// TestStress lets many clients change two mailboxes at once. No client is told a
// number that contradicts what it was told before, and in the end all see the same.
// WAFER_STRESS is how many seconds it takes.
func TestStress(t *testing.T) {
	seconds := 3
	if n, err := strconv.Atoi(os.Getenv("WAFER_STRESS")); err == nil {
		seconds = n
	}
	seed := uint64(time.Now().UnixNano())
	ts := startServer(t, nil)
	first := ts.login(t)
	first.ok("CREATE Other")
	clients := make([]*stresser, 8)
	for i := range clients {
		s := &stresser{c: ts.login(t), rng: rand.New(rand.NewPCG(seed, uint64(i))), name: fmt.Sprintf("client %d", i), did: map[string]int{}}
		if i%3 == 2 {
			s.qresync = true
			s.c.ok("ENABLE QRESYNC")
		}
		clients[i] = s
	}
	var group sync.WaitGroup
	errs := make(chan error, len(clients))
	until := time.Now().Add(time.Duration(seconds) * time.Second)
	for _, s := range clients {
		group.Go(func() {
			for time.Now().Before(until) {
				if err := s.step(); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		t.Errorf("seed %d: %v", seed, err)
	}
	if t.Failed() {
		return
	}
	total := map[string]int{}
	for _, box := range []string{"INBOX", "Other"} {
		var want []string
		for i, s := range clients {
			for verb, n := range s.did {
				total[verb] += n
			}
			s.did = map[string]int{}
			if err := s.enter(box); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, line := range s.c.ok("FETCH 1:* (UID FLAGS)") {
				got = append(got, strings.ReplaceAll(strings.ReplaceAll(line, ` \Recent`, ""), `\Recent`, ""))
			}
			if i == 0 {
				want = got
			} else if s.qresync { // replies have MODSEQ besides
				continue
			} else if !slices.Equal(got, want) {
				t.Errorf("%s: client %d sees\n%s\nclient 0\n%s", box, i, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
	}
	t.Logf("commands: %v", total)
}
