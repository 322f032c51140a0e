//go:build unix

package delegate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// postfixMain is an instance of its own: it asks the policy service, relays
// what it accepts to an LMTP sink, and lets the test say who it is (XCLIENT).
const postfixMain = `compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = %[2]s
mail_owner = postfix
maillog_file = %[1]s/log/mail.log
maillog_file_prefixes = %[1]s/log
myhostname = mx.example.test
mydomain = example.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mydestination =
mynetworks = 127.0.0.1/32
alias_maps =
alias_database =
virtual_mailbox_domains = example.test
virtual_mailbox_maps = static:any
virtual_transport = lmtp:inet:%[3]s
smtpd_peername_lookup = no
smtpd_authorized_xclient_hosts = 127.0.0.1
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_recipient_restrictions = check_policy_service inet:%[4]s, reject_unlisted_recipient
smtpd_data_restrictions = check_policy_service inet:%[4]s
smtpd_policy_service_retry_delay = 1s
`

const postfixMaster = `%s inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

// startPostfix starts Debian's Postfix with its state in a directory of the
// test's and returns where it listens.
func startPostfix(t *testing.T, lmtp, service string) (smtp string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("Postfix's master needs root")
	}
	account, err := user.Lookup("postfix")
	if err != nil {
		t.Skip("there is no Postfix (apt-get install postfix)")
	}
	daemons, err := exec.Command("/usr/sbin/postconf", "-d", "-h", "daemon_directory").Output()
	if err != nil {
		t.Skip("there is no Postfix (apt-get install postfix)")
	}
	// Not t.TempDir: the account postfix has to get through the parents.
	dir, err := os.MkdirTemp("", "postfix")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	uid, err1 := strconv.Atoi(account.Uid)
	gid, err2 := strconv.Atoi(account.Gid)
	err = errors.Join(err1, err2, os.Chmod(dir, 0o755))
	for _, d := range []string{"etc", "data", "log", "spool"} {
		err = errors.Join(err, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	free, err3 := net.Listen("tcp", "127.0.0.1:0")
	if err = errors.Join(err, err3, os.Chown(filepath.Join(dir, "data"), uid, gid)); err != nil {
		t.Fatal(err)
	}
	smtp = free.Addr().String()
	etc := filepath.Join(dir, "etc")
	err = errors.Join(free.Close(),
		os.WriteFile(filepath.Join(etc, "main.cf"), fmt.Appendf(nil, postfixMain, dir, strings.TrimSpace(string(daemons)), lmtp, service), 0o644),
		os.WriteFile(filepath.Join(etc, "master.cf"), fmt.Appendf(nil, postfixMaster, smtp), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := postfix(etc, "start"); err != nil {
		t.Fatalf("postfix start: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := postfix(etc, "stop"); err != nil {
			t.Errorf("postfix stop: %v: %s", err, out)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log", "mail.log"))
			t.Logf("%s", log)
		}
	})
	return smtp
}

// postfix runs a command of the instance. Its daemons are not to hold the test's
// pipes open, hence the file.
func postfix(etc, verb string) (string, error) {
	out, err := os.CreateTemp(etc, "out")
	if err != nil {
		return "", err
	}
	defer out.Close()
	cmd := exec.Command("/usr/sbin/postfix", "-c", etc, verb)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = out, out, &syscall.SysProcAttr{Setsid: true}
	err = cmd.Run()
	said, _ := os.ReadFile(out.Name())
	return string(said), err
}

// sink is an LMTP server that hands over the messages it is given.
func sink(t *testing.T) (address string, messages <-chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 10)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { receive(c, got) })
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String(), got
}

func receive(nc net.Conn, got chan<- string) {
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	c := textproto.NewConn(nc)
	_ = c.PrintfLine("220 sink")
	for {
		l, err := c.ReadLine()
		if err != nil {
			return
		}
		switch verb, _, _ := strings.Cut(l, " "); strings.ToUpper(verb) {
		case "DATA":
			_ = c.PrintfLine("354 go")
			b, err := c.ReadDotBytes()
			if err != nil {
				return
			}
			got <- string(b)
			_ = c.PrintfLine("250 2.0.0 ok")
		case "QUIT":
			_ = c.PrintfLine("221 bye")
			return
		default:
			_ = c.PrintfLine("250 2.0.0 ok")
		}
	}
}

// say sends a command and returns the last line of the reply.
func say(t *testing.T, nc net.Conn, r *bufio.Reader, command string) string {
	t.Helper()
	if command != "" {
		if _, err := io.WriteString(nc, command+"\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %q, %v", command, l, err)
		}
		if len(l) < 4 || l[3] != '-' {
			return strings.TrimSpace(l)
		}
	}
}

// TestPostfix: Debian's Postfix asks our policies through check_policy_service.
func TestPostfix(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	j := &journal{says: func(ev *policy.Event) policy.Verdict {
		switch {
		case ev.Stage == policy.Helo && ev.Helo == "liar.example":
			return refuse(policy.Reject, 501, "5.5.2", "not your name, "+ev.Client.Addr().String())
		case ev.Stage == policy.Mail && ev.Sender.Domain() == "spam.example":
			return refuse(policy.Reject, 550, "5.7.23", "SPF fail")
		case ev.Stage == policy.Mail && ev.Sender.Local() == "grey":
			return refuse(policy.DeferIfPermit, 450, "4.7.1", "greylisted")
		case ev.Stage == policy.Rcpt && ev.Recipient.Local() == "x y":
			return policy.Verdict{Action: policy.Accept, Effects: policy.Effects{Prepend: []policy.Field{{Name: "X-Policy", Value: "of " + ev.Recipient.String()}}}}
		case ev.Stage == policy.Rcpt && ev.Recipient.Local() == "bye":
			return policy.Verdict{Action: policy.Disconnect}
		case ev.Stage == policy.Data && len(ev.Rcpts) == 2:
			return policy.Verdict{Effects: policy.Effects{Prepend: []policy.Field{{Name: "X-Data", Value: "both"}}}}
		}
		return policy.Verdict{}
	}}
	srv := startOn(t, ServerConfig{Policies: always(setOf(j, everyStage()...))}, ln)
	lmtp, messages := sink(t)
	smtp := startPostfix(t, lmtp, ln.Addr().String())

	nc, err := net.Dial("tcp", smtp)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(nc)
	for _, row := range []struct{ command, reply, stages string }{
		{"", "220 ", ""},
		{"XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=4711", "220 ", ""},
		{"EHLO liar.example", "250 ", ""},
		{"MAIL FROM:<a@b.example>", "250 ", ""},
		{"RCPT TO:<r@example.test>", "501 5.5.2 <r@example.test>: Recipient address rejected: not your name, 192.0.2.7 (", "connect, helo, mail"},
		{"RCPT TO:<s@example.test>", "501 5.5.2 ", ""},
		{"EHLO good.example", "250 ", ""},
		{"MAIL FROM:<a@spam.example>", "250 ", ""},
		{"RCPT TO:<r@example.test>", "550 5.7.23 <r@example.test>: Recipient address rejected: SPF fail (", "helo, mail"},
		{"RSET", "250 ", ""},
		{"MAIL FROM:<grey@b.example>", "250 ", ""},
		{"RCPT TO:<r@example.test>", "450 4.7.1 <r@example.test>: Recipient address rejected: greylisted (", "mail, rcpt r@example.test after 0"},
		{"RSET", "250 ", ""},
		// What is accepted here is no relay: that list is Postfix's own.
		{"MAIL FROM:<>", "250 ", ""},
		{"RCPT TO:<\"x y\"@elsewhere.example>", "554 5.7.1 <x y@elsewhere.example>: Relay access denied", ""},
		{"RCPT TO:<\"x y\"@example.test>", "250 2.1.5 ", `mail, rcpt "x y"@example.test after 0`},
		{"RCPT TO:<r@example.test>", "250 2.1.5 ", "rcpt r@example.test after 1"},
		{"DATA", "354 ", "data"},
		{"Subject: hello\r\n\r\nbody\r\n.", "250 2.0.0 Ok: queued as ", ""},
		{"MAIL FROM:<a@b.example>", "250 ", ""},
		{"RCPT TO:<bye@example.test>", "421 4.7.0 ", "mail, rcpt bye@example.test after 0"},
	} {
		if got := say(t, nc, r, row.command); !strings.HasPrefix(got, row.reply) {
			t.Errorf("%s: %q, want %q", row.command, got, row.reply)
		}
		if got := j.take(); got != row.stages {
			t.Errorf("%s: asked %q, want %q", row.command, got, row.stages)
		}
	}
	if b, err := r.ReadByte(); err == nil {
		t.Errorf("%q after 421", b)
	}
	select {
	case m := <-messages:
		if !strings.Contains(m, "X-Policy: of \"x y\"@example.test\n") || !strings.Contains(m, "X-Data: both\n") {
			t.Errorf("the message is\n%s", m)
		}
	case <-time.After(30 * time.Second):
		t.Error("no message came")
	}
	if st := srv.Stats(); st.Requests != 8 || st.Malformed != 0 || st.Lost != 0 {
		t.Errorf("%+v", st)
	}
}
