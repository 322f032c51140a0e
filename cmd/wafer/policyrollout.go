package main

import (
	"context"
	"fmt"
	"time"

	"github.com/wafermail/wafer/core/admin"
)

// policyPromoteCmd makes the version that is tried the one for everybody.
type policyPromoteCmd struct{ configFlag }

// Run asks the server.
func (c *policyPromoteCmd) Run(std streams) error {
	r, err := c.conclude(std, "promote")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "everybody is judged by rollout %q now, also after a restart\nTo make it the ordinary version, write policies = %q and take the rollout block out.\n", r.Name, r.Policies)
	return err
}

// policyWithdrawCmd ends a trial.
type policyWithdrawCmd struct{ configFlag }

// Run asks the server.
func (c *policyWithdrawCmd) Run(std streams) error {
	r, err := c.conclude(std, "withdraw")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "rollout %q judges nobody any more, until its policies change\n", r.Name)
	return err
}

func (f configFlag) conclude(std streams, verb string) (*admin.Rollout, error) {
	state, err := f.state(std)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return admin.Conclude(ctx, state, verb)
}

// rolloutText is a rollout on a line or two.
func rolloutText(r *admin.Rollout) string {
	share := func(n, of uint64) float64 {
		if of == 0 {
			return 0
		}
		return 100 * float64(n) / float64(of)
	}
	s := fmt.Sprintf("rollout %s, %s, %g %% of the clients, %s since %s: %d sessions, %.1f %% with a refusal, %.1f %% of %d calls failed, p99 %s\n",
		r.Name, r.Digest, r.Percent, r.State, r.Since.Format(time.RFC3339), r.Sessions, share(r.Refused, r.Sessions), share(r.Errors, r.Calls), r.Calls, r.P99)
	if r.Why != "" {
		s += fmt.Sprintf("it was taken back: %s\n", r.Why)
	}
	return s
}
