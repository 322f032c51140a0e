package delegate

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// start serves c on a Unix socket.
func start(t testing.TB, c ServerConfig) (*Server, string) {
	t.Helper()
	at := filepath.Join(t.TempDir(), "p")
	ln, err := net.Listen("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, c, ln), at
}

func startOn(t testing.TB, c ServerConfig, ln net.Listener) *Server {
	t.Helper()
	c.Hostname = "mx.example.test"
	s, err := NewServer(c)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func always(set *policy.Set) func() (*policy.Set, func()) {
	return func() (*policy.Set, func()) { return set, func() {} }
}

// wire is a connection of a test's Postfix.
type wire struct {
	t testing.TB
	c net.Conn
	r *bufio.Reader
}

func connect(t testing.TB, at string) *wire {
	t.Helper()
	c, err := net.Dial("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &wire{t, c, bufio.NewReader(c)}
}

// ask sends the attributes, "name=value" in words, and returns the action.
func (w *wire) ask(words string) string {
	w.t.Helper()
	var b strings.Builder
	b.WriteString("request=smtpd_access_policy\n")
	base := []string{"client_address=192.0.2.7", "client_port=4711", "server_address=192.0.2.1", "server_port=25", "helo_name=h.example", "sender=a@b.example", "ignored=yes"}
	given := strings.Fields(words)
	for _, l := range base {
		name, _, _ := strings.Cut(l, "=")
		if !slices.ContainsFunc(given, func(s string) bool { return strings.HasPrefix(s, name+"=") }) {
			b.WriteString(l + "\n")
		}
	}
	for _, l := range given {
		b.WriteString(strings.ReplaceAll(l, "%20", " ") + "\n")
	}
	if _, err := io.WriteString(w.c, b.String()+"\n"); err != nil {
		w.t.Fatal(err)
	}
	action, err := w.r.ReadString('\n')
	if err != nil {
		w.t.Fatalf("%q: %v", words, err)
	}
	if empty, err := w.r.ReadString('\n'); err != nil || empty != "\n" {
		w.t.Fatalf("%q: %q %v", words, empty, err)
	}
	return strings.TrimSpace(strings.TrimPrefix(action, "action="))
}

// journal notes the stages that are asked and answers as says wants.
type journal struct {
	mu   sync.Mutex
	seen []string
	says func(ev *policy.Event) policy.Verdict
}

func (j *journal) Call(_ context.Context, ev *policy.Event, _ policy.Host) (policy.Verdict, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	note := ev.Stage.String()
	if ev.Stage == policy.Rcpt {
		note += fmt.Sprintf(" %s after %d", ev.Recipient, len(ev.Rcpts))
	}
	j.seen = append(j.seen, note)
	if j.says == nil {
		return policy.Verdict{}, nil
	}
	return j.says(ev), nil
}

func (*journal) Close() error { return nil }

// take is what was asked since the last take.
func (j *journal) take() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := strings.Join(j.seen, ", ")
	j.seen = nil
	return s
}

func everyStage() []policy.Stage {
	return []policy.Stage{policy.Connect, policy.Helo, policy.StartTLS, policy.Auth, policy.Mail, policy.Rcpt, policy.Data, policy.Message}
}

// TestStages: each stage is asked in order, once for what it is about.
func TestStages(t *testing.T) {
	j := &journal{}
	s, at := start(t, ServerConfig{Policies: always(setOf(j, everyStage()...))})
	w := connect(t, at)
	for i, row := range []struct{ ask, stages string }{
		{"protocol_state=RCPT recipient=r1@d.example instance=1.1", "connect, helo, mail, rcpt r1@d.example after 0"},
		{"protocol_state=RCPT recipient=r1@d.example instance=1.1 policy_context=again", ""},
		{"protocol_state=RCPT recipient=r2@d.example instance=1.1 queue_id=ABC", "rcpt r2@d.example after 1"},
		{"protocol_state=VRFY recipient=r3@d.example", ""},
		{"protocol_state=RCPT recipient=r3@d.example instance=1.1", "rcpt r3@d.example after 2"},
		{"protocol_state=DATA recipient_count=3 instance=1.1", "data"},
		{"protocol_state=END-OF-MESSAGE recipient_count=3 instance=1.1 size=5", ""},
		{"protocol_state=RCPT recipient=r1@d.example instance=1.2", "mail, rcpt r1@d.example after 0"},
		{"protocol_state=MAIL sender=c@b.example instance=", "mail"},
		{"protocol_state=RCPT sender=c@b.example recipient=r1@d.example instance=1.3", "rcpt r1@d.example after 0"},
		{"protocol_state=RCPT sender=c@b.example recipient=r1@d.example instance=1.4 helo_name=other", "helo, mail, rcpt r1@d.example after 0"},
		{"protocol_state=RCPT sender=c@b.example recipient=r1@d.example instance=1.5 helo_name=other sasl_username=u sasl_method=PLAIN", "auth, mail, rcpt r1@d.example after 0"},
		{"protocol_state=RCPT recipient=r1@d.example instance=1.6 client_port=4712", "connect, helo, mail, rcpt r1@d.example after 0"},
		{"protocol_state=CONNECT helo_name= sender= client_port=4713", "connect"},
		{"protocol_state=EHLO sender= client_port=4713", "helo"},
		{"protocol_state=EHLO sender= client_port=4713 encryption_protocol=TLSv1.3", "starttls, helo"},
		{"protocol_state=MAIL client_port=4713 encryption_protocol=TLSv1.3", "mail"},
		{"protocol_state=DATA client_port=4713 encryption_protocol=TLSv1.3 recipient=x%20y@d.example recipient_count=1 instance=1.7", `rcpt "x y"@d.example after 0, data`},
		{"protocol_state=RCPT recipient=r@d.example client_port=4713 encryption_protocol=TLSv1.3 instance=", "mail, rcpt r@d.example after 0"},
	} {
		if got := w.ask(row.ask); got != "DUNNO" {
			t.Errorf("%d %s: %s", i, row.ask, got)
		}
		if got := j.take(); got != row.stages {
			t.Errorf("%d %s: asked %q, want %q", i, row.ask, got, row.stages)
		}
	}
	// The transaction is known again on another connection of the same Postfix.
	if connect(t, at).ask("protocol_state=RCPT recipient=r9@d.example instance=1.6 client_port=4712"); j.take() != "rcpt r9@d.example after 1" {
		t.Error("the instance was not found")
	}
	if st := s.Stats(); st.Requests != 20 || st.Refused != 0 || st.Panics != 0 {
		t.Errorf("%+v", st)
	}
}

// TestRefusals: who refuses when, and how it is said.
func TestRefusals(t *testing.T) {
	at := func(stage policy.Stage, v policy.Verdict) func(ev *policy.Event) policy.Verdict {
		return func(ev *policy.Event) policy.Verdict {
			if ev.Stage == stage {
				return v
			}
			return policy.Verdict{}
		}
	}
	const rcpt = "protocol_state=RCPT recipient=r@d.example instance=1.1"
	for _, row := range []struct {
		name string
		says func(ev *policy.Event) policy.Verdict
		ask  string
		want []string // beginnings of the answers to ask, again and again with another recipient
	}{
		{"accept is no OK", at(policy.Rcpt, policy.Verdict{Action: policy.Accept}), rcpt, []string{"DUNNO"}},
		{"helo, held until rcpt", at(policy.Helo, refuse(policy.Reject, 501, "5.5.2", "bad name")), rcpt, []string{"501 5.5.2 bad name (", "501 5.5.2 bad name ("}},
		{"helo, asked at mail only", at(policy.Helo, refuse(policy.Reject, 501, "5.5.2", "bad name")), "protocol_state=MAIL", []string{"501 5.5.2 bad name ("}},
		{"helo, asked at data only", at(policy.Helo, refuse(policy.Reject, 501, "5.5.2", "bad name")), "protocol_state=DATA recipient_count=2 instance=1.1", []string{"501 5.5.2 bad name ("}},
		{"connect, asked at connect", at(policy.Connect, refuse(policy.Defer, 450, "4.7.1", "later")), "protocol_state=CONNECT helo_name= sender=", []string{"450 4.7.1 later ("}},
		{"rcpt", at(policy.Rcpt, refuse(policy.Reject, 550, "5.7.23", "SPF fail")), rcpt, []string{"550 5.7.23 SPF fail ("}},
		{"hang up", at(policy.Mail, policy.Verdict{Action: policy.Disconnect}), rcpt, []string{"421 4.7.0 "}},
		{"hang up for good", at(policy.Rcpt, refuse(policy.Disconnect, 554, "5.7.1", "no")), rcpt, []string{"521 5.7.1 no ("}},
		{"defer if permit", at(policy.Helo, refuse(policy.DeferIfPermit, 450, "4.7.1", "grey")), rcpt, []string{"450 4.7.1 grey ("}},
		{"data", at(policy.Data, refuse(policy.Reject, 550, "5.5.3", "multi")), "protocol_state=DATA recipient_count=2 instance=1.1", []string{"550 5.5.3 multi ("}},
		{"a long text", at(policy.Rcpt, refuse(policy.Reject, 550, "5.7.1", strings.Repeat("é\n", 1000))), rcpt, []string{"550 5.7.1 "}},
		{"a bad sender", nil, rcpt + " sender=a@b@", []string{"DEFER_IF_PERMIT 4.3.5 "}},
		{"a bad recipient", nil, "protocol_state=RCPT recipient=x@-", []string{"DEFER_IF_PERMIT 4.3.5 "}},
		{"no recipient", nil, "protocol_state=RCPT", []string{"DEFER_IF_PERMIT 4.3.5 "}},
		{"a bad client", nil, rcpt + " client_address=fred", []string{"DEFER_IF_PERMIT 4.3.5 "}},
		{"effects one by one", at(policy.Rcpt, policy.Verdict{Action: policy.Hold, Effects: policy.Effects{
			Prepend: []policy.Field{{Name: "X-A", Value: "1"}, {Name: "X-B", Value: "2"}}, BCC: []mail.Path{path4(t, "b@c.example")}, Redirect: []mail.Path{path4(t, `"o p"@c.example`)}}}),
			rcpt, []string{"HOLD", `REDIRECT "o p"@c.example`, "BCC b@c.example", "PREPEND X-A: 1", "PREPEND X-B: 2", "DUNNO"}},
		{"quarantine", at(policy.Mail, policy.Verdict{Action: policy.Quarantine, Reason: "spam"}), rcpt, []string{"PREPEND X-Wafer-Quarantine: spam", "DUNNO"}},
		{"discard", at(policy.Rcpt, policy.Verdict{Action: policy.Discard}), rcpt, []string{"DISCARD"}},
		{"of the session, for its message", at(policy.Connect, policy.Verdict{Effects: policy.Effects{Prepend: []policy.Field{{Name: "X-C", Value: "c"}}}}), rcpt, []string{"PREPEND X-C: c", "DUNNO"}},
		{"too late for a field", at(policy.Data, policy.Verdict{Effects: policy.Effects{Prepend: []policy.Field{{Name: "X-C", Value: "c"}}}}), "protocol_state=END-OF-MESSAGE recipient_count=2 instance=1.1", []string{"DUNNO"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			j := &journal{says: row.says}
			_, sock := start(t, ServerConfig{Policies: always(setOf(j, everyStage()[:7]...))})
			w := connect(t, sock)
			for i, want := range row.want {
				got := w.ask(row.ask)
				if want == "DUNNO" && got != want || !strings.HasPrefix(got, want) || len(got) > maxAction {
					t.Errorf("answer %d is %q, want %q", i, got, want)
				}
			}
		})
	}
}

// TestNewPolicies: after a reload the new policies judge, from the beginning.
func TestNewPolicies(t *testing.T) {
	a, b := &journal{}, &journal{}
	var mu sync.Mutex
	set, pinned := setOf(a, everyStage()...), 0
	_, at := start(t, ServerConfig{Policies: func() (*policy.Set, func()) {
		mu.Lock()
		defer mu.Unlock()
		pinned++
		return set, func() { mu.Lock(); pinned--; mu.Unlock() }
	}})
	w := connect(t, at)
	w.ask("protocol_state=RCPT recipient=r@d.example instance=1.1")
	mu.Lock()
	set = setOf(b, everyStage()...)
	mu.Unlock()
	w.ask("protocol_state=RCPT recipient=s@d.example instance=1.1")
	if got := b.take(); got != "connect, helo, mail, rcpt s@d.example after 0" {
		t.Errorf("%q", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if pinned != 0 {
		t.Errorf("%d sets still in use", pinned)
	}
}

// TestBadRequests: what is no request ends the connection without a word.
func TestBadRequests(t *testing.T) {
	s, at := start(t, ServerConfig{})
	for name, text := range map[string]string{
		"http": "GET / HTTP/1.1\r\n\r\n", "another request": "request=junk_filter\n\n", "no state": "request=smtpd_access_policy\n\n",
		"unknown state": "request=smtpd_access_policy\nprotocol_state=NOOP\n\n", "nothing": "\n", "nul": "request=smtpd_access_policy\x00\n\n",
		"twice":     "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_state=MAIL\n\n",
		"long line": "request=" + strings.Repeat("x", maxLine) + "\n\n", "many lines": strings.Repeat("a=b\n", maxLines+1),
	} {
		w := connect(t, at)
		_, _ = io.WriteString(w.c, text)
		if got, err := io.ReadAll(w.r); len(got) > 0 { // it may end in a reset
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if n := s.Stats().Malformed; n != 9 {
		t.Errorf("%d malformed", n)
	}
}

// TestBothEnds: the client asks the server, many at a time; nothing stays behind.
func TestBothEnds(t *testing.T) {
	before := runtime.NumGoroutine()
	var log bytes.Buffer
	t.Run("", func(t *testing.T) {
		set := setOf(plugin(func(ev *policy.Event) policy.Verdict {
			if ev.Helo == "bad" {
				return refuse(policy.Reject, 550, "5.7.1", "no "+ev.Sender.String()+" from "+ev.Client.Addr().String())
			}
			return policy.Verdict{Effects: policy.Effects{Prepend: []policy.Field{{Name: "X-Seen", Value: ev.Recipient.String()}}}}
		}), policy.Rcpt)
		s, at := start(t, ServerConfig{Policies: always(set), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		p := open(t, Options{Address: "unix:" + at, Connections: 8})
		var wg sync.WaitGroup
		for n := range 32 {
			wg.Go(func() {
				ev := rcptEvent(t)
				ev.Session, ev.Helo = fmt.Sprintf("S%d", n), []string{"good", "bad"}[n%2]
				for i := range 10 {
					ev.QueueID = mail.ID(fmt.Sprintf("Q%d", i))
					v, err := p.Call(t.Context(), ev, &policy.Table{})
					if err != nil {
						t.Error(err)
						return
					}
					if n%2 == 1 && (v.Action != policy.Reject || !strings.Contains(v.Status.Text, `no "x y"@b.example from 192.0.2.7`)) {
						t.Errorf("%+v", v)
					}
					if n%2 == 0 && (len(v.Effects.Prepend) != 1 || v.Effects.Prepend[0].Value != "r@d.example") {
						t.Errorf("%+v", v)
					}
				}
			})
		}
		wg.Wait()
		if st := s.Stats(); st.Requests != 320 || st.Refused != 160 || st.Total > 8 {
			t.Errorf("%+v", st)
		}
	})
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

// TestBounds: connections over the cap are closed, sessions over it forgotten,
// and Shutdown ends what waits.
func TestBounds(t *testing.T) {
	j := &journal{}
	s, at := start(t, ServerConfig{Policies: always(setOf(j, policy.Connect)), Limits: Limits{Connections: 1, Sessions: 2}})
	w := connect(t, at)
	for _, port := range []string{"1", "2", "3", "1"} {
		w.ask("protocol_state=RCPT recipient=r@d.example instance=i" + port + " client_port=" + port)
	}
	if got := strings.Count(j.take(), "connect"); got != 4 {
		t.Errorf("%d sessions", got)
	}
	if n := s.memory.order.Len(); n != 2 || len(s.memory.byKey) != 4 {
		t.Errorf("%d sessions remembered under %d names", n, len(s.memory.byKey))
	}
	if b, err := io.ReadAll(connect(t, at).r); len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := w.r.ReadByte(); err == nil {
		t.Error("still open")
	}
}

// waits is a plugin that does not answer before its context ends.
type waits chan struct{}

func (w waits) Call(ctx context.Context, _ *policy.Event, _ policy.Host) (policy.Verdict, error) {
	w <- struct{}{}
	<-ctx.Done()
	return policy.Verdict{}, ctx.Err()
}
func (waits) Close() error { return nil }

// TestImpatientShutdown cuts what takes too long.
func TestImpatientShutdown(t *testing.T) {
	w := make(waits)
	s, at := start(t, ServerConfig{Policies: always(setOf(w, policy.Rcpt))})
	c := connect(t, at)
	if _, err := io.WriteString(c.c, "request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=r@d.example\n\n"); err != nil {
		t.Fatal(err)
	}
	<-w
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); err == nil || s.Stats().Open != 0 {
		t.Errorf("%v, %+v", err, s.Stats())
	}
}

// TestMinimal: a peer that says the least is answered; it is judged anew each time.
func TestMinimal(t *testing.T) {
	j := &journal{}
	s, at := start(t, ServerConfig{Policies: always(setOf(j, everyStage()...))})
	w := connect(t, at)
	for range 2 {
		if got := w.ask("protocol_state=RCPT client_port= server_port= helo_name= sender= recipient=r@d.example"); got != "DUNNO" {
			t.Error(got)
		}
		if got := j.take(); got != "connect, mail, rcpt r@d.example after 0" {
			t.Errorf("asked %q", got)
		}
	}
	if n := s.memory.order.Len(); n != 0 {
		t.Errorf("%d sessions remembered", n)
	}
}

// TestPanic: a bug ends its connection, not the server.
func TestPanic(t *testing.T) {
	var mu sync.Mutex
	bad := true
	s, at := start(t, ServerConfig{Policies: func() (*policy.Set, func()) {
		mu.Lock()
		defer mu.Unlock()
		if bad {
			bad = false
			panic("no policies")
		}
		return nil, func() {}
	}})
	c := connect(t, at)
	_, _ = io.WriteString(c.c, "request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=r@d.example\n\n")
	if b, err := io.ReadAll(c.r); len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	if got := connect(t, at).ask("protocol_state=RCPT recipient=r@d.example"); got != "DUNNO" || s.Stats().Panics != 1 {
		t.Errorf("%q, %+v", got, s.Stats())
	}
}
