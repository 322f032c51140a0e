// Command helo is a policy plugin that judges how a client greets: README.md
// beside it is its manual. Codes and texts are those of Postfix's
// reject_..._helo_hostname restrictions.
//
// # BUGS
//
// See README.md.
package main

import (
	"net/netip"
	"strings"

	"github.com/wafermail/wafer/plugins/internal/address"
	"github.com/wafermail/wafer/sdk"
)

var plugin = sdk.Plugin{
	ID:      "org.wafermail.helo",
	Version: "1.0.0",
	Help:    "refuses clients that greet with a name no mail server would use",
	Stages:  []sdk.Stage{sdk.Helo, sdk.Mail, sdk.Rcpt},
	Grants:  []sdk.Grant{{Name: sdk.GrantDNS, Optional: true, Help: `to look the name up, for reject = ["unknown"]`}},
	Fields: []sdk.Field{{
		Name:    "reject",
		Type:    sdk.List,
		Default: []string{missing, invalid, notFQDN},
		Choices: []string{missing, invalid, notFQDN, unknown, literal, ownName},
		Help:    "what to refuse, in the order in which it is looked for",
	}},
	Configure: configure,
}

var _ = sdk.Serve(&plugin)

func main() {}

// What can be refused.
const (
	missing = "missing"
	invalid = "invalid"
	notFQDN = "not-fqdn"
	unknown = "unknown"
	literal = "literal"
	ownName = "own-name"
)

func configure(c *sdk.Config) (sdk.Judge, error) {
	reject := c.Strings("reject")
	for _, what := range reject {
		if what == unknown && !c.Granted(sdk.GrantDNS) {
			return nil, c.Errorf("reject", `"unknown" looks the name up: write allow = ["dns"]`)
		}
	}
	return func(e *sdk.Event) sdk.Verdict {
		helo := strings.TrimRight(e.Helo(), " \t")
		for _, what := range reject {
			if v := judge(e, helo, what); v.Action != sdk.ActionNext || v.Failed != "" {
				return v
			}
		}
		return sdk.Next()
	}, nil
}

// judge looks for one fault in a greeting.
func judge(e *sdk.Event, helo, what string) sdk.Verdict {
	if helo == "" {
		if what == missing {
			return sdk.Reject(503, "5.5.1", "Error: send HELO/EHLO first").Because("helo-missing")
		}
		return sdk.Next()
	}
	bracketed := helo[0] == '['
	if bracketed && (what == invalid || what == notFQDN || what == unknown) {
		if _, ok := address.Literal(helo); !ok {
			return refuse(501, "5.5.2", helo, "invalid ip address").Because("helo-invalid")
		}
		return sdk.Next()
	}
	switch what {
	case invalid:
		if name := address.WithoutDot(helo); !address.IsIP(name) && !isHostname(name) {
			return refuse(501, "5.5.2", helo, "Invalid name").Because("helo-invalid")
		}
	case notFQDN:
		name := address.WithoutDot(helo)
		if address.IsIP(name) || !isHostname(name) || !strings.Contains(name, ".") {
			return refuse(504, "5.5.2", helo, "need fully-qualified hostname").Because("helo-not-fqdn")
		}
	case unknown:
		return lookUp(e, helo)
	case literal:
		if bracketed || address.IsIP(helo) {
			return refuse(554, "5.7.1", helo, "greet with a name, not with an address").Because("helo-literal")
		}
	case ownName:
		if claimsOurName(e, helo) {
			return refuse(554, "5.7.1", helo, "that is the name of this server").Because("helo-own-name")
		}
	}
	return sdk.Next()
}

// refuse says it as Postfix does. A code of 4xx defers.
func refuse(code int, enhanced, helo, why string) sdk.Verdict {
	text := "<" + neuter(helo) + ">: Helo command rejected: " + why
	if code < 500 {
		return sdk.Defer(code, enhanced, text)
	}
	return sdk.Reject(code, enhanced, text)
}

// neuter makes characters that mean something in addresses harmless, and keeps
// the reply's reason visible behind a long name.
func neuter(s string) string {
	const longest = 400
	b := []byte(s[:min(len(s), longest)])
	for i, c := range b {
		if c <= ' ' || c > '~' || strings.IndexByte(`<>()\";@`, c) >= 0 {
			b[i] = '?'
		}
	}
	return string(b)
}

// lookUp refuses a name without address and without mail exchanger. When DNS
// does not answer, the refusal stands only if nothing else refuses.
func lookUp(e *sdk.Event, helo string) sdk.Verdict {
	notFound := refuse(450, "4.7.1", helo, "Host not found").Because("helo-unknown")
	if address.IsIP(helo) || !isHostname(helo) {
		return notFound
	}
	as, err := e.DNS(sdk.Question{Type: "A", Name: helo}, sdk.Question{Type: "AAAA", Name: helo}, sdk.Question{Type: "MX", Name: helo})
	if err != nil {
		return sdk.Fail("look up " + helo + ": " + err.Error())
	}
	temporary := false
	for _, a := range as {
		if a.Status == sdk.DNSOK && len(a.Records) > 0 {
			return sdk.Next()
		}
		temporary = temporary || a.Status == sdk.DNSTemp
	}
	if temporary {
		return sdk.DeferIfPermit(notFound.Code, notFound.Enhanced, notFound.Text).Because("helo-unknown-tempfail")
	}
	return notFound
}

// claimsOurName reports whether a client from elsewhere greets with our name,
// with its first label alone, or with our address.
func claimsOurName(e *sdk.Event, helo string) bool {
	client, err := netip.ParseAddr(e.Client())
	if err != nil || client.IsLoopback() {
		return false
	}
	server, err := netip.ParseAddrPort(e.Fact(sdk.FactServer))
	if err == nil && server.Addr().Unmap() == client {
		return false // it is us
	}
	if a, ok := address.Literal(helo); ok {
		return err == nil && a.Unmap() == server.Addr().Unmap()
	}
	name, own := address.WithoutDot(helo), e.Hostname()
	bare, _, _ := strings.Cut(own, ".")
	return own != "" && (strings.EqualFold(name, own) || strings.EqualFold(name, bare))
}

// isHostname: a greeting has A-labels, whatever SMTPUTF8 allows in addresses
// (RFC 6531 §3.7.1).
func isHostname(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return address.IsHostname(s)
}
