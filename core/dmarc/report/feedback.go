package report

import "time"

// Feedback is a DMARC aggregate report (RFC 9990 §3.1). Words such as policies and
// results are as the report has them; "" is what it did not say.
type Feedback struct {
	Version    string
	Org        string
	Email      string
	Contact    string // more of how to reach the sender
	ID         string
	Begin, End time.Time
	Errors     []string
	Generator  string
	Policy     Published
	Extensions []Extension
	Records    []Record
}

// Published is the policy record as the sender of the report saw it.
type Published struct {
	Domain      string
	P, SP, NP   string
	ADKIM, ASPF string // "r" or "s"
	FO          string
	Testing     string // "y" or "n"
	Discovery   string // "psl" or "treewalk"
	Percent     string // pct, of RFC 7489 only
}

// Record counts the messages that had all of this in common.
type Record struct {
	Source      string // IP address
	Count       int64
	Disposition string // "none", "pass", "quarantine" or "reject"
	DKIM, SPF   string // "pass" or "fail": whether there was an aligned pass
	Reasons     []Reason

	HeaderFrom   string
	EnvelopeFrom string
	EnvelopeTo   string

	DKIMResults []DKIMResult
	SPFResults  []SPFResult
	Extensions  []Extension
}

// Reason says why the policy was not applied (RFC 9990 §3.1.6).
type Reason struct {
	Type    string // "local_policy", "mailing_list", "policy_test_mode", "trusted_forwarder" or "other"
	Comment string
}

// DKIMResult is the result of one signature.
type DKIMResult struct{ Domain, Selector, Result, Human string }

// SPFResult is the result of SPF.
type SPFResult struct{ Domain, Scope, Result, Human string }

// Extension names something in a report that is of no standard: an "extension" by its
// name and definition, another element by its own name and its namespace.
type Extension struct{ Name, Definition string }
