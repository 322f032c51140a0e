package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// errNoPeer says why Postfix is not measured.
var errNoPeer = errors.New("there is no Postfix to compare with")

// mailOwner is the numeric account that owns Postfix's Maildirs; it needs no name.
const mailOwner = 5000

// mainCF is an instance of its own, with Debian's values where nothing is said.
// Names of clients are not looked up, which favours it: the load comes from
// addresses that have none.
const mainCF = `compatibility_level = 3.6
queue_directory = %[4]s
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
recipient_delimiter = +
alias_maps =
alias_database =
message_size_limit = 52428800
mailbox_size_limit = 0
virtual_mailbox_limit = 0
virtual_mailbox_domains = example.test
virtual_mailbox_base = %[1]s/mail/example.test
virtual_mailbox_maps = hash:%[1]s/etc/boxes
virtual_uid_maps = static:%[3]d
virtual_gid_maps = static:%[3]d
virtual_transport = virtual
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_client_event_limit_exceptions = 127.0.0.0/8
smtpd_tls_security_level = may
smtpd_tls_chain_files = %[1]s/etc/tls.pem
`

// masterCF is Debian's without what this does not need, and without chroot.
const masterCF = `%s inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
tlsmgr unix - - n 1000? 1 tlsmgr
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

// startPostfix starts an instance in dir with its queue in spool. The error is errNoPeer where there can be none.
func startPostfix(ctx context.Context, dir, spool string) (*server, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: it needs root", errNoPeer)
	}
	account, err := user.Lookup("postfix")
	if err != nil {
		return nil, fmt.Errorf("%w: %w (apt-get install postfix)", errNoPeer, err)
	}
	daemons, err := postconf("daemon_directory")
	if err != nil {
		return nil, fmt.Errorf("%w: %w (apt-get install postfix)", errNoPeer, err)
	}
	s := &server{name: postfix, owner: mailOwner, mail: filepath.Join(dir, "mail", domain), log: filepath.Join(dir, "log", "mail.log")}
	if s.smtp, err = freeAddress(); err != nil {
		return nil, err
	}
	if err := preparePostfix(s, dir, spool, daemons, account); err != nil {
		return nil, err
	}
	etc := filepath.Join(dir, "etc")
	s.meter = newMeter(postfix)
	start := s.meter.command("/usr/sbin/postfix", "-c", etc, "start")
	detach(start)
	if out, err := start.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("postfix start: %w: %s%s", err, out, tail(s.log)), s.meter.close(ctx))
	}
	s.stop = func() error {
		out, err := exec.Command("/usr/sbin/postfix", "-c", etc, "stop").CombinedOutput()
		if err != nil {
			return fmt.Errorf("postfix stop: %w: %s", err, out)
		}
		return s.meter.close(context.Background())
	}
	s.sound = func() error { return nil }
	s.idle = func() bool {
		for _, q := range []string{"incoming", "active", "deferred", "maildrop"} {
			if hasFile(filepath.Join(spool, q)) {
				return false
			}
		}
		return true
	}
	b, err := os.ReadFile(filepath.Join(spool, "pid", "master.pid"))
	if err == nil {
		s.meter.root, err = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	if err == nil {
		err = answers(ctx, s.smtp)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("postfix: %w%s", err, tail(s.log)), s.stop())
	}
	return s, nil
}

// preparePostfix writes the instance's files and makes its directories.
func preparePostfix(s *server, dir, spool, daemons string, account *user.User) error {
	for _, d := range []string{"etc", "data", "log", "mail/" + domain} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	uid, err1 := strconv.Atoi(account.Uid)
	gid, err2 := strconv.Atoi(account.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if err := os.Chown(filepath.Join(dir, "data"), uid, gid); err != nil {
		return err
	}
	var table bytes.Buffer
	for n := range boxes {
		fmt.Fprintf(&table, "u%d@%s u%d/\n", n, domain, n)
		for _, d := range []string{"", "tmp", "new", "cur"} {
			p := filepath.Join(s.box(n), d)
			if err := os.MkdirAll(p, 0o700); err != nil {
				return err
			}
			if err := os.Chown(p, mailOwner, mailOwner); err != nil {
				return err
			}
		}
	}
	cert, key, err := certificate()
	if err != nil {
		return err
	}
	etc := filepath.Join(dir, "etc")
	for name, b := range map[string][]byte{
		"main.cf":   fmt.Appendf(nil, mainCF, dir, daemons, mailOwner, spool),
		"master.cf": fmt.Appendf(nil, masterCF, s.smtp),
		"boxes":     table.Bytes(),
		"tls.pem":   append(key, cert...),
	} {
		if err := os.WriteFile(filepath.Join(etc, name), b, 0o644); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"/usr/sbin/postmap", "-c", etc, "hash:" + filepath.Join(etc, "boxes")},
		{"/usr/sbin/postfix", "-c", etc, "check"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", filepath.Base(args[0]), err, out)
		}
	}
	return nil
}

// postconf is a default or a build-time value of the installed Postfix.
func postconf(name string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b, err := exec.CommandContext(ctx, "/usr/sbin/postconf", "-d", "-h", name).Output()
	return strings.TrimSpace(string(b)), err
}

// hasFile reports whether there is a file anywhere below dir.
func hasFile(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if !e.IsDir() || hasFile(filepath.Join(dir, e.Name())) {
			return true
		}
	}
	return false
}
