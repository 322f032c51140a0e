package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/admin"
)

// visit sends a greeting and a recipient from a network of its own, and returns the code
// that the recipient gets.
func (s *server) visit(n int) int {
	s.t.Helper()
	p := s.open("mx", 0)
	defer p.close()
	must(s.t, p.greeted())
	_, err := p.want(220, fmt.Sprintf("XCLIENT ADDR=%s", netip.AddrFrom4([4]byte{198, byte(n >> 8), byte(n), 7})))
	must(s.t, err)
	for _, command := range []string{"HELO localhost", "MAIL FROM:<a@example.net>"} {
		_, err := p.want(250, command)
		must(s.t, err)
	}
	code, _, err := p.smtp("RCPT TO:<" + account + ">")
	must(s.t, err)
	return code
}

// rolloutWorld has a mild policy, and another one in next that refuses local names.
func rolloutWorld(t *testing.T, rollout, next string) *server {
	mild := "policy \"p\" {\n  on = [\"mx\"]\n  check \"helo\" {\n    plugin = \"helo\"\n    at     = \"helo\"\n    with   = { reject = [\"invalid\"] }\n  }\n}\n"
	w := newWorld(t, setup{
		policies: map[string]string{"p.hcl": mild}, trusted: `["127.0.0.0/8"]`,
		top: "xclient_networks = [\"127.0.0.0/8\"]\nlimits {\n  connections_per_client = 1000\n  connection_rate = 1000000\n}\nlog {\n  decisions_size = \"64MiB\"\n}\n" + rollout,
	})
	w.write("next/p.hcl", next)
	return w.start()
}

const strictNext = "policy \"p\" {\n  on = [\"mx\"]\n  check \"helo\" {\n    plugin = \"helo\"\n    at     = \"helo\"\n    with   = { reject = [\"invalid\", \"not-fqdn\"] }\n  }\n}\n"

// TestRollout gives a part of the clients another version, the same part each time, and
// promotes it, which outlives a restart.
func TestRollout(t *testing.T) {
	s := rolloutWorld(t, "rollout \"spring\" {\n  policies = \"next\"\n  percent = 30\n}\n", strictNext)
	const clients = 200
	var taken [clients]bool
	n := 0
	for round := range 3 {
		for i := range clients {
			tried := s.visit(i) == 504
			if round > 0 && tried != taken[i] {
				t.Fatalf("client %d is judged otherwise in round %d", i, round)
			}
			if taken[i] = tried; tried && round == 0 {
				n++
			}
		}
	}
	if n < clients*20/100 || n > clients*40/100 {
		t.Errorf("%d of %d clients try the version, and 30 %% should", n, clients)
	}
	if r := s.status().Rollout; r == nil || r.State != "trying" || r.Refused != uint64(3*n) || r.Sessions < uint64(3*n) {
		t.Errorf("status %+v", r)
	}
	r, err := admin.Conclude(context.Background(), s.w.path("state"), "promote")
	must(t, err)
	if r.State != "promoted" {
		t.Errorf("promoted: %+v", r)
	}
	for i := range 20 {
		if code := s.visit(i); code != 504 {
			t.Fatalf("after the promotion client %d gets %d", i, code)
		}
	}
	s.stop()
	again := s.w.start()
	if code := again.visit(1); code != 504 {
		t.Errorf("after a restart the answer is %d", code)
	}
	// Another version is another trial.
	again.w.write("next/p.hcl", strings.Replace(strictNext, "\"invalid\", ", "", 1))
	_, err = admin.ChangeGeneration(context.Background(), again.w.path("state"), "reload", 0, admin.ReloadOptions{})
	must(t, err)
	if st := again.status().Rollout; st.State != "trying" {
		t.Errorf("a new version is %s", st.State)
	}
	_, err = admin.Conclude(context.Background(), again.w.path("state"), "withdraw")
	must(t, err)
	for i := range clients {
		if code := again.visit(i); code != 250 {
			t.Fatalf("after the end client %d gets %d", i, code)
		}
	}
	again.stop()
}

// TestRolloutGuard takes back versions that refuse everybody, fail, and are slow.
func TestRolloutGuard(t *testing.T) {
	slow := slowDaemon(t)
	asking := "policy \"p\" {\n  on = [\"mx\"]\n  check \"daemon\" {\n    delegate = %q\n    at       = \"rcpt\"\n    on_error = \"accept\"\n  }\n}\n"
	for _, row := range []struct{ name, guard, next, why string }{
		{"refuses everybody", "reject_rate = 0.5\n    sessions = 20", strictNext, " sessions, and reject_rate is 50.0 %"},
		{"fails", "error_rate = 0.1", fmt.Sprintf(asking, "unix:"+filepath.Join(t.TempDir(), "none")), " calls fail, and error_rate is 10.0 %"},
		{"slow", "p99 = \"50ms\"", fmt.Sprintf(asking, slow), "takes longer than 50ms"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := rolloutWorld(t, "rollout \"x\" {\n  policies = \"next\"\n  percent = 50\n  guard {\n    "+row.guard+"\n  }\n}\n", row.next)
			for i := 0; ; i++ {
				if s.visit(i); i%20 == 19 && s.status().Rollout.State != "trying" {
					break
				}
				if i == 2000 {
					t.Fatal("it is not taken back")
				}
			}
			r := s.status().Rollout
			if r.State != "withdrawn" || !strings.Contains(r.Why, row.why) {
				t.Errorf("rollout %+v", r)
			}
			for i := range 50 {
				if code := s.visit(i); code != 250 {
					t.Fatalf("after that client %d gets %d", i, code)
				}
			}
			s.stop()
			if !strings.Contains(s.log.String(), "a rollout is taken back") {
				t.Error("the log does not say it")
			}
		})
	}
}

// slowDaemon is a policy daemon that takes its time.
func slowDaemon(t *testing.T) (address string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					if line == "\n" {
						<-time.After(120 * time.Millisecond)
						if _, err := io.WriteString(c, "action=dunno\n\n"); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return "inet:" + ln.Addr().String()
}

// TestRolloutBroken: a version that cannot be read is a fault of the configuration.
func TestRolloutBroken(t *testing.T) {
	s := rolloutWorld(t, "", "")
	b, err := os.ReadFile(s.w.path("config.hcl"))
	must(t, err)
	for next, says := range map[string]string{"policy {": "p.hcl", strings.Replace(strictNext, "\"helo\"\n    at", "\"nosuch\"\n    at", 1): "no plugin"} {
		s.w.write("next/p.hcl", next)
		s.w.write("config.hcl", string(b)+"rollout \"x\" {\n  policies = \"next\"\n}\n")
		_, err = admin.ChangeGeneration(context.Background(), s.w.path("state"), "reload", 0, admin.ReloadOptions{})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", next, err)
		}
	}
	if _, err := admin.Conclude(context.Background(), s.w.path("state"), "promote"); err == nil || !strings.Contains(err.Error(), "there is no rollout") {
		t.Errorf("promote without a rollout: %v", err)
	}
	s.stop()
}

// TestShadowVersion lets a whole version watch: nobody is refused by it, and what it would
// have done is told.
func TestShadowVersion(t *testing.T) {
	next := strictNext + "policy \"q\" {\n  on = [\"mx\"]\n  check \"rate\" {\n    plugin = \"ratelimit\"\n    at     = \"connect\"\n    allow  = [\"count\"]\n    with   = { limit = 100000 }\n  }\n}\n"
	s := rolloutWorld(t, "shadow \"next\" {\n  policies = \"next\"\n}\n", next)
	for i := range 20 {
		if code := s.visit(i); code != 250 {
			t.Fatalf("client %d gets %d", i, code)
		}
	}
	seed(t, s, "whole")
	s.stop()
	out, code := s.w.run("", "policy", "diff", "-c", "config.hcl")
	if code != 2 || !strings.Contains(out, ": 20 would be refused, 0 would be let through") || !strings.Contains(out, "by check: p/helo 20") || !strings.Contains(out, "helo=localhost") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if out, code := s.w.run("", "policy", "diff", "-c", "config.hcl", "-shadow", "other"); code != 0 {
		t.Errorf("of another version: exit code %d\n%s", code, out)
	}
}
