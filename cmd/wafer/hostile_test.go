package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/admin"
)

// attack is one thing that a hostile client does. It returns nil if the server
// did what it should.
type attack struct {
	name string
	door string
	run  func(p *peer) error
}

// The limits of the attacked server: the same as anywhere, but for the times.
const hostileLimits = `limits {
  idle        = "2s"
  data        = "4s"
  session     = "60s"
  errors_soft = 20
  errors_hard = 20
}
`

// maxResident is how large the server may become under all attacks at once.
const maxResident = 400 << 20

// TestHostile lets every attack loose at once, several times, on one server.
// Afterwards nothing may be left of them: no connection, no goroutine, no
// panic; and memory stays bounded all the time.
func TestHostile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{top: hostileLimits, plain: true})
	s := w.start()
	seedHostile(t, s)
	base := s.until("the first sessions end", quiet)

	attacks := append(append(smtpAttacks(), imapAttacks()...), pop3Attacks()...)
	attacks = append(attacks, attacksOnAll()...)
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	var running sync.WaitGroup
	turns := make(chan struct{}, 64) // at most so many at once
	client := 0
	for range rounds {
		for _, a := range attacks {
			client++
			from := client
			running.Go(func() {
				turns <- struct{}{}
				defer func() { <-turns }()
				p, err := connect(s.addr[a.door], from)
				if err != nil {
					t.Errorf("%s: %s: %v", a.door, a.name, err)
					return
				}
				defer p.close()
				if err := a.run(p); err != nil {
					t.Errorf("%s: %s: %v", a.door, a.name, err)
				}
			})
		}
	}
	running.Wait()

	st := s.until("no connection and no goroutine is left", func(st admin.Status) bool {
		return quiet(st) && st.Goroutines <= base.Goroutines+3
	})
	for _, l := range st.Listeners {
		if l.Panics != 0 {
			t.Errorf("%s: %d panics", l.Name, l.Panics)
		}
	}
	peak, err := s.peak()
	must(t, err)
	t.Logf("%d attacks: resident %d MiB now, %d MiB at most; goroutines %d before, %d after", rounds*len(attacks), s.memory()>>20, peak>>20, base.Goroutines, st.Goroutines)
	if peak > maxResident && os.Getenv("WAFER_RACE") == "" {
		t.Errorf("the server grew to %d MiB", peak>>20)
	}
	for _, bad := range []string{"panic", "level=ERROR", "goroutine "} {
		if log := s.log.String(); strings.Contains(log, bad) {
			i := strings.Index(log, bad)
			t.Errorf("the log has %q: %.800s", bad, log[max(0, i-200):])
		}
	}

	left, err := os.ReadDir(w.maildir("ann") + "/tmp")
	must(t, err)
	if len(left) != 0 {
		t.Errorf("%d drafts of nobody are left in ann/tmp, such as %s", len(left), left[0].Name())
	}

	// It still serves.
	seed(t, s, "after")
	p := s.open("imap", 0)
	must(t, p.imapLogin("ann"))
	a, err := p.imapOK("SELECT INBOX")
	must(t, err)
	if !bytes.Contains(a.raw, []byte(" EXISTS")) {
		t.Errorf("SELECT: %q", a.raw)
	}
	s.stop()
}

// seedHostile gives ann some mail to ask for, and uses every door once.
func seedHostile(t *testing.T, s *server) {
	seed(t, s, "h1", "h2")
	for _, door := range []string{"mx", "submission", "submissions", "imap", "imaps", "pop3", "pop3s"} {
		p := s.open(door, 0)
		_, err := p.line()
		must(t, err)
		if strings.HasPrefix(door, "imap") {
			_, err = p.imapOK(fmt.Sprintf("LOGIN %s %q", account, testPassword))
			must(t, err)
			_, err = p.imapOK("SELECT INBOX")
			must(t, err)
		}
		p.close()
	}
}

// peak is the largest resident set that the process ever had, in octets.
func (s *server) peak() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var kib int64
	_, err = fmt.Sscan(rest, &kib)
	return kib << 10, err
}

// pour writes n octets of pattern, or less if the server has enough of them.
func (p *peer) pour(pattern string, n int) error {
	block := []byte(strings.Repeat(pattern, 1+(64<<10)/len(pattern)))
	for n > 0 {
		p.arm()
		k, err := p.c.Write(block[:min(len(block), n)])
		n -= k
		if isReset(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the server neither reads nor closes: %w", err)
		}
	}
	return nil
}

// drainTo reads what the server says, until it closes, into a bounded buffer.
func (p *peer) drainTo() (said func() (string, error)) {
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	r := p.r
	go func() {
		var b bytes.Buffer
		_, err := io.Copy(&bounded{b: &b}, r)
		if isReset(err) {
			err = nil
		}
		done <- result{b.String(), err}
	}()
	return func() (string, error) {
		x := <-done
		return x.text, x.err
	}
}

// bounded keeps the first 64 KiB and the last line of what is written.
type bounded struct{ b *bytes.Buffer }

func (w *bounded) Write(p []byte) (int, error) {
	if w.b.Len() > 1<<20 {
		w.b.Truncate(64 << 10)
	}
	return w.b.Write(p)
}

// closed checks that the server closes, having said nothing that is not one of
// its replies.
func (p *peer) closed(prefixes ...string) error {
	text, err := p.gone()
	if err != nil {
		return fmt.Errorf("not closed: %w (it said %.200q)", err, text)
	}
	return sane(text, prefixes)
}

// sane checks that each line begins with one of prefixes.
func sane(text string, prefixes []string) error {
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, "\n") {
			break // cut by the reset
		}
		ok := false
		for _, prefix := range prefixes {
			ok = ok || strings.HasPrefix(line, prefix)
		}
		if !ok {
			return fmt.Errorf("it said %.200q", line)
		}
	}
	return nil
}

// answers are how lines of each protocol begin.
func answers(door string) []string {
	switch {
	case strings.HasPrefix(door, "imap"):
		return []string{"* ", "+ ", "a ", "b ", ")"}
	case strings.HasPrefix(door, "pop3"):
		return []string{"+OK", "-ERR", "+ "}
	}
	return []string{"2", "3", "4", "5"}
}

// random is n octets without order, the first of which is not that of a TLS
// handshake.
func random(n int) string {
	rng := rand.New(rand.NewPCG(uint64(n), 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	b[0] = 'x'
	return string(b)
}

// attacksOnAll are what can be done to every protocol.
func attacksOnAll() (all []attack) {
	for _, door := range []string{"mx", "submission", "imap", "pop3"} {
		lines := answers(door)
		add := func(name string, run func(p *peer) error) { all = append(all, attack{name, door, run}) }
		add("garbage", func(p *peer) error {
			said := p.drainTo()
			err := errors.Join(p.pour(random(1<<16), 1<<20), half(p))
			text, gone := said()
			return errors.Join(err, gone, sane(text, lines))
		})
		add("NULs", func(p *peer) error {
			said := p.drainTo()
			err := errors.Join(p.pour("\x00\x00\x00\r\n", 1<<18), half(p))
			text, gone := said()
			return errors.Join(err, gone, sane(text, lines))
		})
		add("a TLS hello", func(p *peer) error {
			c := tls.Client(p.c, &tls.Config{InsecureSkipVerify: true}) // there is no certificate to see
			p.arm()
			if err := c.Handshake(); err == nil {
				return errors.New("a handshake succeeded on a plain port")
			} else if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
				return errors.New("neither a reply nor a close")
			}
			return nil
		})
		add("hello and half a close", func(p *peer) error {
			if _, err := p.line(); err != nil {
				return err
			}
			return errors.Join(half(p), p.closed(lines...))
		})
		add("a reset", func(p *peer) error {
			return p.c.(*net.TCPConn).SetLinger(0)
		})
		add("a flood of commands whose answers nobody reads", func(p *peer) error {
			p.c.SetDeadline(time.Now().Add(time.Second)) // the answers fill both sockets' buffers
			block := strings.Repeat(map[string]string{"mx": "EHLO a.example\r\n", "submission": "EHLO a.example\r\n", "imap": "a CAPABILITY\r\n", "pop3": "CAPA\r\n"}[door], 4096)
			for {
				if _, err := io.WriteString(p.c, block); err != nil {
					return nil
				}
			}
		})
	}
	for _, door := range []string{"submissions", "imaps", "pop3s"} {
		add := func(name string, run func(p *peer) error) { all = append(all, attack{name, door, run}) }
		add("plain commands where TLS belongs", func(p *peer) error {
			if err := p.send("EHLO client.example.net\r\nNOOP\r\n"); err != nil {
				return err
			}
			_, err := p.gone()
			return err
		})
		add("a TLS record without an end", func(p *peer) error {
			if err := p.send("\x16\x03\x01\x40\x00\x01"); err != nil {
				return err
			}
			return half(p)
		})
		add("a half-open handshake and a reset", func(p *peer) error {
			if err := p.send("\x16\x03\x01"); err != nil {
				return err
			}
			return p.c.(*net.TCPConn).SetLinger(0)
		})
	}
	return all
}

// half closes our direction of a connection.
func half(p *peer) error {
	if err := p.c.(*net.TCPConn).CloseWrite(); err != nil && !isReset(err) {
		return err
	}
	return nil
}

// drip sends text octet by octet, one each tick, until the server closes, and
// returns what the server said. It waits for the server at most limit.
func (p *peer) drip(text string, tick, limit time.Duration) (string, error) {
	said := p.drainTo()
	p.c.SetDeadline(time.Now().Add(limit))
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for i := range text {
		if _, err := io.WriteString(p.c, text[i:i+1]); err != nil {
			break
		}
		<-ticker.C
	}
	return said()
}
