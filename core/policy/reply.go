package policy

import (
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// maxReply is a reply line without its CR LF, in octets (RFC 5321 §4.5.3.1.5).
const maxReply = 510

// What an action says if the plugin leaves it open; codes and texts are
// Postfix's. Disconnect's 421 ends the connection (RFC 5321 §3.8).
func defaultStatus(a Action) mail.Status {
	switch a {
	case Reject:
		return mail.Status{Code: 554, Enhanced: "5.7.1", Text: "Access denied"}
	case Disconnect:
		return mail.Status{Code: 421, Enhanced: "4.7.0", Text: "Service not available, closing transmission channel"}
	}
	return mail.Status{Code: 450, Enhanced: "4.3.2", Text: "Try again later"}
}

// errorStatus is what a check that failed says: the fault is ours, and its
// story is in the log.
func errorStatus(a Action) mail.Status {
	if a == Reject {
		return mail.Status{Code: 550, Enhanced: "5.3.5", Text: "Server configuration problem"}
	}
	return mail.Status{Code: 451, Enhanced: "4.3.5", Text: "Server configuration problem"}
}

// shape completes a refusal: the action's defaults, a code of the action's
// class, the enhanced code's class forced to the code's, the id at the end, no
// more than maxReply octets, nothing unprintable.
func shape(a Action, s mail.Status, id mail.ID) mail.Status {
	fallback := defaultStatus(a)
	s.Code = fitting(a, s.Code, fallback.Code)
	s.Enhanced = enhanced(s.Code, s.Enhanced, fallback.Enhanced)
	if s.Text == "" {
		s.Text = fallback.Text
	}
	tail := " (" + string(id) + ")"
	room := maxReply - len("550 ") - len(s.Enhanced) - 1 - len(tail)
	s.Text = printable(s.Text, room) + tail
	return s
}

// fitting is code if it is of a's class, else fallback.
func fitting(a Action, code, fallback int) int {
	lo, hi := 400, 499
	switch a {
	case Reject:
		lo, hi = 500, 599
	case Disconnect:
		hi = 599
	}
	if code < lo || code > hi {
		return fallback
	}
	return code
}

// enhanced is a syntactically right enhanced code of code's class (RFC 3463 §2).
func enhanced(code int, given, fallback string) string {
	if !validEnhanced(given) {
		given = fallback
	}
	return strconv.Itoa(code/100) + given[1:]
}

func validEnhanced(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || len(parts[0]) != 1 {
		return false
	}
	for _, p := range parts {
		if p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

// soft is a refusal for now with the digits of s, which is for good.
func soft(s mail.Status) mail.Status {
	s.Code -= 100
	s.Enhanced = "4" + s.Enhanced[1:]
	return s
}

// printable replaces what may not stand in a reply by spaces, and cuts it to n
// octets. Line ends stay out of it too: a reply of a policy is one line. So do
// characters outside ASCII: whether the client takes them (RFC 6531 §3.7.4.2)
// is not known here.
func printable(s string, n int) string {
	b := []byte(s[:min(len(s), n)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = ' '
		}
	}
	return strings.TrimSpace(string(b))
}

// RelayDenied is what the server itself says at RCPT to a stranger who wants mail
// taken elsewhere. No policy can switch it off.
func RelayDenied(to mail.Path) mail.Status {
	return mail.Status{Code: 554, Enhanced: "5.7.1", Text: "<" + to.Readable() + ">: Relay access denied"}
}

// UserUnknown is what the server itself says at RCPT of an address in a domain of
// ours that has no mailbox.
func UserUnknown(to mail.Path) mail.Status {
	return mail.Status{Code: 550, Enhanced: "5.1.1", Text: "<" + to.Readable() + ">: Recipient address rejected: User unknown in local recipient table"}
}
