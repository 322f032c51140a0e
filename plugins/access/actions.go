package main

import (
	"strings"

	"github.com/wafermail/wafer/plugins/internal/address"
	"github.com/wafermail/wafer/sdk"
)

// act is the verdict that an action of access(5) stands for. value is what was
// found, kind what it is: both go into the reply. Without e nothing is logged.
func act(action, kind, value string, e *sdk.Event) sdk.Verdict {
	word, rest, _ := strings.Cut(strings.TrimSpace(action), " ")
	rest = strings.TrimSpace(rest)
	if word != "" && strings.Trim(word, "0123456789") == "" {
		if len(word) == 3 && (word[0] == '4' || word[0] == '5') {
			return refuse(number(word), string(word[0])+".7.1", rest, "Access denied", kind, value)
		}
		return accepted()
	}
	switch word = strings.ToUpper(word); word {
	case "DUNNO":
		return sdk.Next()
	case "OK":
		return accepted()
	case "REJECT":
		return refuse(554, "5.7.1", rest, "Access denied", kind, value)
	case "DEFER":
		return refuse(450, "4.7.1", rest, "Access denied", kind, value)
	case "DEFER_IF_PERMIT", "DEFER_IF_REJECT":
		v := refuse(450, "4.7.1", rest, "Service unavailable", kind, value)
		if v.Action = sdk.ActionDeferIfPermit; word == "DEFER_IF_REJECT" {
			v.Action = sdk.ActionDeferIfReject
		}
		return v
	case "DISCARD":
		return sdk.Discard().Because("access-discard")
	case "HOLD":
		return sdk.Hold().Because("access-hold")
	case "QUARANTINE":
		return sdk.Quarantine().Because("access-quarantine")
	case "PREPEND":
		name, body, ok := strings.Cut(rest, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return sdk.Fail(`PREPEND needs a header field, such as "PREPEND X-List: yes"`)
		}
		return sdk.Next().AddHeader(name, strings.TrimSpace(body))
	case "REDIRECT", "BCC":
		if !strings.Contains(rest, "@") {
			return sdk.Fail(word + ` needs an address, such as "` + word + ` postmaster@example.com"`)
		}
		if word == "BCC" {
			return sdk.Next().BCC(rest)
		}
		return sdk.Next().Redirect(rest)
	case "TAG":
		if rest == "" {
			return sdk.Fail(`TAG needs a word, such as "TAG bulk"`)
		}
		return sdk.Next().Tag(rest)
	case "INFO", "WARN":
		if e != nil {
			level := sdk.Info
			if word == "WARN" {
				level = sdk.Warn
			}
			e.Log(level, kind+" <"+value+">: "+rest)
		}
		return sdk.Next()
	}
	return sdk.Fail("action " + word + " is none of OK, REJECT, DEFER, DEFER_IF_PERMIT, DEFER_IF_REJECT, 4NN, 5NN, DISCARD, HOLD, QUARANTINE, PREPEND, REDIRECT, BCC, TAG, INFO, WARN, DUNNO")
}

func accepted() sdk.Verdict { return sdk.Accept().Because("access-ok") }

// refuse reads "5.1.1 text": an enhanced code may lead the text.
func refuse(code int, enhanced, text, otherwise, kind, value string) sdk.Verdict {
	if first, rest, _ := strings.Cut(text, " "); isEnhanced(first) {
		enhanced, text = first, strings.TrimSpace(rest)
	}
	if text == "" {
		text = otherwise
	}
	return address.Refuse(address.Kind(kind), code, enhanced, value, text).Because("access-denied")
}

// isEnhanced reports whether s is an enhanced status code (RFC 3463 §2).
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

// number is the value of three digits.
func number(s string) int { return int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0') }
