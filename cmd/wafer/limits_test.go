package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"

	"github.com/wafermail/wafer/core/admin"
)

// TestConnectionCaps: ten SMTP connections of one client at once and thirty in
// a minute, on all SMTP doors together; other clients do not feel it.
func TestConnectionCaps(t *testing.T) {
	w := newWorld(t, setup{})
	s := w.start()
	var peers []*peer
	for i := range 10 {
		p := s.open([]string{"mx", "submission"}[i%2], 1)
		must(t, p.greeted())
		peers = append(peers, p)
	}
	turnedAway := func(client int) {
		t.Helper()
		text, err := s.open("mx", client).gone()
		if err != nil || !strings.HasPrefix(text, "421 4.7.0 ") {
			t.Errorf("one too many was told %q (%v), want 421 4.7.0", text, err)
		}
	}
	turnedAway(1)
	must(t, s.open("mx", 2).greeted())
	for _, p := range peers {
		_, err := p.want(221, "QUIT")
		must(t, err)
		p.close()
	}
	s.until("the sessions are gone", func(st admin.Status) bool { return openOf(st) <= 1 })
	for range 20 { // thirty in all
		p := s.open("mx", 1)
		must(t, p.greeted())
		_, err := p.want(221, "QUIT")
		must(t, err)
		p.close()
	}
	s.until("the sessions are gone", func(st admin.Status) bool { return openOf(st) <= 1 })
	turnedAway(1)
	s.stop()
}

// TestMessageLimits: sizes are inclusive, and count the message without
// transparency dots; what is over the limit is refused and does not end the
// session.
func TestMessageLimits(t *testing.T) {
	w := newWorld(t, setup{top: "limits {\n  message_size = 10000\n  recipients   = 3\n}\n"})
	s := w.start()
	p := s.open("mx", 0)
	must(t, p.greeted())
	text, err := p.want(250, "EHLO client.example.net")
	must(t, err)
	if !strings.Contains(text, "SIZE 10000") || !strings.Contains(text, "RCPTMAX=3") {
		t.Errorf("EHLO says %q", text)
	}
	message := func(n int) string {
		head := "Subject: x\r\n\r\n"
		lines := strings.Repeat(".234567890\r\n", (n-len(head))/12-1)
		return head + lines + strings.Repeat("x", n-len(head)-len(lines)-2) + "\r\n"
	}
	for size, want := range map[int]int{9999: 250, 10000: 250, 10001: 552, 20000: 552} {
		code, text, err := p.deliver("sender@example.net", []string{account}, "", message(size))
		must(t, err)
		if code != want || len(message(size)) != size {
			t.Errorf("%d octets: got %q, want %d", size, text, want)
		}
	}
	_, err = p.want(250, "MAIL FROM:<sender@example.net> SIZE=10000")
	must(t, err)
	_, err = p.want(250, "RSET")
	must(t, err)
	_, err = p.want(552, "MAIL FROM:<sender@example.net> SIZE=10001")
	must(t, err)
	_, err = p.want(250, "MAIL FROM:<sender@example.net>")
	must(t, err)
	for i := range 3 {
		_, err = p.want(250, fmt.Sprintf("RCPT TO:<ann+%d@example.test>", i))
		must(t, err)
	}
	_, err = p.want(452, "RCPT TO:<bob@example.test>")
	must(t, err)
	s.stop()
	if n := len(mailIn(t, w.maildir("ann"))); n != 2 {
		t.Errorf("ann has %d messages, want 2", n)
	}
}

// TestProxy: a load balancer says for whom it speaks, in both versions of its
// header; without it, it is not served.
func TestProxy(t *testing.T) {
	w := newWorld(t, setup{top: "proxy_networks = [\"127.0.0.0/8\"]\n"})
	s := w.start()
	header := func(version byte) string {
		h := proxyproto.HeaderProxyFromAddrs(version, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 25})
		b, err := h.Format()
		must(t, err)
		return string(b)
	}
	for _, version := range []byte{1, 2} {
		p := s.open("mx", 0)
		must(t, p.send(header(version)))
		must(t, p.greeted())
		code, text, err := p.deliver("sender@example.net", []string{account}, "", "Subject: x\r\n\r\nx\r\n")
		must(t, err)
		if code != 250 {
			t.Errorf("version %d: %q", version, text)
		}
		for _, door := range []string{"imaps", "pop3s"} {
			p, err := connect(s.addr[door], 0)
			must(t, err)
			defer p.close()
			must(t, p.send(header(version)))
			must(t, p.secure(w.tls()))
			if strings.HasPrefix(door, "imap") {
				must(t, p.imapLogin("ann"))
			} else {
				must(t, p.popLogin("bob"))
				_, err = p.pop("QUIT") // one session has the mailbox
				must(t, err)
			}
		}
	}
	for _, door := range []string{"mx", "imap", "pop3"} {
		p := s.open(door, 0)
		must(t, p.send("NOOP but this is no PROXY header\r\n"))
		if text, err := p.gone(); err != nil || strings.HasPrefix(text, "220") || strings.Contains(text, "OK") {
			t.Errorf("%s: without a header it was told %q (%v)", door, text, err)
		}
	}
	s.stop()
	for _, file := range mailIn(t, w.maildir("ann")) {
		b, err := os.ReadFile(file)
		must(t, err)
		if !bytes.Contains(b, []byte("([192.0.2.7])")) {
			t.Errorf("Received does not name the client: %q", b)
		}
	}
	if log := s.log.String(); strings.Count(log, "192.0.2.7") < 6 {
		t.Errorf("the log does not name the client in every session:\n%s", tail(log, 4000))
	}
}

// TestProxyForNobody: without proxy_networks the header is just a bad command.
func TestProxyForNobody(t *testing.T) {
	w := newWorld(t, setup{})
	s := w.start()
	p := s.open("mx", 0)
	_, _, err := p.reply()
	must(t, err)
	_, err = p.want(500, "PROXY TCP4 192.0.2.7 192.0.2.1 4711 25")
	must(t, err)
	s.stop()
}
