// Command greylist is a policy plugin that lets strangers come back later:
// README.md beside it is its manual. Times, keys and texts are postgrey's.
//
// # BUGS
//
// See README.md.
package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/wafermail/wafer/plugins/internal/address"
	"github.com/wafermail/wafer/sdk"
)

var plugin = sdk.Plugin{
	ID:      "org.wafermail.greylist",
	Version: "1.0.0",
	Help:    "asks strangers to come back later, once for each client network, sender and recipient",
	Stages:  []sdk.Stage{sdk.Rcpt},
	Grants:  []sdk.Grant{{Name: sdk.GrantState, Help: "to remember who was asked to come back"}},
	Fields: []sdk.Field{
		{Name: "delay", Type: sdk.Duration, Default: []string{"5m"}, Help: "how long a stranger has to wait"},
		{Name: "retry_window", Type: sdk.Duration, Default: []string{"2d"}, Help: "within which time it has to come back"},
		{Name: "max_age", Type: sdk.Duration, Default: []string{"35d"}, Help: "how long who came back is known, since the last time; at most 90d"},
		{Name: "auto_allow", Type: sdk.Int, Default: []string{"5"}, Help: "how often a client network has to come back, at most once an hour, until it is never asked to again; 0: never"},
		{Name: "prefix4", Type: sdk.Int, Default: []string{"24"}, Help: "bits of an IPv4 client's network; 32: the host"},
		{Name: "prefix6", Type: sdk.Int, Default: []string{"64"}, Help: "bits of an IPv6 client's network; 128: the host"},
		{Name: "action", Type: sdk.String, Default: []string{deferIfPermit}, Choices: []string{deferIfPermit, deferNow}, Help: "whether later checks may still refuse for good"},
		{Name: "text", Type: sdk.String, Default: []string{"Greylisted, see http://postgrey.schweikert.ch/help/%r.html"}, Help: "what a stranger is told: %s is the seconds left, %r the recipient's domain; an enhanced code in front replaces 4.2.0"},
		{Name: "header", Type: sdk.String, Default: []string{"X-Greylist: delayed %t seconds by %h; %d"}, Help: "field for a message that came back: %t is the seconds that took, %h this server, %d the date; none if empty"},
		{Name: "exempt_clients", Type: sdk.List, Help: "networks, addresses, and domains that the client's name is in"},
		{Name: "exempt_senders", Type: sdk.List, Help: `"user@domain", "user@", "domain" with those below it, "<>"`},
		{Name: "exempt_recipients", Type: sdk.List, Default: []string{"postmaster@", "abuse@"}, Help: `"user@domain", "user@", "domain" with those below it`},
	},
	Configure: configure,
}

var _ = sdk.Serve(&plugin)

func main() {}

// Actions.
const (
	deferIfPermit = "defer_if_permit"
	deferNow      = "defer"
)

// tagged says that the message has its header field: it is one for all recipients.
const tagged = "greylist-header"

// gate is one configuration.
type gate struct {
	delay, retry, maxAge    time.Duration
	autoAllow               int64
	bits4, bits6            int
	action                  string
	enhanced, text          string
	headerName, headerValue string
	clients                 clients
	senders, recipients     mailboxes
}

func configure(c *sdk.Config) (sdk.Judge, error) {
	g := &gate{
		delay: c.Duration("delay"), retry: c.Duration("retry_window"), maxAge: c.Duration("max_age"),
		autoAllow: c.Int("auto_allow"),
		bits4:     int(c.Int("prefix4")), bits6: int(c.Int("prefix6")),
		action: c.String("action"),
	}
	switch {
	case g.delay < time.Second:
		return nil, c.Errorf("delay", "must be at least 1s")
	case g.retry <= g.delay:
		return nil, c.Errorf("retry_window", "must be more than delay, or nobody ever passes")
	case g.retry > sdk.MaxStateTTL:
		return nil, c.Errorf("retry_window", "must be at most 90d")
	case g.maxAge < g.delay || g.maxAge > sdk.MaxStateTTL:
		return nil, c.Errorf("max_age", "must be between delay and 90d")
	case g.autoAllow < 0:
		return nil, c.Errorf("auto_allow", "must not be negative")
	case g.bits4 < 1 || g.bits4 > 32:
		return nil, c.Errorf("prefix4", "must be between 1 and 32")
	case g.bits6 < 1 || g.bits6 > 128:
		return nil, c.Errorf("prefix6", "must be between 1 and 128")
	}
	g.enhanced, g.text = enhanced(c.String("text"))
	if h := c.String("header"); h != "" {
		name, value, ok := strings.Cut(h, ":")
		if !ok || !isFieldName(name) {
			return nil, c.Errorf("header", `must be "Name: value"`)
		}
		g.headerName, g.headerValue = name, strings.TrimSpace(value)
	}
	var bad string
	if g.clients, bad = parseClients(c.Strings("exempt_clients")); bad != "" {
		return nil, c.Errorf("exempt_clients", strconv.Quote(bad)+" is no network, address or domain")
	}
	if g.senders, bad = parseMailboxes(c.Strings("exempt_senders")); bad != "" {
		return nil, c.Errorf("exempt_senders", strconv.Quote(bad)+` is none of "user@domain", "user@", "domain", "<>"`)
	}
	if g.recipients, bad = parseMailboxes(c.Strings("exempt_recipients")); bad != "" {
		return nil, c.Errorf("exempt_recipients", strconv.Quote(bad)+` is none of "user@domain", "user@", "domain"`)
	}
	return g.judge, nil
}

// enhanced takes the enhanced code off a text that begins with one.
func enhanced(text string) (code, rest string) {
	first, rest, _ := strings.Cut(text, " ")
	if len(first) >= 5 && first[0] == '4' && first[1] == '.' && strings.Count(first, ".") == 2 && strings.Trim(first, "0123456789.") == "" && first[2] != '.' && first[len(first)-1] != '.' {
		return first, rest
	}
	return "4.2.0", text // 4.7.1 makes Exchange give up
}

func isFieldName(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= 77
}

func (g *gate) judge(e *sdk.Event) sdk.Verdict {
	network, ok := network(e.Client(), g.bits4, g.bits6)
	if !ok || e.Recipient() == "" {
		return sdk.Next()
	}
	if g.clients.has(e.Client(), e.ClientName()) || g.senders.has(e.Sender()) || g.recipients.has(e.Recipient()) {
		e.Metric("exempt", 1)
		return sdk.Next()
	}
	known, err := g.autoAllowed(e, network)
	if err != nil {
		return sdk.Fail("remember network " + network + ": " + err.Error())
	}
	if known {
		e.Metric("auto-allowed", 1)
		return sdk.Next()
	}
	v, err := g.triplet(e, network)
	if err != nil {
		return sdk.Fail("remember triplet: " + err.Error())
	}
	return v
}

// triplet judges one client network, sender and recipient. What is remembered
// is when they came first; it is forgotten when the retry window is over, so the
// next time is the first again. Who has come back is known until max_age after
// the last time.
func (g *gate) triplet(e *sdk.Event, network string) (sdk.Verdict, error) {
	key := "t" + network + "\x00" + clip(sender(e.Sender())) + "\x00" + clip(strings.ToLower(e.Recipient()))
	now := e.Now()
	value, ok, err := e.StateGet(key)
	if err != nil {
		return sdk.Verdict{}, err
	}
	first, passed := now, false
	if ok {
		first, passed = decodeTriplet(value, now)
	}
	if passed {
		e.Metric("known", 1)
		return sdk.Next(), e.StatePut(key, value, g.maxAge)
	}
	waited := now.Sub(first)
	if waited >= g.delay {
		e.Metric("came-back", 1)
		if err := e.StatePut(key, encodeTriplet(first, true), g.maxAge); err != nil {
			return sdk.Verdict{}, err
		}
		return g.pass(e, waited), g.cameBack(e, network)
	}
	label := "greylist-early"
	if waited == 0 {
		label = "greylist-new"
		if err := e.StatePut(key, encodeTriplet(first, false), g.retry); err != nil {
			return sdk.Verdict{}, err
		}
	}
	return g.refuse(e, g.delay-waited).Because(label), nil
}

// pass lets a message through that came back, and says so in a header field.
func (g *gate) pass(e *sdk.Event, waited time.Duration) sdk.Verdict {
	if g.headerName == "" {
		return sdk.Next()
	}
	for tag := range strings.Lines(e.Fact(sdk.FactTags)) {
		if strings.TrimSpace(tag) == tagged {
			return sdk.Next()
		}
	}
	value := strings.NewReplacer(
		"%t", seconds(waited), "%h", e.Hostname(), "%d", e.Now().UTC().Format(time.RFC1123Z),
	).Replace(g.headerValue)
	return sdk.Next().AddHeader(g.headerName, value).Tag(tagged)
}

func (g *gate) refuse(e *sdk.Event, left time.Duration) sdk.Verdict {
	_, domain := address.Split(e.Recipient())
	why := strings.NewReplacer("%s", seconds(left+time.Second-time.Millisecond), "%r", domain).Replace(g.text)
	text := address.Text(address.Recipient, e.Recipient(), why)
	if g.action == deferNow {
		return sdk.Defer(450, g.enhanced, text)
	}
	return sdk.DeferIfPermit(450, g.enhanced, text)
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }
