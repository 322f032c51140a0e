//go:build unix

package milter

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// daemon starts a program that listens on socket, and ends it with the test by a
// signal: rspamd has children to end, opendkim takes its time over SIGTERM.
func daemon(t *testing.T, end syscall.Signal, socket, program string, args ...string) {
	t.Helper()
	bin, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("there is no %[1]s (apt-get install %[1]s)", program)
	}
	cmd := exec.Command(bin, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(end)
		<-ended
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended: %v\n%s", program, err, out.String())
		case <-late:
			t.Fatalf("%s does not listen", program)
		case <-tick.C:
		}
	}
}

// openDKIM starts opendkim with settings and returns its address.
func openDKIM(t *testing.T, settings string) string {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	conf := fmt.Sprintf("Socket local:%s\nBackground no\nSyslog no\nPidFile %s\nRequireSafeKeys no\nDNSTimeout 1\n%s", socket, filepath.Join(dir, "pid"), settings)
	file := filepath.Join(dir, "conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon(t, syscall.SIGKILL, socket, "opendkim", "-f", "-x", file)
	return "unix:" + socket
}

const letter = "From: Joe <joe@example.test>\r\nTo: r@d.example\r\nSubject: a  letter\r\n of two lines\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.test>\r\n\r\nHello.\r\n\r\nBye.\r\n"

// TestOpenDKIM: Debian's opendkim signs with a fresh key, and another one finds the
// signature good: that of the relaxed header canonicalization as it is prepended,
// that of the simple one as the milter wrote it.
func TestOpenDKIM(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	secret, records := filepath.Join(dir, "key"), filepath.Join(dir, "records")
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(secret, block, 0o600); err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	record := "sel._domainkey.example.test v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(public) + "\n"
	if err := os.WriteFile(records, []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	verifier := openDKIM(t, "Mode v\nAuthservID mx.example\nAlwaysAddARHeader yes\nTestDNSData file:"+records+"\n")
	for _, c := range []string{"relaxed/relaxed", "relaxed/simple", "simple/simple"} {
		t.Run(c, func(t *testing.T) {
			signer := openDKIM(t, fmt.Sprintf("Mode s\nDomain example.test\nSelector sel\nKeyFile %s\nCanonicalization %s\n", secret, c))
			p := open(t, Options{Address: signer})
			w := newWalk(t, p)
			w.ev.Client = netip.MustParseAddrPort("127.0.0.1:4711") // whom it signs for
			w.envelope("Q1", "joe@example.test", "r@d.example")
			w.ev.Stage, w.ev.Content, w.ev.Size = policy.Message, contentOf(letter), int64(len(letter))
			signed := ""
			if strings.HasPrefix(c, "simple") {
				out, err := p.turn(context.Background(), &session{plugin: p}, &w.ev)
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range out.changes {
					if c.kind == ansInsHeader && c.name == "DKIM-Signature" {
						signed = c.name + ":" + strings.ReplaceAll(c.value, "\n", "\r\n") + "\r\n" + letter
					}
				}
			} else {
				v, err := w.call(policy.Message)
				if err != nil || v.Action != policy.Next {
					t.Fatal(v, err)
				}
				for _, f := range v.Effects.Prepend {
					if f.Name == "DKIM-Signature" {
						signed = f.Name + ": " + f.Value + "\r\n" + letter
					}
				}
			}
			if !strings.Contains(signed, "d=example.test; s=sel;") {
				t.Fatalf("signed: %q", signed)
			}
			for _, row := range []struct{ name, text, want string }{
				{"as signed", signed, "dkim=pass"},
				{"another subject", strings.Replace(signed, "letter", "better", 1), "dkim=fail"},
				{"another body", strings.Replace(signed, "Hello", "hello", 1), "dkim=fail"},
				{"unsigned", letter, "dkim=none"},
			} {
				w := newWalk(t, open(t, Options{Address: verifier}))
				w.mail("Q2", "joe@example.test")
				w.rcpt("r@d.example")
				got := w.message(row.text)
				if !strings.HasPrefix(got, "next ") || !strings.Contains(got, " +Authentication-Results: mx.example;") || !strings.Contains(got, row.want) {
					t.Errorf("%s: %s", row.name, got)
				}
			}
		})
	}
}

const rspamdConf = `options {
  disable_hyperscan = true;
  url_tld = "/dev/null";
  tempdir = "%[1]s";
  hs_cache_dir = "%[1]s";
  pidfile = "%[1]s/pid";
  control_socket = "%[1]s/control mode=0600";
  filters = [];
  rrd = false;
  history_file = "";
  stats_file = "";
  dns { nameserver = ["127.0.0.1:1"]; timeout = 100ms; retransmits = 1; }
}
logging { type = "file"; filename = "%[1]s/log"; level = "info"; }
worker "rspamd_proxy" {
  bind_socket = "%[1]s/s mode=0600";
  milter = yes;
  timeout = 20s;
  count = 1;
  upstream "local" { default = yes; self_scan = yes; }
}
`

// TestRspamd: Debian's rspamd in milter mode refuses the test message for spam
// filters, and takes others, on one connection and on several.
func TestRspamd(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, rspamdConf, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon(t, syscall.SIGTERM, filepath.Join(dir, "s"), "rspamd", "-f", "-i", "-c", file)
	p := open(t, Options{Address: "unix:" + filepath.Join(dir, "s")})
	gtube := strings.Replace(letter, "Hello.", "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X", 1)
	all := newWalk(t, p)
	for _, stage := range []string{all.connect(), all.helo()} {
		if stage != "next" {
			t.Error(stage)
		}
	}
	for i, row := range []struct{ name, text, want string }{
		{"a letter", letter, "next"},
		{"GTUBE", gtube, "reject 554 5.7.1 Gtube pattern"},
		{"a letter after it", letter, "next"},
		{"a large one", letter + strings.Repeat("More text of the kind that people write.\r\n", 10000), "next"},
	} {
		t.Run(row.name, func(t *testing.T) {
			id := fmt.Sprint("Q", i)
			all.mail(id, "joe@example.test")
			all.rcpt("r@d.example")
			all.data()
			if got := all.message(row.text); !strings.HasPrefix(got, row.want) {
				t.Errorf("all stages: %s", got)
			}
			w := newWalk(t, p).envelope(id, "joe@example.test", "r@d.example", "s@d.example")
			w.ev.Session = "of " + id
			if got := w.message(row.text); !strings.HasPrefix(got, row.want) {
				t.Errorf("message alone: %s", got)
			}
		})
	}
	if t.Failed() {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		t.Logf("rspamd's log:\n%s", log)
	}
}
