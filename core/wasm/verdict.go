package wasm

import (
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

// codes are the replies that an action may name, from and to; 0: it has none.
// What is legal at which stage package policy says.
var codes = [abi.LastAction + 1][2]int{
	policy.Reject:        {500, 599},
	policy.Defer:         {400, 499},
	policy.Disconnect:    {400, 599},
	policy.DeferIfPermit: {400, 499},
	policy.DeferIfReject: {400, 499},
}

// decodeVerdict reads a Verdict that a guest gave at stage. Nothing in it is
// believed: an error says what is wrong in words fit for a log. The result
// shares no memory with b.
func decodeVerdict(b []byte, stage policy.Stage) (policy.Verdict, error) {
	var v policy.Verdict
	var code, mods uint64
	var action uint64
	var all string // b, copied once for the texts that are kept
	r := wireReader{b: b}
	kept := func(p []byte) string {
		if all == "" {
			all = string(b)
		}
		end := len(b) - len(r.b)
		return all[end-len(p) : end]
	}
	for {
		field, wire, n, p, ok := r.next()
		if !ok {
			break
		}
		switch {
		case field == abi.VerdictAction && wire == wireVarint:
			action = n
		case field == abi.VerdictCode && wire == wireVarint:
			code = n
		case field == abi.VerdictEnhanced && wire == wireBytes:
			if !validEnhanced(p) {
				return v, fmt.Errorf("enhanced code %.20q", p)
			}
			v.Status.Enhanced = kept(p)
		case field == abi.VerdictText && wire == wireBytes:
			if len(p) > abi.MaxText || !printableASCII(p) {
				return v, fmt.Errorf("text of %d octets with a character that may not stand in a reply, or too long: %.60q", len(p), p)
			}
			v.Status.Text = kept(p)
		case field == abi.VerdictReason && wire == wireBytes:
			if len(p) > abi.MaxReason || !isLabel(p) {
				return v, fmt.Errorf("reason %.60q, want lower-case words joined by \"-\"", p)
			}
			v.Reason = kept(p)
		case field == abi.VerdictScore && wire == wireFixed64:
			if v.Effects.Score = math.Float64frombits(n); math.IsNaN(v.Effects.Score) || math.Abs(v.Effects.Score) > 1e6 {
				return v, fmt.Errorf("score %v", v.Effects.Score)
			}
		case field == abi.VerdictMod && wire == wireBytes:
			if mods++; mods > abi.MaxMods {
				return v, fmt.Errorf("more than %d modifications", abi.MaxMods)
			}
			if err := decodeMod(p, stage, &v.Effects); err != nil {
				return v, err
			}
		case field <= abi.VerdictScore:
			return v, fmt.Errorf("field %d with wire type %d", field, wire)
		}
	}
	if r.bad {
		return v, fmt.Errorf("malformed message of %d octets", len(b))
	}
	if action > abi.LastAction {
		return v, fmt.Errorf("unknown action %d", action)
	}
	v.Action = policy.Action(action)
	if !policy.Legal(stage, v.Action) {
		return v, fmt.Errorf("action %s is not legal at stage %s", v.Action, stage)
	}
	from, to := codes[action][0], codes[action][1]
	if code != 0 && (code < uint64(from) || code > uint64(to)) {
		return v, fmt.Errorf("code %d does not fit action %s", code, v.Action)
	}
	v.Status.Code = int(code)
	if to == 0 && v.Status != (mail.Status{}) {
		return v, fmt.Errorf("action %s has no reply, yet the verdict names one", v.Action)
	}
	return v, nil
}

func decodeMod(b []byte, stage policy.Stage, e *policy.Effects) error {
	var op, number uint64
	var name, value []byte
	r := wireReader{b: b}
	for {
		field, wire, n, p, ok := r.next()
		if !ok {
			break
		}
		switch {
		case field == abi.ModOp && wire == wireVarint:
			op = n
		case field == abi.ModName && wire == wireBytes:
			name = p
		case field == abi.ModValue && wire == wireBytes:
			value = p
		case field == abi.ModNumber && wire == wireVarint:
			number = n
		case field <= abi.ModNumber:
			return fmt.Errorf("modification: field %d with wire type %d", field, wire)
		}
	}
	switch {
	case r.bad:
		return fmt.Errorf("malformed modification of %d octets", len(b))
	case op == 0 || op > abi.LastOp:
		return fmt.Errorf("unknown modification %d", op)
	case !policy.LegalEffect(stage, policy.Effect(op)):
		return fmt.Errorf("effect %s is not legal at stage %s", policy.Effect(op), stage)
	}
	switch op {
	case abi.OpPrepend:
		return prepend(name, value, e)
	case abi.OpTag:
		if len(value) == 0 || len(value) > abi.MaxTag || !printableASCII(value) {
			return fmt.Errorf("tag %.80q", value)
		}
		e.Tags = append(e.Tags, string(value))
	case abi.OpRedirect, abi.OpBCC:
		p, err := mail.ParsePath(string(value), true)
		if err != nil || p.Domain() == "" {
			return fmt.Errorf("modification %d: %.80q is no address", op, value)
		}
		if op == abi.OpBCC {
			e.BCC = append(e.BCC, p)
		} else {
			e.Redirect = append(e.Redirect, p)
		}
	case abi.OpTarpit:
		if number > abi.MaxTarpit {
			return fmt.Errorf("tarpit of %d ms", number)
		}
		e.Tarpit += time.Duration(number) * time.Millisecond
	case abi.OpRoute:
		if len(name) == 0 || len(name) > abi.MaxName || !printableASCII(name) || len(value) > abi.MaxHop || !printableASCII(value) {
			return fmt.Errorf("route by %.80q to %.80q", name, value)
		}
		e.Transport, e.Hop = string(name), string(value)
	case abi.OpDelay:
		if number > abi.MaxDelay {
			return fmt.Errorf("delay of %d ms", number)
		}
		e.Delay = time.Duration(number) * time.Millisecond
	case abi.OpLimit:
		if number == 0 || number > abi.MaxLimit {
			return fmt.Errorf("limit of %d deliveries", number)
		}
		e.Limit = int(number)
	}
	return nil
}

// prepend adds a header field (RFC 5322 §2.2) whose body has no line end.
func prepend(name, value []byte, e *policy.Effects) error {
	if len(name) == 0 || len(name) > abi.MaxName {
		return fmt.Errorf("header field with a name of %d octets", len(name))
	}
	for _, c := range name {
		if c <= ' ' || c > '~' || c == ':' {
			return fmt.Errorf("header field name %q", name)
		}
	}
	if len(value) > abi.MaxValue || !utf8.Valid(value) {
		return fmt.Errorf("header field %s: body of %d octets, too long or no UTF-8", name, len(value))
	}
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Errorf("header field %s: control character %#x in its body", name, c)
		}
	}
	e.Prepend = append(e.Prepend, policy.Field{Name: string(name), Value: string(value)})
	return nil
}

// validEnhanced reports whether p is an enhanced status code of a refusal
// (RFC 3463 §2).
func validEnhanced(p []byte) bool {
	if len(p) < 5 || p[0] != '4' && p[0] != '5' || p[1] != '.' {
		return false
	}
	digits, dots := 0, 0
	for _, c := range p[2:] {
		switch {
		case c >= '0' && c <= '9' && digits < 3:
			digits++
		case c == '.' && digits > 0 && dots == 0:
			digits, dots = 0, 1
		default:
			return false
		}
	}
	return dots == 1 && digits > 0
}

func printableASCII(p []byte) bool {
	for _, c := range p {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// isLabel reports whether p is lower-case words joined by "-".
func isLabel(p []byte) bool {
	for i, c := range p {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '-' && i > 0 && i < len(p)-1 && p[i-1] != '-':
		default:
			return false
		}
	}
	return true
}
