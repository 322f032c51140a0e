package main

import (
	"strings"

	"github.com/wafermail/wafer/sdk"
)

// headed reports whether this call adds header fields: a message gets them
// once. HELO has no message, and at RCPT the first recipient's call does it.
func (q *inquiry) headed() bool {
	switch q.e.Stage() {
	case sdk.Helo:
		return false
	case sdk.Rcpt:
		if q.e.RecipientCount() > 0 {
			return false
		}
	}
	return !q.prospective.IsValid()
}

// titles are the results as Received-SPF has them; case does not matter there
// (RFC 7208 §9.1).
var titles = [results]string{"None", "Neutral", "Pass", "Fail", "SoftFail", "TempError", "PermError"}

// addResult adds the header fields that tell a finding.
func (q *inquiry) addResult(f *finding) {
	if !q.headed() {
		return
	}
	comment := f.comment(q.ip.String())
	if q.receiver != "" {
		comment = inComment(q.receiver) + ": " + comment
	}
	if q.authRes {
		property := "smtp.mailfrom=" + asValue(f.domain)
		if f.identity == helo {
			property = "smtp.helo=" + asValue(q.greeting)
		}
		value := q.authserv() + "; spf=" + f.result.String() + " (" + comment + ") " + property
		q.verdict = q.verdict.AddHeader("Authentication-Results", value)
	}
	if q.received {
		value := titles[f.result] + " (" + comment + ")" + q.pairs()
		if f.broken != nil && f.broken.problem != "" {
			value += " problem=" + asValue(f.broken.problem) + ";"
		}
		if f.mechanism != "" {
			value += " mechanism=" + asValue(f.mechanism) + ";"
		}
		q.verdict = q.verdict.AddHeader("Received-SPF", value+" identity="+f.identity.String())
	}
}

// addComment adds the header fields that tell why nothing was checked.
func (q *inquiry) addComment(why string) {
	if !q.headed() {
		return
	}
	if q.authRes {
		q.verdict = q.verdict.AddHeader("Authentication-Results", q.authserv()+"; none ("+why+")")
	}
	if q.received {
		q.verdict = q.verdict.AddHeader("X-Comment", why+" -"+strings.TrimSuffix(q.pairs(), ";"))
	}
}

// pairs are the key-value-pairs that all have in common, each with a blank in
// front and a semicolon behind.
func (q *inquiry) pairs() string {
	from := q.sender
	if from == "" {
		from = "<>"
	}
	s := " client-ip=" + q.ip.String() + "; envelope-from=" + asValue(from) + ";"
	if q.greeting != "" {
		s += " helo=" + asValue(q.greeting) + ";"
	}
	if q.receiver != "" {
		s += " receiver=" + asValue(q.receiver) + ";"
	}
	return s
}

// authserv is our name in Authentication-Results (RFC 8601 §2.5).
func (q *inquiry) authserv() string {
	if q.authservID != "" {
		return asValue(q.authservID)
	}
	return asValue(q.e.Hostname())
}

// comment puts a result into words.
func (f *finding) comment(ip string) string {
	domain := "domain of " + inComment(f.domain)
	switch f.result {
	case pass:
		return domain + " designates " + ip + " as permitted sender"
	case fail:
		return domain + " does not designate " + ip + " as permitted sender"
	case softfail:
		return "transitioning " + domain + " does not designate " + ip + " as permitted sender"
	case neutral:
		return ip + " is neither permitted nor denied by " + domain
	case permerror:
		return "permanent error in processing " + domain + ": " + f.broken.text
	case temperror:
		return "temporary error in processing " + domain + ": " + f.broken.text
	}
	return domain + " has no policy"
}

// inComment makes text safe within a comment (RFC 5322 §3.2.2).
func inComment(s string) string { return escaped(s, `()\`) }

// asValue is s as a dot-atom or else in quotes (RFC 5322 §3.2.3, §3.2.4).
func asValue(s string) string {
	atom := s != "" && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
	for i := 0; i < len(s) && atom; i++ {
		c := s[i]
		atom = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~.", c) >= 0
	}
	if atom {
		return s
	}
	return `"` + escaped(s, `"\`) + `"`
}

// escaped puts a backslash before each of the characters in special.
func escaped(s, special string) string {
	if !strings.ContainsAny(s, special) {
		return s
	}
	var b []byte
	for i := range len(s) {
		if strings.IndexByte(special, s[i]) >= 0 {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return string(b)
}

// refusal is the verdict that do asks for: 550 5.7.23 for a policy's result and
// 5.7.24 for an error, 451 4.7.23 and 4.7.24 where the client may come again
// (RFC 7372 §3.1, §3.2, RFC 7208 §8.6, §8.7).
func (q *inquiry) refusal(f *finding, do string, local bool) sdk.Verdict {
	detail := ".7.23"
	switch {
	case !q.enhancedCodes:
		detail = ".7.1"
	case f.broken != nil:
		detail = ".7.24"
	}
	if do == doDefer {
		return sdk.DeferIfPermit(451, "4"+detail, q.text(f, "deferred", local))
	}
	return sdk.Reject(550, "5"+detail, q.text(f, "rejected", local))
}

// text fills the template of refusals in. What the domain's owner says is
// marked as such (RFC 7208 §6.2, §8.4), since anybody may be one.
func (q *inquiry) text(f *finding, done string, local bool) string {
	explanation := ""
	if strings.Contains(q.reason, "{spf}") || strings.Contains(q.reason, "{explanation}") {
		explanation = f.explain(&f.outcome)
	}
	why := ""
	switch f.result {
	case none:
		why = "no SPF record"
	case neutral:
		why = "access neither permitted nor denied"
	case pass:
		why = "sender SPF authorized"
	case fail:
		why = "SPF fail - not authorized"
		if explanation != "" {
			why += ". The domain " + f.domain + " explains: " + explanation
		}
	case softfail:
		why = "domain owner discourages use of this host"
	case temperror:
		why = "SPF Temporary Error: " + f.broken.text
	case permerror:
		why = "SPF Permanent Error: " + f.broken.text
		if f.broken.problem != "" {
			why += ": " + f.broken.problem
		}
	}
	if local {
		why = "Receiver policy for SPF " + titles[f.result]
	}
	return strings.NewReplacer("{rejectdefer}", done, "{spf}", why, "{url}", q.url(f), "{explanation}", explanation).Replace(q.reason)
}

// url is where the refusal is explained to people.
func (q *inquiry) url(f *finding) string {
	scope, id := "mfrom", q.sender
	if f.identity == helo {
		scope, id = "helo", q.greeting
	}
	recipient := "none"
	if _, domain, ok := strings.Cut(q.e.Recipient(), "@"); ok {
		recipient = domain
	}
	if q.hideReceiver {
		recipient = "<UNKNOWN>"
	}
	return "http://www.openspf.net/Why?s=" + scope + ";id=" + id + ";ip=" + q.ip.String() + ";r=" + recipient
}
