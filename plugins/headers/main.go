// Command headers is a policy plugin that judges a message by its header fields
// and by the names of its attachments: README.md beside it is its manual. It
// does what Postfix's header_checks and mime_header_checks do, on text that is
// decoded.
//
// # BUGS
//
// See README.md.
package main

import (
	"strconv"
	"strings"

	"github.com/wafermail/wafer/sdk"
)

var plugin = sdk.Plugin{
	ID:      "org.wafermail.headers",
	Version: "1.0.0",
	Help:    "judges a message by its header fields and by the names of its attachments",
	Stages:  []sdk.Stage{sdk.Message},
	Grants:  []sdk.Grant{{Name: sdk.GrantMessage, Help: "to read header and body"}},
	Fields: []sdk.Field{
		{Name: "rules", Type: sdk.List, Help: `"ACTION FIELD ~ REGEXP => TEXT" each, in the order in which they are tried`},
		{Name: "attachments", Type: sdk.List, Help: `extensions of file names that are not let through: "exe"`},
		{Name: "attachment_action", Type: sdk.String, Default: []string{actReject}, Choices: []string{actReject, actDefer, actDiscard, actHold, actQuarantine, actTag}, Help: "what to do with them; tag: headers-attachment"},
		{Name: "attachment_text", Type: sdk.String, Default: []string{"message content rejected: attachment %n"}, Help: "what to reply; %n is the file name; may begin with codes"},
		{Name: "require", Type: sdk.List, Help: "header fields that must be there"},
		{Name: "single", Type: sdk.List, Help: "header fields that must not be there twice"},
		{Name: "field_action", Type: sdk.String, Default: []string{actReject}, Choices: []string{actReject, actDefer, actDiscard, actHold, actQuarantine, actTag}, Help: "what to do with a message that require or single finds fault with; tag: headers-missing, headers-duplicate"},
		{Name: "max_body", Type: sdk.Size, Default: []string{"16MiB"}, Help: "how much of the body is searched for attachments, at most 16MiB"},
		{Name: "unread_action", Type: sdk.String, Default: []string{actTag}, Choices: []string{actReject, actDefer, actDiscard, actHold, actQuarantine, actTag}, Help: "what to do with a message that has more than is looked at; tag: headers-unread"},
	},
	Configure: configure,
}

var _ = sdk.Serve(&plugin)

func main() {}

// checks is one configuration.
type checks struct {
	rules                                   []rule
	extensions                              extensions
	attachmentAction, fieldAction           string
	attachmentReply, missing, twice, unread reply
	require, single                         []string
	unreadAction                            string
	maxBody                                 int64
	needsParts                              bool
	names                                   map[string]bool // fields that rules name
}

func configure(c *sdk.Config) (sdk.Judge, error) {
	k := &checks{
		attachmentAction: c.String("attachment_action"), fieldAction: c.String("field_action"),
		require: c.Strings("require"), single: c.Strings("single"),
		unreadAction: c.String("unread_action"), maxBody: c.Size("max_body"),
		names: map[string]bool{},
	}
	if len(c.Strings("rules")) > maxRules {
		return nil, c.Errorf("rules", "has more than", strconv.Itoa(maxRules)+": make two checks")
	}
	for i, text := range c.Strings("rules") {
		r, wrong := parseRule(text)
		if wrong != "" {
			return nil, c.Errorf("rules", "rule", strconv.Itoa(i+1), strconv.Quote(text)+":", wrong)
		}
		for _, f := range r.fields {
			k.names[f] = true
			k.needsParts = k.needsParts || f == fieldFile || strings.HasPrefix(f, partPrefix)
		}
		k.rules = append(k.rules, r)
	}
	var bad string
	if k.extensions, bad = parseExtensions(c.Strings("attachments")); bad != "" {
		return nil, c.Errorf("attachments", strconv.Quote(bad), "is no extension: write", `"exe"`)
	}
	k.needsParts = k.needsParts || len(k.extensions) > 0
	for _, field := range []string{"require", "single"} {
		for _, name := range c.Strings(field) {
			if !isFieldName(name) {
				return nil, c.Errorf(field, strconv.Quote(name), "is no name of a header field")
			}
		}
	}
	if k.maxBody < 1 || k.maxBody > 16<<20 {
		return nil, c.Errorf("max_body", "must be between 1 and 16MiB")
	}
	var wrong string
	if k.attachmentReply, wrong = parseReply(k.attachmentAction, c.String("attachment_text")); wrong != "" {
		return nil, c.Errorf("attachment_text", wrong)
	}
	// 5.6.0: other or undefined media error (RFC 3463 §3.7)
	class := "550 5.6.0 "
	if k.fieldAction == actDefer {
		class = "450 4.6.0 "
	}
	k.missing, _ = parseReply(k.fieldAction, class+"message has no header field ")
	k.twice, _ = parseReply(k.fieldAction, class+"message has more than one header field ")
	k.unread, _ = parseReply(k.unreadAction, "message is too complex")
	return k.judge, nil
}
