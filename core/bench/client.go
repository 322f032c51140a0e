package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// patience bounds one step of a conversation.
const patience = 60 * time.Second

// client is one SMTP or IMAP connection.
type client struct {
	conn net.Conn
	r    *bufio.Reader
}

// dial connects to address from the loopback address 127.net.x.y that belongs
// to the n-th connection, so that the server sees a thousand clients.
func dial(address string, network byte, n int) (*client, error) {
	d := net.Dialer{
		Timeout:   patience,
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, network, byte(n/250%4), byte(1+n%250))},
	}
	conn, err := d.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, r: bufio.NewReaderSize(conn, 1024)}, nil
}

// secure puts TLS on the connection, without asking who is at the other end.
func (c *client) secure() error {
	t := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := t.Handshake(); err != nil {
		return err
	}
	c.conn = t
	c.r = bufio.NewReaderSize(t, 1024)
	return nil
}

// reply reads one SMTP reply and checks its code.
func (c *client) reply(want string) error {
	for {
		line, err := c.r.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case len(line) < 5 || string(line[:3]) != want:
			return fmt.Errorf("want %s, got %q", want, line)
		case line[3] == ' ':
			return nil
		}
	}
}

// command sends line and reads the reply.
func (c *client) command(line, want string) error {
	if _, err := c.conn.Write([]byte(line + "\r\n")); err != nil {
		return err
	}
	if err := c.reply(want); err != nil {
		verb, _, _ := strings.Cut(line, " ")
		return fmt.Errorf("%s: %w", verb, err)
	}
	return nil
}

// hello reads the greeting and sends EHLO, with STARTTLS if asked.
func (c *client) hello(name string, starttls bool) error {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := c.reply("220"); err != nil {
		return err
	}
	if err := c.command("EHLO "+name, "250"); err != nil || !starttls {
		return err
	}
	if err := c.command("STARTTLS", "220"); err != nil {
		return err
	}
	if err := c.secure(); err != nil {
		return err
	}
	return c.command("EHLO "+name, "250")
}

// smtpOpen connects and says EHLO.
func smtpOpen(address string, network byte, n int, starttls bool) (*client, error) {
	c, err := dial(address, network, n)
	if err != nil {
		return nil, err
	}
	if err := c.hello(fmt.Sprintf("client%d.sender.test", n), starttls); err != nil {
		return nil, errors.Join(err, c.conn.Close())
	}
	return c, nil
}

// quit ends the session politely.
func (c *client) quit() {
	_ = c.command("QUIT", "221") // the messages are what counts
	_ = c.conn.Close()
}

// imapIdle logs in, selects INBOX and begins to idle.
func imapIdle(address string, network byte, n int, user, password string, implicit bool) (*client, error) {
	c, err := dial(address, network, n)
	if err != nil {
		return nil, err
	}
	if err := c.idle(user, password, implicit); err != nil {
		return nil, errors.Join(err, c.conn.Close())
	}
	return c, nil
}

func (c *client) idle(user, password string, implicit bool) error {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if implicit {
		if err := c.secure(); err != nil {
			return err
		}
	}
	if _, err := c.until("* "); err != nil {
		return err
	}
	for _, s := range [][2]string{
		{"a LOGIN " + user + " " + password, "a "},
		{"b SELECT INBOX", "b "},
		{"c IDLE", "+ "},
	} {
		if _, err := c.conn.Write([]byte(s[0] + "\r\n")); err != nil {
			return err
		}
		line, err := c.until(s[1])
		if err != nil {
			return err
		}
		if s[1] != "+ " && !strings.HasPrefix(line[2:], "OK") {
			return fmt.Errorf("%s: got %q", strings.Fields(s[0])[1], line)
		}
	}
	return c.conn.SetDeadline(time.Time{})
}

// until reads lines up to one that begins with prefix, or is tagged.
func (c *client) until(prefix string) (string, error) {
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		switch {
		case strings.HasPrefix(line, prefix):
			return line, nil
		case line[0] != '*':
			return "", fmt.Errorf("want %q, got %q", prefix, line)
		}
	}
}
