package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wafermail/wafer/core/postfixtest"
	"github.com/wafermail/wafer/core/relay/relaytest"
)

// namespace is a network of its own, on this machine.
type namespace string

// newNamespace makes one that lives as long as the test.
func newNamespace(t *testing.T, role string) namespace {
	t.Helper()
	ns := namespace(fmt.Sprintf("wafer-%d-%s", os.Getpid(), role))
	system(t, "ip", "netns", "add", string(ns))
	t.Cleanup(func() { system(t, "ip", "netns", "del", string(ns)) })
	system(t, "ip", "-n", string(ns), "link", "set", "lo", "up")
	return ns
}

// in calls f in the network: what it opens and starts there stays there. f may end
// the test; the thread is thrown away then.
func (ns namespace) in(t *testing.T, f func()) {
	t.Helper()
	runtime.LockOSThread()
	home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	must(t, err)
	defer home.Close()
	there, err := os.Open("/var/run/netns/" + string(ns))
	must(t, err)
	defer there.Close()
	must(t, unix.Setns(int(there.Fd()), unix.CLONE_NEWNET))
	f()
	must(t, unix.Setns(int(home.Fd()), unix.CLONE_NEWNET))
	runtime.UnlockOSThread()
}

func system(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// startUnbound starts a validating resolver that asks one name server about zones.
func startUnbound(t *testing.T, at, asks string, a *authority) {
	t.Helper()
	path, err := exec.LookPath("unbound")
	if err != nil {
		t.Skip("there is no unbound (apt-get install unbound)")
	}
	dir := t.TempDir()
	var b strings.Builder
	fmt.Fprintf(&b, `server:
  interface: %s
  port: 53
  access-control: 0.0.0.0/0 allow
  do-daemonize: no
  use-syslog: no
  username: ""
  chroot: ""
  directory: %q
  pidfile: ""
  module-config: "validator iterator"
  local-zone: "test." nodefault
  do-ip6: no
  num-threads: 1
  verbosity: 1
`, at, dir)
	for _, s := range a.zones {
		if s.public != nil {
			fmt.Fprintf(&b, "  trust-anchor: %q\n", strings.ReplaceAll(s.public.ToDS(2).String(), "\t", " "))
		}
	}
	b.WriteString("remote-control:\n  control-enable: no\n")
	for zone := range a.zones {
		fmt.Fprintf(&b, "stub-zone:\n  name: %q\n  stub-addr: %s\n", zone+".", asks)
	}
	conf := filepath.Join(dir, "unbound.conf")
	must(t, os.WriteFile(conf, []byte(b.String()), 0o600))
	log := &buffer{}
	cmd := exec.Command(path, "-d", "-c", conf)
	cmd.Stdout, cmd.Stderr = log, log
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it is over
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("unbound: %s", tail(log.String(), 3000))
		}
	})
}

// TestNetwork puts the server and the rest of the world into networks of their own,
// with port 25, several hosts, both address families, Debian's Postfix in both
// directions, and a resolver that validates DNSSEC.
func TestNetwork(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("there is no ip (apt-get install iproute2)")
	}
	near, far := newNamespace(t, "near"), newNamespace(t, "far")
	system(t, "ip", "link", "add", "near0", "netns", string(near), "type", "veth", "peer", "name", "far0", "netns", string(far))
	for _, ns := range []namespace{near, far} {
		side := strings.TrimPrefix(string(ns[strings.LastIndexByte(string(ns), '-'):]), "-") + "0"
		system(t, "ip", "-n", string(ns), "link", "set", side, "up")
	}
	add := func(ns namespace, dev, a string) {
		args := []string{"-n", string(ns), "address", "add", a, "dev", dev}
		if strings.Contains(a, ":") {
			args = append(args, "nodad")
		}
		system(t, "ip", args...)
	}
	add(near, "near0", "192.0.2.1/24")
	add(near, "near0", "2001:db8::1/64")
	add(far, "far0", "2001:db8::20/64")
	for _, host := range []string{"10", "11", "12", "13", "14", "20", "53", "54"} {
		add(far, "far0", "192.0.2."+host+"/24")
	}

	zone := func(name string) *signer { return newSigner(t, name) }
	forged := zone("bogus.test")
	forged.key = zone("bogus.test").key
	certificate, _ := relaytest.Certificate(t, "mx.dane.test")
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	must(t, err)
	pin := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	a := &authority{t: t, zones: map[string]*signer{"dane.test": zone("dane.test"), "plain.test": {}, "bogus.test": forged}, data: map[string][]string{
		"dane.test":             {"MX 10 mx.dane.test."},
		"mx.dane.test":          {"A 192.0.2.10"},
		"_25._tcp.mx.dane.test": {"TLSA 3 1 1 " + hex.EncodeToString(pin[:])},
		"wrong.dane.test":       {"MX 10 mxw.dane.test."},
		"mxw.dane.test":         {"A 192.0.2.11"},
		"_25._tcp.mxw.dane.test": {
			"TLSA 3 1 1 " + strings.Repeat("00", 32)},
		"stripped.dane.test":      {"MX 10 mxs.dane.test."},
		"mxs.dane.test":           {"A 192.0.2.12"},
		"_25._tcp.mxs.dane.test":  {"TLSA 3 1 1 " + hex.EncodeToString(pin[:])},
		"without.dane.test":       {"MX 10 mxn.dane.test."},
		"mxn.dane.test":           {"A 192.0.2.12"},
		"bogus.test":              {"MX 10 mx.bogus.test."},
		"mx.bogus.test":           {"A 192.0.2.13"},
		"plain.test":              {"MX 10 mx.plain.test."},
		"mx.plain.test":           {"A 192.0.2.20"},
		"six.plain.test":          {"AAAA 2001:db8::20"},
		"both.plain.test":         {"AAAA 2001:db8::99", "A 192.0.2.12"},
		"deadfirst.plain.test":    {"MX 10 dead.plain.test.", "MX 20 mx12.plain.test."},
		"dead.plain.test":         {"A 192.0.2.99"},
		"mx12.plain.test":         {"A 192.0.2.12"},
		"insecure.plain.test":     {"MX 10 mxi.plain.test."},
		"mxi.plain.test":          {"A 192.0.2.11"},
		"_25._tcp.mxi.plain.test": {"TLSA 3 1 1 " + strings.Repeat("00", 32)}, // not signed: it is nothing
	}}
	hosts := map[string]*relaytest.Server{}
	var box *relaytest.Server
	far.in(t, func() {
		secure := relaytest.Behaviour{TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}, Extensions: []string{"PIPELINING", "8BITMIME"}}
		hosts["10"], hosts["11"] = relaytest.Start(t, secure, "192.0.2.10:25"), relaytest.Start(t, secure, "192.0.2.11:25")
		hosts["12"], hosts["13"] = relaytest.Start(t, relaytest.Behaviour{}, "192.0.2.12:25"), relaytest.Start(t, relaytest.Behaviour{}, "192.0.2.13:25")
		hosts["six"] = relaytest.Start(t, relaytest.Behaviour{}, "[2001:db8::20]:25")
		box = relaytest.Start(t, relaytest.Behaviour{LMTP: true, Extensions: []string{"PIPELINING", "8BITMIME", "SMTPUTF8"}})
		key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
		must(t, err)
		chain := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})...)
		postfixtest.StartAt(t, "192.0.2.20:25", fmt.Sprintf(`myhostname = mx.plain.test
virtual_mailbox_domains = plain.test
virtual_mailbox_maps = static:any
virtual_transport = lmtp:inet:%s
mynetworks = 192.0.2.0/24
relayhost = [192.0.2.1]:25
smtp_tls_security_level = may
smtpd_tls_chain_files = %%DIR%%/chain.pem
smtpd_tls_security_level = may
smtpd_recipient_restrictions = check_recipient_access inline:{{never@plain.test = 550 5.1.1 no such user}}
`, box.Addr()), map[string][]byte{"chain.pem": chain})
		a.serve("192.0.2.54:53")
		startUnbound(t, "192.0.2.53", "192.0.2.54", a)
	})

	w := newWorld(t, setup{trusted: `["127.0.0.0/8"]`, top: `resolvers = ["192.0.2.53"]
dnssec = true
queue {
  retry_min = "1s"
  retry_max = "2s"
}
relay {
  tls             = "dane"
  mta_sts         = false
  connect_timeout = "2s"
}
listener "world" {
  profile = "mx"
  address = "192.0.2.1:25"
}
`})
	var s *server
	arrive := []struct {
		to   string
		host *relaytest.Server
		tls  bool
	}{
		{"x@dane.test", hosts["10"], true},
		{"x@without.dane.test", hosts["12"], false},
		{"x@six.plain.test", hosts["six"], false},
		{"x@both.plain.test", hosts["12"], false},
		{"x@deadfirst.plain.test", hosts["12"], false},
		{"x@insecure.plain.test", hosts["11"], true},
		{"x@plain.test", box, false},
	}
	wait4 := []string{"x@wrong.dane.test", "x@stripped.dane.test", "x@bogus.test"}
	near.in(t, func() {
		s = w.start()
		p := s.open("mx", 0)
		must(t, p.greeted())
		send := func(to string) {
			if code, text, err := p.deliver(account, []string{to}, "", "Subject: to "+to+"\r\n\r\nbody\r\n"); err != nil || code != 250 {
				t.Fatalf("%s: %d %s (%v)", to, code, text, err)
			}
		}
		for _, r := range arrive {
			send(r.to)
		}
		for _, to := range append(wait4, "never@plain.test") {
			send(to)
		}
	})
	has := func(h *relaytest.Server, to string) bool {
		for _, m := range h.Messages() {
			if strings.Contains(m.Data, "Subject: to "+to+"\r\n") {
				return true
			}
		}
		return false
	}
	for _, r := range arrive {
		for end := time.Now().Add(patience); !has(r.host, r.to); wait(50*time.Millisecond, s.done) {
			if time.Now().After(end) {
				list, _ := w.run("", "queue", "list", "-c", "config.hcl")
				t.Fatalf("%s has not arrived\n%s", r.to, list)
			}
		}
		for _, m := range r.host.Messages() {
			if strings.Contains(m.Data, "Subject: to "+r.to+"\r\n") && m.TLS != r.tls {
				t.Errorf("%s: TLS %v, want %v", r.to, m.TLS, r.tls)
			}
		}
	}
	// What DANE forbids, and what validation does not believe, waits.
	s.awaitQueue("3")
	list, _ := w.run("", "queue", "list", "-c", "config.hcl")
	for _, to := range wait4 {
		if !strings.Contains(list, to) {
			t.Errorf("%s does not wait:\n%s", to, list)
		}
	}
	if n := len(hosts["13"].Messages()); n != 0 {
		t.Errorf("a host whose address is forged was sent %d messages", n)
	}
	for _, h := range hosts {
		for _, to := range wait4 {
			if has(h, to) {
				t.Errorf("%s was sent all the same", to)
			}
		}
	}
	// Postfix gives mail to us, too.
	far.in(t, func() {
		c, err := smtp.Dial("192.0.2.20:25")
		must(t, err)
		must(t, c.Mail("eve@plain.test"))
		must(t, c.Rcpt("bob@"+testDomain))
		d, err := c.Data()
		must(t, err)
		_, err = d.Write([]byte("Subject: through Postfix\r\n\r\nbody\r\n"))
		must(t, err)
		must(t, d.Close())
		must(t, c.Quit())
	})
	for end := time.Now().Add(patience); len(mailIn(t, w.maildir("bob"))) == 0; wait(50*time.Millisecond, s.done) {
		if time.Now().After(end) {
			t.Fatal("Postfix's message has not arrived")
		}
	}
	if got := textsIn(t, w.maildir("ann")); len(got) != 1 || !strings.Contains(got[0], "no such user") {
		t.Errorf("notices of ann: %q", got)
	}
	s.stop()
}
