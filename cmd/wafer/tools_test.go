package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// need skips the test if a program of another project is not on this machine.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not on this machine: .ci/run says which package has it", p)
		}
	}
}

// tool runs another project's program in the world's folder, which is its home
// too, and returns what it printed and its exit code.
func tool(t *testing.T, w *world, stdin, program string, args ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "HOME="+w.dir, "LC_ALL=C.UTF-8", "SWAKS_HOME="+w.dir, "FETCHMAILHOME="+w.dir)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = time.Second
	b, err := cmd.CombinedOutput()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		t.Fatalf("%s: %v\n%s", program, err, b)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// works is tool for a program that must succeed.
func works(t *testing.T, w *world, stdin, program string, args ...string) string {
	t.Helper()
	out, code := tool(t, w, stdin, program, args...)
	if code != 0 {
		t.Fatalf("%s %s: exit code %d\n%s", program, strings.Join(args, " "), code, out)
	}
	return out
}

// port is the port of a door.
func (s *server) port(door string) string {
	s.t.Helper()
	i := strings.LastIndexByte(s.addr[door], ':')
	if i < 0 {
		s.t.Fatalf("no door %s", door)
	}
	return s.addr[door][i+1:]
}

// sample is a message that shows what is changed on its way: dots, long
// lines, 8-bit text, trailing space.
const sample = "From: Sender <sender@example.net>\r\n" +
	"To: Ann <ann@example.test>\r\n" +
	"Subject: =?utf-8?q?s=C3=A4mple?=\r\n" +
	"Date: Mon, 23 Nov 2026 07:00:00 +0000\r\n" +
	"Message-ID: <sample.1@example.net>\r\n" +
	"MIME-Version: 1.0\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\n" +
	"Content-Transfer-Encoding: 8bit\r\n" +
	"X-Folded: one\r\n\ttwo\r\n" +
	"\r\n" +
	".\r\n" +
	"..\r\n" +
	".dot\r\n" +
	"From here on\r\n" +
	"trailing space \r\n" +
	"\r\n" +
	"Grüße, 你好\r\n" +
	"end\r\n"

// sampleNumber is the sample with another subject and Message-ID.
func sampleNumber(tag string) string {
	return strings.NewReplacer("sample.1@", "sample."+tag+"@", "X-Folded: one", "X-Folded: "+tag).Replace(sample)
}

// arrived checks a message as it was read: the sent one, below trace fields.
func arrived(t *testing.T, what, got, sent string) {
	t.Helper()
	if !strings.HasSuffix(got, sent) {
		t.Errorf("%s: changed on its way:\n%s\nwhole:\n%.3000q", what, difference(got, sent), got)
		return
	}
	added := got[:len(got)-len(sent)]
	if trace.FindString(added) != added || !strings.Contains(added, "Received: ") {
		t.Errorf("%s: added on top: %q, want trace fields", what, added)
	}
}

// lf is text with LF line ends, as programs on Unix write it.
func lf(text string) string { return strings.ReplaceAll(text, "\r\n", "\n") }
