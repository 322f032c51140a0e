package milter

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// optneg is a milter's answer to the offer.
func optneg(version, actions, steps byte) string {
	return pack(cmdOptNeg, string([]byte{0, 0, 0, version, 0, 0, 0, actions, 0, 0, 0, steps}))
}

// TestHostile: whatever a milter does wrong is an error in bounded time, names its
// cause, and does not spoil the next question.
func TestHostile(t *testing.T) {
	accept := optneg(6, 0, 0)
	for _, row := range []struct {
		name, says, want string // says: what it sends at once, before it falls silent
		cut              bool   // and hangs up
	}{
		{"hangs up at once", "", "closed the connection", true},
		{"silence", "", "i/o timeout", false},
		{"hangs up within the length", "\x00\x00", "closed the connection", true},
		{"hangs up within a packet", accept[:9], "closed the connection", true},
		{"half a packet", accept[:9], "i/o timeout", false},
		{"an empty packet", "\x00\x00\x00\x00", "packet of 0 octets", false},
		{"a giant packet", "\xff\xff\xff\xffO", "packet of 4294967295 octets", false},
		{"a packet too long", "\x00\x04\x00\x01O", "packet of 262145 octets", false},
		{"text", "220 mail.example ESMTP\r\n", "octets: not understood", false},
		{"another packet", pack('c', ""), "negotiate: answer 'c'", false},
		{"a short offer", pack('O', "\x00\x00\x00\x06"), "negotiation of 4 octets", false},
		{"version 1", optneg(1, 0, 0), "version 1 of the protocol", false},
		{"version 7", optneg(7, 0, 0), "version 7 of the protocol", false},
		{"actions that were not offered", pack('O', "\x00\x00\x00\x06\x00\x01\x00\x00\x00\x00\x00\x00"), "actions 0x10000", false},
		{"steps that were not offered", pack('O', "\x00\x00\x00\x06\x00\x00\x00\x00\x10\x00\x00\x00"), "protocol steps 0x10000000", false},
		{"half a list of macros", pack('O', "\x00\x00\x00\x06\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"), "lists of macros", false},
		{"an endless list of macros", pack('O', "\x00\x00\x00\x06\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00{i}"), "does not end", false},
		{"a giant name of a macro", pack('O', "\x00\x00\x00\x06\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"+strings.Repeat("x", 100)+"\x00"), "name of 100 octets", false},
		{"the answer with the offer", accept + pack('c', ""), "two answers", false},
		{"endless patience", strings.Repeat(pack('p', ""), maxProgress+1), "patience without end", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := (&fake{raw: func(_ int, c net.Conn, r *bufio.Reader) {
				_, _ = io.WriteString(c, row.says)
				if !row.cut {
					_, _ = io.Copy(io.Discard, r)
				}
			}}).start(t)
			w := newWalk(t, open(t, Options{Address: f.address, ConnectTimeout: 100 * time.Millisecond, CommandTimeout: 100 * time.Millisecond}))
			for range 2 {
				if got := w.connect(); !strings.HasPrefix(got, "error: ask milter unix:") || !strings.Contains(got, row.want) {
					t.Errorf("%s, want %s", got, row.want)
				}
			}
			f.waitGone(t)
			f.waitGone(t)
		})
	}
}

// TestFaultyAnswers: the same after the negotiation, at each command.
func TestFaultyAnswers(t *testing.T) {
	for _, row := range []struct {
		name    string
		cmd     byte
		answers string
		want    string
	}{
		{"unknown answer", cmdConnect, pack('z', ""), "connect: answer 'z'"},
		{"a change too early", cmdMail, pack('h', "A\x00b\x00"), "mail: answer 'h'"},
		{"quarantine too early", cmdBody, pack('q', "x\x00"), "message: answer 'q'"},
		{"two answers", cmdMail, pack('c', "") + pack('c', ""), "mail: two answers"},
		{"discard the connection", cmdConnect, pack('d', ""), "discard before there is a message"},
		{"discard the greeting", cmdHelo, pack('d', ""), "discard before there is a message"},
		{"a reply that is none", cmdRcpt, pack('y', "250 ok\x00"), "rcpt: reply \"250 ok\""},
		{"skip what cannot be skipped", cmdRcpt, pack('s', ""), "rcpt: skip"},
		{"skip that was not agreed on", cmdBody, pack('s', ""), "message: skip"},
		{"skip at the end", cmdEOB, pack('s', ""), "end of message: skip"},
		{"a negotiation within", cmdHelo, optneg(6, 0, 0), "helo: answer 'O'"},
		{"a change without a value", cmdEOB, pack('h', "A\x00"), "a string does not end"},
		{"a change without an end", cmdEOB, pack('h', "A\x00b"), "a string does not end"},
		{"a change without an index", cmdEOB, pack('i', "\x00\x00"), "change 'i' of 2 octets"},
		{"a recipient without an end", cmdEOB, pack('+', "a@b"), "a string does not end"},
		{"more after the last word", cmdEOB, pack('c', "") + pack('h', "A\x00b\x00"), "more after the last answer"},
		{"too many changes", cmdEOB, strings.Repeat(pack('h', "A\x00b\x00"), maxChanges+1) + pack('c', ""), "more than 1000 changes"},
		{"too long changes", cmdEOB, strings.Repeat(pack('h', "A\x00"+strings.Repeat("b", 100<<10)+"\x00"), 11) + pack('c', ""), "octets of them"},
		{"a body without end", cmdEOB, strings.Repeat(pack('b', "b"), maxBodySent+1) + pack('c', ""), "body of more than 16384 chunks"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := (&fake{actions: 0xff, says: at(row.cmd, row.answers)}).start(t)
			w := newWalk(t, open(t, Options{Address: f.address})).envelope("Q1", "a@b.example", "r@d.example")
			for range 2 {
				if got := w.message(simpleMessage); !strings.Contains(got, row.want) || !strings.HasPrefix(got, "error: ") {
					t.Errorf("%s, want %s", got, row.want)
				}
			}
		})
	}
}

// TestSilence: no answer to a command within its time.
func TestSilence(t *testing.T) {
	for _, cmd := range []byte{cmdConnect, cmdHelo, cmdMail, cmdRcpt, cmdData, cmdHeader, cmdEOH, cmdBody, cmdEOB} {
		t.Run(string(cmd), func(t *testing.T) {
			done := make(chan struct{})
			f := (&fake{says: func(_ int, c byte, _ string) (string, bool) {
				if c == cmd {
					<-done
				}
				return "", true
			}}).start(t)
			defer close(done)
			w := newWalk(t, open(t, Options{Address: f.address, CommandTimeout: 50 * time.Millisecond, ContentTimeout: 50 * time.Millisecond})).envelope("Q1", "a@b.example", "r@d.example")
			if got := w.message(simpleMessage); !strings.HasSuffix(got, "i/o timeout") {
				t.Error(got)
			}
		})
	}
}

// TestDrip: a milter that dribbles or asks for patience has the whole question's
// time, and no more.
func TestDrip(t *testing.T) {
	f := (&fake{says: func(int, byte, string) (string, bool) { return strings.Repeat(pack('p', ""), 10), true }}).start(t)
	w := newWalk(t, open(t, Options{Address: f.address, Timeout: 100 * time.Millisecond}))
	if got := w.connect(); !strings.HasPrefix(got, "error: ") {
		t.Error(got)
	}
}

// TestDeaf: a milter that does not read cannot hold up a large message.
func TestDeaf(t *testing.T) {
	done := make(chan struct{})
	f := (&fake{raw: func(_ int, c net.Conn, r *bufio.Reader) {
		_, _, _ = readPacket(r)
		_, _ = io.WriteString(c, pack(cmdOptNeg, "\x00\x00\x00\x06\x00\x00\x00\x00"+"\x00\x0d\xf0\x80")) // silent
		<-done
	}}).start(t)
	defer close(done)
	w := newWalk(t, open(t, Options{Address: f.address, Timeout: 200 * time.Millisecond})).envelope("Q1", "a@b.example", "r@d.example")
	if got := w.message("A: b\r\n\r\n" + strings.Repeat("0123456789abcdef", 1<<18)); !strings.Contains(got, "i/o timeout") {
		t.Error(got)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	f := (&fake{says: func(n int, cmd byte, _ string) (string, bool) {
		if n == 1 && cmd == cmdHelo {
			cancel()
			<-done
		}
		return "", true
	}}).start(t)
	var log bytes.Buffer
	p := open(t, Options{Address: f.address, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	w := newWalk(t, p)
	w.ev.Stage = policy.Helo
	if _, err := p.Call(ctx, &w.ev, w.host); err == nil || !strings.Contains(err.Error(), "i/o timeout") && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(done)
	if got := w.helo(); got != "next" {
		t.Error(got)
	}
	if log.Len() > 0 {
		t.Errorf("a caller that went away made it say %s", &log)
	}
}

// TestCut: a connection that breaks is made anew, once, and everything is told
// again.
func TestCut(t *testing.T) {
	for _, cmd := range []byte{cmdHelo, cmdMail, cmdRcpt, cmdData, cmdHeader, cmdEOH, cmdBody, cmdEOB} {
		for _, cuts := range []int{1, 2} {
			t.Run(fmt.Sprintf("%c %d", cmd, cuts), func(t *testing.T) {
				f := (&fake{says: func(n int, c byte, _ string) (string, bool) { return "", c != cmd || n > cuts }}).start(t)
				w := newWalk(t, open(t, Options{Address: f.address}))
				w.connect()
				w.envelope("Q1", "a@b.example", "r@d.example")
				got := w.message(simpleMessage)
				if cuts == 2 {
					if !strings.Contains(got, "closed the connection") {
						t.Error(got)
					}
					f.take()
					got = w.message(simpleMessage)
				}
				if got != "next" {
					t.Error(got)
				}
				if all := f.take(); !strings.HasSuffix(all, "O; C c.example|4|4711|192.0.2.7; H h.example; M <a@b.example>; R <r@d.example>; T; "+told) {
					t.Errorf("it was told %s", all)
				}
			})
		}
	}
}

// TestDown: a milter that is not there is warned of once.
func TestDown(t *testing.T) {
	var log bytes.Buffer
	path := filepath.Join(t.TempDir(), "s")
	w := newWalk(t, open(t, Options{Address: "unix:" + path, Logger: slog.New(slog.NewTextHandler(&log, nil))}))
	for range 3 {
		if got := w.connect(); !strings.Contains(got, "no such file") {
			t.Error(got)
		}
	}
	if n := strings.Count(log.String(), "milter does not answer"); n != 1 {
		t.Errorf("%d warnings: %s", n, &log)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := ln.Accept()
		if err == nil {
			(&fake{version: newest}).serve(1, c)
		}
	}()
	if got := w.connect(); got != "next" || !strings.Contains(log.String(), "milter answers again") {
		t.Errorf("%s: %s", got, &log)
	}
	w.p.Close()
	ln.Close()
	<-served
}
