package takeover

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limit is how long a session may last.
const limit = time.Minute

// conn is an IMAP or POP3 session with one of the two programs.
type conn struct {
	t    testing.TB
	name string // of the program
	r    *bufio.Reader
	w    io.WriteCloser
	end  func() // waits for the program's end
	tag  int

	broken bool // it ended too early
}

// wafer logs in at wafer's IMAP server.
func (h *house) wafer(user string) *conn {
	h.t.Helper()
	c := h.dial(h.imap)
	c.line()
	c.ok("LOGIN " + user + " x")
	return c
}

// waferPOP3 logs in at wafer's POP3 server.
func (h *house) waferPOP3(user string) *conn {
	h.t.Helper()
	c := h.dial(h.pop3)
	c.line()
	c.pop3("USER " + user)
	c.pop3("PASS x")
	return c
}

func (h *house) dial(addr string) *conn {
	h.t.Helper()
	n, err := net.Dial("tcp", addr)
	if err == nil {
		err = n.SetDeadline(time.Now().Add(limit))
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return &conn{t: h.t, name: "wafer", r: bufio.NewReaderSize(n, 1<<16), w: n, end: func() {}}
}

// dovecot starts Dovecot's imap for a user who is logged in.
func (h *house) dovecot(user string) *conn {
	h.t.Helper()
	c := h.start(user, "imap")
	c.line()
	return c
}

// dovecotPOP3 starts Dovecot's pop3 for a user who is logged in.
func (h *house) dovecotPOP3(user string) *conn {
	h.t.Helper()
	return h.start(user, "pop3") // it has nothing to greet
}

func (h *house) start(user, program string) *conn {
	h.t.Helper()
	cmd := exec.Command(filepath.Join(libexec, program), "-c", h.conf)
	cmd.Env = []string{"USER=nobody", "HOME=" + filepath.Join(h.dir, user), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Dir = h.dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	in, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	timer := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() }) // it may have ended
	c := &conn{t: h.t, name: "dovecot", r: bufio.NewReaderSize(out, 1<<16), w: in}
	c.end = func() {
		_, _ = io.Copy(io.Discard, out) // what is left says nothing
		err := cmd.Wait()
		timer.Stop()
		if log := quiet(errs.String()); err != nil || log != "" {
			h.t.Errorf("dovecot's %s: %v\n%s", program, err, log)
		}
		if c.broken {
			h.t.Logf("dovecot's %s ended: %s", program, errs.String())
		}
	}
	return c
}

// close ends a session in the friendly way.
func (c *conn) close() {
	c.t.Helper()
	_, _ = io.WriteString(c.w, "z LOGOUT\r\nQUIT\r\n") // it may have ended
	_, _ = io.Copy(io.Discard, c.r)                    // the goodbye is not looked at
	c.w.Close()
	c.end()
}

func (c *conn) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.w, s); err != nil {
		c.t.Fatalf("%s: send %.60q: %v", c.name, s, err)
	}
}

var literalEnd = regexp.MustCompile(`\{(\d+)\}\r\n$`)

// line reads one response with its literals, without the line end.
func (c *conn) line() string {
	c.t.Helper()
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.broken = true
			c.t.Fatalf("%s: read after %.200q: %v", c.name, b.String()+line, err)
		}
		b.WriteString(line)
		if !strings.HasSuffix(line, "}\r\n") {
			return strings.TrimSuffix(b.String(), "\r\n")
		}
		m := literalEnd.FindStringSubmatch(line)
		if m == nil {
			return strings.TrimSuffix(b.String(), "\r\n")
		}
		n, _ := strconv.ParseInt(m[1], 10, 64)
		if _, err := io.CopyN(&b, c.r, n); err != nil {
			c.t.Fatalf("%s: read literal of %d octets: %v", c.name, n, err)
		}
	}
}

// try runs a command and returns its untagged replies and the tagged one.
func (c *conn) try(command string) (untagged []string, tagged string) {
	c.t.Helper()
	c.tag++
	tag := fmt.Sprintf("t%d ", c.tag)
	c.send(tag + command + "\r\n")
	for {
		r := c.line()
		if rest, ok := strings.CutPrefix(r, tag); ok {
			return untagged, rest
		}
		untagged = append(untagged, r)
	}
}

// ok runs a command that must succeed.
func (c *conn) ok(command string) []string {
	c.t.Helper()
	untagged, tagged := c.try(command)
	if !strings.HasPrefix(tagged, "OK") {
		c.t.Fatalf("%s: %.200q: %s", c.name, command, tagged)
	}
	return untagged
}

// save appends a message; args may have flags and a date.
func (c *conn) save(folder, args, text string) (tagged string) {
	c.t.Helper()
	if args != "" {
		args += " "
	}
	_, tagged = c.try(fmt.Sprintf("APPEND %s %s{%d+}\r\n%s", quote(folder), args, len(text), text))
	return tagged
}

// pop3 runs a command with a reply of one line.
func (c *conn) pop3(command string) string {
	c.t.Helper()
	c.send(command + "\r\n")
	r := c.line()
	if !strings.HasPrefix(r, "+OK") {
		c.t.Fatalf("%s: %s: %s", c.name, command, r)
	}
	return r
}

// pop3List runs a command with a reply of many lines.
func (c *conn) pop3List(command string) (lines []string) {
	c.t.Helper()
	c.pop3(command)
	for {
		r := c.line()
		if r == "." {
			return lines
		}
		lines = append(lines, r)
	}
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
