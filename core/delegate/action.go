package delegate

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// reply is what a daemon has said.
type reply struct {
	verdict policy.Verdict
	level   slog.Level // of note
	note    string     // to be logged, "" if nothing is
}

// subject is what a refusal names, as Postfix does: "<value>: class rejected: text".
type subject struct{ value, class string }

// subjectOf is the subject of ev's stage.
func subjectOf(ev *policy.Event) subject {
	switch ev.Stage {
	case policy.Connect:
		return subject{orUnknown(ev.ClientName) + "[" + host(ev.Client) + "]", "Client host"}
	case policy.Helo:
		return subject{ev.Helo, "Helo command"}
	case policy.Mail:
		return subject{internal(ev.Sender), "Sender address"}
	case policy.Data:
		return subject{"DATA", "Data command"}
	case policy.Message:
		return subject{"END-OF-MESSAGE", "End-of-data"}
	}
	return subject{internal(ev.Recipient), "Recipient address"}
}

// longest is how much of a subject's value a refusal shows, in octets, so that
// the reason can be seen behind it.
const longest = 400

func (s subject) rejected(text string) string {
	return "<" + s.value[:min(len(s.value), longest)] + ">: " + s.class + " rejected: " + text
}

// actionOf is the action among a daemon's attributes. Postfix, too, takes the
// first and skips what else there is.
func actionOf(answer []attribute) (string, error) {
	for _, a := range answer {
		if a.name == "action" {
			return a.value, nil
		}
	}
	return "", fmt.Errorf("an answer without an action: %w", errGarbage)
}

// parseAction reads an action of access(5).
func parseAction(action string, about subject) (reply, error) {
	action = strings.TrimSpace(action)
	word, rest := action, ""
	if i := strings.IndexAny(action, " \t"); i >= 0 {
		word, rest = action[:i], strings.TrimSpace(action[i:])
	}
	if word == "" {
		return reply{}, fmt.Errorf("an empty action: %w", errGarbage)
	}
	if isCode(word) {
		code := int(word[0]-'0')*100 + int(word[1]-'0')*10 + int(word[2]-'0')
		a := policy.Defer
		switch {
		case code == 421 || code == 521:
			a = policy.Disconnect
		case code >= 500:
			a = policy.Reject
		}
		return refusal(a, code, word[:1]+".7.1", rest, "Access denied", about), nil
	}
	if strings.Trim(action, "0123456789") == "" { // from the days when a table could only hold numbers
		return accepted(), nil
	}
	switch strings.ToUpper(word) {
	case "OK", "PERMIT":
		return accepted(), nil
	case "DUNNO":
		return reply{}, nil
	case "REJECT":
		return refusal(policy.Reject, 554, "5.7.1", rest, "Access denied", about), nil
	case "DEFER":
		return refusal(policy.Defer, 450, "4.7.1", rest, "Access denied", about), nil
	case "DEFER_IF_PERMIT":
		return refusal(policy.DeferIfPermit, 450, "4.7.1", rest, "Service unavailable", about), nil
	case "DEFER_IF_REJECT":
		return refusal(policy.DeferIfReject, 450, "4.7.1", rest, "Service unavailable", about), nil
	case "HOLD":
		return reply{verdict: policy.Verdict{Action: policy.Hold, Reason: "delegate-hold"}}, nil
	case "DISCARD":
		return reply{verdict: policy.Verdict{Action: policy.Discard, Reason: "delegate-discard"}}, nil
	case "PREPEND":
		return prepend(rest)
	case "REDIRECT", "BCC":
		return addressed(strings.ToUpper(word), rest)
	case "INFO":
		return reply{level: slog.LevelInfo, note: "INFO " + rest}, nil
	case "WARN":
		return reply{level: slog.LevelWarn, note: "WARN " + rest}, nil
	}
	return reply{}, fmt.Errorf("action %.64q is not one that is understood here", word)
}

// isCode reports whether word is a reply code that refuses.
func isCode(word string) bool {
	return len(word) == 3 && (word[0] == '4' || word[0] == '5') && strings.Trim(word, "0123456789") == ""
}

func accepted() reply {
	return reply{verdict: policy.Verdict{Action: policy.Accept, Reason: "delegate-ok"}}
}

// refusal reads "5.1.1 text": an enhanced code may lead the text. Its class is
// made the code's.
func refusal(a policy.Action, code int, enhanced, text, otherwise string, about subject) reply {
	first, rest := text, ""
	if i := strings.IndexAny(text, " \t"); i >= 0 {
		first, rest = text[:i], strings.TrimSpace(text[i:])
	}
	if isEnhanced(first) {
		enhanced, text = string(rune('0'+code/100))+first[1:], rest
	}
	if text == "" {
		text = otherwise
	}
	st := mail.Status{Code: code, Enhanced: enhanced, Text: about.rejected(text)}
	return reply{verdict: policy.Verdict{Action: a, Status: st, Reason: "delegate-denied"}}
}

// isEnhanced reports whether s is an enhanced status code (RFC 3463 §2) of a refusal.
func isEnhanced(s string) bool {
	f := strings.Split(s, ".")
	if len(f) != 3 || f[0] != "4" && f[0] != "5" {
		return false
	}
	for _, n := range f[1:] {
		if n == "" || len(n) > 3 || strings.Trim(n, "0123456789") != "" {
			return false
		}
	}
	return true
}

// prepend reads "Name: body".
func prepend(field string) (reply, error) {
	name, body, ok := strings.Cut(field, ":")
	if !ok || !isFieldName(name) {
		return reply{}, fmt.Errorf("PREPEND %.64q is no header field", field)
	}
	for _, c := range []byte(body) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return reply{}, fmt.Errorf("PREPEND %s: a control character in the field", name)
		}
	}
	f := policy.Field{Name: name, Value: strings.TrimSpace(body)}
	return reply{verdict: policy.Verdict{Effects: policy.Effects{Prepend: []policy.Field{f}}}}, nil
}

// isFieldName reports whether s is a header field's name (RFC 5322 §2.2).
func isFieldName(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || c == ':' {
			return false
		}
	}
	return s != "" && len(s) <= 76
}

// addressed reads the address of REDIRECT and BCC.
func addressed(word, address string) (reply, error) {
	p, err := mail.ParsePath(strings.TrimSuffix(strings.TrimPrefix(address, "<"), ">"), true)
	if err == nil && p.Domain() == "" {
		err = fmt.Errorf("%.64q has no domain", address)
	}
	if err != nil {
		return reply{}, fmt.Errorf("%s: %w", word, err)
	}
	e := policy.Effects{BCC: []mail.Path{p}}
	if word == "REDIRECT" {
		e = policy.Effects{Redirect: []mail.Path{p}}
	}
	return reply{verdict: policy.Verdict{Effects: e}}, nil
}
