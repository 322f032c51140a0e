package delegate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// Options say which daemon is asked and how patiently. The zero value of each
// field but Address is its default.
type Options struct {
	// Address is "unix:PATH" (relative to the working directory if it does not
	// begin with "/"), or "inet:HOST:PORT", also written "tcp:HOST:PORT".
	Address     string
	Timeout     time.Duration // of a question, with waits and tries; 100 s, as smtpd_policy_service_timeout
	Tries       int           // of a question; 2, as smtpd_policy_service_try_limit
	RetryDelay  time.Duration // before the second try and later ones; 1 s, as smtpd_policy_service_retry_delay
	MaxIdle     time.Duration // that a connection is kept unused; 300 s, as smtpd_policy_service_max_idle
	Connections int           // open at once; further questions wait; 100
	Logger      *slog.Logger  // nil: no log
}

// client is a check's daemon.
type client struct {
	o    Options
	pool *pool
	down atomic.Bool // it was warned of
}

// New returns a plugin that asks the daemon at o.Address. It does not connect
// before the first question. The error is about o.
func New(o Options) (policy.Plugin, error) {
	network, address, err := parseAddress(o.Address)
	if err != nil {
		return nil, err
	}
	orElse(&o.Timeout, 100*time.Second)
	orElse(&o.Tries, 2)
	orElse(&o.RetryDelay, time.Second)
	orElse(&o.MaxIdle, 300*time.Second)
	orElse(&o.Connections, 100)
	if o.Timeout < 0 || o.Tries < 0 || o.RetryDelay < 0 || o.MaxIdle < 0 || o.Connections < 0 {
		return nil, fmt.Errorf("policy daemon %s: a limit is negative", o.Address)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &client{o: o, pool: newPool(network, address, o.Connections, o.MaxIdle)}, nil
}

func orElse[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// maxSocketPath is what a Unix socket's address has room for on Linux.
const maxSocketPath = 107

// parseAddress reads Options.Address for net.Dial.
func parseAddress(s string) (network, address string, err error) {
	kind, rest, _ := strings.Cut(s, ":")
	switch kind {
	case "unix":
		if rest == "" || len(rest) > maxSocketPath || strings.ContainsRune(rest, 0) {
			return "", "", fmt.Errorf("policy daemon %q: a path of 1 to %d octets must follow", s, maxSocketPath)
		}
		return "unix", rest, nil
	case "inet", "tcp":
		h, p, err := net.SplitHostPort(rest)
		if err == nil && (h == "" || p == "") {
			err = errors.New("host or port is empty")
		}
		if err != nil {
			return "", "", fmt.Errorf("policy daemon %q: %w", s, err)
		}
		return "tcp", rest, nil
	}
	return "", "", fmt.Errorf(`policy daemon %q: write "unix:/path" or "inet:host:port"`, s)
}

// ID is "delegate:" and the daemon's address.
func (c *client) ID() string { return "delegate:" + c.o.Address }

// Digest is empty: what a daemon is made of is not known.
func (c *client) Digest() string { return "" }

// Foreign says that a replay cannot ask again (policy.Foreign).
func (c *client) Foreign() {}

// Close waits for the questions that are under way and closes the connections.
func (c *client) Close() error {
	c.pool.close()
	return nil
}

// Call asks the daemon. It returns when ctx ends, at the latest.
func (c *client) Call(ctx context.Context, ev *policy.Event, h policy.Host) (policy.Verdict, error) {
	ask, err := question(ev)
	if err != nil {
		return policy.Verdict{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	answer, err := c.ask(ctx, ask)
	c.note(h, ask, answer, err)
	if err != nil {
		return policy.Verdict{}, fmt.Errorf("ask policy daemon %s: %w", c.o.Address, err)
	}
	r, err := parseAction(answer, subjectOf(ev))
	if err != nil {
		return policy.Verdict{}, fmt.Errorf("policy daemon %s: %w", c.o.Address, err)
	}
	if r.note != "" {
		h.Log(int(r.level), r.note)
	}
	return r.verdict, nil
}

// ask puts the question until there is an answer, and returns its action.
func (c *client) ask(ctx context.Context, ask []byte) (string, error) {
	var err error
	for try := range c.o.Tries {
		if try > 0 && wait(ctx, c.o.RetryDelay) != nil {
			break
		}
		var action string
		if action, err = c.pool.exchange(ctx, ask); err == nil {
			if c.down.CompareAndSwap(true, false) {
				c.o.Logger.Info("policy daemon answers again", "daemon", c.o.Address)
			}
			return action, nil
		}
		if ended(ctx) != nil || errors.Is(err, errClosed) {
			break
		}
	}
	if cause := ended(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w (%w)", cause, err)
	}
	// A caller that has gone away says nothing about the daemon.
	if !errors.Is(ctx.Err(), context.Canceled) && !errors.Is(err, errClosed) && c.down.CompareAndSwap(false, true) {
		c.o.Logger.Warn("policy daemon does not answer", "daemon", c.o.Address, "err", err)
	}
	return "", err
}

// ended is ctx's error. A connection may notice the deadline, which is the same,
// before ctx does.
func ended(ctx context.Context) error {
	if at, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(at) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// note tells the decision log what was asked, without the empty attributes.
func (c *client) note(h policy.Host, ask []byte, answer string, err error) {
	rec, ok := h.(policy.Recorder)
	if !ok || !rec.Records() {
		return
	}
	var said []string
	for l := range strings.Lines(string(ask)) {
		if l = strings.TrimSuffix(l, "\n"); l != "" && !strings.HasSuffix(l, "=") {
			said = append(said, l)
		}
	}
	call := policy.HostCall{Call: "delegate", Ask: strings.Join(said, " "), Answer: answer, Status: "ok"}
	if err != nil {
		call.Status = err.Error()
	}
	rec.Note(call)
}

// wait waits for d or the end of ctx.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
