package pop3d

import (
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// The replies. Codes in brackets are those of RFC 2449 §8 and RFC 3206: [AUTH]
// means that the password is to blame and only it, so that clients ask for
// another one exactly then.
const (
	replyBye         = "+OK Bye"
	replyUser        = "+OK Now the password"
	replyStartTLS    = "+OK Begin TLS"
	replyNothing     = "+OK"
	replyDeleted     = "+OK Marked to be deleted"
	replyReset       = "+OK Nothing is marked to be deleted"
	replyUTF8        = "+OK UTF-8 it is"
	replyUnknown     = "-ERR Unknown command"
	replySyntax      = "-ERR Malformed command"
	replyNow         = "-ERR Not now"
	replyArgument    = "-ERR No argument is allowed here"
	replyNumber      = "-ERR A message number is needed"
	replyTop         = "-ERR A message number and a count of lines are needed"
	replyNoMessage   = "-ERR No such message"
	replyGone        = "-ERR The message is gone"
	replyLong        = "-ERR Line is too long"
	replyErrors      = "-ERR Too many bad commands"
	replyNeedTLS     = "-ERR Say STLS first"
	replyNoTLS       = "-ERR TLS is not available"
	replyTLSTwice    = "-ERR TLS is in use already"
	replyNoUser      = "-ERR Say USER first"
	replyMechanism   = "-ERR Unknown mechanism"
	replyBase64      = "-ERR Response is not base64"
	replyCancelled   = "-ERR Cancelled"
	replyMalformed   = "-ERR Malformed response"
	replyCredentials = "-ERR [AUTH] Unknown user or wrong password"
	replyThrottled   = "-ERR [SYS/TEMP] Too many failed logins, try again later"
	replyAuthTemp    = "-ERR [SYS/TEMP] Logging in is not possible at the moment"
	replyLogins      = "-ERR [AUTH] Too many failed logins"
	replyInUse       = "-ERR [IN-USE] The mailbox is in use by another session"
	replyNoMailbox   = "-ERR [SYS/TEMP] The mailbox is not available at the moment"
	replyRead        = "-ERR [SYS/TEMP] The message cannot be read at the moment"
	replyBusy        = "-ERR [SYS/TEMP] Too many connections from your address"
	replyClosing     = "-ERR [SYS/TEMP] The server is shutting down"
	replyTimeout     = "-ERR Waited too long for a command"
	replyPanic       = "-ERR [SYS/TEMP] Internal error"
	replyNotDeleted  = "-ERR [SYS/TEMP] Some deleted messages are not removed"
)

// refusal is the reply to what a policy refused: one line, with the response
// code that says whether another attempt has a chance (RFC 3206 §4).
func refusal(s mail.Status) string {
	code := "[SYS/PERM]"
	if s.Temporary() {
		code = "[SYS/TEMP]"
	}
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s.Text)
	if len(text) > 480 { // RFC 2449 §4: 512 octets in all
		text = strings.ToValidUTF8(text[:480], "")
	}
	return "-ERR " + code + " " + text
}
