package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/admin"
)

// fate is what a client knows of a message.
type fate int

const (
	unknown fate = iota // sent in part or whole, without an answer
	acked               // 250
	refused             // any other answer
)

// ledger is what the clients of all rounds know.
type ledger struct {
	mu    sync.Mutex
	fates map[int]fate
	acks  chan struct{} // one for each 250
}

// begin makes a number for a new message.
func (l *ledger) begin() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.fates) + 1
	l.fates[n] = unknown
	return n
}

// settle notes an answer.
func (l *ledger) settle(n, code int) {
	l.mu.Lock()
	l.fates[n] = refused
	if code == 250 {
		l.fates[n] = acked
	}
	l.mu.Unlock()
	if code == 250 {
		select {
		case l.acks <- struct{}{}:
		default: // nobody counts any more
		}
	}
}

// numbered is message n: its number, random text, and the text's sum at the end.
func numbered(n int, rng *rand.Rand) string {
	var text strings.Builder
	size := 100 + rng.IntN(6000)
	if rng.IntN(10) == 0 {
		size = 200_000 // more than the server holds in memory
	}
	for text.Len() < size {
		fmt.Fprintf(&text, ".%016x%016x%016x\r\n", rng.Uint64(), rng.Uint64(), rng.Uint64())
	}
	sum := sha256.Sum256([]byte(text.String()))
	return fmt.Sprintf("From: load@example.net\r\nX-Number: %d\r\nSubject: number %d\r\n\r\n%sX-Sum: %s\r\n",
		n, n, text.String(), hex.EncodeToString(sum[:]))
}

// whole returns the number of a stored message, or why it is not whole.
func whole(b []byte) (int, error) {
	head, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		return 0, errors.New("no end of the header")
	}
	_, rest, ok := bytes.Cut(head, []byte("\r\nX-Number: "))
	if !ok {
		return 0, errors.New("no number")
	}
	digits, _, _ := bytes.Cut(rest, []byte("\r\n"))
	n, err := strconv.Atoi(string(digits))
	if err != nil {
		return 0, err
	}
	text, sum, ok := bytes.Cut(body, []byte("X-Sum: "))
	if !ok {
		return n, errors.New("no sum")
	}
	want := sha256.Sum256(text)
	if string(sum) != hex.EncodeToString(want[:])+"\r\n" {
		return n, errors.New("its sum is another")
	}
	return n, nil
}

// load sends messages until the server is gone. The even ones go to two
// mailboxes.
func (l *ledger) load(s *server, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	for {
		p, err := s.reach("mx", 0)
		if err != nil {
			return
		}
		err = p.greeted()
		for err == nil {
			n := l.begin()
			to := []string{"ann@" + testDomain}
			if n%2 == 0 {
				to = append(to, "bob@"+testDomain)
			}
			var code int
			if code, _, err = p.deliver("load@example.net", to, "", numbered(n, rng)); err == nil {
				l.settle(n, code)
			}
		}
		p.close()
	}
}

// read looks at ann's mailbox over and over, which moves what is new to cur,
// until the server is gone.
func read(s *server) {
	for {
		p, err := s.reach("imap", 0)
		if err != nil {
			return
		}
		err = p.imapLogin("ann")
		for err == nil {
			_, err = p.imap("SELECT INBOX")
		}
		p.close()
	}
}

// TestKillUnderLoad kills the server at random moments while clients send and
// read mail. Every message that was answered with 250 must be there, whole,
// once; what was not answered may be there, whole, once; nothing else may.
// WAFER_KILLS says how often, WAFER_SEED which way.
func TestKillUnderLoad(t *testing.T) {
	rounds := number(t, "WAFER_KILLS", 25)
	seed := uint64(number(t, "WAFER_SEED", int(time.Now().UnixNano()&0xffffff)))
	rng := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t, setup{trusted: `["127.0.0.0/8"]`, plain: true})
	l := &ledger{fates: map[int]fate{}}
	for round := range rounds {
		if rng.IntN(4) == 0 { // a kill in the middle of a start, too
			s := w.launch()
			wait(time.Duration(rng.IntN(100))*time.Millisecond, s.done)
			s.kill()
		}
		s := w.start()
		l.acks = make(chan struct{}, 1<<16)
		var clients sync.WaitGroup
		for i := range 6 {
			clients.Go(func() { l.load(s, seed+uint64(100*round+i)) })
		}
		clients.Go(func() { read(s) })
		for range 1 + rng.IntN(60) {
			select {
			case <-l.acks:
			case <-s.done:
				t.Fatalf("round %d: the server ended by itself: %s\n%s", round, s.cmd.ProcessState, tail(s.log.String(), 4000))
			case <-time.After(patience):
				t.Fatalf("round %d: no message was taken in %s", round, patience)
			}
		}
		wait(time.Duration(rng.IntN(5000))*time.Microsecond, s.done)
		s.kill()
		clients.Wait()
	}
	s := w.start()
	s.until("mailboxes take what they are owed", func(st admin.Status) bool { return st.Owed == 0 })
	p := s.open("imap", 0)
	must(t, p.imapLogin("ann"))
	a, err := p.imapOK("SELECT INBOX")
	if err != nil {
		locks, _ := filepath.Glob(w.maildir("ann") + "/*.lock") // the pattern is good
		for _, lock := range locks {
			b, err := os.ReadFile(lock)
			t.Logf("a killed server left %s with %q (%v)", filepath.Base(lock), b, err)
		}
		t.Fatalf("seed %d: after %d kills the mailbox cannot be read: %v", seed, rounds, err)
	}
	s.stop()

	ann, bob := l.inspect(t, w.maildir("ann")), l.inspect(t, w.maildir("bob"))
	if !bytes.Contains(a.raw, []byte(fmt.Sprintf("* %d EXISTS\r\n", len(ann)))) {
		t.Errorf("%d files, but IMAP says %q", len(ann), a.raw)
	}
	counts := map[fate]int{}
	stray := 0
	for n, f := range l.fates {
		counts[f]++
		switch {
		case f == acked && !ann[n]:
			t.Errorf("message %d was acknowledged and is not with ann", n)
		case f == acked && n%2 == 0 && !bob[n]:
			t.Errorf("message %d was acknowledged and is not with bob", n)
		case f == refused && (ann[n] || bob[n]):
			t.Errorf("message %d was refused and is there", n)
		case f == unknown && ann[n]:
			stray++
		}
	}
	t.Logf("seed %d, %d kills: %d messages acknowledged, %d refused, %d without an answer, of which %d are there", seed, rounds, counts[acked], counts[refused], counts[unknown], stray)
}

// inspect reads every file that a mail program would see in a Maildir, and
// returns the numbers that are there.
func (l *ledger) inspect(t *testing.T, maildir string) map[int]bool {
	there := map[int]bool{}
	for _, folder := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(maildir, folder))
		must(t, err)
		for _, e := range entries {
			name := filepath.Join(maildir, folder, e.Name())
			b, err := os.ReadFile(name)
			must(t, err)
			n, err := whole(b)
			if err != nil {
				t.Errorf("%s (%d octets, number %d): %v", name, len(b), n, err)
				continue
			}
			if there[n] {
				t.Errorf("%s: message %d is there twice", name, n)
			}
			there[n] = true
			if _, ok := l.fates[n]; !ok {
				t.Errorf("%s: nobody sent message %d", name, n)
			}
			if s := sizeInName(e.Name()); s != len(b) {
				t.Errorf("%s: the name says %d octets, the file has %d", name, s, len(b))
			}
		}
	}
	entries, err := os.ReadDir(maildir)
	must(t, err)
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s: nobody made the folder %s", maildir, e.Name())
		}
	}
	left, err := os.ReadDir(filepath.Join(maildir, "tmp"))
	must(t, err)
	t.Logf("%d files are left in %s/tmp, which nobody reads", len(left), filepath.Base(maildir))
	return there
}

// sizeInName is the S= of a Maildir file name, -1 if there is none.
func sizeInName(name string) int {
	_, rest, ok := strings.Cut(name, ",S=")
	if !ok {
		return -1
	}
	end := strings.IndexAny(rest, ",:")
	if end < 0 {
		end = len(rest)
	}
	n, err := strconv.Atoi(rest[:end])
	if err != nil {
		return -1
	}
	return n
}

// number reads an environment variable.
func number(t *testing.T, name string, fallback int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return fallback
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s=%q: %v", name, s, err)
	}
	return n
}

// wait returns after d, or when done is closed.
func wait(d time.Duration, done <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
}

// raiseFiles lets this process open n files, or skips the test.
func raiseFiles(t *testing.T, n uint64) {
	t.Helper()
	var l syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l))
	if l.Max < n {
		t.Skipf("this test opens %d files; the hard limit here is %d (ulimit -Hn)", n, l.Max)
	}
	l.Cur = l.Max
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l))
}
