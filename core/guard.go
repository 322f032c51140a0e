package core

import (
	"fmt"

	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/policy"
)

// guardCalls is how many calls must have been made before their errors and times count
// for a guard.
const guardCalls = 20

// broken says what of a guard the traffic of a version breaks, "" for nothing.
func broken(g *config.Guard, t policy.Traffic) string {
	if g.RejectRate > 0 && t.Sessions >= uint64(g.Sessions) {
		if rate := ratio(t.Refused, t.Sessions); rate > g.RejectRate {
			return fmt.Sprintf("it refuses in %.1f %% of %d sessions, and reject_rate is %.1f %%", 100*rate, t.Sessions, 100*g.RejectRate)
		}
	}
	if t.Calls < guardCalls {
		return ""
	}
	if g.ErrorRate > 0 {
		if rate := ratio(t.Errors, t.Calls); rate > g.ErrorRate {
			return fmt.Sprintf("%.1f %% of %d calls fail, and error_rate is %.1f %%", 100*rate, t.Calls, 100*g.ErrorRate)
		}
	}
	if g.P99 > 0 && t.P99 > g.P99 {
		return fmt.Sprintf("one of 100 calls takes longer than %s, and p99 is that", g.P99)
	}
	return ""
}
