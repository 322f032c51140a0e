package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
)

// peer is a server whose large mailbox is read.
type peer struct{ name, imap, pop3, user string }

// readMore times what takes more than one command of one session.
func readMore(p peer, r *report) error {
	retr, err := p.retrieve()
	if err != nil {
		return fmt.Errorf("POP3: %w", err)
	}
	told, err := p.notify()
	if err != nil {
		return fmt.Errorf("IDLE: %w", err)
	}
	r.Reads = append(r.Reads, readRow{p.name, "POP3 RETR of 2,000", ms(retr)}, readRow{p.name, "APPEND to EXISTS in another session's IDLE", ms(told)})
	return nil
}

// talk is a connection on which lines are read.
type talk struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialTalk(address string) (*talk, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	t := &talk{conn, bufio.NewReaderSize(conn, 64<<10)}
	_, err = t.until("")
	return t, err
}

// until reads lines up to one that begins with prefix.
func (t *talk) until(prefix string) (string, error) {
	if err := t.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	for {
		line, err := t.in.ReadString('\n')
		if err != nil {
			return "", err
		}
		for _, bad := range []string{"a NO", "a BAD", "-ERR"} {
			if strings.HasPrefix(line, bad) {
				return "", errors.New(strings.TrimSpace(line))
			}
		}
		if strings.HasPrefix(line, prefix) {
			return line, nil
		}
	}
}

// say sends a command and reads up to the line that begins with prefix.
func (t *talk) say(command, prefix string) error {
	if _, err := io.WriteString(t.conn, command+"\r\n"); err != nil {
		return err
	}
	_, err := t.until(prefix)
	return err
}

// retrieve reads 2,000 messages, one after another.
func (p peer) retrieve() (took time.Duration, err error) {
	t, err := dialTalk(p.pop3)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, t.conn.Close()) }()
	if err := errors.Join(t.say("USER "+p.user, "+OK"), t.say("PASS "+password, "+OK")); err != nil {
		return 0, err
	}
	start := time.Now()
	for n := range 2000 {
		if _, err := fmt.Fprintf(t.conn, "RETR %d\r\n", n+1); err != nil {
			return 0, err
		}
		for {
			line, err := t.in.ReadSlice('\n')
			if err != nil {
				return 0, err
			}
			if bytes.HasPrefix(line, []byte("-ERR")) {
				return 0, errors.New(string(line))
			}
			if len(line) == 3 && line[0] == '.' {
				break
			}
		}
	}
	took = time.Since(start)
	return took, t.say("QUIT", "+OK")
}

// notify is how long after an APPEND is sent another session hears of it, the median
// of 21.
func (p peer) notify() (took time.Duration, err error) {
	var both [2]*talk
	for i := range both {
		t, err := dialTalk(p.imap)
		if err != nil {
			return 0, err
		}
		defer t.conn.Close() // what went wrong has shown
		if err := t.say("a LOGIN "+p.user+" "+password, "a OK"); err != nil {
			return 0, err
		}
		both[i] = t
	}
	watcher, writer := both[0], both[1]
	if err := errors.Join(watcher.say("a SELECT INBOX", "a OK"), watcher.say("a IDLE", "+")); err != nil {
		return 0, err
	}
	text := "Subject: news\r\n\r\n" + strings.Repeat("x", 500) + "\r\n"
	var all []time.Duration
	for range 21 {
		start := time.Now()
		if err := writer.say(fmt.Sprintf("a APPEND INBOX {%d+}\r\n%s", len(text), text), "a OK"); err != nil {
			return 0, err
		}
		for {
			line, err := watcher.until("* ")
			if err != nil {
				return 0, err
			}
			if strings.HasSuffix(strings.TrimSpace(line), "EXISTS") {
				break
			}
		}
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}
