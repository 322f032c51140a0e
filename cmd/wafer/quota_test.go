package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestQuota: a user is warned, then mail and APPEND are refused, and both go on when
// there is room again. Bob's own line gives him more; mail with a detail goes into a
// folder that is there.
func TestQuota(t *testing.T) {
	w := newWorld(t, setup{trusted: `["127.0.0.0/8"]`})
	conf := strings.Replace(read1(t, w.path("config.hcl")), "  separator = \"+\"\n", `  separator      = "+"
  detail_folders = true
  quota {
    messages = 4
    warn     = [50]
    rules    = ["Trash:messages=+10"]
  }
`, 1)
	w.write("config.hcl", conf)
	users := strings.Replace(read1(t, w.path("users")), "bob:{PLAIN}"+testPassword, "bob:{PLAIN}"+testPassword+"::::::userdb_quota_rule=*:messages=50", 1)
	w.write("users", users)
	s := w.start()
	p := s.open("mx", 0)
	must(t, p.greeted())
	send := func(to string) (int, string) {
		code, text, err := p.deliver(account, []string{to}, "", "Subject: x\r\n\r\nbody\r\n")
		must(t, err)
		return code, text
	}
	ann := "ann@" + testDomain
	for i := range 2 {
		if code, text := send(ann); code != 250 {
			t.Fatalf("message %d: %d %s", i, code, text)
		}
	}
	has := func(text string) bool {
		for _, m := range textsIn(t, w.maildir("ann")) {
			if strings.Contains(m, text) {
				return true
			}
		}
		return false
	}
	for end := time.Now().Add(patience); !has("Subject: Your mailbox is 50% full"); wait(20*time.Millisecond, s.done) {
		if time.Now().After(end) {
			t.Fatal("no warning has come")
		}
	}
	if code, text := send(ann); code != 250 { // the fourth, with the warning
		t.Fatalf("%d %s", code, text)
	}
	_, _, err := p.smtp("MAIL FROM:<" + account + ">")
	must(t, err)
	if code, text, err := p.smtp("RCPT TO:<" + ann + ">"); err != nil || code != 452 || !strings.Contains(text, "4.2.2") {
		t.Errorf("a full mailbox: %d %s (%v)", code, text, err)
	}
	_, _, err = p.smtp("RSET")
	must(t, err)
	for range 6 {
		if code, text := send("bob@" + testDomain); code != 250 {
			t.Errorf("bob: %d %s", code, text)
		}
	}
	c := s.open("imaps", 0)
	must(t, c.imapLogin("ann"))
	for _, step := range [][2]string{
		{"GETQUOTAROOT INBOX", `* QUOTA "User quota" (MESSAGE 4 4)`},
		{"APPEND INBOX {4+}\r\nx: y", "NO [OVERQUOTA]"},
		{"APPEND Trash {4+}\r\nx: y", "OK [APPENDUID"},
		{"CREATE work", "OK"},
		{"SELECT INBOX", "OK"},
		{`STORE 1:3 +FLAGS (\Deleted)`, "OK"},
		{"EXPUNGE", "OK"},
	} {
		a, err := c.imap(step[0])
		must(t, err)
		if got := string(a.raw) + a.status; !strings.Contains(got, step[1]) {
			t.Errorf("%s: %s", step[0], got)
		}
	}
	for _, to := range []string{"ann+work@", "ann+nosuch@"} {
		if code, text := send(to + testDomain); code != 250 {
			t.Errorf("%s: %d %s", to, code, text)
		}
	}
	if n := len(mailIn(t, w.maildir("ann")+"/.work")); n != 1 {
		t.Errorf("folder work has %d messages", n)
	}
	if _, err := os.Stat(w.maildir("ann") + "/.nosuch"); err == nil {
		t.Error("a folder was made by a sender")
	}
	s.stop()
}
