package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// crowd is what several sessions on one mailbox have seen together.
type crowd struct {
	mu      sync.Mutex
	numbers map[string]int // message number by UID, which must never change
	changes int            // commands that changed the mailbox
}

// saw notes that message n has the UID.
func (c *crowd) saw(uid string, n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, ok := c.numbers[uid]; ok && was != n {
		return fmt.Errorf("UID %s is message %d, and was %d", uid, n, was)
	}
	c.numbers[uid] = n
	return nil
}

var (
	uidOf    = regexp.MustCompile(`UID (\d+)`)
	searched = regexp.MustCompile(`(?m)^\* SEARCH((?: \d+)*)`)
)

// member is one session that does things at random. What it does must never be
// answered with BAD; NO is right only where another session was first.
func (c *crowd) member(s *server, seed uint64, steps int) error {
	rng := rand.New(rand.NewPCG(seed, 2))
	p, err := s.reach("imap", 0)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.imapLogin("ann"); err != nil {
		return err
	}
	if _, err := p.imapOK("SELECT INBOX"); err != nil {
		return err
	}
	for range steps {
		a, err := p.imapOK("UID SEARCH ALL")
		if err != nil {
			return err
		}
		m := searched.FindSubmatch(a.raw)
		if m == nil {
			return fmt.Errorf("SEARCH: %q", a.raw)
		}
		uids := strings.Fields(string(m[1]))
		if len(uids) == 0 {
			continue
		}
		uid := uids[rng.IntN(len(uids))]
		var command string
		switch rng.IntN(9) {
		case 0, 1:
			a, err := p.imapOK("UID FETCH " + uid + " (UID FLAGS BODY.PEEK[])")
			if err != nil && !strings.HasPrefix(a.status, "NO") {
				return err
			}
			for _, b := range a.literals {
				n, err := whole(b)
				if err != nil {
					return fmt.Errorf("UID %s: %w: %.300q", uid, err, b)
				}
				if err := c.saw(uid, n); err != nil {
					return err
				}
			}
			continue
		case 2:
			command = "UID STORE " + uid + ` +FLAGS (\Seen $Word` + strconv.Itoa(rng.IntN(5)) + ")"
		case 3:
			command = "UID STORE " + uid + ` FLAGS.SILENT (\Answered)`
		case 4:
			command = "UID COPY " + uid + " Other"
		case 5:
			command = "UID MOVE " + uid + " Other"
		case 6:
			command = "UID STORE " + uid + ` +FLAGS.SILENT (\Deleted)`
		case 7:
			command = "EXPUNGE"
		case 8:
			command = "NOOP"
		}
		if a, err := p.imap(command); err != nil || strings.HasPrefix(a.status, "BAD") {
			return fmt.Errorf("%s: %q (%v)", command, a.status, err)
		}
		c.mu.Lock()
		c.changes++
		c.mu.Unlock()
	}
	_, err = p.imapOK("LOGOUT")
	return err
}

// TestCrowd lets many sessions change one mailbox at once while mail comes in.
// Afterwards every message that was delivered is in one of the two folders or
// was expunged, UIDs have kept their meaning, and what IMAP says is what the
// files say.
func TestCrowd(t *testing.T) {
	w := newWorld(t, setup{trusted: `["127.0.0.0/8"]`, plain: true})
	s := w.start()
	p := s.open("imap", 0)
	must(t, p.imapLogin("ann"))
	_, err := p.imapOK("CREATE Other")
	must(t, err)
	c := &crowd{numbers: map[string]int{}}
	seed := uint64(number(t, "WAFER_SEED", int(time.Now().UnixNano()&0xffffff)))
	t.Logf("seed %d", seed)

	first := make(chan struct{}) // closed when there is some mail
	var together sync.WaitGroup
	together.Go(func() {
		rng := rand.New(rand.NewPCG(seed, 3))
		p, err := s.reach("mx", 0)
		if err == nil {
			defer p.close()
			err = p.greeted()
		}
		for n := 1; n <= 200 && err == nil; n++ {
			if n == 20 {
				close(first)
			}
			var code int
			var text string
			if code, text, err = p.deliver("load@example.net", []string{account}, "", numbered(n, rng)); err == nil && code != 250 {
				err = errors.New(text)
			}
		}
		if err != nil {
			t.Errorf("delivery: %v", err)
		}
	})
	select {
	case <-first:
	case <-time.After(patience):
		t.Fatal("no mail has come in")
	}
	for i := range uint64(8) {
		together.Go(func() {
			if err := c.member(s, seed+i, 150); err != nil {
				t.Errorf("session %d: %v", i, err)
			}
		})
	}
	together.Wait()
	if c.changes < 20 {
		t.Errorf("only %d changes were made: the sessions did not meet any mail", c.changes)
	}

	total := 0
	for folder, dir := range map[string]string{"INBOX": w.maildir("ann"), "Other": w.maildir("ann") + "/.Other"} {
		a, err := p.imapOK("SELECT " + folder)
		must(t, err)
		files := len(mailIn(t, dir))
		total += files
		if !bytes.Contains(a.raw, fmt.Appendf(nil, "* %d EXISTS\r\n", files)) {
			t.Errorf("%s has %d files, but IMAP says %q", folder, files, a.raw)
		}
		if files == 0 {
			continue
		}
		a, err = p.imapOK("UID FETCH 1:* (UID BODY.PEEK[])")
		must(t, err)
		uids := uidOf.FindAllSubmatch(a.raw, -1)
		if len(a.literals) != files {
			t.Errorf("%s: FETCH gave %d messages of %d", folder, len(a.literals), files)
		}
		for i, b := range a.literals {
			n, err := whole(b)
			if err != nil {
				t.Errorf("%s: %v: %.300q", folder, err, b)
			} else if folder == "INBOX" && i < len(uids) {
				if err := c.saw(string(uids[i][1]), n); err != nil {
					t.Error(err)
				}
			}
		}
	}
	t.Logf("%d changes by 8 sessions, %d messages are left", c.changes, total)
	s.stop()
	if log := s.log.String(); strings.Contains(log, "level=ERROR") {
		t.Errorf("the log has an error:\n%s", tail(log[:strings.Index(log, "level=ERROR")+500], 800))
	}
}
