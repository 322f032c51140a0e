package main

import (
	"strings"

	"github.com/wafermail/wafer/sdk"
)

// result is the outcome of check_host() (RFC 7208 §2.6).
type result uint8

const (
	none result = iota
	neutral
	pass
	fail
	softfail
	temperror
	permerror
	results = iota // how many there are
)

// String is the result's word in Authentication-Results (RFC 8601 §2.7.2).
func (r result) String() string {
	return [results]string{"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"}[r]
}

// Limits of one evaluation: terms that cause lookups (§4.6.4), and octets of all
// policies together, so that parsing them takes little time.
const (
	maxTerms    = 10
	maxPolicies = 16 << 10
)

// evaluation is one run of check_host() for one identity.
type evaluation struct {
	facts
	dns    *lookups
	single bool // names of one label may have policies
	most   int  // void lookups allowed
	terms  int  // that cause lookups, so far
	voids  int  // lookups without records, so far
	octets int  // of policies, so far
	values int  // octets that macros stood for, so far

	named, name string // the last domain that %{p} was asked for, and what it was
}

// outcome is what an evaluation ends in.
type outcome struct {
	result    result
	domain    string       // whose policy it is
	mechanism string       // as written; "default" where none matched, "" where there was no record to match
	broken    *brokenError // of temperror and permerror
	noMail    bool         // the identity's own record denies all and says nothing else
	exp       string       // domain-spec of the explanation of a fail
	expDomain string       // domain of the record that has it
}

// check evaluates the policy of domain (§4).
func (v *evaluation) check(domain string) outcome {
	o, err := v.host(domain, true)
	o.domain = domain
	if err != nil {
		o.broken, o.mechanism, o.exp = err, "", ""
		o.result = permerror
		if err.temporary {
			o.result = temperror
		}
	}
	return o
}

// isDomain reports whether policies are looked for at a name (§4.3): labels of
// letters, digits, hyphens and underscores.
func isDomain(s string, single bool) bool {
	s = strings.TrimSuffix(s, ".")
	if _, ok := question("TXT", s); !ok || !single && !strings.Contains(s, ".") {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}

// host is check_host(): for the identity itself if top, else on behalf of an
// include or redirect.
func (v *evaluation) host(domain string, top bool) (o outcome, err *brokenError) {
	if top && !isDomain(domain, v.single) {
		return o, nil
	}
	a := v.dns.one("TXT", domain)
	if a.Status == sdk.DNSTemp {
		return o, v.dns.why(domain)
	}
	policy, found := "", false
	for _, txt := range a.Records {
		if !isPolicy(txt) {
			continue
		}
		if found {
			return o, permanent("Two or more type TXT spf records found.", "")
		}
		policy, found = txt, true
	}
	if !found {
		if !top && len(a.Records) == 0 {
			err = v.void(domain)
		}
		return o, err
	}
	if v.octets += len(policy); v.octets > maxPolicies {
		return o, permanent("policies are too long", domain)
	}
	r, err := parseRecord(policy, v.single)
	if err != nil {
		return o, err
	}
	o.noMail = top && r.denyAll() && r.redirect == ""
	for i := range r.directives {
		d := &r.directives[i]
		matched, err := v.matches(d, domain)
		if err != nil {
			return o, err
		}
		if matched {
			o.result, o.mechanism = d.result, d.asWritten
			if d.result == fail {
				o.exp, o.expDomain = r.exp, domain
			}
			return o, nil
		}
	}
	if r.redirect == "" {
		o.result, o.mechanism = neutral, "default" // §4.7
		return o, nil
	}
	return v.redirect(r.redirect, domain, o.noMail)
}

// redirect goes on with the policy of another domain as if it were this one's
// (§6.1).
func (v *evaluation) redirect(spec, domain string, noMail bool) (o outcome, err *brokenError) {
	if err := v.term("redirect=" + spec); err != nil {
		return o, err
	}
	to, err := v.target(spec, domain)
	if err != nil {
		return o, err
	}
	if o, err = v.host(to, false); err == nil && o.result == none {
		err = permanent("redirect to a domain without a policy", to)
	}
	o.noMail = noMail
	return o, err
}

// term counts one of the terms that cause lookups.
func (v *evaluation) term(asWritten string) *brokenError {
	if v.terms++; v.terms > maxTerms {
		return permanent("Too many DNS lookups", asWritten)
	}
	return nil
}

// void counts a term whose target has no records. The limit is one of terms: an
// exchanger without an address counts nothing.
func (v *evaluation) void(name string) *brokenError {
	if v.voids++; v.voids > v.most {
		return permanent("Too many DNS lookups without an answer", name)
	}
	return nil
}

// matches evaluates one directive (§5).
func (v *evaluation) matches(d *directive, domain string) (bool, *brokenError) {
	if d.countsTerm {
		if err := v.term(d.asWritten); err != nil {
			return false, err
		}
	}
	switch d.kind {
	case mechAll:
		return true, nil
	case mechIP:
		return d.network.Contains(v.ip), nil
	}
	name, err := v.target(d.spec, domain)
	if err != nil {
		return false, err
	}
	switch d.kind {
	case mechInclude:
		return v.include(name)
	case mechMX:
		return v.mx(d, name)
	case mechPTR:
		if a := v.dns.one("PTR", v.ip.String()); a.Status != sdk.DNSTemp && len(a.Records) == 0 {
			return false, v.void(name)
		}
		// The names' addresses count against no limit of the record's: the
		// client's network publishes them.
		return len(v.dns.validated(v.ip, func(n string) bool { return within(n, name) })) > 0, nil
	case mechExists:
		a := v.dns.one("A", name) // whatever the client's address is (§5.7)
		err = v.weigh(a, name)
		return err == nil && len(a.Records) > 0, err
	}
	a := v.dns.one(addressType(v.ip), name)
	if err := v.weigh(a, name); err != nil {
		return false, err
	}
	return holds(a, v.ip, d.bits(v.ip.Is4())), nil
}

// bits is the prefix length for an address family.
func (d *directive) bits(four bool) int {
	if four {
		return d.bits4
	}
	return d.bits6
}

// weigh turns an answer that is none into an error, and counts an empty one.
// What cannot be asked was never looked up.
func (v *evaluation) weigh(a sdk.Answer, name string) *brokenError {
	if a.Status == sdk.DNSTemp {
		return v.dns.why(name)
	}
	if _, ok := question("A", name); ok && len(a.Records) == 0 {
		return v.void(name)
	}
	return nil
}

// include matches where the policy of another domain passes (§5.2).
func (v *evaluation) include(name string) (bool, *brokenError) {
	o, err := v.host(name, false)
	if err == nil && o.result == none {
		err = permanent("include of a domain without a policy", name)
	}
	return err == nil && o.result == pass, err
}

// mx matches an address of an exchanger (§5.4). The exchangers are asked all at
// once, so one that matches counts whatever became of the others. Only the ten
// that are preferred are asked, and to need more is an error (§4.6.4).
func (v *evaluation) mx(d *directive, name string) (bool, *brokenError) {
	a := v.dns.one("MX", name)
	if err := v.weigh(a, name); err != nil {
		return false, err
	}
	hosts := exchangers(a)
	tooMany := len(hosts) > maxHosts
	hosts = hosts[:min(len(hosts), maxHosts)]
	answers := v.dns.all(addressType(v.ip), hosts...)
	for _, a := range answers {
		if holds(a, v.ip, d.bits(v.ip.Is4())) {
			return true, nil
		}
	}
	for i, a := range answers {
		if a.Status == sdk.DNSTemp {
			return false, v.dns.why(hosts[i])
		}
	}
	if tooMany {
		return false, permanent("More than 10 MX records returned", name)
	}
	return false, nil
}

// validatedName is %{p}: domain itself, else a subdomain of it, else any
// validated name of the client, else "unknown" (§7.3).
func (v *evaluation) validatedName(domain string) string {
	if v.named != domain || v.name == "" {
		v.named, v.name = domain, v.chooseName(domain)
	}
	return v.name
}

func (v *evaluation) chooseName(domain string) string {
	best := "unknown"
	for _, n := range v.dns.validated(v.ip, func(string) bool { return true }) {
		switch {
		case strings.EqualFold(n, strings.TrimSuffix(domain, ".")):
			return n
		case best == "unknown" || within(n, domain) && !within(best, domain):
			best = n
		}
	}
	return best
}

// explain is what the domain's owner has to say about a fail, one line of
// printable ASCII, or "" (§6.2). It changes no count and no result.
func (v *evaluation) explain(o *outcome) string {
	if o.result != fail || o.exp == "" {
		return ""
	}
	name, err := v.target(o.exp, o.expDomain)
	if err != nil {
		return ""
	}
	a := v.dns.one("TXT", name)
	if a.Status != sdk.DNSOK || len(a.Records) != 1 || len(a.Records[0]) > maxMacroString {
		return ""
	}
	text, err := v.expand(a.Records[0], o.expDomain, true)
	if err != nil {
		return ""
	}
	if !isPrintable(text) {
		return "" // by way of a macro
	}
	return text
}
