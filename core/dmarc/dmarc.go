// Package dmarc tells whether a message really comes from the domain that its From
// field shows (RFC 9989, which replaced RFC 7489).
//
//	r := dmarc.Evaluate(ctx, resolver, dmarc.Input{
//		From: fromFields,
//		SPF:  []dmarc.SPF{{Identity: "mfrom", Domain: "example.org", Result: "pass"}},
//		DKIM: []dmarc.DKIM{{Domain: "example.com", Result: "fail"}},
//	}, dmarc.Options{})
//	if r.Verdict == dmarc.Fail && r.Disposition == dmarc.Reject { … }
//
// Evaluate answers for a message. Lookup finds the record that holds for a domain, and
// its organizational domain, by the DNS tree walk or with the public suffix list of RFC
// 7489. FromDomains reads the From field. ExternalAllowed asks whether somebody wants
// the reports that another domain's record sends there. Package report, below this one,
// reads and writes the reports themselves.
//
// A verdict is about a domain, not about a person or a message: the local part and
// the display name are looked at by nobody. Names are compared in lower case, as
// A-labels and without their last dot, in whatever form they come.
//
// What a message can make Evaluate do is bounded: 8 questions for each author domain
// and for each identifier that might align, and never the same twice. At most 4 author
// domains are looked at, 16 identifiers of SPF and 16 of DKIM.
//
// # BUGS
//
// The public suffix list is the one that was compiled in; it ages with the program.
// An author domain that does not exist is told by the answer to one question for its
// addresses: a server that says NXDOMAIN for a name which has only other names below
// it is believed. Extended alignment, by anything but SPF and DKIM, is not known.
package dmarc

import (
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// Policy is what a domain owner wants done to mail that fails (RFC 9989 §4.7, "p").
type Policy string

// The policies. The zero value means that none was given.
const (
	None       Policy = "none"
	Quarantine Policy = "quarantine"
	Reject     Policy = "reject"
)

// weight orders policies by how strict they are.
func (p Policy) weight() int {
	switch p {
	case Quarantine:
		return 1
	case Reject:
		return 2
	}
	return 0
}

// milder is the policy one level below.
func (p Policy) milder() Policy {
	if p == Reject {
		return Quarantine
	}
	return None
}

// Mode says where a domain ends that belongs to one owner.
type Mode uint8

// The modes.
const (
	TreeWalk Mode = iota // records in the DNS say so (RFC 9989 §4.10)
	PSL                  // the public suffix list says so (RFC 7489 §3.2), and "pct" counts
)

// String is the mode as reports name it (RFC 9990 §3.1.1.5).
func (m Mode) String() string {
	if m == PSL {
		return "psl"
	}
	return "treewalk"
}

// maxName is the octets of a domain name without its last dot (RFC 1035 §2.3.4).
const maxName = 253

// canonical is a domain in lower case, in A-labels and without its last dot. It is
// false for what is no name that could be looked up: a literal, a number, nonsense.
func canonical(domain string) (string, bool) {
	if len(domain) > 4*maxName { // before it is looked at any closer
		return "", false
	}
	d := mail.DomainKey(strings.TrimSpace(domain))
	d = strings.TrimSuffix(d, ".")
	if len(d) > maxName || strings.HasPrefix(d, "[") || !mail.ValidDomain(d) {
		return "", false
	}
	for i := 0; i < len(d); i++ {
		if d[i] >= 0x80 {
			return "", false
		}
	}
	if last := d[strings.LastIndexByte(d, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		return "", false // an address without its brackets
	}
	return d, true
}

// within reports whether a canonical domain is top or below it.
func within(domain, top string) bool {
	return domain == top || strings.HasSuffix(domain, top) && domain[len(domain)-len(top)-1] == '.'
}
