// Command spf is a policy plugin that checks whether a client may send for the
// domain of HELO and of MAIL FROM: the Sender Policy Framework of RFC 7208.
// README.md beside it is its manual.
//
// A record is parsed in record.go, its macros are expanded in macro.go,
// check_host() is in check.go over the lookups of lookup.go; judge.go turns
// results into verdicts and header.go into header fields and replies.
//
// # BUGS
//
// See README.md.
package main

import (
	"net/netip"
	"strings"

	"github.com/wafermail/wafer/sdk"
)

var plugin = sdk.Plugin{
	ID:        "org.wafermail.spf",
	Version:   "1.0.0",
	Help:      "checks by SPF whether a client may send for the domains of HELO and MAIL FROM",
	Stages:    []sdk.Stage{sdk.Helo, sdk.Mail, sdk.Rcpt, sdk.Data},
	Grants:    []sdk.Grant{{Name: sdk.GrantDNS, Help: "to look up policies and what they name"}},
	Fields:    fields(),
	Configure: configure,
}

var _ = sdk.Serve(&plugin)

func main() {}

// Values of the fields that say what to do about a result.
const (
	doNext       = "next"
	doTag        = "tag"
	doAccept     = "accept"
	doQuarantine = "quarantine"
	doDefer      = "defer"
	doReject     = "reject"
)

// Values of header.
const (
	receivedSPF = "received-spf"
	authResults = "authentication-results"
	bothHeaders = "both"
	noHeader    = "none"
)

// defaultReason is the text of refusals that senders know from policyd-spf.
const defaultReason = "Message {rejectdefer} due to: {spf}. Please see {url}"

func fields() []sdk.Field {
	list := []sdk.Field{
		{Name: "identities", Type: sdk.List, Default: []string{"helo", "mail"}, Choices: []string{"helo", "mail"}, Help: "what to check, in this order"},
	}
	actions := []string{doNext, doTag, doAccept, doQuarantine, doDefer, doReject}
	for r := range result(results) {
		do := doNext
		if r == fail {
			do = doReject
		}
		list = append(list,
			sdk.Field{Name: r.String(), Type: sdk.String, Default: []string{do}, Choices: actions, Help: "what to do about " + r.String()},
			sdk.Field{Name: "helo_" + r.String(), Type: sdk.String, Choices: actions, Help: "what to do about " + r.String() + " for HELO, if not the same"})
	}
	return append(list,
		sdk.Field{Name: "helo_null_only", Type: sdk.Bool, Default: []string{"false"}, Help: "act on HELO's result only where the sender is null"},
		sdk.Field{Name: "no_mail", Type: sdk.Bool, Default: []string{"false"}, Help: "reject only where the domain's whole policy is -all"},
		sdk.Field{Name: "reject_not_pass", Type: sdk.List, Default: []string{}, Help: "domains for which softfail and neutral are rejected too"},
		sdk.Field{Name: "skip", Type: sdk.List, Default: []string{"127.0.0.0/8", "::1"}, Help: "networks of our own that are not checked"},
		sdk.Field{Name: "trust_networks", Type: sdk.List, Default: []string{}, Help: "networks of relays that are not checked"},
		sdk.Field{Name: "trust_domains", Type: sdk.List, Default: []string{}, Help: "domains for which a client may send that is not checked"},
		sdk.Field{Name: "trust_helo", Type: sdk.List, Default: []string{}, Help: "greetings of clients that are not checked if they have that name's address"},
		sdk.Field{Name: "trust_ptr", Type: sdk.List, Default: []string{}, Help: "domains with subdomains; a client with a verified name there is not checked"},
		sdk.Field{Name: "header", Type: sdk.String, Default: []string{receivedSPF}, Choices: []string{receivedSPF, authResults, bothHeaders, noHeader}, Help: "header field that tells the result"},
		sdk.Field{Name: "authserv_id", Type: sdk.String, Default: []string{""}, Help: "our name in Authentication-Results; empty: the server's"},
		sdk.Field{Name: "hide_receiver", Type: sdk.Bool, Default: []string{"false"}, Help: "leave out names of ours and of the recipient"},
		sdk.Field{Name: "reason", Type: sdk.String, Default: []string{defaultReason}, Help: "text of refusals: {rejectdefer} {spf} {url} {explanation} stand for what they say"},
		sdk.Field{Name: "enhanced_codes", Type: sdk.Bool, Default: []string{"true"}, Help: "x.7.23 and x.7.24 (RFC 7372), not x.7.1"},
		sdk.Field{Name: "void_limit", Type: sdk.Int, Default: []string{"2"}, Help: "lookups without an answer that a policy may cause"},
		sdk.Field{Name: "single_label", Type: sdk.Bool, Default: []string{"false"}, Help: "check domains without a dot, too"},
		sdk.Field{Name: "prospective", Type: sdk.String, Default: []string{""}, Help: "check as if the client had this address: that of our outgoing mail"},
	)
}

// settings is a check's configuration.
type settings struct {
	helo, mail           bool
	actions              [2][results]string // by identity
	heloNullOnly, noMail bool
	rejectNotPass        []string
	skip, trustNetworks  []netip.Prefix
	trustDomains         []string
	trustHelo, trustPTR  []string
	received, authRes    bool
	authservID           string
	hideReceiver         bool
	reason               string
	enhancedCodes        bool
	voidLimit            int
	single               bool
	prospective          netip.Addr
}

func configure(c *sdk.Config) (sdk.Judge, error) {
	s := &settings{
		heloNullOnly: c.Bool("helo_null_only"), noMail: c.Bool("no_mail"),
		rejectNotPass: c.Strings("reject_not_pass"), trustDomains: c.Strings("trust_domains"),
		trustHelo: c.Strings("trust_helo"), trustPTR: c.Strings("trust_ptr"),
		authservID: c.String("authserv_id"), hideReceiver: c.Bool("hide_receiver"),
		reason: c.String("reason"), enhancedCodes: c.Bool("enhanced_codes"), single: c.Bool("single_label"),
	}
	for _, id := range c.Strings("identities") {
		s.helo = s.helo || id == "helo"
		s.mail = s.mail || id == "mail"
	}
	if !s.helo && !s.mail {
		return nil, c.Errorf("identities", `name at least one of "helo" and "mail"`)
	}
	for r := range result(results) {
		s.actions[mailfrom][r] = c.String(r.String())
		s.actions[helo][r] = c.String(r.String())
		if c.Has("helo_" + r.String()) {
			s.actions[helo][r] = c.String("helo_" + r.String())
		}
	}
	switch c.String("header") {
	case receivedSPF:
		s.received = true
	case authResults:
		s.authRes = true
	case bothHeaders:
		s.received, s.authRes = true, true
	}
	if n := c.Int("void_limit"); n < 0 || n > 100 {
		return nil, c.Errorf("void_limit", "want a number from 0 to 100")
	} else {
		s.voidLimit = int(n)
	}
	if p := c.String("prospective"); p != "" {
		a, err := netip.ParseAddr(p)
		if err != nil || a.Zone() != "" {
			return nil, c.Errorf("prospective", "want an IP address, not", p)
		}
		s.prospective = a.Unmap()
	}
	for _, d := range []struct {
		field string
		names []string
	}{{"reject_not_pass", s.rejectNotPass}, {"trust_domains", s.trustDomains}, {"trust_helo", s.trustHelo}, {"trust_ptr", s.trustPTR}} {
		for _, name := range d.names {
			if !isDomain(name, true) {
				return nil, c.Errorf(d.field, "want a domain name, not", name)
			}
		}
	}
	var err error
	if s.skip, err = networks(c, "skip"); err != nil {
		return nil, err
	}
	if s.trustNetworks, err = networks(c, "trust_networks"); err != nil {
		return nil, err
	}
	return s.judge, nil
}

// networks reads a list of addresses and networks. IPv4-mapped ones stand for
// the IPv4 network that they map.
func networks(c *sdk.Config, field string) ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, text := range c.Strings(field) {
		var p netip.Prefix
		var err error
		if strings.Contains(text, "/") {
			p, err = netip.ParsePrefix(text)
		} else {
			var a netip.Addr
			a, err = netip.ParseAddr(text)
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if err != nil || p.Addr().Zone() != "" {
			return nil, c.Errorf(field, "want an address or a network such as 192.0.2.0/24, not", text)
		}
		list = append(list, p.Masked())
	}
	return list, nil
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func containsName(list []string, name string) bool {
	name = strings.TrimSuffix(name, ".")
	for _, n := range list {
		if name != "" && strings.EqualFold(strings.TrimSuffix(n, "."), name) {
			return true
		}
	}
	return false
}
