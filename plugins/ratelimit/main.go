// Command ratelimit is a policy plugin that counts and refuses what is too
// much: README.md beside it is its manual.
//
// # BUGS
//
// See README.md.
package main

import (
	"net/netip"
	"strings"
	"time"

	"github.com/wafermail/wafer/sdk"
)

var plugin = sdk.Plugin{
	ID:      "org.wafermail.ratelimit",
	Version: "1.0.0",
	Help:    "limits how much one client, user, sender or recipient may do in a time",
	Stages:  []sdk.Stage{sdk.Connect, sdk.Helo, sdk.Auth, sdk.Mail, sdk.Rcpt, sdk.Data, sdk.Message},
	Grants:  []sdk.Grant{{Name: sdk.GrantCount, Help: "to count"}},
	Fields: []sdk.Field{
		{Name: "key", Type: sdk.String, Default: []string{"client"}, Help: `who is limited: client, client-net, helo, sender, sender-domain, user, recipient or recipient-domain, joined with "+"`},
		{Name: "limit", Type: sdk.Int, Required: true, Help: "how much is allowed"},
		{Name: "per", Type: sdk.Duration, Default: []string{"60s"}, Help: "in which time"},
		{Name: "cost", Type: sdk.String, Default: []string{"1"}, Choices: []string{"1", "recipients", "size"}, Help: "what is counted: each question, its recipients, or its octets"},
		{Name: "action", Type: sdk.String, Default: []string{"defer"}, Choices: []string{"defer", "reject", "disconnect"}, Help: "what to do with what is too much"},
	},
	Configure: configure,
}

var _ = sdk.Serve(&plugin)

func main() {}

// limiter is one configuration.
type limiter struct {
	parts  []string
	limit  int64
	per    time.Duration
	cost   string
	action string
}

func configure(c *sdk.Config) (sdk.Judge, error) {
	l := &limiter{
		parts:  strings.Split(c.String("key"), "+"),
		limit:  c.Int("limit"),
		per:    c.Duration("per"),
		cost:   c.String("cost"),
		action: c.String("action"),
	}
	for i, part := range l.parts {
		l.parts[i] = strings.TrimSpace(part)
		if _, known := fact(&sdk.Event{}, l.parts[i]); !known {
			return nil, c.Errorf("key", `"`+part+`" is none of client, client-net, helo, sender, sender-domain, user, recipient, recipient-domain`)
		}
	}
	if l.limit < 0 {
		return nil, c.Errorf("limit", "must not be negative")
	}
	if l.per < time.Second || l.per > sdk.MaxWindow {
		return nil, c.Errorf("per", "must be between 1s and 31d")
	}
	return l.judge, nil
}

func (l *limiter) judge(e *sdk.Event) sdk.Verdict {
	key, ok := l.key(e)
	if !ok {
		return sdk.Next()
	}
	sum, err := e.Count(key, l.amount(e), l.per)
	if err != nil {
		return sdk.Fail("count " + key + ": " + err.Error())
	}
	if sum <= l.limit {
		return sdk.Next()
	}
	return l.refuse(e).Because("rate-limit")
}

// key joins the facts that the limit is about. ok is false if one of them is
// not there: a limit on users says nothing about a client without one.
func (l *limiter) key(e *sdk.Event) (key string, ok bool) {
	if len(l.parts) == 1 {
		key, _ = fact(e, l.parts[0])
		return clip(key), key != ""
	}
	for i, part := range l.parts {
		f, _ := fact(e, part)
		if f == "" {
			return "", false
		}
		if i > 0 {
			key += "\x00" // in none of them
		}
		key += clip(f)
	}
	return key, true
}

// clip keeps what a peer chose within what a counter's key may be.
func clip(s string) string { return s[:min(len(s), sdk.MaxKey/8-1)] }

// fact is one part of a key in its canonical form, "" if the event has none.
func fact(e *sdk.Event, name string) (value string, known bool) {
	switch name {
	case "client":
		return e.Client(), true
	case "client-net":
		return network(e.Client()), true
	case "helo":
		return strings.ToLower(e.Helo()), true
	case "sender":
		if e.HasSender() && e.Sender() == "" {
			return "<>", true
		}
		return strings.ToLower(e.Sender()), true
	case "sender-domain":
		if e.HasSender() && e.Sender() == "" {
			return "<>", true
		}
		return domain(e.Sender()), true
	case "user":
		return strings.ToLower(e.User()), true
	case "recipient":
		return strings.ToLower(e.Recipient()), true
	case "recipient-domain":
		return domain(e.Recipient()), true
	}
	return "", false
}

// network is the /24 of an IPv4 address or the /64 of an IPv6 address.
func network(client string) string {
	a, err := netip.ParseAddr(client)
	if err != nil {
		return ""
	}
	bits := 64
	if a.Is4() {
		bits = 24
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

func domain(address string) string {
	return strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
}

// amount is what this event adds to the count.
func (l *limiter) amount(e *sdk.Event) int64 {
	switch l.cost {
	case "size":
		return e.Size()
	case "recipients":
		if e.Stage() == sdk.Data || e.Stage() == sdk.Message {
			return int64(e.RecipientCount())
		}
	}
	return 1
}

// refuse says what is too much. At connect there is nothing to refuse but the
// connection, so every action hangs up there (RFC 5321 §3.8).
func (l *limiter) refuse(e *sdk.Event) sdk.Verdict {
	what, from := "mail", e.Client()
	switch e.Stage() {
	case sdk.Connect:
		return sdk.Disconnect(421, "4.7.0", "Error: too many connections from "+from)
	case sdk.Helo:
		what = "greetings"
	case sdk.Auth:
		what = "AUTH commands"
	case sdk.Rcpt:
		what = "recipients"
	}
	text := "Error: too many " + what + " from " + from
	if what == "mail" {
		text = "Error: too much mail from " + from
	}
	switch l.action {
	case "reject":
		return sdk.Reject(554, "5.7.1", text)
	case "disconnect":
		return sdk.Disconnect(421, "4.7.0", text)
	}
	return sdk.Defer(450, "4.7.1", text)
}
