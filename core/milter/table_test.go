package milter

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// TestRoom: connections that rest make room for others, and their sessions go on
// as if nothing had been.
func TestRoom(t *testing.T) {
	f := (&fake{}).start(t)
	p := open(t, Options{Address: f.address, Connections: 2})
	var walks []*walk
	for i := range 4 {
		w := newWalk(t, p)
		w.ev.Session = fmt.Sprint("S", i)
		walks = append(walks, w)
		w.mail(fmt.Sprint("Q", i), "a@b.example")
	}
	f.waitGone(t)
	f.waitGone(t)
	f.take()
	if got := walks[0].rcpt("r@d.example"); got != "next" {
		t.Error(got)
	}
	if got := f.take(); !strings.HasPrefix(strings.Replace(got, "Q; ", "", 1), "O; ") || !strings.HasSuffix(got, "H h.example; M <a@b.example>; R <r@d.example>") {
		t.Error(got)
	}
	if len(p.table.slots) != 2 {
		t.Errorf("%d slots are taken", len(p.table.slots))
	}
}

// TestCrowd: more sessions at once than connections.
func TestCrowd(t *testing.T) {
	f := (&fake{}).start(t)
	p := open(t, Options{Address: f.address, Connections: 3})
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			w := newWalk(t, p)
			w.ev.Session = fmt.Sprint("S", i%20) // some ask at once about the same one
			got := []string{w.connect(), w.mail(fmt.Sprint("Q", i), "a@b.example"), w.rcpt("r@d.example"), w.message(simpleMessage)}
			if s := strings.Join(got, " "); s != "next next next next" {
				t.Error(s)
			}
			p.End(w.ev.Session)
		})
	}
	wg.Wait()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if len(p.table.slots) != 0 {
		t.Errorf("%d slots are taken", len(p.table.slots))
	}
}

func TestIdle(t *testing.T) {
	f := (&fake{}).start(t)
	p := open(t, Options{Address: f.address, MaxIdle: time.Millisecond})
	newWalk(t, p).connect()
	f.waitGone(t)
	want(t, f, "idle", "O; C c.example|4|4711|192.0.2.7; Q")
}

func TestEnd(t *testing.T) {
	f := (&fake{}).start(t)
	p := open(t, Options{Address: f.address})
	w := newWalk(t, p)
	w.mail("Q1", "a@b.example")
	p.End("S1")
	f.waitGone(t)
	want(t, f, "end", "O; C c.example|4|4711|192.0.2.7; H h.example; M <a@b.example>; Q")
	p.End("S1")
	p.End("nobody")
	w.ev.Session = "" // nobody could find it again
	w.connect()
	f.waitGone(t)
}

// TestSettled: what was said about a connection is remembered without one.
func TestSettled(t *testing.T) {
	f := (&fake{says: at(cmdConnect, pack('a', ""))}).start(t)
	p := open(t, Options{Address: f.address})
	w := newWalk(t, p)
	w.connect()
	f.waitGone(t)
	f.take()
	w.mail("Q1", "a@b.example")
	want(t, f, "mail", "")
	if n := len(p.table.slots); n != 0 {
		t.Errorf("%d slots are taken", n)
	}
	p.End("S1")
	w.mail("Q1", "a@b.example")
	f.waitGone(t)
	want(t, f, "mail after the end", "O; C c.example|4|4711|192.0.2.7; Q")
}

func TestClosed(t *testing.T) {
	f := (&fake{}).start(t)
	p := open(t, Options{Address: f.address})
	w := newWalk(t, p)
	w.connect()
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	f.waitGone(t)
	if got := w.connect(); !strings.Contains(got, "the plugin is closed") {
		t.Error(got)
	}
	p.End("S1")
}

func TestOptions(t *testing.T) {
	for _, row := range []struct {
		name string
		o    Options
		ok   bool
	}{
		{"unix", Options{Address: "unix:/run/milter.sock"}, true},
		{"inet", Options{Address: "inet:127.0.0.1:8891"}, true},
		{"inet6", Options{Address: "tcp:[::1]:8891"}, true},
		{"none", Options{}, false},
		{"sendmail's", Options{Address: "inet:8891@localhost"}, false},
		{"no port", Options{Address: "inet:localhost"}, false},
		{"no path", Options{Address: "unix:"}, false},
		{"a long path", Options{Address: "unix:/" + strings.Repeat("x", 107)}, false},
		{"a negative timeout", Options{Address: "unix:/s", ContentTimeout: -1}, false},
		{"negative connections", Options{Address: "unix:/s", Connections: -1}, false},
		{"a macro", Options{Address: "unix:/s", Macros: map[string]string{"{daemon_name}": "ORIGINATING", "v": "x"}}, true},
		{"a macro twice", Options{Address: "unix:/s", Macros: map[string]string{"{x}": "1", "x": "2"}}, false},
		{"a macro without a name", Options{Address: "unix:/s", Macros: map[string]string{"{}": "1"}}, false},
		{"a macro of two lines", Options{Address: "unix:/s", Macros: map[string]string{"x": "1\n2"}}, false},
	} {
		p, err := New(row.o)
		if (err == nil) != row.ok {
			t.Errorf("%s: %v", row.name, err)
		}
		if err == nil {
			p.Close()
		}
	}
}

// TestPlugin: it is what a policy wants, and knows what it can be asked.
func TestPlugin(t *testing.T) {
	f := (&fake{}).start(t)
	p := open(t, Options{Address: f.address})
	var m policy.Module = p
	if m.ID() != "milter:"+f.address || m.Digest() != "" {
		t.Errorf("%q %q", m.ID(), m.Digest())
	}
	w := newWalk(t, p)
	for stage := policy.Connect; stage <= policy.LastStage; stage++ {
		asked := false
		for _, s := range Stages() {
			asked = asked || s == stage
		}
		if got := w.say(stage); !asked && !strings.Contains(got, "a milter has no stage "+stage.String()) {
			t.Errorf("%s: %s", stage, got)
		}
	}
}
