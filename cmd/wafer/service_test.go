package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestNotify plays systemd: the server says when it is ready and when it stops.
func TestNotify(t *testing.T) {
	w := newWorld(t, setup{})
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: w.path("notify"), Net: "unixgram"})
	must(t, err)
	defer told.Close()
	t.Setenv("NOTIFY_SOCKET", w.path("notify"))
	s := w.launch()
	hear := func(want string) {
		t.Helper()
		b := make([]byte, 4096)
		must(t, told.SetReadDeadline(time.Now().Add(patience)))
		n, err := told.Read(b)
		if err != nil || !strings.Contains(string(b[:n]), want) {
			t.Fatalf("told %q (%v), want %s", b[:n], err, want)
		}
	}
	hear("READY=1")
	if _, err := s.ask(); err != nil {
		t.Errorf("it says that it is ready and is not: %v", err)
	}
	s.term()
	hear("STOPPING=1")
	s.ended()
}

// TestPassedSocket starts the server with a socket that is open already, as
// systemd does: the listener of that name takes it.
func TestPassedSocket(t *testing.T) {
	need(t, "sh")
	w := newWorld(t, setup{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	must(t, err)
	defer f.Close()
	s := &server{t: t, w: w, log: &buffer{}, done: make(chan struct{})}
	s.cmd = exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=mx exec "$0" run -c config.hcl`, binary)
	s.cmd.Dir = w.dir
	s.cmd.ExtraFiles = []*os.File{f}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	must(t, s.cmd.Start())
	go func() {
		defer close(s.done)
		_ = s.cmd.Wait() // the state is asked for where it matters
	}()
	t.Cleanup(s.kill)
	s.await()
	if s.addr["mx"] != ln.Addr().String() {
		t.Errorf("mx is at %s, want the passed socket %s", s.addr["mx"], ln.Addr())
	}
	seed(t, s, "p1")
	s.stop()
}

// TestRunAs: as root the server opens its ports and reads its key, and is
// somebody else for good before it serves.
func TestRunAs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skipf("no account to become: %v", err)
	}
	uid, err := strconv.Atoi(nobody.Uid)
	must(t, err)
	gid, err := strconv.Atoi(nobody.Gid)
	must(t, err)
	w := newWorld(t, setup{})
	b, err := os.ReadFile(w.path("config.hcl"))
	must(t, err)
	w.write("config.hcl", strings.Replace(string(b), "allow_root = true", `user = "nobody"`, 1))
	must(t, os.Chown(w.path("users"), uid, gid))
	must(t, os.Mkdir(w.path("mail"), 0o700))
	must(t, os.Chown(w.path("mail"), uid, gid))
	for dir := w.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	if fi, err := os.Stat(w.path("key.pem")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("the key should be root's alone, as certbot leaves it: %v %v", fi.Mode(), err)
	}
	s := w.start()
	ps, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	must(t, err)
	for _, id := range []string{fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d\n", uid, uid, uid, uid), fmt.Sprintf("Gid:\t%d\t%d\t%d\t%d\n", gid, gid, gid, gid)} {
		if !strings.Contains(string(ps), id) {
			t.Errorf("no %q in\n%s", id, ps)
		}
	}
	if m := regexp.MustCompile(`(?m)^CapEff:\s+(\S+)$`).FindSubmatch(ps); m == nil || strings.Trim(string(m[1]), "0") != "" {
		t.Errorf("capabilities are left: %q", m)
	}
	seed(t, s, "u1")
	p := s.open("imaps", 0)
	must(t, p.imapLogin("ann"))
	s.stop()
	if n := len(mailIn(t, w.maildir("ann"))); n != 1 {
		t.Errorf("ann has %d messages, want 1", n)
	}
}

// TestLog: every line about a message has its id, which the client was told
// and Received has; nothing that was secret is written, even at debug.
func TestLog(t *testing.T) {
	w := newWorld(t, setup{plain: true, top: "log {\n  format = \"json\"\n  level  = \"debug\"\n}\n"})
	s := w.start()
	p := s.open("submissions", 0)
	must(t, p.greeted())
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + account + "\x00" + testPassword))
	_, err := p.want(235, "AUTH PLAIN "+plain)
	must(t, err)
	const secretBody = "body that nobody should log"
	code, text, err := p.deliver(account, []string{account, "bob@" + testDomain}, "", "Subject: x\r\n\r\n"+secretBody+"\r\n")
	must(t, err)
	if code != 250 {
		t.Fatalf("refused: %q", text)
	}
	id := text[strings.LastIndexByte(text, ' ')+1:]
	q := s.open("imap", 0)
	must(t, q.imapLogin("ann"))
	_, err = q.imap("AUTHENTICATE PLAIN")
	must(t, err)
	r := s.open("pop3", 0)
	must(t, r.popLogin("ann"))
	wrong := s.open("pop3s", 0)
	if err := wrong.popLogin("eve\x1b[2J"); err == nil {
		t.Error("eve got in")
	}
	s.stop()

	ann, bob := mailIn(t, w.maildir("ann")), mailIn(t, w.maildir("bob"))
	if len(ann) != 1 || len(bob) != 1 {
		t.Fatalf("ann has %q, bob has %q", ann, bob)
	}
	stored, err := os.ReadFile(ann[0])
	must(t, err)
	if !strings.Contains(string(stored), " id "+id) {
		t.Errorf("Received does not have the id %s: %q", id, stored)
	}
	one, err := os.Stat(ann[0])
	must(t, err)
	two, err := os.Stat(bob[0])
	must(t, err)
	if !os.SameFile(one, two) {
		t.Error("two equal copies do not share a file")
	}
	accepted, delivered := 0, 0
	log := s.log.String()
	for line := range strings.Lines(log) {
		var entry struct {
			Msg, ID, Level string
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Errorf("not JSON: %q", line)
		}
		if entry.ID == id && entry.Msg == "message accepted" {
			accepted++
		}
		if entry.ID == id && entry.Msg == "delivered" {
			delivered++
		}
	}
	if accepted != 1 || delivered != 2 {
		t.Errorf("%d lines for the message, %d for its two deliveries:\n%s", accepted, delivered, log)
	}
	for _, secret := range []string{testPassword, plain, secretBody, "\x1b"} {
		if i := strings.Index(log, secret); i >= 0 {
			t.Errorf("the log has %q: …%s…", secret, log[max(0, i-200):min(len(log), i+100)])
		}
	}
}

// TestLMTP delivers through a Unix socket with swaks and with replies of its own
// for each recipient.
func TestLMTP(t *testing.T) {
	w := newWorld(t, setup{})
	socket := filepath.Join(w.dir, "lmtp")
	b, err := os.ReadFile(w.path("config.hcl"))
	must(t, err)
	w.write("config.hcl", string(b)+fmt.Sprintf("listener \"lmtp\" {\n  profile = \"lmtp\"\n  address = \"unix:%s\"\n}\n", socket))
	s := w.start()
	t.Run("swaks", func(t *testing.T) {
		need(t, "swaks")
		works(t, w, "", "swaks", "--socket", socket, "--protocol", "LMTP", "--from", "sender@example.net", "--to", account)
	})
	c, err := net.DialTimeout("unix", socket, patience)
	must(t, err)
	p := newPeer(c)
	defer p.close()
	_, _, err = p.reply()
	must(t, err)
	_, err = p.want(500, "EHLO client.example.net")
	must(t, err)
	_, err = p.want(250, "LHLO client.example.net")
	must(t, err)
	_, err = p.want(250, "MAIL FROM:<sender@example.net>")
	must(t, err)
	_, err = p.want(250, "RCPT TO:<ann@example.test>")
	must(t, err)
	_, err = p.want(550, "RCPT TO:<nobody@example.test>")
	must(t, err)
	_, err = p.want(250, "RCPT TO:<bob@example.test>")
	must(t, err)
	_, err = p.want(354, "DATA")
	must(t, err)
	must(t, p.send("Subject: x\r\n\r\nx\r\n.\r\n"))
	for range 2 { // one for each that was taken
		code, text, err := p.reply()
		must(t, err)
		if code != 250 {
			t.Errorf("a recipient was answered with %q", text)
		}
	}
	_, err = p.want(221, "QUIT")
	must(t, err)
	s.stop()
	if n := len(mailIn(t, w.maildir("bob"))); n != 1 {
		t.Errorf("bob has %d messages, want 1", n)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Log("the socket stays behind after a stop")
	} else if !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
