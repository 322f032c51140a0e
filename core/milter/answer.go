package milter

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// answer is what the milter says to a command.
type answer struct {
	kind   byte // ansContinue, ansAccept, ansDiscard, ansSkip; ansReject for every refusal
	action policy.Action
	status mail.Status // of a refusal
	reason string
	whole  bool // a refusal of the connection, whatever it answers
}

func (a answer) goesOn() bool  { return a.kind == ansContinue }
func (a answer) refuses() bool { return a.kind == ansReject }

// parseAnswer reads an answer that ends the exchange. What milters leave to the
// MTA is said as Postfix says it.
func parseAnswer(code byte, data []byte) (answer, error) {
	switch code {
	case ansContinue, ansSkip:
		return answer{kind: code}, nil
	case ansAccept:
		return answer{kind: code}, nil
	case ansDiscard:
		return answer{kind: code, action: policy.Discard, reason: "milter-discard"}, nil
	case ansReject:
		return refusal(policy.Reject, "milter-reject", mail.Status{Code: 550, Enhanced: "5.7.1", Text: "Command rejected"}), nil
	case ansTempFail:
		return refusal(policy.Defer, "milter-tempfail", mail.Status{Code: 451, Enhanced: "4.7.1", Text: "Service unavailable - try again later"}), nil
	case ansShutdown, ansConnFail:
		return refusal(policy.Disconnect, "milter-shutdown", mail.Status{Code: 421, Enhanced: "4.7.0", Text: "Server closing connection"}), nil
	case ansReply:
		return parseReply(data)
	}
	return answer{}, fmt.Errorf("answer %q: %w", code, errGarbage)
}

func refusal(a policy.Action, reason string, st mail.Status) answer {
	return answer{kind: ansReject, action: a, reason: reason, status: st, whole: a == policy.Disconnect}
}

// Bounds of a reply of the milter's own.
const (
	maxReply      = 8 << 10 // octets that are looked at
	maxReplyLines = 32
	maxReplyText  = 2 << 10 // octets of the text
)

// parseReply reads a reply as SMTP has it: a code, perhaps an enhanced code, text,
// and perhaps more lines of the kind. "%" is doubled in it.
func parseReply(data []byte) (answer, error) {
	data, _, _ = bytes.Cut(data[:min(len(data), maxReply)], []byte{0})
	if len(data) < 3 || data[0] != '4' && data[0] != '5' || !digits(data[:3]) || len(data) > 3 && data[3] != ' ' && data[3] != '-' {
		return answer{}, fmt.Errorf("reply %.64q: %w", data, errGarbage)
	}
	code := int(data[0]-'0')*100 + int(data[1]-'0')*10 + int(data[2]-'0')
	st := mail.Status{Code: code}
	prefix := string(data[:3])
	var text []string
	for i, line := range strings.FieldsFunc(string(data), func(r rune) bool { return r == '\r' || r == '\n' }) {
		if i == maxReplyLines {
			break
		}
		if rest, ok := strings.CutPrefix(line, prefix); ok && (rest == "" || rest[0] == ' ' || rest[0] == '-') {
			line = rest[min(len(rest), 1):]
		}
		word, rest, _ := strings.Cut(strings.TrimLeft(line, " "), " ")
		if isEnhanced(word) {
			if st.Enhanced == "" {
				st.Enhanced = prefix[:1] + word[1:]
			}
			line = rest
		}
		if line = clean(strings.ReplaceAll(line, "%%", "%")); line != "" {
			text = append(text, line)
		}
	}
	st.Text = strings.Join(text, "\n")
	st.Text = strings.TrimSpace(st.Text[:min(len(st.Text), maxReplyText)])
	if st.Enhanced == "" {
		st.Enhanced = prefix[:1] + ".7.1"
	}
	switch {
	case code == 421 || code == 521:
		return refusal(policy.Disconnect, "milter-reply", st), nil
	case code < 500:
		return refusal(policy.Defer, "milter-reply", st), nil
	}
	return refusal(policy.Reject, "milter-reply", st), nil
}

func digits(b []byte) bool { return len(bytes.Trim(b, "0123456789")) == 0 }

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

// clean is s with spaces for control characters, and none around it.
func clean(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s))
}
