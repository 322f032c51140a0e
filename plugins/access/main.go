// Command access is a policy plugin that looks clients, greetings, senders and
// recipients up in the operator's lists: README.md beside it is its manual. Order
// of keys and actions are those of Postfix's access(5).
//
// # BUGS
//
// See README.md.
package main

import (
	"github.com/wafermail/wafer/sdk"
)

var plugin = sdk.Plugin{
	ID:      "org.wafermail.access",
	Version: "1.0.0",
	Help:    "looks a fact up in lists and does what they say",
	Stages:  []sdk.Stage{sdk.Connect, sdk.Helo, sdk.Mail, sdk.Rcpt, sdk.Data},
	Grants:  []sdk.Grant{{Name: sdk.GrantList, Help: "to look things up in the check's lists"}},
	Fields: []sdk.Field{
		{Name: "lists", Type: sdk.List, Required: true, Help: "names of the lists, in the order in which they are asked; the check must name them too"},
		{
			Name: "key", Type: sdk.List, Required: true, Choices: []string{client, clientName, reverseName, helo, sender, recipient, user},
			Help: "what to look up, in this order",
		},
		{Name: "whole", Type: sdk.Bool, Default: []string{"false"}, Help: "look up the whole key only, no part of it: for lists of the types regexp and cidr"},
		{Name: "separator", Type: sdk.String, Default: []string{"+"}, Help: "what separates a user from the detail behind it, in an address"},
		{Name: "default", Type: sdk.String, Default: []string{"DUNNO"}, Help: "what to do with a key that is found without an action, as in a list of values"},
	},
	Configure: configure,
}

var _ = sdk.Serve(&plugin)

func main() {}

// What can be looked up.
const (
	client      = "client"
	clientName  = "client-name"
	reverseName = "reverse-client-name"
	helo        = "helo"
	sender      = "sender"
	recipient   = "recipient"
	user        = "user"
)

// settings are what one check is configured with.
type settings struct {
	lists, keys []string
	whole       bool
	separator   string
	otherwise   string
}

func configure(c *sdk.Config) (sdk.Judge, error) {
	s := settings{c.Strings("lists"), c.Strings("key"), c.Bool("whole"), c.String("separator"), c.String("default")}
	if len(s.lists) == 0 {
		return nil, c.Errorf("lists", `write the name of a list at least, such as lists = ["blocked"]`)
	}
	if len(s.keys) == 0 {
		return nil, c.Errorf("key", `write what to look up, such as key = ["client"]`)
	}
	if len(s.separator) > 1 {
		return nil, c.Errorf("separator", `write one character, such as "+", or ""`)
	}
	if v := act(s.otherwise, "x", "x", nil); v.Failed != "" {
		return nil, c.Errorf("default", v.Failed)
	}
	return s.judge, nil
}

func (s settings) judge(e *sdk.Event) sdk.Verdict {
	for _, key := range s.keys {
		kind, value, parts := s.parts(e, key)
		if len(parts) == 0 {
			continue
		}
		for _, list := range s.lists {
			action, ok, err := search(e, list, parts)
			if err != nil {
				return sdk.Fail("list " + list + ": " + err.Error())
			}
			if !ok {
				continue
			}
			if action == "" {
				action = s.otherwise
			}
			if v := act(action, string(kind), value, e); v.Action != sdk.ActionNext || v.Failed != "" || len(v.Mods) > 0 {
				if v.Failed != "" {
					v.Failed = "list " + list + ": " + v.Failed
				}
				return v
			}
		}
	}
	return sdk.Next()
}

// search finds the first part that a list has.
func search(e *sdk.Event, list string, parts []string) (action string, ok bool, err error) {
	for _, p := range parts {
		if action, ok, err = e.List(list, p); ok || err != nil {
			return action, ok, err
		}
	}
	return "", false, nil
}
