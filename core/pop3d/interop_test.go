package pop3d

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func program(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skipf("%s is not installed", names[0])
	return ""
}

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer hung.Stop()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out.String(), errs.String())
	}
	return out.String()
}

// curl lists and reads a mailbox over pop3 with STLS and over pop3s.
func TestCurl(t *testing.T) {
	curl := program(t, "curl")
	for _, implicit := range []bool{false, true} {
		h := open(t, func(c *Config) { c.Implicit, c.AuthLoopback = implicit, false })
		h.deliver("1.a.x", message(1))
		h.deliver("2.b.x", message(2))
		url, extra := "pop3://"+h.addr+"/", "--ssl-reqd"
		if implicit {
			url = "pop3s://" + h.addr + "/"
		}
		for _, login := range []string{"", "AUTH=PLAIN", "AUTH=LOGIN"} {
			args := []string{"-sS", "-m", "20", extra, "--cacert", h.cert, "-u", "ann@x.test:secret"}
			if login != "" {
				args = append(args, "--login-options", login)
			}
			if got, want := run(t, exec.Command(curl, append(args, url)...)), fmt.Sprintf("1 %d\r\n2 %d\r\n", len(message(1)), len(message(2))); got != want {
				t.Errorf("%s: LIST = %q, want %q", login, got, want)
			}
			if got := run(t, exec.Command(curl, append(args, url+"2")...)); got != message(2) {
				t.Errorf("%s: RETR 2 = %q", login, got)
			}
		}
		args := []string{"-sS", extra, "--cacert", h.cert, "-u", "ann@x.test:secret", "--head", "-X", "DELE 1", url}
		run(t, exec.Command(curl, args...))
		h.settle()
		if h.files() != 1 {
			t.Errorf("%d files after DELE", h.files())
		}
	}
}

// fetchmail takes all mail away and hands it to a program.
func TestFetchmail(t *testing.T) {
	fetchmail := program(t, "fetchmail")
	h := open(t, func(c *Config) { c.AuthLoopback = false })
	for n := 1; n <= 5; n++ {
		h.deliver(fmt.Sprintf("%d.a.x", n), message(n))
	}
	dir := t.TempDir()
	host, port, err := net.SplitHostPort(h.addr)
	if err != nil {
		t.Fatal(err)
	}
	rc := filepath.Join(dir, "rc")
	text := fmt.Sprintf("poll %s service %s protocol pop3 uidl user \"ann@x.test\" password \"secret\" sslproto tls1.2+ sslcertfile %q no sslcertck mda \"cat >> %s/got; echo ==== >> %s/got\"\n",
		host, port, h.cert, dir, dir)
	if err := os.WriteFile(rc, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(fetchmail, "-f", rc, "--idfile", filepath.Join(dir, "ids"), "--pidfile", filepath.Join(dir, "pid"), "--invisible")
	cmd.Env = append(os.Environ(), "HOME="+dir, "FETCHMAILHOME="+dir)
	run(t, cmd)
	got, err := os.ReadFile(filepath.Join(dir, "got"))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(got), "====\n")
	if len(parts) != 6 {
		t.Fatalf("%d messages came: %q", len(parts)-1, got)
	}
	for n := 1; n <= 5; n++ {
		if want := strings.ReplaceAll(message(n), "\r\n", "\n"); !strings.HasSuffix(parts[n-1], want) {
			t.Errorf("message %d came as %q", n, parts[n-1])
		}
	}
	h.settle()
	if h.files() != 0 {
		t.Errorf("%d messages are left", h.files())
	}
}

// Dovecot's own POP3 server and ours must show the same Maildir alike: numbers,
// sizes, unique ids, contents.
func TestDovecotShowsTheSame(t *testing.T) {
	pop3 := program(t, "/usr/lib/dovecot/pop3", "/usr/libexec/dovecot/pop3")
	owner, err := user.Lookup("mail")
	if os.Getuid() != 0 || err != nil {
		t.Skip("Dovecot's pop3 wants to be root with a user called mail to become")
	}
	h := open(t, nil)
	top, err := os.MkdirTemp("/tmp", "wafer-pop3") // where user mail may go
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(top)
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	h.mail = filepath.Join(top, "ann")
	for n := 1; n <= 6; n++ {
		text := message(n)
		if n%2 == 0 {
			text = strings.ReplaceAll(text, "\r\n", "\n")
		}
		h.deliver(fmt.Sprintf("%d.a.x", n), text)
	}
	// Saved unique ids and orders, as an import from another server leaves them.
	list := "3 V1600000000 N9 G6ff99600dff0036b2742000083ecc375\n" +
		"2 :1.a.x\n3 PUID-from-elsewhere :2.a.x\n5 O2 :3.a.x\n6 O1 Pabc123 :4.a.x\n7 :5.a.x\n8 O3 :6.a.x\n"
	if err := os.WriteFile(filepath.Join(h.mail, "dovecot-uidlist"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	if err := filepath.Walk(h.mail, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(p, uid, gid)
	}); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(top, "conf")
	text := fmt.Sprintf("mail_location = maildir:%s\nlog_path = /dev/stderr\nbase_dir = %s/run\nstate_dir = %s/run\nssl = no\nmail_uid = mail\nmail_gid = mail\nfirst_valid_uid = 1\n", h.mail, top, top)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	script := "LIST\r\nUIDL\r\nRETR 1\r\nRETR 2\r\nRETR 3\r\nRETR 4\r\nRETR 5\r\nRETR 6\r\nTOP 2 1\r\nQUIT\r\n"
	cmd := exec.Command(pop3, "-c", conf)
	cmd.Env = append(os.Environ(), "USER=ann", "HOME="+top)
	cmd.Stdin = strings.NewReader(script)
	theirs := withoutWords(run(t, cmd))
	c := h.login()
	c.send(script)
	var ours strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		ours.WriteString(line)
		if err != nil {
			break
		}
	}
	if got := withoutWords(ours.String()); !slices.Equal(got, theirs) {
		t.Errorf("ours:\n%s\nDovecot's:\n%s", strings.Join(got, "\n"), strings.Join(theirs, "\n"))
	}
}

// withoutWords drops what stands behind +OK, which is every server's own.
func withoutWords(s string) []string {
	var lines []string
	for line := range strings.Lines(s) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, "+OK") {
			line = "+OK"
		}
		if line == "+OK" && len(lines) == 0 {
			continue // a greeting, which one of the two has
		}
		lines = append(lines, line)
	}
	return lines
}

// Every message of the collection must come out of RETR octet for octet.
func TestCollection(t *testing.T) {
	root := "../../../shared/testdata/eml"
	if _, err := os.Stat(root); err != nil {
		t.Skipf("outside test data is not here: %v", err)
	}
	h := open(t, nil)
	var want []string
	err := filepath.Walk(root, func(p string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() || info.Size() == 0 {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		text := onlyCRLF(string(b))
		h.deliver(fmt.Sprintf("%05d.a.x", len(want)+1), text)
		want = append(want, text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c := h.login()
	c.do("STAT", fmt.Sprintf("+OK %d ", len(want)))
	bad := 0
	for i, text := range want {
		c.do(fmt.Sprint("LIST ", i+1), fmt.Sprintf("+OK %d %d", i+1, len(text)))
		c.do(fmt.Sprint("RETR ", i+1), fmt.Sprintf("+OK %d octets", len(text)))
		var got strings.Builder
		for {
			line, err := c.r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if line == ".\r\n" {
				break
			}
			got.WriteString(strings.TrimPrefix(line, "."))
		}
		g := got.String()
		if g != text && g != text+"\r\n" { // a last line without an end gets one
			if bad++; bad < 5 {
				t.Errorf("message %d differs: %d octets, want %d", i+1, len(g), len(text))
			}
		}
	}
	t.Logf("%d messages, %d differ", len(want), bad)
}

// onlyCRLF makes every LF that has no CR before it a CRLF, as the store does.
func onlyCRLF(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n")
}
