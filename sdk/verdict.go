package sdk

import (
	"time"

	"github.com/wafermail/wafer/sdk/abi"
)

// Action is what a plugin decided.
type Action uint8

// The actions.
const (
	ActionNext          Action = abi.ActionNext
	ActionAccept        Action = abi.ActionAccept
	ActionReject        Action = abi.ActionReject
	ActionDefer         Action = abi.ActionDefer
	ActionDisconnect    Action = abi.ActionDisconnect
	ActionDiscard       Action = abi.ActionDiscard
	ActionHold          Action = abi.ActionHold
	ActionQuarantine    Action = abi.ActionQuarantine
	ActionDeferIfPermit Action = abi.ActionDeferIfPermit
	ActionDeferIfReject Action = abi.ActionDeferIfReject
)

// Verdict is a plugin's answer: an action with its reply, and effects. The
// functions of this package build one; the fields are for tests.
type Verdict struct {
	Action   Action
	Code     int    // 0: the action's default
	Enhanced string // "5.7.1"
	Text     string
	Reason   string
	Score    float64
	Mods     []Mod
	Failed   string // why there is no verdict: see Fail
}

// Mod is one effect: an operation of package abi with its arguments.
type Mod struct {
	Op          int
	Name, Value string
	Number      int64
}

// Next has no opinion.
func Next() Verdict { return Verdict{} }

// Accept ends this stage's list of checks.
func Accept() Verdict { return Verdict{Action: ActionAccept} }

// Reject refuses for good. Code is 5xx, enhanced is "5.x.x"; characters that
// may not stand in a reply become "?".
func Reject(code int, enhanced, text string) Verdict {
	return reply(ActionReject, code, enhanced, text)
}

// Defer refuses for now. Code is 4xx, enhanced is "4.x.x".
func Defer(code int, enhanced, text string) Verdict { return reply(ActionDefer, code, enhanced, text) }

// Disconnect replies, usually 421, and hangs up.
func Disconnect(code int, enhanced, text string) Verdict {
	return reply(ActionDisconnect, code, enhanced, text)
}

// DeferIfPermit refuses with 4xx if no other check refuses.
func DeferIfPermit(code int, enhanced, text string) Verdict {
	return reply(ActionDeferIfPermit, code, enhanced, text)
}

// DeferIfReject turns a later 5xx into this 4xx.
func DeferIfReject(code int, enhanced, text string) Verdict {
	return reply(ActionDeferIfReject, code, enhanced, text)
}

// Discard pretends to accept and drops the message.
func Discard() Verdict { return Verdict{Action: ActionDiscard} }

// Hold keeps the message in the queue until it is released.
func Hold() Verdict { return Verdict{Action: ActionHold} }

// Quarantine delivers to the Junk folder.
func Quarantine() Verdict { return Verdict{Action: ActionQuarantine} }

func reply(a Action, code int, enhanced, text string) Verdict {
	return Verdict{Action: a, Code: code, Enhanced: enhanced, Text: printable(text, '?', abi.MaxText)}
}

// Fail is no verdict: the plugin could not decide, for the reason that is
// logged, and the check's on_error does.
func Fail(reason string) Verdict { return Verdict{Failed: reason} }

// Because names the reason for metrics and logs: lower-case words joined by "-".
func (v Verdict) Because(reason string) Verdict { v.Reason = reason; return v }

// AddHeader puts a field on top of the message. Line ends in value become spaces.
func (v Verdict) AddHeader(name, value string) Verdict {
	return v.with(Mod{Op: abi.OpPrepend, Name: name, Value: oneLine(value, abi.MaxValue)})
}

// Tag adds a word for later checks and the log.
func (v Verdict) Tag(word string) Verdict {
	return v.with(Mod{Op: abi.OpTag, Value: printable(word, '?', abi.MaxTag)})
}

// AddScore adds to the message's score.
func (v Verdict) AddScore(score float64) Verdict { v.Score += score; return v }

// Redirect sends the message to address instead of its recipients.
func (v Verdict) Redirect(address string) Verdict {
	return v.with(Mod{Op: abi.OpRedirect, Value: address})
}

// BCC sends a copy to address.
func (v Verdict) BCC(address string) Verdict { return v.with(Mod{Op: abi.OpBCC, Value: address}) }

// SendBy chooses the way of a recipient at Route: a transport of the configuration,
// and its next hop, "" for the transport's own.
func (v Verdict) SendBy(transport, hop string) Verdict {
	return v.with(Mod{Op: abi.OpRoute, Name: transport, Value: hop})
}

// Delay keeps a message back until it is d old, at most five days; at Queued and
// Route.
func (v Verdict) Delay(d time.Duration) Verdict {
	return v.with(Mod{Op: abi.OpDelay, Number: min(max(d.Milliseconds(), 0), abi.MaxDelay)})
}

// Limit bounds the deliveries at once to the recipient's destination, at Route.
func (v Verdict) Limit(n int) Verdict {
	return v.with(Mod{Op: abi.OpLimit, Number: int64(min(max(n, 1), abi.MaxLimit))})
}

// Tarpit delays the reply, at most a minute.
func (v Verdict) Tarpit(d time.Duration) Verdict {
	return v.with(Mod{Op: abi.OpTarpit, Number: min(max(d.Milliseconds(), 0), abi.MaxTarpit)})
}

func (v Verdict) with(m Mod) Verdict {
	v.Mods = append(v.Mods[:len(v.Mods):len(v.Mods)], m)
	return v
}

// printable replaces what is not printable ASCII and cuts s to limit octets.
func printable(s string, by byte, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] < ' ' || b[i] > '~' {
					b[i] = by
				}
			}
			return string(b)
		}
	}
	return s
}

// oneLine makes control characters spaces, octets that are no UTF-8 "?", and
// cuts s to limit octets.
func oneLine(s string, limit int) string {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] >= ' ' && s[i] <= '~'
	}
	if plain {
		return s[:min(len(s), limit)]
	}
	var b []byte
	for _, r := range s {
		switch {
		case r < ' ' || r == 0x7f:
			r = ' '
		case r == 0xfffd || r >= 0x80 && r < 0xa0:
			r = '?'
		}
		n := len(b)
		if b = append(b, string(r)...); len(b) > limit {
			return string(b[:n])
		}
	}
	return string(b)
}

// empty reports whether v says nothing at all.
func (v *Verdict) empty() bool {
	return v.Action == ActionNext && v.Score == 0 && len(v.Mods) == 0 && v.Reason == ""
}

// append appends v as a Verdict message.
func (v *Verdict) append(b []byte) []byte {
	b = appendUint(b, abi.VerdictAction, uint64(v.Action))
	b = appendUint(b, abi.VerdictCode, uint64(v.Code))
	b = appendString(b, abi.VerdictEnhanced, v.Enhanced)
	b = appendString(b, abi.VerdictText, v.Text)
	b = appendString(b, abi.VerdictReason, v.Reason)
	for _, m := range v.Mods {
		var mb []byte
		mb = appendUint(mb, abi.ModOp, uint64(m.Op))
		mb = appendString(mb, abi.ModName, m.Name)
		mb = appendString(mb, abi.ModValue, m.Value)
		mb = appendUint(mb, abi.ModNumber, uint64(m.Number))
		b = appendBytes(b, abi.VerdictMod, mb)
	}
	return appendDouble(b, abi.VerdictScore, v.Score)
}
