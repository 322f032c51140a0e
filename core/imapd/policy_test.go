package imapd

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/policy"
)

// tellingPlugin refuses at one stage and remembers what it was told.
type tellingPlugin struct {
	mu      sync.Mutex
	refuse  policy.Stage
	verdict policy.Verdict
	events  []policy.Event
}

func (p *tellingPlugin) Call(_ context.Context, ev *policy.Event, _ policy.Host) (policy.Verdict, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, *ev)
	if ev.Stage == p.refuse {
		return p.verdict, nil
	}
	return policy.Verdict{}, nil
}

func (p *tellingPlugin) Close() error { return nil }

func (p *tellingPlugin) set() *policy.Set {
	return policy.NewSet([]*policy.Policy{{Name: "p", On: []string{"imap"}, Checks: []*policy.Check{{Name: "c", Plugin: p, At: []policy.Stage{policy.Connect, policy.Auth}}}}}, policy.SetOptions{})
}

func TestPolicies(t *testing.T) {
	reject := policy.Verdict{Action: policy.Reject, Status: mail.Status{Code: 550, Enhanced: "5.7.1", Text: "Not you"}}
	rows := []struct {
		name    string
		refuse  policy.Stage
		verdict policy.Verdict
		greet   string
		login   string
	}{
		{"nothing is refused", 0, policy.Verdict{}, "* OK ", "OK ["},
		{"at connect", policy.Connect, reject, "* BYE Not you", ""},
		{"at auth", policy.Auth, reject, "* OK ", "NO [AUTHORIZATIONFAILED] Not you"},
		{"for a while", policy.Auth, policy.Verdict{Action: policy.Defer, Status: mail.Status{Code: 450, Text: "Later"}}, "* OK ", "NO [UNAVAILABLE] Later"},
		{"with a hangup", policy.Auth, policy.Verdict{Action: policy.Disconnect, Status: mail.Status{Text: "Away"}}, "* OK ", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p := &tellingPlugin{refuse: row.refuse, verdict: row.verdict}
			var pinned sync.WaitGroup
			ts := startServer(t, func(c *Config) {
				c.Policies = func() (*policy.Set, func()) { pinned.Add(1); return p.set(), pinned.Done }
			})
			c := ts.dial(t)
			if got := c.reply(); !strings.HasPrefix(got, row.greet) {
				t.Fatal(got)
			}
			if strings.HasPrefix(row.greet, "* BYE") {
				return
			}
			untagged, got := c.cmd("LOGIN " + testUser + ` "` + testPassword + `"`)
			if !strings.HasPrefix(got, row.login) || row.login == "" && (got != "" || !strings.HasPrefix(strings.Join(untagged, ""), "* BYE Away")) {
				t.Errorf("%q %q", untagged, got)
			}
			c.conn.Close()
			pinned.Wait()
			last := p.events[len(p.events)-1]
			if last.Stage != policy.Auth || last.User != testUser || !last.AuthOK || last.Mechanism != "LOGIN" || last.Protocol != "imap" || last.Door != "imap" {
				t.Errorf("last event %+v", last)
			}
		})
	}
}

// TestPanic: a panic ends one session with BYE, is counted, and the server lives.
func TestPanic(t *testing.T) {
	boom := true
	ts := startServer(t, func(c *Config) {
		open := c.Mailbox
		c.Mailbox = func(ctx context.Context, user string) (*maildir.Store, error) {
			if boom {
				panic("boom")
			}
			return open(ctx, user)
		}
	})
	c := ts.dial(t)
	c.reply()
	if untagged, _ := c.cmd("LOGIN " + testUser + ` "` + testPassword + `"`); !strings.Contains(strings.Join(untagged, ""), "* BYE "+textInternal) {
		t.Errorf("%q", untagged)
	}
	waitFor(t, "the session to end", func() bool { return ts.ended(c) })
	if n := ts.panics.Swap(0); n != 1 {
		t.Errorf("%d panics are counted", n)
	}
	boom = false
	ts.login(t)
}

// TestStoreFails: what the store cannot do is said in a reply without internals.
func TestStoreFails(t *testing.T) {
	ts := startServer(t, func(c *Config) {
		c.Mailbox = func(context.Context, string) (*maildir.Store, error) {
			return nil, errors.New("disk /dev/sda is on fire")
		}
	})
	c := ts.dial(t)
	c.reply()
	if _, got := c.cmd("LOGIN " + testUser + ` "` + testPassword + `"`); got != "NO [UNAVAILABLE] "+textUnavailable {
		t.Error(got)
	}
}

// TestTarpit: a policy can make a client wait, and is told who is trusted.
func TestTarpit(t *testing.T) {
	const wait = 50 * time.Millisecond
	p := &tellingPlugin{refuse: policy.Connect, verdict: policy.Verdict{Effects: policy.Effects{Tarpit: wait}}}
	ts := startServer(t, func(c *Config) {
		c.Policies = func() (*policy.Set, func()) { return p.set(), func() {} }
		c.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	begun := time.Now()
	c := ts.dial(t)
	if got := c.reply(); !strings.HasPrefix(got, "* OK ") {
		t.Errorf("greeting %q", got)
	}
	if took := time.Since(begun); took < wait {
		t.Errorf("greeted after %v, want %v at least", took, wait)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.events) != 1 || !p.events[0].Trusted {
		t.Errorf("the policy was told %+v", p.events)
	}
}
