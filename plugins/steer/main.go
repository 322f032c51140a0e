// Command steer is a policy plugin that says how mail waits and leaves: README.md
// beside it is its manual.
//
// # BUGS
//
// See README.md.
package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/wafermail/wafer/sdk"
)

var plugin = sdk.Plugin{
	ID:      "org.wafermail.steer",
	Version: "1.0.0",
	Help:    "chooses transport, delay and limit of mail that leaves, or holds, returns or drops it",
	Stages:  []sdk.Stage{sdk.Queued, sdk.Route, sdk.Bounce},
	Fields: []sdk.Field{
		{Name: "transport", Type: sdk.String, Help: "a transport of the configuration; at route"},
		{Name: "hop", Type: sdk.String, Help: "its next hop; empty: its own"},
		{Name: "delay", Type: sdk.Duration, Default: []string{"0s"}, Help: "how old the mail must be before it is tried; at queued and route"},
		{Name: "limit", Type: sdk.Int, Default: []string{"0"}, Help: "deliveries at once to the destination, 0: the configuration's; at route"},
		{Name: "action", Type: sdk.String, Default: []string{actionNext}, Choices: []string{actionNext, actionHold, actionReject, actionDefer, actionDiscard}, Help: "what becomes of the mail, or at bounce of the notice"},
		{Name: "text", Type: sdk.String, Help: "what a reject or defer says"},
		{Name: "recipients_over", Type: sdk.Int, Default: []string{"0"}, Help: "only of mail to more recipients than this"},
		{Name: "notices", Type: sdk.List, Help: "at bounce: only these notices: failed, delayed, delivered, relayed"},
	},
	Configure: configure,
}

// The actions by their names in the configuration.
const (
	actionNext    = "next"
	actionHold    = "hold"
	actionReject  = "reject"
	actionDefer   = "defer"
	actionDiscard = "discard"
)

const maxDelay = 5 * 24 * time.Hour

var _ = sdk.Serve(&plugin)

func main() {}

// steer is one configuration.
type steer struct {
	transport, hop string
	delay          time.Duration
	limit          int64
	action, text   string
	over           int64
	notices        []string
}

func configure(c *sdk.Config) (sdk.Judge, error) {
	s := &steer{
		transport: c.String("transport"), hop: c.String("hop"), delay: c.Duration("delay"), limit: c.Int("limit"),
		action: c.String("action"), text: c.String("text"), over: c.Int("recipients_over"), notices: c.Strings("notices"),
	}
	switch {
	case s.hop != "" && s.transport == "":
		return nil, c.Errorf("hop", `needs a transport; write transport = "smtp" for the built-in one`)
	case s.delay > maxDelay:
		return nil, c.Errorf("delay", "must be at most 5d")
	case s.limit < 0 || s.limit > 10_000:
		return nil, c.Errorf("limit", "must be between 0 and 10000")
	case s.over < 0:
		return nil, c.Errorf("recipients_over", "must be 0 or more")
	case s.text != "" && s.action != actionReject && s.action != actionDefer:
		return nil, c.Errorf("text", "goes with reject and defer only")
	case s.transport == "" && s.delay == 0 && s.limit == 0 && s.action == actionNext:
		return nil, c.Errorf("action", "says nothing, and neither does transport, delay or limit")
	}
	for _, n := range s.notices {
		if !strings.Contains(" failed delayed delivered relayed ", " "+n+" ") || n == "" {
			return nil, c.Errorf("notices", strconv.Quote(n), "is none of failed, delayed, delivered, relayed")
		}
	}
	return s.judge, nil
}

func (s *steer) judge(e *sdk.Event) sdk.Verdict {
	if s.over > 0 && int64(e.RecipientCount()) <= s.over {
		return sdk.Next()
	}
	stage := e.Stage()
	if stage == sdk.Bounce {
		if s.action == actionDiscard && s.meant(e.Fact(sdk.FactNotice)) {
			return sdk.Discard().Because("steer")
		}
		return sdk.Next()
	}
	v := sdk.Next()
	switch s.action {
	case actionHold:
		v = sdk.Hold()
	case actionDiscard:
		v = sdk.Discard()
	case actionReject:
		return sdk.Reject(550, "5.7.1", s.say("the mail is not sent")).Because("steer")
	case actionDefer:
		if stage == sdk.Route {
			return sdk.Defer(450, "4.7.1", s.say("the mail is not sent now")).Because("steer")
		}
	}
	if s.delay > 0 {
		v = v.Delay(s.delay)
	}
	if stage == sdk.Route && s.transport != "" {
		v = v.SendBy(s.transport, s.hop)
	}
	if stage == sdk.Route && s.limit > 0 {
		v = v.Limit(int(s.limit))
	}
	return v.Because("steer")
}

func (s *steer) say(otherwise string) string {
	if s.text != "" {
		return s.text
	}
	return otherwise
}

// meant reports whether the configuration is about that kind of notice.
func (s *steer) meant(notice string) bool {
	if len(s.notices) == 0 {
		return true
	}
	for _, n := range s.notices {
		if n == notice {
			return true
		}
	}
	return false
}
