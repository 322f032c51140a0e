//go:build unix

// Package postfixtest starts Debian's Postfix for tests, as a peer to measure
// ourselves by: an instance of its own, below a temporary folder, on loopback.
//
// # BUGS
//
// It needs root, because Postfix's master does, and skips the test otherwise.
package postfixtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const mainCF = `compatibility_level = 3.6
mynetworks_style = host
queue_directory = %[1]s/spool
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = %[2]s
mail_owner = postfix
maillog_file = %[1]s/log/mail.log
maillog_file_prefixes = %[1]s/log
myhostname = mx.example.test
mydomain = example.test
inet_interfaces = all
inet_protocols = ipv4
mydestination =
alias_maps =
alias_database =
smtpd_peername_lookup = no
smtpd_authorized_xclient_hosts = 127.0.0.1
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
`

const masterCF = `%s inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
lmtp unix - - n - - lmtp
smtp unix - - n - - smtp
discard unix - - n - - discard
error unix - - n - - error
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

// Start starts Postfix with more settings for main.cf, "%DIR%" in which is the
// instance's folder, and with files in that folder; it returns where it listens.
// It ends with the test.
func Start(t testing.TB, settings string, files map[string][]byte) (smtp string) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	smtp = free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	StartAt(t, smtp, settings, files)
	return smtp
}

// StartAt is Start for an IPv4 address and a port that are given.
func StartAt(t testing.TB, smtp, settings string, files map[string][]byte) {
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
	if err = errors.Join(err, os.Chown(filepath.Join(dir, "data"), uid, gid)); err != nil {
		t.Fatal(err)
	}
	etc := filepath.Join(dir, "etc")
	err = errors.Join(
		os.WriteFile(filepath.Join(etc, "main.cf"), append(fmt.Appendf(nil, mainCF, dir, strings.TrimSpace(string(daemons))), strings.ReplaceAll(settings, "%DIR%", dir)...), 0o644),
		os.WriteFile(filepath.Join(etc, "master.cf"), fmt.Appendf(nil, masterCF, smtp), 0o644))
	for name, b := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
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
