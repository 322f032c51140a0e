package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/relay/relaytest"
)

// faulty is a host that takes mail as badly as a host can.
type faulty struct {
	good    atomic.Bool  // from now on it takes everything
	drops   atomic.Int64 // it took a message and broke off before its reply
	refused atomic.Int64 // for good

	mu  sync.Mutex
	rng *rand.Rand
}

func (f *faulty) roll(n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rng.IntN(n) == 0
}

func (f *faulty) reply(_ int, line string) string {
	if f.good.Load() {
		return ""
	}
	verb, _, _ := strings.Cut(line, " ")
	switch verb {
	case "":
		if f.roll(20) {
			return "421 4.3.2 busy"
		}
	case "MAIL":
		if f.roll(20) {
			return "451 4.7.1 later"
		}
		if f.roll(30) {
			return "drop"
		}
	case "RCPT":
		if f.roll(10) {
			return "450 4.2.0 greylisted"
		}
		if f.roll(15) {
			f.refused.Add(1)
			return "550 5.1.1 no such user"
		}
	case ".":
		switch {
		case f.roll(15):
			return "451 4.3.0 later"
		case f.roll(20):
			f.refused.Add(1)
			return "554 5.7.1 spam"
		case f.roll(20):
			f.drops.Add(1)
			return "drop"
		}
	}
	return ""
}

// outboundConfig sends all mail for others to one host.
func outboundConfig(host string) string {
	return fmt.Sprintf("queue {\n  retry_min = \"1s\"\n  retry_max = \"2s\"\n}\nroute \"*\" {\n  host = \"[127.0.0.1]:%s\"\n}\n", host[strings.LastIndexByte(host, ':')+1:])
}

// queueLen is how many messages are in the queue.
func (s *server) queueLen() int {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b, err := admin.Ask(ctx, s.w.path("state"), "/queue")
	must(s.t, err)
	return bytes.Count(b, []byte("\n"))
}

// awaitQueue waits until the queue has n messages and no attempt is under way.
func (s *server) awaitQueue(n string) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		b, err := admin.Ask(context.Background(), s.w.path("state"), "/queue")
		must(s.t, err)
		if fmt.Sprint(bytes.Count(b, []byte("\n"))) == n && !bytes.Contains(b, []byte(`"active"`)) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("there are not %s messages in the queue: %s", n, b)
		}
		wait(10*time.Millisecond, s.done)
	}
}

// flush tries everything at once.
func (s *server) flush() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := admin.Post(ctx, s.w.path("state"), "/queue/flush")
	must(s.t, err)
}

// emptied waits until the queue is empty.
func (s *server) emptied() { s.t.Helper(); s.emptiedIn(patience) }

// TestOutboundKill kills the server at random moments while clients give it mail for
// a host that fails in every way. Every message that was answered with 250 must have
// arrived there, or have been returned to its sender; and twice only where the host
// or the server died between the host's taking it and its being noted.
func TestOutboundKill(t *testing.T) {
	rounds := number(t, "WAFER_KILLS", 20)
	seed := uint64(number(t, "WAFER_SEED", int(time.Now().UnixNano()&0xffffff)))
	rng := rand.New(rand.NewPCG(seed, 0))
	f := &faulty{rng: rand.New(rand.NewPCG(seed, 1))}
	far := relaytest.Start(t, relaytest.Behaviour{Extensions: []string{"PIPELINING", "8BITMIME", "SIZE 0"}, Reply: f.reply})
	w := newWorld(t, setup{trusted: `["127.0.0.0/8"]`, top: outboundConfig(far.Addr().String())})
	l := &ledger{fates: map[int]fate{}}
	load := func(s *server, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		for {
			p, err := s.reach("mx", 0)
			if err != nil {
				return
			}
			err = p.greeted()
			for err == nil {
				n := l.begin()
				var code int
				if code, _, err = p.deliver(account, []string{fmt.Sprintf("x%d@far.example", n)}, "", numbered(n, rng)); err == nil {
					l.settle(n, code)
				}
			}
			p.close()
		}
	}
	for round := range rounds {
		s := w.start()
		l.acks = make(chan struct{}, 1<<16)
		var clients sync.WaitGroup
		for i := range 4 {
			clients.Go(func() { load(s, seed+uint64(100*round+i)) })
		}
		for range 1 + rng.IntN(40) {
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
	f.good.Store(true)
	s := w.start()
	s.emptiedIn(5 * time.Minute) // hundreds of kills leave thousands
	s.stop()

	arrived := map[int]int{}
	for _, m := range far.Messages() {
		n, err := whole([]byte(m.Data))
		if err != nil {
			t.Errorf("a message that is not whole arrived: %v", err)
		}
		arrived[n]++
	}
	returned := map[int]bool{}
	for _, text := range textsIn(t, w.maildir("ann")) {
		_, rest, ok := strings.Cut(text, "\r\nX-Number: ")
		var n int
		if _, err := fmt.Sscanf(rest, "%d", &n); !ok || err != nil || !strings.Contains(text, "Undelivered mail") {
			t.Errorf("ann has a message that is no notice: %.300q", text)
		}
		returned[n] = true
	}
	counts, twice := map[fate]int{}, 0
	for n, fate := range l.fates {
		counts[fate]++
		if fate == acked && arrived[n] == 0 && !returned[n] {
			t.Errorf("message %d was acknowledged, and neither arrived nor was returned", n)
		}
		if fate == refused && arrived[n] > 0 {
			t.Errorf("message %d was refused and arrived", n)
		}
		twice += max(arrived[n]-1, 0)
	}
	if most := int(f.drops.Load()) + 20*rounds; twice > most {
		t.Errorf("%d messages arrived twice; the host broke off %d times", twice, f.drops.Load())
	}
	left, _ := filepath.Glob(w.path("state/queue/aside/*"))
	for _, name := range left {
		if b, err := os.ReadFile(name); err == nil && strings.HasSuffix(name, ".e") {
			t.Errorf("set aside: %s: %.300s", name, b)
		}
	}
	t.Logf("seed %d, %d kills: %d acknowledged, %d refused at the door, %d without an answer; %d arrived, %d of them again after the host broke off %d times, %d returned (the host refused %d), %d bodies set aside",
		seed, rounds, counts[acked], counts[refused], counts[unknown], len(arrived), twice, f.drops.Load(), len(returned), f.refused.Load(), len(left))
}

// TestSubmitOut goes the whole way: a login on submission, the queue, a host far
// away, and a bounce back into the sender's mailbox.
func TestSubmitOut(t *testing.T) {
	far := relaytest.Start(t, relaytest.Behaviour{Extensions: []string{"PIPELINING", "8BITMIME", "DSN"}, Reply: func(_ int, line string) string {
		if strings.HasPrefix(line, "RCPT TO:<nobody@") {
			return "550 5.1.1 <nobody@far.example>: no such user"
		}
		return ""
	}})
	w := newWorld(t, setup{top: outboundConfig(far.Addr().String())})
	s := w.start()
	p := s.open("submissions", 0)
	must(t, p.greeted())
	if _, err := p.want(235, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+account+"\x00"+testPassword))); err != nil {
		t.Fatal(err)
	}
	code, text, err := p.deliver(account, []string{"eve@far.example", "nobody@far.example", "bob@" + testDomain}, "", "From: "+account+"\r\nTo: eve@far.example\r\nBcc: bob@"+testDomain+"\r\nSubject: out\r\n\r\nhello\r\n")
	if err != nil || code != 250 {
		t.Fatalf("%d %s (%v)", code, text, err)
	}
	s.emptied()
	ms := far.Messages()
	if len(ms) != 1 || !strings.Contains(ms[0].From, account) || strings.Contains(ms[0].Data, "Bcc") || !strings.Contains(ms[0].Data, "Message-ID: ") || !strings.Contains(ms[0].Data, "Date: ") {
		t.Errorf("arrived: %+v", ms)
	}
	if got := textsIn(t, w.maildir("bob")); len(got) != 1 || !strings.Contains(got[0], "hello") {
		t.Errorf("bob has %q", got)
	}
	got := textsIn(t, w.maildir("ann"))
	if len(got) != 1 || !strings.Contains(got[0], "<nobody@far.example>: no such user") || !strings.Contains(got[0], "Return-Path: <>") || strings.Contains(got[0], "eve@far.example>\r\n    ") {
		t.Errorf("ann has %q", got)
	}
	if _, err := p.want(553, "MAIL FROM:<bob@"+testDomain+">"); err != nil {
		t.Errorf("ann sends as bob: %v", err)
	}
	s.stop()
}

// TestForward: an alias that leads elsewhere, with a rewritten sender, the way back of
// a notice about it, and a loop.
func TestForward(t *testing.T) {
	far := relaytest.Start(t, relaytest.Behaviour{Extensions: []string{"PIPELINING"}})
	w := newWorld(t, setup{top: outboundConfig(far.Addr().String())})
	config, err := os.ReadFile(w.path("config.hcl"))
	must(t, err)
	w.write("config.hcl", strings.Replace(string(config), `postmaster = ["ann"]`, `postmaster = ["ann"], far = ["eve@far.example", "bob"]`, 1))
	s := w.start()
	p := s.open("mx", 0)
	must(t, p.greeted())
	deliver := func(from, to, text string) int {
		t.Helper()
		code, _, err := p.deliver(from, []string{to}, "", text)
		must(t, err)
		return code
	}
	if code := deliver("x@elsewhere.example", "far@"+testDomain, "From: x@elsewhere.example\r\n\r\none\r\n"); code != 250 {
		t.Fatal(code)
	}
	s.emptied()
	ms := far.Messages()
	if len(ms) != 1 || !strings.HasPrefix(ms[0].From, "<SRS0=") || !strings.HasPrefix(ms[0].Data, "Delivered-To: far@"+testDomain+"\r\n") {
		t.Fatalf("arrived: %+v", ms)
	}
	if got := textsIn(t, w.maildir("bob")); len(got) != 1 || !strings.Contains(got[0], "Return-Path: <x@elsewhere.example>") {
		t.Errorf("bob has %q", got)
	}
	back, _, _ := strings.Cut(strings.TrimPrefix(ms[0].From, "<"), ">")
	if code := deliver("", back, "Subject: notice\r\n\r\n"); code != 250 {
		t.Errorf("a notice to %s: %d", back, code)
	}
	if _, err := p.want(250, "MAIL FROM:<>"); err != nil {
		t.Error(err)
	}
	if _, err := p.want(550, "RCPT TO:<"+strings.Replace(back, "SRS0=", "SRS0=X", 1)+">"); err != nil {
		t.Errorf("a forged notice: %v", err)
	}
	if _, err := p.want(250, "RSET"); err != nil {
		t.Error(err)
	}
	s.emptied()
	if ms := far.Messages(); len(ms) != 2 || ms[1].Rcpts[0] != "<x@elsewhere.example>" {
		t.Errorf("the notice: %+v", ms)
	}
	// What comes back to the alias is returned, not sent on again; bob gets his.
	deliver("x@elsewhere.example", "far@"+testDomain, ms[0].Data)
	s.emptied()
	if ms := far.Messages(); len(ms) != 3 || !strings.Contains(ms[2].Data, "forwarding loop") {
		t.Errorf("after the loop: %d messages", len(ms))
	}
	s.stop()
}

// TestQueueJSON: the queue is listed with postqueue's names.
func TestQueueJSON(t *testing.T) {
	far := relaytest.Start(t, relaytest.Behaviour{Reply: func(_ int, line string) string {
		if strings.HasPrefix(line, "RCPT") {
			return "450 4.2.0 later, please"
		}
		return ""
	}})
	w := newWorld(t, setup{trusted: `["127.0.0.0/8"]`, top: strings.Replace(outboundConfig(far.Addr().String()), `"1s"`, `"1h"`, 1)})
	w.write("config.hcl", strings.Replace(read1(t, w.path("config.hcl")), `retry_max = "2s"`, `retry_max = "2h"`, 1))
	s := w.start()
	p := s.open("mx", 0)
	must(t, p.greeted())
	if code, _, err := p.deliver(account, []string{"eve@far.example"}, "", "Subject: x\r\n\r\n"); err != nil || code != 250 {
		t.Fatal(code, err)
	}
	var m map[string]any
	deadline := time.Now().Add(patience)
	for {
		b, err := admin.Ask(context.Background(), w.path("state"), "/queue")
		must(t, err)
		m = nil
		must(t, json.Unmarshal(b, &m))
		if r := m["recipients"].([]any)[0].(map[string]any)["delay_reason"]; m["queue_name"] == "deferred" && r != nil && strings.Contains(r.(string), "450 4.2.0 later, please") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v", m)
		}
		wait(10*time.Millisecond, s.done)
	}
	for _, key := range []string{"queue_name", "queue_id", "arrival_time", "message_size", "forced_expire", "sender", "recipients"} {
		if _, ok := m[key]; !ok {
			t.Errorf("no %s in %v", key, m)
		}
	}
	s.stop()
}

// textsIn are the messages that a mail program would see in a Maildir.
func textsIn(t *testing.T, maildir string) (texts []string) {
	t.Helper()
	for _, name := range mailIn(t, maildir) {
		texts = append(texts, read1(t, name))
	}
	return texts
}

func read1(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	return string(b)
}
