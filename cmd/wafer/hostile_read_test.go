package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// imapAttacks are what can be done to IMAP alone.
func imapAttacks() []attack {
	lines := answers("imap")
	// after sends text, closes, and wants nothing but IMAP until the end.
	after := func(login bool, text func(p *peer) error) func(p *peer) error {
		return func(p *peer) error {
			if login {
				if err := p.imapLogin("ann"); err != nil {
					return err
				}
				if _, err := p.imapOK("SELECT INBOX"); err != nil {
					return err
				}
			}
			said := p.drainTo()
			err := errors.Join(text(p), half(p))
			answer, gone := said()
			return errors.Join(err, gone, sane(answer, lines))
		}
	}
	say := func(text string) func(p *peer) error { return func(p *peer) error { return p.trySend(text) } }
	long := func(head, pattern string) func(p *peer) error {
		return func(p *peer) error { return errors.Join(p.trySend(head), p.pour(pattern, 10<<20), p.trySend("\r\n")) }
	}
	return []attack{
		{"a command of 10 MB", "imap", after(false, long("a LOGIN ", "A"))},
		{"a tag of 10 MB", "imap", after(false, long("", "a"))},
		{"a quoted string of 10 MB", "imap", after(true, long(`a SEARCH SUBJECT "`, "A"))},
		{"brackets without an end", "imap", after(true, long("a FETCH 1 ", "("))},
		{"nested search keys", "imap", after(true, long("a SEARCH ", "NOT "))},
		{"nested ORs", "imap", after(true, long("a UID SEARCH ", "OR "))},
		{"a long set", "imap", after(true, long("a FETCH 1", ",1:*"))},
		{"a set of every number", "imap", after(true, say("a FETCH 1:4294967295 (UID)\r\na UID FETCH 1:4294967295,4294967295:1 FLAGS\r\na SEARCH UID 1:4294967295\r\n"))},
		{"a literal of 4 GB before login", "imap", after(false, say("a LOGIN {4294967295}\r\n"))},
		{"a literal with a size that is none", "imap", after(false, say("a LOGIN {99999999999999999999999}\r\nb LOGIN {-1}\r\na LOGIN {0x10}\r\n"))},
		{"a non-synchronizing literal of 10 MB before login", "imap", after(false, long("a LOGIN {10485760+}\r\n", "A"))},
		{"an APPEND of 4 GB", "imap", after(true, say("a APPEND INBOX {4294967295}\r\n"))},
		{"an APPEND that stops", "imap", after(true, say("a APPEND INBOX {1000+}\r\nSubject: half\r\n"))},
		{"8-bit octets and NULs in strings", "imap", after(true, say("a SELECT \"\xff\xfe\"\r\na SELECT \"\x00\"\r\na CREATE \"&bad-\"\r\na CREATE \"../../etc\"\r\na CREATE \"a/../../b\"\r\na SELECT {3}\r\n\x00\x00\x00\r\n"))},
		{"patterns that explode", "imap", after(true, say(`a LIST "" "`+strings.Repeat("*%", 500)+"x\"\r\n"))},
		{"sections that are none", "imap", after(true, say("a FETCH 1 BODY[1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1]\r\na FETCH 1 BODY[4294967296]\r\na FETCH 1 BODY[]<4294967295.4294967295>\r\na FETCH 1 BODY[0]<0.0>\r\n"))},
		{"an IDLE that ends in garbage", "imap", after(true, say("a IDLE\r\n"+random(1000)+"\r\n"))},
		{"a flood of tags", "imap", after(true, func(p *peer) error { return p.pour("a NOOP\r\n", 1<<20) })},
		{"a hundred wrong passwords", "imap", after(false, say(strings.Repeat("a LOGIN trevor wrong\r\n", 100)))},
		{"an AUTHENTICATE of 10 MB", "imap", after(false, long("a AUTHENTICATE PLAIN\r\n", "QUFB"))},
		{"a session that breaks off in FETCH", "imap", func(p *peer) error {
			if err := p.imapLogin("ann"); err != nil {
				return err
			}
			return p.send("a SELECT INBOX\r\n" + strings.Repeat("a FETCH 1:* BODY.PEEK[]\r\n", 500))
		}},
	}
}

// pop3Attacks are what can be done to POP3 alone.
func pop3Attacks() []attack {
	lines := append(answers("pop3"), "From", "To", "Subject", "Date", "Message", "MIME", "Content", "X-", "\t", "Ret", "Deliv", "Rec", ".", "tr", "Gr", "end", "\r", " ", "1", "2")
	after := func(login bool, text func(p *peer) error) func(p *peer) error {
		return func(p *peer) error {
			if login {
				if err := p.popLogin("bob"); err != nil && !strings.Contains(err.Error(), "-ERR [IN-USE]") {
					return err
				}
			}
			said := p.drainTo()
			err := errors.Join(text(p), half(p))
			answer, gone := said()
			return errors.Join(err, gone, sane(answer, lines))
		}
	}
	say := func(text string) func(p *peer) error { return func(p *peer) error { return p.trySend(text) } }
	long := func(head, pattern string) func(p *peer) error {
		return func(p *peer) error { return errors.Join(p.trySend(head), p.pour(pattern, 10<<20), p.trySend("\r\n")) }
	}
	return []attack{
		{"a command of 10 MB", "pop3", after(false, long("", "A"))},
		{"a user of 10 MB", "pop3", after(false, long("USER ", "A"))},
		{"an AUTH response of 10 MB", "pop3", after(false, long("AUTH PLAIN\r\n", "QUFB"))},
		{"numbers that are none", "pop3", after(true, say("RETR 0\r\nRETR -1\r\nRETR 99999999999999999999\r\nTOP 1 -1\r\nTOP 1 99999999999999\r\nDELE 18446744073709551617\r\nUIDL x\r\nLIST \x00\r\n"))},
		{"a flood of commands", "pop3", after(true, func(p *peer) error { return p.pour("STAT\r\n", 1<<20) })},
		{"a hundred wrong passwords", "pop3", after(false, say(strings.Repeat("USER trevor\r\nPASS wrong\r\n", 100)))},
		{"8-bit octets in commands", "pop3", after(false, say("USER \xff\xfe\r\nPASS \x80\r\n\xc3\xa4\r\n"))},
		{"commands before their time", "pop3", after(false, say("RETR 1\r\nDELE 1\r\nSTAT\r\nRSET\r\n"))},
	}
}

// TestSlowReaders holds sessions on IMAP and POP3 that say one octet a second:
// they must end although they are never idle.
func TestSlowReaders(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for the time that a client has to log in, a minute, and -short is given")
	}
	t.Parallel()
	w := newWorld(t, setup{})
	s := w.start()
	done := make(chan error)
	doors := []string{"imap", "imaps", "pop3", "pop3s"}
	for i, door := range doors {
		go func() {
			p, err := s.reach(door, 1+i)
			if err != nil {
				done <- err
				return
			}
			defer p.close()
			begun := time.Now()
			text, err := p.drip("a LOGIN "+strings.Repeat("x", 1000), time.Second, 150*time.Second)
			if err == nil {
				err = sane(text, answers(door))
			}
			if err != nil {
				err = fmt.Errorf("%s, after %s: %w", door, time.Since(begun).Round(time.Second), err)
			}
			done <- err
		}()
	}
	for range doors {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	s.until("the slow sessions are gone", quiet)
	s.stop()
}
