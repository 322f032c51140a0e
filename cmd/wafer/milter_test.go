package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMilter lets Debian's OpenDKIM sign what comes in, as a check, and looks what
// becomes of mail when it is gone.
func TestMilter(t *testing.T) {
	opendkim, err := exec.LookPath("opendkim")
	if err != nil {
		if opendkim = "/usr/sbin/opendkim"; !exists(opendkim) {
			t.Skip("opendkim is not installed (Debian package opendkim)")
		}
	}
	dir := t.TempDir()
	key, sock := filepath.Join(dir, "key.pem"), filepath.Join(dir, "sock")
	if out, err := exec.Command("openssl", "genrsa", "-out", key, "2048").CombinedOutput(); err != nil {
		t.Skipf("openssl: %v\n%s", err, out)
	}
	must(t, os.Chmod(key, 0o600))
	conf := filepath.Join(dir, "opendkim.conf")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, "Socket local:%s\nDomain example.net\nSelector sel\nKeyFile %s\nMode s\nCanonicalization relaxed/relaxed\nRequireSafeKeys no\nInternalHosts 127.0.0.1\n", sock, key), 0o600))
	cmd := exec.Command(opendkim, "-f", "-x", conf)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	kill := func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill() // it may have ended
			<-ended
		}
	}
	t.Cleanup(kill)
	limit, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("unix", sock); err == nil {
			must(t, c.Close())
			break
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("opendkim does not answer\n%s", &log)
		}
	}
	w := newWorld(t, setup{policies: map[string]string{"p.hcl": fmt.Sprintf("policy \"p\" {\n  on = [\"mx\"]\n  check \"dkim\" {\n    milter = \"unix:%s\"\n    at     = [\"connect\", \"mail\", \"rcpt\", \"message\"]\n  }\n}\n", sock)}})
	s := w.start()
	seed(t, s, "signed")
	files, err := filepath.Glob(w.path("mail/example.test/ann/new/*"))
	must(t, err)
	if len(files) != 1 {
		t.Fatalf("%d messages", len(files))
	}
	b, err := os.ReadFile(files[0])
	must(t, err)
	if head, _, _ := strings.Cut(string(b), "\r\n\r\n"); !strings.Contains(head, "DKIM-Signature: ") || !strings.Contains(head, "d=example.net") {
		t.Errorf("no signature:\n%s\n%s", head, &log)
	}
	kill()
	p := s.open("mx", 0)
	must(t, p.greeted())
	_, err = p.want(250, "MAIL FROM:<sender@example.net>")
	must(t, err)
	_, err = p.want(451, "RCPT TO:<"+account+">") // on_error = "defer"
	must(t, err)
	s.stop()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
