package main

import (
	"net/netip"
	"strings"

	"github.com/wafermail/wafer/sdk"
)

// identity is whose policy is asked for (RFC 7208 §2.3, §2.4).
type identity uint8

const (
	helo identity = iota
	mailfrom
)

// String is the identity in Received-SPF (§9.1).
func (id identity) String() string {
	if id == helo {
		return "helo"
	}
	return "mailfrom"
}

// inquiry is one call of the plugin: what is known and what was found.
type inquiry struct {
	*settings
	e        *sdk.Event
	ip       netip.Addr // that is checked
	greeting string
	sender   string
	receiver string // our name, "" if it is hidden
	dns      *lookups
	verdict  sdk.Verdict
}

// finding is what became of one identity.
type finding struct {
	identity
	evaluation
	outcome
}

// judge answers one event.
func (s *settings) judge(e *sdk.Event) sdk.Verdict {
	ip, err := netip.ParseAddr(e.Client())
	if err != nil {
		return sdk.Next()
	}
	q := &inquiry{settings: s, e: e, ip: ip.Unmap(), greeting: strings.TrimRight(e.Helo(), " \t"), dns: newLookups(e.DNS)}
	if s.prospective.IsValid() {
		q.ip = s.prospective
	}
	if !s.hideReceiver {
		q.receiver = e.Hostname()
	}
	atHelo := e.Stage() == sdk.Helo
	if !atHelo {
		q.sender = e.Sender()
	}
	if why := q.trusted(); why != "" {
		q.addComment(why)
		return q.verdict.Because("spf-skipped")
	}
	return q.run(atHelo)
}

// run checks the identities until one is decided.
func (q *inquiry) run(atHelo bool) sdk.Verdict {
	local, domain := "postmaster", q.greeting // of the null sender (§2.4)
	if q.sender != "" {
		at := strings.LastIndexByte(q.sender, '@')
		domain = q.sender[at+1:]
		if at < 0 {
			domain = "" // the bare postmaster of RFC 5321 §4.1.1.3 names none
		} else if at > 0 {
			local = unquoted(q.sender[:at])
		}
	}
	checkHelo := q.helo && q.greeting != ""
	// The null sender's domain is the greeting: one check does for both.
	checkMail := q.mail && !atHelo && !(checkHelo && q.sender == "")
	if checkHelo && checkMail && isDomain(q.greeting, q.single) && isDomain(domain, q.single) {
		q.dns.all("TXT", q.greeting, domain)
	}
	var told *finding // what the header fields tell
	if checkHelo {
		f := q.check(helo, "postmaster", q.greeting)
		if q.act(&f) {
			return q.verdict
		}
		told = &f
	}
	if checkMail {
		f := q.check(mailfrom, local, domain)
		if q.act(&f) {
			return q.verdict
		}
		if told == nil || f.result != none || told.result == none {
			told = &f
		}
	}
	if told != nil {
		q.addResult(told)
		if q.verdict.Reason == "" {
			q.verdict.Reason = told.label()
		}
	}
	return q.verdict
}

// unquoted is a local part without the quotes and backslashes that make a
// Quoted-string of it (RFC 5321 §4.1.2): policies know mailboxes without.
func unquoted(local string) string {
	if len(local) < 2 || local[0] != '"' || local[len(local)-1] != '"' {
		return local
	}
	var b []byte
	for i := 1; i < len(local)-1; i++ {
		if local[i] == '\\' && i+1 < len(local)-1 {
			i++
		}
		b = append(b, local[i])
	}
	return string(b)
}

func (q *inquiry) check(id identity, local, domain string) finding {
	f := finding{identity: id, evaluation: evaluation{
		facts: facts{ip: q.ip, local: local, origin: domain, helo: q.greeting, receiver: q.receiver, now: q.e.Now},
		dns:   q.dns, single: q.single, most: q.voidLimit,
	}}
	f.outcome = f.check(asciiDomain(domain))
	if f.broken != nil && q.dns.spent {
		q.e.Log(sdk.Warn, "policy of "+domain+" needs more lookups than one call may make: "+f.broken.Error())
	}
	return f
}

// label is the reason for logs and metrics.
func (f *finding) label() string {
	if f.identity == helo {
		return "spf-helo-" + f.result.String()
	}
	return "spf-" + f.result.String()
}

// action is what to do about a finding, and whether that is so because of
// reject_not_pass.
func (q *inquiry) action(f *finding) (do string, local bool) {
	do = q.actions[f.identity][f.result]
	if f.identity == helo && q.heloNullOnly && (q.sender != "" || q.e.Stage() == sdk.Helo) {
		return doNext, false
	}
	switch f.result {
	case fail, softfail, neutral:
		if containsName(q.rejectNotPass, f.domain) {
			do, local = doReject, true
		}
	}
	if do == doReject && q.noMail && !f.outcome.noMail {
		return doNext, false
	}
	return do, local
}

// act adds to the verdict what a finding asks for. It returns true if nothing
// is left to check.
func (q *inquiry) act(f *finding) (decided bool) {
	do, local := q.action(f)
	switch do {
	case doReject, doDefer:
		mods := q.verdict.Mods
		q.verdict = q.refusal(f, do, local)
		q.verdict.Mods = mods
	case doAccept:
		q.addResult(f)
		q.verdict.Action = sdk.ActionAccept
	case doQuarantine:
		if q.e.Stage() != sdk.Helo { // there is no message yet
			q.verdict.Action = sdk.ActionQuarantine
		}
		q.verdict.Reason = f.label()
		return false
	case doTag:
		q.verdict = q.verdict.Tag(f.label())
		return false
	default:
		return false
	}
	q.verdict.Reason = f.label()
	return true
}

// trusted says why the client is not checked, "" if it is.
func (q *inquiry) trusted() string {
	switch {
	case contains(q.skip, q.ip):
		return "SPF check N/A for local connections"
	case contains(q.trustNetworks, q.ip):
		return "SPF skipped for whitelisted relay"
	}
	for _, domain := range q.trustDomains {
		v := evaluation{
			facts: facts{ip: q.ip, local: "postmaster", origin: domain, helo: domain, receiver: q.receiver, now: q.e.Now},
			dns:   q.dns, single: true, most: q.voidLimit,
		}
		if v.check(domain).result == pass {
			return "SPF skipped for whitelisted relay domain"
		}
	}
	if containsName(q.trustHelo, q.greeting) && holds(q.dns.one(addressType(q.ip), q.greeting), q.ip, q.ip.BitLen()) {
		return "SPF skipped for whitelisted HELO domain"
	}
	if len(q.trustPTR) > 0 && len(q.dns.validated(q.ip, func(name string) bool {
		for _, domain := range q.trustPTR {
			if within(name, domain) {
				return true
			}
		}
		return false
	})) > 0 {
		return "SPF skipped for PTR whitelisted relay domain"
	}
	return ""
}
