// Command tarpit is a policy plugin that makes a client wait for its reply:
// README.md beside it is its manual.
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
	ID:      "org.wafermail.tarpit",
	Version: "1.0.0",
	Help:    "makes clients wait for their reply, longer each time if wanted",
	Stages:  []sdk.Stage{sdk.Connect, sdk.Helo, sdk.StartTLS, sdk.Auth, sdk.Mail, sdk.Rcpt, sdk.Data, sdk.Message},
	Grants:  []sdk.Grant{{Name: sdk.GrantCount, Optional: true, Help: "to wait longer each time: for step"}},
	Fields: []sdk.Field{
		{Name: "delay", Type: sdk.Duration, Default: []string{"5s"}, Help: "how long a reply waits, at most 1m"},
		{Name: "when_score", Type: sdk.Int, Help: "only if the score so far is this or more"},
		{Name: "tags", Type: sdk.List, Help: "only if one of these tags is there"},
		{Name: "step", Type: sdk.Duration, Default: []string{"0s"}, Help: "how much longer each further time within per; 0s: always the same"},
		{Name: "max", Type: sdk.Duration, Default: []string{"30s"}, Help: "the longest that step leads to, at most 1m"},
		{Name: "per", Type: sdk.Duration, Default: []string{"10m"}, Help: "in which time a client's times are counted for step"},
	},
	Configure: configure,
}

var _ = sdk.Serve(&plugin)

func main() {}

// longest is how long a verdict may make a reply wait.
const longest = time.Minute

// pit is one configuration.
type pit struct {
	delay, step, max, per time.Duration
	scored                bool // whenScore counts
	whenScore             int64
	tags                  []string
}

func configure(c *sdk.Config) (sdk.Judge, error) {
	p := &pit{
		delay: c.Duration("delay"), step: c.Duration("step"), max: c.Duration("max"), per: c.Duration("per"),
		scored: c.Has("when_score"), whenScore: c.Int("when_score"), tags: c.Strings("tags"),
	}
	switch {
	case p.delay > longest:
		return nil, c.Errorf("delay", "must be at most 1m")
	case p.delay == 0 && p.step == 0:
		return nil, c.Errorf("delay", "must be more than 0s, or step must")
	case p.step == 0:
		return p.judge, nil
	case p.max > longest || p.max < p.delay:
		return nil, c.Errorf("max", "must be between delay and 1m")
	case p.per < time.Second || p.per > sdk.MaxWindow:
		return nil, c.Errorf("per", "must be between 1s and 31d")
	case !c.Granted(sdk.GrantCount):
		return nil, c.Errorf("step", `needs the grant "count"`)
	}
	return p.judge, nil
}

func (p *pit) judge(e *sdk.Event) sdk.Verdict {
	if e.Stage() == sdk.Auth && e.AuthOK() || !p.applies(e) {
		return sdk.Next()
	}
	delay := p.delay
	if p.step > 0 {
		times, err := e.Count(e.Client(), 1, p.per)
		if err != nil {
			return sdk.Fail("count " + e.Client() + ": " + err.Error())
		}
		delay = p.after(times)
	}
	if delay <= 0 {
		return sdk.Next()
	}
	e.Metric("delayed", 1)
	return sdk.Next().Tarpit(delay).Because("tarpit")
}

// after is the delay for a client's n-th time.
func (p *pit) after(n int64) time.Duration {
	if n-1 > int64((p.max-p.delay)/p.step) {
		return p.max
	}
	return p.delay + time.Duration(max(n-1, 0))*p.step
}

// applies reports whether the score and the tags so far call for a delay.
func (p *pit) applies(e *sdk.Event) bool {
	if p.scored {
		score, _ := strconv.ParseFloat(e.Fact(sdk.FactScore), 64) // none is 0
		if score < float64(p.whenScore) {
			return false
		}
	}
	if len(p.tags) == 0 {
		return true
	}
	for have := range strings.Lines(e.Fact(sdk.FactTags)) {
		have = strings.TrimSuffix(have, "\n")
		for _, tag := range p.tags {
			if tag == have {
				return true
			}
		}
	}
	return false
}
