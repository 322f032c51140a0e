package main

import (
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/wafermail/wafer/core/admin"
)

// TestDrain stops a server that is busy: a message that is on its way is taken,
// sessions that wait are told, nobody new comes in.
func TestDrain(t *testing.T) {
	w := newWorld(t, setup{})
	s := w.start()
	waiting := s.open("mx", 1)
	must(t, waiting.greeted())
	chosen := s.open("mx", 2)
	must(t, chosen.greeted())
	_, err := chosen.want(250, "MAIL FROM:<sender@example.net>")
	must(t, err)
	sending := s.open("mx", 3)
	must(t, sending.begin())
	must(t, sending.send("Subject: last\r\n\r\nfirst half, "))
	reading := s.open("imaps", 4)
	must(t, reading.imapLogin("ann"))
	popping := s.open("pop3s", 5)
	must(t, popping.popLogin("bob"))

	s.term()
	for name, p := range map[string]*peer{"waiting": waiting, "with a sender": chosen} {
		text, err := p.gone()
		if err != nil || !strings.HasPrefix(text, "421 4.3.2 ") {
			t.Errorf("the session %s was told %q (%v), want 421 4.3.2", name, text, err)
		}
	}
	text, err := reading.gone()
	if err != nil || !strings.Contains(text, "* BYE") {
		t.Errorf("IMAP was told %q (%v), want BYE", text, err)
	}
	if text, err = popping.gone(); err != nil || text != "" && !strings.HasPrefix(text, "-ERR") {
		t.Errorf("POP3 was told %q (%v), want nothing or -ERR", text, err)
	}
	s.until("only the sender is left", func(st admin.Status) bool { return openOf(st) == 1 })
	if p, err := s.reach("mx", 6); err == nil {
		if text, _ := p.gone(); strings.HasPrefix(text, "220") {
			t.Errorf("a new session was let in: %q", text)
		}
		p.close()
	}

	must(t, sending.send("second half\r\n.\r\n"))
	code, text, err := sending.reply()
	must(t, err)
	if code != 250 {
		t.Errorf("the message was answered with %q", text)
	}
	if text, err := sending.gone(); err != nil || !strings.HasPrefix(text, "421 ") {
		t.Errorf("after its message the session was told %q (%v), want 421", text, err)
	}
	s.ended()
	if n := len(mailIn(t, w.maildir("ann"))); n != 1 {
		t.Errorf("ann has %d messages, want 1", n)
	}
}

// recent is the one flag that is about sessions and not about messages.
var recent = regexp.MustCompile(` ?\\Recent`)

// TestRestart: what was delivered and changed is there after a stop and a
// start, and mailboxes keep their UIDs.
func TestRestart(t *testing.T) {
	w := newWorld(t, setup{})
	s := w.start()
	seed(t, s, "r1", "r2")
	look := func() (uids, uidl string) {
		p := s.open("imaps", 0)
		must(t, p.imapLogin("ann"))
		a, err := p.imapOK("SELECT INBOX")
		must(t, err)
		validity := string(a.raw[strings.Index(string(a.raw), "UIDVALIDITY"):][:22])
		a, err = p.imapOK("UID FETCH 1:* (FLAGS)")
		must(t, err)
		_, err = p.imapOK("UID STORE 1 +FLAGS.SILENT (\\Answered $Mine)")
		must(t, err)
		p.close()
		q := s.open("pop3s", 0)
		must(t, q.popLogin("ann"))
		b, err := q.popLines("UIDL")
		must(t, err)
		_, err = q.pop("QUIT")
		must(t, err)
		return validity + " " + recent.ReplaceAllString(string(a.raw), ""), string(b)
	}
	look()
	uids, uidl := look()
	s.stop()
	s = w.start()
	again, uidlAgain := look()
	if again != uids {
		t.Errorf("IMAP: before\n%s\nafter\n%s", uids, again)
	}
	if uidlAgain != uidl {
		t.Errorf("UIDL: before\n%s\nafter\n%s", uidl, uidlAgain)
	}
	if !strings.Contains(again, `\Answered`) || !strings.Contains(again, "$Mine") {
		t.Errorf("the flags are gone: %s", again)
	}
	s.stop()
}

// TestSecondServer: two servers never share a state directory.
func TestSecondServer(t *testing.T) {
	w := newWorld(t, setup{})
	s := w.start()
	out, code := w.run("", "run", "-c", "config.hcl")
	if code != 1 || !strings.Contains(out, "another wafer") {
		t.Errorf("a second server: exit code %d\n%s", code, out)
	}
	s.status()
	s.stop()
}

// TestHangup: SIGHUP, which many send to reload a server, does not end it or
// any session.
func TestHangup(t *testing.T) {
	w := newWorld(t, setup{})
	s := w.start()
	p := s.open("mx", 0)
	must(t, p.greeted())
	must(t, s.cmd.Process.Signal(syscall.SIGHUP))
	_, err := p.want(250, "NOOP")
	must(t, err)
	seed(t, s, "hup")
	s.stop()
	if !strings.Contains(s.log.String(), "SIGHUP") {
		t.Errorf("the log does not mention it:\n%s", s.log)
	}
}
