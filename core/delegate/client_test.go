package delegate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// daemon is a policy daemon that does with its n-th connection what it likes.
func daemon(t testing.TB, each func(n int, c net.Conn, r *bufio.Reader)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for n := 1; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				each(n, c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return "unix:" + path
}

// asked reads a request; "" if there is none.
func asked(r *bufio.Reader) string {
	var all strings.Builder
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			return ""
		}
		if l == "\n" {
			return all.String()
		}
		all.WriteString(l)
	}
}

func open(t testing.TB, o Options) policy.Plugin {
	t.Helper()
	if o.RetryDelay == 0 {
		o.RetryDelay = time.Microsecond
	}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func path4(t testing.TB, s string) mail.Path {
	t.Helper()
	p, err := mail.ParsePath(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func rcptEvent(t testing.TB) *policy.Event {
	return &policy.Event{
		Stage: policy.Rcpt, Time: time.Now(), Session: "S1", Door: "mx", Protocol: "smtp", Hostname: "mx.example",
		Server: netip.MustParseAddrPort("[2001:db8::25]:25"), Client: netip.MustParseAddrPort("[::ffff:192.0.2.7]:4711"),
		ReverseName: "rev.example", Helo: "h\n.example\x00", Extended: true,
		TLS: mail.TLS{Version: "TLSv1.3", Cipher: "TLS_AES_256_GCM_SHA384"}, User: "u", Mechanism: "PLAIN",
		QueueID: "Q1", Sender: path4(t, `"x y"@b.example`), HasSender: true, Recipient: path4(t, "r@d.example"),
		Rcpts: []mail.Path{path4(t, "q@d.example")}, Size: 1234,
	}
}

// TestQuestion has every attribute in the order in which Postfix 3.7.11 sends them.
func TestQuestion(t *testing.T) {
	want := `request=smtpd_access_policy
protocol_state=RCPT
protocol_name=ESMTP
client_address=192.0.2.7
client_name=unknown
client_port=4711
reverse_client_name=rev.example
server_address=2001:db8::25
server_port=25
helo_name=h?.example?
sender=x y@b.example
recipient=r@d.example
recipient_count=0
queue_id=Q1
instance=S1.Q1
size=1234
etrn_domain=
stress=
sasl_method=PLAIN
sasl_username=u
sasl_sender=
ccert_subject=
ccert_issuer=
ccert_fingerprint=
ccert_pubkey_fingerprint=
encryption_protocol=TLSv1.3
encryption_cipher=TLS_AES_256_GCM_SHA384
encryption_keysize=256
policy_context=

`
	got, err := question(rcptEvent(t))
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
	for stage, state := range map[policy.Stage]string{
		policy.Connect: "CONNECT", policy.Helo: "EHLO", policy.Mail: "MAIL", policy.Data: "DATA", policy.Message: "END-OF-MESSAGE",
		policy.StartTLS: "", policy.Auth: "",
	} {
		ev := rcptEvent(t)
		ev.Stage = stage
		b, err := question(ev)
		if state == "" {
			if err == nil {
				t.Errorf("%s: no error", stage)
			}
			continue
		}
		if !strings.Contains(string(b), "\nprotocol_state="+state+"\n") {
			t.Errorf("%s: %s, %v", stage, b, err)
		}
		if count := map[bool]string{true: "1", false: "0"}[stage >= policy.Data]; !strings.Contains(string(b), "\nrecipient_count="+count+"\n") {
			t.Errorf("%s: %s", stage, b)
		}
	}
}

// TestAnswers: what a daemon can do, in one connection each.
func TestAnswers(t *testing.T) {
	for _, row := range []struct {
		name  string
		says  []string // writes, each of its own
		stays bool     // open, silent, after that
		want  policy.Action
		fails string
	}{
		{name: "whole", says: []string{"action=REJECT\n\n"}, want: policy.Reject},
		{name: "in pieces", says: []string{"act", "ion=", "REJ", "ECT no\n", "\n"}, want: policy.Reject},
		{name: "crlf", says: []string{"action=DEFER\r\n\r\n"}, want: policy.Defer},
		{name: "other attributes", says: []string{"x=y\naction=OK\naction=REJECT\n\n"}, want: policy.Accept},
		{name: "closed without a word", fails: "without an answer"},
		{name: "closed in the middle", says: []string{"action=OK\n"}, fails: "unexpected EOF"},
		{name: "no empty line", says: []string{"action=OK\n"}, stays: true, fails: "deadline"},
		{name: "silent", stays: true, fails: "deadline"},
		{name: "garbage", says: []string{"HTTP/1.1 400 Bad Request\n\n"}, fails: "name=value"},
		{name: "binary", says: []string{"\x16\x03\x01\x00\n"}, fails: "name=value"},
		{name: "nul", says: []string{"action=OK\x00\n\n"}, fails: "name=value"},
		{name: "a long line", says: []string{"action=" + strings.Repeat("x", maxLine) + "\n\n"}, fails: "more than"},
		{name: "a line without end", says: []string{strings.Repeat("x", 3*maxBlock)}, stays: true, fails: "more than"},
		{name: "many lines", says: []string{strings.Repeat("a=b\n", maxLines+1) + "\n"}, fails: "more than"},
		{name: "much in all", says: []string{strings.Repeat("a="+strings.Repeat("b", 8000)+"\n", 9) + "\n"}, fails: "more than"},
		{name: "no action", says: []string{"foo=bar\n\n"}, fails: "without an action"},
		{name: "nothing at all", says: []string{"\n"}, fails: "without an action"},
		{name: "empty action", says: []string{"action=\n\n"}, fails: "empty action"},
		{name: "unknown action", says: []string{"action=FILTER x:y\n\n"}, fails: "FILTER"},
	} {
		t.Run(row.name, func(t *testing.T) {
			at := daemon(t, func(_ int, c net.Conn, r *bufio.Reader) {
				if asked(r) == "" {
					return
				}
				for _, s := range row.says {
					if _, err := io.WriteString(c, s); err != nil {
						return
					}
				}
				if row.stays {
					_, _ = r.ReadByte()
				}
			})
			o := Options{Address: at, Timeout: 30 * time.Second}
			if row.fails == "deadline" {
				o.Timeout = 50 * time.Millisecond
			}
			v, err := open(t, o).Call(t.Context(), rcptEvent(t), &policy.Table{})
			if row.fails != "" {
				if err == nil || !strings.Contains(err.Error(), row.fails) || v.Action != policy.Next {
					t.Fatalf("%+v, %v; want an error with %q", v, err, row.fails)
				}
				return
			}
			if err != nil || v.Action != row.want {
				t.Errorf("%+v, %v; want %s", v, err, row.want)
			}
		})
	}
}

// TestIdleClose: a daemon that closes after each answer is asked on a new
// connection each time, without a second try being used up.
func TestIdleClose(t *testing.T) {
	var conns atomic.Int32
	at := daemon(t, func(n int, c net.Conn, r *bufio.Reader) {
		conns.Store(int32(n))
		if asked(r) != "" {
			_, _ = io.WriteString(c, "action=DUNNO\n\n")
		}
	})
	p := open(t, Options{Address: at, Tries: 1})
	for range 20 {
		if _, err := p.Call(t.Context(), rcptEvent(t), &policy.Table{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := conns.Load(); n != 20 {
		t.Errorf("%d connections", n)
	}
}

// TestClosesOnSecond: a daemon that takes a second question and closes without an
// answer is asked again on a new connection at once.
func TestClosesOnSecond(t *testing.T) {
	at := daemon(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if asked(r) != "" {
			_, _ = io.WriteString(c, "action=DUNNO\n\n")
			asked(r)
		}
	})
	p := open(t, Options{Address: at, Tries: 1})
	for range 5 {
		if _, err := p.Call(t.Context(), rcptEvent(t), &policy.Table{}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnasked: what a daemon says without being asked is never taken for an
// answer to the next question.
func TestUnasked(t *testing.T) {
	wrote := make(chan struct{}, 10)
	at := daemon(t, func(n int, c net.Conn, r *bufio.Reader) {
		for asked(r) != "" {
			_, _ = io.WriteString(c, "action=DUNNO\n\n")
			_, _ = io.WriteString(c, "action=OK\n\n")
			wrote <- struct{}{}
		}
	})
	p := open(t, Options{Address: at})
	for range 3 {
		v, err := p.Call(t.Context(), rcptEvent(t), &policy.Table{})
		if err != nil || v.Action != policy.Next {
			t.Fatalf("%+v, %v", v, err)
		}
		<-wrote
	}
}

// TestSecondTry: one bad connection is survived, two are not; the log has one
// line for an outage and one for its end.
func TestSecondTry(t *testing.T) {
	var bad atomic.Int32
	at := daemon(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for asked(r) != "" {
			if bad.Add(-1) >= 0 {
				_, _ = io.WriteString(c, "what?\n\n")
				return
			}
			_, _ = io.WriteString(c, "action=DUNNO\n\n")
		}
	})
	var log bytes.Buffer
	p := open(t, Options{Address: at, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for _, row := range []struct {
		bad   int32
		fails bool
	}{{1, false}, {2, true}, {2, true}, {0, false}, {0, false}} {
		bad.Store(row.bad)
		if _, err := p.Call(t.Context(), rcptEvent(t), &policy.Table{}); (err != nil) != row.fails {
			t.Errorf("%d bad answers: %v", row.bad, err)
		}
	}
	if s := log.String(); strings.Count(s, "does not answer") != 1 || strings.Count(s, "answers again") != 1 {
		t.Errorf("log:\n%s", s)
	}
}

// TestCancel: Call returns when its context ends, and the connection, which may
// still get that answer, serves nobody else.
func TestCancel(t *testing.T) {
	got := make(chan struct{})
	at := daemon(t, func(n int, c net.Conn, r *bufio.Reader) {
		for asked(r) != "" {
			if n == 1 {
				got <- struct{}{}
				_, _ = r.ReadByte() // until it is closed
				return
			}
			_, _ = io.WriteString(c, "action=DUNNO\n\n")
		}
	})
	p := open(t, Options{Address: at})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-got; cancel() }()
	if _, err := p.Call(ctx, rcptEvent(t), &policy.Table{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := p.Call(t.Context(), rcptEvent(t), &policy.Table{}); err != nil {
		t.Error(err)
	}
}

// TestBounded: no more connections than agreed on, and waiting for one ends with
// the context.
func TestBounded(t *testing.T) {
	var now, most atomic.Int32
	at := daemon(t, func(_ int, c net.Conn, r *bufio.Reader) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		for asked(r) != "" {
			_, _ = io.WriteString(c, "action=DUNNO\n\n")
		}
	})
	p := open(t, Options{Address: at, Connections: 3})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 20 {
				if _, err := p.Call(t.Context(), rcptEvent(t), &policy.Table{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n > 3 {
		t.Errorf("%d connections", n)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Call(t.Context(), rcptEvent(t), &policy.Table{}); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestNowhere: a daemon that is not there is an error that names it.
func TestNowhere(t *testing.T) {
	at := "unix:" + filepath.Join(t.TempDir(), "none")
	p := open(t, Options{Address: at})
	if _, err := p.Call(t.Context(), rcptEvent(t), &policy.Table{}); err == nil || !strings.Contains(err.Error(), at) {
		t.Errorf("%v", err)
	}
	if m, ok := p.(policy.Module); !ok || m.ID() != "delegate:"+at || m.Digest() != "" {
		t.Errorf("%v", p)
	}
}

// TestTCP: a daemon may be at a TCP port.
func TestTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	startOn(t, ServerConfig{Policies: always(setOf(plugin(func(*policy.Event) policy.Verdict {
		return policy.Verdict{Action: policy.Defer}
	}), policy.Rcpt))}, ln)
	p := open(t, Options{Address: "inet:" + ln.Addr().String()})
	for range 3 {
		if v, err := p.Call(t.Context(), rcptEvent(t), &policy.Table{}); err != nil || v.Action != policy.Defer || v.Status.Code != 450 {
			t.Errorf("%+v, %v", v, err)
		}
	}
}

// TestMaxIdle: what nobody uses is closed by and by.
func TestMaxIdle(t *testing.T) {
	gone := make(chan struct{})
	at := daemon(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for asked(r) != "" {
			_, _ = io.WriteString(c, "action=DUNNO\n\n")
		}
		close(gone)
	})
	p := open(t, Options{Address: at, MaxIdle: time.Millisecond})
	if _, err := p.Call(t.Context(), rcptEvent(t), &policy.Table{}); err != nil {
		t.Fatal(err)
	}
	<-gone
}

func TestAddress(t *testing.T) {
	for address, good := range map[string]bool{
		"unix:/run/x": true, "unix:private/policy": true, "inet:127.0.0.1:10031": true, "tcp:[::1]:10031": true, "inet:localhost:policy": true,
		"": false, "/run/x": false, "unix:": false, "inet:10031": false, "inet::10031": false, "inet:h:": false, "http://x": false,
		"unix:/" + strings.Repeat("x", 107): false,
	} {
		if _, err := New(Options{Address: address}); (err == nil) != good {
			t.Errorf("%q: %v", address, err)
		}
	}
	if _, err := New(Options{Address: "unix:/x", Timeout: -1}); err == nil {
		t.Error("a negative timeout is taken")
	}
}

// records is a DecisionLog that keeps what it is told.
type records struct {
	mu  sync.Mutex
	all []policy.Record
}

func (l *records) Decided(r policy.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, r)
}

// TestChain: in a real chain the refusal, on_error and the note are there.
func TestChain(t *testing.T) {
	answer := "action=550 5.7.23 Message rejected due to: SPF fail\n\n"
	at := daemon(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for asked(r) != "" {
			_, _ = io.WriteString(c, answer)
		}
	})
	for _, row := range []struct{ name, answer, want, status string }{
		{"refusal", "action=550 5.7.23 Message rejected due to: SPF fail\n\n", "550 5.7.23 <r@d.example>: Recipient address rejected: Message rejected due to: SPF fail (", "ok"},
		{"nonsense", "action=FILTER x\n\n", "451 4.3.5 Server configuration problem", "ok"},
	} {
		t.Run(row.name, func(t *testing.T) {
			answer = row.answer
			log := &records{}
			set := policy.NewSet([]*policy.Policy{{Name: "p", On: []string{"mx"}, Checks: []*policy.Check{{Name: "old", Plugin: open(t, Options{Address: at}), At: []policy.Stage{policy.Rcpt}}}}},
				policy.SetOptions{Log: log})
			d := set.Session("mx").Ask(t.Context(), rcptEvent(t))
			if got := refusalAction(d); !d.Refused() || !strings.HasPrefix(got, row.want) {
				t.Errorf("%q, want %q", got, row.want)
			}
			if len(log.all) != 1 || len(log.all[0].Calls) != 1 || log.all[0].Plugin != "delegate:"+at {
				t.Fatalf("%+v", log.all)
			}
			c := log.all[0].Calls[0]
			if c.Call != "delegate" || !strings.Contains(c.Ask, "recipient=r@d.example") || "action="+c.Answer+"\n\n" != row.answer || c.Status != row.status {
				t.Errorf("%+v", c)
			}
		})
	}
}
