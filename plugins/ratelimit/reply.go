package main

import (
	"strconv"
	"strings"

	"github.com/wafermail/wafer/sdk"
)

// Actions.
const (
	actionDefer      = "defer"
	actionReject     = "reject"
	actionDisconnect = "disconnect"
	actionTag        = "tag"
	actionHold       = "hold"
)

// answer is how a configuration refuses.
type answer struct {
	action   string
	code     int    // 0: the action's
	enhanced string // "": the action's
	text     string // "": Postfix's
	limit    string // as text shows it
	per      string
	tag      string
}

func parseAnswer(c *sdk.Config) (a answer, err error) {
	a = answer{
		action: c.String("action"), code: int(c.Int("code")), text: c.String("text"),
		limit: c.String("limit"), per: c.String("per"), tag: "ratelimit",
	}
	if name := c.Check(); name != "" { // "policy/check"
		a.tag += ":" + name[strings.LastIndexByte(name, '/')+1:]
	}
	low, high := 400, 499
	switch a.action {
	case actionReject:
		low, high = 500, 599
	case actionDisconnect:
		high = 599
	}
	if a.code != 0 && (a.code < low || a.code > high || a.action == actionTag || a.action == actionHold) {
		return a, c.Errorf("code", strconv.Itoa(a.code), "does not go with", a.action)
	}
	first, rest, _ := strings.Cut(a.text, " ")
	if len(first) >= 5 && (first[0] == '4' || first[0] == '5') && first[1] == '.' && strings.Count(first, ".") == 2 && strings.Trim(first, "0123456789.") == "" && first[2] != '.' && first[len(first)-1] != '.' {
		a.enhanced, a.text = first, rest
	}
	for rest := a.text; ; {
		_, after, ok := strings.Cut(rest, "%")
		if !ok {
			return a, nil
		}
		if after == "" || !strings.Contains("cklpsw%", after[:1]) {
			return a, c.Errorf("text", `after "%" comes one of c, k, l, p, s, w and %`)
		}
		rest = after[1:]
	}
}

// refuse says what is too much. At connect there is nothing to refuse but the
// connection, so every action but tag and hold hangs up there (RFC 5321 §3.8).
// Before MAIL there is nothing to hold, so hold tags.
func (a *answer) refuse(e *sdk.Event, failures bool, key string, sum int64) sdk.Verdict {
	if a.action == actionHold && e.Stage() >= sdk.Mail {
		v := sdk.Hold().Tag(a.tag)
		v.Reason = "rate-limit"
		return v
	}
	if a.action == actionTag || a.action == actionHold {
		return sdk.Next().Tag(a.tag)
	}
	what := "mail"
	switch e.Stage() {
	case sdk.Connect:
		what = "connections"
	case sdk.Helo:
		what = "greetings"
	case sdk.StartTLS:
		what = "new TLS sessions"
	case sdk.Auth:
		what = "AUTH commands"
	case sdk.Rcpt:
		what = "recipients"
	}
	if failures {
		what = "failed logins"
	}
	text := "Error: too many " + what + " from " + e.Client()
	if what == "mail" {
		text = "Error: too much mail from " + e.Client()
	}
	if a.text != "" {
		const longest = 200 // of what a peer chose, so that the text shows behind it
		key = strings.ReplaceAll(key[:min(len(key), longest)], "\x00", " ")
		text = strings.NewReplacer(
			"%c", e.Client(), "%k", key, "%l", a.limit, "%p", a.per, "%s", strconv.FormatInt(sum, 10), "%w", what, "%%", "%",
		).Replace(a.text)
	}
	code, enhanced := a.code, a.enhanced
	use := func(c int, e string) {
		if code == 0 {
			code = c
		}
		if enhanced == "" {
			enhanced = e
		}
	}
	switch {
	case e.Stage() == sdk.Connect:
		if code = 0; a.action == actionDisconnect {
			code = a.code
		}
		use(421, "4.7.0")
		return sdk.Disconnect(code, enhanced, text)
	case a.action == actionReject:
		use(554, "5.7.1")
		return sdk.Reject(code, enhanced, text)
	case a.action == actionDisconnect:
		use(421, "4.7.0")
		return sdk.Disconnect(code, enhanced, text)
	case e.Stage() == sdk.StartTLS:
		use(454, "4.7.0")
	}
	use(450, "4.7.1")
	return sdk.Defer(code, enhanced, text)
}
