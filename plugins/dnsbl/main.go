// Command dnsbl is a policy plugin that asks DNS lists about a client, a
// greeting, a sender or a recipient and adds up what they say: README.md beside
// it is its manual. Entries are written as in Postfix's postscreen_dnsbl_sites,
// and replies read as those of reject_rbl_client.
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
	ID:      "org.wafermail.dnsbl",
	Version: "1.0.0",
	Help:    "asks DNS lists about a client or a domain, adds up their weights, and refuses from a score on",
	Stages:  []sdk.Stage{sdk.Connect, sdk.Helo, sdk.Mail, sdk.Rcpt},
	Grants:  []sdk.Grant{{Name: sdk.GrantDNS, Help: "to ask the lists"}},
	Fields: []sdk.Field{
		{Name: "lists", Type: sdk.List, Required: true, Help: `lists as "domain=filter*weight"; filter and weight may be left out; a negative weight is one of good clients`},
		{Name: "query", Type: sdk.String, Default: []string{queryClient}, Choices: []string{queryClient, queryClientName, queryReverseName, queryHelo, querySender, queryRecipient}, Help: "what the lists are asked about"},
		{Name: "threshold", Type: sdk.Int, Default: []string{"1"}, Help: "the score from which on action is done"},
		{Name: "allow_threshold", Type: sdk.Int, Default: []string{"0"}, Help: "how far below zero a score ends this stage's checks; 0: never"},
		{Name: "action", Type: sdk.String, Default: []string{actionReject}, Choices: []string{actionReject, actionDefer, actionTag}, Help: "what to do from threshold on"},
		{Name: "code", Type: sdk.Int, Default: []string{"0"}, Help: "reply code; 0: 554 to reject, 450 to defer"},
		{Name: "text", Type: sdk.String, Default: []string{"Service unavailable; %k [%c] blocked using %d; %t"}, Help: "what to reply: %k and %c what was asked about, %d the list, %a its answer, %t its explanation, %s the score; an enhanced code in front replaces 5.7.1"},
		{Name: "on_temp", Type: sdk.String, Default: []string{tempIgnore}, Choices: []string{tempIgnore, tempDefer}, Help: "what to do if a list that would matter does not answer"},
		{Name: "names", Type: sdk.List, Help: `what replies and tags call a list, as "domain=name": for domains with a secret key in them`},
	},
	Configure: configure,
}

var _ = sdk.Serve(&plugin)

func main() {}

// Choices of the config.
const (
	actionReject = "reject"
	actionDefer  = "defer"
	actionTag    = "tag"
	tempIgnore   = "ignore"
	tempDefer    = "defer"
)

// scorer is one configuration.
type scorer struct {
	domains                   []string // each once, in the order of the config
	sites                     [][]site // of each domain
	shown                     []string // what each domain is called
	query, action             string
	threshold, allow          int64
	code                      int
	enhanced, text            string
	wantsReason, deferTrouble bool
}

func configure(c *sdk.Config) (sdk.Judge, error) {
	s := &scorer{
		query: c.String("query"), action: c.String("action"),
		threshold: c.Int("threshold"), allow: c.Int("allow_threshold"),
		code: int(c.Int("code")), deferTrouble: c.String("on_temp") == tempDefer,
	}
	if s.allow > 0 { // postscreen writes it negative; both are meant below zero
		s.allow = -s.allow
	}
	if err := s.setLists(c); err != nil {
		return nil, err
	}
	if err := s.setNames(c); err != nil {
		return nil, err
	}
	return s.judge, s.setReply(c)
}

func (s *scorer) setLists(c *sdk.Config) error {
	entries := c.Strings("lists")
	if len(entries) == 0 || len(entries) > maxSites {
		return c.Errorf("lists", "wants from 1 to", strconv.Itoa(maxSites), "entries")
	}
	index := map[string]int{}
	for _, text := range entries {
		e, wrong := parseSite(text)
		if wrong != "" {
			return c.Errorf("lists", strconv.Quote(text)+":", wrong)
		}
		i, known := index[e.domain]
		if !known {
			i = len(s.domains)
			index[e.domain] = i
			s.domains, s.sites, s.shown = append(s.domains, e.domain), append(s.sites, nil), append(s.shown, e.domain)
		}
		s.sites[i] = append(s.sites[i], e)
	}
	if len(s.domains) > maxDomains {
		return c.Errorf("lists", "has", strconv.Itoa(len(s.domains)), "domains; one check asks at most", strconv.Itoa(maxDomains)+": make two checks")
	}
	if s.threshold < 1 {
		return c.Errorf("threshold", "must be at least 1, or clients without an entry would be refused")
	}
	return nil
}

func (s *scorer) setNames(c *sdk.Config) error {
	for _, text := range c.Strings("names") {
		domain, name, ok := strings.Cut(text, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return c.Errorf("names", strconv.Quote(text), `is not "domain=name"`)
		}
		domain, found := strings.ToLower(strings.TrimSpace(domain)), false
		for i, d := range s.domains {
			if d == domain {
				s.shown[i], found = name, true
			}
		}
		if !found {
			return c.Errorf("names", strconv.Quote(domain), "is none of lists")
		}
	}
	return nil
}

func (s *scorer) setReply(c *sdk.Config) error {
	class := "5"
	if s.action == actionDefer {
		class = "4"
	}
	if s.code == 0 {
		if s.code = 554; class == "4" {
			s.code = 450
		}
	}
	if s.code < 400 || s.code > 599 || strconv.Itoa(s.code)[:1] != class {
		return c.Errorf("code", "wants", class+"00 to", class+"99 with the action", s.action)
	}
	s.enhanced, s.text = enhanced(class, c.String("text"))
	for rest := s.text; ; {
		_, after, ok := strings.Cut(rest, "%")
		if !ok {
			break
		}
		if after == "" || !strings.Contains("kcdats%", after[:1]) {
			return c.Errorf("text", `after "%" comes one of k, c, d, a, t, s and %`)
		}
		s.wantsReason = s.wantsReason || after[0] == 't'
		rest = after[1:]
	}
	return nil
}

// enhanced takes the enhanced code off a text that begins with one.
func enhanced(class, text string) (code, rest string) {
	first, rest, _ := strings.Cut(text, " ")
	if len(first) >= 5 && strings.HasPrefix(first, class+".") && strings.Count(first, ".") == 2 && strings.Trim(first, "0123456789.") == "" && first[2] != '.' && first[len(first)-1] != '.' {
		return first, rest
	}
	return class + ".7.1", text
}
