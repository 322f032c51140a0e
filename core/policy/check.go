package policy

import (
	"net/netip"
	"sync/atomic"
)

// Policy is one ordered list of checks and the doors that it guards.
type Policy struct {
	Name    string
	On      []string // doors: "mx", "submission", …
	ReplyAt Stage    // refusals of earlier stages are given at this one; 0: Rcpt
	Exempt  Exempt
	Checks  []*Check
}

// Exempt says whom a policy leaves alone.
type Exempt struct {
	Networks      []netip.Prefix
	Authenticated bool
}

// covers reports whether ev's client is exempt.
func (x Exempt) covers(ev *Event) bool {
	if x.Authenticated && ev.User != "" && (ev.Stage != Auth || ev.AuthOK) {
		return true
	}
	addr := ev.Client.Addr().Unmap().WithZone("")
	for _, n := range x.Networks {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

// Check is one plugin, configured, at its stages.
type Check struct {
	Name    string
	Plugin  Plugin
	At      []Stage
	When    func(*Event) (bool, error) // nil: always
	Observe bool                       // log what would have been, act on nothing
	OnError Action                     // Defer, Reject or Accept; 0: Defer
	ReplyAt Stage                      // 0: the policy's
	Where   string                     // "policies/inbound.hcl:12", for the log

	label    string // "policy/check"
	tally    tally
	panicked atomic.Bool // its stack has been logged
}

// Label is "POLICY/CHECK", the name of the check in logs and counters.
func (c *Check) Label() string { return c.label }

// tally counts outcomes.
type tally struct{ asked, next, refused, errors atomic.Uint64 }

// Tally is what a check has decided so far.
type Tally struct{ Asked, Next, Refused, Errors uint64 }

// legal says which actions may be decided at which stage. What is missing is a
// fault of the plugin and ends in on_error. Discard, Hold and Quarantine need a
// transaction to act on; the sticky defers need a later reply to change.
var legal = [Message + 1]uint16{
	Connect:  actions(Next, Accept, Reject, Defer, Disconnect, DeferIfPermit, DeferIfReject),
	Helo:     actions(Next, Accept, Reject, Defer, Disconnect, DeferIfPermit, DeferIfReject),
	StartTLS: actions(Next, Accept, Reject, Defer, Disconnect),
	Auth:     actions(Next, Accept, Reject, Defer, Disconnect),
	Mail:     actions(Next, Accept, Reject, Defer, Disconnect, Discard, Hold, Quarantine, DeferIfPermit, DeferIfReject),
	Rcpt:     actions(Next, Accept, Reject, Defer, Disconnect, Discard, Hold, Quarantine, DeferIfPermit, DeferIfReject),
	Data:     actions(Next, Accept, Reject, Defer, Disconnect, Discard, Hold, Quarantine, DeferIfPermit, DeferIfReject),
	Message:  actions(Next, Accept, Reject, Defer, Disconnect, Discard, Hold, Quarantine, DeferIfPermit, DeferIfReject),
}

func actions(as ...Action) (set uint16) {
	for _, a := range as {
		set |= 1 << a
	}
	return set
}

// Legal reports whether a may be decided at stage.
func Legal(stage Stage, a Action) bool {
	return stage >= Connect && stage <= Message && a <= DeferIfReject && legal[stage]&(1<<a) != 0
}

// stageNames and actionNames are the words of configuration and logs.
var (
	stageNames  = [...]string{"", "connect", "helo", "starttls", "auth", "mail", "rcpt", "data", "message"}
	actionNames = [...]string{"next", "accept", "reject", "defer", "disconnect", "discard", "hold", "quarantine", "defer_if_permit", "defer_if_reject"}
)

// String is the stage's name in configuration and logs.
func (s Stage) String() string {
	if s < Connect || s > Message {
		return "stage " + string('0'+s%10)
	}
	return stageNames[s]
}

// ParseStage reads a stage's name.
func ParseStage(name string) (Stage, bool) {
	for i, n := range stageNames {
		if n == name && i > 0 {
			return Stage(i), true
		}
	}
	return 0, false
}

// String is the action's name in configuration and logs.
func (a Action) String() string {
	if a > DeferIfReject {
		return "unknown"
	}
	return actionNames[a]
}

// Refuses reports whether a ends in a refusal at once.
func (a Action) Refuses() bool { return a == Reject || a == Defer || a == Disconnect }
