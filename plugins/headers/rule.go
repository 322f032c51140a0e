package main

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/sdk"
)

// rule is one entry of rules: "ACTION [WORD] FIELD ~ REGEXP => TEXT".
type rule struct {
	action  string
	word    string // of tag, score, bcc, redirect
	score   float64
	fields  []string // in lower case; fieldAny, fieldFile, or with partPrefix
	not     bool     // "!~": no such field matches
	pattern *regexp.Regexp
	needles []string // of pattern
	reply
}

// reply is what a refusal says.
type reply struct {
	code     int // 0: the action's
	enhanced string
	text     string
}

// Fields of a rule that are no names of header fields.
const (
	fieldAny   = "*"         // each header field, as "Name: value"
	fieldFile  = ":filename" // the file name of each attachment
	partPrefix = "part:"     // a header field of each part, not of the message
)

// Actions.
const (
	actReject     = "reject"
	actDefer      = "defer"
	actDiscard    = "discard"
	actHold       = "hold"
	actQuarantine = "quarantine"
	actAccept     = "accept"
	actTag        = "tag"
	actScore      = "score"
	actBCC        = "bcc"
	actRedirect   = "redirect"
	actWarn       = "warn"
)

const (
	maxRules   = 200
	allActions = "reject, defer, discard, hold, quarantine, accept, tag, score, bcc, redirect, warn"
)

// parseRule reads one rule; wrong is what is wrong with it, "" if nothing.
func parseRule(s string) (r rule, wrong string) {
	r.action, s = token(s)
	switch r.action {
	case actReject, actDefer, actDiscard, actHold, actQuarantine, actAccept, actWarn:
	case actTag, actScore, actBCC, actRedirect:
		r.word, s = token(s)
	default:
		return r, strconv.Quote(r.action) + " is none of " + allActions
	}
	if wrong = r.takeWord(); wrong != "" {
		return r, wrong
	}
	names, s := token(s)
	op, s := token(s)
	if op != "~" && op != "!~" {
		return r, `wants "FIELD ~ REGEXP" or "FIELD !~ REGEXP" behind the action`
	}
	r.not = op == "!~"
	for name := range strings.SplitSeq(strings.ToLower(names), "|") {
		plain := strings.TrimPrefix(name, partPrefix)
		if name != fieldAny && name != fieldFile && !isFieldName(plain) {
			return r, strconv.Quote(name) + ` is no header field, "part:" and one, ":filename" or "*"`
		}
		r.fields = append(r.fields, name)
	}
	pattern, text := s, ""
	if i := strings.LastIndex(s, " => "); i >= 0 {
		pattern, text = s[:i], s[i+4:]
	}
	pattern = strings.TrimSpace(pattern)
	if pattern == "" {
		return r, "has no regular expression"
	}
	var err error
	if r.pattern, err = regexp.Compile(pattern); err != nil {
		return r, err.Error()
	}
	r.needles = needles(pattern)
	return r, r.takeText(strings.TrimSpace(text))
}

// token cuts the first word off s.
func token(s string) (word, rest string) {
	word, rest, _ = strings.Cut(strings.TrimLeft(s, " \t"), " ")
	return word, strings.TrimLeft(rest, " \t")
}

func (r *rule) takeWord() (wrong string) {
	switch r.action {
	case actTag:
		if r.word == "" || len(r.word) > 64 || strings.TrimFunc(r.word, func(c rune) bool { return c > ' ' && c < 0x7f }) != "" {
			return "tag " + strconv.Quote(r.word) + " wants printable ASCII, at most 64 octets"
		}
	case actScore:
		n, err := strconv.ParseFloat(r.word, 64)
		if err != nil || !(n >= -1000 && n <= 1000) {
			return "score " + strconv.Quote(r.word) + " wants a number from -1000 to 1000"
		}
		r.score = n
	case actBCC, actRedirect:
		local, domain, ok := strings.Cut(r.word, "@")
		if !ok || local == "" || domain == "" || strings.ContainsAny(r.word, "<>\",;\t") {
			return r.action + " " + strconv.Quote(r.word) + " wants an address"
		}
	}
	return ""
}

// takeText reads "550 5.7.1 text", where codes may be left out.
func (r *rule) takeText(text string) (wrong string) {
	if r.action != actReject && r.action != actDefer {
		if text != "" {
			return r.action + " has no reply, so nothing comes behind =>"
		}
		return ""
	}
	r.reply, wrong = parseReply(r.action, text)
	return wrong
}

func parseReply(action, text string) (p reply, wrong string) {
	class := byte('5')
	p = reply{550, "5.7.1", "message content rejected"} // header_checks(5)
	if action == actDefer {
		class, p = '4', reply{450, "4.7.1", "message content rejected for now"}
	}
	first, rest, _ := strings.Cut(text, " ")
	if n, err := strconv.Atoi(first); err == nil && len(first) == 3 {
		if first[0] != class {
			return p, "code " + first + " does not go with " + action
		}
		p.code, text = n, rest
	}
	first, rest, _ = strings.Cut(text, " ")
	if len(first) >= 5 && first[1] == '.' && strings.Count(first, ".") == 2 && strings.Trim(first, "0123456789.") == "" && first[2] != '.' && first[len(first)-1] != '.' {
		if first[0] != class {
			return p, "enhanced code " + first + " does not go with " + action
		}
		p.enhanced, text = first, rest
	}
	if text != "" {
		p.text = text
	}
	return p, ""
}

func isFieldName(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' || s[i] == ':' || s[i] == '*' {
			return false
		}
	}
	return s != "" && len(s) <= 77
}

// isEffect reports whether the rules behind a rule that matched are looked at.
func (r *rule) isEffect() bool {
	switch r.action {
	case actTag, actScore, actBCC, actRedirect, actWarn:
		return true
	}
	return false
}

// ends is the verdict of an action that ends the rules.
func ends(action string, p reply) sdk.Verdict {
	switch action {
	case actDefer:
		return sdk.Defer(p.code, p.enhanced, p.text)
	case actDiscard:
		return sdk.Discard()
	case actHold:
		return sdk.Hold()
	case actQuarantine:
		return sdk.Quarantine()
	case actAccept:
		return sdk.Accept()
	}
	return sdk.Reject(p.code, p.enhanced, p.text)
}
