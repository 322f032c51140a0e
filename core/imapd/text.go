package imapd

import "strings"

// The texts of replies that several places use (RFC 9051 §7.1): plain English
// without internals.
const (
	textBye           = "Good bye"
	textShutdown      = "Server is shutting down; come back in a moment"
	textIdle          = "Nothing heard for too long"
	textInternal      = "Internal error; come back in a moment"
	textGiveUp        = "Too much data that is no command"
	textLineTooLong   = "Command line is too long"
	textBadTag        = "Expected a tag, a space and a command"
	textNoCommand     = "Expected a command after the tag"
	textTooManyErrors = "Too many commands that are not understood"
	textTooManyClient = "Too many connections from your address"
	textTooManyUser   = "Too many connections of this user"
	textNoSuchMailbox = "No such mailbox"
	textReadOnly      = "Mailbox is open for reading only"
	textUnavailable   = "Temporary failure; try again later"
	textDeleted       = "The selected mailbox has been deleted"
	textExpunged      = "Some messages have been expunged"
)

// oneLine makes the text of a policy's status fit into a reply.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return ' '
		}
		return r
	}, s)
	s = strings.TrimLeft(s, " [") // a bracket would be taken for a response code
	if s == "" {
		return "Refused by policy"
	}
	return s
}
