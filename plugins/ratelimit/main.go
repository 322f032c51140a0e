// Command ratelimit is a policy plugin that counts and refuses what is too
// much: README.md beside it is its manual.
//
// # BUGS
//
// See README.md.
package main

import (
	"strconv"
	"time"

	"github.com/wafermail/wafer/sdk"
)

var plugin = sdk.Plugin{
	ID:      "org.wafermail.ratelimit",
	Version: "1.1.0",
	Help:    "limits how much one client, user, sender or recipient may do in a time",
	Stages:  []sdk.Stage{sdk.Connect, sdk.Helo, sdk.StartTLS, sdk.Auth, sdk.Mail, sdk.Rcpt, sdk.Data, sdk.Message},
	Grants: []sdk.Grant{
		{Name: sdk.GrantCount, Help: "to count"},
		{Name: sdk.GrantState, Optional: true, Help: "to begin anew after a success: for reset"},
	},
	Fields: []sdk.Field{
		{Name: "key", Type: sdk.String, Default: []string{"client"}, Help: "who is limited: " + parts + `; several joined with "+"`},
		{Name: "limit", Type: sdk.Int, Required: true, Help: "how much is allowed"},
		{Name: "per", Type: sdk.Duration, Default: []string{"60s"}, Help: "in which time, from 1s to 31d"},
		{Name: "cost", Type: sdk.String, Default: []string{"1"}, Choices: []string{"1", "connections", "messages", costRecipients, costSize, "bytes", costFailures}, Help: "what is counted: each question (1, connections, messages), its recipients, its octets (size, bytes), or failed logins"},
		{Name: "action", Type: sdk.String, Default: []string{actionDefer}, Choices: []string{actionDefer, actionReject, actionDisconnect, actionTag, actionHold}, Help: "what to do with what is too much"},
		{Name: "code", Type: sdk.Int, Default: []string{"0"}, Help: "reply code; 0: the action's"},
		{Name: "text", Type: sdk.String, Help: "what to reply: %c the client, %k the key, %l the limit, %p the time, %s the sum, %w what is too much; may begin with an enhanced code"},
		{Name: "prefix4", Type: sdk.Int, Default: []string{"24"}, Help: "bits of an IPv4 client's network, for client-net"},
		{Name: "prefix6", Type: sdk.Int, Default: []string{"64"}, Help: "bits of an IPv6 client's network, for client-net"},
		{Name: "count_refused", Type: sdk.Bool, Default: []string{"true"}, Help: "whether what is refused counts too"},
		{Name: "reset", Type: sdk.Bool, Default: []string{"false"}, Help: "whether a login that succeeds makes failures forgotten"},
	},
	Configure: configure,
}

var _ = sdk.Serve(&plugin)

func main() {}

// What is counted, besides questions.
const (
	costRecipients = "recipients"
	costSize       = "size"
	costFailures   = "failures"
)

// limiter is one configuration.
type limiter struct {
	keys
	answer
	limit        int64
	per          time.Duration
	cost         string
	countRefused bool
	reset        bool
}

func configure(c *sdk.Config) (sdk.Judge, error) {
	l := &limiter{
		limit: c.Int("limit"), per: c.Duration("per"), cost: c.String("cost"),
		countRefused: c.Bool("count_refused"), reset: c.Bool("reset"),
	}
	if l.cost == "bytes" {
		l.cost = costSize
	}
	var err error
	if l.keys, err = parseKeys(c); err != nil {
		return nil, err
	}
	switch {
	case l.limit < 0:
		return nil, c.Errorf("limit", "must not be negative")
	case l.limit < 1 && l.cost == costFailures:
		return nil, c.Errorf("limit", "must be at least 1, or nobody could log in")
	case l.per < time.Second || l.per > sdk.MaxWindow:
		return nil, c.Errorf("per", "must be between 1s and 31d")
	case l.reset && l.cost != costFailures:
		return nil, c.Errorf("reset", `goes with cost = "failures" only`)
	case l.reset && !c.Granted(sdk.GrantState):
		return nil, c.Errorf("reset", `needs the grant "state"`)
	}
	if l.answer, err = parseAnswer(c); err != nil {
		return nil, err
	}
	return l.judge, nil
}

func (l *limiter) judge(e *sdk.Event) sdk.Verdict {
	key, ok := l.keys.of(e)
	if !ok {
		return sdk.Next()
	}
	if l.cost == costFailures {
		return l.failures(e, key)
	}
	sum, over, err := l.count(e, key, l.amount(e))
	if err != nil {
		return sdk.Fail("count " + key + ": " + err.Error())
	}
	if !over {
		return sdk.Next()
	}
	return l.refuse(e, false, key, sum).Because("rate-limit")
}

// count adds amount, or, if what is refused does not count, only what stays
// within the limit.
func (l *limiter) count(e *sdk.Event, key string, amount int64) (sum int64, over bool, err error) {
	if !l.countRefused {
		if sum, err = e.Count(key, 0, l.per); err != nil {
			return 0, false, err
		}
		if sum > l.limit-amount {
			return sum + amount, true, nil
		}
	}
	sum, err = e.Count(key, amount, l.per)
	return sum, sum > l.limit, err
}

// failures counts a login that failed, and refuses whatever comes from one who
// had failed limit times before, good logins too: who guesses must not learn
// that a guess was right.
func (l *limiter) failures(e *sdk.Event, key string) sdk.Verdict {
	counter := key
	var since []byte // when this counter began; nil: always
	var err error
	if l.reset {
		var ok bool
		if since, ok, err = e.StateGet(key); err != nil {
			return sdk.Fail("read reset of " + key + ": " + err.Error())
		}
		if ok {
			counter += "\x00" + string(since)
		}
	}
	before, err := e.Count(counter, 0, l.per)
	if err != nil {
		return sdk.Fail("count " + key + ": " + err.Error())
	}
	over := before >= l.limit
	switch {
	case e.Stage() != sdk.Auth:
	case !e.AuthOK() && (!over || l.countRefused):
		if before, err = e.Count(counter, 1, l.per); err == nil && since != nil {
			err = e.StatePut(key, since, l.per) // known as long as what it counts
		}
	case e.AuthOK() && !over && l.reset && before > 0:
		// Counters only grow, so a new one begins. What the older ones counted
		// is out of the window before the new one is forgotten.
		last, _ := strconv.ParseInt(string(since), 36, 64) // 0 if there was none
		err = e.StatePut(key, strconv.AppendInt(nil, max(e.Now().UnixMilli(), last+1), 36), l.per)
	}
	if err != nil {
		return sdk.Fail("count " + key + ": " + err.Error())
	}
	if !over {
		return sdk.Next()
	}
	return l.refuse(e, true, key, before).Because("rate-limit")
}

// amount is what this event adds to the count.
func (l *limiter) amount(e *sdk.Event) int64 {
	switch l.cost {
	case costSize:
		return max(e.Size(), 0)
	case costRecipients:
		if e.Stage() == sdk.Data || e.Stage() == sdk.Message {
			return int64(e.RecipientCount())
		}
	}
	return 1
}
