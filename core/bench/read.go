package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// readRow is how long one step of reading a mailbox took.
type readRow struct {
	Server string  `json:"server"` // "wafer", "dovecot"
	Step   string  `json:"step"`
	Took   float64 `json:"ms"`
}

// readSteps are what a client does, in this order: cold with no index, warm after it.
var readSteps = []struct{ name, command string }{ // never changed
	{"SELECT", "SELECT INBOX"},
	{"FETCH ENVELOPE", "FETCH 1:* (UID FLAGS ENVELOPE)"},
	{"FETCH FLAGS", "FETCH 1:* (FLAGS)"},
	{"FETCH BODY[] of 2,000", "FETCH 1:2000 (BODY.PEEK[])"},
	{"SEARCH SUBJECT", "SEARCH SUBJECT nosuchword"},
	{"SEARCH TEXT", "SEARCH TEXT nosuchword"},
	{"SORT SUBJECT", "SORT (SUBJECT) UTF-8 ALL"},
	{"THREAD", "THREAD REFERENCES UTF-8 ALL"},
	{"STORE of 1,000", `STORE 1:1000 +FLAGS.SILENT (\Flagged)`},
	{"STORE back", `STORE 1:1000 -FLAGS.SILENT (\Flagged)`},
}

// dovecotConf is an instance of its own for one mailbox.
const dovecotConf = `protocols = imap pop3
listen = 127.0.0.1
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
mail_location = maildir:%[1]s/box
first_valid_uid = 0
first_valid_gid = 0
ssl = no
disable_plaintext_auth = no
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=%[2]d gid=%[2]d home=%[1]s
}
service imap-login {
  inet_listener imap {
    port = %[3]s
  }
  inet_listener imaps {
    port = 0
  }
}
service pop3-login {
  inet_listener pop3 {
    port = %[4]s
  }
  inet_listener pop3s {
    port = 0
  }
}
`

// measureRead reads one large mailbox, of wafer and of Dovecot in turn.
func measureRead(ctx context.Context, s *settings, work string, r *report) error {
	peer, err := exec.LookPath("dovecot")
	if err != nil || os.Getuid() != 0 {
		peer = ""
		r.Notes = append(r.Notes, "There is no Dovecot to compare with: it needs the package dovecot-imapd, and root.")
	}
	for round := range s.repeat {
		calm(ctx, s.calm)
		if err := readWafer(ctx, s, work, round, r); err != nil {
			return fmt.Errorf("wafer: %w", err)
		}
		if peer == "" {
			continue
		}
		if err := readDovecot(ctx, work, peer, round, s.mailbox, r); err != nil {
			return fmt.Errorf("dovecot: %w", err)
		}
	}
	return nil
}

// fillOne makes a Maildir of n messages of 4 KiB with LF line ends and no sizes in
// their names, as a plain delivery agent leaves them.
func fillOne(box string, n, owner int) error {
	for _, sub := range []string{"", "tmp", "new", "cur"} {
		d := filepath.Join(box, sub)
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
		if err := os.Chown(d, owner, owner); err != nil {
			return err
		}
	}
	body := bytes.Repeat([]byte("a line of the message, as long as lines of messages mostly are\n"), 56)
	for i := range n {
		var b bytes.Buffer
		fmt.Fprintf(&b, "Return-Path: <s%[1]d@sender.test>\nReceived: from a.test (a.test [192.0.2.1])\n\tby mx.example.test with ESMTP id %[1]d\n\tfor <u0@example.test>; Mon, 2 Nov 2026 10:00:00 +0100\n"+
			"From: Sender number %[1]d <s%[1]d@sender.test>\nTo: u0@example.test\nSubject: Message %[2]d of the list\nDate: Mon, 2 Nov 2026 10:%02[3]d:00 +0100\nMessage-ID: <%[1]d@sender.test>\nReferences: <%[4]d@sender.test>\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n", i, i%977, i%60, i/10*10)
		b.Write(body)
		name := filepath.Join(box, "cur", fmt.Sprintf("%d.M%06dP%d.bench:2,S", 1_700_000_000+17*i, i*7919%1_000_000, 1000+i*31%977))
		if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
			return err
		}
		if err := os.Chown(name, owner, owner); err != nil {
			return err
		}
	}
	return nil
}

func readWafer(ctx context.Context, s *settings, work string, round int, r *report) (err error) {
	dir, err := folder(work, "read-wafer-"+strconv.Itoa(round))
	if err != nil {
		return err
	}
	if err := fillOne(filepath.Join(dir, "mail", domain, "u0"), s.mailbox, os.Getuid()); err != nil {
		return err
	}
	for _, temperature := range []string{"cold", "warm"} {
		settle()
		w, err := startWafer(ctx, s.wafer, dir, "read", false)
		if err != nil {
			return err
		}
		conn, err := net.DialTimeout("tcp", w.doors["imap"], patience)
		if err != nil {
			return errors.Join(err, w.stop())
		}
		err = readSession(conn, "wafer", temperature, "u0@"+domain, r)
		if err == nil && temperature == "warm" {
			err = readMore(peer{"wafer", w.doors["imap"], w.doors["pop3"], "u0@" + domain}, r)
		}
		if err = errors.Join(err, conn.Close(), w.stop()); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until the directories' times are old enough to be trusted: Dovecot
// sleeps over younger ones.
func settle() { time.Sleep(3 * time.Second) }

func readDovecot(ctx context.Context, work, binary string, round, n int, r *report) (err error) {
	dir, err := folder(work, "dovecot-"+strconv.Itoa(round))
	if err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	post, err := freeAddress()
	if err != nil {
		return err
	}
	_, postPort, err := net.SplitHostPort(post)
	if err != nil {
		return err
	}
	conf := filepath.Join(dir, "dovecot.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, dovecotConf, dir, mailOwner, port, postPort), 0o644); err != nil {
		return err
	}
	if err := errors.Join(os.Chown(dir, mailOwner, mailOwner), fillOne(filepath.Join(dir, "box"), n, mailOwner)); err != nil {
		return err
	}
	cmd := exec.Command(binary, "-F", "-c", conf)
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()) }()
	if err := answers(ctx, address); err != nil {
		return fmt.Errorf("%w%s", err, tail(filepath.Join(dir, "log")))
	}
	for _, temperature := range []string{"cold", "warm"} {
		settle()
		conn, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			return err
		}
		err = readSession(conn, "dovecot", temperature, "u0", r)
		if err == nil && temperature == "warm" {
			if err := readMore(peer{"dovecot", address, post, "u0"}, r); err != nil {
				r.Notes = append(r.Notes, fmt.Sprintf("Dovecot: %v", err))
			}
		}
		if err = errors.Join(err, conn.Close()); err != nil {
			return err
		}
	}
	return nil
}

// readSession times every step of a session.
func readSession(conn io.ReadWriter, server, temperature, user string, r *report) error {
	in := bufio.NewReaderSize(conn, 64<<10)
	if _, err := in.ReadSlice('\n'); err != nil {
		return err
	}
	step := func(command string) (time.Duration, error) {
		start := time.Now()
		if _, err := fmt.Fprintf(conn, "a %s\r\n", command); err != nil {
			return 0, err
		}
		for {
			line, err := in.ReadSlice('\n')
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if err != nil {
				return 0, err
			}
			switch {
			case bytes.HasPrefix(line, []byte("a OK")):
				return time.Since(start), nil
			case bytes.HasPrefix(line, []byte("a ")):
				return 0, fmt.Errorf("%s: %s", command, bytes.TrimSpace(line))
			}
			if size, ok := literalSize(line); ok {
				if _, err := in.Discard(size); err != nil {
					return 0, err
				}
			}
		}
	}
	if _, err := step("LOGIN " + user + " " + password); err != nil {
		return err
	}
	for _, x := range readSteps {
		took, err := step(x.command)
		if err != nil {
			return err
		}
		r.Reads = append(r.Reads, readRow{server, x.name + ", " + temperature, ms(took)})
	}
	_, err := step("LOGOUT")
	return err
}

// literalSize is the size of a literal that a line announces.
func literalSize(line []byte) (int, bool) {
	line = bytes.TrimRight(line, "\r\n")
	open := bytes.LastIndexByte(line, '{')
	if open < 0 || !bytes.HasSuffix(line, []byte("}")) {
		return 0, false
	}
	n, err := strconv.Atoi(string(line[open+1 : len(line)-1]))
	return n, err == nil && n >= 0
}

func (r *report) printReads(b *bytes.Buffer) {
	if len(r.Reads) == 0 {
		return
	}
	fmt.Fprint(b, "\nReading a mailbox over IMAP: ms for each step, the first time without an index (cold) and again in a new session (warm).\n\n| step | wafer | Dovecot | times faster |\n|---|--:|--:|--:|\n")
	for _, g := range group(r.Reads, func(x readRow) string { return x.Step }) {
		of := func(server string) (rows []readRow) {
			for _, x := range g {
				if x.Server == server {
					rows = append(rows, x)
				}
			}
			return rows
		}
		took := func(x readRow) float64 { return x.Took }
		ours, theirs := median(of("wafer"), took), "–"
		times := "–"
		if peer := of("dovecot"); len(peer) > 0 {
			m := median(peer, took)
			theirs, times = fmt.Sprintf("%.1f", m), strings.TrimSuffix(fmt.Sprintf("%.1f", m/ours), ".0")
		}
		fmt.Fprintf(b, "| %s | %.1f | %s | %s |\n", g[0].Step, ours, theirs, times)
	}
}
