package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// peer is a client that says exactly what it is told to. One goroutine uses it.
type peer struct {
	c   net.Conn
	r   *bufio.Reader
	tag int
}

// source is the n-th address of loopback that a client can come from, so that
// limits per client do not see one client.
func source(n int) net.IP {
	return net.IPv4(127, byte(1+n>>16), byte(n>>8), byte(n))
}

// connect opens a connection from source(n), or from anywhere if n is 0.
func connect(addr string, n int) (*peer, error) {
	d := net.Dialer{Timeout: patience}
	if n != 0 {
		d.LocalAddr = &net.TCPAddr{IP: source(n)}
	}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return newPeer(c), nil
}

// newPeer is a client on a connection that is open.
func newPeer(c net.Conn) *peer {
	p := &peer{c: c, r: bufio.NewReaderSize(c, 4096)}
	p.arm()
	return p
}

// secure begins TLS.
func (p *peer) secure(config *tls.Config) error {
	c := tls.Client(p.c, config)
	if err := c.Handshake(); err != nil {
		return err
	}
	p.c, p.r = c, bufio.NewReaderSize(c, 4096)
	return nil
}

// arm gives the next exchange its time.
func (p *peer) arm() { _ = p.c.SetDeadline(time.Now().Add(patience)) }

// close ends the connection without a word.
func (p *peer) close() { _ = p.c.Close() }

// send writes text as it is.
func (p *peer) send(text string) error {
	p.arm()
	_, err := io.WriteString(p.c, text)
	return err
}

// line reads one line, without its end.
func (p *peer) line() (string, error) {
	p.arm()
	s, err := p.r.ReadString('\n')
	if err != nil {
		return s, err
	}
	return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r"), nil
}

// gone waits until the server has closed the connection, and returns what it
// said before.
func (p *peer) gone() (string, error) {
	p.arm()
	b, err := io.ReadAll(io.LimitReader(p.r, 1<<24))
	if isReset(err) {
		err = nil
	}
	return string(b), err
}

// isReset reports whether err says that the server closed while octets of ours
// were still under way.
func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// reply reads one SMTP reply: its code, and its lines joined by LF.
func (p *peer) reply() (code int, text string, err error) {
	for {
		line, err := p.line()
		if err != nil {
			return 0, text, err
		}
		if len(line) < 4 || line[3] != ' ' && line[3] != '-' {
			return 0, text, fmt.Errorf("not a reply: %q", line)
		}
		if code, err = strconv.Atoi(line[:3]); err != nil {
			return 0, text, fmt.Errorf("not a reply: %q", line)
		}
		text += line + "\n"
		if line[3] == ' ' {
			return code, strings.TrimSuffix(text, "\n"), nil
		}
	}
}

// smtp sends a command and reads the reply.
func (p *peer) smtp(command string) (code int, text string, err error) {
	if err := p.send(command + "\r\n"); err != nil {
		return 0, "", err
	}
	return p.reply()
}

// want sends an SMTP command that must be answered with code.
func (p *peer) want(code int, command string) (string, error) {
	got, text, err := p.smtp(command)
	if err != nil {
		return text, fmt.Errorf("%.60q: %w", command, err)
	}
	if got != code {
		return text, fmt.Errorf("%.60q: got %q, want %d", command, text, code)
	}
	return text, nil
}

// greeted reads the greeting and says EHLO.
func (p *peer) greeted() error {
	code, text, err := p.reply()
	if err == nil && code != 220 {
		err = errors.New("not a welcome")
	}
	if err != nil {
		return fmt.Errorf("greeting %q: %w", text, err)
	}
	_, err = p.want(250, "EHLO client.example.net")
	return err
}

// deliver sends a message by DATA; body has CRLF line ends. The reply to the
// final dot is returned; an error means that there was none.
func (p *peer) deliver(from string, to []string, options, body string) (code int, text string, err error) {
	if _, err := p.want(250, "MAIL FROM:<"+from+">"+options); err != nil {
		return 0, "", err
	}
	for _, rcpt := range to {
		if _, err := p.want(250, "RCPT TO:<"+rcpt+">"); err != nil {
			return 0, "", err
		}
	}
	if _, err := p.want(354, "DATA"); err != nil {
		return 0, "", err
	}
	if err := p.send(stuffed(body) + ".\r\n"); err != nil {
		return 0, "", err
	}
	return p.reply()
}

var dotLine = regexp.MustCompile(`(^|\r\n)\.`)

// stuffed is body with transparency dots and a line end at its end.
func stuffed(body string) string {
	body = dotLine.ReplaceAllString(body, "$1..")
	if body != "" && !strings.HasSuffix(body, "\r\n") {
		body += "\r\n"
	}
	return body
}

// answer is what IMAP said to one command.
type answer struct {
	raw      []byte   // untagged responses, literals included
	literals [][]byte // in order
	status   string   // "OK …", "NO …", "BAD …"
}

// imap sends a command under a new tag and reads up to its tagged response.
func (p *peer) imap(command string) (answer, error) {
	p.tag++
	tag := "a" + strconv.Itoa(p.tag)
	if err := p.send(tag + " " + command + "\r\n"); err != nil {
		return answer{}, err
	}
	return p.tagged(tag)
}

// tagged reads up to the response that begins with tag.
func (p *peer) tagged(tag string) (a answer, err error) {
	for {
		line, err := p.line()
		if err != nil {
			return a, err
		}
		if rest, ok := strings.CutPrefix(line, tag+" "); ok {
			a.status = rest
			return a, nil
		}
		a.raw = append(a.raw, line...)
		a.raw = append(a.raw, "\r\n"...)
		if n, ok := literal(line); ok {
			b := make([]byte, n)
			p.arm()
			if _, err := io.ReadFull(p.r, b); err != nil {
				return a, fmt.Errorf("literal of %d octets: %w", n, err)
			}
			a.raw = append(a.raw, b...)
			a.literals = append(a.literals, b)
		}
	}
}

// literal reports whether a line announces a literal, and of how many octets.
func literal(line string) (int, bool) {
	open := strings.LastIndexByte(line, '{')
	if open < 0 || !strings.HasSuffix(line, "}") {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSuffix(line[open+1:len(line)-1], "+"))
	return n, err == nil && n >= 0
}

// imapOK is imap for a command that must succeed.
func (p *peer) imapOK(command string) (answer, error) {
	a, err := p.imap(command)
	if err == nil && !strings.HasPrefix(a.status, "OK") {
		err = fmt.Errorf("%.60q: got %q", command, a.status)
	}
	return a, err
}

// imapLogin reads the greeting and logs in.
func (p *peer) imapLogin(user string) error {
	line, err := p.line()
	if err == nil && !strings.HasPrefix(line, "* OK") {
		err = errors.New("not a welcome")
	}
	if err != nil {
		return fmt.Errorf("greeting %q: %w", line, err)
	}
	_, err = p.imapOK(fmt.Sprintf("LOGIN %s@%s %q", user, testDomain, testPassword))
	return err
}

// pop sends a command that must be answered with +OK.
func (p *peer) pop(command string) (string, error) {
	if err := p.send(command + "\r\n"); err != nil {
		return "", err
	}
	line, err := p.line()
	if err == nil && !strings.HasPrefix(line, "+OK") {
		err = fmt.Errorf("%.60q: got %q", command, line)
	}
	return line, err
}

// popLines is pop for a command with a multi-line answer, which it returns
// without transparency dots.
func (p *peer) popLines(command string) ([]byte, error) {
	if _, err := p.pop(command); err != nil {
		return nil, err
	}
	var b []byte
	for {
		p.arm()
		line, err := p.r.ReadBytes('\n')
		if err != nil {
			return b, err
		}
		if bytes.Equal(line, []byte(".\r\n")) {
			return b, nil
		}
		b = append(b, bytes.TrimPrefix(line, []byte("."))...)
	}
}

// popLogin reads the greeting and logs in.
func (p *peer) popLogin(user string) error {
	line, err := p.line()
	if err == nil && !strings.HasPrefix(line, "+OK") {
		err = errors.New("not a welcome")
	}
	if err != nil {
		return fmt.Errorf("greeting %q: %w", line, err)
	}
	if _, err := p.pop("USER " + user + "@" + testDomain); err != nil {
		return err
	}
	_, err = p.pop("PASS " + testPassword)
	return err
}

// must fails the test at once if err is not nil.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open connects to a door of s, with TLS if its name ends in s, and closes the
// connection at the end of the test.
func (s *server) open(door string, n int) *peer {
	s.t.Helper()
	p, err := s.reach(door, n)
	must(s.t, err)
	s.t.Cleanup(p.close)
	return p
}

// reach is open for any goroutine: the caller closes.
func (s *server) reach(door string, n int) (*peer, error) {
	p, err := connect(s.addr[door], n)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(door, "s") {
		if err := p.secure(s.w.tls()); err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}
