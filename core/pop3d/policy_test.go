package pop3d

import (
	"bufio"
	"context"
	"net"
	"sync"
	"testing"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// judge is a plugin that refuses connections or logins and keeps what it was told.
type judge struct {
	mu     sync.Mutex
	refuse policy.Stage
	action policy.Action
	status mail.Status
	events []policy.Event
}

func (j *judge) Call(_ context.Context, ev *policy.Event, _ policy.Host) (policy.Verdict, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, *ev)
	if ev.Stage == j.refuse {
		return policy.Verdict{Action: j.action, Status: j.status}, nil
	}
	return policy.Verdict{}, nil
}

func (j *judge) Close() error { return nil }

// last is the latest event.
func (j *judge) last() policy.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.events[len(j.events)-1]
}

func withJudge(j *judge) func(c *Config) {
	return func(c *Config) {
		set := policy.NewSet([]*policy.Policy{{
			Name: "p", On: []string{"pop3"},
			Checks: []*policy.Check{{Name: "j", At: []policy.Stage{policy.Connect, policy.Auth}, Plugin: j}},
		}}, policy.SetOptions{})
		c.Policies = func() (*policy.Set, func()) { return set, nil }
	}
}

func TestPolicyRefusesConnection(t *testing.T) {
	h := open(t, withJudge(&judge{refuse: policy.Connect, action: policy.Reject, status: mail.Status{Code: 554, Enhanced: "5.7.1", Text: "Go\naway"}}))
	conn, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &client{t: t, conn: conn, r: bufio.NewReader(conn)}
	c.expect("-ERR [SYS/PERM] Go away")
	c.closed()
}

func TestPolicyHearsOfLogins(t *testing.T) {
	j := &judge{}
	h := open(t, withJudge(j))
	c := h.dial()
	if ev := j.last(); ev.Stage != policy.Connect || ev.Door != "pop3" || !ev.Client.Addr().IsLoopback() || !ev.Server.IsValid() {
		t.Errorf("connect: %+v", ev)
	}
	c.do("USER ann@x.test", "+OK")
	c.do("PASS wrong", "-ERR [AUTH]")
	if ev := j.last(); ev.Stage != policy.Auth || ev.AuthOK || ev.User != "ann@x.test" || ev.Mechanism != "USER" {
		t.Errorf("failed login: %+v", ev)
	}
	c.do("USER ann@x.test", "+OK")
	c.do("PASS secret", "+OK")
	if ev := j.last(); !ev.AuthOK {
		t.Errorf("login: %+v", ev)
	}
}

func TestPolicyRefusesLogin(t *testing.T) {
	h := open(t, withJudge(&judge{refuse: policy.Auth, action: policy.Defer, status: mail.Status{Code: 454, Enhanced: "4.7.0", Text: "Not today"}}))
	c := h.dial()
	c.do("USER ann@x.test", "+OK")
	c.do("PASS secret", "-ERR [SYS/TEMP] Not today")
	c.do("STAT", "-ERR")
}
