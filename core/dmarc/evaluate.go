package dmarc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/dns"
)

// Verdict is the outcome of DMARC in the words of Authentication-Results (RFC 9989
// §9.2).
type Verdict string

// The verdicts.
const (
	NoRecord  Verdict = "none"      // the author domain has no record that says anything
	Pass      Verdict = "pass"      // an identifier that was authenticated is aligned
	Fail      Verdict = "fail"      // none is: Disposition holds
	TempError Verdict = "temperror" // not to be known this time: mail should be deferred
	PermError Verdict = "permerror" // the From field has no author domain, or could be read in two ways
)

// Input is what is known of a message.
type Input struct {
	From []string // the values of all From fields, folded or not
	// Authors are the author domains, for who has them already. They are used instead
	// of From if there are any.
	Authors []string
	SPF     []SPF
	DKIM    []DKIM
}

// SPF is a result of RFC 7208. DMARC looks at the identity "mfrom" only. The identity
// "helo" stands in if there is no result at all for "mfrom", as with the null
// reverse-path (RFC 7208 §2.4); so always give that of "mfrom", whatever it is.
type SPF struct {
	Identity string // "mfrom" or "helo"
	Domain   string
	Result   string // "pass", "temperror" or another
}

// DKIM is the result of one signature.
type DKIM struct {
	Domain string // d=
	Result string // "pass", "temperror" or another
}

// Options changes what Evaluate does. The zero value follows RFC 9989.
type Options struct {
	Mode Mode
	// OneAuthor refuses, with PermError, to judge a message with several author domains.
	// Otherwise each is judged, the message passes only if all do, and the strictest
	// policy of those that fail applies (RFC 9989 §11.5).
	OneAuthor  bool
	MaxAuthors int // author domains that are looked at; 4. With more, no message passes
	// Sampling heeds "pct" with TreeWalk too. RFC 9989 abolished it, but many records
	// that were written before still have it.
	Sampling bool
	Random   func(n int) int // a number from 0 to n-1, for "pct"; nil: math/rand
}

// Result is the answer for a message. Where it has several author domains, it is that
// of the one that counts.
type Result struct {
	Verdict      Verdict
	Author       string // author domain, canonical; "" if there is none
	PolicyDomain string // where the record was found
	Record       Record
	OrgDomain    string // organizational domain of Author
	Policy       Policy // what the record wants done with failing mail from Author; "" without a record
	// Disposition is what is to be done: Policy for mail that fails, or a milder one
	// if Exempt says why; else None.
	Disposition Policy
	// Exempt is "policy_test_mode" (t=y) or "sampled_out" (pct), in the words of
	// aggregate reports (RFC 9990 §3.1.6, RFC 7489 Appendix C).
	Exempt      string
	AlignedSPF  string   // the domain that aligns and passed, "" if none
	AlignedDKIM string   // likewise
	Authors     []string // all author domains
	Reasons     []string // what the verdict rests on, for people
}

// maxIdentifiers is how many authenticated domains are compared.
const maxIdentifiers = 16

// Evaluate judges a message.
func Evaluate(ctx context.Context, r dns.Resolver, in Input, o Options) Result {
	if o.MaxAuthors <= 0 {
		o.MaxAuthors = 4
	}
	if o.Random == nil {
		o.Random = rand.IntN
	}
	authors, err := in.authors()
	switch {
	case len(authors) == 0:
		return Result{Verdict: PermError, Disposition: None, Reasons: []string{err.Error()}}
	case len(authors) > 1 && o.OneAuthor:
		return Result{
			Verdict: PermError, Disposition: None, Author: authors[0], Authors: authors,
			Reasons: []string{fmt.Sprintf("there are %d author domains", len(authors))},
		}
	}
	e := &evaluation{walker: newWalker(r, o.Mode), o: o}
	e.identifiers(in)
	var worst Result
	for i, a := range authors[:min(len(authors), o.MaxAuthors)] {
		if got := e.judge(ctx, a); i == 0 || got.rank() > worst.rank() {
			worst = got
		}
	}
	worst.Authors = authors
	if len(authors) > o.MaxAuthors && err == nil {
		err = fmt.Errorf("there are %d author domains, of which %d were looked at", len(authors), o.MaxAuthors)
	}
	if err != nil {
		worst.Reasons = append(worst.Reasons, err.Error())
		if worst.Verdict == Pass || worst.Verdict == NoRecord {
			worst.Verdict = PermError
		}
	}
	return worst
}

// authors are the author domains. The error is set if that might not be all.
func (in Input) authors() ([]string, error) {
	if len(in.Authors) == 0 {
		return FromDomains(in.From)
	}
	var list []string
	var err error
	for _, a := range in.Authors {
		name, ok := canonical(a)
		if !ok {
			err = fmt.Errorf("author domain %.80q is no domain name", a)
		} else if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list, err
}

// rank orders results of several authors by which of them counts.
func (r Result) rank() int {
	switch r.Verdict {
	case Fail:
		return 10 + r.Disposition.weight()
	case TempError:
		return 3
	case PermError:
		return 2
	case NoRecord:
		return 1
	}
	return 0
}

// evaluation is the work on one message.
type evaluation struct {
	*walker
	o         Options
	spf, dkim []identifier
}

// identifier is a domain that was authenticated, or might have been.
type identifier struct {
	domain string
	unsure bool // the result was temperror
}

// identifiers picks the results that matter.
func (e *evaluation) identifiers(in Input) {
	mfrom := slices.ContainsFunc(in.SPF, func(s SPF) bool { return !strings.EqualFold(s.Identity, "helo") })
	for _, s := range in.SPF {
		if !mfrom || !strings.EqualFold(s.Identity, "helo") {
			e.spf = e.identifier(e.spf, s.Domain, s.Result)
		}
	}
	for _, d := range in.DKIM {
		e.dkim = e.identifier(e.dkim, d.Domain, d.Result)
	}
}

// identifier adds a domain to a list, or does not.
func (e *evaluation) identifier(list []identifier, domain, result string) []identifier {
	id := identifier{unsure: strings.EqualFold(result, "temperror")}
	if !id.unsure && !strings.EqualFold(result, "pass") {
		return list
	}
	var ok bool
	if id.domain, ok = canonical(domain); !ok || slices.Contains(list, id) {
		return list
	}
	if len(list) == maxIdentifiers {
		e.note("more than %d identifiers, the others were not compared", maxIdentifiers)
		return list
	}
	return append(list, id)
}

// judge evaluates one author domain.
func (e *evaluation) judge(ctx context.Context, author string) Result {
	res := Result{Author: author, OrgDomain: author, Disposition: None}
	d, ok, err := e.policy(ctx, author)
	res.OrgDomain = d.Org
	switch {
	case err != nil:
		return e.end(res, TempError, err.Error())
	case !ok:
		return e.end(res, NoRecord, "no record applies to "+author)
	}
	res.PolicyDomain, res.Record = d.Domain, d.Record
	a := alignment{evaluation: e, author: author, at: d}
	var maybeSPF, maybeDKIM string
	res.AlignedSPF, maybeSPF = a.first(ctx, e.spf, d.Record.ASPF)
	res.AlignedDKIM, maybeDKIM = a.first(ctx, e.dkim, d.Record.ADKIM)
	res.OrgDomain = a.at.Org
	res.Policy = d.Record.P
	if author != d.Domain {
		res.Policy = d.Record.forSubdomain(true)
	}
	switch {
	case res.AlignedSPF != "" || res.AlignedDKIM != "":
		return e.end(res, Pass, fmt.Sprintf("%s aligns", or(res.AlignedDKIM, res.AlignedSPF)))
	case a.err != nil:
		return e.end(res, TempError, a.err.Error())
	case maybeSPF != "" || maybeDKIM != "":
		// RFC 9989 §5.3.6, RFC 7489 §6.6.2: who failed for the moment did not fail.
		return e.end(res, TempError, fmt.Sprintf("whether %s is authentic could not be found out", or(maybeDKIM, maybeSPF)))
	}
	if author != d.Domain && d.Record.NP != "" && d.Record.NP != res.Policy {
		exists, err := e.exists(ctx, author)
		if err != nil {
			return e.end(res, TempError, err.Error())
		}
		res.Policy = d.Record.forSubdomain(exists)
	}
	e.dispose(&res)
	return e.end(res, Fail, "nothing aligns with "+author)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// end completes a result.
func (e *evaluation) end(res Result, v Verdict, reason string) Result {
	res.Verdict = v
	res.Reasons = append([]string{reason}, e.notes...)
	return res
}

// forSubdomain is the policy for a domain below that of the record (RFC 9989 §4.10.1).
func (r Record) forSubdomain(exists bool) Policy {
	switch {
	case !exists && r.NP != "":
		return r.NP
	case r.SP != "":
		return r.SP
	}
	return r.P
}

// dispose applies the test mode (RFC 9989 §4.7, "t") or the sampling (RFC 7489
// §6.6.4), never both: "t=y" is what replaced "pct=0".
func (e *evaluation) dispose(res *Result) {
	res.Disposition = res.Policy
	switch {
	case res.Policy == None:
	case res.Record.Test:
		res.Disposition, res.Exempt = res.Policy.milder(), "policy_test_mode"
	case res.Record.Percent < 100 && (e.o.Sampling || e.o.Mode == PSL) && e.o.Random(100) >= res.Record.Percent:
		res.Disposition, res.Exempt = res.Policy.milder(), "sampled_out"
	}
}

// alignment compares identifiers with an author domain.
type alignment struct {
	*evaluation
	author string
	at     Discovery
	orgs   bool // at.Org has been determined
	err    error
}

// first is the first identifier that passed and aligns, and the first that would
// align and may have passed (RFC 9989 §4.10.2).
func (a *alignment) first(ctx context.Context, list []identifier, mode Alignment) (aligned, maybe string) {
	// The same domain needs no question.
	for _, id := range list {
		if id.domain == a.author && !id.unsure {
			return id.domain, ""
		}
	}
	for _, id := range list {
		if id.unsure && maybe != "" || !a.aligns(ctx, id.domain, mode) {
			continue
		}
		if !id.unsure {
			return id.domain, ""
		}
		maybe = id.domain
	}
	return "", maybe
}

// aligns compares one identifier with the author.
func (a *alignment) aligns(ctx context.Context, domain string, mode Alignment) bool {
	if domain == a.author || mode == Strict {
		return domain == a.author
	}
	if !a.orgs {
		org, err := a.org(ctx, a.author)
		if err != nil {
			a.err = err
			return false
		}
		a.at.Org, a.orgs = org, true
	}
	// An organizational domain is the domain itself or above it, so most identifiers of
	// others can be told without a question.
	if !within(domain, a.at.Org) {
		return false
	}
	org, err := a.org(ctx, domain)
	if err != nil {
		a.err = err
		return false
	}
	return org == a.at.Org
}
