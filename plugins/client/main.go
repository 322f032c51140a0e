// Command client is a policy plugin that judges a client by its host name:
// README.md beside it is its manual. Codes and texts are those of Postfix's
// smtpd_client_restrictions.
//
// # BUGS
//
// See README.md.
package main

import "github.com/wafermail/wafer/sdk"

var plugin = sdk.Plugin{
	ID:      "org.wafermail.client",
	Version: "1.0.0",
	Help:    "refuses clients whose address has no host name, or talks before its turn",
	Stages:  []sdk.Stage{sdk.Connect, sdk.Helo, sdk.Mail, sdk.Rcpt, sdk.Data},
	Fields: []sdk.Field{
		{
			Name: "reject", Type: sdk.List, Default: []string{unknownReverse},
			Choices: []string{unknown, unknownReverse, earlyTalker, plaintext},
			Help:    "what to refuse, in the order in which it is looked for",
		},
		{Name: "unknown_code", Type: sdk.Int, Default: []string{"450"}, Help: "reply code of unknown and unknown-reverse (Postfix: unknown_client_reject_code)"},
		{Name: "plaintext_code", Type: sdk.Int, Default: []string{"450"}, Help: "reply code of plaintext (Postfix: plaintext_reject_code)"},
	},
	Configure: configure,
}

var _ = sdk.Serve(&plugin)

func main() {}

// What can be refused.
const (
	unknown        = "unknown"
	unknownReverse = "unknown-reverse"
	earlyTalker    = "early-talker"
	plaintext      = "plaintext"
)

func configure(c *sdk.Config) (sdk.Judge, error) {
	reject := c.Strings("reject")
	codes := [2]int{int(c.Int("unknown_code")), int(c.Int("plaintext_code"))}
	for i, field := range []string{"unknown_code", "plaintext_code"} {
		if codes[i] < 400 || codes[i] > 599 {
			return nil, c.Errorf(field, "write a reply code from 400 to 599")
		}
	}
	return func(e *sdk.Event) sdk.Verdict {
		for _, what := range reject {
			if v := look(e, what, codes[0], codes[1]); v.Action != sdk.ActionNext {
				return v
			}
		}
		return sdk.Next()
	}, nil
}

// look looks for one fault in a client.
func look(e *sdk.Event, what string, unknownCode, plaintextCode int) sdk.Verdict {
	switch what {
	case unknown: // the name of the address does not lead back to it
		if e.ClientName() == "" {
			return reply(unknownCode, "7.25", "Client host rejected: cannot find your hostname, ["+e.Client()+"]").Because("client-unknown")
		}
	case unknownReverse:
		if e.Fact(sdk.FactReverseName) == "" {
			return reply(unknownCode, "7.1", "Client host rejected: cannot find your reverse hostname, ["+e.Client()+"]").Because("client-unknown-reverse")
		}
	case earlyTalker:
		if e.EarlyTalker() {
			return sdk.Reject(503, "5.5.0", "Client host rejected: Improper use of SMTP command pipelining").Because("client-early-talker")
		}
	case plaintext:
		if !e.TLS() {
			return reply(plaintextCode, "7.1", "Session encryption is required").Because("client-plaintext")
		}
	}
	return sdk.Next()
}

// reply refuses for good or for now, by its code; detail is what follows the
// class in the enhanced code.
func reply(code int, detail, text string) sdk.Verdict {
	if code < 500 {
		return sdk.Defer(code, "4."+detail, text)
	}
	return sdk.Reject(code, "5."+detail, text)
}
