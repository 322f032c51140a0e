// Command sender is a policy plugin that judges the reverse-path of MAIL FROM:
// README.md beside it is its manual. Codes and texts are those of Postfix's
// smtpd_sender_restrictions.
//
// # BUGS
//
// See README.md.
package main

import (
	"strings"

	"github.com/wafermail/wafer/plugins/internal/address"
	"github.com/wafermail/wafer/sdk"
)

var plugin = sdk.Plugin{
	ID:      "org.wafermail.sender",
	Version: "1.0.0",
	Help:    "refuses sender addresses that cannot be answered or are not the client's to use",
	Stages:  []sdk.Stage{sdk.Mail, sdk.Rcpt},
	Grants:  []sdk.Grant{{Name: sdk.GrantDNS, Optional: true, Help: `to look the domain up, for reject = ["unknown-domain"]`}},
	Fields: []sdk.Field{
		{
			Name: "reject", Type: sdk.List, Default: []string{notFQDN, unknownDomain},
			Choices: []string{notFQDN, unknownDomain, unlisted, mismatch, authenticatedMismatch, unauthenticatedMismatch, knownMismatch},
			Help:    "what to refuse, in the order in which it is looked for",
		},
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
	notFQDN                 = "not-fqdn"
	unknownDomain           = "unknown-domain"
	unlisted                = "unlisted"
	mismatch                = "login-mismatch"
	authenticatedMismatch   = "authenticated-login-mismatch"
	unauthenticatedMismatch = "unauthenticated-login-mismatch"
	knownMismatch           = "known-login-mismatch"
)

// settings are what one check is configured with.
type settings struct {
	reject                                 []string
	notFQDNCode, unknownCode, unlistedCode int
}

func configure(c *sdk.Config) (sdk.Judge, error) {
	s := settings{reject: c.Strings("reject")}
	for field, to := range map[string]*int{
		"not_fqdn_code": &s.notFQDNCode, "unknown_domain_code": &s.unknownCode, "unlisted_code": &s.unlistedCode,
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
	if !e.HasSender() || e.Sender() == "" { // the null reverse-path is everybody's
		return sdk.Next()
	}
	for _, what := range s.reject {
		if v := s.look(e, e.Sender(), what); v.Action != sdk.ActionNext || v.Failed != "" {
			return v
		}
	}
	return sdk.Next()
}

// look looks for one fault in a sender.
func (s settings) look(e *sdk.Event, sender, what string) sdk.Verdict {
	_, domain := address.Split(sender)
	switch what {
	case notFQDN:
		if domain == "" || domain[0] != '[' && !address.IsFQDN(address.WithoutDot(domain)) {
			return address.Refuse(address.Sender, s.notFQDNCode, "5.5.2", sender, "need fully-qualified address").Because("sender-not-fqdn")
		}
	case unknownDomain:
		if class := e.Fact(sdk.FactSenderClass); class == sdk.ClassLocal || class == sdk.ClassUnknown {
			return sdk.Next() // our own domains are known
		}
		return address.UnknownDomain(e, address.Sender, sender, s.unknownCode)
	case unlisted:
		if e.Fact(sdk.FactSenderClass) == sdk.ClassUnknown {
			return address.Refuse(address.Sender, s.unlistedCode, "5.1.0", sender, "User unknown in local recipient table").Because("sender-unlisted")
		}
	default:
		return login(e, sender, what)
	}
	return sdk.Next()
}

// login compares who logged in with who may use the sender.
func login(e *sdk.Event, sender, what string) sdk.Verdict {
	owners := strings.Split(e.Fact(sdk.FactSenderOwners), "\n")
	owned := owners[0] != ""
	user := e.User()
	switch {
	case user == "" && owned && (what == mismatch || what == unauthenticatedMismatch || what == knownMismatch):
		return address.Refuse(address.Sender, 553, "5.7.1", sender, "not logged in").Because("sender-" + what)
	case user == "" || what == unauthenticatedMismatch || what == knownMismatch && !owned:
		return sdk.Next()
	}
	for _, o := range owners {
		if strings.EqualFold(o, user) {
			return sdk.Next()
		}
	}
	return address.Refuse(address.Sender, 553, "5.7.1", sender, "not owned by user "+user).Because("sender-" + what)
}
