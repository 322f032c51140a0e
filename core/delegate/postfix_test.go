//go:build unix

package delegate

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/postfixtest"
)

// settings are an instance's that asks the policy service and hands what it accepts to
// an LMTP sink.
const settings = `virtual_mailbox_domains = example.test
virtual_mailbox_maps = static:any
virtual_transport = lmtp:inet:%[1]s
smtpd_recipient_restrictions = check_policy_service inet:%[2]s, reject_unlisted_recipient
smtpd_data_restrictions = check_policy_service inet:%[2]s
smtpd_policy_service_retry_delay = 1s
`

func startPostfix(t *testing.T, lmtp, service string) (smtp string) {
	t.Helper()
	return postfixtest.Start(t, fmt.Sprintf(settings, lmtp, service), nil)
}

// sink is an LMTP server that hands over the messages it is given.
func sink(t *testing.T) (address string, messages <-chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 10)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { receive(c, got) })
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String(), got
}

func receive(nc net.Conn, got chan<- string) {
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	c := textproto.NewConn(nc)
	_ = c.PrintfLine("220 sink")
	for {
		l, err := c.ReadLine()
		if err != nil {
			return
		}
		switch verb, _, _ := strings.Cut(l, " "); strings.ToUpper(verb) {
		case "DATA":
			_ = c.PrintfLine("354 go")
			b, err := c.ReadDotBytes()
			if err != nil {
				return
			}
			got <- string(b)
			_ = c.PrintfLine("250 2.0.0 ok")
		case "QUIT":
			_ = c.PrintfLine("221 bye")
			return
		default:
			_ = c.PrintfLine("250 2.0.0 ok")
		}
	}
}

// say sends a command and returns the last line of the reply.
func say(t *testing.T, nc net.Conn, r *bufio.Reader, command string) string {
	t.Helper()
	if command != "" {
		if _, err := io.WriteString(nc, command+"\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %q, %v", command, l, err)
		}
		if len(l) < 4 || l[3] != '-' {
			return strings.TrimSpace(l)
		}
	}
}

// TestPostfix: Debian's Postfix asks our policies through check_policy_service.
func TestPostfix(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	j := &journal{says: func(ev *policy.Event) policy.Verdict {
		switch {
		case ev.Stage == policy.Helo && ev.Helo == "liar.example":
			return refuse(policy.Reject, 501, "5.5.2", "not your name, "+ev.Client.Addr().String())
		case ev.Stage == policy.Mail && ev.Sender.Domain() == "spam.example":
			return refuse(policy.Reject, 550, "5.7.23", "SPF fail")
		case ev.Stage == policy.Mail && ev.Sender.Local() == "grey":
			return refuse(policy.DeferIfPermit, 450, "4.7.1", "greylisted")
		case ev.Stage == policy.Rcpt && ev.Recipient.Local() == "x y":
			return policy.Verdict{Action: policy.Accept, Effects: policy.Effects{Prepend: []policy.Field{{Name: "X-Policy", Value: "of " + ev.Recipient.String()}}}}
		case ev.Stage == policy.Rcpt && ev.Recipient.Local() == "bye":
			return policy.Verdict{Action: policy.Disconnect}
		case ev.Stage == policy.Data && len(ev.Rcpts) == 2:
			return policy.Verdict{Effects: policy.Effects{Prepend: []policy.Field{{Name: "X-Data", Value: "both"}}}}
		}
		return policy.Verdict{}
	}}
	srv := startOn(t, ServerConfig{Policies: always(setOf(j, everyStage()...))}, ln)
	lmtp, messages := sink(t)
	smtp := startPostfix(t, lmtp, ln.Addr().String())

	nc, err := net.Dial("tcp", smtp)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReader(nc)
	for _, row := range []struct{ command, reply, stages string }{
		{"", "220 ", ""},
		{"XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=4711", "220 ", ""},
		{"EHLO liar.example", "250 ", ""},
		{"MAIL FROM:<a@b.example>", "250 ", ""},
		{"RCPT TO:<r@example.test>", "501 5.5.2 <r@example.test>: Recipient address rejected: not your name, 192.0.2.7 (", "connect, helo, mail"},
		{"RCPT TO:<s@example.test>", "501 5.5.2 ", ""},
		{"EHLO good.example", "250 ", ""},
		{"MAIL FROM:<a@spam.example>", "250 ", ""},
		{"RCPT TO:<r@example.test>", "550 5.7.23 <r@example.test>: Recipient address rejected: SPF fail (", "helo, mail"},
		{"RSET", "250 ", ""},
		{"MAIL FROM:<grey@b.example>", "250 ", ""},
		{"RCPT TO:<r@example.test>", "450 4.7.1 <r@example.test>: Recipient address rejected: greylisted (", "mail, rcpt r@example.test after 0"},
		{"RSET", "250 ", ""},
		// What is accepted here is no relay: that list is Postfix's own.
		{"MAIL FROM:<>", "250 ", ""},
		{"RCPT TO:<\"x y\"@elsewhere.example>", "554 5.7.1 <x y@elsewhere.example>: Relay access denied", ""},
		{"RCPT TO:<\"x y\"@example.test>", "250 2.1.5 ", `mail, rcpt "x y"@example.test after 0`},
		{"RCPT TO:<r@example.test>", "250 2.1.5 ", "rcpt r@example.test after 1"},
		{"DATA", "354 ", "data"},
		{"Subject: hello\r\n\r\nbody\r\n.", "250 2.0.0 Ok: queued as ", ""},
		{"MAIL FROM:<a@b.example>", "250 ", ""},
		{"RCPT TO:<bye@example.test>", "421 4.7.0 ", "mail, rcpt bye@example.test after 0"},
	} {
		if got := say(t, nc, r, row.command); !strings.HasPrefix(got, row.reply) {
			t.Errorf("%s: %q, want %q", row.command, got, row.reply)
		}
		if got := j.take(); got != row.stages {
			t.Errorf("%s: asked %q, want %q", row.command, got, row.stages)
		}
	}
	if b, err := r.ReadByte(); err == nil {
		t.Errorf("%q after 421", b)
	}
	select {
	case m := <-messages:
		if !strings.Contains(m, "X-Policy: of \"x y\"@example.test\n") || !strings.Contains(m, "X-Data: both\n") {
			t.Errorf("the message is\n%s", m)
		}
	case <-time.After(30 * time.Second):
		t.Error("no message came")
	}
	if st := srv.Stats(); st.Requests != 8 || st.Malformed != 0 || st.Lost != 0 {
		t.Errorf("%+v", st)
	}
}
