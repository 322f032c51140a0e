// Command recipient is a policy plugin that judges the forward-path of RCPT TO:
// README.md beside it is its manual. Codes and texts are those of Postfix's
// smtpd_relay_restrictions and smtpd_recipient_restrictions.
//
// # BUGS
//
// See README.md.
package main

import (
	"github.com/wafermail/wafer/plugins/internal/address"
	"github.com/wafermail/wafer/sdk"
)

var plugin = sdk.Plugin{
	ID:      "org.wafermail.recipient",
	Version: "1.0.0",
	Help:    "refuses recipients that are not ours, not known or not complete",
	Stages:  []sdk.Stage{sdk.Rcpt, sdk.Data, sdk.Message},
	Grants:  []sdk.Grant{{Name: sdk.GrantDNS, Optional: true, Help: `to look the domain up, for reject = ["unknown-domain"]`}},
	Fields: []sdk.Field{
		{
			Name: "reject", Type: sdk.List, Default: []string{unauthDestination, notFQDN, unlisted},
			Choices: []string{unauthDestination, notFQDN, unknownDomain, unlisted, multiBounce},
			Help:    "what to refuse, in the order in which it is looked for",
		},
		{Name: "relay_code", Type: sdk.Int, Default: []string{"554"}, Help: "reply code of unauth-destination: 554, or 454 to defer (Postfix: relay_domains_reject_code)"},
		{Name: "not_fqdn_code", Type: sdk.Int, Default: []string{"504"}, Help: "reply code of not-fqdn (Postfix: non_fqdn_reject_code)"},
		{Name: "unknown_domain_code", Type: sdk.Int, Default: []string{"450"}, Help: "reply code of unknown-domain (Postfix: unknown_address_reject_code)"},
		{Name: "unlisted_code", Type: sdk.Int, Default: []string{"550"}, Help: "reply code of unlisted (Postfix: unknown_local_recipient_reject_code)"},
	},
	Configure: configure,
}

var _ = sdk.Serve(&plugin)

func main() {}

// What can be refused.
const (
	unauthDestination = "unauth-destination"
	notFQDN           = "not-fqdn"
	unknownDomain     = "unknown-domain"
	unlisted          = "unlisted"
	multiBounce       = "multi-recipient-bounce"
)

// settings are what one check is configured with.
type settings struct {
	reject                                            []string
	relayCode, notFQDNCode, unknownCode, unlistedCode int
}

func configure(c *sdk.Config) (sdk.Judge, error) {
	s := settings{reject: c.Strings("reject")}
	for field, to := range map[string]*int{
		"relay_code": &s.relayCode, "not_fqdn_code": &s.notFQDNCode, "unknown_domain_code": &s.unknownCode, "unlisted_code": &s.unlistedCode,
	} {
		if *to = int(c.Int(field)); *to < 400 || *to > 599 {
			return nil, c.Errorf(field, "write a reply code from 400 to 599")
		}
	}
	for _, what := range s.reject {
		if what == unknownDomain && !c.Granted(sdk.GrantDNS) {
			return nil, c.Errorf("reject", `"unknown-domain" looks the domain up: write allow = ["dns"]`)
		}
	}
	return s.judge, nil
}

func (s settings) judge(e *sdk.Event) sdk.Verdict {
	for _, what := range s.reject {
		v := sdk.Next()
		switch {
		case what == multiBounce:
			v = manyBounces(e)
		case e.Stage() == sdk.Rcpt:
			v = s.look(e, e.Recipient(), what)
		}
		if v.Action != sdk.ActionNext || v.Failed != "" {
			return v
		}
	}
	return sdk.Next()
}

// manyBounces refuses a message that claims to be a bounce and goes to several
// recipients. At RCPT that shows with the second one.
func manyBounces(e *sdk.Event) sdk.Verdict {
	n, kind, value := e.RecipientCount(), address.Data, "DATA"
	switch e.Stage() {
	case sdk.Rcpt:
		n, kind, value = n+1, address.Recipient, e.Recipient()
	case sdk.Message:
		kind, value = "End-of-data", "END-OF-MESSAGE"
	}
	if !e.HasSender() || e.Sender() != "" || n < 2 {
		return sdk.Next()
	}
	return address.Refuse(kind, 550, "5.5.3", value, "Multi-recipient bounce").Because("recipient-multi-recipient-bounce")
}

// look looks for one fault in a recipient.
func (s settings) look(e *sdk.Event, rcpt, what string) sdk.Verdict {
	_, domain := address.Split(rcpt)
	class := e.Fact(sdk.FactRecipientClass)
	switch what {
	case unauthDestination:
		if class == sdk.ClassRelay {
			return address.Reply(s.relayCode, "5.7.1", "<"+address.Readable(rcpt)+">: Relay access denied").Because("recipient-unauth-destination")
		}
	case notFQDN:
		if domain == "" || domain[0] != '[' && !address.IsFQDN(address.WithoutDot(domain)) {
			return address.Refuse(address.Recipient, s.notFQDNCode, "5.5.2", rcpt, "need fully-qualified address").Because("recipient-not-fqdn")
		}
	case unknownDomain:
		if class == sdk.ClassRelay {
			return address.UnknownDomain(e, address.Recipient, rcpt, s.unknownCode)
		}
	case unlisted:
		if class == sdk.ClassUnknown {
			return address.Refuse(address.Recipient, s.unlistedCode, "5.1.1", rcpt, "User unknown in local recipient table").Because("recipient-unlisted")
		}
	}
	return sdk.Next()
}
