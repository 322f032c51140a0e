package policy

import (
	"fmt"
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

	// SoftBounce makes every 5xx of this policy the 4xx of the same digits, as
	// Postfix's soft_bounce does: mail stays in the senders' queues while a new
	// policy is tried.
	SoftBounce bool
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

// Check is one plugin, configured, at its stages. One that only observes acts on
// nothing at all: where Postfix's warn_if_reject still refuses for an error of
// the check's own, and keeps a defer_if_reject, this does not, so that nobody's
// mail depends on what is being tried.
type Check struct {
	Name    string
	Plugin  Plugin
	At      []Stage
	When    func(*Event) (bool, error) // nil: always
	Observe bool                       // log what would have been, act on nothing
	OnError Action                     // Defer, Reject or Accept; 0: Defer
	ReplyAt Stage                      // 0: the policy's
	Where   string                     // "policies/inbound.hcl:12", for the log
	Lists   map[string]List            // that the plugin may look into, by the name it uses

	label    string // "policy/check"
	module   string // id of the plugin's module, "" if it is none
	digest   string // of the module
	tally    tally
	panicked atomic.Bool // its stack has been logged
}

// Label is "POLICY/CHECK", the name of the check in logs and counters.
func (c *Check) Label() string { return c.label }

// Effect is one kind of effect. The numbers are those of the ABI's operations.
type Effect uint8

// The effects. A score is legal everywhere.
const (
	Prepend  Effect = 1
	Tag      Effect = 2
	Redirect Effect = 3
	BCC      Effect = 4
	Tarpit   Effect = 5
	SendBy   Effect = 6 // "route"
	DelayBy  Effect = 7 // "delay"
	LimitTo  Effect = 8 // "limit"
)

// rule is what may be said at a stage.
type rule struct{ actions, effects uint16 }

// legal says which actions may be decided and which effects asked for at which
// stage; sdk/abi/ABI.md has the same table. What is missing is a fault of the
// plugin and ends in on_error. Discard, Hold, Quarantine, Redirect and BCC need
// a transaction to act on, the sticky defers a later reply to change, Prepend a
// session that can bring a message.
var legal = [LastStage + 1]rule{
	Connect:  {sessional, 1<<Prepend | 1<<Tag | 1<<Tarpit},
	Helo:     {sessional, 1<<Prepend | 1<<Tag | 1<<Tarpit},
	StartTLS: {always, 1<<Tag | 1<<Tarpit},
	Auth:     {always, 1<<Tag | 1<<Tarpit},
	Mail:     {transactional, anyEffect},
	Rcpt:     {transactional, anyEffect},
	Data:     {transactional, anyEffect},
	Message:  {transactional, anyEffect},
	Queued:   {waiting | 1<<Reject, 1<<Tag | 1<<DelayBy},
	Route:    {waiting | 1<<Reject | 1<<Defer, 1<<Tag | 1<<SendBy | 1<<DelayBy | 1<<LimitTo},
	Bounce:   {1<<Next | 1<<Accept | 1<<Discard, 1 << Tag},
}

const (
	always        = 1<<Next | 1<<Accept | 1<<Reject | 1<<Defer | 1<<Disconnect
	sessional     = always | 1<<DeferIfPermit | 1<<DeferIfReject
	transactional = sessional | 1<<Discard | 1<<Hold | 1<<Quarantine
	waiting       = 1<<Next | 1<<Accept | 1<<Discard | 1<<Hold
	anyEffect     = 1<<Prepend | 1<<Tag | 1<<Redirect | 1<<BCC | 1<<Tarpit
)

// Legal reports whether a may be decided at stage.
func Legal(stage Stage, a Action) bool {
	return stage >= Connect && stage <= LastStage && a <= DeferIfReject && legal[stage].actions&(1<<a) != 0
}

// LegalEffect reports whether e may be asked for at stage.
func LegalEffect(stage Stage, e Effect) bool {
	return stage >= Connect && stage <= LastStage && e >= Prepend && e <= LimitTo && legal[stage].effects&(1<<e) != 0
}

// check reports what in v is not legal at stage.
func (v *Verdict) check(stage Stage) error {
	if !Legal(stage, v.Action) {
		return fmt.Errorf("action %s is not legal at stage %s", v.Action, stage)
	}
	e := &v.Effects
	for effect, n := range [...]int{Prepend: len(e.Prepend), Tag: len(e.Tags), Redirect: len(e.Redirect), BCC: len(e.BCC), Tarpit: int(min(e.Tarpit, 1)),
		SendBy: len(e.Transport), DelayBy: int(min(e.Delay, 1)), LimitTo: e.Limit} {
		if n > 0 && !LegalEffect(stage, Effect(effect)) {
			return fmt.Errorf("effect %s is not legal at stage %s", Effect(effect), stage)
		}
	}
	return nil
}

// stageNames, actionNames and effectNames are the words of configuration and logs.
var (
	stageNames  = [...]string{"", "connect", "helo", "starttls", "auth", "mail", "rcpt", "data", "message", "queued", "route", "bounce"}
	actionNames = [...]string{"next", "accept", "reject", "defer", "disconnect", "discard", "hold", "quarantine", "defer_if_permit", "defer_if_reject"}
	effectNames = [...]string{"", "prepend", "tag", "redirect", "bcc", "tarpit", "route", "delay", "limit"}
)

// String is the stage's name in configuration and logs.
func (s Stage) String() string {
	if s < Connect || s > LastStage {
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

// String is the effect's name in configuration and logs.
func (e Effect) String() string {
	if e < Prepend || e > LimitTo {
		return "unknown"
	}
	return effectNames[e]
}

// Refuses reports whether a ends in a refusal at once.
func (a Action) Refuses() bool { return a == Reject || a == Defer || a == Disconnect }
