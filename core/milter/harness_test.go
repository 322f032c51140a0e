package milter

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// fake is a milter that keeps a journal of what it is told.
type fake struct {
	address string
	version uint32
	actions uint32
	steps   uint32
	lists   string // of macros, as on the wire
	// says answers a command of the n-th connection (from 1) in packets; nil: continue
	// where an answer is due. ok false cuts the connection.
	says func(n int, cmd byte, data string) (answers string, ok bool)
	raw  func(n int, c net.Conn, r *bufio.Reader) // in place of all that

	mu      sync.Mutex
	journal []string
	macros  []string
	ended   int
	gone    chan struct{} // one for each connection that has ended
}

// pack is a packet.
func pack(code byte, data string) string { return string(appendPacket(nil, code, []byte(data))) }

// start makes f listen.
func (f *fake) start(t testing.TB) *fake {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if f.version == 0 {
		f.version = newest
	}
	f.address, f.gone = "unix:"+path, make(chan struct{}, 1000)
	var wg sync.WaitGroup
	var open []net.Conn
	wg.Go(func() {
		for n := 1; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			open = append(open, c)
			f.mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				f.serve(n, c)
				f.mu.Lock()
				f.ended++
				f.mu.Unlock()
				f.gone <- struct{}{}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		f.mu.Lock()
		for _, c := range open {
			c.Close()
		}
		f.mu.Unlock()
		wg.Wait()
	})
	return f
}

func (f *fake) serve(n int, c net.Conn) {
	r := bufio.NewReader(c)
	if f.raw != nil {
		f.raw(n, c, r)
		return
	}
	t := terms{version: f.version, steps: f.steps}
	for {
		code, data, err := readPacket(r)
		if err != nil {
			return
		}
		f.note(code, data)
		switch code {
		case cmdOptNeg:
			b := binary.BigEndian.AppendUint32(nil, f.version)
			b = binary.BigEndian.AppendUint32(b, f.actions)
			b = binary.BigEndian.AppendUint32(b, f.steps)
			if _, err := c.Write(appendPacket(nil, cmdOptNeg, append(b, f.lists...))); err != nil {
				return
			}
			continue
		case cmdQuit:
			return
		case cmdMacro, cmdAbort:
			continue
		}
		answers, ok := "", true
		if f.says != nil {
			answers, ok = f.says(n, code, string(data))
		}
		if !ok {
			return
		}
		if answers == "" && t.answers(code) {
			answers = pack(ansContinue, "")
		}
		if _, err := c.Write([]byte(answers)); err != nil {
			return
		}
	}
}

// note writes the journal: a letter, and the strings with "|" between them.
func (f *fake) note(code byte, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := strings.ReplaceAll(strings.TrimSuffix(string(data), "\x00"), "\x00", "|")
	switch code {
	case cmdMacro:
		f.macros = append(f.macros, text)
		return
	case cmdOptNeg:
		text = ""
	case cmdConnect:
		if i := strings.IndexByte(text, '|'); i >= 0 && len(text) > i+3 && text[i+1] != 'U' {
			text = fmt.Sprintf("%s|%c|%d|%s", text[:i], text[i+1], binary.BigEndian.Uint16(data[i+2:]), text[i+4:])
		}
	case cmdBody:
		if len(data) > 40 {
			text = fmt.Sprint(len(data), " octets")
		}
	}
	f.journal = append(f.journal, strings.TrimRight(string(code)+" "+text, " "))
}

// take returns the journal and empties it.
func (f *fake) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.journal, "; ")
	f.journal = nil
	return s
}

// takeMacros returns the macros that were sent and forgets them.
func (f *fake) takeMacros() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.macros, "\n")
	f.macros = nil
	return s
}

// waitGone waits for the end of a connection.
func (f *fake) waitGone(t testing.TB) {
	t.Helper()
	select {
	case <-f.gone:
	case <-time.After(20 * time.Second):
		t.Fatal("the connection was not closed")
	}
}

func open(t testing.TB, o Options) *Plugin {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func pathOf(t testing.TB, s string) mail.Path {
	t.Helper()
	p, err := mail.ParsePath(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func pathsOf(t testing.TB, all ...string) (paths []mail.Path) {
	for _, s := range all {
		paths = append(paths, pathOf(t, s))
	}
	return paths
}

// host notes metrics and log lines.
type host struct {
	policy.Host
	metrics map[string]int64
	logs    []string
	calls   []policy.HostCall
}

func newHost() *host { return &host{metrics: map[string]int64{}} }

func (h *host) Metric(label string, delta int64) { h.metrics[label] += delta }
func (h *host) Log(_ int, text string)           { h.logs = append(h.logs, text) }
func (h *host) Records() bool                    { return true }
func (h *host) Burned(int64)                     {}
func (h *host) Note(c policy.HostCall)           { h.calls = append(h.calls, c) }

// whole is a Content that shows its header section as it stands.
type whole struct {
	policy.Content
	header string
}

func (w whole) RawHeader() []byte { return []byte(w.header) }

// plain is a Content without a raw header section.
type plain struct{ policy.Content }

// contentOf is a message for checks, with a raw header section.
func contentOf(text string) policy.Content {
	header := text
	if i := strings.Index(text, "\r\n\r\n"); i >= 0 {
		header = text[:i+4]
	}
	return whole{plainContent(text), header}
}

func plainContent(text string) policy.Content {
	return plain{policy.NewContent(strings.NewReader(text), int64(len(text)))}
}

const simpleMessage = "From: a@b.example\r\nSubject:  two\r\n words\r\n\r\nbody\r\n"

// walk is the events of a session that sends one message.
type walk struct {
	t    testing.TB
	p    *Plugin
	ev   policy.Event
	host *host
}

func newWalk(t testing.TB, p *Plugin) *walk {
	return &walk{t: t, p: p, host: newHost(), ev: policy.Event{
		Time: time.Now(), Session: "S1", Door: "mx", Protocol: "smtp", Hostname: "mx.example",
		Server: netip.MustParseAddrPort("192.0.2.25:25"), Client: netip.MustParseAddrPort("[::ffff:192.0.2.7]:4711"),
		ClientName: "c.example", ReverseName: "c.example", Helo: "h.example", Extended: true,
	}}
}

// call asks at stage.
func (w *walk) call(stage policy.Stage) (policy.Verdict, error) {
	w.ev.Stage = stage
	return w.p.Call(context.Background(), &w.ev, w.host)
}

// say asks at stage and returns the verdict as text.
func (w *walk) say(stage policy.Stage) string {
	v, err := w.call(stage)
	if err != nil {
		return "error: " + err.Error()
	}
	return verdictText(v)
}

func verdictText(v policy.Verdict) string {
	s := v.Action.String()
	if v.Status.Code != 0 {
		s += fmt.Sprintf(" %d %s %s", v.Status.Code, v.Status.Enhanced, v.Status.Text)
	}
	for _, f := range v.Effects.Prepend {
		s += fmt.Sprintf(" +%s: %s", f.Name, f.Value)
	}
	for _, p := range v.Effects.BCC {
		s += " bcc " + p.String()
	}
	return s
}

func (w *walk) connect() string { return w.say(policy.Connect) }
func (w *walk) helo() string    { return w.say(policy.Helo) }

func (w *walk) mail(id, sender string) string {
	w.ev.QueueID, w.ev.Sender, w.ev.HasSender, w.ev.Rcpts = mail.ID(id), pathOf(w.t, sender), true, nil
	w.ev.Size = 0
	return w.say(policy.Mail)
}

// rcpt asks about a recipient, who is accepted afterwards unless the milter refuses.
func (w *walk) rcpt(to string) string {
	w.ev.Recipient = pathOf(w.t, to)
	v, err := w.call(policy.Rcpt)
	if err != nil {
		return "error: " + err.Error()
	}
	if !v.Action.Refuses() {
		w.ev.Rcpts = append(w.ev.Rcpts, w.ev.Recipient)
	}
	return verdictText(v)
}

func (w *walk) data() string { w.ev.Recipient = mail.Path{}; return w.say(policy.Data) }

func (w *walk) message(text string) string {
	w.ev.Recipient, w.ev.Size, w.ev.Content = mail.Path{}, int64(len(text)), contentOf(text)
	return w.say(policy.Message)
}

// envelope sets what comes before the message, without asking.
func (w *walk) envelope(id, sender string, to ...string) *walk {
	w.ev.QueueID, w.ev.Sender, w.ev.HasSender, w.ev.Rcpts = mail.ID(id), pathOf(w.t, sender), true, pathsOf(w.t, to...)
	return w
}
