package smtpd

import (
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// All replies that this package words itself are in this file: basic code
// (RFC 5321 §4.2), enhanced code (RFC 3463, RFC 5248), text. EHLO, the greeting
// and 334/354 carry no enhanced code (RFC 2034 §3, RFC 4954 §4).
const (
	replyOK     = "250 2.0.0 Ok"
	replyMailOK = "250 2.1.0 Sender ok"
	replyRcptOK = "250 2.1.5 Recipient ok"
	replyBye    = "221 2.0.0 Bye"
	replyVrfy   = "252 2.1.5 Cannot say; send mail and see" // RFC 5321 §3.5.3
	replyHelp   = "214 2.0.0 See RFC 5321"
	replyGo     = "354 Send the message, then CR LF . CR LF"
	replyTLS    = "220 2.0.0 Go ahead with TLS"
	replyAuthed = "235 2.7.0 Authenticated"

	// 421 always comes with the end of the connection (RFC 5321 §3.8).
	replyShutdown    = "421 4.3.2 Server is going down, try again soon"
	replyIdle        = "421 4.4.2 Nothing heard for too long"
	replyDataSlow    = "421 4.4.2 Message came too slowly"
	replySessionLong = "421 4.4.2 Session took too long"
	replyErrors      = "421 4.7.0 Too many errors"
	replyBusy        = "421 4.3.2 Too many connections, try again later"
	replyClientBusy  = "421 4.7.0 Too many connections from your address"
	replyPanic       = "421 4.3.0 Internal error, try again later"
	replyMessages    = "421 4.5.3 Too many messages in one session"
	replyAuthFails   = "421 4.7.0 Too many failed authentications"
	replyNotSMTP     = "221 2.7.0 Error: this is a mail server, and that is not its protocol. Goodbye." // Postfix: smtpd_forbidden_commands
	replyTLSFirst    = "421 4.7.0 TLS before its turn: begin with EHLO and STARTTLS"

	replyUnknown    = "500 5.5.2 Unknown command"
	replyTooLong    = "500 5.5.6 Line is too long"
	replyBareLF     = "500 5.5.2 Lines must end in CR LF"
	replyControl    = "500 5.5.2 Command has control characters"
	replyBadUTF8    = "500 5.5.2 Error: bad UTF-8 syntax"
	replyNotASCII   = "501 5.5.2 Command has characters outside ASCII"
	replyNoArgument = "501 5.5.4 Command takes no argument"
	replyHeloName   = "501 Say your name after the command" // RFC 2034 §4: no enhanced code here
	replyVrfyName   = "501 5.5.4 Say an address after the command"
	replySayLHLO    = "500 5.5.1 This door speaks LMTP: say LHLO"
	replyNoExpn     = "502 5.5.1 Not offered here"
	replyNoTLS      = "502 5.5.1 TLS is not offered here"
	replyNoChunking = "502 5.5.1 CHUNKING is not offered"
	replyNeedHelo   = "503 5.5.1 Say EHLO first"
	replyNested     = "503 5.5.1 A transaction is open already"
	replyNeedMail   = "503 5.5.1 Say MAIL first"
	replyNeedRcpt   = "503 5.5.1 Say RCPT first"
	replyNoRcpt     = "554 5.5.1 No valid recipients"
	replyUseBdat    = "503 5.5.1 BODY=BINARYMIME goes with BDAT" // RFC 3030 §3
	replyAfterBdat  = "503 5.5.1 Not after BDAT"
	replyTLSTwice   = "503 5.5.1 TLS is on already"
	replyTLSSync    = "554 5.5.0 Nothing may follow STARTTLS before the handshake"
	replyBdatSyntax = "521 5.5.4 Syntax: BDAT octets [LAST]"

	replyRcptLimit = "452 4.5.3 Too many recipients"              // RFC 5321 §4.5.3.1.10
	replyTooBig    = "552 5.3.4 Message size exceeds fixed limit" // RFC 1870 §6.1
	replyHeaderBig = "552 5.3.4 Header is too big"
	replyLineLong  = "554 5.6.0 Message has a line that is too long"
	replyHops      = "554 5.4.6 Too many hops: mail loop"
	replyBare      = "550 5.5.2 Message has a bare CR or LF: lines must end in CR LF"
	replyNoStore   = "451 4.3.0 Cannot take the message now, try again later"
	replyFull      = "452 4.3.1 Insufficient system storage" // RFC 5321 §4.2.3

	replyAuthOff     = "503 5.5.1 Authentication is not offered here"
	replyAuthTwice   = "503 5.5.1 Authenticated already"
	replyAuthTx      = "503 5.5.1 Not inside a transaction"
	replyAuthLast    = "503 5.5.1 No command may follow AUTH before its reply"
	replyAuthTLS     = "538 5.7.11 Encryption required: say STARTTLS first" // RFC 4954 §4
	replyAuthSyntax  = "501 5.5.4 Syntax: AUTH mechanism [initial-response]"
	replyAuthBase64  = "501 5.5.2 Not base64"
	replyAuthCancel  = "501 5.7.0 Authentication cancelled"
	replyAuthMech    = "504 5.5.4 Unknown mechanism"
	replyAuthFailed  = "535 5.7.8 User or password is wrong"
	replyAuthTemp    = "454 4.7.0 Cannot check the password now, try again later"
	replyAuthSlow    = "454 4.7.0 Too many failed attempts, try again later"
	replyNeedAuth    = "530 5.7.0 Authentication required"
	replyNeedTLS     = "530 5.7.0 Say STARTTLS first" // RFC 3207 §4
	replyXClientNo   = "550 5.7.0 XCLIENT is not for you"
	replyXClientBad  = "501 5.5.4 Bad XCLIENT attribute"
	replyXClientTurn = "503 5.5.1 XCLIENT inside a transaction"
)

// The statuses of commands whose arguments do not parse.

func statusSyntax(text string) mail.Status {
	return mail.Status{Code: 501, Enhanced: "5.5.4", Text: text}
}

func statusOption(keyword string) mail.Status { // RFC 5321 §4.1.1.11
	return mail.Status{Code: 555, Enhanced: "5.5.4", Text: "Unsupported option: " + keyword}
}

// Addresses that cannot be read, in Postfix's words.
var (
	statusSender    = mail.Status{Code: 501, Enhanced: "5.1.7", Text: "Bad sender address syntax"}
	statusRecipient = mail.Status{Code: 501, Enhanced: "5.1.3", Text: "Bad recipient address syntax"}
)

// statusNotOwned refuses an address that is not the user's; for the reverse-path
// in Postfix's words.
func statusNotOwned(code int, what, address, user string) mail.Status {
	return mail.Status{Code: code, Enhanced: "5.7.1", Text: "<" + address + ">: " + what + " address rejected: not owned by user " + user}
}

func statusAuthors(field string) mail.Status {
	return mail.Status{Code: 550, Enhanced: "5.7.1", Text: field + " field has no address or too many"}
}

var statusTwoAuthors = mail.Status{Code: 550, Enhanced: "5.6.0", Text: "Message has more than one From field"}

func statusTooBig() mail.Status {
	return mail.Status{Code: 552, Enhanced: "5.3.4", Text: "Message size exceeds fixed limit"}
}

func statusAccepted(id mail.ID) mail.Status {
	return mail.Status{Code: 250, Enhanced: "2.0.0", Text: "Message accepted as " + string(id)}
}

func statusChunk(n int64) mail.Status {
	return mail.Status{Code: 250, Enhanced: "2.0.0", Text: strconv.FormatInt(n, 10) + " octets received"}
}

// status parses one of the constants above.
func status(reply string) mail.Status {
	code, _ := strconv.Atoi(reply[:3])
	enhanced, text, _ := strings.Cut(reply[4:], " ")
	return mail.Status{Code: code, Enhanced: enhanced, Text: text}
}

const maxReply = 510 // octets of a reply line without CR LF (RFC 5321 §4.5.3.1.5)

// appendReply appends st as reply lines, each with the enhanced code
// (RFC 2034 §4). Whatever would break the line becomes a space, and octets
// outside ASCII "?" unless utf8 (RFC 6531 §3.7.4.1).
func appendReply(b []byte, st mail.Status, utf8 bool) []byte {
	text := st.Text
	for {
		line, rest, more := strings.Cut(text, "\n")
		start := len(b)
		b = strconv.AppendInt(b, int64(st.Code), 10)
		if more {
			b = append(b, '-')
		} else {
			b = append(b, ' ')
		}
		if st.Enhanced != "" {
			b = append(b, st.Enhanced...)
			b = append(b, ' ')
		}
		for i := 0; i < len(line) && len(b)-start < maxReply; i++ {
			switch c := line[i]; {
			case c < ' ' || c == 0x7f:
				b = append(b, ' ')
			case c >= 0x80 && !utf8:
				b = append(b, '?')
			default:
				b = append(b, c)
			}
		}
		b = append(b, '\r', '\n')
		if !more {
			return b
		}
		text = rest
	}
}
