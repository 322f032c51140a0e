package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/mail"
)

// captured are streams with an input, and what is written to them.
func captured(in string) (std streams, out, errs *bytes.Buffer) {
	out, errs = &bytes.Buffer{}, &bytes.Buffer{}
	return streams{strings.NewReader(in), out, errs}, out, errs
}

// writeConfig writes a configuration whose state is dir, and returns its file.
func writeConfig(t *testing.T, dir string) string {
	t.Helper()
	for name, text := range map[string]string{
		"config.hcl": fmt.Sprintf("hostname = \"mx.example.test\"\nstate = %q\ndomain \"example.test\" {\n  maildir = \"mail/%%d/%%n\"\n  users = \"users\"\n}\nlistener \"mx\" {\n  profile = \"mx\"\n  address = \"127.0.0.1:0\"\n}\n", dir),
		"users":      "ann@example.test:{PLAIN}secret\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "config.hcl")
}

// listenAdmin opens a control socket until the test ends; it returns the
// configuration file.
func listenAdmin(t *testing.T, c admin.Config) string {
	t.Helper()
	c.State, c.Logger = t.TempDir(), slog.New(slog.DiscardHandler)
	if c.Status == nil {
		c.Status = func() admin.Status { return admin.Status{} }
	}
	s, err := admin.Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return writeConfig(t, c.State)
}

// handed is what a server was given.
type handed struct {
	s    admin.Submission
	text string
	err  error // what it says
}

func (h *handed) submit(_ context.Context, s admin.Submission, message io.Reader) (mail.ID, error) {
	b, err := io.ReadAll(message)
	if err != nil {
		return "", err
	}
	h.s, h.text = s, string(b)
	return "ID", h.err
}

func (h *handed) envelope() string {
	text := h.s.From.String() + " to"
	for _, r := range h.s.Rcpts {
		text += " " + r.To.String()
	}
	return text
}

// TestSendmail: what reaches the server.
func TestSendmail(t *testing.T) {
	t.Setenv("LOGNAME", "joe")
	t.Setenv("NAME", "")
	h := &handed{}
	file := listenAdmin(t, admin.Config{Submit: h.submit})
	const letter = "To: Bob <bob@far.test>, root\nBcc: eve@far.test\nSubject: x\n\nhello\n.\nmore\n"
	for _, c := range []struct {
		name, args, in string
		envelope       string
		has, not       []string
	}{
		{"recipient named", "bob@far.test", letter, "joe@example.test to bob@far.test",
			[]string{"To: Bob <bob@far.test>, root@example.test\r\n", "From: <joe@example.test>\r\n", "Date: ", "@mx.example.test>\r\n", "\r\n\r\nhello\r\n"}, []string{"more", "eve"}},
		{"from the header", "-t -i", letter, "joe@example.test to bob@far.test root@example.test eve@far.test", []string{"hello\r\n.\r\nmore\r\n"}, []string{"eve", "Bcc"}},
		{"both", "-t ann bob@far.test", letter, "joe@example.test to ann@example.test bob@far.test root@example.test eve@far.test", nil, nil},
		{"sender and name", "-f ann@example.test -F Ann bob@far.test", "\nx\n", "ann@example.test to bob@far.test", []string{"From: \"Ann\" <ann@example.test>\r\n"}, nil},
		{"null sender", "-f <> bob@far.test", "\nx\n", " to bob@far.test", []string{"From: <MAILER-DAEMON@example.test>\r\n"}, nil},
		{"bare sender", "-f cron bob@far.test", "\nx\n", "cron@example.test to bob@far.test", nil, nil},
		{"lists for arguments", "Bob<bob@far.test>,ann,,", "\nx\n", "joe@example.test to bob@far.test ann@example.test", nil, nil},
		{"quoted local parts", "-t", "To: \"a b\"@far.test, \"c@d\"@far.test\n\n", `joe@example.test to "a b"@far.test "c@d"@far.test`, nil, nil},
		{"quoted name of this site", `"a@b"`, "\nx\n", `joe@example.test to "a@b"@example.test`, nil, nil},
		{"UTF-8", "-F Jürgen jürgen@bücher.example", "\nx\n", "joe@example.test to jürgen@bücher.example", []string{"From: =?utf-8?q?J=C3=BCrgen?= <joe@example.test>"}, nil},
		{"empty message", "bob@far.test", "", "joe@example.test to bob@far.test", []string{"Date: "}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			std, out, errs := captured(c.in)
			if code := wafer(append([]string{"sendmail", "-C", file}, strings.Fields(c.args)...), std); code != 0 || out.Len() > 0 || errs.Len() > 0 {
				t.Fatalf("exit code %d, said %q %q", code, out, errs)
			}
			if got := h.envelope(); got != c.envelope {
				t.Errorf("envelope %q, want %q", got, c.envelope)
			}
			for _, s := range c.has {
				if !strings.Contains(h.text, s) {
					t.Errorf("no %q in %q", s, h.text)
				}
			}
			for _, s := range c.not {
				if strings.Contains(h.text, s) {
					t.Errorf("%q in %q", s, h.text)
				}
			}
		})
	}
	t.Run("notices", func(t *testing.T) {
		std, _, errs := captured("\nx\n")
		if code := wafer([]string{"sendmail", "-C", file, "-N", "success,delay", "-R", "hdrs", "-V", "e1", "bob@far.test"}, std); code != 0 {
			t.Fatal(code, errs)
		}
		if s := h.s; s.EnvID != "e1" || s.Return != "HDRS" || strings.Join(s.Rcpts[0].Notify, ",") != "SUCCESS,DELAY" || s.Login == "" {
			t.Errorf("got %+v", s)
		}
	})
}

// TestSendmailCodes: exit codes by what goes wrong.
func TestSendmailCodes(t *testing.T) {
	h := &handed{}
	file := listenAdmin(t, admin.Config{Submit: h.submit})
	idle := writeConfig(t, t.TempDir())
	crowd := make([]string, 50000)
	for i := range crowd {
		crowd[i] = fmt.Sprintf("u%d@x.test", i)
	}
	refused := func(code int, enhanced string) error {
		return &admin.Refused{Status: mail.Status{Code: code, Enhanced: enhanced, Text: "no"}}
	}
	for _, c := range []struct {
		name string
		args []string
		in   io.Reader
		said error
		code int
		want string
	}{
		{"no user", []string{"-C", file, "bob@x.test"}, nil, refused(550, "5.1.1"), exNoUser, "550 5.1.1 no"},
		{"no host", []string{"-C", file, "bob@x.test"}, nil, refused(550, "5.1.2"), exNoHost, "550 5.1.2 no"},
		{"policy", []string{"-C", file, "bob@x.test"}, nil, refused(550, "5.7.1"), exUnavailable, "550 5.7.1 no"},
		{"too large", []string{"-C", file, "bob@x.test"}, nil, refused(552, "5.3.4"), exDataErr, "552 5.3.4 no"},
		{"later", []string{"-C", file, "bob@x.test"}, nil, refused(451, "4.3.0"), exTempFail, "451 4.3.0 no"},
		{"disk full", []string{"-C", file, "bob@x.test"}, nil, errors.New("no space"), exTempFail, "no space"},
		{"bad address", []string{"-C", file, "bob@-x-"}, nil, nil, exDataErr, "501 5.1.3"},
		{"no server", []string{"-C", idle, "bob@x.test"}, nil, nil, exTempFail, "no server is running"},
		{"no configuration", []string{"-C", "none.hcl", "bob@x.test"}, nil, nil, exConfig, "none.hcl"},
		{"nobody in the header", []string{"-C", file, "-t"}, strings.NewReader("Subject: x\n\n"), nil, exDataErr, "the header names no recipient"},
		{"crowd in the header", []string{"-C", file, "-t"}, strings.NewReader("To: " + strings.Join(crowd, ",\n ") + "\n\n"), nil, exUnavailable, "50000 recipients are more"},
		{"bad header", []string{"-C", file, "-t"}, strings.NewReader("To: Ann Example\n\n"), nil, exDataErr, "To: no address, but words"},
		{"input breaks", []string{"-C", file, "bob@x.test"}, io.MultiReader(strings.NewReader("\nhello\n"), iotest.ErrReader(errors.New("torn"))), nil, exIOErr, "torn"},
		{"list without a server", []string{"-C", idle, "-bp"}, nil, nil, exUnavailable, "no server is running"},
		{"flush without a server", []string{"-C", idle, "-q"}, nil, nil, exUnavailable, "no server is running"},
		{"SMTP without a server", []string{"-C", idle, "-bs"}, nil, nil, exTempFail, "no server is running"},
		{"SMTP without a door", []string{"-C", file, "-bs"}, nil, nil, exUnavailable, "profile mx"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.err, h.text = c.said, ""
			std, _, errs := captured("\nx\n")
			if c.in != nil {
				std.in = c.in
			}
			if code := wafer(append([]string{"sendmail"}, c.args...), std); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if !strings.HasPrefix(errs.String(), "sendmail: ") || !strings.Contains(errs.String(), c.want) {
				t.Errorf("said %q, want %q", errs, c.want)
			}
		})
	}
}

// TestSendmailStreams: a large message is never held whole: the server has its
// beginning before the program has written its end.
func TestSendmailStreams(t *testing.T) {
	begun := make(chan struct{})
	file := listenAdmin(t, admin.Config{Submit: func(_ context.Context, _ admin.Submission, message io.Reader) (mail.ID, error) {
		r := bufio.NewReader(message)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return "", err
			}
			if line == "begin\r\n" {
				break
			}
		}
		close(begun)
		_, err := io.Copy(io.Discard, r)
		return "ID", err
	}})
	in, program := io.Pipe()
	go func() {
		_, _ = io.WriteString(program, "Subject: x\n\nbegin\n"+strings.Repeat("x", 1<<20)+"\n")
		<-begun
		_ = program.Close()
	}()
	std, _, errs := captured("")
	std.in = in
	if code := wafer([]string{"sendmail", "-C", file, "-i", "bob@x.test"}, std); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
}

// TestSendmailSMTP: -bs speaks with the mx door.
func TestSendmailSMTP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan string, 1)
	go func() {
		defer close(served)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "220 here\r\n")
		line, _ := bufio.NewReader(conn).ReadString('\n')
		fmt.Fprint(conn, "221 bye\r\n")
		served <- line
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		for range served {
		}
	})
	file := listenAdmin(t, admin.Config{Status: func() admin.Status {
		return admin.Status{Listeners: []admin.Listener{{Name: "in", Profile: "imap", Address: "127.0.0.1:1"}, {Name: "mx", Profile: "mx", Address: ln.Addr().String()}}}
	}})
	std, out, errs := captured("QUIT\r\n")
	if code := wafer([]string{"sendmail", "-C", file, "-bs"}, std); code != 0 || out.String() != "220 here\r\n221 bye\r\n" {
		t.Errorf("exit code %d, %q, %s", code, out, errs)
	}
	if got := <-served; got != "QUIT\r\n" {
		t.Errorf("the server got %q", got)
	}
}

// TestNear: a listener's address, from this machine.
func TestNear(t *testing.T) {
	for address, want := range map[string]string{
		"0.0.0.0:25": "tcp 127.0.0.1:25", "[::]:25": "tcp [::1]:25", "192.0.2.1:25": "tcp 192.0.2.1:25",
		"unix:/run/mx": "unix /run/mx", "/run/mx": "unix /run/mx",
	} {
		if network, at := near(address); network+" "+at != want {
			t.Errorf("%s: %s %s, want %s", address, network, at, want)
		}
	}
}

// TestNewaliases: nothing is to be done, with or without a configuration.
func TestNewaliases(t *testing.T) {
	for _, name := range []string{"newaliases", "sendmail -bi", "sendmail -I"} {
		std, out, _ := captured("")
		if code := wafer(strings.Fields(name), std); code != 0 || !strings.Contains(out.String(), "no database") {
			t.Errorf("%s: exit code %d, said %q", name, code, out)
		}
	}
}
